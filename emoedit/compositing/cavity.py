"""The inside of a mouth that an edit opens.

A small model is unsure how far a mouth opens and draws the mean: lips, gap and tongue as one dark blur. Landmarks of
that blur say where its lips are. The lips that are shown are the photograph's own, moved there
(:func:`emoedit.compositing.lips.lip_flow`); what is seen between them is drawn, as photographs show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from emoedit.compositing.curves import filled, outline
from emoedit.compositing.flow import ramp
from emoedit.compositing.mouth import LARGER
from emoedit.faces.layout import INNER, OUTER, PAIRS

SMALL = 128  # pixels: larger drawings show the inside of a mouth themselves
PARTED = 0.006  # of the crop's side: lips that come less apart than that open no mouth
DARKER = 0.1  # than it was, relatively: what is between lips that part over teeth becomes brighter
# Levels from the upper lip to the lower one, skin being 1: between the lower quartile and the median of 131 real mouths
# of surprised people, in whose middle the tongue lies below the dark.
DEPTH = (0.0, 0.15, 0.35, 0.5, 0.7, 0.88, 1.0)
DARK = (0.30, 0.20, 0.14, 0.13, 0.14, 0.17, 0.22)
TONGUE = (0.30, 0.20, 0.14, 0.17, 0.32, 0.44, 0.40)
DEEPEST = min(DARK)
SOFT, PIXEL = 0.003, 1.2  # how soft the edges are: of the crop's side, and pixels of the photograph at least
BLUR = 1.3  # times as soft as the photograph's own edges at least
OWN, AROUND, FADE = 0.9, 0.065, 0.015  # share of lips' light that stays as it was; of the side: how far around them


def opens_mouth(points: tuple[np.ndarray, np.ndarray], before: np.ndarray, after: np.ndarray) -> bool:
    """Whether lips part in front of the dark inside of a mouth, and not of teeth, in a drawing too small to show it.

    Args:
        points: 68 landmarks of the two, ``[68, 2]`` each, in pixels of the crop.
        before, after: two drawings, float32 ``[R, R]``, 0 to 255.
    """
    apart = [np.mean([np.linalg.norm(p[i] - p[k]) for i, k in PAIRS]) for p in points]
    if len(after) > SMALL or apart[1] - apart[0] < PARTED * len(after):
        return False
    inside = filled(points[-1][INNER], len(after)) > 0.5
    return bool(inside.any() and after[inside].mean() < (1 - DARKER) * before[inside].mean())


def dark_patch(points: np.ndarray, after: np.ndarray, skin: float, mouth: np.ndarray) -> np.ndarray:
    """Where a drawing shows the dark inside of a mouth, on a grid ``LARGER`` times as fine.

    A blurred edge is where its level is half-way: between the darkest place between the lips and skin.

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.  after: float32 ``[R, R]``.  skin: its level.
        mouth: ``[R, R]`` in [0, 1]; there is none outside.

    Returns:
        bool ``[kR, kR]``: what hangs together with what is between the lips by their landmarks.
    """
    size = (len(after) * LARGER,) * 2
    inside = filled(outline(points[INNER]), len(after), LARGER) > 0.5
    fine = cv2.resize(after, size, interpolation=cv2.INTER_CUBIC)
    dark = (fine < (fine[inside].min() + skin) / 2) & (cv2.resize(mouth, size) > 0.5)
    _, labels = cv2.connectedComponents(dark.astype(np.uint8))
    return dark & np.isin(labels, np.unique(labels[inside & dark]))


@dataclass(frozen=True)
class Between:
    """What is between lips, on a grid :data:`~emoedit.compositing.mouth.LARGER` times as fine as the crop.

    Args:
        mask: float32 ``[kR, kR]`` in [0, 1].  below: how far a pixel is below the upper lip, in pixels of the grid.
        height: between upper and lower lip, ``[kR]``.  ends: x of the corners.  soft: how soft edges are, in pixels.
    """

    mask: np.ndarray
    below: np.ndarray
    height: np.ndarray
    ends: tuple[float, float]
    soft: float

    @classmethod
    def lips(cls, points: np.ndarray, side: int, zoom: float, blur: float) -> Between:
        """Of a drawing.

        Args:
            points: ``[68, 2]`` landmarks in pixels of the crop.  side: the crop's.
            zoom: pixels of the photograph in one of the crop.  blur: of its edges, in its pixels.
        """
        soft = max(SOFT * side, PIXEL / zoom, BLUR * blur / zoom) * LARGER
        mask = cv2.GaussianBlur(filled(outline(points[INNER]), side, LARGER), (0, 0), soft)
        mask = ramp(mask, 0.15, 0.85).astype(np.float32)
        height = mask.sum(0)
        rows = np.arange(side * LARGER, dtype=np.float32)[:, None]
        middle = (mask * rows).sum(0) / np.maximum(height, 1e-3)
        ends = (points[INNER][[0, 4], 0] + 0.5) * LARGER - 0.5
        return cls(mask, rows - (middle - height / 2), height, tuple(sorted(map(float, ends))), soft)


def cavity(between: Between, skin: float | np.ndarray, *, tongue: float = 1.0) -> np.ndarray:
    """How bright the inside of an open mouth is: float32 ``[kR, kR]``.

    Args:
        skin: its level, 0 to 255.  tongue: how much of it is seen, in [0, 1].
    """
    depth = between.below / np.maximum(between.height, 1.0)
    middle, half = np.mean(between.ends), max(np.ptp(between.ends) / 2, LARGER)
    across = (np.arange(len(between.height)) - middle) / half
    tongue = tongue * ramp(1 - np.abs(across), 0.15, 0.75)
    dark, pale = (np.interp(depth, DEPTH, level) for level in (DARK, TONGUE))
    return ((dark + tongue * (pale - dark)) * skin).astype(np.float32)


def beside_own_lips(points: np.ndarray, side: int) -> np.ndarray:
    """The share of the light that a drawing changes: less of it on lips. A small model's blur of them is half the dark
    between them and half the skin beside them; the photograph's own, moved, are better.

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.  side: R.

    Returns:
        float32 ``[R, R]`` in [0, 1].
    """
    mask = cv2.dilate(filled(points[OUTER], side), np.ones((round(AROUND * side) | 1,) * 2))
    return 1 - OWN * cv2.GaussianBlur(mask, (0, 0), FADE * side)

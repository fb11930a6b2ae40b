"""The inside of a mouth that an edit opens.

A small model is unsure how far a mouth opens and draws the mean: lips, gap and tongue as one dark blur. Landmarks of
that blur say where its lips are. The lips that are shown are the photograph's own, moved there
(:func:`emoedit.faces.lips.lip_flow`); what is seen between them is drawn, as photographs show it.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.faces.curves import filled, outline
from emoedit.faces.flow import ramp
from emoedit.faces.layout import INNER, OUTER, PAIRS
from emoedit.faces.mouth import LARGER

SMALL = 128  # pixels: larger drawings show the inside of a mouth themselves
PARTED = 0.006  # of the crop's side: lips that come less apart than that open no mouth
DARKER = 0.1  # than it was, relatively: what is between lips that part over teeth becomes brighter
# Levels from the upper lip to the lower one, skin being 1: between the lower quartile and the median of 131 real mouths
# of surprised people, in whose middle the tongue lies below the dark.
DEPTH = (0.0, 0.15, 0.35, 0.5, 0.7, 0.88, 1.0)
DARK = (0.30, 0.20, 0.14, 0.13, 0.14, 0.17, 0.22)
TONGUE = (0.30, 0.20, 0.14, 0.17, 0.32, 0.44, 0.40)
SOFT, PIXEL = 0.003, 1.2  # how soft the edges are: of the crop's side, and pixels of the photograph at least
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


def cavity(points: np.ndarray, side: int, skin: float, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Where it is and how bright: float32 ``[kR, kR]`` each (k = :data:`~emoedit.faces.mouth.LARGER`).

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.  side: the crop's.  skin: its median level, 0 to 255.
        zoom: pixels of the photograph in one of the crop.
    """
    size = side * LARGER
    soft = max(SOFT * side, PIXEL / zoom) * LARGER
    mask = cv2.GaussianBlur(filled(outline(points[INNER]), side, LARGER), (0, 0), soft)
    mask = ramp(mask, 0.15, 0.85).astype(np.float32)
    height = mask.sum(0)
    rows = np.arange(size, dtype=np.float32)[:, None]
    middle = (mask * rows).sum(0) / np.maximum(height, 1e-3)
    depth = (rows - (middle - height / 2)) / np.maximum(height, 1.0)
    ends = points[INNER][[0, 4], 0]
    across = (np.arange(size) / LARGER - ends.mean()) / max(np.ptp(ends) / 2, 1.0)
    tongue = ramp(1 - np.abs(across), 0.15, 0.75)
    dark, pale = (np.interp(depth, DEPTH, level) for level in (DARK, TONGUE))
    return mask, ((dark + tongue * (pale - dark)) * skin).astype(np.float32)


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

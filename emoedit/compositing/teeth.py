"""Rows of teeth that an edit shows: which are new, how bright they are, and how they are laid into a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emoedit.compositing.flow import ramp, sample
from emoedit.compositing.mouth import LARGER, teeth_level

SURE = (0.2, 0.45)  # how likely teeth are where they begin, and where they are whole
ROW = (0.5, 0.35)  # how likely they are at the surest place of a row, and in its mean: else it is a gleam on a lip
WIDTH = 0.14  # of the crop's side: a narrower row would be a single tooth
BETWEEN = 0.3  # share of a row that lies between the lips by their landmarks: else it is the gleam of one of them
LOW = 0.04  # of the crop's side: how far below the middle of what is between them: lower, it is the lower lip's gleam
EVEN = 0.6  # how far a row reaches to one side of the mouth's middle, the other side being 1
WERE = (0.5, 0.8)  # how likely they were before where a photograph keeps its own
LOST = 0.5  # how likely they are at the surest place, of what they were, where they went
LEVEL = 0.97  # of what teeth reflect in this light: how bright the brighter half of a row is at least
MOST_LIGHT = 40  # grey levels: a row in a shadow stays in it
PUPILS = 63.0  # mm apart (Dodgson 2004)
TEETH = (8.5, 6.5, 5.5, 4.0, 3.0, 2.0)  # mm, from the middle: upper ones (Ash & Nelson 2003), as seen from the front
GAP = 0.45  # mm
CORNER = (14.0, 30.0)  # mm from the middle, where the corners of a mouth throw their shadow
DARKER = (0.05, 0.03, 0.12)  # of their level: at a gap, as a tooth rounds towards it, in the corners
EDGE = 0.6  # crop pixels, of which what is laid in fades
NEAR, GLOW = 0.11, 0.03  # of the crop's side: lips beside teeth; of the skin's level: how much brighter they may become
UNLIT = 0.9  # of what is more


@dataclass(frozen=True)
class DrawnMouth:
    """A sharp mouth of a crop, on a grid ``LARGER`` times as fine: float32 ``[kR, kR]`` each.

    Args:
        levels: grey levels, 0 to 255.  teeth: in [0, 1], how likely they are.  cover: in [0, 1], where both are known.
        eyes: how far the pupils are apart, in pixels of this grid.
    """

    levels: np.ndarray
    teeth: np.ndarray
    cover: np.ndarray
    eyes: float


@dataclass(frozen=True)
class Rows:
    """New rows of teeth, on the mouth's grid: float32 ``[kR, kR]`` each.

    Args:
        share: in [0, 1], where they are.  levels: grey levels of the mouth with them in it.  laid: in [0, 1], where it
            is drawn: they, and the edge around them.
    """

    share: np.ndarray
    levels: np.ndarray
    laid: np.ndarray

    def small(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All three in the crop's own pixels, ``[side, side]``."""
        share, levels, laid = (_shrunk(m, side) for m in (self.share, self.levels, self.laid))
        return share, levels, laid


def _shrunk(mask: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)


def went(mouths: Sequence[DrawnMouth]) -> bool:
    """Whether teeth are seen in the first mouth and hardly in the last.

    By brightness alone that is not known: a chin that comes to lie where they were is as pale as blurred teeth.
    """
    first, last = mouths[0].teeth.max(), mouths[-1].teeth.max()
    return bool(first >= ROW[0] and last < LOST * first)


def new_rows(
    mouths: Sequence[DrawnMouth], flow: np.ndarray, mouth: np.ndarray, inside: np.ndarray, skin: float
) -> Rows:
    """The rows of teeth of an edit that the photograph did not show.

    Args:
        mouths: of reconstruction and edit.  flow: between them, ``[R, R, 2]``.
        mouth: ``[R, R]`` in [0, 1]: there are none outside.  inside: ``[R, R]`` in [0, 1]: between the lips.
        skin: its median level, 0 to 255.
    """
    first, last = mouths
    side, size = len(mouth), last.teeth.shape
    were = cv2.dilate(
        sample(_shrunk(first.teeth, side), flow), np.ones((3, 3), np.uint8)
    )  # their edges are theirs, too
    likely = last.teeth * cv2.resize((1 - ramp(were, *WERE)) * mouth, size, interpolation=cv2.INTER_LINEAR)
    share = ramp(likely, *SURE).astype(np.float32)
    between = cv2.resize(inside, size, interpolation=cv2.INTER_LINEAR)
    middle, height = (between.sum(axis) @ np.arange(len(share)) / max(between.sum(), 1e-6) for axis in (0, 1))
    count, labels, stats, _ = cv2.connectedComponentsWithStats((share > 0).astype(np.uint8))
    for n in range(1, count):
        here, (left, width) = labels == n, stats[n, [cv2.CC_STAT_LEFT, cv2.CC_STAT_WIDTH]]
        sides = sorted((middle - left, left + width - middle))
        found = (
            (width, WIDTH * len(share)),
            (sides[0], EVEN * sides[1]),
            (likely[here].max(), ROW[0]),
            (likely[here].mean(), ROW[1]),
            (between[here].mean(), BETWEEN),
            (height + LOW * len(share), np.nonzero(here)[0].mean()),
        )
        if any(value < least for value, least in found):
            share[here] = 0
    levels = last.levels
    if (share > 0.5).any():
        missing = LEVEL * teeth_level(skin) - float(np.percentile(levels[share > 0.5], 60))
        levels = levels + np.clip(missing, 0, MOST_LIGHT) * cv2.GaussianBlur(share, (0, 0), 0.4 * LARGER)
    levels = levels * (1 - share * gaps(len(share), middle, last.eyes))
    around = cv2.dilate(share, np.ones((2 * LARGER + 1,) * 2, np.uint8))
    return Rows(share, levels, cv2.GaussianBlur(around, (0, 0), EDGE * LARGER) * last.cover)


def lay_in(rows: Rows, drawing: np.ndarray, moved: np.ndarray, mouth: np.ndarray, skin: float) -> np.ndarray:
    """The drawing with teeth in it. A model that is unsure where they end has whitened the lips around them: these
    become as dark as they were.

    Args:
        drawing: ``[R, R]`` grey levels.  moved: what it was drawn from, moved onto it.
        mouth: ``[R, R]`` in [0, 1].  skin: its median level.
    """
    side = len(drawing)
    share, levels, laid = rows.small(side)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (round(NEAR * side) | 1,) * 2)
    lips = cv2.GaussianBlur(cv2.dilate(share, disc), (0, 0), 0.02 * side) * (1 - laid) * mouth
    drawing = drawing - UNLIT * lips * np.maximum(drawing - moved - GLOW * skin, 0)
    return drawing + laid * (levels - drawing)


def gaps(width: int, middle: float, eyes: float) -> np.ndarray:
    """How much darker a row of teeth is where one ends and the next begins, and towards its ends: ``[1, width]``.

    Nobody's own teeth: those of average width, the middle ones on both sides of the lips' middle.

    Args:
        middle, eyes: where that is and how far the pupils are apart, in pixels.
    """
    x = (np.arange(width) - middle) * PUPILS / eyes
    ends = np.cumsum(TEETH)
    ends = np.concatenate([-ends[::-1], [0], ends])
    after = np.searchsorted(ends, x).clip(1, len(ends) - 1)
    left, right = ends[after - 1], ends[after]
    near = np.minimum(np.abs(x - left), np.abs(x - right))
    line = np.exp(-0.5 * (near / GAP) ** 2)
    rounded = np.clip(1 - 2 * near / (right - left), 0, 1) ** 2
    away = ramp(np.abs(x), *CORNER)
    return (DARKER[0] * line + DARKER[1] * rounded + DARKER[2] * away)[None].astype(np.float32)

"""Edges of skin between two small drawings: what they lose though no emotion takes it away, and what tears.

A diffusion model of a hundred pixels draws an edited face a little softer than the one it was given: bags under eyes,
the shadow beside a nose, a beard and a hand at the cheek grow faint, and with them goes the person. Creases that an
emotion makes are new edges, and stay. So edges may come, but hardly fade, except in eyes and mouths, which change by
their landmarks (``eyes``, ``lips``). And no edge comes that is sharper than creases
are: pale patches beside a nose and specks at a temple are a model's that does not know what it sees.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.compositing.curves import filled
from emoedit.faces.layout import EYES

BLURRED = 100  # pixels: what a larger drawing shows less of is less of it
KEPT = 0.85  # of an edge that fades
GLEAM, CREASE = 0.08, 0.2  # of skin's level: by how much an edge becomes brighter or darker at most
EDGE = 0.15  # of the crop's side: what varies more slowly is light
AROUND, SOFT = 0.05, 0.015  # of the side: how far around lids, and how softly that ends


def faded(before: np.ndarray, after: np.ndarray, where: np.ndarray) -> np.ndarray:
    """What edges lose between two drawings of which nothing moves: added to ``after`` they are as they were.

    Args:
        before, after: float32 ``[R, R]``, grey levels.
        where: float32 ``[R, R]`` in [0, 1]: where it is looked for; a mouth that becomes dark makes no cheek brighter.

    Returns:
        float32 ``[R, R]``, grey levels; 0 where an edge is as strong or stronger, and no more than the edge was where
        it turns into its opposite.
    """
    was, change = _edges(before, where), _edges(after - before, where)
    lost = np.where(was * change < 0, -np.sign(change) * np.minimum(np.abs(change), np.abs(was)), 0)
    return (lost * where).astype(np.float32)


def torn(before: np.ndarray, after: np.ndarray, where: np.ndarray, skin: float) -> np.ndarray:
    """By how much edges become sharper than creases are.

    Args:
        before, after, where: as :func:`faded` has them.  skin: its level.

    Returns:
        float32 ``[R, R]``, grey levels to take from ``after``.
    """
    change = _edges(after - before, where)
    most = np.where(change > 0, GLEAM, CREASE) * skin
    return ((change - most * np.tanh(change / most)) * where).astype(np.float32)


def _edges(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """What varies fast, within ``where``."""
    spread = EDGE * len(where)
    share = np.maximum(cv2.GaussianBlur(where, (0, 0), spread), 1e-3)
    return picture - cv2.GaussianBlur(picture * where, (0, 0), spread) / share


def beside_eyes(points: np.ndarray, side: int) -> np.ndarray:
    """1 away from the eyes, 0 in them: float32 ``[R, R]``.

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.  side: R.
    """
    eyes = np.maximum(*(filled(points[eye], side) for eye in EYES))
    near = cv2.dilate(eyes, np.ones((round(AROUND * side) | 1,) * 2, np.uint8))
    return 1 - cv2.GaussianBlur(near, (0, 0), SOFT * side)

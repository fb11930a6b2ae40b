"""Eyes and brows between two drawings of a face: where they go, and whose eyes are shown.

A small model draws an iris of five pixels as a blur, and one that squints in places where lids move; flow between such
drawings stretches the iris of a photograph with the lids. Landmarks say where these go. The eye between them is the
photograph's own, in its own light.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.faces.lips import filled, led

BROWS, RIGHT, LEFT = range(17, 27), range(36, 42), range(42, 48)  # of the 68 landmarks of 300-W
REACH = 0.05  # of the crop's side: how far a lid or a brow takes the skin beside it along
NOISE = 0.3  # how far a landmark may be off: more than those of lips, beside what they move
OWN, FADE = 0.85, 0.01  # share of eyes' light that stays as it was; of the side: how softly that ends


def eye_flow(before: np.ndarray, after: np.ndarray, resolution: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The movement of lids and brows, and how near they are, as :func:`emoedit.faces.lips.lip_flow` gives both."""
    return led(before, after, (*BROWS, *RIGHT, *LEFT), resolution, side, reach=REACH, noise=NOISE)


def beside_own_eyes(points: np.ndarray, side: int) -> np.ndarray:
    """The share of the light that a drawing changes: little of it between lids.

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.  side: R.

    Returns:
        float32 ``[R, R]`` in [0, 1].
    """
    eyes = np.maximum(filled(points[RIGHT], side), filled(points[LEFT], side))
    return 1 - OWN * cv2.GaussianBlur(cv2.dilate(eyes, np.ones((3, 3), np.uint8)), (0, 0), FADE * side)

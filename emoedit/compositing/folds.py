"""The folds that a smile draws into cheeks, in a photograph whose smile goes.

A small model draws them as soft shadows, and takes these away; their lines are finer than its crops. They would stay
behind as marks beside a mouth that smiles no more, so they go with the smile.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.compositing.flow import ramp
from emoedit.faces.layout import CORNERS, EYES, OUTER

FOLD_SIDE = 384  # of the crop in which lines are looked for
SMILE = (0.8, 0.88)  # how wide a mouth is, between the eyes being 1: from neutral to a smile
NARROWER = (0.02, 0.06)  # how much narrower it has to become for the smile to go
LONG, FINE, WIDE = 0.02, 0.004, 0.03  # of the side: how long, fine and wide a line is
PASSES = 2  # what one leaves of a curved line, the next one takes
SLANTS = tuple(range(0, 180, 20))  # degrees from upright
BESIDE = 0.02  # of the side: how far from the lips lines are taken for those of cheeks


def unsmiling(before: np.ndarray, after: np.ndarray) -> float:
    """How far a smile goes between two drawings, 0 to 1: a wide mouth that becomes narrower.

    Args:
        before, after: ``[68, 2]`` landmarks.
    """

    def width(points: np.ndarray) -> float:
        eyes = np.linalg.norm(points[EYES[0]].mean(0) - points[EYES[1]].mean(0))
        return float(np.linalg.norm(points[CORNERS[0]] - points[CORNERS[1]]) / max(eyes, 1.0))

    was, now = width(before), width(after)
    return float(ramp(was, *SMILE) * ramp(was - now, *NARROWER))


def fold_lines(detail: np.ndarray) -> np.ndarray:
    """The lines in a cheek's detail, dark and bright ones: what is left has its pores and its light, but no folds.

    Args:
        detail: float32 ``[S, S]``, upright: what a photograph shows beyond the light of a drawing (S is
            :data:`FOLD_SIDE`).

    Returns:
        float32 ``[S, S]``, grey levels: less them, the detail has no such lines.
    """
    side = len(detail)
    left, lines = detail, np.zeros_like(detail)
    for _ in range(PASSES):
        band = left - cv2.GaussianBlur(left, (0, 0), WIDE * side)
        responses = np.stack([cv2.filter2D(band, -1, _along(slant, side)) for slant in SLANTS])
        found = np.take_along_axis(responses, np.abs(responses).argmax(0)[None], 0)[0]
        left, lines = left - found, lines + found
    return lines


def _along(degrees: float, side: int) -> np.ndarray:
    """A kernel that averages along a line: ``[K, K]``, sum 1. 0 degrees is upright, positive ones lean right below."""
    reach = round(2.5 * LONG * side)
    x, y = np.meshgrid(*[np.arange(-reach, reach + 1, dtype=np.float32)] * 2)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across, along = c * x - s * y, s * x + c * y
    kernel = np.exp(-0.5 * ((across / (FINE * side)) ** 2 + (along / (LONG * side)) ** 2))
    return (kernel / kernel.sum()).astype(np.float32)


def beside_lips(points: np.ndarray, resolution: int) -> np.ndarray:
    """1 away from the lips, 0 on them: float32 ``[R, R]``.

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.  resolution: R.
    """
    lips = np.full((resolution, resolution), 1, np.uint8)
    cv2.fillPoly(lips, [np.round(points[OUTER] * 16).astype(np.int32)], 0, shift=4)
    away = cv2.distanceTransform(lips, cv2.DIST_L2, 5) / resolution
    return ramp(away, 0.25 * BESIDE, BESIDE).astype(np.float32)

"""Curves through landmarks, and what lies within them."""

from __future__ import annotations

import cv2
import numpy as np

ROUNDS = 4  # of subdivision, each of which doubles the points of a curve


def filled(curve: np.ndarray, side: int, factor: int = 1) -> np.ndarray:
    """A closed curve ``[K, 2]`` in pixels of the crop, filled: float32 ``[fR, fR]`` in [0, 1]."""
    mask = np.zeros((side * factor,) * 2, np.uint8)
    fine = (curve + 0.5) * factor - 0.5
    cv2.fillPoly(mask, [np.round(fine * 16).astype(np.int32)], 255, shift=4, lineType=cv2.LINE_AA)
    return mask / np.float32(255)


def arc(points: np.ndarray) -> np.ndarray:
    """A smooth curve through points ``[K, 2]``: four-point subdivision (Dyn, Levin and Gregory 1987)."""
    for _ in range(ROUNDS):
        ends = 2 * points[[0, -1]] - points[[1, -2]]
        p = np.concatenate([ends[:1], points, ends[1:]])
        between = (9 * (p[1:-2] + p[2:-1]) - p[:-3] - p[3:]) / 16
        points = np.insert(points, np.arange(1, len(points)), between, axis=0)
    return points


def outline(points: np.ndarray) -> np.ndarray:
    """A smooth closed curve through points ``[K, 2]``: an :func:`arc` that begins before itself and ends after."""
    spare = 3 * 2**ROUNDS
    return arc(np.concatenate([points[-3:], points, points[:4]]))[spare : -spare - 1]

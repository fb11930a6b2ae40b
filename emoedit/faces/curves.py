"""Curves through landmarks, what lies within them, and smooth steps."""

from __future__ import annotations

import cv2
import numpy as np

ROUNDS = 4  # of subdivision, each of which doubles the points of a curve


def smoothstep(x: np.ndarray | float, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, a cubic with flat ends between.

    Args:
        x: any numbers.
        low: where it starts to rise.
        high: where it reaches 1.
    """
    x = np.clip((x - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)


def filled(
    curve: np.ndarray, shape: tuple[int, int], factor: int = 1, origin: tuple[float, float] = (0, 0)
) -> np.ndarray:
    """A filled closed curve.

    Args:
        curve: ``[K, 2]`` in pixels of the crop (pixel centres at whole numbers).
        shape: height and width of the result.
        factor: pixels of the result in one of the crop.
        origin: left and upper edge of the result in the crop, in pixels of the crop.

    Returns:
        float32 of that shape in [0, 1], anti-aliased.
    """
    mask = np.zeros(shape, np.uint8)
    fine = (curve + 0.5 - origin) * factor - 0.5
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
    """A smooth closed curve through points ``[K, 2]``: an [arc][emoedit.faces.curves.arc] that begins before itself."""
    spare = 3 * 2**ROUNDS
    return arc(np.concatenate([points[-3:], points, points[:4]]))[spare : -spare - 1]

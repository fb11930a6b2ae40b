"""Where lips go between two drawings of a face, from landmarks.

Optical flow alone loses a lip that moves by more than its height, or whose light changes: half of it stays behind, and
with it the colour. Landmarks say which lip is which; flow has only the rest to find.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from emoedit.faces.flow import ramp

LIPS, INNER = range(48, 68), range(60, 68)  # of the 68 landmarks of Sagonas et al. 2013 (300-W)
UPPER_EDGE, LOWER_EDGE = [60, 61, 62, 63, 64], [60, 67, 66, 65, 64]  # inner ones, from one corner to the other
UPPER, LOWER = (*range(48, 55), *UPPER_EDGE), (*range(54, 60), 48, *LOWER_EDGE)
PAIRS = ((61, 67), (62, 66), (63, 65))  # upper and lower inner lip, one above the other
REACH = 0.07  # of the crop's side: how far a lip takes the skin beside it along
JAW = 0.11  # how far a lower lip does that leaves the upper one: the jaw goes with it
NOISE = 0.2  # how far a landmark may be off, its share in what the others say about its place
SURER = 0.05  # the same, where a lip is led by its own landmarks alone
ROUNDS = 4  # of subdivision, each of which doubles the points of a curve
EDGE = 0.004  # of the crop's side: how soft the inner edge of a lip is drawn
PARTED = (0.008, 0.022)  # of the crop's side: by less they are drawn a little otherwise, by more they are open
WIDE = (0.045, 0.075)  # wider than a smile opens


def lip_flow(
    before: np.ndarray, after: np.ndarray, resolution: int, side: int, *, parted: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The movement of lips and what is near them: float32 ``[side, side, 2]``, backward (the pixel that lands at p
    comes from ``p + flow[p]``), in pixels of ``side``; and how near to a landmark it is, ``[side, side]`` in [0, 1].

    Kernel ridge regression with a Gaussian over the displacements of the landmarks: smooth, and nothing far from lips.

    Args:
        before, after: ``[68, 2]`` landmarks in pixels of the crop.  resolution: the crop's side.  side: of the result.
        parted: each lip goes its own way, apart from the other in the middle of what comes to be seen between them.
    """
    axis = (np.arange(side) + 0.5) * (resolution / side) - 0.5
    x, y = np.meshgrid(axis, axis)

    def led(index: Sequence[int], reach: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
        points, moves = after[list(index)], (before - after)[list(index)]

        def kernel(squared: np.ndarray) -> np.ndarray:
            return np.exp(-squared / (2 * (reach * resolution) ** 2))

        between = kernel(((points[:, None] - points[None]) ** 2).sum(-1))
        weights = np.linalg.solve(between + noise * np.eye(len(points)), moves)
        near = kernel((x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2)
        return near @ weights * (side / resolution), near.max(-1)

    if not parted:
        flow, near = led(LIPS, REACH, NOISE)
        return flow.astype(np.float32), near.astype(np.float32)
    (above, near_above), (below, near_below) = led(UPPER, REACH, SURER), led(LOWER, JAW, SURER)
    middle = sum(np.interp(x, *after[arc].T) for arc in (UPPER_EDGE, LOWER_EDGE)) / 2
    lower = ramp(y - middle, -EDGE * resolution, EDGE * resolution)
    flow = above + (below - above) * lower[..., None]
    return flow.astype(np.float32), np.maximum(near_above, near_below).astype(np.float32)


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


def inside_lips(points: np.ndarray, resolution: int) -> np.ndarray:
    """What lies between the lips: float32 ``[resolution, resolution]`` in [0, 1].

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.
    """
    inside = np.zeros((resolution, resolution), np.uint8)
    outline = np.round(points[INNER] * 16).astype(np.int32)
    cv2.fillPoly(inside, [outline], 255, shift=4, lineType=cv2.LINE_AA)
    return cv2.GaussianBlur(inside / np.float32(255), (0, 0), EDGE * resolution)


def parting(before: np.ndarray, after: np.ndarray, resolution: int) -> tuple[float, float, float]:
    """Whether lips came apart, whether wider than in a smile, and whether a mouth closed that was open: 0 to 1 each.

    Args:
        before, after: ``[68, 2]`` landmarks in pixels of the crop.
    """
    apart = [np.mean([np.linalg.norm(p[i] - p[k]) for i, k in PAIRS]) / resolution for p in (before, after)]
    further = apart[1] - apart[0]
    parted, wide, were = (
        float(ramp(*measure)) for measure in ((further, *PARTED), (further, *WIDE), (apart[0], *WIDE))
    )
    return parted, wide, were * float(ramp(-further, *PARTED))

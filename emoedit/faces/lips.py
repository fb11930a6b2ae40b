"""Where lips go between two drawings of a face, from landmarks.

Optical flow alone loses a lip that moves by more than its height, or whose light changes: half of it stays behind, and
with it the colour. Landmarks say which lip is which; flow has only the rest to find.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.faces.flow import ramp

LIPS, INNER = slice(48, 68), slice(60, 68)  # of the 68 landmarks of Sagonas et al. 2013 (300-W)
PAIRS = ((61, 67), (62, 66), (63, 65))  # upper and lower inner lip, one above the other
REACH = 0.07  # of the crop's side: how far a lip takes the skin beside it along
NOISE = 0.2  # how far a landmark may be off, its share in what the others say about its place
EDGE = 0.004  # of the crop's side: how soft the inner edge of a lip is drawn
PARTED = (0.008, 0.022)  # of the crop's side: by less they are drawn a little otherwise, by more they are open
WIDE = (0.045, 0.075)  # wider than a smile opens


def lip_flow(before: np.ndarray, after: np.ndarray, resolution: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The movement of lips and what is near them: float32 ``[side, side, 2]``, backward (the pixel that lands at p
    comes from ``p + flow[p]``), in pixels of ``side``; and how near to a landmark it is, ``[side, side]`` in [0, 1].

    Kernel ridge regression with a Gaussian over the displacements of the landmarks: smooth, and nothing far from lips.

    Args:
        before, after: ``[68, 2]`` landmarks in pixels of the crop.  resolution: the crop's side.  side: of the result.
    """
    points, moves = after[LIPS], (before - after)[LIPS]

    def kernel(squared: np.ndarray) -> np.ndarray:
        return np.exp(-squared / (2 * (REACH * resolution) ** 2))

    between = kernel(((points[:, None] - points[None]) ** 2).sum(-1))
    weights = np.linalg.solve(between + NOISE * np.eye(len(points)), moves)
    axis = (np.arange(side) + 0.5) * (resolution / side) - 0.5
    x, y = np.meshgrid(axis, axis)
    near = kernel((x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2)
    return (near @ weights * (side / resolution)).astype(np.float32), near.max(-1).astype(np.float32)


def inside_lips(points: np.ndarray, resolution: int) -> np.ndarray:
    """What lies between the lips: float32 ``[resolution, resolution]`` in [0, 1].

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.
    """
    inside = np.zeros((resolution, resolution), np.uint8)
    outline = np.round(points[INNER] * 16).astype(np.int32)
    cv2.fillPoly(inside, [outline], 255, shift=4, lineType=cv2.LINE_AA)
    return cv2.GaussianBlur(inside / np.float32(255), (0, 0), EDGE * resolution)


def parting(before: np.ndarray, after: np.ndarray, resolution: int) -> tuple[float, float]:
    """Whether lips came apart, and whether wider than in a smile, 0 to 1 each.

    Args:
        before, after: ``[68, 2]`` landmarks in pixels of the crop.
    """
    apart = [np.mean([np.linalg.norm(points[i] - points[k]) for i, k in PAIRS]) for points in (before, after)]
    further = (apart[1] - apart[0]) / resolution
    return float(ramp(further, *PARTED)), float(ramp(further, *WIDE))

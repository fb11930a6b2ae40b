"""Movements of pixels: sampling along a flow, keeping it free of folds, and flows from landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

MIN_JACOBIAN = 0.1  # a flow that shrinks an area further than this is about to fold


def sample(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """A picture at ``p + flow[p]``, mirrored where that leaves it.

    Args:
        picture: ``[H, W]`` or ``[H, W, C]``.
        flow: float32 ``[H, W, 2]`` in pixels (x, y).
    """
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32)[None] + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def jacobian(flow: np.ndarray) -> np.ndarray:
    """Determinant of ``p -> p + flow[p]``, ``[H, W]``: 1 where nothing stretches, at or below 0 where it folds."""
    dy, dx = np.gradient(flow, axis=(0, 1))
    return (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]


def unfold(flow: np.ndarray) -> np.ndarray:
    """The flow, smoothed where and as far as needed for its Jacobian to stay above ``MIN_JACOBIAN`` everywhere.

    Args:
        flow: backward flow, ``[H, W, 2]`` in pixels.
    """
    for _ in range(40):
        bad = (jacobian(flow) < MIN_JACOBIAN).astype(np.float32)
        if not bad.any():
            return flow
        where = np.minimum(cv2.GaussianBlur(cv2.dilate(bad, np.ones((5, 5))), (0, 0), 3), 1)[..., None]
        flow = flow + where * (cv2.GaussianBlur(flow, (0, 0), 3) - flow)
    worst = float(1 - jacobian(flow).min())
    return flow * min(1.0, (1 - MIN_JACOBIAN) / max(worst, 1e-6))


def landmark_flow(
    before: np.ndarray,
    after: np.ndarray,
    landmarks: Sequence[int] | slice,
    resolution: int,
    side: int,
    *,
    reach: float,
    noise: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The movement of some landmarks and of what is near them: kernel ridge regression with a Gaussian kernel.

    Args:
        before: ``[68, 2]`` landmarks in pixels of the crop.
        after: the same landmarks after the movement.
        landmarks: indices of the landmarks that are used.
        resolution: side of the crop in pixels.
        side: side of the result in pixels.
        reach: standard deviation of the kernel, in crop sides: how far around a landmark the face moves along.
        noise: regularisation of the regression: larger for less exact landmarks.

    Returns:
        A backward flow, float32 ``[side, side, 2]`` in pixels of ``side``: the pixel that lands at p comes from
        ``p + flow[p]``; and how near a landmark is, float32 ``[side, side]`` in [0, 1].
    """
    points, moves = after[landmarks], (before - after)[landmarks]

    def kernel(squared: np.ndarray) -> np.ndarray:
        return np.exp(-squared / (2 * (reach * resolution) ** 2))

    between = kernel(((points[:, None] - points[None]) ** 2).sum(-1))
    weights = np.linalg.solve(between + noise * np.eye(len(points)), moves)
    # The field is smooth: half the side is fine enough.
    x, y = pixel_grid(resolution, max(side // 2, 1))
    # A Gaussian of a distance is a product of Gaussians of its parts.
    near = kernel((x[0][:, None] - points[:, 0]) ** 2)[None] * kernel((y[:, :1] - points[:, 1]) ** 2)[:, None]
    near = near.astype(np.float32)
    flow = near @ (weights * (side / resolution)).astype(np.float32)
    size = (side, side)
    return cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR), cv2.resize(near.max(-1), size)


def pixel_grid(resolution: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a picture of another size lie in the crop's: x and y, ``[side, side]`` each.

    Args:
        resolution: side of the crop in pixels.
        side: side of the other picture in pixels.
    """
    axis = (np.arange(side) + 0.5) * (resolution / side) - 0.5
    x, y = np.meshgrid(axis, axis)
    return x, y

"""Putting a change back into the photograph, at the photograph's own resolution.

What is pasted is not the model's picture but the *change* it made between its own reconstruction and its edit:

- ``warp`` (the default): dense optical flow from reconstruction to edit moves the photograph's own pixels; what the
  flow cannot explain (teeth, a new fold) is added as a smooth luminance remainder. Skin keeps its texture, lip corners
  and lids really move.
- ``residual``: the difference, enlarged and added to luminance. Cheaper; ghosts where edges move.
- ``replace``: the edited crop itself, for models that see everything (full-size, colour).

Outside the mask not one bit changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from emoedit.faces.align import Alignment

Mode = Literal["warp", "residual", "replace"]
MODES: tuple[Mode, ...] = ("warp", "residual", "replace")

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
FLOW_SIDE = 192  # flow is found at this side: DIS matches 8-pixel patches, which on 96 pixels would span half a mouth
MAX_FLOW = 0.09  # of the crop's side: the widest movement a lip or a brow makes; more is a mismatch
MIN_JACOBIAN = 0.25  # a flow that shrinks an area further than this is about to fold


@dataclass(frozen=True)
class Change:
    """A change in crop coordinates.

    Args:
        flow: float32 ``[R, R, 2]``: the pixel that lands at p comes from ``p + flow[p]``, in crop pixels (x, y).
        remainder: float32 ``[R, R]``: luminance to add after the flow, in grey levels 0 to 255.
    """

    flow: np.ndarray
    remainder: np.ndarray


@lru_cache(maxsize=8)
def face_mask(resolution: int, scale: float, down: float) -> np.ndarray:
    """Soft mask of an aligned crop, float32 ``[R, R]`` in [0, 1]: 1 on brows, eyes, cheeks, mouth and chin, falling
    smoothly to exactly 0 before the hair line, the ears, and the crop's border.

    Args:
        scale, down: of the crop (:class:`emoedit.faces.align.CropSpec`): the mask is the same part of the face in each.
    """
    axis = (np.arange(resolution) - (resolution - 1) / 2) / resolution * scale
    x, y = np.meshgrid(axis, axis + down)
    # A superellipse around the middle of the face, in FFHQ's units; wide enough for raised brows and an open mouth.
    radius = (np.abs(x / 0.285) ** 2.6 + np.abs((y - 0.105) / 0.295) ** 2.6) ** (1 / 2.6)
    mask = np.clip((1.0 - radius) / 0.30, 0, 1)
    border = np.minimum.reduce([np.arange(resolution), np.arange(resolution)[::-1]]) / (0.08 * resolution)
    mask *= np.clip(border, 0, 1)[None] * np.clip(border, 0, 1)[:, None]
    mask = mask * mask * (3 - 2 * mask)
    mask[mask < 1 / 512] = 0
    return mask.astype(np.float32)


@lru_cache(maxsize=8)
def mouth_mask(resolution: int, scale: float, down: float) -> np.ndarray:
    """Soft mask of where lips, teeth and the inside of a mouth can be, float32 ``[R, R]`` in [0, 1]."""
    axis = (np.arange(resolution) - (resolution - 1) / 2) / resolution * scale
    x, y = np.meshgrid(axis, axis + down)
    radius = np.sqrt((x / 0.155) ** 2 + ((y - 0.245) / 0.115) ** 2)
    mask = np.clip((1.15 - radius) / 0.3, 0, 1)
    return (mask * mask * (3 - 2 * mask)).astype(np.float32)


def _sample(picture: np.ndarray, flow: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """``picture`` at ``p + flow[p]``."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], interpolation, borderMode=cv2.BORDER_REFLECT_101)


def jacobian(flow: np.ndarray) -> np.ndarray:
    """Determinant of ``p -> p + flow[p]``, ``[H, W]``: 1 where nothing stretches, at or below 0 where it folds."""
    dy, dx = np.gradient(flow, axis=(0, 1))
    return (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]


def unfold(flow: np.ndarray, limit: float = MIN_JACOBIAN) -> np.ndarray:
    """The flow, smoothed where and as far as needed for its Jacobian to stay above ``limit`` everywhere."""
    for _ in range(40):
        bad = (jacobian(flow) < limit).astype(np.float32)
        if not bad.any():
            return flow
        where = np.minimum(cv2.GaussianBlur(cv2.dilate(bad, np.ones((5, 5))), (0, 0), 3), 1)[..., None]
        flow = flow + where * (cv2.GaussianBlur(flow, (0, 0), 3) - flow)
    worst = float(1 - jacobian(flow).min())
    return flow * min(1.0, (1 - limit) / max(worst, 1e-6))


def estimate_change(reconstruction: np.ndarray, edited: np.ndarray, mask: np.ndarray) -> Change:
    """What turns one luminance crop into the other, inside the mask.

    Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590; OpenCV) at :data:`FLOW_SIDE`, then smoothed, bounded,
    faded by the mask and freed of folds.

    Args:
        reconstruction, edited: float32 ``[R, R]``, grey levels 0 to 255.
        mask: float32 ``[R, R]`` in [0, 1].
    """
    side = reconstruction.shape[0]
    k = FLOW_SIDE / side
    low, high = np.percentile(reconstruction[mask > 0.5], (1, 99))
    stretch = 220.0 / max(high - low, 1.0)

    def prepared(picture: np.ndarray) -> np.ndarray:
        # DIS reads 8 bits: use all of them, or a dark photograph has too few grey levels for sub-pixel motion.
        levels = np.clip((picture - low) * stretch + 18, 0, 255)
        return cv2.resize(levels, (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)

    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setFinestScale(1)
    finder.setVariationalRefinementIterations(10)
    finder.setVariationalRefinementAlpha(40.0)
    flow = finder.calc(prepared(edited), prepared(reconstruction), None)
    flow = cv2.GaussianBlur(cv2.medianBlur(flow, 5), (0, 0), 2.5)
    length = np.linalg.norm(flow, axis=-1, keepdims=True)
    bound = MAX_FLOW * FLOW_SIDE
    flow *= bound * np.tanh(length / bound) / np.maximum(length, 1e-6)
    flow *= cv2.resize(mask, (FLOW_SIDE, FLOW_SIDE))[..., None]
    flow = cv2.resize(unfold(flow), (side, side), interpolation=cv2.INTER_AREA) / k
    remainder = (edited - _sample(reconstruction, flow)) * mask
    return Change(flow, cv2.GaussianBlur(remainder, (0, 0), 0.6))


@dataclass(frozen=True)
class _Window:
    """The part of a photograph that a crop's mask touches."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def _window(alignment: Alignment, height: int, width: int) -> _Window:
    side = alignment.resolution - 1
    corners = alignment.to_photo(np.array([[0, 0], [side, 0], [0, side], [side, side]], float))
    x0, y0 = np.floor(corners.min(0)).astype(int)
    x1, y1 = np.ceil(corners.max(0)).astype(int) + 1
    return _Window(max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1)))


def _enlarge(
    crop: np.ndarray, alignment: Alignment, window: _Window, interpolation: int = cv2.INTER_CUBIC
) -> np.ndarray:
    """A crop-sized array in the photograph's pixels, inside the window; zero outside the crop."""
    matrix = alignment.matrix.copy()
    matrix[:, 2] = matrix @ [window.x0, window.y0, 1]
    size = (window.x1 - window.x0, window.y1 - window.y0)
    return cv2.warpAffine(
        crop, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
    )


def _relight(rgb: np.ndarray, light: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    """Luminance added as light is: skin keeps its hue, teeth lose the lips' colour.

    Args:
        rgb: float32 ``[H, W, 3]``, 0 to 255.  light: ``[H, W]`` grey levels to add.  mouth: ``[H, W]`` in [0, 1].
    """
    luma = rgb @ LUMA
    target = np.clip(luma + light, 0, 255)
    # Shading scales all three channels alike. The offset keeps the ratio tame where the photograph is nearly black.
    shaded = (rgb + 8) * ((target + 8) / (luma + 8))[..., None] - 8
    # What appears bright inside the mouth are teeth, nearly grey; what appears dark has little colour too.
    chroma = shaded - target[..., None]
    new = np.clip((np.abs(light) - 10) / 35, 0, 1) * mouth
    keep = 1 - new * np.where(light > 0, 0.8, 0.35)
    return target[..., None] + chroma * keep[..., None]


def paste(
    photo: np.ndarray,
    alignment: Alignment,
    reconstruction: np.ndarray,
    edited: np.ndarray,
    mask: np.ndarray,
    mouth: np.ndarray,
    *,
    mode: Mode = "warp",
) -> np.ndarray:
    """The photograph with the change in it.

    Args:
        photo: uint8 ``[H, W, 3]``; not modified.
        reconstruction, edited: what the backbone made, float32 ``[R, R]`` luminance or ``[R, R, 3]`` RGB, 0 to 255.
        mask, mouth: float32 ``[R, R]`` in [0, 1] (:func:`face_mask`, :func:`mouth_mask`).
        mode: see the module docstring.

    Returns:
        uint8 ``[H, W, 3]``; equal to ``photo`` bit for bit wherever the mask is 0, and everywhere if nothing changed.
    """
    out = photo.copy()
    if np.array_equal(reconstruction, edited):
        return out
    window = _window(alignment, *photo.shape[:2])
    if window.x1 <= window.x0 or window.y1 <= window.y0:
        return out
    soft = np.clip(_enlarge(mask, alignment, window, cv2.INTER_LINEAR), 0, 1)
    part = photo[window.slices].astype(np.float32)
    if mode == "replace":
        new = _enlarge(edited, alignment, window)
        if edited.ndim == 2:  # a model of luminance has no colour to give: the photograph keeps its own
            new = part + (new - part @ LUMA)[..., None]
    else:
        grey = [p if p.ndim == 2 else p @ LUMA for p in (reconstruction, edited)]
        if mode == "warp":
            change = estimate_change(*grey, mask)
            # A displacement in crop pixels is rotated and scaled into one of the photograph's.
            displacement = (change.flow @ alignment.inverse[:, :2].T).astype(np.float32)
            warped = _sample_window(photo, window, _enlarge(displacement, alignment, window))
            light, mouth_part = change.remainder, mouth
        else:
            warped, light, mouth_part = part, (grey[1] - grey[0]) * mask, mouth
        light = _enlarge(light, alignment, window)
        new = _relight(warped, light, _enlarge(mouth_part, alignment, window, cv2.INTER_LINEAR))
    blend = soft[..., None] if mode == "replace" else np.minimum(1, soft * 4)[..., None]
    result = np.rint(part + (new - part) * blend).clip(0, 255).astype(np.uint8)
    out[window.slices] = np.where(soft[..., None] > 0, result, photo[window.slices])
    return out


def _sample_window(photo: np.ndarray, window: _Window, displacement: np.ndarray) -> np.ndarray:
    """The photograph at ``p + displacement[p]`` for the window's pixels, float32."""
    height, width = displacement.shape[:2]
    x = np.arange(window.x0, window.x0 + width, dtype=np.float32)[None] + displacement[..., 0]
    y = np.arange(window.y0, window.y0 + height, dtype=np.float32)[:, None] + displacement[..., 1]
    # Remap only what the window can reach: converting a 50-megapixel photograph to float for one face would be waste.
    reach = int(np.ceil(np.abs(displacement).max())) + 3
    top, left = max(0, window.y0 - reach), max(0, window.x0 - reach)
    near = photo[top : window.y1 + reach, left : window.x1 + reach].astype(np.float32)
    return cv2.remap(near, x - left, y - top, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101).clip(0, 255)

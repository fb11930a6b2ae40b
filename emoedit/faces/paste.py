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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np

from emoedit.faces.align import Alignment

Mode = Literal["warp", "residual", "replace"]
MODES: tuple[Mode, ...] = ("warp", "residual", "replace")

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
FLOW_SIDE = 192  # flow is found at this side: DIS matches 8-pixel patches, which on 96 pixels would span half a mouth
MAX_FLOW = 0.11  # of the crop's side: the widest movement a lip or a brow makes; more is a mismatch
NEW_FROM, NEW_TO = 14.0, 40.0  # grey levels of remainder: below it is shading, above it something else stands there
MOUTH_SPREAD = 0.05  # of the crop's side: about the height of a lip
MIN_JACOBIAN = 0.1  # a flow that shrinks an area further than this is about to fold


@dataclass(frozen=True)
class Change:
    """A change in crop coordinates.

    Args:
        flow: float32 ``[R, R, 2]``: the pixel that lands at p comes from ``p + flow[p]``, in crop pixels (x, y).
        remainder: float32 ``[R, R]``: luminance to add after the flow, in grey levels 0 to 255.
        moved: float32 ``[R, R]``: the reconstruction after the flow, in grey levels.
    """

    flow: np.ndarray
    remainder: np.ndarray
    moved: np.ndarray


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


def _flow_between(first: np.ndarray, second: np.ndarray, mask: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Backward flow from the second picture to the first, float32 ``[F, F, 2]`` in pixels of :data:`FLOW_SIDE`.

    Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590; OpenCV), then smoothed and faded by the mask.
    """
    low, high = levels

    def prepared(picture: np.ndarray) -> np.ndarray:
        # DIS reads 8 bits: use all of them, or a dark photograph has too few grey levels for sub-pixel motion.
        stretched = (picture - low) * (220.0 / max(high - low, 1.0)) + 18
        return (
            cv2.resize(stretched, (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
        )

    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setFinestScale(0)
    finder.setVariationalRefinementIterations(10)
    finder.setVariationalRefinementAlpha(20.0)
    flow = finder.calc(prepared(second), prepared(first), None)
    return cv2.GaussianBlur(cv2.medianBlur(flow, 5), (0, 0), 2.5) * mask[..., None]


def estimate_change(frames: Sequence[np.ndarray], mask: np.ndarray) -> Change:
    """What turns the first of several luminance crops into the last, inside the mask.

    Flow is found from each frame to the next and composed: between near pictures it follows a lip that parts or a brow
    that rises, where between far ones it would match what merely looks alike. Then it is bounded and freed of folds.

    Args:
        frames: two or more float32 ``[R, R]``, grey levels 0 to 255: reconstruction, half-way pictures, edit.
        mask: float32 ``[R, R]`` in [0, 1].
    """
    first, last = frames[0], frames[-1]
    low, high = np.percentile(first[mask > 0.5], (1, 99))
    large = cv2.resize(mask, (FLOW_SIDE, FLOW_SIDE))
    flow = np.zeros((FLOW_SIDE, FLOW_SIDE, 2), np.float32)
    for before, after in pairwise(frames):
        step = _flow_between(before, after, large, (float(low), float(high)))
        flow = step + _sample(flow, step)
    length = np.linalg.norm(flow, axis=-1, keepdims=True)
    bound = MAX_FLOW * FLOW_SIDE
    flow = unfold(flow * (bound * np.tanh(length / bound) / np.maximum(length, 1e-6)))
    side = first.shape[0]
    flow = cv2.resize(flow, (side, side), interpolation=cv2.INTER_AREA) * (side / FLOW_SIDE)
    moved = _sample(first, flow)
    remainder = (last - moved) * mask
    return Change(flow, cv2.GaussianBlur(remainder, (0, 0), 0.4), moved)


def novelty(change: Change, mouth: np.ndarray) -> np.ndarray:
    """Where something new stands in the mouth, ``[R, R]`` in [0, 1]: teeth, a dark gap, or lips that close over teeth.

    There the photograph's own detail (the gleam of the lips that were, the edges of teeth) belongs to what is gone.
    """
    new = np.clip((np.abs(change.remainder) - NEW_FROM) / (NEW_TO - NEW_FROM), 0, 1) * mouth
    return np.minimum(1, cv2.GaussianBlur(cv2.dilate(new, np.ones((3, 3))), (0, 0), 1.0))


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


def _relight(rgb: np.ndarray, light: np.ndarray, new: np.ndarray, spread: float) -> np.ndarray:
    """Luminance added as light is: skin keeps its hue; what is new in the mouth takes a colour of its own.

    Args:
        rgb: float32 ``[H, W, 3]``, 0 to 255.  light: ``[H, W]`` grey levels to add.  new: ``[H, W]`` in [0, 1].
        spread: pixels over which the colour around a new thing is averaged.
    """
    luma = rgb @ LUMA
    target = np.clip(luma + light, 0, 255)
    # Shading scales all three channels alike. The offset keeps the ratio tame where the photograph is nearly black.
    shaded = (rgb + 8) * ((target + 8) / (luma + 8))[..., None] - 8
    chroma = shaded - target[..., None]
    if new.max() > 0:
        # What was there is gone with its colour: lips that close over teeth are as red as their surroundings, teeth
        # that appear (brighter than those) nearly grey, and the dark inside (darker) has little colour.
        around = cv2.GaussianBlur(rgb, (0, 0), spread)
        level = around @ LUMA
        ratio = target / np.maximum(level, 1)
        brighter, darker = np.clip((ratio - 0.95) / 0.25, 0, 1), np.clip((0.7 - ratio) / 0.4, 0, 1)
        borrowed = (around - level[..., None]) * np.minimum(ratio, 1)[..., None]
        borrowed = borrowed * (1 - 0.75 * brighter - 0.35 * darker)[..., None]
        chroma = chroma + (borrowed - chroma) * new[..., None]
    return target[..., None] + chroma


def paste(
    photo: np.ndarray,
    alignment: Alignment,
    frames: Sequence[np.ndarray],
    mask: np.ndarray,
    mouth: np.ndarray,
    *,
    mode: Mode = "warp",
) -> np.ndarray:
    """The photograph with the change in it.

    Args:
        photo: uint8 ``[H, W, 3]``; not modified.
        frames: what the backbone drew, from the reconstruction to the edit, with half-way pictures between them or
            without: float32 ``[R, R]`` luminance or ``[R, R, 3]`` RGB each, 0 to 255.
        mask, mouth: float32 ``[R, R]`` in [0, 1] (:func:`face_mask`, :func:`mouth_mask`).
        mode: see the module docstring.

    Returns:
        uint8 ``[H, W, 3]``; equal to ``photo`` bit for bit wherever the mask is 0, and everywhere if nothing changed.
    """
    out = photo.copy()
    reconstruction, edited = frames[0], frames[-1]
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
        grey = [p if p.ndim == 2 else p @ LUMA for p in frames]
        if mode == "warp":
            change = estimate_change(grey, mask)
            # A displacement in crop pixels is rotated and scaled into one of the photograph's.
            displacement = (change.flow @ alignment.inverse[:, :2].T).astype(np.float32)
            warped = _sample_window(photo, window, _enlarge(displacement, alignment, window))
            light = _enlarge(change.remainder, alignment, window)
            new = np.clip(_enlarge(novelty(change, mouth), alignment, window, cv2.INTER_LINEAR), 0, 1)
            # Detail is what the photograph shows beyond the reconstruction; it goes where something new stands.
            light -= new * (warped @ LUMA - _enlarge(change.moved, alignment, window))
        else:
            warped, light = part, _enlarge((grey[-1] - grey[0]) * mask, alignment, window)
            new = np.zeros_like(light)
        new = _relight(warped, light, new, spread=MOUTH_SPREAD * alignment.zoom * alignment.resolution)
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

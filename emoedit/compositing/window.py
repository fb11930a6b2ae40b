"""Where a crop lies in a photograph, and rendering of a composite in the photograph's own pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from emoedit.compositing.composite import Composite, Layer
from emoedit.faces.align import Alignment
from emoedit.faces.masks import FaceMasks

STRIP = 1_000_000  # pixels that are rendered at once: a face 4,000 pixels wide takes no more memory than one of 1,000


@dataclass(frozen=True)
class CropWindow:
    """The rectangle of a photograph that a crop touches.

    Args:
        alignment: alignment of the crop.
        x0: the first column.
        y0: the first row.
        x1: the column beyond the last.
        y1: the row beyond the last.
    """

    alignment: Alignment
    x0: int
    y0: int
    x1: int
    y1: int

    @classmethod
    def of(cls, alignment: Alignment, height: int, width: int) -> CropWindow:
        """The window in a photograph of this size.

        Args:
            alignment: alignment of the crop.
            height: height of the photograph, in pixels.
            width: width of the photograph, in pixels.
        """
        side = alignment.resolution - 1
        corners = alignment.to_photo(np.array([[0, 0], [side, 0], [0, side], [side, side]], float))
        x0, y0 = np.floor(corners.min(0)).astype(int)
        x1, y1 = np.ceil(corners.max(0)).astype(int) + 1
        return cls(alignment, max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1)))

    @property
    def empty(self) -> bool:
        """Whether the crop lies outside the photograph."""
        return self.x1 <= self.x0 or self.y1 <= self.y0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the photograph."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def strips(self) -> Iterator[CropWindow]:
        """The window in parts of at most ``STRIP`` pixels, from top to bottom."""
        rows = max(1, STRIP // max(self.x1 - self.x0, 1))
        for y in range(self.y0, self.y1, rows):
            yield replace(self, y0=y, y1=min(y + rows, self.y1))

    def around(self, mask: np.ndarray) -> CropWindow:
        """The part of the window where a mask of the crop, ``[R, R]`` and not all zero, is not zero."""
        rows, columns = (np.nonzero(mask.any(axis))[0] for axis in (1, 0))
        box = np.array([[x, y] for x in (columns[0] - 1, columns[-1] + 1) for y in (rows[0] - 1, rows[-1] + 1)], float)
        return self.inside(self.alignment.to_photo(box))

    def inside(self, points: np.ndarray) -> CropWindow:
        """The part of the window around points ``[N, 2]`` of the photograph."""
        (left, top), (right, bottom) = np.floor(points.min(0)), np.ceil(points.max(0)) + 1
        x0, y0 = max(self.x0, int(left)), max(self.y0, int(top))
        return replace(self, x0=x0, y0=y0, x1=min(self.x1, int(right)), y1=min(self.y1, int(bottom)))

    def warp(self, values: np.ndarray, to_crop: np.ndarray | None = None, flags: int = cv2.INTER_CUBIC) -> np.ndarray:
        """Values of the crop, or of a grid of their own, in the window's pixels; zero outside.

        Args:
            values: ``[h, w]`` or ``[h, w, C]``.
            to_crop: ``[2, 3]``: pixels of the grid -> pixels of the crop; None for the crop itself.
            flags: OpenCV's interpolation.
        """
        to_photo = np.vstack([self.alignment.inverse, [0, 0, 1]])
        if to_crop is not None:
            to_photo = to_photo @ np.vstack([to_crop, [0, 0, 1]])
        from_window = np.linalg.inv(to_photo)[:2]
        from_window[:, 2] = from_window @ [self.x0, self.y0, 1]
        size = (self.x1 - self.x0, self.y1 - self.y0)
        return cv2.warpAffine(
            values, from_window, size, flags=flags | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
        )

    def sample(self, photo: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """The photograph moved by a flow of the crop, float32 ``[h, w, 3]``.

        Args:
            photo: uint8 ``[H, W, 3]``.
            flow: float32 ``[R, R, 2]`` in pixels of the crop.
        """
        moved = self.warp((flow @ self.alignment.inverse[:, :2].T).astype(np.float32), flags=cv2.INTER_LINEAR)
        reach = int(np.ceil(np.abs(moved).max(initial=0))) + 3
        top, left = max(0, self.y0 - reach), max(0, self.x0 - reach)
        near = photo[top : self.y1 + reach, left : self.x1 + reach]
        moved[..., 0] += np.arange(self.x0 - left, self.x1 - left, dtype=np.float32)
        moved[..., 1] += np.arange(self.y0 - top, self.y1 - top, dtype=np.float32)[:, None]
        # For 8-bit input OpenCV returns 8 bits, which would lose a change of half a level.
        near = near.astype(np.float32)
        return cv2.remap(near, moved, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def render(photo: np.ndarray, alignment: Alignment, masks: FaceMasks, composite: Composite) -> np.ndarray:
    """The photograph with a composite in it.

    Args:
        photo: uint8 ``[H, W, 3]``; not modified.
        alignment: alignment of the face's crop.
        masks: masks of the crop; outside the face mask not one bit changes.
        composite: composite at the photograph's own tones; its change is grey or RGB.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    window = CropWindow.of(alignment, *photo.shape[:2])
    result = photo.copy()
    if window.empty:
        return result
    window = window.around(masks.face)  # about two thirds of the crop
    change = composite.change.astype(np.float32)
    if change.ndim == 2:  # grey levels are the same for red, green and blue
        change = np.repeat(change[..., None], 3, -1)
    for strip in () if window.empty else window.strips():
        part = photo[strip.slices]
        face = strip.warp(masks.face, flags=cv2.INTER_LINEAR)
        new = strip.sample(photo, composite.flow).clip(0, 255)
        new += strip.warp(change)
        for layer in composite.layers:
            _lay(new, strip, layer)
        new -= part
        new *= np.minimum(1, face * composite.blend)[..., None]
        new += part
        np.rint(new, out=new)
        result[strip.slices] = np.where(face[..., None] > 0, new.clip(0, 255), part)
    return result


def _lay(picture: np.ndarray, window: CropWindow, layer: Layer) -> None:
    """Put a layer over the window's pixels, float32 ``[h, w, 3]``, in place."""
    height, width = layer.alpha.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ layer.to_crop.T
    part = window.inside(window.alignment.to_photo(corners))
    if part.empty:
        return
    alpha = part.warp(layer.alpha, layer.to_crop, cv2.INTER_LINEAR)[..., None]
    below = picture[part.y0 - window.y0 : part.y1 - window.y0, part.x0 - window.x0 : part.x1 - window.x0]
    below += alpha * (part.warp(layer.rgb, layer.to_crop) - below)

"""Where a crop lies in a photograph, and how what is found in crops gets to the photograph's own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from emoedit.faces.align import Alignment


@dataclass(frozen=True)
class Place:
    """The window of a photograph that a crop touches.

    Args:
        alignment: of the crop.  x0, y0, x1, y1: the window's first pixels, and those beyond its last.
    """

    alignment: Alignment
    x0: int
    y0: int
    x1: int
    y1: int

    @classmethod
    def of(cls, alignment: Alignment, height: int, width: int) -> Place:
        """In a photograph of this size."""
        side = alignment.resolution - 1
        corners = alignment.to_photo(np.array([[0, 0], [side, 0], [0, side], [side, side]], float))
        x0, y0 = np.floor(corners.min(0)).astype(int)
        x1, y1 = np.ceil(corners.max(0)).astype(int) + 1
        return cls(alignment, max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1)))

    @property
    def empty(self) -> bool:
        return self.x1 <= self.x0 or self.y1 <= self.y0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Of the photograph's rows and columns."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def enlarge(self, crop: np.ndarray, interpolation: int = cv2.INTER_CUBIC, *, factor: int = 1) -> np.ndarray:
        """A crop-sized array, or one ``factor`` times as large, in the window's pixels; zero outside the crop."""
        matrix = self.alignment.matrix * factor
        matrix[:, 2] += (factor - 1) / 2
        matrix[:, 2] = matrix @ [self.x0, self.y0, 1]
        size = (self.x1 - self.x0, self.y1 - self.y0)
        return cv2.warpAffine(
            crop, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
        )

    def share(self, crop: np.ndarray, *, factor: int = 1) -> np.ndarray:
        """:meth:`enlarge` for a mask: float32 in [0, 1]."""
        return np.clip(self.enlarge(crop.astype(np.float32), cv2.INTER_LINEAR, factor=factor), 0, 1)

    def displacement(self, flow: np.ndarray) -> np.ndarray:
        """A flow in crop pixels ``[R, R, 2]``, rotated and scaled into one of the window's pixels."""
        return self.enlarge((flow @ self.alignment.inverse[:, :2].T).astype(np.float32))

    def sample(self, photo: np.ndarray, displacement: np.ndarray) -> np.ndarray:
        """The photograph at ``p + displacement[p]`` for the window's pixels, float32."""
        height, width = displacement.shape[:2]
        x = np.arange(self.x0, self.x0 + width, dtype=np.float32)[None] + displacement[..., 0]
        y = np.arange(self.y0, self.y0 + height, dtype=np.float32)[:, None] + displacement[..., 1]
        # Only what the window can reach: turning a 50-megapixel photograph to float for one face would be waste.
        reach = int(np.ceil(np.abs(displacement).max())) + 3
        top, left = max(0, self.y0 - reach), max(0, self.x0 - reach)
        near = photo[top : self.y1 + reach, left : self.x1 + reach].astype(np.float32)
        return cv2.remap(near, x - left, y - top, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101).clip(0, 255)

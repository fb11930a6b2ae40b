"""Which part of an aligned crop is which part of a face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from emoedit.types import CropSpec

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Regions:
    """Soft masks of a crop, float32 ``[R, R]`` in [0, 1].

    Args:
        face: 1 on brows, eyes, cheeks, mouth and chin, falling smoothly to exactly 0 before hair line, ears, and
            the crop's border.
        moving: the face, less so the nose: expressions leave it nearly where it is, class means of faces do not.
        nose: from between the eyes to its tip.
        mouth: where lips, teeth and the inside of a mouth can be.
        cheeks: where a smile folds them: from the sides of the nose to beyond the corners of the mouth.
    """

    face: np.ndarray
    moving: np.ndarray
    nose: np.ndarray
    mouth: np.ndarray
    cheeks: np.ndarray


@lru_cache(maxsize=8)
def regions(spec: CropSpec) -> Regions:
    """The regions of a crop: the same parts of the face whatever its resolution and scale."""
    side = spec.resolution
    axis = (np.arange(side) - (side - 1) / 2) / side * spec.scale
    x, y = np.meshgrid(axis, axis + spec.down)  # in FFHQ's units, from the centre of its square

    def smooth(ramp: np.ndarray) -> np.ndarray:
        ramp = np.clip(ramp, 0, 1)
        return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)

    # A superellipse around the middle of the face, wide enough for raised brows and an open mouth.
    radius = (np.abs(x / 0.285) ** 2.6 + np.abs((y - 0.105) / 0.295) ** 2.6) ** (1 / 2.6)
    border = np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) / (0.08 * side), 0, 1)
    face = smooth(np.clip((1.0 - radius) / 0.30, 0, 1) * border * border[:, None])
    face[face < 1 / 512] = 0
    nose = smooth(1.5 - np.hypot(x / 0.06, (y - 0.06) / 0.075))
    mouth = smooth((1.15 - np.hypot(x / 0.155, (y - 0.245) / 0.115)) / 0.3)
    cheeks = smooth((1.15 - np.hypot(x / 0.235, (y - 0.205) / 0.13)) / 0.3) * (1 - nose)
    return Regions(face, face * (1 - 0.4 * nose), nose, mouth, cheeks)

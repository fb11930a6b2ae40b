"""Which part of an aligned crop is which part of a face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from emoedit.faces.curves import smoothstep
from emoedit.types import CropSpec


@dataclass(frozen=True)
class FaceMasks:
    """Soft masks of a crop, float32 ``[R, R]`` in [0, 1].

    Args:
        face: 1 on brows, eyes, cheeks, mouth and chin, falling smoothly to exactly 0 before hair line, ears, and the
            crop's border.
        nose: from between the eyes to its tip.
        mouth: where lips, teeth and the inside of a mouth can be.
        cheeks: where a smile folds them: from the sides of the nose to beyond the corners of the mouth.
    """

    face: np.ndarray
    nose: np.ndarray
    mouth: np.ndarray
    cheeks: np.ndarray


@lru_cache(maxsize=8)
def face_masks(spec: CropSpec) -> FaceMasks:
    """The masks of a crop: the same parts of the face whatever its resolution and scale.

    Args:
        spec: the crop.

    Returns:
        Masks that every caller shares; they are not to be modified.
    """
    side = spec.resolution
    axis = (np.arange(side) - (side - 1) / 2) / side * spec.scale
    x, y = np.meshgrid(axis, axis + spec.down)  # in FFHQ's units, from the centre of its square

    def smooth(values: np.ndarray) -> np.ndarray:
        return smoothstep(values, 0.0, 1.0).astype(np.float32)

    # A superellipse around the middle of the face, wide enough for raised brows and an open mouth.
    radius = (np.abs(x / 0.285) ** 2.6 + np.abs((y - 0.105) / 0.295) ** 2.6) ** (1 / 2.6)
    border = np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) / (0.08 * side), 0, 1)
    face = smooth(np.clip((1.0 - radius) / 0.30, 0, 1) * border * border[:, None])
    face[face < 1 / 512] = 0
    nose = smooth(1.5 - np.hypot(x / 0.06, (y - 0.06) / 0.075))
    mouth = smooth((1.15 - np.hypot(x / 0.155, (y - 0.245) / 0.115)) / 0.3)
    cheeks = smooth((1.15 - np.hypot(x / 0.235, (y - 0.205) / 0.13)) / 0.3) * (1 - nose)
    return FaceMasks(face, nose, mouth, cheeks)

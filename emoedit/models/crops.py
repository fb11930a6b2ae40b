"""Faces as a backbone is given them, and what it draws as grey levels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from emoedit.faces.align import Alignment
from emoedit.faces.masks import face_masks
from emoedit.faces.tone import Tone, find_tone
from emoedit.models.base import Backbone


def crop_and_normalise(
    rgb: np.ndarray, alignments: Sequence[Alignment], backbone: Backbone
) -> tuple[torch.Tensor, tuple[Tone, ...]]:
    """Faces as a backbone is given them.

    Args:
        rgb: the photograph, uint8 ``[H, W, 3]``.
        alignments: alignments of N faces.
        backbone: its properties describe the input it expects.

    Returns:
        ``[N, C, R, R]`` in [-1, 1], and the tones that faces are lifted to.
    """

    def plane(picture: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if backbone.channels == 1 else picture

    own = plane(rgb)
    crops = [alignment.crop(own) for alignment in alignments]
    tones = [Tone()] * len(crops)
    if backbone.normalises_luminance and backbone.channels == 1:
        face = face_masks(backbone.crop).face
        tones = [find_tone(crop, face) for crop in crops]
        lifted = zip(crops, tones, alignments, strict=True)
        crops = [c if tone.power == 1 else a.crop(plane(tone.lifted(rgb))) for c, tone, a in lifted]
    x = np.stack(crops).astype(np.float32).reshape(len(crops), *crops[0].shape[:2], backbone.channels)
    return torch.from_numpy(x).permute(0, 3, 1, 2) / 127.5 - 1, tuple(tones)


def levels(x: torch.Tensor) -> np.ndarray:
    """``[N, C, R, R]`` in [-1, 1] as grey levels: float32 ``[N, R, R]`` or ``[N, R, R, 3]``, 0 to 255."""
    levels = ((x.float() + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(levels[..., 0] if levels.shape[-1] == 1 else levels)

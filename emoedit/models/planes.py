"""A crop as planes of less resolution: what small diffusion models see and draw.

The luminance of every square of pixels becomes as many channels (pixel unshuffle, Shi et al. 2016, arXiv 1609.05158),
so that a small network's convolutions reach further. Colour is two planes of differences from luminance at the
resolution of the squares, as JPEG and video keep it (4:2:0, ITU-T T.871): eyes see no more of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.models.luminance import in_luminance
from emoedit.types import LUMA_WEIGHTS


def plane_count(patch: int, chroma: float | None, channels: int = 1) -> int:
    """How many planes a crop has.

    Args:
        patch: side of the squares.
        chroma: None for crops without planes of colour.
        channels: channels of such crops.
    """
    return channels * patch**2 if chroma is None else patch**2 + 2


def to_planes(x: Tensor, patch: int, chroma: float | None = None) -> Tensor:
    """The planes of crops, ``[N, P, R / patch, R / patch]``; differentiable.

    Args:
        x: ``[N, C, R, R]``; with ``chroma`` C is 3.
        patch: side of the squares.
        chroma: factor of red and blue minus luminance, so that noise hides colour no earlier than luminance; None:
            every channel is unshuffled.
    """
    if chroma is None:
        return F.pixel_unshuffle(x, patch)
    luminance = in_luminance(x)
    colour = F.avg_pool2d(x[:, ::2] - luminance, patch) * chroma
    return torch.cat([F.pixel_unshuffle(luminance, patch), colour], 1)


def from_planes(planes: Tensor, patch: int, chroma: float | None = None) -> Tensor:
    """Crops ``[N, C, R, R]`` of planes; with ``chroma`` they lack what colour changes inside a square.

    Args:
        planes: ``[N, P, r, r]``.
        patch: side of the squares.
        chroma: as for ``to_planes``.
    """
    if chroma is None:
        return F.pixel_shuffle(planes, patch)
    luminance = F.pixel_shuffle(planes[:, : patch**2], patch)
    colour = F.interpolate(planes[:, patch**2 :] / chroma, scale_factor=patch, mode="bilinear", align_corners=False)
    red, blue = (luminance + colour).split(1, 1)
    green = (luminance - LUMA_WEIGHTS[0] * red - LUMA_WEIGHTS[2] * blue) / LUMA_WEIGHTS[1]
    return torch.cat([red, green, blue], 1)

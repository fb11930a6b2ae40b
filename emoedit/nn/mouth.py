"""A small U-Net (Ronneberger et al. 2015, arXiv 1505.04597) that segments teeth and sharpens mouths.

Models of 96 or 128 px draw the mean of possible lips and teeth, a blur of nearly constant level. The network is trained
on pairs of such mouths and sharp ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.nn.layers import zeroed
from emoedit.nn.measuring import StoredNetwork
from emoedit.types import CropSpec

FLAT = 0.03  # least deviation by which a patch in [-1, 1] is divided, so that noise in flat ones is not amplified
GROUP = 8  # channels that are normalised together


@dataclass(frozen=True)
class MouthConfig:
    """Architecture and input of a ``MouthNetwork``.

    Args:
        resolution: side of the face's crop (``emoedit.types.CropSpec``, style ``stable``).
        scale: scale of that crop.
        down: vertical offset of that crop.
        left: left edge of the mouth's square in that crop, in pixels.
        top: its upper edge.
        side: its side, a multiple of 4.
        widths: channels at strides 1, 2 and 4.
    """

    resolution: int = 128
    scale: float = 0.66
    down: float = 0.074
    left: int = 32
    top: int = 64
    side: int = 64
    widths: tuple[int, int, int] = (24, 40, 64)

    def patch(self, crops: Tensor) -> Tensor:
        """The square of crops ``[..., R, R]``."""
        return crops[..., self.top : self.top + self.side, self.left : self.left + self.side]


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.GroupNorm(GROUP, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(F.silu(self.norm(self.first(F.silu(x)))))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def standardise(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches ``[N, 1, S, S]`` at mean 0 and deviation 1, and their original mean and deviation ``[N, 1, 1, 1]``."""
    mean = x.mean((1, 2, 3), keepdim=True)
    deviation = (x - mean).square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(FLAT)
    return (x - mean) / deviation, mean, deviation


class MouthNetwork(StoredNetwork):
    """Blurred mouth -> sharp mouth, and where teeth are.

    Args:
        config: see ``MouthConfig``.
    """

    def __init__(self, config: MouthConfig) -> None:
        super().__init__()
        self.config = config
        self.crop = CropSpec(config.resolution, "stable", config.scale, config.down)
        fine, middle, coarse = config.widths
        self.first = nn.Conv2d(1, fine, 5, 1, 2)
        self.down = nn.ModuleList([_Block(fine, fine), _Block(fine, middle), _Block(middle, coarse)])
        self.deepest = _Block(coarse, coarse)
        self.up = nn.ModuleList([_Block(coarse + middle, middle), _Block(middle + fine, fine)])
        self.last = zeroed(nn.Conv2d(fine, 2, 3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``standardise``d patches ``[N, 1, S, S]`` -> sharp ones, and logits of teeth, of the same shape."""
        fine = self.down[0](self.first(x))
        middle = self.down[1](F.avg_pool2d(fine, 2))
        h = self.deepest(self.down[2](F.avg_pool2d(middle, 2)))
        h = self.up[0](torch.cat([_double(h), middle], 1))
        h = self.up[1](torch.cat([_double(h), fine], 1))
        out = self.last(F.silu(h))
        return x + out[:, :1], out[:, 1:]

    @classmethod
    def read_config(cls, raw: Mapping[str, Any]) -> MouthConfig:
        """The configuration of a folder."""
        whole = {name: int(raw[name]) for name in ("resolution", "left", "top", "side")}
        fine, middle, coarse = (int(width) for width in raw["widths"])
        return MouthConfig(**whole, scale=float(raw["scale"]), down=float(raw["down"]), widths=(fine, middle, coarse))

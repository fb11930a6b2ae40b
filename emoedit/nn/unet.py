"""A small U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with one output for every pixel of a face's crop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.nn.measuring import StoredNetwork
from emoedit.types import CropSpec

GROUP = 8  # channels that are normalised together


@dataclass(frozen=True)
class UNetConfig:
    """Architecture and input of a [UNet][emoedit.nn.unet.UNet].

    Args:
        resolution: side of the face's crop in pixels, a multiple of 16.
        scale: scale of that crop ([CropSpec][emoedit.types.CropSpec], style ``stable``).
        down: vertical offset of that crop.
        widths: channels at strides 2, 4, 8 and 16.
    """

    resolution: int = 64
    scale: float = 0.66
    down: float = 0.074
    widths: tuple[int, int, int, int] = (16, 32, 48, 64)


class Block(nn.Module):
    """Two 3 x 3 convolutions, the first of which may halve the side.

    Args:
        inputs: channels in.
        outputs: channels out, a multiple of ``GROUP``.
        stride: 2 halves the side.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm, self.last = nn.GroupNorm(outputs // GROUP, outputs), nn.GroupNorm(outputs // GROUP, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """One pass.

        Args:
            x: ``[N, inputs, H, W]``.
        """
        x = F.silu(self.norm(self.first(x)))
        return F.silu(self.last(self.second(x)))


class UNet(StoredNetwork):
    """Crops -> one number for every pixel.

    Args:
        config: see [UNetConfig][emoedit.nn.unet.UNetConfig].
    """

    inputs: int  # channels of a crop

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.crop = CropSpec(config.resolution, "stable", config.scale, config.down)
        widths = (self.inputs, *config.widths[:-1])
        self.down = nn.ModuleList(Block(i, o, 2) for i, o in zip(widths, config.widths, strict=True))
        pairs = zip(config.widths[:0:-1], config.widths[-2::-1], strict=True)
        self.up = nn.ModuleList(Block(deep + wide, wide) for deep, wide in pairs)
        self.last = nn.Conv2d(config.widths[0], 1, 1)

    def answer(self, x: Tensor) -> Tensor:
        """Outputs ``[N, 1, R, R]``, computed at half that side and enlarged.

        Args:
            x: crops ``[N, inputs, R, R]``.
        """
        maps = []
        for block in self.down:
            x = block(x)
            maps.append(x)
        for block, wide in zip(self.up, maps[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, wide], 1))
        return F.interpolate(self.last(x), scale_factor=2, mode="bilinear", align_corners=False)

    @classmethod
    def read_config(cls, raw: Mapping[str, Any]) -> UNetConfig:
        """The configuration in a json object."""
        one, two, four, eight = (int(width) for width in raw["widths"])
        return UNetConfig(int(raw["resolution"]), float(raw["scale"]), float(raw["down"]), (one, two, four, eight))

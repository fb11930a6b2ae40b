"""A small U-Net that takes the smile out of a face whose lips are together: movement, a change of light, what is drawn.

Nearly all pixels stay the photograph's own; only what no pixel of it shows is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.nn.layers import zeroed
from emoedit.nn.measuring import StoredNetwork
from emoedit.nn.unet import Block
from emoedit.types import CropSpec

REACH = 0.1  # in crop sides: unit of the flows, about how far corners of a laugh move
RARE = -4.0  # logit of what is drawn before training


class Layers(NamedTuple):
    """What a smiling crop is made of without its smile.

    Args:
        flow: ``[N, 2, R, R]``: backward flow (x, y) in crop sides.
        light: ``[N, 1, R, R]``: natural logarithm of the ratio of neutral to present light.
        paint: ``[N, 3, R, R]``, -1 to 1: what is drawn.
        drawn: ``[N, 1, R, R]`` in [0, 1]: where.
    """

    flow: Tensor
    light: Tensor
    paint: Tensor
    drawn: Tensor


@dataclass(frozen=True)
class SmileRemovalConfig:
    """Architecture and input of a [SmileRemovalNetwork][emoedit.nn.smile_removal.SmileRemovalNetwork].

    Args:
        resolution: side of the face's crop in pixels, a multiple of 16.
        scale: scale of that crop ([CropSpec][emoedit.types.CropSpec], style ``stable``).
        down: vertical offset of that crop.
        widths: channels at strides 2, 4, 8 and 16, multiples of 8.
    """

    resolution: int = 128
    scale: float = 0.66
    down: float = 0.074
    widths: tuple[int, int, int, int] = (24, 48, 96, 128)


class SmileRemovalNetwork(StoredNetwork):
    """Crops of smiling faces, lips together -> [Layers][emoedit.nn.smile_removal.Layers] of the same faces, neutral.

    Untrained, it changes nothing but a trace of grey.

    Args:
        config: see [SmileRemovalConfig][emoedit.nn.smile_removal.SmileRemovalConfig].
    """

    place: Tensor

    def __init__(self, config: SmileRemovalConfig) -> None:
        super().__init__()
        self.config = config
        self.crop = CropSpec(config.resolution, "stable", config.scale, config.down)
        one, two, four, eight = config.widths
        self.stem = Block(14, one)
        self.down = nn.ModuleList(Block(i, o, 2) for i, o in ((one, two), (two, four), (four, eight)))
        self.middle = Block(eight, eight)
        self.up = nn.ModuleList(Block(i + o, o) for i, o in ((eight, four), (four, two), (two, one)))
        self.coarse, self.fine = zeroed(nn.Conv2d(one, 3, 3, 1, 1)), zeroed(nn.Conv2d(one, 4 * 4, 3, 1, 1))
        half = (torch.arange(config.resolution // 2) + 0.5) / (config.resolution // 2)
        y, x = torch.meshgrid(half, half, indexing="ij")
        self.register_buffer("place", torch.stack([x, y])[None], persistent=False)

    def forward(self, x: Tensor) -> Layers:
        """One pass.

        Args:
            x: ``[N, 3, R, R]``, -1 to 1.
        """
        place = self.place.expand(len(x), -1, -1, -1)
        h = self.stem(torch.cat([F.pixel_unshuffle(x, 2), 2 * place - 1], 1))
        maps = [h]
        for block in self.down:
            h = block(h)
            maps.append(h)
        h = self.middle(h)
        for block, wide in zip(self.up, maps[-2::-1], strict=True):
            h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
            h = block(torch.cat([h, wide], 1))
        coarse = F.interpolate(self.coarse(h), scale_factor=2, mode="bilinear", align_corners=False)
        fine = F.pixel_shuffle(self.fine(h), 2)
        flow, light = REACH * coarse[:, :2], coarse[:, 2:]
        return Layers(flow, light, fine[:, :3].tanh(), (RARE + fine[:, 3:]).sigmoid())

    @classmethod
    def read_config(cls, raw: Mapping[str, Any]) -> SmileRemovalConfig:
        """The configuration in a json object."""
        one, two, four, eight = (int(width) for width in raw["widths"])
        return SmileRemovalConfig(
            int(raw["resolution"]), float(raw["scale"]), float(raw["down"]), (one, two, four, eight)
        )


def moved(x: Tensor, flow: Tensor) -> Tensor:
    """Pictures along backward flows.

    Args:
        x: ``[N, C, R, R]``.
        flow: ``[N, 2, R, R]`` in sides of the picture.

    Returns:
        ``[N, C, R, R]``.
    """
    side = x.shape[-1]
    axis = (torch.arange(side, dtype=x.dtype, device=x.device) + 0.5) * 2 / side - 1
    y, x_axis = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x_axis, y], -1) + 2 * flow.permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def composed(x: Tensor, layers: Layers) -> Tensor:
    """Crops ``[N, 3, R, R]``, -1 to 1, without their smiles.

    Args:
        x: the smiling crops, lips together.
        layers: what the network makes of them.
    """
    lit = (moved(x, layers.flow) + 1) * layers.light.exp() - 1
    return lit + layers.drawn * (layers.paint - lit)

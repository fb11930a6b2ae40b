"""A backbone without a model: the picture is its own latent. Reference editors use it.

The latent of a picture is the picture, a movement of its pixels (none) and light to add (none), so that a class mean of
movements and lights, learned once, is a direction like any other editor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.models.base import Callback
from emoedit.models.configured import ConfiguredBackbone
from emoedit.types import Change, CheckpointError, Control, CropSpec, Inversion

PLANES = 4  # luminance; movement across, movement down, in crops; light to add, in [-1, 1]


@dataclass(frozen=True)
class PixelsConfig:
    """Which crop is moved and lit.

    Args:
        resolution: ``emoedit.types.CropSpec``, style ``stable``.
        crop_scale: as ``resolution``.
        crop_down: as ``resolution``.
    """

    resolution: int = 96
    crop_scale: float = 0.66
    crop_down: float = 0.074


class PixelBackbone(ConfiguredBackbone[PixelsConfig]):
    """Moves the pixels of a crop and adds light to them.

    ``latent`` is ``[N, 4 * R * R]``: planes of luminance in [-1, 1], movement (x, y; fractions of the side; where the
    pixel that lands here comes from) and light.

    Args:
        config: config of the crop.
    """

    channels = 1
    compositor = "moved"

    grid: Tensor

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        self.config = config
        self.crop = CropSpec(config.resolution, "stable", config.crop_scale, config.crop_down)
        axis = (torch.arange(config.resolution) + 0.5) / config.resolution
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], -1)[None], persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.grid.device

    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """The latents of crops; see ``Backbone.invert``."""
        latent = torch.cat([x, x.new_zeros(len(x), PLANES - 1, *x.shape[2:])], 1).flatten(1)
        if callback is not None:
            callback(1, 1)
        return Inversion(latent)

    def _planes(self, inversion: Inversion, control: Control) -> Tensor:
        latent = inversion.latent if control.shift is None else inversion.latent + control.shift
        return latent.unflatten(1, (PLANES, self.config.resolution, self.config.resolution))

    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The drawing of latents under a control; see ``Backbone.decode``."""
        planes = self._planes(inversion, control)
        grid = (self.grid + planes[:, 1:3].permute(0, 2, 3, 1)) * 2 - 1
        moved = F.grid_sample(planes[:, :1], grid, padding_mode="reflection", align_corners=False)
        if callback is not None:
            callback(1, 1)
        return moved + planes[:, 3:]

    def changes(self, inversion: Inversion, control: Control) -> list[Change]:
        """The movement and light themselves, one a picture: nothing has to be found again from pictures."""
        planes = self._planes(inversion, control).cpu().numpy()
        side = self.config.resolution
        return [Change(np.ascontiguousarray(p[1:3].transpose(1, 2, 0)) * side, p[3] * 127.5) for p in planes]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture with fresh weights.

        Raises:
            CheckpointError: an entry is missing or unknown.
        """
        try:
            return cls(PixelsConfig(**config))
        except TypeError as error:
            raise CheckpointError(f"this is no configuration of a pixel backbone: {error}") from error

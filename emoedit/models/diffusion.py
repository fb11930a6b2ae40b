"""The base class of diffusion backbones: a schedule, and h between the halves of a U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from torch import Tensor, nn

from emoedit.models.configured import Config, ConfiguredBackbone
from emoedit.models.luminance import LuminanceNorm, NormalisesLuminance
from emoedit.sampling import Schedule

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNet2DModel


class DiffusionConfig(LuminanceNorm, Config, Protocol):
    """The entries of a configuration that inversion and decoding use."""

    @property
    def steps(self) -> int:
        """Number of steps of inversion and of decoding."""

    @property
    def t_edit(self) -> int:
        """The timestep down to which h is shifted."""


C = TypeVar("C", bound=DiffusionConfig)


class DiffusionBackbone(NormalisesLuminance, ConfiguredBackbone[C]):
    """DDIM inversion and decoding around a U-Net that is cut behind its mid block, where h is.

    Attributes:
        config: the architecture and the settings of sampling.
        unet: U-Net of diffusers.
        schedule: the timesteps at which it is called.
        unet_side: side of its square inputs.
        alpha_bar: ``[T]`` of all timesteps (``emoedit.sampling.alpha_bar``).
    """

    config: C
    unet: UNet2DModel | UNet2DConditionModel
    unet_side: int
    schedule: Schedule
    alpha_bar: Tensor

    @property
    def steps(self) -> int:
        """Steps of decoding; a fitted shift of h is scaled by them."""
        return self.config.steps

    @property
    def h_shape(self) -> tuple[int, int, int]:
        """``(Ch, r, r)`` of the mid block's output."""
        widths = self.unet.config.block_out_channels
        side = self.unet_side // 2 ** (len(widths) - 1)
        return widths[-1], side, side

    @property
    def temb_dim(self) -> int:
        """Length of the timestep embedding."""
        return self.unet.time_embedding.linear_2.out_features

    def compiled_parts(self) -> Sequence[nn.Module]:
        """See ``Backbone.compiled_parts``: the U-Net's blocks, as it is cut behind its mid block."""
        return *self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks

"""A DDPM's U-Net, cut behind its mid block, where h is.

What lies before is computed once a step, what lies behind once for the plain and the shifted h together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from emoedit.types import CheckpointError

if TYPE_CHECKING:
    from diffusers import UNet2DModel


def down(unet: UNet2DModel, x: Tensor, t: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """``UNet2DModel.forward`` up to its mid block's output.

    Args:
        unet: the network.
        x: ``[N, C, R, R]``.
        t: ``[N]`` timesteps.

    Returns:
        h ``[N, Ch, r, r]``; the down path's outputs, which the up path joins; temb ``[N, D]``.
    """
    temb = unet.time_embedding(unet.time_proj(t).to(unet.time_embedding.linear_1.weight.dtype))
    x = x.to(unet.conv_in.weight.dtype, memory_format=torch.channels_last)
    h = unet.conv_in(2 * x - 1 if unet.config.center_input_sample else x)
    skips, low = (h,), temb.to(h.dtype)
    for block in unet.down_blocks:
        h, outputs = block(h, low)
        skips += outputs
    return unet.mid_block(h, low), skips, temb


def up(unet: UNet2DModel, h: Tensor, skips: tuple[Tensor, ...], temb: Tensor) -> Tensor:
    """``UNet2DModel.forward`` from its mid block's output on: the noise, ``[N, C, R, R]`` in the type of temb.

    Args:
        unet: the network.
        h: ``[N, Ch, r, r]``, of the mid block.
        skips: skip connections from ``down``.
        temb: timestep embedding from ``down``.
    """
    low = temb.to(h.dtype)
    for block in unet.up_blocks:
        count = len(block.resnets)
        h = block(h, skips[-count:], low)
        skips = skips[:-count]
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h))).to(temb.dtype)


def _channels_first(norm: nn.GroupNorm, inputs: tuple[Tensor]) -> Tensor:
    """What a GroupNorm in bfloat16 is given.

    Below 1,024 positions PyTorch's CPU kernel for channels-last maps reads a group's few channels position by position,
    several times slower than it normalises a copy with channels first.
    """
    (x,) = inputs
    return x.contiguous() if x.shape[2:].numel() < 1024 else x


def prepare_bfloat16(unet: UNet2DModel) -> None:
    """Make the U-Net's small GroupNorms fast in bfloat16, in place.

    Args:
        unet: in bfloat16.
    """
    for part in unet.modules():
        if isinstance(part, nn.GroupNorm) and part.num_channels // part.num_groups < 16:
            part.register_forward_pre_hook(_channels_first)


def new_unet(config: dict[str, Any]) -> UNet2DModel:
    """A U-Net of this configuration with fresh weights.

    Args:
        config: config of ``UNet2DModel``.

    Raises:
        CheckpointError: not the arguments of a ``UNet2DModel``.
    """
    from diffusers import UNet2DModel

    try:
        return UNet2DModel(**config)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"not the arguments of a UNet2DModel: {error}") from error

"""Stable Diffusion's U-Net, cut behind its mid block, where h is.

What lies before is computed once a step, what lies behind once for the plain and the shifted h together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def down(
    unet: UNet2DConditionModel, x: Tensor, t: Tensor, context: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """``UNet2DConditionModel.forward`` up to its mid block's output.

    Args:
        unet: the network.
        x: ``[N, C, r, r]``.
        t: ``[N]`` timesteps.
        context: ``[N, T, D]``.

    Returns:
        h ``[N, Ch, r', r']``; the down path's outputs, which the up path joins; temb ``[N, D']``.
    """
    temb = unet.time_embedding(unet.time_proj(t).to(unet.time_embedding.linear_1.weight.dtype))
    dtype = unet.conv_in.weight.dtype
    x = x.to(dtype, memory_format=torch.channels_last)
    low, context = temb.to(dtype), context.to(dtype)
    h = unet.conv_in(2 * x - 1 if unet.config.center_input_sample else x)
    skips: tuple[Tensor, ...] = (h,)
    for block in unet.down_blocks:
        h, outputs = block(h, low, **_text(block, context))
        skips += outputs
    return unet.mid_block(h, low, **_text(unet.mid_block, context)), skips, temb


def up(unet: UNet2DConditionModel, h: Tensor, skips: tuple[Tensor, ...], temb: Tensor, context: Tensor) -> Tensor:
    """``UNet2DConditionModel.forward`` from its mid block's output on: ``[N, C, r, r]`` in the type of temb.

    Args:
        unet: the network.
        h: ``[N, Ch, r, r]``, of the mid block.
        skips: skip connections from ``down``.
        temb: timestep embedding from ``down``.
        context: ``[N, T, D]``.
    """
    low, context = temb.to(h.dtype), context.to(h.dtype)
    for block in unet.up_blocks:
        count = len(block.resnets)
        h = block(h, res_hidden_states_tuple=skips[-count:], temb=low, **_text(block, context))
        skips = skips[:-count]
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h))).to(temb.dtype)


def _text(block: torch.nn.Module, context: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}

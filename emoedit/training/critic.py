"""The discriminator of adversarial training, made for speed on few processors; it is not shipped.

As StyleGAN2's discriminator (Karras et al. 2020, arXiv 1912.04958) it has residual blocks, scaled
weights and the deviation within a group of pictures as one more map. It differs where that one spends its time: squares
of 2 x 2 pixels are channels from the start, and learned 4 x 4 convolutions halve the maps instead of a fixed filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.models.stylegan2.network import GAIN, SLOPE, EqualLinear

PATCH = 2
GROUP = 4  # pictures whose deviation is looked at


class _Conv(nn.Module):
    """A convolution whose weights are scaled when used (Karras et al. 2018); kernels of 4 halve the maps."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = GAIN / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        weight = (self.weight * self.scale).to(x.dtype, memory_format=torch.channels_last)
        stride, padding = (2, 1) if kernel == 4 else (1, kernel // 2)
        return F.leaky_relu(F.conv2d(x, weight, self.bias.to(x.dtype), stride=stride, padding=padding), SLOPE)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.down = _Conv(inputs, inputs, 3), _Conv(inputs, outputs, 4)
        self.skip = nn.Parameter(torch.randn(outputs, inputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        skip = (self.skip * math.sqrt(1 / self.skip.shape[1])).to(x.dtype)
        return (F.conv2d(F.avg_pool2d(x, 2), skip) + self.down(self.conv(x))) * math.sqrt(0.5)


class Critic(nn.Module):
    """See the module.

    Args:
        channels: channels of the picture.
        widths: channels at ``R / 2``, ``R / 4``, ... 4 pixels.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = _Conv(channels * PATCH**2, widths[0], 3)
        self.blocks = nn.ModuleList(_Block(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.last = _Conv(widths[-1] + 1, widths[-1], 3)
        self.hidden = EqualLinear(widths[-1] * 16, widths[-1])
        self.out = EqualLinear(widths[-1], 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``[N]`` in float32 of pictures ``[N, C, R, R]``.

        N is below ``GROUP`` or a multiple of it, and groups are neighbours. Convolutions are computed in the type of
        the picture.
        """
        x = F.pixel_unshuffle(image, PATCH).contiguous(memory_format=torch.channels_last)
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        x = self.last(torch.cat([x, _deviation(x)], 1))
        x = F.leaky_relu(self.hidden(x.float().flatten(1)), SLOPE) * GAIN
        return self.out(x)[:, 0]


def _deviation(x: Tensor) -> Tensor:
    """Standard deviation within each group, ``[N, 1, h, w]``.

    It is averaged over channels and places (Karras et al. 2018, section 3).
    """
    group = min(GROUP, len(x))
    spread = (x.float().unflatten(0, (-1, group)).var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return spread.repeat_interleave(group)[:, None, None, None].expand(-1, 1, *x.shape[2:]).to(x.dtype)

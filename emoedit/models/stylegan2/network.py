"""StyleGAN2's networks (Karras et al. 2020, arXiv 1912.04958) in plain PyTorch.

Mapping, synthesis, and a small encoder into W+.

Modulation scales what goes into an ordinary convolution and demodulation what comes out of it. That equals a
convolution with weights of each picture's own (the paper's equations 1 to 3) and is one large convolution for a whole
batch. Maps are channels-last, where processors are fastest both at these convolutions and at the FIR filters between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.nn.layers import ModuleList, zeroed

EPS = 1e-8
SLOPE, GAIN = 0.2, math.sqrt(2)  # of the leaky rectifier, and what keeps the variance behind it at 1
FIR = (1.0, 3.0, 3.0, 1.0)  # the low-pass filter of every resampling


def widths(resolution: int, *, base: int = 32768) -> tuple[int, ...]:
    """Channels at 4, 8, ... ``resolution`` pixels as the published models have them: ``min(base / side, 512)``.

    Args:
        resolution: side of the pictures.
        base: width factor of all resolutions.
    """
    return tuple(min(base // side, 512) for side in sides(resolution))


def sides(resolution: int) -> list[int]:
    """4, 8, ... ``resolution``."""
    return [2**k for k in range(2, resolution.bit_length())]


def layer_count(resolution: int) -> int:
    """L: how many styles w+ holds at ``resolution``; two a level, the last of them for the picture alone."""
    return 2 * len(sides(resolution))


def noise_sides(resolution: int) -> list[int]:
    """Sides of the noise maps up to ``resolution``, coarse to fine: 4, 8, 8, 16, 16, ..."""
    return [side for side in sides(resolution) for _ in range(2)][1:]


def _fir(channels: int, gain: float) -> Tensor:
    """``[channels, 1, 4, 4]``."""
    taps = torch.tensor(FIR)
    kernel = torch.outer(taps, taps)
    return (kernel * (gain / kernel.sum())).expand(channels, 1, -1, -1).contiguous()


def upsample(image: Tensor) -> Tensor:
    """``[N, C, R, R]`` -> ``[N, C, 2R, 2R]``, filtered with ``FIR``.

    At factor 2 this is linear interpolation with zeros around the picture.
    """
    return F.interpolate(F.pad(image, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")[..., 2:-2, 2:-2]


class EqualLinear(nn.Module):
    """A linear layer whose weights are scaled when used, so that all layers learn equally fast (Karras et al. 2018).

    Args:
        inputs: channels in.
        outputs: channels out.
        rate: learning rate relative to the others.
        bias: its first value.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs]`` -> ``[N, outputs]``."""
        scale = self.rate / math.sqrt(self.weight.shape[1])
        return F.linear(x, self.weight * scale, self.bias * self.rate)


class Mapping(nn.Module):
    """z -> w: z at unit mean square, then linear layers with leaky rectifiers.

    Args:
        z_dim: lengths.
        w_dim: as ``z_dim``.
        layers: how many.
        rate: learning rate relative to the synthesis network's.
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, *, layers: int = 8, rate: float = 0.01) -> None:
        super().__init__()
        sizes = [z_dim, *[w_dim] * layers]
        self.layers = ModuleList(EqualLinear(a, b, rate=rate) for a, b in zip(sizes, sizes[1:], strict=False))
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor) -> Tensor:
        """``[N, z_dim]`` -> ``[N, w_dim]``."""
        x = z * (z.square().mean(1, keepdim=True) + EPS).rsqrt()
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * GAIN
        return x

    @torch.no_grad()
    def track(self, w: Tensor, decay: float = 0.995) -> None:
        """Move the running mean of w towards that of a batch ``w`` ``[N, w_dim]``; ``decay`` of it stays."""
        self.w_avg.lerp_(w.detach().mean(0).to(self.w_avg), 1 - decay)


class ModulatedConv(nn.Module):
    """Style -> 3 x 3 convolution (after doubling the resolution, if ``up``) -> demodulation, noise, bias, rectifier.

    Args:
        inputs: channels.
        outputs: as ``inputs``.
        w_dim: length of w.
        clamp: largest magnitude that leaves the layer; published models trained in half precision have one.
    """

    fir: Tensor | None

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, up: bool = False, clamp: float | None = None) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.up, self.clamp = up, clamp
        self._kept: tuple[Any, ...] | None = None
        self.register_buffer("fir", _fir(outputs, 4.0) if up else None, persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # a copy has weights of its own

    def _prepared(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """The weights in the convolution's layout, their squares summed over places ``[I, O]``, and the filter.

        Weights are ``[I, O, 3, 3]`` if ``up``. The three are kept while the weights are neither trained nor changed.
        """
        if self.training:
            return self._made(dtype)
        counted = object() if self.weight.is_inference() else self.weight._version  # an object equals nothing else
        key = dtype, self.weight.data_ptr(), counted
        if self._kept is not None and self._kept[0] == key:
            return self._kept[1]
        made = self._made(dtype)
        if not made[1].requires_grad:
            self._kept = key, made, self.weight.detach()  # holding the tensor keeps its address from being used again
        return made

    def _made(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        weight = self.weight.transpose(0, 1) if self.up else self.weight
        return (
            weight.to(dtype, memory_format=torch.channels_last),
            self.weight.square().sum((2, 3)).T,
            None if self.fir is None else self.fir.to(dtype),
        )

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """``[N, I, R, R]``, ``[N, w_dim]`` and ``[N or 1, 1, R', R']`` -> ``[N, O, R', R']``, R' = 2R if ``up``.

        Without gradients ``x`` is overwritten.

        Args:
            x: ``[N, I, R, R]``.
            w: ``[N, w_dim]``.
            noise: ``[N or 1, 1, R', R']``.
        """
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w.float())
            weight, power, fir = self._prepared(x.dtype)
            scale = GAIN * (style.square() @ power + EPS).rsqrt()
        dtype, frozen, bias = x.dtype, not torch.is_grad_enabled(), GAIN * self.bias
        folded = frozen and len(x) == 1 and x.numel() > weight.numel()  # one picture's weights cost less than its maps
        if folded:
            both = style[0][:, None] * scale if self.up else style * scale[0][:, None]
            weight = (weight * both[:, :, None, None]).to(dtype)
        else:
            style, scale = (part.to(dtype)[:, :, None, None] for part in (style, scale))
            x = x.mul_(style) if frozen else x * style
        inside = bias.to(dtype) if folded else None
        if fir is not None:
            x = F.conv2d(F.conv_transpose2d(x, weight, stride=2), fir, inside, padding=1, groups=len(fir))
        else:
            x = F.conv2d(x, weight, inside, padding=1)
        if not folded:
            x = (x.mul_(scale) if frozen else x * scale).add_(bias.to(dtype)[:, None, None])
        x = F.leaky_relu_(x.add_((noise * (GAIN * self.noise_strength)).to(x.dtype)), SLOPE)
        return x if self.clamp is None else x.clamp_(-self.clamp, self.clamp)


class ToImage(nn.Module):
    """Style -> 1 x 1 convolution without demodulation: what a resolution adds to the picture, in float32.

    Args:
        inputs: channels.
        outputs: channels of the picture.
        w_dim: as in ``ModulatedConv``.
        clamp: as ``w_dim``.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``x`` ``[N, I, R, R]`` and ``w`` ``[N, w_dim]`` -> ``[N, O, R, R]``."""
        count, channels, height, width = x.shape
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w.float()) / math.sqrt(channels)
            weight = (self.weight * style[:, None]).mT  # so few outputs that weights a picture cost less than its maps
            rows = x.permute(0, 2, 3, 1).reshape(count, height * width, channels)
            image = torch.baddbmm(self.bias.to(x.dtype)[None, None], rows, weight.to(x.dtype)).float()
        if self.clamp is not None:
            image = image.clamp_(-self.clamp, self.clamp)
        return image.view(count, height, width, -1).permute(0, 3, 1, 2)


class Synthesis(nn.Module):
    """w+ -> picture: a constant, two modulated convolutions a resolution, and the sum of what each adds to the picture.

    Args:
        resolution: a power of two, 16 at least.
        channels: channels of the picture.
        w_dim: length of w.
        widths: channels at 4, 8, ... ``resolution`` pixels.
        clamp: see ``ModulatedConv``.
    """

    noise: Tensor

    def __init__(
        self, resolution: int, channels: int, w_dim: int, widths: Sequence[int], *, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.resolution, self.w_dim = resolution, w_dim
        self.const = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        convs = [ModulatedConv(widths[0], widths[0], w_dim, clamp=clamp)]
        for before, after in zip(widths, widths[1:], strict=False):
            convs += [ModulatedConv(before, after, w_dim, up=True, clamp=clamp)]
            convs += [ModulatedConv(after, after, w_dim, clamp=clamp)]
        self.convs = ModuleList(convs)
        self.to_images = ModuleList(ToImage(width, channels, w_dim, clamp=clamp) for width in widths)
        self.sizes = [side**2 for side in noise_sides(resolution)]
        self.register_buffer("noise", torch.randn(1, sum(self.sizes), generator=torch.Generator().manual_seed(0)))

    def forward(
        self,
        w_plus: Tensor,
        noise: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        side: int | None = None,
    ) -> Tensor:
        """``[N, L, w_dim]`` -> ``[N, C, R, R]`` in about [-1, 1], float32.

        Args:
            w_plus: ``[N, L, D]``.
            noise: ``[N or 1, P]``, all maps of ``noise_sides`` behind each other; default: those that were saved.
            dtype: dtype of maps and convolutions; styles, demodulation and the picture are float32.
            side: draw no further than to this resolution, for training that begins with small pictures.
        """
        maps = (self.noise if noise is None else noise).split(self.sizes, 1)
        x = self.const.to(dtype).repeat(len(w_plus), 1, 1, 1).contiguous(memory_format=torch.channels_last)
        noises = [flat.view(-1, 1, *[math.isqrt(flat.shape[1])] * 2) for flat in maps]
        x = self.convs[0](x, w_plus[:, 0], noises[0])
        image = self.to_images[0](x, w_plus[:, 1])
        for k in range(1, len(noises)):
            if image.shape[-1] == side:
                break
            x = self.convs[k](x, w_plus[:, k], noises[k])
            if k % 2 == 0:  # the last convolution of its resolution
                image = upsample(image) + self.to_images[k // 2](x, w_plus[:, k + 1])
        return image


class _EncoderBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(8, width), width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class Encoder(nn.Module):
    """Picture -> its w+ minus the mean (Tov et al. 2021, arXiv 2102.02766).

    A residual network whose last 4 x 4 maps are read by two linear layers: one for the w that all styles share, one for
    what each has beside it.

    Args:
        resolution: resolution of the picture.
        channels: as ``resolution``.
        w_dim: length of w.
        widths: channels at ``resolution / 2``, ``resolution / 4``, ... 4 pixels.
        blocks: a resolution.
        neck: channels of the 4 x 4 maps that the linear layers read.
    """

    def __init__(
        self, resolution: int, channels: int, w_dim: int, widths: Sequence[int], *, blocks: int = 1, neck: int = 32
    ) -> None:
        super().__init__()
        self.shape = (layer_count(resolution), w_dim)
        layers: list[nn.Module] = [nn.Conv2d(4 * channels, widths[0], 3, padding=1)]
        for k, width in enumerate(widths):
            if k:
                layers.append(nn.Conv2d(widths[k - 1], width, 3, stride=2, padding=1))
            layers += [_EncoderBlock(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(math.gcd(8, widths[-1]), widths[-1])
        self.reduce = nn.Conv2d(widths[-1], neck, 1)
        self.shared = nn.Linear(neck * 16, w_dim)
        self.own = zeroed(nn.Linear(neck * 16, self.shape[0] * w_dim))

    def trunk(self, x: Tensor) -> Tensor:
        """What the linear layers read: ``[N, C, R, R]`` -> ``[N, 16 neck]``."""
        h = self.layers(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        return self.reduce(F.silu(self.norm(h))).flatten(1)

    def read(self, h: Tensor) -> Tensor:
        """``[N, 16 neck]`` -> ``[N, L, w_dim]``."""
        return self.shared(h).float()[:, None] + self.own(h).float().view(-1, *self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, R, R]`` -> ``[N, L, w_dim]``."""
        return self.read(self.trunk(x))

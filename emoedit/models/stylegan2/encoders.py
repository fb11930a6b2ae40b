"""Encoders of pSp and e4e: a photograph's w+ for a published StyleGAN2, in one pass.

Richardson et al. 2021 (arXiv 2008.00951) and Tov et al. 2021 (arXiv 2102.02766). Both have one layout: an IR-SE50 body
(Deng et al. 2019, arXiv 1801.07698, with squeeze-and-excitation), whose maps at 1/4, 1/8 and 1/16 of the side are
joined from coarse to fine, and a small convolutional head a style. pSp's heads give each style itself; e4e's first head
gives the style that all layers share, the others what each has beside it. Names of tensors are those of their files
(https://github.com/omertov/encoder4editing, https://github.com/eladrich/pixel2style2pixel).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.io.weights import read_torch
from emoedit.models.stylegan2.network import EqualLinear
from emoedit.types import CheckpointError

UNITS = (3, 4, 14, 3)  # residual units of each of the four stages of IR-SE50
SQUEEZE = 16  # channels to one, in squeeze-and-excitation
COARSE, MIDDLE = 3, 7  # styles before these numbers are read from maps at 1/16 and 1/8 of the side, the rest at 1/4
DELTAS = {"GradualStyleEncoder": False, "Encoder4Editing": True}  # pSp's and e4e's names of their encoders
FIRST = "encoder.input_layer.0.weight"


class _Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(width // SQUEEZE, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class _Unit(nn.Module):
    """A residual unit of IR-SE50."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            across = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(across, nn.BatchNorm2d(outputs))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            _Squeeze(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class _Head(nn.Module):
    """Maps ``[N, C, s, s]`` -> one style ``[N, D]``: every convolution halves the side, down to 1."""

    def __init__(self, inputs: int, w_dim: int, count: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(count):
            layers += [nn.Conv2d(w_dim if number else inputs, w_dim, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class StyleEncoder(nn.Module):
    """Picture -> its w+ minus the mean of w.

    Args:
        widths: channels of the four stages of its body; 64, 128, 256, 512 in every published file.
        w_dim: length of w.
        styles: L.
        halvings: convolutions of the first head; its maps are ``2 ** halvings`` wide: 4 in every published file.
        deltas: whether heads after the first give what a style has beside the first (e4e), or styles themselves (pSp).

    Attributes:
        side: side of the pictures that it sees, in pixels; others are resized.
    """

    start: Tensor

    def __init__(self, widths: Sequence[int], w_dim: int, styles: int, halvings: int, *, deltas: bool) -> None:
        super().__init__()
        self.shape, self.deltas, self.side = (styles, w_dim), deltas, 16 * 2**halvings
        first, second, third, last = widths
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        units, inputs = [], first
        for outputs, count in zip(widths, UNITS, strict=True):
            for number in range(count):
                units.append(_Unit(inputs, outputs, 1 if number else 2))
                inputs = outputs
        self.body = nn.Sequential(*units)
        finer = [(number >= COARSE) + (number >= MIDDLE) for number in range(styles)]
        self.styles = nn.ModuleList(_Head(last, w_dim, halvings + extra) for extra in finer)
        self.latlayer1 = nn.Conv2d(third, last, 1)
        self.latlayer2 = nn.Conv2d(second, last, 1)
        self.register_buffer("start", torch.zeros(self.shape), persistent=False)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[N, C, s, s]`` each, at 1/16, 1/8 and 1/4 of the side: what the heads read."""
        x, kept = self.input_layer(x), []
        ends = [sum(UNITS[: number + 1]) for number in range(len(UNITS))]
        for number, unit in enumerate(self.body, 1):
            x = unit(x)
            if number in ends[1:]:
                kept.append(x)
        fine, middle, coarse = kept
        middle = _joined(coarse, self.latlayer1(middle))
        return coarse, middle, _joined(middle, self.latlayer2(fine))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, R, R]`` in [-1, 1] -> ``[N, L, D]``."""
        if x.shape[-1] != self.side:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True)
        maps = self.maps(x)
        found = [head(maps[(k >= COARSE) + (k >= MIDDLE)]) for k, head in enumerate(self.styles)]
        styles = torch.stack(found, 1)
        if self.deltas:
            styles = torch.cat([styles[:, :1], styles[:, :1] + styles[:, 1:]], 1)
        return styles + self.start


def _joined(coarse: Tensor, fine: Tensor) -> Tensor:
    return F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True) + fine


@dataclass(frozen=True)
class EncoderFile:
    """What an encoder's file holds.

    Args:
        encoder: encoder whose ``start`` is still 0.
        mean: ``[L, D]`` that is added to what it finds; None: the generator's own mean of w.
        absolute: whether what it finds is w+ itself, and nothing is added.
        mapping: ``[D, D]``: weights of the first layer of the generator it was trained with; None if they are unknown.
        path: path of the file.
    """

    encoder: StyleEncoder
    mean: Tensor | None
    absolute: bool
    mapping: Tensor | None
    path: Path

    def for_generator(self, w_avg: Tensor, layers: int, mapping: Tensor, *, channels: int = 3) -> StyleEncoder:
        """The encoder, for a generator.

        Args:
            w_avg: the generator's mean of w, ``[D]``.
            layers: L of its w+.
            mapping: weights of its first layer, ``[D, D]``, to identify the generator.
            channels: channels of the pictures that it draws.

        Raises:
            CheckpointError: it finds w+ of another shape, or the generator does not draw colour.
        """
        if channels != 3:
            raise CheckpointError(f"{self.path} takes photographs in colour, and this generator draws luminance alone")
        if (layers, len(w_avg)) != self.encoder.shape:
            count, width = self.encoder.shape
            raise CheckpointError(
                f"{self.path} finds w+ of {count} styles, {width} wide: it is for a generator of "
                f"{2 ** (count // 2 + 1)} pixels. This one draws {2 ** (layers // 2 + 1)} pixels from {layers} styles, "
                f"{len(w_avg)} wide"
            )
        if self.mapping is not None and not (
            self.mapping.shape == mapping.shape and torch.allclose(self.mapping, mapping, atol=1e-3)
        ):
            warnings.warn(
                f"{self.path} was trained with a generator of other weights, in whose w+ its numbers have their "
                f"meaning; the file holds that generator: give it as the model",
                stacklevel=2,
            )
        start = torch.zeros(self.encoder.shape)
        if self.absolute:
            start = start - w_avg
        elif self.mean is not None:
            start = self.mean.expand_as(start) - w_avg
        self.encoder.start = start
        return self.encoder


def holds_encoder(contents: Any) -> bool:
    """Whether what ``torch.save`` wrote is a checkpoint of pSp or e4e.

    Args:
        contents: as ``torch.load`` gives it.
    """
    state = contents.get("state_dict") if isinstance(contents, Mapping) else None
    return isinstance(state, Mapping) and FIRST in state


def read_encoder(path: Path, contents: Any = None) -> EncoderFile:
    """An encoder, from a checkpoint of pSp or e4e.

    Args:
        path: path of the file, such as ``e4e_ffhq_encode.pt``.
        contents: contents of the file, if it has been read.

    Raises:
        CheckpointError: missing, damaged, unsafe; another model, or an encoder of another kind; tensors missing or of
            another shape.
    """
    contents = read_torch(path) if contents is None else contents
    if not holds_encoder(contents):
        held = ", ".join(map(str, list(contents)[:3])) if isinstance(contents, Mapping) else type(contents).__name__
        raise CheckpointError(
            f"{path} holds {held or 'nothing'}; expected a checkpoint of pSp or e4e: state_dict with {FIRST}, opts"
        )
    options = contents.get("opts")
    options = options if isinstance(options, Mapping) else {}
    kind = options.get("encoder_type")
    if kind not in DELTAS:
        raise CheckpointError(
            f"{path}: its encoder_type is {kind!r}; those that are read are {', '.join(DELTAS)} (pSp's and e4e's)"
        )
    prefix = "encoder."
    found = {name: value for name, value in contents["state_dict"].items() if str(name).startswith(prefix)}
    state = {name.removeprefix(prefix): value for name, value in found.items() if isinstance(value, Tensor)}
    encoder = _built(state, DELTAS[kind], path)
    made_for = str(options.get("dataset_type", "ffhq_encode"))
    if not made_for.endswith("_encode"):
        warnings.warn(
            f"{path} was trained for {made_for[:40]!r}, not to find pictures as they are: expect another face",
            stacklevel=2,
        )
    mean, mapping = contents.get("latent_avg"), contents["state_dict"].get("decoder.style.1.weight")
    if isinstance(mean, Tensor):
        if mean.numel() not in (encoder.shape[1], encoder.shape[0] * encoder.shape[1]):
            raise CheckpointError(f"{path}: latent_avg is {tuple(mean.shape)}, expected {encoder.shape}")
        mean = mean.float().reshape(-1, encoder.shape[1])
    absolute = not options.get("start_from_latent_avg", True)
    first = mapping.float() if isinstance(mapping, Tensor) else None
    return EncoderFile(encoder, mean if isinstance(mean, Tensor) else None, absolute, first, path)


def _built(state: Mapping[str, Tensor], deltas: bool, path: Path) -> StyleEncoder:
    """The network that tensors fit.

    Raises:
        CheckpointError: they are not those of such an encoder, or its input is not RGB.
    """
    starts = [sum(UNITS[:number]) for number in range(len(UNITS))]
    widths = [_shape(state, f"body.{number}.res_layer.1.weight", 4, path)[0] for number in starts]
    seen = _shape(state, "input_layer.0.weight", 4, path)[1]
    if seen != 3:
        raise CheckpointError(f"{path}: this encoder takes {seen} channels; expected 3")
    styles = _count(state, r"styles\.(\d{1,3})\.linear\.weight")
    halvings = _count(state, r"styles\.0\.convs\.(\d{1,2})\.weight")
    width = _shape(state, "styles.0.linear.weight", 2, path)[0]
    if not 1 <= halvings <= 6 or min(widths) < SQUEEZE:
        raise CheckpointError(f"{path}: heads of {halvings} convolutions over maps of {widths}; this is no IR-SE50")
    with torch.device("meta"):  # 200 million random numbers would be drawn for nothing
        encoder = StyleEncoder(widths, width, styles, halvings, deltas=deltas)
    checkpoints.check_state(encoder.state_dict(), state, path)
    plain = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    encoder.load_state_dict(plain, assign=True)
    encoder.start = torch.zeros(encoder.shape)
    return encoder.eval().requires_grad_(False)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int, path: Path) -> tuple[int, ...]:
    found = state.get(name)
    if found is None or found.ndim != dimensions:
        what = "is missing" if found is None else f"is {tuple(found.shape)}, expected {dimensions} dimensions"
        raise CheckpointError(f"{path}: encoder.{name} {what}; the file is damaged, or another encoder")
    return tuple(found.shape)

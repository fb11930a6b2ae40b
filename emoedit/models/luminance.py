"""Normalisation of a crop's light to one mean and contrast, and its inverse.

Models of luminance have one mean and contrast, models of colour one of each channel: under a warm lamp they see the
colours of daylight, and what they draw comes back under the lamp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from emoedit.types import LUMA_WEIGHTS

MIN_STD = 0.02  # of a crop in [-1, 1]: a flat picture is not blown up to pure noise
GREY = 0.03  # largest difference of the channels of a grey picture in [-1, 1]: four levels, more than the noise of JPEG

PerChannel = float | Sequence[float]


def face_oval(resolution: int) -> Tensor:
    """``[R, R]``: 1 inside the oval that holds brows, eyes, cheeks and mouth of an aligned crop, 0 outside."""
    axis = torch.linspace(-1, 1, resolution)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return ((x / 0.72) ** 2 + ((y - 0.1) / 0.85) ** 2 < 1).float()


def per_channel(values: PerChannel, like: Tensor) -> Tensor:
    """One value, ``[1, 1, 1]``, or one of each channel, ``[C, 1, 1]``, of a configuration.

    Args:
        values: a number or a sequence of C.
        like: gives the type and the device.
    """
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)


def fits(mean: PerChannel, std: PerChannel | None, channels: int) -> bool:
    """Whether a mean and a contrast are finite numbers for all channels together or for each of them.

    Args:
        mean: of a configuration.
        std: of a configuration, above 0, or None.
        channels: channels of the pictures.
    """
    for values in (mean, 1.0 if std is None else std):
        each: list[Any] = [*values] if isinstance(values, list | tuple) else [values]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in each)
        if not numbers or len(each) not in (1, channels) or (values is std and min(each) <= 0):
            return False
    return True


def normalise(x: Tensor, oval: Tensor, *, mean: PerChannel, std: PerChannel | None) -> tuple[Tensor, Tensor, Tensor]:
    """Crops at one mean and contrast inside the face, and each crop's own mean and gain, ``[N, 1 or C, 1, 1]``.

    Args:
        x: ``[N, C, R, R]``.
        oval: as ``face_oval`` gives it.
        mean: what they are brought to, in [-1, 1]: a number for all channels together, or one of each channel.
        std: as ``mean``; None leaves them as they are.
    """
    if std is None:
        return x, x.new_zeros(len(x), 1, 1, 1), x.new_ones(len(x), 1, 1, 1)
    wanted = per_channel(std, x)
    together = len(wanted) == 1
    over = (1, 2, 3) if together else (2, 3)
    weight = oval / (oval.sum() * (x.shape[1] if together else 1))
    own = (x * weight).sum(over, keepdim=True)
    deviation = ((x - own).square() * weight).sum(over, keepdim=True).sqrt().clamp_min(MIN_STD)
    gain = deviation / wanted
    return (x - own) / gain + per_channel(mean, x), own, gain


def restore(picture: Tensor, own: Tensor, gain: Tensor, *, mean: PerChannel, std: PerChannel | None) -> Tensor:
    """What ``normalise`` did, undone: drawn pictures at the mean and contrast of the photographs.

    A photograph whose channels have the same mean and contrast is grey, and stays grey whatever was drawn.

    Args:
        picture: ``[N, C, R, R]``, as the model draws it.
        own: the photographs' own means, as ``normalise`` gives them.
        gain: the same for their gains.
        mean: as for ``normalise``.
        std: as for ``normalise``.
    """
    if std is None:
        return picture * gain + own
    x = (picture - per_channel(mean, picture)) * gain + own
    if own.shape[1] == 1:
        return x
    deviation = gain * per_channel(std, gain)
    spreads = [values.amax(1, keepdim=True) - values.amin(1, keepdim=True) for values in (own, deviation)]
    grey = torch.maximum(*spreads) < GREY / 10  # far less than in any picture of colour, far more than rounding
    return torch.where(grey, in_luminance(x), x)


def in_luminance(x: Tensor) -> Tensor:
    """Pictures as networks that see luminance take them, ``[N, 1, R, R]``.

    Args:
        x: ``[N, 1 or 3, R, R]``; what is luminance already stays as it is.
    """
    return x if x.shape[1] == 1 else (x * per_channel(LUMA_WEIGHTS, x)).sum(1, keepdim=True)


def is_grey(x: Tensor) -> Tensor:
    """Which pictures have no colour, bool ``[N, 1, 1, 1]``.

    Args:
        x: ``[N, C, R, R]`` in [-1, 1].
    """
    return (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)).amax((2, 3), keepdim=True) < GREY


class LuminanceNorm(Protocol):
    """The entries of a backbone's configuration that normalise luminance."""

    @property
    def mean(self) -> PerChannel:
        """Mean inside the face, in [-1, 1], of luminance or of each channel."""

    @property
    def std(self) -> PerChannel | None:
        """Contrast inside the face, of luminance or of each channel; None leaves it as it is."""


class NormalisesLuminance:
    """Part of a backbone that sees every crop at one mean and contrast."""

    config: LuminanceNorm
    channels: int
    oval: Tensor

    @property
    def compositor(self) -> str:
        """``"drawn"`` for models of luminance; of colour, ``"coloured"`` for those that normalise, else ``"rgb"``.

        Small models normalise, and draw mouths, eyes and skin less sharply than photographs show them.
        """
        return "drawn" if self.channels == 1 else "rgb" if self.config.std is None else "coloured"

    @property
    def normalises_luminance(self) -> bool:
        """Whether it does, so that dark faces are lifted for it; models of colour see photographs as they are."""
        return self.config.std is not None

    def normalise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` at the model's mean and contrast, and the mean and gain that undo it.

        Args:
            x: ``[N, C, R, R]``.
        """
        return normalise(x, self.oval, mean=self.config.mean, std=self.config.std)

    def restore(self, picture: Tensor, own: Tensor, gain: Tensor) -> Tensor:
        """What the model draws at the photographs' own mean and contrast.

        Args:
            picture: ``[N, C, R, R]``, as the model draws it.
            own: the photographs' own means, as ``normalise`` gives them.
            gain: their gains.
        """
        return restore(picture, own, gain, mean=self.config.mean, std=self.config.std)

"""Normalisation of a crop's luminance to one mean and contrast, and its inverse."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

MIN_STD = 0.02  # of a crop in [-1, 1]: a flat picture is not blown up to pure noise


def face_oval(resolution: int) -> Tensor:
    """``[R, R]``: 1 inside the oval that holds brows, eyes, cheeks and mouth of an aligned crop, 0 outside."""
    axis = torch.linspace(-1, 1, resolution)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return ((x / 0.72) ** 2 + ((y - 0.1) / 0.85) ** 2 < 1).float()


def normalise(x: Tensor, oval: Tensor, *, mean: float, std: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Crops at one mean and contrast inside the face, and each crop's own ``[N, 1, 1, 1]`` mean and gain.

    Args:
        x: ``[N, C, R, R]``.
        oval: as ``face_oval`` gives it.
        mean: what they are brought to; ``std`` None leaves them as they are.
        std: as ``mean``.
    """
    if std is None:
        return x, x.new_zeros(len(x), 1, 1, 1), x.new_ones(len(x), 1, 1, 1)
    weight = oval / (oval.sum() * x.shape[1])
    own = (x * weight).sum((1, 2, 3), keepdim=True)
    deviation = ((x - own).square() * weight).sum((1, 2, 3), keepdim=True).sqrt().clamp_min(MIN_STD)
    gain = deviation / std
    return (x - own) / gain + mean, own, gain


class LuminanceNorm(Protocol):
    """The entries of a backbone's configuration that normalise luminance."""

    @property
    def mean(self) -> float:
        """Mean of the luminance inside the face, in [-1, 1]."""

    @property
    def std(self) -> float | None:
        """Contrast inside the face; None leaves it as it is."""


class NormalisesLuminance:
    """Part of a backbone that sees every crop at one mean and contrast."""

    config: LuminanceNorm
    oval: Tensor

    @property
    def normalises_luminance(self) -> bool:
        """Whether it does, so that dark faces are lifted for it; models of colour see photographs as they are."""
        return self.config.std is not None

    def normalise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` at the model's mean and contrast, and the ``[N, 1, 1, 1]`` mean and gain that undo it."""
        return normalise(x, self.oval, mean=self.config.mean, std=self.config.std)

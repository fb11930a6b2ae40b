"""A small network that predicts the neutral landmarks of a smiling face.

It is trained on pairs of photographs of the same people, neutral and smiling. For a neutral face it predicts zero
displacements, so their size measures a smile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emoedit.nn.layers import zeroed
from emoedit.nn.measuring import StoredNetwork

POINTS = 68


@dataclass(frozen=True)
class RelaxationConfig:
    """Architecture and input of a [RelaxationNetwork][emoedit.nn.relaxation.RelaxationNetwork].

    Args:
        width: width of its hidden layers.
        scale: scale of the crop in whose fractions landmarks are given ([CropSpec][emoedit.types.CropSpec], style
            ``stable``).
        down: vertical offset of that crop.
    """

    width: int = 96
    scale: float = 0.66
    down: float = 0.074


class RelaxationNetwork(StoredNetwork):
    """Landmarks of a face -> displacements to the same face's neutral landmarks.

    Args:
        config: see [RelaxationConfig][emoedit.nn.relaxation.RelaxationConfig].
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: RelaxationConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(2 * POINTS))
        self.register_buffer("deviation", torch.ones(2 * POINTS))
        self.layers = nn.Sequential(
            nn.Linear(2 * POINTS, config.width),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(config.width, config.width),
            nn.SiLU(),
            zeroed(nn.Linear(config.width, 2 * POINTS)),
        )

    def forward(self, points: Tensor) -> Tensor:
        """Displacements to the neutral face.

        Args:
            points: ``[N, 68, 2]`` in fractions of the crop's side, from its centre.

        Returns:
            ``[N, 68, 2]`` in the same unit.
        """
        flat = (points.flatten(1) - self.mean) / self.deviation
        return self.layers(flat).unflatten(1, (POINTS, 2)) * self.deviation.mean()

    @classmethod
    def read_config(cls, raw: Mapping[str, Any]) -> RelaxationConfig:
        """The configuration in a json object."""
        return RelaxationConfig(int(raw["width"]), float(raw["scale"]), float(raw["down"]))

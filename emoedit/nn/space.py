"""The emotion space: faces as points by valence, arousal and votes; and maps from points to edits.

After EmoGen (Yang et al., CVPR 2024, arXiv 2401.04608), which learns such a space from labelled pictures and maps it
into the text encoder's space by a small network. Here the labels are votes of ten people a picture (FER+, Barsoum et
al. 2016, arXiv 1608.01041), so that the space also holds mixtures of basic emotions, and the map's values are
directions in an editor's latent space or pseudo-words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from emoedit.nn.measuring import StoredNetwork
from emoedit.types import CheckpointError

ORDERED = 2  # the first coordinates: valence and arousal


@dataclass(frozen=True)
class SpaceConfig:
    """Architecture and names of a space.

    Args:
        emotions: names that people could vote for, in the order of the distributions.
        names: emotions that have a place in it.
        features: F, number of input features.
        dims: D, number of coordinates; the first two are valence and arousal.
        hidden: width of the encoder's hidden layer.
        trunk: name of the embedded network whose last feature map, averaged, is the input; or the folder of one.
        trunk_fingerprint: ``MeasuringNetwork.trunk_fingerprint`` of the network that the space was learned from; empty
            in folders that do not record it.

    Raises:
        CheckpointError: fewer than two coordinates, or no emotion.
    """

    emotions: tuple[str, ...]
    names: tuple[str, ...] = ()
    features: int = 256
    dims: int = 8
    hidden: int = 48
    trunk: str = "expression"
    trunk_fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.dims < ORDERED or not self.emotions or min(self.features, self.hidden) < 1:
            raise CheckpointError(
                f"a space of {self.dims} coordinates over {len(self.emotions)} emotions; expected at least valence, "
                "arousal and one emotion"
            )


class EmotionSpace(StoredNetwork):
    """An encoder from features to points, and a network from points to votes. Neutral faces lie near the origin.

    Args:
        config: see ``SpaceConfig``.

    Attributes:
        places: ``[E, D]``: where the emotions of ``config.names`` lie.
    """

    mean: Tensor
    std: Tensor
    origin: Tensor
    places: Tensor

    def __init__(self, config: SpaceConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Sequential(
            nn.Linear(config.features, config.hidden), nn.SiLU(), nn.Linear(config.hidden, config.dims)
        )
        self.reader = nn.Sequential(nn.Linear(config.dims, 24), nn.SiLU(), nn.Linear(24, len(config.emotions)))
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("std", torch.ones(config.features))
        self.register_buffer("origin", torch.zeros(config.dims))
        self.register_buffer("places", torch.zeros(len(config.names), config.dims))

    def forward(self, features: Tensor) -> Tensor:
        """Points ``[N, D]`` of features ``[N, F]``."""
        return self.encoder((features - self.mean) / self.std) - self.origin

    def votes(self, points: Tensor) -> Tensor:
        """Predicted votes at points ``[N, D]``: log probabilities of ``config.emotions``, ``[N, E]``."""
        return self.reader(points + self.origin).log_softmax(1)

    def place(self, name: str) -> Tensor:
        """Where an emotion lies, ``[D]``.

        Raises:
            CheckpointError: the space has no place of that name.
        """
        if name not in self.config.names:
            raise CheckpointError(f"this space has no place for {name!r}; it has {', '.join(self.config.names)}")
        return self.places[self.config.names.index(name)]

    @classmethod
    def read_config(cls, raw: Mapping[str, Any]) -> SpaceConfig:
        """The configuration of a folder."""
        numbers = {name: int(raw[name]) for name in ("features", "dims", "hidden")}
        emotions, names = (tuple(str(each) for each in raw[name]) for name in ("emotions", "names"))
        trunk, fingerprint = str(raw["trunk"]), str(raw.get("trunk_fingerprint", ""))
        return SpaceConfig(emotions=emotions, names=names, trunk=trunk, trunk_fingerprint=fingerprint, **numbers)


class PointMap(nn.Module):
    """A map from points to vectors, zero at the origin: a linear map plus radial basis functions, in a small basis.

    The radial basis functions (Broomhead & Lowe 1988) are Gaussians around each known point.

    Args:
        dims: D of points.
        out: O of vectors.
        rank: K, vectors in the basis.
        centres: n, number of known points.
        width: standard deviation of the Gaussians.
    """

    centres: Tensor

    def __init__(self, dims: int, out: int, *, rank: int, centres: int, width: float) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(dims, rank, bias=False)
        self.register_buffer("centres", torch.zeros(centres, dims))
        self.pull = nn.Parameter(torch.zeros(centres, rank))
        self.basis = nn.Parameter(torch.zeros(rank, out))

    @property
    def sizes(self) -> dict[str, int]:
        """Shape of the map, by the names of its arguments."""
        (centres, rank), out = self.pull.shape, self.basis.shape[1]
        return {"dims": self.linear.in_features, "out": out, "rank": rank, "centres": centres}

    @classmethod
    def through(
        cls, points: Tensor, coordinates: Tensor, basis: Tensor, *, straight: int, width: float, ridge: float = 1e-3
    ) -> Self:
        """The map that fits known values at known points.

        Args:
            points: ``[n, D]``.
            coordinates: ``[n, K]``, the values in the basis.
            basis: ``[K, O]``.
            straight: number of points, from the first on, to which the linear part is fitted; they should be
                independent.
            width: width of the Gaussians.
            ridge: regularisation of the radial basis functions, which keeps the map smooth.
        """
        rank, out = basis.shape
        made = cls(points.shape[1], out, rank=rank, centres=len(points), width=width)
        with torch.no_grad():
            made.centres.copy_(points)
            made.basis.copy_(basis)
            first = torch.linalg.pinv(points[:straight].double()) @ coordinates[:straight].double()
            made.linear.weight.copy_(first.T)
            rest = coordinates.double() - points.double() @ first
            near = made._near(points).double()
            system = near.T @ near + ridge * torch.eye(len(points), dtype=torch.float64)
            made.pull.copy_(torch.linalg.solve(system, near.T @ rest))
        return made

    def _near(self, points: Tensor) -> Tensor:
        """The Gaussians at points ``[N, D]`` minus those at the origin, ``[N, n]``."""

        def gaussian(squared: Tensor) -> Tensor:
            return (-squared / (2 * self.width**2)).exp()

        there = (points[:, None] - self.centres).square().sum(2)
        return gaussian(there) - gaussian(self.centres.square().sum(1))

    def coordinates(self, points: Tensor) -> Tensor:
        """Vectors in the basis, ``[N, K]``."""
        return self.linear(points) + self._near(points) @ self.pull

    def forward(self, points: Tensor) -> Tensor:
        """Vectors ``[N, O]`` of points ``[N, D]``."""
        return self.coordinates(points) @ self.basis

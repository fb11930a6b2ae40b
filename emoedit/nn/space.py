"""The emotion space: faces as points, ordered by valence, arousal and what people see in them; and maps out of it.

After EmoGen (Yang et al., CVPR 2024, arXiv 2401.04608), which learns such a space from labelled pictures and maps it
into the text encoder's space by a small network. Here the labels are votes of ten people a picture (FER+, Barsoum et
al. 2016, arXiv 1608.01041), so that the space holds the shades between basic emotions, and the map may lead to any
control of an editor: a direction in its latent space or a pseudo-word.
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
    """What a space is made of.

    Args:
        emotions: what people could vote for, in the order of the distributions.
        names: emotions that have a place in it.
        features: F, width of what it is read from.
        dims: D, number of coordinates; the first two are valence and arousal.
        hidden: width of the encoder's hidden layer.
        trunk: name of the embedded network whose last feature map, averaged, is read.

    Raises:
        CheckpointError: fewer than two coordinates, or no emotion.
    """

    emotions: tuple[str, ...]
    names: tuple[str, ...] = ()
    features: int = 256
    dims: int = 8
    hidden: int = 48
    trunk: str = "expression"

    def __post_init__(self) -> None:
        if self.dims < ORDERED or not self.emotions or min(self.features, self.hidden) < 1:
            raise CheckpointError(
                f"a space of {self.dims} coordinates over {len(self.emotions)} emotions; expected at least valence, "
                "arousal and one emotion"
            )


class EmotionSpace(StoredNetwork):
    """An encoder of faces to points, and a reader of points as votes. A neutral face lies near the origin.

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
        """What people would see at points ``[N, D]``: log probabilities of ``config.emotions``, ``[N, E]``."""
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
        names = {name: tuple(str(each) for each in raw[name]) for name in ("emotions", "names")}
        return SpaceConfig(**numbers, **names, trunk=str(raw["trunk"]))


class PointMap(nn.Module):
    """A map from points to vectors that leads the origin to zero: linear, plus a bend, in a basis of few vectors.

    Args:
        dims: D of points.
        out: O of vectors.
        rank: K, vectors in the basis.
        hidden: width of the bend.
    """

    def __init__(self, dims: int, out: int, *, rank: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dims, rank, bias=False)
        self.bend = nn.Sequential(nn.Linear(dims, hidden), nn.SiLU(), nn.Linear(hidden, rank, bias=False))
        self.basis = nn.Parameter(torch.zeros(rank, out))

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments that make a map of this shape."""
        (rank, out), hidden = self.basis.shape, self.bend[0].out_features
        return {"dims": self.linear.in_features, "out": out, "rank": rank, "hidden": hidden}

    @classmethod
    def through(cls, points: Tensor, vectors: Tensor, free: Tensor, *, hidden: int) -> Self:
        """The linear map that leads each of a few points to its vector, exactly where the points are independent.

        Args:
            points: ``[n, D]``.
            vectors: ``[n, O]``; they become the first vectors of the basis.
            free: ``[m, O]``: further vectors of the basis, of which the map makes no use yet.
            hidden: width of the bend, which starts at zero.
        """
        count, dims = points.shape
        made = cls(dims, vectors.shape[1], rank=count + len(free), hidden=hidden)
        with torch.no_grad():
            made.basis.copy_(torch.cat([vectors, free]))
            made.linear.weight.zero_()
            made.linear.weight[:count] = torch.linalg.pinv(points.double()).float().T
            made.bend[2].weight.zero_()
        return made

    def coordinates(self, points: Tensor) -> Tensor:
        """In the basis, ``[N, K]``."""
        return self.linear(points) + self.bend(points) - self.bend(torch.zeros_like(points[:1]))

    def forward(self, points: Tensor) -> Tensor:
        """Vectors ``[N, O]`` of points ``[N, D]``."""
        return self.coordinates(points) @ self.basis

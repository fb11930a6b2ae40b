"""Where a face lies in the emotion space, and the votes predicted there."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io import checkpoints
from emoedit.io.images import load_picture
from emoedit.nn.space import EmotionSpace, SpaceConfig
from emoedit.types import CheckpointError

NAME = "emotion_space"


class FaceSpace:
    """The emotion space and the network that it is read from.

    Features of other weights would give points without a meaning, so the network's fingerprint is compared with the one
    that the space records. A space of a folder without a fingerprint is used with a warning: nothing says that the
    network is another one.

    Args:
        space: see ``emoedit.nn.space.EmotionSpace``.
        trunk: the network whose features it reads.

    Raises:
        CheckpointError: a network with features of another width, or with other weights than the space was learned
            from.
    """

    def __init__(self, space: EmotionSpace, trunk: EmbeddedNetwork) -> None:
        width = trunk.network.config.widths[-1]
        if width != space.config.features:
            raise CheckpointError(f"this space reads {space.config.features} features, the network has {width}")
        _check_trunk(space.config, trunk.network.trunk_fingerprint())
        self.space, self.trunk = space, trunk

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | None = None, *, device: str = "cpu") -> FaceSpace:
        """The embedded space, or one in a folder.

        Args:
            folder: None for the embedded one.
            device: device of the networks.

        Raises:
            CheckpointError: no such space, a damaged one, or one that was learned from another network.
        """
        path = checkpoints.embedded_root() / NAME if folder is None else Path(folder).expanduser()
        space = EmotionSpace.from_pretrained(path).to(device)
        return cls(space, EmbeddedNetwork.load(space.config.trunk, device=device))

    @property
    def names(self) -> tuple[str, ...]:
        """Emotions that have a place."""
        return self.space.config.names

    @torch.no_grad()
    def point(self, photo: Any, face: Face | None = None) -> Tensor:
        """Where a face lies, ``[D]``: valence, arousal and the other coordinates.

        Args:
            photo: a path, bytes, PIL picture, array or tensor.
            face: which face; None for the largest one.

        Raises:
            ImageError: the photograph cannot be read.
            NoFaceError: it shows no face.
        """
        rgb = load_picture(photo).rgb
        if face is None:
            (face,) = FaceDetector(str(self.space.places.device)).choose(rgb)
        x = self.trunk.tensor(self.trunk.faces(rgb, face)[None])
        return self.space(self.trunk.network.features(x)[-1].mean((2, 3)).float())[0].cpu()

    @torch.no_grad()
    def votes(self, point: Tensor) -> dict[str, float]:
        """What people would see at a point ``[D]``: shares of the basic emotions, with sum 1."""
        shares = self.space.votes(point.to(self.space.places)[None])[0].exp()
        return dict(zip(self.space.config.emotions, shares.tolist(), strict=True))

    def nearest(self, point: Tensor, count: int = 3) -> list[tuple[str, float]]:
        """The names whose places lie nearest to a point ``[D]``, with their distances, nearest first.

        Args:
            point: a point of the space.
            count: how many.
        """
        apart = (self.space.places - point.to(self.space.places)).norm(dim=1)
        return [(self.names[n], float(apart[n])) for n in apart.argsort()[:count].tolist()]


def _check_trunk(config: SpaceConfig, found: str) -> None:
    """Compare the fingerprint of the network at hand with the one that a space was learned from.

    Raises:
        CheckpointError: they differ.
    """
    if not config.trunk_fingerprint:
        warnings.warn(
            f"this emotion space does not say which weights of {config.trunk!r} it was learned from, so nothing tells "
            f'whether its points mean anything with those at hand; if they do, write "trunk_fingerprint": '
            f'"{found}" into its {checkpoints.CONFIG}, else learn it anew (emoedit train space)',
            stacklevel=3,
        )
    elif config.trunk_fingerprint != found:
        raise CheckpointError(
            f"this emotion space was learned from other weights of {config.trunk!r} (fingerprint "
            f"{config.trunk_fingerprint}, found {found}), and its points would mean nothing with these: learn it anew "
            f"(emoedit train space), or name the folder of the network that it was learned from as 'trunk' in its "
            f"{checkpoints.CONFIG}"
        )

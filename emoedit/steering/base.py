"""The base class of steerings."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self, TypeGuard

import torch
from torch import Tensor, nn

from emoedit.emotions import resolve
from emoedit.models.base import Backbone
from emoedit.types import Control, Edit, EditError, Inversion


def are_names(value: object) -> TypeGuard[list[str]]:
    """Whether what a configuration holds is a list of names.

    Args:
        value: any value.
    """
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


class Steering(nn.Module, ABC):
    """Turns edits into a control.

    Attributes:
        emotions: the names it was fitted for; every other name has to resolve to a mixture of these.
    """

    emotions: tuple[str, ...]

    @abstractmethod
    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """The control for a batch: one edit for each picture of the inversion.

        Args:
            backbone: the model.
            inversion: inversion of N pictures.
            edits: one for each picture.

        Raises:
            EditError: as many edits as pictures are needed.
            UnknownNameError: an emotion that does not resolve to this steering's own.
        """

    @abstractmethod
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the weights (safetensors).

        Args:
            folder: an existing folder.
        """

    @classmethod
    @abstractmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Args:
            folder: folder of ``save_pretrained``.

        Raises:
            CheckpointError: a file is missing, damaged, or of another shape.
        """

    def weights(self, inversion: Inversion, edits: Sequence[Edit]) -> Tensor:
        """Strength times mixture weight, ``[N, number of emotions]``.

        Args:
            inversion: inversion of N pictures.
            edits: one for each picture.

        Raises:
            EditError: another number of edits than pictures, or a weight too large for 32 bits.
        """
        if len(edits) != len(inversion):
            raise EditError(f"{len(edits)} edits for {len(inversion)} pictures; one edit a picture is needed")
        rows = [[0.0] * len(self.emotions) for _ in edits]
        for row, edit in zip(rows, edits, strict=True):
            for name, weight in resolve(edit.emotion, self.emotions).items():
                row[self.emotions.index(name)] = edit.strength * weight
        out = torch.tensor(rows, dtype=torch.float64).to(inversion.latent)
        if not bool(out.isfinite().all()):
            raise EditError("strength times weight is too large for a 32-bit number")
        return out

"""How strong an edit may be before the person is another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from emoedit.faces.detect import Face
from emoedit.faces.networks import EmbeddedNetwork, identity_similarity
from emoedit.io.images import Picture, load_picture
from emoedit.types import Edit, EditError

STEPS = 4  # strengths that are drawn at once; two rounds find a 1/16 of what was asked for


class OpenedPhoto(Protocol):
    """A photograph and the faces of it that are edited (``emoedit.photo.OpenPhoto``)."""

    @property
    def picture(self) -> Picture:
        """The photograph."""

    @property
    def faces(self) -> Sequence[Face]:
        """The faces that are edited."""


class EditsPhotos(Protocol):
    """What edits photographs (``emoedit.photo.PhotoEditor``, which imports this module)."""

    @property
    def editor(self) -> Any:
        """What edits aligned crops; has a ``device``."""

    def edit(self, photo: Any, edits: Sequence[Edit], *, seed: int = 0) -> Iterable[Any]:
        """Each edit's result in turn; has an ``image``.

        Args:
            photo: an opened photograph.
            edits: emotions and strengths.
            seed: seed of the noise that an editor draws.
        """


class IdentityGuard:
    """Finds the largest strength of each edit that keeps the identity of all edited faces at a floor.

    No strength is larger than the one asked for.

    Identity is measured on the finished photograph (cosine, ``emoedit.faces.networks.identity_similarity``), and
    taken to fall as the strength grows: of a grid of strengths the last before the first that fails is refined once.

    Args:
        photo_editor: the editor.
        min_identity: the floor, 0 to 1; what two pictures of one person give is on the network's card.
        network: a network with a head ``person``; default: the embedded one, on the editor's device.

    Raises:
        EditError: a floor outside 0 to 1.
    """

    def __init__(
        self, photo_editor: EditsPhotos, min_identity: float, *, network: EmbeddedNetwork | None = None
    ) -> None:
        if isinstance(min_identity, bool) or not isinstance(min_identity, int | float) or not 0 <= min_identity <= 1:
            raise EditError(f"min_identity must be a number from 0 to 1, not {min_identity!r}; 0.8 is usual")
        self.photo_editor, self.min_identity = photo_editor, float(min_identity)
        if network is not None:
            self.network = network

    @cached_property
    def network(self) -> EmbeddedNetwork:
        """Who says how alike two faces are."""
        return EmbeddedNetwork.load("identity", device=str(self.photo_editor.editor.device))

    def identities(self, photo: OpenedPhoto, edits: Sequence[Edit], *, seed: int = 0) -> Tensor:
        """The lowest identity of the photograph's edited faces, for each edit, ``[E]``.

        Args:
            photo: opened with an editor.
            edits: each for all faces.
            seed: seed of the noise that an editor draws.
        """
        source = self._people(photo, photo.picture.rgb)
        return torch.stack(
            [
                identity_similarity(source, self._people(photo, load_picture(result.image).rgb)).min()
                for result in self.photo_editor.edit(photo, edits, seed=seed)
            ]
        )

    def _people(self, photo: OpenedPhoto, rgb: np.ndarray) -> Tensor:
        return torch.cat([self.network.embed(self.network.faces(rgb, face)[None]) for face in photo.faces])

    def limit(self, photo: OpenedPhoto, edits: Sequence[Edit], *, seed: int = 0) -> list[Edit]:
        """The same edits, each at the largest strength within the identity floor; 0 if no strength keeps it.

        Args:
            photo: opened with an editor.
            edits: each with the strength that is the limit.
            seed: seed of the noise an editor draws.

        Returns:
            One edit for each of ``edits``.
        """
        low, high = [0.0] * len(edits), [1.0 if edit.strength else 0.0 for edit in edits]
        for _ in range(2):
            open_edits = [n for n in range(len(edits)) if high[n] > low[n]]
            shares = {n: [low[n] + (high[n] - low[n]) * k / STEPS for k in range(1, STEPS + 1)] for n in open_edits}
            tried = [replace(edits[n], strength=edits[n].strength * s) for n in open_edits for s in shares[n]]
            if not tried:
                break
            kept = (self.identities(photo, tried, seed=seed) >= self.min_identity).view(-1, STEPS)
            for row, n in zip(kept.tolist(), open_edits, strict=True):
                passed = row.index(False) if False in row else STEPS
                grid = [low[n], *shares[n]]
                low[n] = grid[passed]
                high[n] = grid[min(passed + 1, STEPS)]
        return [replace(e, strength=e.strength * share) for e, share in zip(edits, low, strict=True)]

"""Edits to choose from: by one editor or by several in turn, as strong as a floor of the identity allows.

Two editors change a face in different ways. At the same identity a little of both is read more surely than much of
one: what is lost of the person adds like unrelated directions do, what is read adds in full.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from emoedit.emotions import resolve
from emoedit.evaluation.naming import IN_TURN, editors_in_turn
from emoedit.faces.detect import Face
from emoedit.io.images import Picture, load_picture
from emoedit.photo import PhotoEditor
from emoedit.types import Edit, EditError, EmoEditError

WEAKEST, STRONGEST = 0.3, 2.0  # strengths that are tried: below no edit shows, above the embedded editors tear faces
TOLERANCE = 0.01  # of the cosine: an edit whose identity is at most this much above the floor is as strong as it can be
WEAKER = 0.85  # factor on that strength for the next try

Editors = Sequence[str | PhotoEditor | Sequence[PhotoEditor]]


class Trials:
    """Edits of one face with one emotion, by one editor or by several in turn.

    Args:
        name: name of the editor, or names joined by ``+``.
        editors: photo editors, in turn.
        picture: the photograph.
        face: the face, as [PhotoEditor.open][emoedit.photo.PhotoEditor.open] takes it.
        emotion: a name or algebra on names.
        seed: seed of the noise an editor draws.

    Raises:
        UnknownNameError: an emotion that an editor does not know.
        NoFaceError: the photograph shows no face, or not that one.
    """

    def __init__(
        self,
        name: str,
        editors: Sequence[PhotoEditor],
        picture: Picture,
        face: str | int | Face,
        emotion: str,
        seed: int,
    ) -> None:
        for photo_editor in editors:
            resolve(emotion, photo_editor.editor.emotions)
        self.name, self.editors, self.emotion, self.seed = name, tuple(editors), emotion, seed
        self.opened = editors[0].open(picture, face, seed=seed, edits=[Edit(emotion)])
        self.face = self.opened.faces[0]

    def edit(self, strength: float) -> Image.Image | EmoEditError:
        """The photograph with the edit, or why it failed.

        Args:
            strength: strength of the edit. Of n editors in turn each edits by ``strength / sqrt(n)``, so that together
                they change the face about as much as one.
        """
        edit = Edit(self.emotion, strength / len(self.editors) ** 0.5)
        first, *others = self.editors
        result = next(first.attempt(self.opened, [edit], seed=self.seed))
        for photo_editor in others:
            if isinstance(result, EmoEditError):
                break
            opened = photo_editor.open(load_picture(result.image), self.face, seed=self.seed, edits=[edit])
            result = next(photo_editor.attempt(opened, [edit], seed=self.seed))
        return result if isinstance(result, EmoEditError) else result.image


class LoadedEditors:
    """Editors by name, each loaded once.

    Args:
        editors: names, names joined by ``+``, photo editors that are loaded already, or several of these in turn.
        device: device of those that are loaded here.
    """

    def __init__(self, editors: Editors, device: str) -> None:
        self._device = device
        self._loaded: dict[str, PhotoEditor] = {}
        self._parts: dict[str, list[str]] = {}
        for entry in editors:
            parts: list[str] = []
            for one in [entry] if isinstance(entry, str | os.PathLike | PhotoEditor) else entry:
                if isinstance(one, PhotoEditor):
                    self._loaded[one.editor.name] = one
                parts += [one.editor.name] if isinstance(one, PhotoEditor) else editors_in_turn(os.fspath(one))
            self._parts[IN_TURN.join(parts)] = parts

    @property
    def names(self) -> list[str]:
        """Name of each entry once."""
        return list(self._parts)

    def __call__(self, name: str) -> list[PhotoEditor]:
        """The editors that a name means, in turn.

        Args:
            name: one of ``names``, or the name of another editor.

        Raises:
            UnknownNameError: no such editor.
        """
        return [self._one(part) for part in self._parts.get(name, [name])]

    def _one(self, name: str) -> PhotoEditor:
        if name not in self._loaded:
            from emoedit.editors import load_editor

            self._loaded[name] = PhotoEditor(load_editor(name, device=self._device))
        return self._loaded[name]


def plan_candidates(editors: Sequence[str], candidates: int) -> dict[str, int]:
    """How many candidates each editor makes: every one about as many.

    Args:
        editors: names; of more than there are candidates, the first.
        candidates: how many.

    Raises:
        EditError: no editor, or fewer than one candidate.
    """
    if not editors or candidates < 1:
        raise EditError(f"{candidates} candidates of {len(editors)} editors: at least one of each is needed")
    names = list(dict.fromkeys(editors))[:candidates]
    return {name: candidates // len(names) + (n < candidates % len(names)) for n, name in enumerate(names)}


def next_strength(identities: Mapping[float, float], wanted: float) -> float:
    """The strength to try next, so that an edit keeps just what is wanted of the person.

    What an edit loses of the identity is taken to grow in proportion to its strength, from the nearest one tried.

    Args:
        identities: strength -> identity of the edits that were tried.
        wanted: identity that an edit has to keep, a cosine in [-1, 1].

    Returns:
        1 where nothing was tried; a weaker one where the strongest that keeps it was found.
    """
    if not identities:
        return 1.0
    keeping = [strength for strength, identity in identities.items() if identity >= wanted]
    if keeping and (identities[max(keeping)] <= wanted + TOLERANCE or max(keeping) >= STRONGEST):
        strength = WEAKER * max(keeping)
    else:
        nearest = min(identities, key=lambda tried: abs(identities[tried] - wanted))
        lost, allowed = max(1 - identities[nearest], 1e-3), max(1 - wanted - TOLERANCE / 2, 0.0)
        strength = float(np.clip(nearest * allowed / lost, WEAKEST, STRONGEST))
    while strength in identities:
        strength *= WEAKER
    return strength

"""Compositors by name: which parts, in which order, put a model's drawings into a photograph.

A model's ``editor.json`` names its compositor and may change settings of its parts::

    "compositor": {"name": "drawn", "settings": {"skin": {"restored": 0.0}}}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from emoedit.compositing.composite import Composite, Scene
from emoedit.compositing.window import render
from emoedit.registry import COMPOSITOR_PARTS, COMPOSITORS
from emoedit.types import CheckpointError, EditError

# A part's attribute ``channels``, if it has one, says which drawings it is for: 1 for luminance, 3 for colour.
Part = Callable[[Scene, Composite], Composite]


@dataclass(frozen=True)
class Compositor:
    """Puts what a model draws into a photograph.

    Args:
        name: name of the compositor.
        parts: names and parts, in the order in which they run.
        closes_smiles: whether smiles are closed before an edit that ends them (``emoedit.compositing.relaxing``).
        reads_drawings: whether a part reads the drawings; if none does, the backbone's own movement and light are
            enough, and nothing is decoded.
    """

    name: str
    parts: tuple[tuple[str, Part], ...]
    closes_smiles: bool = False
    reads_drawings: bool = True

    def compose(self, scene: Scene) -> Composite:
        """The composite of a face: what changes in the photograph.

        Args:
            scene: one face and its drawing.

        Raises:
            EditError: a part is for drawings of luminance and this one has colour, or the reverse.
        """
        composite = Composite.empty(len(scene.face.crop))
        channels = 1 if scene.drawing.after.ndim == 2 else 3
        for name, part in self.parts:
            if getattr(part, "channels", channels) != channels:
                kind, other = ("luminance", "'coloured' or 'rgb'") if channels == 3 else ("colour", "'drawn'")
                raise EditError(f"the compositor's part {name!r} is for models of {kind}; use {other} with this one")
            composite = part(scene, composite)
        return composite

    def __call__(self, photo: np.ndarray, scene: Scene) -> tuple[np.ndarray, tuple[str, ...]]:
        """The photograph with the edit in it, uint8 ``[H, W, 3]``, and notes for the user.

        Args:
            photo: uint8 ``[H, W, 3]``; not modified.
            scene: the face and its drawing.

        Raises:
            EditError: as for ``compose``.
        """
        drawing = scene.drawing
        if drawing.known is None and np.array_equal(drawing.before, drawing.after):
            return photo.copy(), ()
        composite = self.compose(scene)
        return render(photo, scene.face.alignment, scene.face.masks, composite), composite.notes

    def without(self, *names: str) -> Compositor:
        """The same compositor without some parts, for measuring their effect."""
        return replace(self, parts=tuple((name, part) for name, part in self.parts if name not in names))

    def with_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> Compositor:
        """The same compositor with other settings of its parts.

        Args:
            settings: name of a part -> names and values of its settings.

        Raises:
            CheckpointError: this compositor has no such part, or a part no such setting.
        """
        if not isinstance(settings, Mapping):
            raise CheckpointError(f"settings of a compositor are a mapping of its parts, not {settings!r}")
        known = [name for name, _ in self.parts]
        for name, values in settings.items():
            if name not in known:
                raise CheckpointError(
                    f"compositor {self.name!r} has no part {name!r}; its parts are {', '.join(known)}"
                )
            _check_settings(name, dict(self.parts)[name], values)
        parts = tuple((n, replace(p, **_as_tuples(settings[n])) if n in settings else p) for n, p in self.parts)  # type: ignore[type-var]
        return replace(self, parts=parts)


def _check_settings(name: str, part: Part, values: Mapping[str, Any]) -> None:
    if not isinstance(values, Mapping):
        raise CheckpointError(f"settings of the compositor's part {name!r} are a mapping, not {values!r}")
    offered = {f.name: getattr(part, f.name) for f in fields(part)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in offered:
            raise CheckpointError(f"the compositor's part {name!r} has no setting {key!r}; it has {', '.join(offered)}")
        if not _alike(value, offered[key]):
            raise CheckpointError(f"setting {name}.{key} of the compositor is like {offered[key]!r}, not {value!r}")


def _alike(value: Any, offered: Any) -> bool:
    """Whether a setting is a finite number, or as many of them as the default has."""
    if isinstance(offered, tuple):
        same = isinstance(value, list | tuple) and len(value) == len(offered)
        return same and all(_alike(v, o) for v, o in zip(value, offered, strict=True))
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (value, offered)]
    return all(numbers) and math.isfinite(value)


def _as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def compositor(description: str | Mapping[str, Any]) -> Compositor:
    """A compositor by name, or as an ``editor.json`` describes it.

    Args:
        description: a name, or a mapping with ``name`` or ``parts`` (names of parts, in order), and ``settings``.

    Raises:
        UnknownNameError: no compositor or part of that name.
        CheckpointError: a description or a setting that makes no sense.
    """
    if isinstance(description, str):
        return COMPOSITORS.get(description)()
    if not isinstance(description, Mapping) or not {"name", "parts"} & set(description):
        raise CheckpointError(f"a compositor is described by a name or its parts, not {description!r}")
    if "parts" in description:
        if not isinstance(description["parts"], list | tuple):
            raise CheckpointError(f"the parts of a compositor are a list of names, not {description['parts']!r}")
        parts = tuple((str(name), COMPOSITOR_PARTS.get(str(name))()) for name in description["parts"])
        made = Compositor(str(description.get("name", "custom")), parts)
    else:
        made = COMPOSITORS.get(str(description["name"]))()
    return made.with_settings(description.get("settings", {}))


def drawn() -> Compositor:
    """For small models of luminance: movement and light come from their drawings; mouths are drawn by anatomy."""
    names = ("movement", "skin", "eyes", "mouth", "light", "front")
    return Compositor("drawn", tuple((name, COMPOSITOR_PARTS.get(name)()) for name in names), closes_smiles=True)


def coloured() -> Compositor:
    """For small models of colour: as ``drawn``, with the drawings' own colour."""
    colour = replace(COMPOSITOR_PARTS.get("colour")(), mouth=0.1, face=1.0)
    names = ("movement", "skin", "eyes", "mouth", "colour", "front")
    made = ((name, colour if name == "colour" else COMPOSITOR_PARTS.get(name)()) for name in names)
    return Compositor("coloured", tuple(made), closes_smiles=True)


def rgb() -> Compositor:
    """For full-size models of colour, whose drawings include mouths, eyes and skin."""
    movement = replace(COMPOSITOR_PARTS.get("movement")(), held=0.0, faded=0.0)
    others = tuple((name, COMPOSITOR_PARTS.get(name)()) for name in ("colour", "new_edges", "front"))
    return Compositor("rgb", (("movement", movement), *others))


def moved() -> Compositor:
    """For references without a generative model, which give their own flow and light."""
    names = ("known_movement", "light", "front")
    return Compositor("moved", tuple((name, COMPOSITOR_PARTS.get(name)()) for name in names))


def replaced() -> Compositor:
    """For finished pictures, such as services return: they replace the photograph inside the face mask."""
    return Compositor("replace", (("whole_drawing", COMPOSITOR_PARTS.get("whole_drawing")()),))


def added() -> Compositor:
    """The model's whole change, without the other parts: for comparing models."""
    return Compositor("added", (("added_change", COMPOSITOR_PARTS.get("added_change")()),))

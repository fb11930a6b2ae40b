"""Editors made from published models and files.

Names, folders and files are checked before anything large is read or downloaded. The table of models
is ``emoedit.models.pretrained.TABLE``; this module assembles their parts.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoedit.emotions import fold_name, list_emotions, unknown_name
from emoedit.io import checkpoints
from emoedit.models import identify
from emoedit.models.pretrained import TABLE, Pretrained
from emoedit.registry import BACKBONES, EDITORS
from emoedit.steering.published import HOW_TO_FIT, STEERINGS_OF, Files, Parts, path_of
from emoedit.types import CheckpointError, EditError, UnknownNameError

if TYPE_CHECKING:
    from emoedit.editors import Editor
    from emoedit.models.base import Backbone

logger = logging.getLogger(__name__)

FLAGS = {"tokens": "--token", "shifts": "--shift", "boundaries": "--boundary", "layers": "--layers"}
PATHS = ("encoder", "tokenizer")  # settings that name a file or a folder
COMPUTE = ("precision", "batch", "offload", "compile", "name")  # how an editor computes, and what it is called


@dataclass(frozen=True)
class Request:
    """An editor and its parts, as given on a command line, in a config or in a call.

    Args:
        editor: a name, a folder, a file, or ``owner/name`` on the hub.
        model: weights in place of the default ones.
        tokens: emotion -> file; or a folder that holds files under their published names.
        shifts: as ``tokens``.
        boundaries: as ``tokens``.
        layers: layers of W+ that boundaries may change, from the first to before the second.
        revision: revision of a repository on the hub.
        settings: settings of the model.
    """

    editor: str
    model: str | None = None
    tokens: str | os.PathLike[str] | Files | None = None
    shifts: str | os.PathLike[str] | Files | None = None
    boundaries: str | os.PathLike[str] | Files | None = None
    layers: tuple[int, ...] | None = None
    revision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Request:
        """What the arguments of ``emoedit.load_editor`` ask for, in the plain values of a config.

        Args:
            described: ``editor`` (its name), ``model``, ``tokens``, ...; every other name is a setting of the model,
                except for what says how it computes (``COMPUTE``).

        Raises:
            EditError: no editor is named.
        """
        if not isinstance(described.get("editor"), str):
            raise EditError(
                f"an editor is described by its name, editor=sd15, and more; not by {dict(described)!r:.80}"
            )
        parts = {name: described[name] for name in ("model", "revision") if name in described}
        parts |= {name: described[name] for name in ("tokens", "shifts", "boundaries") if name in described}
        if described.get("layers") is not None:
            parts["layers"] = tuple(described["layers"])
        known = {"editor", "model", "revision", "layers", *FLAGS, *COMPUTE}
        settings = {name: value for name, value in described.items() if name not in known}
        return cls(described["editor"], settings=settings, **parts)

    def resolved(self) -> Resolved:
        """What this is, with everything checked that can be without reading weights.

        Returns:
            The editor's folder, or the table's entry with its parts.

        Raises:
            UnknownNameError: no such name; the message holds the nearest ones.
            CheckpointError: a folder, file or repository of another kind; parts that are needed and not given.
            EditError: parts or settings that this editor does not take.
        """
        if self.editor in EDITORS.names():
            return self._registered()
        entry, folder, model = self._found()
        if entry is None:
            return self._own(folder)
        given: dict[str, Files] = {}
        for name in ("tokens", "shifts", "boundaries"):
            if (parts := _listed(getattr(self, name), entry, FLAGS[name])) is not None:
                given[name] = parts
        if "shifts" in given and entry.name == "sd15":
            entry = TABLE["sd15-asyrp"]
        options = [*given, *(["layers"] if self.layers is not None else [])]
        _check_options(entry, options)
        _check_settings(entry.name, self.settings, entry.allowed)
        for name in PATHS:
            if (where := self.settings.get(name)) is not None and not Path(str(where)).expanduser().exists():
                raise CheckpointError(f"{name} {where}: there is no such file or folder")
        if model is None:
            raise CheckpointError(
                f"{entry.name} needs its weights: --model FILE (model=FILE in Python), {entry.form}; published at "
                f"{entry.source}"
            )
        present = {name: _present(parts, FLAGS[name]) for name, parts in given.items()}
        return Resolved(entry.name, _emotions(present), None, entry, model, present, self.layers)

    def _found(self) -> tuple[Pretrained | None, Path, str | None]:
        """The table's entry, or None for a folder that says itself what it is; the folder; the weights."""
        name, path = self.editor, Path(self.editor).expanduser()
        entry = TABLE.get(name)
        if entry is not None:
            return entry, path, self.model if self.model is not None else entry.model
        if name in checkpoints.embedded_names():
            return None, checkpoints.locate(name), None
        if path.is_file():
            return TABLE[identify.file(path)], path, name
        if path.is_dir():
            if (path / checkpoints.EDITOR).is_file():
                return None, path, None
            return TABLE[identify.folder(path)], path, name
        if name.count("/") == 1 and not name.startswith((".", "/", "~")):
            told, says = checkpoints.peek(name, revision=self.revision)
            if told == checkpoints.EDITOR:
                return None, checkpoints.locate(name, revision=self.revision), None
            unet = told == checkpoints.CONFIG and says.get("_class_name") == "UNet2DModel"
            return TABLE["celebahq" if unet else identify.pipeline(says.get("_class_name"), name)], path, name
        if name and path.name == name:
            known = {fold_name(other): other for other in (*checkpoints.embedded_names(), *TABLE)}
            error = unknown_name("model", name, known)
            raise UnknownNameError(
                f"{error} (There is no folder of that name either, and no file; models of the hub are owner/name; "
                f"registered editors are {', '.join(EDITORS.names())})"
            )
        return None, checkpoints.locate(name), None  # which says what is wrong

    def _registered(self) -> Resolved:
        """An editor that no folder describes: a service, or one of an installed plugin."""
        self._check_no_parts()
        if self.model is not None:
            raise EditError(f"{self.editor} takes no --model")
        editor = EDITORS.get(self.editor)()
        return Resolved(editor.name, tuple(editor.emotions), None, None, None, {}, made=editor)

    def _check_no_parts(self) -> None:
        """Raises EditError for parts, which only full-size editors take."""
        if parts := [FLAGS[name] for name in FLAGS if getattr(self, name) is not None]:
            raise EditError(
                f"{self.editor} is an editor of its own and takes no {', '.join(parts)}; full-size ones do: "
                f"{', '.join(TABLE)}"
            )

    def _own(self, folder: Path) -> Resolved:
        """An editor that its folder describes."""
        self._check_no_parts()
        description = checkpoints.read_json(folder / checkpoints.EDITOR)
        with checkpoints.entries_of(folder / checkpoints.EDITOR):
            name, emotions = str(description["name"]), [str(emotion) for emotion in description["emotions"]]
            named = "source" in description["backbone"]
        if self.model is not None and not named:
            raise EditError(f"{self.editor} holds its own weights and takes no --model")
        return Resolved(name, tuple(emotions), folder, None, self.model, {})

    def load(
        self, device: str = "cpu", *, precision: str | None = None, offload: bool = False, compile: bool = False
    ) -> Editor:
        """The editor, on a device.

        Args:
            device: device of ``emoedit.models.devices.choose_device``.
            precision: default: auto for models of others, what its folder says for an editor's own.
            offload: parts that are not at work wait on the CPU.
            compile: ``torch.compile`` translates what runs in every step, when it first runs.

        Raises:
            CheckpointError: as ``resolved``; weights that are damaged or do not fit.
            UnknownNameError: as ``resolved``; weights that are damaged or do not fit.
            EditError: as ``resolved``; weights that are damaged or do not fit.
            DeviceMemoryError: the weights do not fit on the device.
        """
        from emoedit.editors import Editor
        from emoedit.models.base import Backbone
        from emoedit.models.devices import NAMES, check_compute, compile_parts, describe, fitting

        found, how = self.resolved(), {"offload": offload, "compile": compile}
        precision = self.settings.get("precision") if precision is None else precision
        if found.made is not None:
            check_compute(found.name, found.made.backbone.unsupported, **how)
            return found.made.with_sampling(**self.settings).to(device)
        if found.entry is None:
            settings = {name: value for name, value in self.settings.items() if name != "precision"}
            assert found.folder is not None  # of an editor that says itself what it is
            editor = Editor.from_pretrained(found.folder, backbone=found.model).with_sampling(**settings)
            others = editor.backbone.source is not None
            check_compute(editor.name, editor.backbone.unsupported if others else Backbone.unsupported, **how)
        else:
            entry, settings = found.entry, {**_defaults(found.entry), **self.settings}
            check_compute(entry.name, BACKBONES.get(entry.backbone).unsupported, **how)
            steerings = STEERINGS_OF[entry.name](
                Parts(found.parts, found.layers), settings
            )  # first: what is small may be what is wrong
            backbone = load_backbone(entry.backbone, found.model or "", settings, revision=self.revision)
            editor, others = Editor(backbone, steerings(backbone), name=entry.name), True
        with fitting(f"{editor.name} ({_gigabytes(editor.backbone):.1f} GB of weights in float32)"):
            if others:
                editor.backbone.to_device(device, precision or "auto", offload=offload)
                logger.info("%s computes on %s", editor.name, describe(device))
                if compile:
                    compile_parts(editor.backbone.compiled_parts(), device)
            else:
                if precision is not None:
                    editor = editor.with_sampling(precision=NAMES.get(precision, precision))
                editor.backbone.to(device)
            for steering in editor.steerings:
                steering.to(device)
        return editor


@dataclass(frozen=True)
class Resolved:
    """What a request stands for.

    Args:
        name: name of the editor, in results.
        emotions: names that it shows without mixing.
        folder: folder of an editor with an ``editor.json``.
        entry: entry of the table, for all others.
        model: source of the weights.
        parts: option -> emotion -> file, those that are there.
        layers: layers of W+.
        made: an editor that was registered, which no weights have to be read for.
    """

    name: str
    emotions: tuple[str, ...]
    folder: Path | None
    entry: Pretrained | None
    model: str | None
    parts: Mapping[str, Files]
    layers: tuple[int, ...] | None = None
    made: Editor | None = None


def load_backbone(
    kind: str, source: str | os.PathLike[str], settings: Mapping[str, Any], *, revision: str | None = None
) -> Backbone:
    """A published model with its source, which is saved with an editor.

    Args:
        kind: its registered name.
        source: a folder, a file, or ``owner/name`` on the hub.
        settings: by name.
        revision: revision of a repository on the hub.

    Raises:
        CheckpointError: missing, damaged, unsafe, or another kind of model.
        EditError: settings that make no sense.
    """
    text = os.fspath(source)
    if Path(text).expanduser().exists():
        text = str(Path(text).expanduser().resolve())
    found: Any = BACKBONES.get(kind)
    how = {name: value for name, value in settings.items() if name != "precision"}
    how |= {name: str(Path(str(how[name])).expanduser().resolve()) for name in PATHS if how.get(name) is not None}
    backbone = found.load(text, revision=revision, **how)
    read_with = {name: value for name, value in how.items() if name not in found.settings}
    backbone.source = {"source": text, "revision": revision, "settings": read_with}
    backbone.batch_size = batch_size_of(backbone.crop.resolution)
    return backbone


def backbone_of(model: str, settings: Mapping[str, Any]) -> tuple[Backbone, str | None]:
    """The model that something is to be fitted to.

    Args:
        model: the name or folder of an editor, whose backbone it is; a full-size editor's name; a folder, a file, or
            ``owner/name`` on the hub.
        settings: settings of the model.

    Returns:
        The backbone, and the editor that holds it; None for a model of others.

    Raises:
        UnknownNameError: no such model.
        CheckpointError: missing, damaged, or of another kind.
        EditError: settings that it does not have.
    """
    from emoedit.editors import Editor

    entry, folder, source = Request(model)._found()
    if entry is None:
        found = Editor.from_pretrained(folder).backbone
        return found.with_sampling(**settings), None if found.source is not None else str(folder.resolve())
    _check_settings(entry.name, settings, entry.allowed)
    if source is None:
        raise CheckpointError(f"{entry.name} needs its weights: give a file as the model, {entry.form}")
    return load_backbone(entry.backbone, source, {**_defaults(entry), **settings}), None


def batch_size_of(side: int) -> int:
    """How many pictures of that side are drawn at once: what a pass keeps grows with their area.

    Args:
        side: side in pixels.
    """
    return 8 if side <= 128 else 4 if side <= 256 else 2 if side <= 512 else 1


def _gigabytes(backbone: Backbone) -> float:
    return sum(value.numel() for value in backbone.parameters()) * 4 / 1e9


def _defaults(entry: Pretrained) -> dict[str, Any]:
    return {name: default.value for name, default in entry.defaults.items()}


def _check_options(entry: Pretrained, given: Sequence[str]) -> None:
    """Whether an editor takes the given options, and has all it needs.

    Raises:
        EditError: an option that it does not take.
        CheckpointError: one that it needs is missing.
    """
    if wrong := [FLAGS[name] for name in given if name not in entry.takes]:
        takes = ", ".join(FLAGS[name] for name in entry.takes) or "none of these"
        raise EditError(f"{entry.name} takes no {', '.join(wrong)}; it takes {takes}")
    for name in entry.needs:
        if name not in given:
            shown = ", ".join(f"{part.emotion}={part.name}" for part in entry.parts[:1]) or "EMOTION=FILE"
            where = (
                f" Published: {', '.join(p.name for p in entry.parts)}, at {entry.parts[0].where}; or "
                if (entry.parts)
                else " None is published for it; "
            )
            raise CheckpointError(
                f"{entry.name} needs {name}: {FLAGS[name]} {shown} ({name}={{...}} in Python).{where}"
                f"{HOW_TO_FIT.get(name, '')}"
            )


def _check_settings(editor: str, given: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Whether an editor has settings of these names.

    Raises:
        EditError: it has not; the message holds the nearest names.
    """
    if unknown := [name for name in given if name not in allowed]:
        near = dict.fromkeys(match for name in unknown for match in get_close_matches(name, allowed, n=2))
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise EditError(f"{', '.join(unknown)}: no settings of {editor}; {hint}It has {', '.join(allowed) or 'none'}")


def _listed(parts: Any, entry: Pretrained, flag: str) -> Files | None:
    """Files by emotion; of a folder those with published names, or its folders, named after emotions.

    Raises:
        CheckpointError: a folder in which nothing is known by its name.
        EditError: neither a mapping nor a folder.
    """
    if parts is None:
        return None
    if isinstance(parts, Mapping):
        return dict(parts)
    folder = Path(os.fspath(parts)).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"{flag} {folder}: no such folder; give EMOTION=FILE, or a folder of files")
    known = {part.name: part.emotion for part in entry.parts}
    found = {known[path.name]: path for path in sorted(folder.iterdir()) if path.name in known}
    if flag != FLAGS["boundaries"]:  # which are files
        found |= {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
    if not found:
        names = ", ".join(known) or "one folder an emotion, with a learned_embeds.safetensors in it"
        raise CheckpointError(f"{flag} {folder}: found nothing there that is known by its name; expected {names}")
    return found


def _present(parts: Files, flag: str) -> Files:
    """The parts that are there. One that is not leaves its emotion out, with a warning.

    Raises:
        CheckpointError: none is there.
    """
    there = {emotion: part for emotion, part in parts.items() if path_of(part).exists()}
    missing = [f"{emotion}={path_of(part)}" for emotion, part in parts.items() if emotion not in there]
    if not there:
        raise CheckpointError(f"{flag} {' '.join(missing) or 'names nothing'}: there is no such file")
    for one in missing:
        warnings.warn(f"{flag} {one}: there is no such file; the editor goes on without this emotion", stacklevel=2)
    return there


def _emotions(parts: Mapping[str, Files]) -> tuple[str, ...]:
    """What an editor shows without mixing."""
    first = next(iter(parts.values()), None)
    if first is None:
        return list_emotions()
    return tuple(name for name in first if all(name in other for other in parts.values()))


def list_models(pattern: str = "*") -> list[checkpoints.ModelInfo]:
    """Every model this version can use: embedded ones, full-size editors, networks that measure and detect.

    Args:
        pattern: pattern of names, with ``*`` and ``?``.
    """
    small = checkpoints.list_small_models()
    known = {*checkpoints.embedded_names()}
    models = [model for model in small if model.name in known]
    for entry in TABLE.values():
        needs = [FLAGS[name] for name in entry.needs]
        if entry.model is None:
            needs.insert(0, "--model")
        here = entry.model is not None and checkpoints.is_cached(entry.model)
        models.append(
            checkpoints.ModelInfo(
                entry.name,
                f"{entry.role} ({entry.resolution} px, colour)",
                entry.size,
                entry.licence,
                entry.model or entry.source,
                here,
                entry.memory,
                " ".join(needs),
            )
        )
    models += [model for model in small if model.name not in known]
    return [model for model in models if fnmatchcase(model.name.lower(), pattern.lower())]

"""One job of a sweep: an editor, every emotion at every strength, on a data set or a part of it.

What shares an inversion is one job: emotions and strengths are lists. A job is described by plain values, knows its own
folder of results from them, and can be looked through for mistakes before any model is loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from emoedit.emotions import parse, resolve
from emoedit.evaluation.cases import Case
from emoedit.evaluation.naming import EditorDescription, check_earlier_results
from emoedit.evaluation.shards import Shard, open_cases
from emoedit.io import checkpoints
from emoedit.io.images import SUFFIXES
from emoedit.registry import READERS
from emoedit.types import DataError, Edit, EditError, UnknownNameError

if TYPE_CHECKING:
    from emoedit.photo import PhotoEditor

REFERENCES = "references"  # in place of an editor: the reference editors, and doing nothing
NETWORKS = ("identity", "perceptual", "expression")


@dataclass(frozen=True)
class DataSet:
    """Where photographs are.

    Args:
        path: a folder (``emoedit.evaluation.shards.open_cases``), or whatever the reader reads.
        name: name in results; default: the folder's.
        split: only these, where the folder says so.
        limit: only the first so many.
        reader: name of a registered data reader; default: the layouts of folders.
    """

    path: str
    name: str | None = None
    split: str | None = None
    limit: int | None = None
    reader: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and (isinstance(self.limit, bool) or not isinstance(self.limit, int)):
            raise DataError(f"data.limit is a whole number, not {self.limit!r}")
        if self.limit is not None and self.limit < 1:
            raise DataError(f"data.limit is at least 1, not {self.limit}")
        if self.reader is not None:
            READERS.check(self.reader)

    @property
    def key(self) -> str:
        """The name; where none is given, folders of one name in different places are told apart."""
        name = self.name or _named(Path(self.path).expanduser().resolve())
        return name if self.split is None else f"{name}-{self.split}"


@dataclass(frozen=True)
class Job:
    """What to do, and where the results go.

    Args:
        editor: a name, a folder, ``owner/name`` on the hub; ``"references"`` (the reference editors, doing nothing, and
            true photographs where there are any), a registered editor; or a mapping ``{editor: NAME, name: CALLED,
            compositor: NAME, SETTING: VALUE}``: an editor and what it is made of (arguments of
            :func:`emoedit.load_editor`), how its changes are put into photographs, and what it is called in results
            (default: its name with these settings, ``"asyrp(steps=50)"``).
        emotion: names or algebra on names.
        strength: 0 the photograph itself, 1 the fitted effect.
        data: the data set to edit.
        shard: index and count of the part.
        seed: seed of editors that draw noise.
        metric_networks: names of the metric networks (``emoedit.metrics.suite.Suite``); None: nothing is measured.
        pictures: format in which every edited photograph is kept (``"jpg"``); None: none is.
        retry: whether what failed in an earlier run is tried again.
        device: ``"auto"``, ``"cpu"``, ``"mps"``, ``"cuda"``, ``"cuda:1"``.
        output: folder of the sweep; a job's own lies in it.
    """

    editor: str | Mapping[str, Any]
    emotion: tuple[str, ...]
    strength: tuple[float, ...]
    data: DataSet
    shard: Shard
    seed: int
    metric_networks: Mapping[str, str] | None
    pictures: str | None
    retry: bool
    device: str
    output: Path

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A job from plain values; one emotion or strength need not be a list.

        Args:
            config: config of ``configs/sweep.yaml``.

        Raises:
            DataError: what is missing, unknown, or of another kind.
            EditError: a strength that makes no sense.
        """
        known = [field.name for field in fields(cls)]
        _check_keys("a sweep", config, known, known)
        data = config["data"]
        names = [field.name for field in fields(DataSet)]
        if not isinstance(data, Mapping):
            raise DataError(f"data is a mapping with {', '.join(names)}, not {data!r}")
        data = {key: value for key, value in data.items() if key != "root"}  # what paths were made from
        _check_keys("data", data, names, ["path"])
        metric_networks = config["metric_networks"]
        if metric_networks is not None:
            if not isinstance(metric_networks, Mapping):
                raise DataError(
                    f"metric_networks is a mapping with {', '.join(NETWORKS)}, or null; not {metric_networks!r}"
                )
            _check_keys("metric_networks", metric_networks, NETWORKS, NETWORKS)
        emotions, strengths = (_listed(config[key]) for key in ("emotion", "strength"))
        if not emotions or not all(isinstance(name, str) for name in emotions):
            raise DataError(f"emotion is a name or a list of names, not {config['emotion']!r}")
        if not strengths or not all(isinstance(s, int | float) and not isinstance(s, bool) for s in strengths):
            raise DataError(f"strength is a number or a list of numbers, not {config['strength']!r}")
        for strength in strengths:
            Edit("happy", strength)
        editor = config["editor"]
        if not isinstance(editor, str) and not (isinstance(editor, Mapping) and isinstance(editor.get("editor"), str)):
            raise DataError(f"an editor is a name, or a mapping with editor, name and settings; not {editor!r}")
        if not isinstance(data["path"], str):
            raise DataError(f"data.path is a folder, not {data['path']!r}")
        return cls(
            editor=editor,
            emotion=tuple(dict.fromkeys(emotions)),
            strength=tuple(dict.fromkeys(float(s) + 0.0 for s in strengths)),
            data=DataSet(**data),
            shard=Shard.parse(config["shard"]),
            seed=config["seed"],
            metric_networks=metric_networks,
            pictures=config["pictures"],
            retry=config["retry"],
            device=config["device"],
            output=Path(config["output"]).expanduser(),
        )

    @property
    def key(self) -> str:
        """Name of the job's folder: jobs that differ in it share no cell and can run at the same time.

        Emotions, strengths and the number of photographs are left out, so that more of them are added to what is there.
        """
        if isinstance(self.editor, str):
            known = self.editor == REFERENCES or self.editor in checkpoints.embedded_names()
            local = not known and Path(self.editor).expanduser().is_dir()
            name = _named(Path(self.editor).expanduser().resolve()) if local else self.editor
        else:
            digest = hashlib.sha256(json.dumps(self.editor, sort_keys=True, default=str).encode()).hexdigest()[:6]
            name = f"{self.editor.get('name') or self.editor.get('editor', 'editor')}-{digest}"
        parts = [name, self.data.key]
        if self.seed:
            parts.append(f"seed{self.seed}")
        if self.shard.count > 1:
            parts.append(f"{self.shard.index}of{self.shard.count}")
        return re.sub(r"[^\w.+-]+", "_", "-".join(parts))

    @property
    def folder(self) -> Path:
        """Where its results go."""
        return self.output / self.key

    @cached_property
    def cases(self) -> Sequence[Case]:
        """Its photographs.

        Raises:
            DataError: no such folder, or nothing to edit in it.
        """
        data = self.data
        return open_cases(data.path, split=data.split, limit=data.limit, shard=self.shard, reader=data.reader)

    @property
    def edits(self) -> list[Edit]:
        """Every emotion at every strength."""
        from emoedit.evaluation.compare import canonical_names

        return [Edit(name, strength) for name in canonical_names(self.emotion) for strength in self.strength]

    @property
    def about(self) -> dict[str, Any]:
        """Entries of the job for reports."""
        edits = self.edits
        return {
            "data": self.data.key,
            "path": str(Path(self.data.path).expanduser().resolve()),
            "editor": self.editor if isinstance(self.editor, str) else dict(self.editor),
            "emotions": list(dict.fromkeys(edit.emotion for edit in edits)),
            "strengths": list(self.strength),
            "shard": str(self.shard),
            "seed": self.seed,
            "photographs": len(self.cases),
        }

    def check(self) -> None:
        """Look for mistakes without loading a model.

        Raises:
            EmoEditError: an editor, emotion, metric network, data folder, split or format that does not exist (the
                message holds the nearest names), a ``_target_`` that is not this package's, a value of the wrong kind.
            DataError: a setting of another kind, or a data folder or split without photographs.
        """
        known = self._emotions()
        for name in self.emotion:
            parse(name) if known is None else resolve(name, known)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise DataError(f"seed is a whole number from 0 to 2^63 - 1, not {self.seed!r}")
        if not isinstance(self.retry, bool):
            raise DataError(f"retry is true or false, not {self.retry!r}")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", str(self.device)):
            raise EditError(f"device is auto, cpu, mps, cuda or cuda:N, not {self.device!r}")
        if self.pictures is not None and f".{self.pictures}" not in SUFFIXES:
            formats = ", ".join(suffix[1:] for suffix in SUFFIXES)
            raise DataError(f"pictures is one of {formats}, or null; not {self.pictures!r}")
        len(self.cases)
        if self.metric_networks is not None:
            self._check_networks(self.metric_networks)

    def _emotions(self) -> list[str] | None:
        """The editor's emotions; None where only its weights contain them.

        Raises:
            EmoEditError: an editor, a setting or a compositor that does not exist.
        """
        if self.editor == REFERENCES:
            return None
        described = EditorDescription.of(self.editor)
        if described.compositor is not None:
            from emoedit.compositing.compositors import compositor

            compositor(described.compositor)
        return list(described.request.resolved().emotions)

    def _check_networks(self, networks: Mapping[str, str]) -> None:
        from emoedit.metrics.expression import target_classes
        from emoedit.metrics.suite import IDENTITY, PERCEPTUAL

        for kind, names in (("identity", IDENTITY), ("perceptual", PERCEPTUAL)):
            if networks[kind] not in names:
                raise UnknownNameError(f"no {kind} metric network {networks[kind]!r}; there are {', '.join(names)}")
        if networks["expression"] == "embedded":
            classes = checkpoints.read_json(checkpoints.embedded_root() / "expression" / checkpoints.CONFIG)["emotions"]
            for edit in self.edits:
                target_classes(edit.emotion, classes)

    def run(self, *, progress: bool | Callable[..., Any] = True) -> dict[str, int]:
        """Compute the missing cells.

        Args:
            progress: whether to show a bar, or what makes the bar.

        Returns:
            How many ``cells`` the job has, and how many of them are ``failed``.

        Raises:
            EmoEditError: whatever ``check`` or ``emoedit.evaluation.evaluate.complete_results`` meets.
        """
        self.check()
        if not self.cases:  # more shards than photographs
            return {"cells": 0, "failed": 0}
        from emoedit.editors import choose_device, load_editor
        from emoedit.evaluation.entries import Entry, load_entries
        from emoedit.evaluation.evaluate import RESULTS, complete_results, fingerprint
        from emoedit.evaluation.plan import Plan
        from emoedit.io.results import Rows
        from emoedit.metrics.null_suite import NullSuite
        from emoedit.metrics.suite import Suite
        from emoedit.photo import PhotoEditor

        references = self.editor == REFERENCES
        if references:
            entries = [
                Entry(name, PhotoEditor(load_editor(name, device=self.device)), True)
                for name in checkpoints.reference_names()
            ]
        else:
            entries = load_entries([self._editor()], references=False, device=self.device)
            (entry,) = entries
            digest = partial(fingerprint, entry.photo_editor)
            check_earlier_results(self.folder, self.data.key, self.about["editor"], entry.name, digest)
        suite = (
            NullSuite()
            if self.metric_networks is None
            else Suite(**self.metric_networks, device=choose_device(self.device))
        )
        measured = references and self.metric_networks is not None
        pictures = None if self.pictures is None else f".{self.pictures}"
        plan = Plan(entries, self.edits, suite, measured, self.seed, pictures)
        complete_results(self.folder, self.cases, plan, retry=self.retry, about=self.about, progress=progress)
        counts = {"cells": 0, "failed": 0}
        for row in Rows(self.folder / RESULTS):
            counts["cells"] += 1
            counts["failed"] += row["error"] is not None
        return counts

    def _editor(self) -> str | PhotoEditor:
        """The editor's name, or the editor that is described.

        Raises:
            EditError: settings or parts that it does not have.
        """
        if isinstance(self.editor, str):
            return self.editor
        from emoedit.editors import load_editor
        from emoedit.photo import PhotoEditor

        described = EditorDescription.of(self.editor)
        arguments = {**described.arguments, "name": described.result_name}
        loaded = load_editor(arguments.pop("editor"), device=self.device, **arguments)
        return PhotoEditor(loaded, compositor=described.compositor)


def with_one_editor(arguments: Sequence[str]) -> list[str]:
    """Overrides of a command line with ``editor=sd15 editor.model=FOLDER editor.steps=20,50`` as one override.

    Args:
        arguments: as the command line has them; Hydra gives a plain value no entries of its own.

    Raises:
        DataError: entries of several editors, or of none.
    """
    entries = [text for text in arguments if text.startswith("editor.") and "=" in text]
    if not entries:
        return list(arguments)
    named = [text.partition("=")[2] for text in arguments if text.startswith("editor=")]
    if len(named) != 1 or "," in named[0]:
        raise DataError(f"{', '.join(entries)}: say of which editor, editor=NAME, and of one alone")
    keys, values = zip(
        *((text.partition("=")[0], _alternatives(text.partition("=")[2])) for text in entries), strict=True
    )
    described = [_described(named[0], dict(zip(keys, chosen, strict=True))) for chosen in product(*values)]
    rest = [text for text in arguments if text not in entries and not text.startswith("editor=")]
    return [*rest, f"editor={','.join(map(_override, described))}"]


def _alternatives(value: str) -> list[str]:
    """``"20,50"`` are two values to try, one after the other; everything that may be a path or a list is one."""
    return value.split(",") if re.fullmatch(r"[\w.+-]+(,[\w.+-]+)+", value) else [value]


def _described(editor: str, entries: Mapping[str, str]) -> dict[str, Any]:
    """An editor and its entries (``{"editor.tokens.happy": FILE}``) as one mapping."""
    described: dict[str, Any] = {"editor": editor}
    for key, value in entries.items():
        *outer, last = key.split(".")[1:]
        place = described
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return described


def _override(value: Any) -> str:
    """A value as Hydra's grammar of overrides reads it; numbers, lists and what is quoted stay as they are."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_override(entry)}" for key, entry in value.items()) + "}"
    if re.fullmatch(r"-?\d+(\.\d+)?|true|false|null|\[.*\]|'.*'|\".*\"", value):
        return value
    return "'" + value.replace("'", "\\'") + "'"


def _check_keys(what: str, found: Mapping[str, Any], known: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse entries that are not known, and needed ones that are missing.

    Raises:
        DataError: an entry that is not known, or a needed one that is missing.
    """
    if unknown := [str(key) for key in found if key not in known]:
        raise DataError(f"{what} has no {', '.join(unknown)}; it has {', '.join(known)}")
    if missing := [key for key in needed if key not in found]:
        raise DataError(f"{what} needs {', '.join(missing)}")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _named(path: Path) -> str:
    """A folder's name, and a few digits that tell it from others of that name."""
    return f"{path.name or 'root'}-{hashlib.sha256(str(path).encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"

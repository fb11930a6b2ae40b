"""Names of a sweep's editors in results.

A report puts the rows of all jobs of a sweep together and tells editors apart by their names. An editor at other
settings is another editor: its name is derived from these settings, and two editors of one name are refused
before anything is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoedit.full_size import Request
from emoedit.io import checkpoints
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import CheckpointError, DataError

COMPOSITOR = "compositor"  # entry of a described editor that is not an argument of ``emoedit.load_editor``
IN_TURN = "+"  # between names of editors, each of which edits the result of the one before
QUICK_EDITORS = (DEFAULT_EDITOR, "facs", "vae", f"{DEFAULT_EDITOR}{IN_TURN}facs")  # up to a third of a second an edit
SPEED_SETTINGS = ("batch", "offload", "compile")  # settings that change no picture, rounding aside


def editors_in_turn(name: str) -> list[str]:
    """The editors that a name means: those of ``stylegan+facs`` are two.

    Args:
        name: name of an editor, or names joined by ``+``; a path that exists is one editor, whatever its name holds.
    """
    return [name] if Path(name).exists() else name.split(IN_TURN)


@dataclass(frozen=True)
class EditorDescription:
    """An editor of a sweep, described by plain values.

    Args:
        arguments: arguments of ``emoedit.load_editor``, with ``editor`` in place of ``name_or_path``.
        compositor: how changes are put into photographs: a name or a description; None: the editor's own.
    """

    arguments: Mapping[str, Any]
    compositor: str | Mapping[str, Any] | None = None

    @classmethod
    def of(cls, editor: str | Mapping[str, Any]) -> EditorDescription:
        """From a name, or a mapping ``{editor: NAME, name: CALLED, compositor: NAME, SETTING: VALUE}``.

        Args:
            editor: as a config has it.
        """
        if isinstance(editor, str):
            return cls({"editor": editor})
        arguments = {name: value for name, value in editor.items() if name != COMPOSITOR}
        return cls(arguments, editor.get(COMPOSITOR))

    @property
    def request(self) -> Request:
        """What is to be loaded.

        Raises:
            EditError: no editor is named.
        """
        return Request.of(self.arguments)

    @property
    def result_name(self) -> str:
        """Its name in results: as given, or the editor's own with the settings that are changed.

        Raises:
            EmoEditError: whatever ``emoedit.full_size.Request.resolved`` meets.
        """
        if given := self.arguments.get("name"):
            return str(given)
        request = self.request
        changed = dict(request.settings)
        if self.arguments.get("precision") is not None:
            changed["precision"] = self.arguments["precision"]
        if self.compositor is not None:
            changed[COMPOSITOR] = _compositor_label(self.compositor)
        told = ", ".join(f"{name}={value}" for name, value in sorted(changed.items()))
        own = request.resolved().name
        return f"{own}({told})" if told else own

    @property
    def content(self) -> str:
        """The same for two descriptions of one editor; its name and what changes no picture are left out.

        Raises:
            EmoEditError: whatever ``emoedit.full_size.Request.resolved`` meets.
        """
        folder = self.request.resolved().folder
        own = {name: value for name, value in self.arguments.items() if name not in ("name", *SPEED_SETTINGS)}
        where = str(folder.resolve()) if folder is not None else own["editor"]
        return json.dumps({**own, "editor": where, COMPOSITOR: self.compositor}, sort_keys=True, default=str)


def _compositor_label(compositor: str | Mapping[str, Any]) -> str:
    """A compositor in a word; what is described in detail is told apart by a few digits."""
    if isinstance(compositor, str):
        return compositor
    digest = hashlib.sha256(json.dumps(compositor, sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"{compositor.get('name', 'custom')}-{digest}"


def check_names(jobs: Sequence[tuple[str, EditorDescription]]) -> None:
    """Check that no name stands for two editors on one data set.

    Args:
        jobs: the key of a data set and its editor.

    Raises:
        DataError: it does; the message says how to name them.
        EmoEditError: whatever ``emoedit.full_size.Request.resolved`` meets.
    """
    found: dict[tuple[str, str], EditorDescription] = {}
    for data, editor in jobs:
        other = found.setdefault((data, editor.result_name), editor)
        if other.content != editor.content:
            raise DataError(
                f"two editors of this sweep are both called {editor.result_name!r} in results, {_as_config(other)} and "
                f"{_as_config(editor)}; {naming_hint(_as_config(editor))}"
            )


def check_earlier_results(
    folder: Path, data: str, editor: str | Mapping[str, Any], name: str, digest: Callable[[], str]
) -> None:
    """Refuse an editor whose name stands for another one in what lies beside its folder of results.

    Args:
        folder: folder of the job's results, in that of the sweep.
        data: key of the data set.
        editor: as the job has it.
        name: name of the editor in results.
        digest: makes the fingerprint of all it computes with; called only where the name is there already.

    Raises:
        DataError: one of that name is there, and is another editor.
    """
    from emoedit.evaluation.evaluate import JOB, SETTINGS

    for path in sorted(folder.parent.glob(f"*/{JOB}")):
        if path.parent == folder:
            continue
        try:
            about = checkpoints.read_json(path)
            known = checkpoints.read_json(path.parent / SETTINGS)["editors"].get(name)
        except (CheckpointError, KeyError, AttributeError):
            continue  # a job that is being started or was damaged: reports say so
        if about.get("data") == data and about.get("editor") != editor and known not in (None, digest()):
            raise DataError(
                f"{path.parent} holds results of another editor that is called {name!r} too, and a report could not "
                f"tell them apart; {naming_hint(editor)} Or choose another output."
            )


def naming_hint(editor: Any) -> str:
    """Advice for two editors of one name.

    Args:
        editor: one of them, as a config has it.
    """
    described = {"editor": editor} if isinstance(editor, str) else {k: v for k, v in editor.items() if k != "name"}
    first, *others = [f"{key}: {value}" for key, value in described.items()]
    return f"give one of them a name of its own: editor={{{', '.join([first, 'name: CALLED', *others])}}}."


def _as_config(editor: EditorDescription) -> Any:
    """As a config has it."""
    if editor.compositor is None:
        return editor.arguments["editor"] if len(editor.arguments) == 1 else dict(editor.arguments)
    return {**editor.arguments, COMPOSITOR: editor.compositor}

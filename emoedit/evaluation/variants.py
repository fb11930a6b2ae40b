"""Editors that differ from one on disk in how they sample, to be compared with it."""

from __future__ import annotations

from typing import Any

from emoedit.editors import Editor, load_editor
from emoedit.types import EditError


def sampled(editor: str, *, name: str, **settings: Any) -> Editor:
    """An editor on the CPU with other settings of sampling; weights and steerings are its own.

    Args:
        editor: a name, a folder, or ``owner/name`` on the hub.
        name: what it is called in results.
        settings: of its backbone's ``sampled`` (``steps``, ``t_edit``, ...).

    Raises:
        EditError: a backbone that does not sample, or settings that it does not have.
        UnknownNameError, CheckpointError: no such editor; damaged weights.
    """
    loaded = load_editor(editor, device="cpu")
    change = getattr(loaded.backbone, "sampled", None)
    if change is None:
        raise EditError(f"{editor!r} takes no steps: {type(loaded.backbone).__name__} has no settings of sampling")
    return Editor(change(**settings), loaded.steerings, name=name)

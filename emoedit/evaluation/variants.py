"""Editors that differ from one on disk in how they sample, to be compared with it."""

from __future__ import annotations

from typing import Any

from emoedit.editors import Editor, load_editor


def sampled(editor: str, *, name: str, **settings: Any) -> Editor:
    """An editor on the CPU with other settings of sampling; weights and steerings are its own.

    Args:
        editor: a name, a folder, or ``owner/name`` on the hub.
        name: what it is called in results.
        settings: of its backbone's ``with_sampling`` (``steps``, ``t_edit``, ...).

    Raises:
        EditError: settings that its backbone does not have.
        UnknownNameError, CheckpointError: no such editor; damaged weights.
    """
    loaded = load_editor(editor, device="cpu").with_sampling(**settings)
    loaded.name = name
    return loaded

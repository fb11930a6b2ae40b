"""Many photographs with one loaded editor: a result or an error for each, so that a bad file does not end the rest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from emoedit.editors import Editor
from emoedit.photo import PhotoEdit, PhotoEditor, edit
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import EmoEditError


@dataclass(frozen=True)
class BatchResult:
    """The result or the error of one photograph of a batch.

    Args:
        name: the file's name or path as it was given; ``"photo 3"`` (counted from 1) for what has none.
        edited: the edited photograph; None where it could not be made.
        error: why not; None where it was made.
    """

    name: str
    edited: PhotoEdit | None = None
    error: EmoEditError | None = None


def edit_many(
    photos: Iterable[Any],
    emotion: str = "happy",
    *,
    editor: str | Editor | PhotoEditor = DEFAULT_EDITOR,
    strength: float = 1.0,
    face: str | int = "largest",
    seed: int = 0,
    min_identity: float | None = None,
) -> Iterator[BatchResult]:
    """Edit photographs one after the other; each is read only when its turn comes.

    Args:
        photos: paths, bytes, PIL pictures, arrays or tensors.
        emotion: a name or algebra on names.
        editor: a name, or what `emoedit.load_editor` returned; loaded once.
        strength: 0 the photograph itself, 1 the fitted effect.
        face: ``"largest"``, ``"all"``, or an index by size.
        seed: seed of the noise that an editor draws.
        min_identity: weaken each edit until its identity is at least this, 0 to 1.

    Yields:
        A result for each photograph, in their order, with its picture or its error.

    Raises:
        UnknownNameError: no such editor, or one that cannot show the emotion.
        EditError: an emotion or a strength that makes no sense.
        CheckpointError: the editor's weights are damaged.
    """
    from emoedit.emotions import resolve

    loaded = editor if isinstance(editor, PhotoEditor) else PhotoEditor(editor)
    resolve(emotion, loaded.editor.emotions)  # wrong for one, wrong for all
    how: dict[str, Any] = {
        "editor": loaded,
        "strength": strength,
        "face": face,
        "seed": seed,
        "min_identity": min_identity,
    }
    for number, photo in enumerate(photos, 1):
        name = os.fspath(photo) if isinstance(photo, str | os.PathLike) else f"photo {number}"
        try:
            yield BatchResult(str(name), edited=edit(photo, emotion, **how))
        except EmoEditError as error:
            yield BatchResult(str(name), error=error)

"""The Batch tab's callbacks: one edit of many photographs, as a zip file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoedit.app.session import Session, SessionError
from emoedit.app.studio import Studio, suffix_of
from emoedit.app.uploads import pack, read_upload
from emoedit.emotions import resolve
from emoedit.io.images import output_path
from emoedit.types import Edit, EmoEditError

MAX_FILES = 50


@dataclass(frozen=True)
class Outcome:
    """The result for one photograph.

    Args:
        name: name of its file.
        result: name of the file in the zip; empty where there is none.
        error: the reason where there is no result; else empty.
    """

    name: str
    result: str = ""
    error: str = ""


def edit_files(
    studio: Studio,
    session: Session,
    paths: Sequence[Path],
    emotion: str,
    strength: float,
    editor: str,
    face: str = "largest",
    callback: Callable[[int, int], None] | None = None,
) -> tuple[Path | None, list[Outcome]]:
    """Edit uploaded files one after the other; each upload is deleted once it has been read.

    Args:
        studio: models and sessions.
        session: session of the zip file.
        paths: paths of the uploads.
        emotion: a name or algebra on names.
        strength: strength of the edit.
        editor: name of it.
        face: ``"largest"`` or ``"all"``.
        callback: called with (files done, files in all).

    Returns:
        The zip file, None where nothing could be edited, and what became of each file.

    Raises:
        SessionError: no file, or too many.
        UnknownNameError: no such editor, or it cannot do this emotion.
        EditError: an emotion that does not parse, or a strength that makes no sense.
    """
    if not paths:
        raise SessionError("choose at least one photograph")
    if len(paths) > MAX_FILES:
        raise SessionError(f"at most {MAX_FILES} photographs at once; the command line takes folders: `emoedit edit`")
    edit = Edit(emotion, strength)
    resolve(emotion, studio.photo_editor(editor).editor.emotions)
    outcomes: list[Outcome] = []
    made: list[Path] = []
    folder = session.file("batch.zip").parent
    for number, path in enumerate(paths):
        if callback is not None:
            callback(number, len(paths))
        try:
            result = _edit_one(studio, path, edit, editor, face, folder, {other.name for other in made})
            made.append(result)
            outcomes.append(Outcome(path.name, result=result.name))
        except EmoEditError as error:
            outcomes.append(Outcome(path.name, error=str(error)))
    return (pack(folder / "emoedit.zip", made) if made else None), outcomes


def _edit_one(studio: Studio, path: Path, edit: Edit, editor: str, face: str, folder: Path, taken: set[str]) -> Path:
    data, picture = read_upload(path, max_pixels=studio.max_pixels)
    with studio.lock:  # given back between files, so that others' edits need not wait for all
        photos = studio.photo_editor(editor)
        result = next(photos.edit(photos.open(picture, face), [edit]))
    suffix = suffix_of(data)
    name = output_path(picture.name, edit.emotion, strength=edit.strength, many=False, suffix=suffix).name
    count = 2
    while name in taken:
        name = f"{Path(name).stem}_{count}{suffix}"
        count += 1
    return result.save(folder / name)

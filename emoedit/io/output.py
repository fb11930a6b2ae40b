"""Files out: each is there and complete, or not there; and what results are named after."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from emoedit.types import OutputError

SUFFIXES = {  # what pictures can be written as
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


def write_atomic(
    path: str | os.PathLike[str],
    write: Callable[[BinaryIO], object],
    *,
    overwrite: bool = False,
    temporary: Path | None = None,
) -> None:
    """Writes a file that is either there and complete, or not there.

    The content goes to a temporary name in the same folder, to the disk, and then to its own name in one step. Missing
    folders above it are made. Whatever happens on the way, an interrupt included, the temporary file goes and an
    existing file stays.

    Args:
        path: the file; ``~`` is expanded. With ``overwrite``, a symbolic link is written through.
        write: is given the temporary file, open for binary writing. What it raises other than OSError is passed on.
        overwrite: whether an existing file may be replaced (it keeps its permissions).
        temporary: a name in the same folder that is always the same, for large files that one process writes: however
            often it is killed, one is left; default: a new name each time.

    Raises:
        OutputError: the target exists, is not a regular file, or cannot be written; says the path and the reason.
    """
    path = Path(os.path.expanduser(path))
    if overwrite:
        path = Path(os.path.realpath(path))
    new = temporary is None
    temporary = temporary or path.parent / f".emoedit-{secrets.token_hex(8)}.tmp"
    with _output_errors(path):
        if os.path.lexists(path) and not path.is_file():
            raise OutputError(f"{path} exists and is not a regular file")
        if path.exists() and not overwrite:
            raise _exists(path)
        _make_folder(path.parent)
        try:
            with open(temporary, "xb") if new else open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if not overwrite:
                _claim(temporary, path)
            else:
                if path.exists():
                    shutil.copymode(path, temporary)
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors while writing into OutputError."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise OutputError(
            f"{ascii(str(path))} cannot be written: the names of files are in {sys.getfilesystemencoding()} here, "
            "which has no such letters; set PYTHONUTF8=1"
        ) from error
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    except RuntimeError as error:
        if not isinstance(error.__context__, OSError):
            raise
        why = error.__context__.strerror or error.__context__  # what torch.save makes of a full disk hides it
        raise OutputError(f"{path} cannot be written: {why}") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error


def _exists(path: Path) -> OutputError:
    return OutputError(f"{path} exists already; pass overwrite=True (--overwrite on the command line) to replace it")


def _claim(temporary: Path, path: Path) -> None:
    """Gives the file its name only if the name is free, with no moment between the check and the rename."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:  # FAT and some network shares have no hard links: take the name with an empty file, then fill it
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError as error:
            raise _exists(path) from error
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink()
            raise


def write_json(path: str | os.PathLike[str], value: object, *, overwrite: bool = False) -> None:
    """Writes ``value`` as indented UTF-8 JSON, through ``write_atomic``.

    Args:
        path: path of the file.
        value: the value that is written.
        overwrite: whether a file that exists is replaced.

    Raises:
        OutputError: JSON has no form for the value (NaN and infinity included), or the file cannot be written.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise OutputError(f"{path}: the value has no form in JSON: {error}") from error
    write_atomic(path, lambda file: file.write(text), overwrite=overwrite)


def distinct_stems(photos: Sequence[str | os.PathLike[str]]) -> list[str]:
    """What the results of each photo are named after: its stem, and the folders before it where stems are alike.

    Args:
        photos: paths.

    Returns:
        ``a/1.jpg b/1.jpg`` -> ``a_1 b_1``. Two paths of one file get one name; ``1.jpg 1.png`` keep theirs, which are
        alike, as no folder tells them apart.
    """
    paths = [Path(os.path.abspath(os.path.expanduser(photo))) for photo in photos]
    names = [path.stem for path in paths]
    for depth in range(1, max((len(path.parts) for path in paths), default=0)):
        alike: dict[str, set[Path]] = {}
        for path, name in zip(paths, names, strict=True):
            alike.setdefault(name.casefold(), set()).add(path.parent)
        if all(len(folders) == 1 for folders in alike.values()):
            break
        names = [
            "_".join([*path.parent.parts[1:][-depth:], path.stem]) if len(alike[name.casefold()]) > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    return names


def output_path(
    name: str,
    emotion: str,
    *,
    strength: float = 1.0,
    output: str | os.PathLike[str] | None = None,
    many: bool,
    face: int | None = None,
    suffix: str = ".png",
) -> Path:
    """Where the result of one edit goes: ``NAME_happy.png``, ``NAME_face2_happy_0.5.png``.

    Args:
        name: name of the photo (``Picture.name``).
        emotion: a name or algebra on names; blanks and ``*`` go, and what does not suit a file name becomes ``_``, so
            that ``"happy - 0.4*surprised"`` gives ``happy-0.4surprised``.
        strength: is part of the name where it is not 1.
        output: None for the current folder; an existing folder, or a name that ends in a separator, for that folder;
            another name for the file itself. ``~`` is expanded.
        many: whether the command gives more than one result, so that ``output`` must be a folder, existing or not.
        face: which face of the photo, where one was asked for.
        suffix: suffix of the file name, where it is made here.

    Raises:
        OutputError: many results, and an ``output`` that names one picture file.
    """
    parts = [name]
    if face is not None:
        parts.append(f"face{face}")
    parts.append(re.sub(r"[^\w.+-]+", "_", re.sub(r"[\s*]+", "", emotion)))
    if strength != 1:
        parts.append(f"{strength:g}")
    filename = "_".join(parts) + suffix
    if output is None:
        return Path(filename)
    output = os.path.expanduser(output)
    folder = Path(output)
    if folder.is_dir() or output.endswith(("/", os.sep)):
        return folder / filename
    if not many:
        return folder
    if folder.suffix.lower() in SUFFIXES:
        raise OutputError(f"{output} names one file, and there are several results; name a folder")
    return folder / filename

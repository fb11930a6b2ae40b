"""Which files of a folder are photographs, asked the same way by every command."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from emoedit.types import DataError

# What Pillow opens of what photographs come as, with the packages behind the extras.
READABLE = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .webp .tif .tiff .bmp .dib .gif .avif .heic .heif .hif .jp2 .j2k .jpx .jxl "
    ".ppm .pgm .pnm .tga .psd".split()
)
_COMPANIONS = frozenset(".csv .json .jsonl .txt .md .xml .yaml .yml .npy .npz .pdf .zip .html".split())
_NAMED = 5  # skipped files that a warning names


def is_picture(path: Path) -> bool:
    """Whether a name is that of a photograph: not hidden, and ending as pictures do.

    Args:
        path: is not opened.
    """
    return path.suffix.lower() in READABLE and not path.name.startswith(".")


def find_pictures(folder: str | os.PathLike[str], *, recursive: bool = True) -> list[Path]:
    """Every photograph in a folder.

    What is skipped is counted and named in a warning; files that data sets keep beside pictures (labels, licences) and
    hidden ones are not worth one.

    Args:
        folder: to look in.
        recursive: whether folders in it are looked in, too (links to folders are not followed).

    Returns:
        Paths, sorted.

    Raises:
        DataError: no such folder, or it cannot be read.
    """
    folder = Path(folder).expanduser()
    found, skipped = [], []
    for path in _files(folder, recursive):
        if is_picture(path):
            found.append(path)
        elif path.suffix.lower() not in _COMPANIONS and not path.name.startswith("."):
            skipped.append(path)
    if skipped:
        names = ", ".join(str(path.relative_to(folder)) for path in sorted(skipped)[:_NAMED])
        more = ", …" if len(skipped) > _NAMED else ""
        count = "1 file is no picture" if len(skipped) == 1 else f"{len(skipped)} files are no pictures"
        warnings.warn(f"{folder}: {count} by name and skipped: {names}{more}", stacklevel=2)
    return sorted(found)


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error

    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    for at, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in names:
            yield Path(at, name)

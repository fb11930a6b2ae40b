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
RESULTS = "results.jsonl"  # marks a folder of results
_NAMED = 5  # skipped files that a warning names


def find_pictures(folder: str | os.PathLike[str], *, recursive: bool = True) -> list[Path]:
    """Every photograph in a folder, as [picture_names][emoedit.io.folders.picture_names] finds them.

    Args:
        folder: to look in.
        recursive: whether folders in it are looked in, too.

    Raises:
        DataError: no such folder, or it cannot be read.
    """
    folder = Path(folder).expanduser()
    return [folder / name for name in picture_names(folder, recursive=recursive)]


def picture_names(folder: Path, *, recursive: bool = True) -> list[str]:
    """The names of every photograph in a folder, seen from there: a folder may hold millions.

    What is skipped is counted and named in a warning; files that data sets keep beside pictures (labels, licences) and
    hidden ones are not worth one.

    Args:
        folder: to look in.
        recursive: whether folders in it are looked in, too (but not links to folders, nor folders of results).

    Returns:
        Sorted, with ``/`` between folders.

    Raises:
        DataError: no such folder, or it cannot be read.
    """
    found: list[str] = []
    skipped: list[str] = []
    count = 0
    for name in _files(folder, recursive):
        base = name.rpartition("/")[2]
        suffix = os.path.splitext(base)[1].lower()
        if base.startswith("."):
            continue
        if suffix in READABLE:
            found.append(name)
        elif suffix not in _COMPANIONS:
            count += 1
            skipped = sorted([*skipped, name])[:_NAMED]
    if count:
        told = f"{', '.join(skipped)}{', …' if count > _NAMED else ''}"
        what = "1 file is no picture" if count == 1 else f"{count} files are no pictures"
        warnings.warn(f"{folder}: {what} by name and skipped: {told}", stacklevel=3)
    return sorted(found)


def _files(folder: Path, recursive: bool) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error

    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    for at, folders, names in os.walk(folder, onerror=fail):
        if RESULTS in names:
            folders[:] = []  # of an earlier run: its pictures are edits
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        below = os.path.relpath(at, folder).replace(os.sep, "/")
        for name in names:
            yield name if below == "." else f"{below}/{name}"

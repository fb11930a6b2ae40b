"""Uploads to the page, and files to download from it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from emoedit.io.images import Picture, load_picture, write_atomic
from emoedit.types import ImageError


def read_upload(path: Path, *, max_pixels: int) -> tuple[bytes, Picture]:
    """The bytes and the picture of an upload, which is deleted.

    Args:
        path: path of the upload.
        max_pixels: a larger picture is refused before it is decoded.

    Raises:
        ImageError: the file is no picture, damaged or too large.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"the upload cannot be read: {error.strerror or error}") from error
    finally:
        path.unlink(missing_ok=True)
    return data, replace(load_picture(data, max_pixels=max_pixels), name=path.stem or "photo")


def pack(path: Path, files: Sequence[Path]) -> Path:
    """Pack files into one zip file and delete them.

    Args:
        path: path of the zip file.
        files: paths of the files, which keep their names.
    """

    def write(target: BinaryIO) -> None:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:  # pictures are compressed already
            for file in files:
                packed.write(file, file.name)

    write_atomic(path, write)
    for file in files:
        file.unlink()
    return path

"""A file of results that only grows: a JSON line a cell, written as it is measured."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emoedit.types import DataError, OutputError

Key = tuple[str, str, str, float | None]  # photo, editor, emotion, strength


RENAMED = {  # what older files call these entries
    "identity_by": "identity_backend",
    "perceptual_by": "perceptual_backend",
    "expression_by": "expression_backend",
}


def renamed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """A row or settings of an older version, with the names of this one.

    Args:
        entries: as they were read.
    """
    return {RENAMED.get(key, key): value for key, value in entries.items()}


def key_of(row: Mapping[str, Any]) -> Key:
    """Which cell a row fills.

    Args:
        row: row of results.
    """
    return row["photo"], row["editor"], row["emotion"], row["strength"]


def read_rows(path: Path, end: int | None = None) -> Iterator[dict[str, Any]]:
    """Every row of a file of results, one at a time.

    Args:
        path: path of the file.
        end: only rows that begin before this byte.

    Raises:
        DataError: a line that is not a row of results.
    """
    with path.open("rb") as file:
        read = 0
        for number, line in enumerate(file, 1):
            if end is not None and read >= end:
                return
            read += len(line)
            try:
                row = json.loads(line)
                key_of(row), row["content"], row["error"]
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"{path}: line {number} is no row of results ({error!r}); move the file away to start anew"
                ) from error
            yield renamed(row)


def last_rows(path: Path) -> Iterator[dict[str, Any]]:
    """A row a cell: where an edit failed and was tried again, the last one.

    Memory grows with the number of failures, not with the number of rows.

    Args:
        path: path of ``results.jsonl``.
    """
    last: dict[Key, int] = {}
    for number, row in enumerate(read_rows(path)):
        key = key_of(row)
        if row["error"] is not None or key in last:
            last[key] = number
    for number, row in enumerate(read_rows(path)):
        if last.get(key_of(row), number) == number:
            yield row


class Rows(Collection[dict[str, Any]]):
    """The rows of files of results, read anew each time they are gone through.

    Args:
        paths: paths of the JSON lines, or of one file.
        wanted: the cells; all where None.
    """

    def __init__(self, paths: Path | Sequence[Path], wanted: Container[Key] | None = None) -> None:
        self._paths = [paths] if isinstance(paths, Path) else list(paths)
        self._wanted = wanted

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in self._paths:
            for row in last_rows(path):
                if self._wanted is None or key_of(row) in self._wanted:
                    yield row

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, row: object) -> bool:
        return any(row == other for other in self)


class Results:
    """A file of json lines that only grows. What a killed run left half-written at its end is cut off.

    Args:
        path: created if need be.

    Attributes:
        rows: how many there were when it was opened.

    Raises:
        DataError: a line that is not a row of results.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            self._whole = 0
            with path.open("rb") as file:
                for line in file:
                    self._whole += len(line) if line.endswith(b"\n") else 0
            self._file.truncate(self._whole)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        self.rows = sum(1 for _ in read_rows(path))

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self._file.close()
        except OSError as error:  # tries again to write what could not be written, which was told then
            if raised[0] is None:
                raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def found(self, photos: Container[str] | None = None, *, retry: bool = False) -> dict[Key, str]:
        """The cells that had a row when the file was opened.

        Args:
            photos: only cells of these, so that memory need not grow with the file.
            retry: leave out the cells whose last row is an error.

        Returns:
            Cell -> the ``content`` of the files it was made from.
        """
        done: dict[Key, str] = {}
        for row in read_rows(self.path, self._whole):
            if photos is None or row["photo"] in photos:
                if retry and row["error"] is not None:
                    done.pop(key_of(row), None)
                else:
                    done[key_of(row)] = row["content"]
        return done

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows to the end of the file and to the disk.

        Args:
            rows: one dict each.

        Raises:
            OutputError: they could not be written.
        """
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        try:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from error

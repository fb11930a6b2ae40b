"""A data set in equal parts, and a folder of photographs that is larger than memory."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from emoedit.emotions import canonical
from emoedit.evaluation.cases import Case, read_cases
from emoedit.io.folders import picture_names
from emoedit.types import DataError, UnknownNameError

S = TypeVar("S", bound=Sequence[Any])


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th thing from ``index`` on. All shards of one count together are the whole, nothing twice.

    Args:
        index: 0 to ``count`` - 1.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise DataError(f"there is no shard {self}; of {self.count}, the last is {self.count - 1}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"0/8"``: the first of eight.

        Args:
            text: ``INDEX/COUNT``.

        Raises:
            DataError: another form, or no such shard.
        """
        if not isinstance(text, str) or not re.fullmatch(r"\d{1,9}/\d{1,9}", text, re.ASCII):
            raise DataError(f"a shard is INDEX/COUNT, such as 0/8, the first of eight; not {text!r}")
        return cls(*map(int, text.split("/")))

    def of(self, things: S) -> S:
        """This shard's part.

        Args:
            things: all of them.
        """
        return things[self.index :: self.count]  # type: ignore[return-value]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Photographs(Sequence[Case]):
    """The pictures of a folder as cases that are made when they are asked for: what is kept is their names.

    Args:
        folder: path of their folder.
        names: names of files.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder, self._names = folder, names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> Photographs: ...
    def __getitem__(self, index: int | slice) -> Case | Photographs:
        if isinstance(index, slice):
            return Photographs(self._folder, self._names[index])
        name = self._names[index]
        return Case(self._folder / name, name, name)


def open_cases(
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    shard: Shard | None = None,
    reader: str | None = None,
) -> Sequence[Case]:
    """The photographs of a folder, as ``emoedit.evaluation.cases.read_cases`` finds them, in its order.

    Args:
        folder: path of the folder.
        split: only pictures of this split, where the folder says so.
        limit: only the first so many, of the whole folder.
        shard: which part of those; all where None. A shard may be empty where there are few.
        reader: name of a registered data reader; default: the layouts of folders.

    Raises:
        DataError: no such folder (the message holds the nearest names), or whatever ``read_cases`` meets.
    """
    folder = Path(folder).expanduser()
    if reader is not None:
        return (shard or Shard()).of(read_cases(folder, split=split, reader=reader)[:limit])
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        near = get_close_matches(folder.name, beside, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise DataError(f"{folder}: no such folder{hint}")
    with os.scandir(folder) as entries:
        plain = all(
            entry.name != "labels.csv" and not (entry.is_dir() and _is_neutral(entry.name)) for entry in entries
        )
    names = picture_names(folder) if plain and split is None else []
    if names:
        cases: Sequence[Case] = Photographs(folder, names)
    else:
        cases = read_cases(folder, split=split)
    return (shard or Shard()).of(cases[:limit])


def _is_neutral(name: str) -> bool:
    try:
        return canonical(name) == "neutral"
    except UnknownNameError:
        return False

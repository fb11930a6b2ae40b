"""Photographs to evaluate editors on: the person, and a true photograph of the same emotion, if there is one."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emoedit.emotions import canonical
from emoedit.io.folders import find_pictures
from emoedit.registry import READERS
from emoedit.types import DataError, UnknownNameError


@dataclass(frozen=True)
class Case:
    """One photograph to edit.

    Args:
        photo: its path.
        name: unique in the set.
        person: name of the person; intervals are over people.
        truth: emotion -> a photograph of the same person really showing it.
        info: what else is known, by column name (age, gender, ...).
    """

    photo: Path
    name: str
    person: str
    truth: Mapping[str, Path] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)


def _rows(path: Path, *required: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            missing = [name for name in required if name not in (reader.fieldnames or ())]
            if missing:
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise DataError(f"{path}: no column {', '.join(missing)}; found {found}")
            return [{name: cell for name, cell in row.items() if name} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a csv in UTF-8: {error}") from error


def read_cases(
    folder: str | os.PathLike[str], *, split: str | None = None, source: str = "neutral", reader: str | None = None
) -> list[Case]:
    """The photographs of a folder.

    Three layouts:

    - *pairs*: folders named after emotions that hold the same file names (``neutral/001.jpg``, ``smiling/001.jpg``);
      those of ``source`` are edited, the others are the truth. An ``info.csv`` with ``face_id`` may add columns.
    - *labels*: a ``labels.csv`` with columns ``image``, ``emotion`` and, where known, ``person`` and ``split``; the
      pictures of emotion ``source`` are edited.
    - *plain*: pictures, those in folders below included, each of another person.

    Args:
        folder: path of the folder.
        split: only rows whose ``split`` is this, where a csv says so.
        source: emotion of the photographs to edit, in the first two layouts.
        reader: name of a registered data reader (``emoedit.registry.READERS``), which reads ``folder`` in place of
            these layouts.

    Raises:
        UnknownNameError: no such reader.
        DataError: no such folder, nothing to edit in it, a csv without its columns, no csv to choose a split by, or two
            folders of one emotion.
    """
    folder = Path(folder).expanduser()
    if reader is not None:
        return _sampled(folder, reader, split, canonical(source))
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if (folder / "labels.csv").is_file():
        cases = _labelled(folder, split, canonical(source))
    else:
        emotions: dict[str, Path] = {}
        for path in sorted(p for p in folder.iterdir() if p.is_dir()):
            try:
                emotion = canonical(path.name)
            except UnknownNameError:
                continue  # a folder that is no emotion's, such as one of results
            if emotion in emotions:
                raise DataError(f"{emotions[emotion]} and {path} are folders of one emotion, {emotion}; join them")
            emotions[emotion] = path
        if emotions.get(canonical(source)):
            cases = _pairs(folder, emotions, split, canonical(source))
        elif split is not None:
            raise DataError(f"{folder}: there is no csv that says which pictures belong to split {split!r}")
        else:
            cases = [_plain(path, folder) for path in find_pictures(folder)]
    if not cases:
        raise DataError(f"{folder}: no picture to edit there (layouts: neutral/ and smiling/, labels.csv, or pictures)")
    return cases


def _sampled(path: Path, reader: str, split: str | None, source: str) -> list[Case]:
    """Cases from a data reader; other emotions of the same person are the truth."""
    samples = [s for s in READERS.get(reader)(path) if split is None or s.split == split]
    truths: dict[str, dict[str, Path]] = {}
    cases = []
    for sample in samples:
        if not isinstance(sample.picture, Path):
            raise DataError(f"the data reader {reader!r} gives pixels; photographs to edit are files")
        person = sample.person or sample.name
        truth = truths.setdefault(person, {})
        if sample.emotion == source:
            cases.append(Case(sample.picture, sample.name, person, truth, {"split": sample.split or ""}))
        else:
            truth.setdefault(sample.emotion, sample.picture)
    if not cases:
        raise DataError(f"{path}: the data reader {reader!r} finds no {source} picture to edit there")
    return cases


def _plain(path: Path, folder: Path) -> Case:
    """A picture of a person of its own; one in a folder below is named with that folder."""
    name = path.relative_to(folder).as_posix()
    return Case(path, name, name)


def _pairs(folder: Path, emotions: Mapping[str, Path], split: str | None, source: str) -> list[Case]:
    info: dict[str, dict[str, str]] = {}
    if (folder / "info.csv").is_file():
        info = {row.pop("face_id"): row for row in _rows(folder / "info.csv", "face_id")}
    if split is not None and not any("split" in row for row in info.values()):
        raise DataError(f"{folder}: info.csv with a column split is needed to choose split {split!r}")
    truths = {name: {p.stem: p for p in find_pictures(path)} for name, path in emotions.items() if name != source}
    cases = []
    for photo in find_pictures(emotions[source]):
        row = dict(info.get(photo.stem, {}))
        if split is not None and row.get("split") != split:
            continue
        truth = {name: files[photo.stem] for name, files in truths.items() if photo.stem in files}
        cases.append(Case(photo, photo.name, photo.stem, truth, row))
    return cases


def _labelled(folder: Path, split: str | None, source: str) -> list[Case]:
    path = folder / "labels.csv"
    rows = _rows(path, "image", "emotion", *(["split"] if split is not None else []))
    images = folder / "images" if (folder / "images").is_dir() else folder
    cases = []
    for row in rows:
        try:
            emotion = canonical(row["emotion"])
        except UnknownNameError as error:
            raise DataError(f"{path}: {error}") from error
        if emotion != source or (split is not None and row["split"] != split):
            continue
        photo = images / row["image"]
        if not photo.is_file():
            raise DataError(f"{path}: {photo} is not there")
        info = {k: v for k, v in row.items() if k not in ("image", "emotion", "person")}
        cases.append(Case(photo, row["image"], row.get("person") or row["image"], {}, info))
    return cases

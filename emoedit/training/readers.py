"""Picture collections, as their authors ship them, read into one list of ``Sample``.

Layouts: a folder with a labels csv, a folder a class, FER-2013's own csv and the FER+ votes beside its pictures
(``emoedit.training.votes``), CelebA's attribute file, pairs of the same people, faces without an emotion label.
"""

from __future__ import annotations

import csv
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emoedit.emotions import canonical
from emoedit.io.folders import find_pictures
from emoedit.registry import READERS
from emoedit.types import DataError, UnknownNameError

FER_LABELS = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")  # FER-2013's own order, 0 to 6


GROUPS = ("white", "black", "asian", "indian", "other")  # UTKFace's codes, 0 to 4


@dataclass(frozen=True)
class Sample:
    """One picture and what is known of it.

    Args:
        picture: a path, or the pixels themselves (uint8 ``[H, W]`` or ``[H, W, 3]``).
        emotion: canonical name; empty without a label.
        person: who it shows, None where the data set does not say.
        name: unique inside its data set.
        split: the data set's own split, None where it has none.
        votes: number of votes for each of ``emoedit.training.votes.VOTED``; None without votes.
        traits: ``group``, ``age`` and ``gender`` as the data set says them, as far as it does.
    """

    picture: Path | np.ndarray
    emotion: str
    name: str
    person: str | None = None
    split: str | None = None
    votes: tuple[int, ...] | None = None
    traits: Mapping[str, str] = field(default_factory=dict)


def _emotion(label: str, where: str) -> str:
    try:
        return canonical(label)
    except UnknownNameError as error:
        raise DataError(f"{where}: {error}") from error


def read_rows(path: Path, *required: str) -> list[dict[str, str]]:
    """Rows of a csv file with a header.

    Args:
        path: path of the file.
        *required: names of columns that have to be there.

    Raises:
        DataError: no such file, a column that is missing, a row that lacks one of the required columns.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in required if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path}: no column {', '.join(missing)}; found {', '.join(reader.fieldnames or ()) or 'nothing'}"
            )
        rows = list(reader)
    short = next((i for i, row in enumerate(rows) if any(row[name] is None for name in required)), None)
    if short is not None:
        raise DataError(f"{path}: row {short + 2} has fewer fields than the header")
    return rows


def limited(samples: Sequence[Sample], at_most: Mapping[str, int]) -> list[Sample]:
    """No more pictures of an emotion than asked for, chosen by a fixed seed and kept in their order.

    Args:
        samples: samples of any emotions.
        at_most: emotion -> the most pictures of it; all of those that are not named.
    """
    rng, kept = np.random.default_rng(0), np.ones(len(samples), bool)
    for name in sorted(at_most):
        places = np.array([n for n, sample in enumerate(samples) if sample.emotion == name], int)
        kept[rng.permutation(places)[at_most[name] :]] = False
    return [sample for sample, keep in zip(samples, kept, strict=True) if keep]


def read_labels_csv(
    csv_path: str | Path, images: str | Path | None = None, *, at_most: Mapping[str, int] | None = None
) -> list[Sample]:
    """A csv with columns ``image`` and ``emotion``, and ``person`` and ``split`` if known.

    Args:
        csv_path: the csv.
        at_most: emotion -> the most pictures of it (``limited``).
        images: the folder the names are relative to; default: ``images`` beside the csv if it is there, else beside it.

    Raises:
        DataError: no such file, no such column, an unknown emotion, a picture that is not there.
    """
    csv_path = Path(csv_path)
    rows = read_rows(csv_path, "image", "emotion")
    beside = csv_path.parent / "images"
    root = Path(images) if images is not None else beside if beside.is_dir() else csv_path.parent
    samples = []
    for row in rows:
        picture = root / row["image"]
        if not picture.is_file():
            raise DataError(f"{csv_path}: {picture} is not there")
        emotion = _emotion(row["emotion"], str(csv_path))
        samples.append(Sample(picture, emotion, row["image"], row.get("person") or None, row.get("split") or None))
    return limited(samples, at_most or {})


def read_class_folders(root: str | Path) -> list[Sample]:
    """A folder a class: ``root/happy/*.jpg``, ``root/sad/*.png`` and so on; folder names are emotions or aliases.

    Raises:
        DataError: no such folder, a folder whose name is no emotion, no picture at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    samples = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        emotion = _emotion(folder.name, str(root))
        files = find_pictures(folder, recursive=False)
        samples += [Sample(path, emotion, f"{folder.name}/{path.name}") for path in files]
    if not samples:
        raise DataError(f"{root}: no picture in any folder; expected {root.name}/EMOTION/*.jpg")
    return samples


def read_fer_csv(path: str | Path) -> list[Sample]:
    """FER-2013's ``fer2013.csv``: columns ``emotion`` (0 to 6), ``pixels`` (2304 grey values), ``Usage``.

    Args:
        path: path of the file.

    Raises:
        DataError: a file or column is missing, or a row is damaged.
    """
    path = Path(path)
    samples = []
    splits = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
    for number, row in enumerate(read_rows(path, "emotion", "pixels", "Usage")):
        where = f"{path}: row {number + 2}"
        try:
            emotion = FER_LABELS[int(row["emotion"])] if int(row["emotion"]) >= 0 else None
            pixels = np.array(row["pixels"].split(), dtype=np.int64)
        except (ValueError, IndexError, OverflowError):
            raise DataError(f"{where}: emotion must be 0 to 6 and pixels whole numbers") from None
        if emotion is None or pixels.shape != (48 * 48,) or pixels.min() < 0 or pixels.max() > 255:
            raise DataError(f"{where}: expected 2304 values from 0 to 255 and an emotion from 0 to 6")
        if row["Usage"] not in splits:
            raise DataError(f"{where}: Usage is {row['Usage']!r}, expected one of {', '.join(splits)}")
        picture = pixels.astype(np.uint8).reshape(48, 48)
        samples.append(Sample(picture, emotion, f"{number:05d}", None, splits[row["Usage"]]))
    return samples


def read_celeba(root: str | Path) -> list[Sample]:
    """CelebA: ``list_attr_celeba.txt`` and ``img_align_celeba/`` (or ``img_celeba/``).

    The ``Smiling`` attribute becomes happy or neutral; ``identity_CelebA.txt``, if present, gives the person.

    Args:
        root: folder of the data set.

    Raises:
        DataError: a file or column is missing, or a row is damaged.
    """
    root = Path(root)
    attributes = root / "list_attr_celeba.txt"
    folder = next((root / n for n in ("img_align_celeba", "img_celeba") if (root / n).is_dir()), None)
    if not attributes.is_file() or folder is None:
        raise DataError(f"{root}: expected list_attr_celeba.txt and img_align_celeba/ there")
    lines = attributes.read_text("utf-8").splitlines()
    names = lines[1].split() if len(lines) > 1 else []
    if "Smiling" not in names:
        raise DataError(f"{attributes}: the second line names no attribute 'Smiling'")
    column = names.index("Smiling") + 1
    identity = root / "identity_CelebA.txt"
    pairs = identity.read_text("utf-8").splitlines() if identity.is_file() else []
    persons = dict(line.split()[:2] for line in pairs)
    samples = []
    for number, line in enumerate(lines[2:], 3):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != len(names) + 1 or fields[column] not in ("1", "-1"):
            raise DataError(f"{attributes}: line {number} does not hold {len(names)} attributes of 1 or -1")
        emotion = "happy" if fields[column] == "1" else "neutral"
        samples.append(Sample(folder / fields[0], emotion, fields[0], persons.get(fields[0])))
    return samples


def read_pairs(root: str | Path) -> list[Sample]:
    """Pairs of the same people: ``neutral/NNN.*`` and ``smiling/NNN.*`` (any emotion names), and ``info.csv``.

    ``info.csv`` has columns ``face_id`` and ``split``; ``face_age``, ``face_gender`` and ``face_eth``, if present,
    become traits.

    Args:
        root: folder of the data set.

    Raises:
        DataError: a file or column is missing, or a row is damaged.
    """
    root = Path(root)
    rows = read_rows(root / "info.csv", "face_id", "split")
    splits = {row["face_id"]: row["split"] for row in rows}
    columns = {"group": "face_eth", "age": "face_age", "gender": "face_gender"}
    traits = {
        row["face_id"]: {name: row[column] for name, column in columns.items() if row.get(column)} for row in rows
    }
    samples = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        emotion = _emotion(folder.name, str(root))
        for path in find_pictures(folder, recursive=False):
            if path.stem not in splits:
                raise DataError(f"{root / 'info.csv'}: no row for {path.stem}")
            name, person = f"{folder.name}/{path.name}", path.stem
            samples.append(Sample(path, emotion, name, person, splits[person], traits=traits[person]))
    if not samples:
        raise DataError(f"{root}: no pictures in folders named after emotions")
    return samples


def read_faces(root: str | Path, *, youngest: int = 18, at_most: int | None = None) -> list[Sample]:
    """Faces without emotion labels: ``images/`` and ``info.csv``.

    ``info.csv`` has columns ``image``, ``age``, ``gender`` and ``group`` (UTKFace's codes, 0 to 4: ``GROUPS``).

    Args:
        root: the folder.
        youngest: people of a lower age are left out.
        at_most: largest number of pictures, chosen by a fixed seed; None for all.

    Raises:
        DataError: no such file or column, an age that is no whole number, a group that is no code, a picture that is
            not there, no face of that age.
    """
    root = Path(root)
    samples = []
    for number, row in enumerate(read_rows(root / "info.csv", "image", "age", "gender", "group"), 2):
        where, picture = f"{root / 'info.csv'}: row {number}", root / "images" / row["image"]
        if not row["age"].isdecimal() or row["group"] not in map(str, range(len(GROUPS))):
            raise DataError(
                f"{where}: age {row['age']!r} and group {row['group']!r}; expected a whole number and 0 to "
                f"{len(GROUPS) - 1}"
            )
        if int(row["age"]) < youngest:
            continue
        if not picture.is_file():
            raise DataError(f"{where}: {picture} is not there")
        traits = {"group": GROUPS[int(row["group"])], "age": row["age"], "gender": row["gender"]}
        samples.append(Sample(picture, "", row["image"], traits=traits))
    if not samples:
        raise DataError(f"{root / 'info.csv'}: no face of {youngest} or older")
    chosen = np.random.default_rng(0).permutation(len(samples))[:at_most]
    return [samples[n] for n in np.sort(chosen)]


def read(reader: str, path: str | Path, **options: Any) -> list[Sample]:
    """Samples by the reader's name.

    Args:
        reader: a name of ``emoedit.registry.READERS``.
        path: what it reads.
        options: the reader's own keyword arguments.

    Raises:
        UnknownNameError: no such reader.
        DataError: options that the reader does not have; whatever the reader meets.
    """
    function = READERS.get(reader)
    try:
        inspect.signature(function).bind(path, **options)
    except TypeError as error:
        raise DataError(f"reader {reader!r} with options {', '.join(options)}: {error}") from error
    return list(function(Path(path), **options))


def read_landmarks68(path: str | Path) -> dict[str, np.ndarray]:
    """A csv without header: picture, box (4), five points (10), 68 points (136), in pixels of the picture.

    Args:
        path: path of the file.

    Returns:
        Picture name -> ``[68, 2]``.

    Raises:
        DataError: no such file; a row that is no name and 150 numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    found = {}
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, row in enumerate(csv.reader(file), 1):
            try:
                values = np.array(row[1:], np.float64)
            except ValueError:
                values = np.empty(0)
            if values.shape != (150,) or not np.isfinite(values).all():
                raise DataError(f"{path}: line {number} is no picture name and 150 numbers")
            found[row[0]] = values[14:].reshape(68, 2)
    return found

"""Votes of several people on a picture as distributions: FER+ (Barsoum et al. 2016, arXiv 1608.01041)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emoedit.emotions import BASIC
from emoedit.training.readers import Sample, read_rows
from emoedit.types import DataError

VOTED = (*BASIC, "other")  # what is counted; "other" is contempt, "unknown" and "not a face" together
FERPLUS = (
    "neutral",
    "happiness",
    "sadness",
    "anger",
    "surprise",
    "fear",
    "disgust",
)  # its columns, in the order of BASIC
FERPLUS_OTHER = ("contempt", "unknown", "NF")
# Folder names of FER-2013, in the order of BASIC. Its labels and the votes agree on 63 % of the pictures; votes that
# belong to other pictures would agree on 18 %.
FOLDERS = ("neutral", "happy", "sad", "angry", "surprise", "fear", "disgust")
LEAST_SHARED = 1 / 3


def read_ferplus(
    path: str | Path, *, agreement: float | Mapping[str, float] = 0.0, at_most: Mapping[str, int] | None = None
) -> list[Sample]:
    """FER-2013's pictures with the votes of FER+.

    A csv with a column ``image`` (``EMOTION/NAME``, beside the csv) and one for each answer that people could give.

    Args:
        path: the csv.
        agreement: share of the votes that the most frequent emotion has at least, 0 to 1; or one for each emotion, with
            ``default`` for those that are not named.
        at_most: emotion -> the most pictures of it, chosen by a fixed seed.

    Returns:
        The pictures whose most frequent answer is an emotion, labelled with it; the first in the order of
        ``emoedit.emotions.BASIC`` where two are as frequent.

    Raises:
        DataError: no such file or column; votes that are no whole numbers from 0 on, or none at all; a picture that is
            not there or has two rows; votes that belong to other pictures; no picture with so much agreement.
    """
    path = Path(path)
    rows = read_rows(path, "image", *FERPLUS, *FERPLUS_OTHER)
    counted = np.array([_counts(row, f"{path}: row {number}") for number, row in enumerate(rows, 2)], int)
    _check_fit(path, [row["image"] for row in rows], counted)
    limits = dict(agreement) if isinstance(agreement, Mapping) else {"default": agreement}
    chosen: dict[str, list[Sample]] = {}
    for row, votes in zip(rows, counted, strict=True):
        k = int(votes[: len(BASIC)].argmax())
        least = limits.get(BASIC[k], limits.get("default", 0.0))
        if votes[k] < max(votes[-1], 1) or votes[k] < least * votes.sum() - 1e-9:
            continue
        sample = Sample(path.parent / row["image"], BASIC[k], row["image"], votes=tuple(map(int, votes)))
        chosen.setdefault(BASIC[k], []).append(sample)
    if not chosen:
        raise DataError(f"{path}: on no picture do so many people agree ({limits})")
    rng = np.random.default_rng(0)
    kept = []
    for name, samples in chosen.items():
        most = (at_most or {}).get(name, len(samples))
        kept += [samples[i] for i in np.sort(rng.permutation(len(samples))[:most])]
    return kept


def _counts(row: Mapping[str, str], where: str) -> list[int]:
    """Votes for each of ``VOTED``."""
    values = [row[name] for name in (*FERPLUS, *FERPLUS_OTHER)]
    if not all(value.isdecimal() for value in values) or not any(map(int, values)):
        raise DataError(f"{where}: votes are whole numbers from 0 on, at least one of them; found {', '.join(values)}")
    numbers = list(map(int, values))
    return [*numbers[: len(FERPLUS)], sum(numbers[len(FERPLUS) :])]


def _check_fit(path: Path, images: Sequence[str], counted: np.ndarray) -> None:
    """Raises DataError for votes that do not belong to the pictures beside them."""
    if not images:
        raise DataError(f"{path}: no row")
    if len(set(images)) < len(images):
        twice = next(name for number, name in enumerate(images) if name in images[:number])
        raise DataError(f"{path}: {twice} has two rows")
    if missing := [name for name in images if not (path.parent / name).is_file()]:
        raise DataError(
            f"{path}: {len(missing)} of {len(images)} pictures are not there, the first {missing[0]}; the votes belong "
            "to another copy of the data set"
        )
    labelled = [(FOLDERS.index(name.split("/")[0]), k) for name, k in zip(images, counted.argmax(1), strict=True)
                if name.split("/")[0] in FOLDERS]  # fmt: skip
    shared = np.mean([a == b for a, b in labelled]) if labelled else 1.0
    if len(labelled) >= 50 and shared < LEAST_SHARED:
        raise DataError(
            f"{path}: votes and folders agree on {shared:.0%} of the pictures, where FER+ agrees on 63 %: the votes "
            "belong to other pictures"
        )


def distribution(votes: Sequence[float]) -> np.ndarray:
    """Shares of the emotions ``[7]`` (``emoedit.emotions.BASIC``), with sum 1; zeros where nothing is left.

    An emotion that a single person of several saw is left out, as Barsoum et al. do; ``other`` is too.

    Args:
        votes: number of votes for each of ``VOTED``.
    """
    counts = np.array(votes[: len(BASIC)], float)
    if sum(votes) > 1:
        counts[counts <= 1] = 0
    return counts / max(counts.sum(), 1.0)


def agreement(votes: Sequence[float]) -> float:
    """Share of the votes that the most frequent emotion has, 0 to 1.

    Args:
        votes: one number an emotion.
    """
    return float(max(votes[: len(BASIC)]) / max(sum(votes), 1))

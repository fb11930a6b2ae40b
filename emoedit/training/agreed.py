"""Pictures on whose emotion most voters agree, for emotions whose labels in the data are mostly wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emoedit.nn.measuring import MeasuringNetwork
from emoedit.training.data import CropSet
from emoedit.training.matching import mouth_opening
from emoedit.training.votes import agreement
from emoedit.types import DataError

TRAINED_ON = ("train", "fit")  # splits


def pick_agreed(
    crops: CropSet,
    emotion: str,
    landmarks: MeasuringNetwork,
    *,
    least: float,
    closed: float,
    count: int,
    named: Sequence[str] = (),
) -> np.ndarray:
    """Training pictures in which most voters see the emotion.

    Args:
        crops: prepared crops, with votes.
        emotion: its canonical name.
        landmarks: network with the head ``points``.
        least: smallest share of votes for the emotion, 0 to 1.
        closed: largest opening of the lips, in eye distances.
        count: largest number of pictures: those on which most people agree, the first ones where equally many do.
        named: names of pictures that were chosen by eye; if given, only these are candidates.

    Returns:
        ``[at most count]`` positions of crops, ascending.

    Raises:
        DataError: a name in ``named`` is not among the agreed pictures, or no picture is left.
    """
    found, shares = [], []
    labelled = (crops.column("emotion") == emotion) & np.isin(crops.column("split"), TRAINED_ON)
    for position in np.flatnonzero(labelled):
        votes = [int(value) for value in (crops.rows[position].get("votes") or "").split()]
        share = agreement(votes) if votes else 0.0
        if votes and share >= least - 1e-9:
            found.append(position)
            shares.append(share)
    positions, agreed = np.array(found, int), np.array(shares)
    if len(positions):
        shut = mouth_opening(landmarks, crops, positions) <= closed
        positions, agreed = positions[shut], agreed[shut]
    if named:
        names = crops.column("name")[positions]
        if lacking := sorted(set(named) - set(names.tolist())):
            raise DataError(
                f"{', '.join(lacking[:4])}: no training pictures in which {least:.0%} of those who voted see "
                f"{emotion!r} with closed lips; prepare the data with votes, or leave the names out"
            )
        chosen = np.isin(names, named)
        positions, agreed = positions[chosen], agreed[chosen]
    if not len(positions):
        raise DataError(
            f"no training picture in which {least:.0%} of those who voted see {emotion!r} with closed lips: prepare a "
            "data set with votes (reader ferplus), or leave the emotion out of tokens.voted"
        )
    return np.sort(positions[np.argsort(-agreed, kind="stable")][:count])

"""Pictures that people agree on, for emotions of which the labels of the data are mostly wrong."""

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
    """Which training pictures people see an emotion in, for emotions of which the data's own labels are mostly wrong.

    Args:
        crops: prepared crops, with votes.
        emotion: its canonical name.
        landmarks: a network with the head ``points``.
        least: share of the votes that the emotion has at least, 0 to 1.
        closed: how far lips are apart at most, in eye distances.
        count: so many at most, those on which most people agree; the first ones where as many do.
        named: names of pictures that were chosen by eye; among no others is chosen then.

    Returns:
        ``[at most count]`` positions of crops, ascending.

    Raises:
        DataError: a name that is none of these pictures, or no picture at all.
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

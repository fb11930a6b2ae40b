"""Recipes on data sets of one's own: configurations name the sets that this package's models are fitted on.

Settings of sets that are not prepared are applied to those that are, with a message;
[emoedit.training.data.available_weights][] does the same for shares of batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emoedit.training.data import CropSet, available_weights

SAMPLES = "samples"  # in `trust`: a generator's own pictures, which no data set holds
COUNTS = ("sources", "shown", "neutral")  # pictures of each data set


def pictures_of(crops: CropSet, counts: Mapping[str, int], what: str) -> dict[str, int]:
    """How many pictures of each data set are taken, for those that are prepared.

    Args:
        crops: prepared crops.
        counts: data set name -> how many.
        what: the name of ``counts`` in the configuration.

    Returns:
        The counts of sets that are there; where none of them is, all that are there in equal parts, as many in all.
    """
    there = sorted(set(crops.column("data").tolist()))
    found = {name: int(count) for name, count in counts.items() if name in there}
    gone = [name for name in counts if name not in there]
    if gone and not found:
        found = dict.fromkeys(there, -(-sum(counts.values()) // len(there)))
    if gone:
        told = ", ".join(f"{count} of {name}" for name, count in found.items())
        print(f"{what}: no pictures of {', '.join(gone)} are prepared; taken instead: {told}", flush=True)
    return found


def with_own_data(crops: CropSet, how: Mapping[str, Any], what: str = "steering") -> dict[str, Any]:
    """What a configuration says of a fit, for the data sets that are prepared.

    Args:
        crops: prepared crops.
        how: of it ``trust``, ``sources``, ``shown``, ``neutral``, ``unlabelled`` and ``voted`` are read, if they are
            there.
        what: the name of ``how`` in the configuration.

    Returns:
        A copy with these changed.

    Raises:
        DataError: a number that makes no sense.
    """
    found = dict(how)
    if "trust" in how:
        samples = {name: value for name, value in how["trust"].items() if name == SAMPLES}
        sets = {name: value for name, value in how["trust"].items() if name != SAMPLES}
        found["trust"] = samples | (available_weights(crops, sets, f"{what}.trust") if sets else {})
    for name in COUNTS:
        if isinstance(how.get(name), Mapping):  # `neutral` is a switch elsewhere
            found[name] = pictures_of(crops, how[name], f"{what}.{name}")
    if "unlabelled" in how:
        there = set(crops.column("data").tolist())
        found["unlabelled"] = {name: count for name, count in how["unlabelled"].items() if name in there}
    if how.get("voted") and not any(row.get("votes") for row in crops.rows):
        print(f"{what}.voted: nobody voted on these pictures; their labels count as they are", flush=True)
        found["voted"] = []
    return found

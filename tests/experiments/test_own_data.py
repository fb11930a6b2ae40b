"""Recipes on data sets that no configuration names: nothing in them asks for a set that is not there."""

from __future__ import annotations

from typing import Any

import pytest

from emoedit.training.data import CropSet
from lib.own_data import pictures_of, with_own_data
from tests.fixtures.configs import composed

THEIRS = {"london", "wild", "fer2013", "everyday"}  # that this package's models are fitted on


class Crops(CropSet):
    """The index of prepared crops, without the crops."""

    def __init__(self, sets: list[str], votes: str = "") -> None:
        self.rows = [{"data": name, "split": "train", "emotion": "happy", "votes": votes} for name in sets]


def named(value: Any) -> set[str]:
    """Names of data sets anywhere in a configuration."""
    if not isinstance(value, dict):
        return set(value) & THEIRS if isinstance(value, list) else set()
    return {name for name in value if name in THEIRS} | {name for part in value.values() for name in named(part)}


def test_counts_of_sets_that_are_there_stay_and_the_total_goes_to_the_others(capsys):
    counts = {"wild": 160, "london": 32}
    assert pictures_of(Crops(["wild", "london", "mine"]), counts, "x") == counts
    assert capsys.readouterr().out == ""
    assert pictures_of(Crops(["london", "mine"]), counts, "x") == {"london": 32}
    assert pictures_of(Crops(["mine", "yours"]), counts, "steering.sources") == {"mine": 96, "yours": 96}
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("steering.sources: no pictures of wild, london are prepared; taken instead: 96 of mine")


@pytest.mark.parametrize(
    ("config", "where"), [("train_asyrp", ()), ("train_stylegan", ()), ("train_stylegan", ("finetune",))]
)
def test_a_recipe_asks_for_nothing_that_is_not_there(config, where):
    how = composed(config)["steering"]
    for part in where:
        how = how[part]
    found = with_own_data(Crops(["mine"]), how)
    read = {name: found[name] for name in ("trust", "sources", "shown", "neutral", "unlabelled") if name in found}
    assert read and named(how) and not named(read)
    assert {name for part in read.values() if isinstance(part, dict) for name in part} <= {"mine", "samples"}
    assert with_own_data(Crops(sorted(THEIRS), "0 1"), how) == how  # and what is there stays as it was


def test_labels_count_where_nobody_voted(capsys):
    how = {"voted": ["sad"], "trust": {"mine": 2.0, "samples": 0.5}}
    assert with_own_data(Crops(["mine"]), how)["voted"] == [] and "nobody voted" in capsys.readouterr().out
    assert with_own_data(Crops(["mine"], "1 2"), how) == how

"""Training on a data set that no configuration names, and one that is small."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoedit.training.data import CropSet, MixtureBatches, available_weights
from emoedit.training.prepare import _drawn, _on_both_sides, prepare
from emoedit.training.readers import Sample
from emoedit.types import CropSpec, DataError

SHARES = {"wild": 0.6, "fer2013": 0.4}  # as configs/trainer/vae.yaml


def crop_set(folder: Path, rows: list[tuple[str, str]]) -> CropSet:
    """Crops of 8 pixels, of data sets and splits."""
    np.save(folder / "crops.npy", np.zeros((len(rows), 8, 8, 3), np.uint8))
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("data", "split", "emotion"), *((*row, "happy") for row in rows)])
    return CropSet(folder)


def test_data_sets_that_no_configuration_names_have_equal_shares_and_a_line_says_so(tmp_path, capsys):
    crops = crop_set(tmp_path, [("mine", "train")] * 3 + [("yours", "train")])
    found = available_weights(crops, SHARES)
    assert found == {"mine": 1.0, "yours": 1.0}
    said = capsys.readouterr().out
    assert said == ("trainer.shares: no pictures of wild, fer2013 are prepared; taken instead: mine 50%, yours 50%\n")
    batches = MixtureBatches(crops, found, batch_size=400, resolution=8, split="train", seed=0)
    assert np.mean(batches.draw(0)[0] == 3) == pytest.approx(0.5, abs=0.1)


def test_named_data_sets_keep_their_shares(tmp_path, capsys):
    crops = crop_set(tmp_path, [("wild", "train"), ("fer2013", "train"), ("mine", "train")])
    assert available_weights(crops, SHARES) == SHARES
    assert available_weights(crops, {**SHARES, "wild": 0}) == {"fer2013": 0.4}
    assert capsys.readouterr().out == ""
    assert available_weights(crops, {"mine": 2, "london": 1}, "steering.trust") == {"mine": 2.0}
    assert capsys.readouterr().out.startswith("steering.trust: no pictures of london are prepared; taken instead: mine")
    for wrong, match in (({"mine": -1}, "mine counts is 0 or more"), ({"mine": 0}, "more than 0"), ({}, "more than 0")):
        with pytest.raises(DataError, match=match):
            available_weights(crops, wrong)


def test_an_empty_split_says_what_is_there_and_what_is_needed(tmp_path):
    crops = crop_set(tmp_path, [("mine", "train")] * 3)
    with pytest.raises(DataError, match=r"no crop of mine in split valid; there are mine train: 3\. Add pictures"):
        MixtureBatches(crops, {"mine": 1}, batch_size=2, resolution=8, split="valid", seed=0)


@pytest.mark.parametrize("count", [2, 3, 12, 40])
@pytest.mark.parametrize("side", ["train", "valid"])
def test_a_small_data_set_is_on_both_sides_and_nobody_is_divided(count, side):
    units = [str(n // 2) for n in range(2 * count)]  # two pictures of each person
    rows = [{"split": side} for _ in units]
    _on_both_sides("mine", rows, units)
    moved = {unit for row, unit in zip(rows, units, strict=True) if row["split"] != side}
    assert len(moved) == 1 and sum(row["split"] != side for row in rows) == 2
    extreme = min if side == "train" else max
    assert moved == {extreme(set(units), key=lambda unit: _drawn("mine", unit))}


def test_one_person_is_not_divided():
    rows = [{"split": "train"}, {"split": "train"}]
    _on_both_sides("mine", rows, ["ann", "ann"])
    assert rows == [{"split": "train"}] * 2


def test_twelve_photographs_leave_some_for_validation(tmp_path, astronaut):
    samples, split = [], []
    for n in range(12):
        picture = Image.fromarray(np.ascontiguousarray(np.roll(astronaut[0:260, 90:350], 4 * n, 1)))
        samples.append(Sample(np.asarray(picture), "happy", f"{n}.png"))
        split.append(
            Sample(np.asarray(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), "happy", f"{n}", None, "train")
        )
    spec = CropSpec(32, "stable", 0.66, 0.074)
    report = prepare({"mine": samples, "theirs": split[:3]}, tmp_path, spec, workers=1)
    crops = CropSet(tmp_path)
    assert report["kept"]["mine"] >= 8
    assert 1 <= len(crops.where(data="mine", split="valid")) < report["kept"]["mine"]
    assert not len(crops.where(data="theirs", split="valid"))  # which says itself where its pictures belong
    found = available_weights(crops, {**SHARES, "mine": 1})
    for name in ("train", "valid"):
        batch = MixtureBatches(crops, found, batch_size=4, resolution=32, split=name, seed=0)(0)
        assert batch.shape == (4, 1, 32, 32)

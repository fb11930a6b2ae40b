"""Votes of FER+: read as distributions, held against their pictures, refused where they do not fit."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from emoedit.training.readers import read
from emoedit.training.votes import VOTED, agreement, distribution, read_ferplus
from emoedit.types import DataError

COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def folder_with(root, rows, *, columns=("image", *COLUMNS)):
    """Pictures and ``ferplus.csv`` beside them; ``rows``: name -> votes by column."""
    for name in rows:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / name)
    with (root / "ferplus.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for name, votes in rows.items():
            writer.writerow([name, *(votes.get(column, 0) for column in columns[1:])])
    return root / "ferplus.csv"


def test_votes_are_read_by_column_and_pictures_by_agreement(tmp_path):
    path = folder_with(
        tmp_path,
        {
            "sad/1.png": {"sadness": 8, "neutral": 2},
            "sad/2.png": {"neutral": 6, "sadness": 4},
            "angry/3.png": {"NF": 9, "anger": 1},
            "fear/4.png": {"fear": 5, "surprise": 4, "unknown": 1},
        },
    )
    found = {sample.name: sample for sample in read("ferplus", path)}
    assert {name: sample.emotion for name, sample in found.items()} == {
        "sad/1.png": "sad",
        "sad/2.png": "neutral",  # what people saw, not the folder's name
        "fear/4.png": "fearful",
    }
    assert dict(zip(VOTED, found["fear/4.png"].votes, strict=True)) == {
        **dict.fromkeys(VOTED, 0),
        "fearful": 5,
        "surprised": 4,
        "other": 1,
    }
    sure = read_ferplus(path, agreement={"default": 0.8, "fearful": 0.5})
    assert [sample.name for sample in sure] == ["sad/1.png", "fear/4.png"]
    assert agreement(found["sad/2.png"].votes) == 0.6


def test_a_limit_takes_the_same_pictures_every_time(tmp_path):
    path = folder_with(tmp_path, {f"happy/{n}.png": {"happiness": 10} for n in range(20)})
    first = [sample.name for sample in read_ferplus(path, at_most={"happy": 5})]
    assert len(first) == 5 and first == [sample.name for sample in read_ferplus(path, at_most={"happy": 5})]


def test_a_distribution_leaves_out_what_one_person_saw():
    np.testing.assert_allclose(distribution([2, 0, 6, 1, 0, 0, 0, 1]), [0.25, 0, 0.75, 0, 0, 0, 0])
    assert distribution([0, 0, 0, 0, 0, 0, 0, 10]).sum() == 0
    assert distribution([0, 1, 0, 0, 0, 0, 0, 0])[1] == 1  # one person is all there was


def test_votes_that_do_not_fit_are_refused(tmp_path):
    def refused(rows, match, **how):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with pytest.raises(DataError, match=match):
            read_ferplus(folder_with(folder, rows, **how))
        return folder

    refused({"sad/1.png": {"sadness": "many"}}, "row 2: votes are whole numbers")
    refused({"sad/1.png": {}}, "row 2: votes are whole numbers from 0 on, at least one")
    refused({}, "no row")
    refused({"sad/1.png": {"NF": 10}}, "no picture do so many people agree")
    refused({"sad/1.png": {"sadness": 10}}, "no column NF", columns=("image", *COLUMNS[:-1]))
    # The votes of other pictures: what people saw has nothing to do with the folders.
    strangers = {f"happy/{n}.png": {"sadness": 10} for n in range(60)}
    refused(strangers, "agree on 0% of the pictures.*belong to other pictures")
    folder = refused({"sad/1.png": {"NF": 10}}, "agree")
    (folder / "sad" / "1.png").unlink()
    with pytest.raises(DataError, match="1 of 1 pictures are not there, the first sad/1.png"):
        read_ferplus(folder / "ferplus.csv")
    path = folder_with(tmp_path, {"sad/1.png": {"sadness": 10}})
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    with pytest.raises(DataError, match="sad/1.png has two rows"):
        read_ferplus(path)
    with pytest.raises(DataError, match="reader 'ferplus' with options agree"):
        read("ferplus", path, agree=0.5)

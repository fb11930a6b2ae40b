"""Which pictures directions and words are fitted on: people agree on them, and no mouth shouts."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from torch import nn

from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.training.agreed import pick_agreed
from emoedit.training.data import CropSet
from emoedit.training.recipes import plain_pictures, read_as
from emoedit.types import DataError

HOW = {"pictures": 10, "agreed": {"default": 0.8, "fearful": 0.5}, "voted": ["sad"], "closed": {"sad": 0.1}}


class ByBrightness(nn.Module):
    """Stands for the landmark network: lips are as far apart as the crop is bright, 0 to .4 of an eye distance."""

    config = NetworkConfig(heads={"points": 68}, resolution=16)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        points = torch.zeros(len(x), 68, 2)
        points[:, 36:42, 0], points[:, 42:48, 0] = -0.5, 0.5
        points[:, 65:68, 1] = 0.4 * (x.mean((1, 2, 3))[:, None] + 1) / 2
        return {"points": points}


@pytest.fixture
def crops(tmp_path) -> CropSet:
    rows = [
        # data, emotion, split, votes, brightness
        ("fer", "sad", "train", "0 0 9 1 0 0 0 0", 10),
        ("fer", "sad", "train", "3 0 7 0 0 0 0 0", 10),  # three people saw something else
        ("fer", "sad", "train", "0 0 10 0 0 0 0 0", 250),  # crying
        ("fer", "sad", "valid", "0 0 10 0 0 0 0 0", 10),
        ("fer", "fearful", "train", "0 0 0 0 5 5 0 0", 250),
        ("wild", "sad", "train", "", 10),  # one person's label
        ("wild", "happy", "train", "", 250),
        ("everyday", "", "train", "", 10),
        ("everyday", "", "train", "", 20),
    ]
    light = np.array([row[-1] for row in rows], np.uint8)
    np.save(tmp_path / "crops.npy", np.broadcast_to(light[:, None, None, None], (len(rows), 16, 16, 3)))
    with (tmp_path / "index.csv").open("w", newline="") as file:
        kept = [(*row[:-1], "0.1", f"{row[1]}/{n}.png") for n, row in enumerate(rows)]
        csv.writer(file).writerows([("data", "emotion", "split", "votes", "yaw", "name"), *kept])
    return CropSet(tmp_path)


def test_people_agree_on_them_and_mouths_are_closed(crops):
    def found(data: str, emotion: str, **other) -> list[int]:
        return plain_pictures(crops, data, emotion, {**HOW, **other}, ByBrightness()).tolist()

    assert found("fer", "sad") == [0]
    assert found("fer", "sad", closed={}) == [0, 2]
    assert found("fer", "sad", agreed={"default": 0.7}) == [0, 1]
    assert found("fer", "fearful") == [4]
    assert found("wild", "sad") == [] and found("wild", "sad", voted=[]) == [5] and found("wild", "happy") == [6]
    assert len(found("fer", "sad", closed={}, pictures=1)) == 1


def test_words_are_learned_from_those_on_which_most_people_agree(crops):
    def found(emotion: str, least: float, closed: float, count: int = 10, **other) -> list[int]:
        how = {"least": least, "closed": closed, "count": count, **other}
        return pick_agreed(crops, emotion, ByBrightness(), **how).tolist()

    assert found("sad", 0.7, 0.1) == [0, 1]  # neither the crying one, nor what is held out, nor one person's label
    assert found("sad", 0.8, 0.1) == [0] and found("sad", 0.7, 9.0) == [0, 1, 2]
    assert found("sad", 0.7, 9.0, 2) == [0, 2]  # the surest first
    assert found("sad", 0.7, 9.0, named=["sad/1.png"]) == [1]
    with pytest.raises(DataError, match=r"sad/3\.png: no training pictures in which 70% of those who voted see 'sad'"):
        found("sad", 0.7, 9.0, named=["sad/1.png", "sad/3.png"])  # held out
    with pytest.raises(DataError, match="see 'happy' with closed lips: prepare a data set with votes"):
        found("happy", 0.5, 9.0)


def test_unlabelled_pictures_are_those_that_the_classifier_reads_so(crops):
    config = NetworkConfig(
        {"emotion": 2, "person": 4}, resolution=16, widths=(8, 8, 8, 8), emotions=("neutral", "happy")
    )
    classifier = MeasuringNetwork(config).eval()
    with torch.no_grad():
        classifier.heads["emotion"][-1].weight.zero_()
        classifier.heads["emotion"][-1].bias.copy_(torch.tensor([2.0, 0.0]))
    assert set(read_as(classifier, crops, "everyday", "neutral", 2)) == {7, 8}
    assert len(read_as(classifier, crops, "everyday", "neutral", 1)) == 1
    assert len(read_as(classifier, crops, "everyday", "happy", 2)) == 0
    assert len(read_as(classifier, crops, "nowhere", "neutral", 2)) == 0

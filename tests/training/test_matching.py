"""Neutral pictures that differ from those of an emotion in the emotion alone."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.training.data import CropSet
from emoedit.training.matching import CropReadings, mouth_opening, nearest_matches, read_crops


def readings(person: list[list[float]], yaw: list[float]) -> CropReadings:
    embeddings = F.normalize(torch.tensor(person), dim=1)
    return CropReadings(np.arange(len(yaw)), torch.zeros(len(yaw), 2), embeddings, torch.tensor(yaw))


def test_the_same_person_is_most_alike_unless_the_head_is_turned_far():
    shown = readings([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.4])
    neutral = readings([[0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], [0.05, 0.0, 0.4])
    assert nearest_matches(shown, neutral).tolist() == [0, 2]
    assert nearest_matches(shown, neutral, turned=0.0).tolist() == [0, 1]


@pytest.fixture
def crops(tmp_path) -> CropSet:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "crops.npy", rng.integers(0, 256, (9, 32, 32), np.uint8))
    with (tmp_path / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "name", "emotion", "split", "yaw"])
        writer.writerows(["a", str(n), "happy", "train", f"{0.1 * (n - 4):.3f}"] for n in range(9))
    return CropSet(tmp_path)


def test_readings_are_those_of_each_crop_alone(crops):
    torch.manual_seed(0)
    heads = {"emotion": 2, "person": 5}
    network = MeasuringNetwork(NetworkConfig(heads, 32, widths=(8, 8, 8, 8), emotions=("neutral", "happy"))).eval()
    positions = np.array([7, 0, 3, 5])
    found = read_crops(network, crops, positions, batch_size=2)
    for row, position in enumerate(positions):
        with torch.no_grad():
            out = network(crops.pixels(np.array([position]), 32))
        torch.testing.assert_close(found.scores[row], out["emotion"].softmax(1)[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.person[row], F.normalize(out["person"])[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.yaw, torch.tensor([0.3, 0.4, 0.1, 0.1]))
    part = found[np.array([False, True, False, True])]
    assert part.positions.tolist() == [0, 5] and torch.equal(part.scores, found.scores[[1, 3]])


def test_how_far_a_mouth_is_open_is_read_from_the_points(crops):
    def network(x):
        points = torch.zeros(len(x), 68, 2)
        points[:, 36:42] = torch.tensor([0.3, 0.4])
        points[:, 42:48] = torch.tensor([0.7, 0.4])
        points[:, 60:68, 1] = 0.7
        points[:, 65:68, 1] = 0.7 + 0.1 * (x[:, :1, 0, 0] > 0)  # a quarter of the distance between the eyes
        return {"points": points}

    network.config = NetworkConfig({"points": 68}, 32)
    bright = (crops.pixels(np.arange(9), 32)[:, 0, 0, 0] > 0).numpy()
    assert 0 < bright.sum() < 9
    np.testing.assert_allclose(mouth_opening(network, crops, np.arange(9)), np.where(bright, 0.25, 0.0), atol=1e-5)

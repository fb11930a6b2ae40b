"""How the measuring networks are taught: pictures and their landmarks change together, batches are what they are said
to be, losses are those of the papers, and the recipes run from a folder of pictures to a folder with a network."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from emoedit.editors import load_editor
from emoedit.faces.detect import FaceDetector
from emoedit.faces.networks import NAMES, EmbeddedNetwork
from emoedit.metrics.landmarks import MIRROR
from emoedit.nn.measuring import NetworkConfig
from emoedit.nn.mouth import MouthNetwork
from emoedit.photo import PhotoEditor
from emoedit.training.augment import Augment, augment
from emoedit.training.cropping import Filter
from emoedit.training.data import CropSet
from emoedit.training.loop import TrainerConfig, train
from emoedit.training.measuring import UNKNOWN, LabelledBatches, Labels, MeasuringTask, balanced
from emoedit.training.prepare import prepare
from emoedit.training.readers import Sample, read_landmarks68
from emoedit.types import CropSpec, DataError, Edit

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = Augment(soften=0, noise=0, hide=0, light=0)
STILL = Augment(rotation=0, scale=0, shift=0, soften=0, noise=0, hide=0, light=0)
# 68 landmarks on the crop's mean eyes, nose and mouth: enough of a face for labels.
EYES = np.array([[0.3136, 0.3364], [0.6864, 0.3364]])


def labelled_face() -> np.ndarray:
    """Landmarks ``[68, 2]`` as fractions of the crop's side, symmetric about its middle."""
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    p = np.zeros((68, 2))
    p[:17] = np.stack(
        [0.5 - 0.42 * np.cos(np.linspace(0, np.pi, 17)), 0.4 + 0.5 * np.sin(np.linspace(0, np.pi, 17))], 1
    )
    p[17:22] = np.stack([np.linspace(0.2, 0.42, 5), [0.25, 0.22, 0.21, 0.22, 0.24]], 1)
    p[22:27] = p[21:16:-1] * [-1, 1] + [1, 0]
    p[27:31] = np.stack([np.full(4, 0.5), np.linspace(0.34, 0.55, 4)], 1)
    p[31:36] = np.stack([np.linspace(0.42, 0.58, 5), [0.6, 0.61, 0.62, 0.61, 0.6]], 1)
    p[36:42] = EYES[0] + np.stack([-0.06 * np.cos(turn), -0.02 * np.sin(turn)], 1)
    p[42:48] = p[[39, 38, 37, 36, 41, 40]] * [-1, 1] + [1, 0]
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    p[48:60] = np.stack([0.5 - 0.17 * np.cos(around), 0.77 - 0.06 * np.sin(around)], 1)
    inside = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    p[60:68] = np.stack([0.5 - 0.13 * np.cos(inside), 0.77 - 0.02 * np.sin(inside)], 1)
    return p


def face_points(count: int) -> torch.Tensor:
    return torch.from_numpy(labelled_face()).float().repeat(count, 1, 1)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# Augmentation


def test_augmentation_is_a_function_of_the_seed():
    x, points = torch.rand(6, 1, 48, 48) * 2 - 1, face_points(6)
    before = x.clone()
    first, second, other = (augment(x, points, 32, Augment(), generator(s)) for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
    assert torch.equal(x, before)
    assert first[0].shape == (6, 1, 32, 32) and first[1].shape == (6, 68, 2)
    assert bool(first[0].isfinite().all()) and float(first[0].abs().max()) <= 1


@pytest.mark.parametrize("landmark", [36, 54, 57, 20])
def test_landmarks_follow_the_picture(landmark):
    side, count, flips = 128, 8, set()
    points = face_points(count)
    x0, y0 = points[0, landmark] * side - 0.5
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    dot = 2 * torch.exp(-((columns - x0) ** 2 + (rows - y0) ** 2) / (2 * 2.0**2)) - 1
    for seed in range(4):
        y, moved = augment(dot.expand(count, 1, side, side).clone(), points, 96, GEOMETRY, generator(seed))
        weight = (y[:, 0] + 1).clamp_min(0).double()
        axis = torch.arange(96.0).double() + 0.5
        total = weight.sum((1, 2))
        found = torch.stack([(weight.sum(1) * axis).sum(1) / total, (weight.sum(2) * axis).sum(1) / total], 1)
        for n in range(count):
            # The eye on the left of the picture is 36 whether or not the picture was mirrored.
            assert moved[n, 36, 0] < moved[n, 45, 0]
            names = {landmark, int(MIRROR[landmark])}
            away = {name: float((found[n] - 96 * moved[n, name]).norm()) for name in names}
            name = min(away, key=away.get)
            assert away[name] < 0.5, (seed, n)
            flips.add(name)
    assert flips == {landmark, int(MIRROR[landmark])}  # mirrored and not


def test_without_changes_only_the_mirror_remains():
    x, points = torch.rand(16, 1, 32, 32) * 2 - 1, face_points(16) + 0.02 * torch.rand(16, 68, 2)
    y, moved = augment(x, points, 32, STILL, generator(0))
    mirrored = [not torch.allclose(a, b, atol=1e-5) for a, b in zip(x, y, strict=True)]
    assert 2 < sum(mirrored) < 14
    for n, flipped in enumerate(mirrored):
        torch.testing.assert_close(y[n], x[n].flip(-1) if flipped else x[n], atol=1e-5, rtol=0)
        expected = points[n, MIRROR] * torch.tensor([-1, 1]) + torch.tensor([1, 0]) if flipped else points[n]
        torch.testing.assert_close(moved[n], expected, atol=1e-6, rtol=0)


def test_unknown_landmarks_stay_unknown():
    points = face_points(4)
    points[1] = math.nan
    _, moved = augment(torch.zeros(4, 1, 16, 16), points, 16, Augment(), generator(0))
    assert moved.isnan().flatten(1).any(1).tolist() == [False, True, False, False]


def test_each_way_of_changing_does_what_it_says():
    x, points = torch.rand(40, 1, 48, 48) * 2 - 1, face_points(40)
    plain, _ = augment(x, points, 48, STILL, generator(0))

    def differs(**how) -> torch.Tensor:
        y, _ = augment(x, points, 48, Augment(**(vars(STILL) | how)), generator(0))
        return (y - plain).abs().flatten(1).mean(1)

    assert float((differs(soften=0.5) > 1e-3).float().mean()) == 0.5
    assert 0.3 < float((differs(noise=0.3) > 1e-3).float().mean()) < 0.7
    assert 0.2 < float((differs(hide=0.5) > 1e-3).float().mean()) < 0.8
    assert differs(light=0.5).min() > 0 and differs(light=0.5).mean() > 2 * differs(light=0.1).mean()
    soft, _ = augment(x, points, 48, Augment(**(vars(STILL) | {"soften": 1.0})), generator(0))
    assert float(soft.diff(dim=-1).abs().mean()) < 0.8 * float(plain.diff(dim=-1).abs().mean())


# Batches


@pytest.fixture
def crops(tmp_path) -> CropSet:
    """40 crops, each of one grey level that says which it is."""
    np.save(tmp_path / "crops.npy", np.repeat(np.arange(0, 240, 6, np.uint8), 256).reshape(40, 16, 16))
    (tmp_path / "index.csv").write_text("\n".join(["name", *map(str, range(40))]) + "\n")
    return CropSet(tmp_path)


def batches(crops: CropSet, weights: np.ndarray, batch_size: int = 16, how: Augment = STILL) -> LabelledBatches:
    numbers = np.arange(40)
    people, points = np.where(numbers < 20, numbers, UNKNOWN), labelled_face() + numbers[:, None, None] / 1000
    labels = Labels(numbers % 5, people, points)
    return LabelledBatches(crops, weights, labels, batch_size=batch_size, resolution=12, how=how, seed=3)


def which(batch: dict) -> np.ndarray:
    """The crops of a batch, by their grey level."""
    return ((batch["x"].mean((1, 2, 3)) + 1) * 127.5 / 6).round().long().numpy()


def test_a_batch_is_a_function_of_step_and_process(crops):
    b = batches(crops, np.ones(40), how=Augment())
    first, again = b(7), b(7, 0)
    assert {name: tuple(value.shape) for name, value in first.items()} == {
        "x": (16, 1, 12, 12),
        "points": (16, 68, 2),
        "emotion": (16,),
        "person": (16,),
    }
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
    for other in (b(8), b(7, 1)):
        assert not torch.equal(first["x"], other["x"]) and not torch.equal(first["emotion"], other["emotion"])


def test_labels_belong_to_their_pictures_and_only_usable_ones_are_drawn(crops):
    usable = np.arange(40) % 3 == 0
    b = batches(crops, usable.astype(float))
    seen = set()
    for step in range(20):
        batch = b(step)
        numbers = which(batch)
        seen |= set(numbers.tolist())
        assert np.array_equal(batch["emotion"].numpy(), numbers % 5)
        assert np.array_equal(batch["person"].numpy(), np.where(numbers < 20, numbers, UNKNOWN))
        lower = labelled_face()[8, 1] + numbers / 1000  # the chin's height stays, mirrored or not
        np.testing.assert_allclose(batch["points"][:, 8, 1].numpy(), lower, atol=1e-5)
    assert seen == set(np.flatnonzero(usable).tolist())
    with pytest.raises(DataError, match="no crop has a label"):
        batches(crops, np.zeros(40))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_balanced_classes_are_drawn_as_often_as_documented(crops, power):
    labels = np.repeat([0, 1, 2, 3], [1, 4, 16, 19])
    usable = labels < 3
    weights = balanced(labels, usable, power)
    sizes = np.array([1, 4, 16])
    expected = sizes**power / (sizes**power).sum()
    per_class = np.array([weights[labels == k].sum() for k in range(3)])
    np.testing.assert_allclose(per_class, expected)
    assert weights[~usable].sum() == 0 and len(np.unique(weights[labels == 2])) == 1
    b = batches(crops, weights, 64)
    drawn = np.concatenate([which(b(step)) for step in range(40)])
    share = np.bincount(labels[drawn], minlength=3) / len(drawn)
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / math.sqrt(len(drawn)))


def test_nothing_usable_weighs_nothing():
    assert balanced(np.zeros(5, int), np.zeros(5, bool)).tolist() == [0] * 5


# Losses

HEADS = {"person": 6, "emotion": 3, "points": 68}
SMALL = NetworkConfig(HEADS, resolution=16, widths=(8, 8), emotions=("neutral", "happy", "sad"))
PARTS = {"person": 1.0, "emotion": 0.5, "points": 2.0}


def small_task(**how) -> MeasuringTask:
    torch.manual_seed(0)
    return MeasuringTask(SMALL, people=4, parts=PARTS, **how)


def small_batch(count: int = 8) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    numbers = torch.arange(count)
    x = F.interpolate(torch.rand(count, 1, 4, 4) * 2 - 1, (16, 16), mode="bicubic").clamp(-1, 1)
    return {"x": x, "emotion": numbers % 3, "person": numbers % 4, "points": face_points(count)}


def test_the_loss_is_that_of_the_papers_over_what_is_known():
    task, batch = small_task(scale=20.0, margin=0.1, smoothing=0.1).eval(), small_batch()
    batch["emotion"][2], batch["person"][5], batch["points"][1] = UNKNOWN, UNKNOWN, math.nan
    with torch.no_grad():
        found, out = task(batch), task.network(batch["x"])
    emotion = 0.0
    for n in (k for k in range(8) if k != 2):
        target = torch.full((3,), 0.1 / 3)
        target[batch["emotion"][n]] += 0.9
        emotion -= float((target * out["emotion"][n].log_softmax(0)).sum()) / 7
    person = 0.0
    for n in (k for k in range(8) if k != 5):
        e = out["person"][n] / out["person"][n].norm()
        cosines = [float(e @ c / c.norm()) for c in task.centres.detach()]
        own = int(batch["person"][n])
        top = math.exp(20 * (cosines[own] - 0.1))
        person -= math.log(top / (top + sum(math.exp(20 * c) for k, c in enumerate(cosines) if k != own))) / 7
    known = [0, *range(2, 8)]
    points = float((out["points"][known] - batch["points"][known]).abs().mean())
    assert float(found["loss"]) == pytest.approx(person + 0.5 * emotion + 2 * 100 * points, rel=1e-4)
    assert float(found["points"]) == pytest.approx(points, rel=1e-5)
    right = [int(out["emotion"][n].argmax()) == int(batch["emotion"][n]) for n in range(8) if n != 2]
    assert float(found["accuracy"]) == pytest.approx(np.mean(right))
    assert 0 <= float(found["person"]) <= 1


def test_votes_are_learned_as_they_are():
    task, batch = small_task(smoothing=0.1).eval(), small_batch()
    shares = torch.tensor([0.7, 0.3, 0.0]).repeat(8, 1)
    shares[2] = 0  # nobody voted
    batch["emotion"], batch["person"][:], batch["points"][:] = shares, UNKNOWN, math.nan
    with torch.no_grad():
        found, out = task(batch), task.network(batch["x"])
    logits = out["emotion"][[n for n in range(8) if n != 2]].log_softmax(1)
    expected = -float((0.7 * logits[:, 0] + 0.3 * logits[:, 1]).mean())
    assert float(found["loss"]) == pytest.approx(0.5 * expected, rel=1e-4)
    assert float(found["accuracy"]) == pytest.approx(float((logits.argmax(1) == 0).float().mean()))


def test_what_is_taught_is_the_votes_or_a_smoothed_label(tmp_path):
    np.save(tmp_path / "crops.npy", np.zeros((3, 8, 8, 3), np.uint8))
    rows = [("sad", "1 0 6 3 0 0 0 0"), ("happy", ""), ("", "")]
    write_rows(tmp_path / "index.csv", ("emotion", "votes"), *rows)
    names = ["neutral", "happy", "sad", "angry", "surprised", "disgusted", "fearful"]
    shares = experiment("train_metrics").emotion_shares(CropSet(tmp_path), names)
    np.testing.assert_allclose(shares[0], [0, 0, 6 / 9, 3 / 9, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(shares[1], [0.1 / 7, 0.9 + 0.1 / 7, *[0.1 / 7] * 5], rtol=1e-6)
    assert not shares[2].any()


def test_a_batch_of_which_nothing_is_known_costs_nothing():
    task, batch = small_task(), small_batch()
    batch |= {"emotion": torch.full((8,), UNKNOWN), "person": torch.full((8,), UNKNOWN)}
    batch["points"] = torch.full((8, 68, 2), math.nan)
    found = task(batch)
    assert {name: float(value.detach()) for name, value in found.items()} == dict.fromkeys(
        ("loss", "accuracy", "person", "points"), 0.0
    )
    found["loss"].backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in task.parameters())


def test_every_head_is_taught_and_only_by_its_own_labels():
    task, batch = small_task(), small_batch()
    task(batch)["loss"].backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().sum()) > 0, name
    task.zero_grad(set_to_none=False)
    batch["points"] = torch.full((8, 68, 2), math.nan)
    task(batch)["loss"].backward()
    taught = {
        name: float(sum(p.grad.abs().sum() for p in head.parameters())) for name, head in task.network.heads.items()
    }
    assert taught["points"] == 0 and taught["person"] > 0 and taught["emotion"] > 0


def test_a_few_steps_lower_the_loss(tmp_path):
    batch = small_batch()
    torch.manual_seed(0)
    task = MeasuringTask(SMALL, people=4, parts={"person": 1.0, "emotion": 1.0, "points": 0.02})
    with torch.no_grad():
        before = {name: float(value) for name, value in task(batch).items()}
    how = TrainerConfig(steps=40, learning_rate=5e-3, precision="no", warmup=1, ema=0.5, save_every=100)
    trained = train(task, lambda step, process: batch, tmp_path, how)
    with torch.no_grad():
        after = {name: float(value) for name, value in trained(batch).items()}
    assert after["loss"] < 0.7 * before["loss"]
    assert after["points"] < before["points"] and after["accuracy"] == 1


# Labels on disk


def landmark_row(name: str, seed: int = 0) -> list:
    return [name, *generator(seed).uniform(-20, 300, 150).round(1)]


def write_rows(path: Path, *rows) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_landmarks_are_read_by_picture(tmp_path):
    first, second = landmark_row("a b.webp"), landmark_row("c,d.webp", 1)
    write_rows(tmp_path / "points.csv", first, second)
    found = read_landmarks68(tmp_path / "points.csv")
    assert list(found) == ["a b.webp", "c,d.webp"]
    assert found["a b.webp"].shape == (68, 2)
    assert found["a b.webp"][0].tolist() == first[15:17] and found["c,d.webp"][67].tolist() == second[149:151]


def test_what_are_no_landmarks_is_refused(tmp_path):
    path, good = tmp_path / "points.csv", landmark_row("a")
    for bad in (good[:-1], [*good, 1.0], [*good[:9], "x", *good[10:]], [*good[:9], "nan", *good[10:]], ["a"], []):
        write_rows(path, good, bad)
        with pytest.raises(DataError, match="line 2 "):
            read_landmarks68(path)
    with pytest.raises(DataError, match="no such file"):
        read_landmarks68(tmp_path / "gone.csv")


def test_the_matrix_of_a_row_leads_from_its_picture_to_its_crop(tmp_path, astronaut):
    picture = cv2.resize(astronaut[0:300, 60:380], (150, 140), interpolation=cv2.INTER_AREA)
    sample = Sample(picture, "happy", "her")
    prepare({"one": [sample]}, tmp_path, CropSpec(64, "stable", 0.66, 0.074), keep=Filter(), workers=1)
    prepared = CropSet(tmp_path)
    matrix = prepared.rows[0]["matrix"]
    m = np.array(matrix.split(), float).reshape(2, 3)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    # By hand: each crop pixel's place in the picture, and the grey level there.
    inverse = np.linalg.inv(np.vstack([m, [0, 0, 1]]))[:2]
    rows, columns = np.mgrid[8:56, 8:56]
    there = np.stack([columns, rows, np.ones_like(rows)], -1) @ inverse.T
    left, top = np.floor(there[..., 0]).astype(int), np.floor(there[..., 1]).astype(int)
    a, b = there[..., 0] - left, there[..., 1] - top
    value = (1 - b) * ((1 - a) * grey[top, left] + a * grey[top, left + 1])
    value += b * ((1 - a) * grey[top + 1, left] + a * grey[top + 1, left + 1])
    assert float(prepared.rows[0]["detail"]) > 1 / 1.5  # else the crop is averaged before it is sampled
    assert np.abs(value - prepared.luminance(0)[8:56, 8:56]).mean() < 1.5
    # The eyes the detector saw are where eyes are in every crop; to_crop counts from the crop's upper left corner.
    face = FaceDetector()(picture)[0]
    placed = experiment("train_metrics").to_crop(face.landmarks, matrix, 64)
    np.testing.assert_allclose(placed[:2], EYES, atol=0.06)
    np.testing.assert_allclose(placed * 64 - 0.5, face.landmarks @ m[:, :2].T + m[:, 2], atol=1e-6)


def experiment(name: str):
    """A script of experiments/ as a module."""
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_people_and_emotions_are_numbered(tmp_path):
    np.save(tmp_path / "crops.npy", np.zeros((5, 8, 8), np.uint8))
    rows = [
        ("a", "ann", "happy"),
        ("a", "", "sad"),
        ("b", "ann", "contempt"),
        ("a", "ann", "neutral"),
        ("a", "bob", "sad"),
    ]
    write_rows(tmp_path / "index.csv", ("data", "person", "emotion"), *rows)
    crops, script = CropSet(tmp_path), experiment("train_metrics")
    person, people = script.person_numbers(crops)
    assert people == 3 and person[1] == UNKNOWN and person[0] == person[3]
    assert len({person[0], person[2], person[4]}) == 3  # another data set's ann is another ann
    assert script.emotion_numbers(crops, ["neutral", "happy", "sad"]).tolist() == [1, 2, UNKNOWN, 0, 2]
    write_rows(tmp_path / "index.csv", ("data", "person", "emotion"), *[("a", "ann", "sad")] * 5)
    person, people = script.person_numbers(CropSet(tmp_path))
    assert people == 1 and person.tolist() == [0] * 5


# Recipes


def composed(name: str, *overrides: str) -> dict:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = compose(name, overrides=["data.root=/data", *overrides])
        return OmegaConf.to_container(config, resolve=True)


def test_there_is_a_recipe_a_card_and_a_test_for_every_embedded_network():
    configs = {path.stem for path in (ROOT / "configs" / "network").glob("*.yaml")}
    # Guidance classifiers are what edits are fitted with: they measure none, and one is shipped to rank candidates.
    assert configs - {"guidance_labels"} == {*NAMES, "guidance"} == set(experiment("train_metrics").FINISH)
    for name in NAMES:
        card = (ROOT / "experiments" / "cards" / f"{name}.md").read_text()
        assert card.count("{numbers}") == card.count("{cost}") == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_network_config_fits_the_code(name):
    config = composed("train_metrics", f"network={name}")
    how, data = config["network"], config["data"]
    assert how["name"] == name and config["output"] == f"checkpoints/{name}"
    assert how.keys() == {
        "name",
        "config",
        "parts",
        "trust",
        "balance",
        "augment",
        "trainer",
        "batch_size",
        "threads",
    }
    network = NetworkConfig(**how["config"])
    TrainerConfig(**how["trainer"])
    Augment(**how["augment"])
    assert network.resolution % 2 ** len(network.widths) == 0 and network.resolution <= data["resolution"]
    assert (network.scale, network.down) == (data["scale"], data["down"])
    assert how["parts"].keys() == network.heads.keys()
    assert len(network.emotions) == network.heads.get("emotion", 0)
    assert set(how["trust"]) <= set(data["sets"])
    assert set(how["config"]["emotions"] if network.emotions else ()) <= {"neutral", *_fitted()}
    task = MeasuringTask(network, people=3, parts=how["parts"]).eval()
    out = task.network(torch.zeros(1, 1, network.resolution, network.resolution))
    assert {head: value.shape[1] for head, value in out.items()} == network.heads


def _fitted() -> list[str]:
    return composed("fit_references")["pixel_mean"]["emotions"]


def test_the_reference_config_fits_the_data():
    config = composed("fit_references")
    assert set(config["pixel_mean"]["trust"]) <= set(config["data"]["sets"])
    assert config["resolution"] <= config["data"]["resolution"]
    assert config["mean_warp"]["emotion"] in config["pixel_mean"]["emotions"]


def test_points_that_people_placed_have_a_counterpart():
    pairs = experiment("train_metrics").PLACED
    assert set(pairs) <= set(range(68)) and set(pairs.values()) <= set(range(189))
    assert len(set(pairs.values())) == len(pairs)


class Studio:
    """Faces that differ: the portrait, moved, lit, turned and made noisy, with landmarks that move with it."""

    def __init__(self, portrait: np.ndarray) -> None:
        self.rng = generator(0)
        self.head = cv2.resize(portrait[0:300, 60:380], (133, 125), interpolation=cv2.INTER_AREA)
        five = FaceDetector()(self.head)[0].landmarks
        across = five[1] - five[0]
        # Eyes level at the places that labels are held against, so scale and turn are theirs.
        turn = np.array([[across[0], -across[1]], [across[1], across[0]]]) / (EYES[1] - EYES[0])[0]
        self.points = (labelled_face() - EYES.mean(0)) @ turn.T + five[:2].mean(0)

    def __call__(self, smile: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """A picture, uint8 ``[H, W, 3]``, and where its landmarks are."""
        dx, dy = self.rng.uniform(-6, 6, 2)
        move = np.array([[1, 0, dx], [0, 1, dy]])
        picture = cv2.warpAffine(self.head, move, self.head.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101).astype(
            float
        )
        picture = picture * self.rng.uniform(0.7, 1.1) + self.rng.normal(0, 6, picture.shape)
        if smile:
            x, y = (self.points[57] + [dx, dy]).astype(int)
            picture[y - 4 : y + 4, x - 10 : x + 10] += 60
        return picture.clip(0, 255).astype(np.uint8), self.points + [dx, dy]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The data sets in their own layouts, with few pictures of one woman who stands for many."""
    from skimage.data import astronaut

    root = tmp_path_factory.mktemp("tiny")
    shoot = Studio(astronaut())
    names = ("expressions-in-the-wild", "london-pairs", "fer2013", "everyday")
    wild, london, fer, everyday = (root / name for name in names)
    (wild / "images").mkdir(parents=True)
    labels, landmarks = [("image", "emotion", "person", "split")], []
    for n in range(16):
        picture, points = shoot(smile=n % 2 == 1)
        Image.fromarray(picture).save(wild / "images" / f"{n}.png")
        split = "train" if n < 10 else "valid"
        labels.append(
            (f"{n}.png", "happiness" if n % 2 else "neutral", f"p{n // 3 if n < 10 else 10 + n // 14}", split)
        )
        landmarks.append((f"{n}.png", *np.zeros(14), *points.round(2).ravel()))
    write_rows(wild / "labels.csv", *labels)
    write_rows(wild / "landmarks68.csv", *landmarks[1:])  # one picture has none
    info, placed = [("face_id", "split")], [("face_id", *range(378))]
    for n in range(6):
        info.append((f"{n:03d}", "fit" if n < 3 else "test"))
        for emotion in ("neutral", "smiling"):
            (london / emotion).mkdir(parents=True, exist_ok=True)
            picture, points = shoot(smile=emotion == "smiling")
            Image.fromarray(picture).save(london / emotion / f"{n:03d}.png")
            if emotion == "neutral":
                people = np.zeros((189, 2))
                people[0], people[1] = points[36:42].mean(0), points[42:48].mean(0)
                for ours, theirs in experiment("train_metrics").PLACED.items():
                    people[theirs] = points[ours]
                placed.append((f"{n:03d}", *people.round(2).ravel()))
    write_rows(london / "info.csv", *info)
    write_rows(london / "landmarks.csv", *placed)
    answers = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
    votes = [("image", *answers)]
    for folder, smile in (("happy", True), ("neutral", False)):
        (fer / folder).mkdir(parents=True)
        for n in range(26):  # enough of each for a class mean, and some that fall to validation by their names
            Image.fromarray(shoot(smile)[0]).convert("L").save(fer / folder / f"{n + 1}.webp")
            votes.append((f"{folder}/{n + 1}.webp", 1 if smile else 9, 9 if smile else 1, *[0] * 8))
    write_rows(fer / "ferplus.csv", *votes)
    (everyday / "images").mkdir(parents=True)
    for n in range(4):
        Image.fromarray(shoot(smile=n % 2 == 1)[0]).save(everyday / "images" / f"{n}.jpg")
    people = [(f"{n}.jpg", 20 + n, "female", n) for n in range(4)]
    write_rows(everyday / "info.csv", ("image", "age", "gender", "group"), *people)
    return root


def run(script: str, folder: Path, *overrides: str) -> None:
    command = [sys.executable, str(ROOT / "experiments" / script), *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def references(tiny) -> Path:
    """The prepared crops and the reference editors of the tiny data set."""
    run(
        "fit_references.py",
        tiny,
        f"data.root={tiny}",
        f"data.crops={tiny / 'crops'}",
        "data.resolution=64",
        f"output={tiny / 'editors'}",
        "resolution=48",
        "pixel_mean.emotions=[happy]",
    )
    return tiny / "editors"


@pytest.mark.slow
def test_reference_editors_are_fitted_loaded_and_edit(references, tiny, astronaut):
    report = json.loads((tiny / "crops" / "report.json").read_text())
    assert report["kept"] == {"london": 12, "wild": 16, "fer2013": 52}
    picture = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    for name in ("pixel_mean", "mean_warp"):
        editor = load_editor(references / name)
        assert editor.emotions == ("neutral", "happy")
        info = json.loads((references / name / "editor.json").read_text())
        assert info["reference"] is True and info["licence"]
        card = (references / name / "README.md").read_text()
        assert "{" not in card and ("3 people" in card or name == "pixel_mean")
        crop = cv2.cvtColor(picture[20:116, 60:156], cv2.COLOR_RGB2GRAY)
        crop = cv2.resize(crop, (48, 48), interpolation=cv2.INTER_AREA)
        inversion = editor.invert(crop)
        still, edited = (next(iter(editor.edit(inversion, [Edit("happy", s)]))) for s in (0.0, 1.0))
        assert edited.shape == (1, 1, 48, 48) and bool(edited.isfinite().all())
        torch.testing.assert_close(still[0, 0], torch.from_numpy(crop).float() / 127.5 - 1, atol=1e-3, rtol=0)
        assert float((edited - still).abs().max()) > 0.02
    # The light that a smile adds below the lips is learned where it is.
    light = load_editor(references / "pixel_mean").steerings[0].directions[1].reshape(4, 48, 48)[3]
    row, column = np.unravel_index(int(light.argmax()), (48, 48))
    assert 0.7 < row / 48 < 0.95 and 0.3 < column / 48 < 0.7
    photos = PhotoEditor(load_editor(references / "mean_warp"))
    (result,) = photos.edit(photos.open(astronaut), [Edit("happy")])
    assert result.image.size == (512, 512) and np.any(np.asarray(result.image) != astronaut)


@pytest.mark.slow
def test_every_measuring_network_is_trained_tested_and_written(references, tiny):
    run(
        "train_metrics.py",
        tiny,
        "-m",
        f"network={','.join(NAMES)}",
        "stages=[train,finish]",
        f"data.root={tiny}",
        f"data.crops={tiny / 'crops'}",
        "data.resolution=64",
        f"work={tiny}/state/${{network.name}}",
        f"output={tiny}/networks/${{network.name}}",
        "network.config.resolution=32",
        "network.config.widths=[8,8]",
        "network.trainer.steps=2",
        "+network.trainer.precision='no'",
        "network.batch_size=4",
    )
    for name in NAMES:
        folder = tiny / "networks" / name
        shown = EmbeddedNetwork.load(folder)
        assert shown.network.config.resolution == 32 and shown.network.config.widths == (8, 8)
        state = torch.load(tiny / "state" / name / "network.pt", weights_only=True)
        for key, value in shown.network.state_dict().items():
            if key != "layer_weights":
                assert torch.equal(value, state[key]), key
        card = (folder / "README.md").read_text()
        assert "{numbers}" not in card and "{cost}" not in card and "2 steps of 4 pictures" in card
        assert not re.search(r"\bnan\b", card)
    faces = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    assert EmbeddedNetwork.load(tiny / "networks" / "identity").embed(faces).shape == (2, 128)
    assert EmbeddedNetwork.load(tiny / "networks" / "expression").scores(faces).shape == (2, 7)
    assert EmbeddedNetwork.load(tiny / "networks" / "landmarks").points(faces).shape == (2, 68, 2)
    weights = EmbeddedNetwork.load(tiny / "networks" / "perceptual").network.layer_weights
    assert bool((weights > 0).all()) and not torch.equal(weights, torch.ones(2))
    cards = {name: (tiny / "networks" / name / "README.md").read_text() for name in NAMES}
    assert "verification AUC, held-out people, wild (2 people" in cards["identity"]
    assert "true \\ read, london" in cards["expression"]
    assert "London neutral (6), eyes" in cards["landmarks"]
    assert "AUC of same against another person" in cards["perceptual"]


@pytest.mark.slow
def test_the_network_of_sharp_mouths_is_trained_tested_and_written(references, tiny):
    run(
        "train_mouth.py",
        tiny,
        "stages=[sources,train,finish]",
        f"data.root={tiny}",
        f"data.crops={tiny / 'crops'}",
        "data.resolution=64",
        f"work={tiny / 'state' / 'mouth'}",
        f"output={tiny / 'networks' / 'mouth'}",
        *("config.left=16", "config.top=32", "config.side=32", "config.widths=[8,8,8]"),
        "batch_size=4",
        "trainer.steps=3",
        "trainer.precision='no'",
    )
    sources = np.load(tiny / "state" / "mouth" / "sources.npz")
    assert sources["real"].shape[1:] == (32, 32)
    assert len({len(sources[name]) for name in ("real", "teeth", "denoised", "rebuilt")}) == 1
    network = MouthNetwork.from_pretrained(tiny / "networks" / "mouth")
    state = torch.load(tiny / "state" / "mouth" / "network.pt", weights_only=True)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    card = (tiny / "networks" / "mouth" / "README.md").read_text()
    assert "3 steps of 4 pairs" in card and "{" not in card

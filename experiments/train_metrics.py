"""Train a measuring network, test it on held-out people, write it to ``checkpoints/``.

    python experiments/train_metrics.py network=identity data.root=/path/to/data  # or landmarks, ...
    python experiments/train_metrics.py network=identity data.root=/path stages=[finish]       # test it again, card

Stop it whenever you like; the same command goes on where it stopped. Each takes about half an hour on one core.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torchmetrics.functional.classification import binary_auroc

from emoedit.emotions import BASIC
from emoedit.faces.layout import POINTS
from emoedit.io import checkpoints
from emoedit.metrics.quality import ssim
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.nn.perceptual import PerceptualNetwork, calibrate
from emoedit.training.augment import Augment
from emoedit.training.data import CropSet, available_weights
from emoedit.training.loop import TrainerConfig, train
from emoedit.training.measuring import UNKNOWN, LabelledBatches, Labels, MeasuringTask, balanced
from emoedit.training.prepare import prepare_config
from emoedit.training.readers import read_landmarks68
from emoedit.training.votes import distribution
from lib.running import run

TRAINED_ON = ["train", "fit"]
HELD_OUT = ["valid", "test"]
# Points that people placed on the London faces (FRL template, 189 points) which have a counterpart among the 68.
PLACED = {36: 18, 37: 19, 38: 21, 39: 22, 40: 30, 41: 28, 42: 23, 43: 24, 44: 26, 45: 27, 46: 33, 47: 31} | {
    48: 87, 49: 88, 50: 89, 51: 90, 52: 91, 53: 92, 54: 93, 55: 108, 56: 107, 57: 106, 58: 105, 59: 104, 66: 101, 8: 129
}  # fmt: skip


def emotion_numbers(crops: CropSet, names: list[str]) -> np.ndarray:
    """Class number of every crop, :data:`UNKNOWN` where its emotion is none of the names."""
    order = {name: number for number, name in enumerate(names)}
    return np.array([order.get(emotion, UNKNOWN) for emotion in crops.column("emotion")])


SMOOTHING = 0.1  # of labels that one person gave, beside distributions of votes


def emotion_shares(crops: CropSet, names: list[str]) -> np.ndarray:
    """Distribution over the names that each crop is taught with, ``[N, E]``: its votes where people voted, its label
    smoothed elsewhere; zeros where neither says anything of these names."""
    shares = np.zeros((len(crops.rows), len(names)), np.float32)
    columns = [names.index(name) for name in BASIC]
    numbers = emotion_numbers(crops, names)
    for row, number, share in zip(crops.rows, numbers, shares, strict=True):
        if row.get("votes"):
            share[columns] = distribution([int(value) for value in row["votes"].split()])
        elif number != UNKNOWN:
            share[:] = SMOOTHING / len(names)
            share[number] += 1 - SMOOTHING
    return shares


def person_numbers(crops: CropSet) -> tuple[np.ndarray, int]:
    """Number of every crop's person, :data:`UNKNOWN` where nobody said who it is; and how many people there are."""
    keys = [f"{row['data']}/{row['person']}" if row["person"] else "" for row in crops.rows]
    names, numbers = np.unique(keys, return_inverse=True)
    first = int(names[0] == "")
    return np.where(np.array(keys) == "", UNKNOWN, numbers - first), len(names) - first


def to_crop(points: np.ndarray, matrix: str, side: int) -> np.ndarray:
    """Picture pixels ``[P, 2]`` as fractions of the crop, by the matrix of its index row."""
    m = np.array(matrix.split(), float).reshape(2, 3)
    return (points @ m[:, :2].T + m[:, 2] + 0.5) / side


def wild_points(crops: CropSet, config: DictConfig) -> np.ndarray:
    """Landmarks of every crop ``[N, 68, 2]`` as fractions of its side; NaN where the data set has none."""
    labels = read_landmarks68(Path(config.data.root) / config.data.landmarks)
    points = np.full((len(crops.rows), POINTS, 2), np.nan, np.float32)
    for number, row in enumerate(crops.rows):
        if row["data"] != "wild" or row["name"] not in labels:
            continue
        placed = to_crop(labels[row["name"]], row["matrix"], config.data.resolution)
        # Another face of the picture, or a failed fit: the eyes are not where the detector found them.
        eyes = np.stack([placed[36:42].mean(0), placed[42:48].mean(0)])
        expected = np.array([[0.3136, 0.3364], [0.6864, 0.3364]])
        if np.abs(eyes - expected).max() < 0.1:
            points[number] = placed
    return points


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    report = prepare_config(config.data)
    print("kept", report["kept"], "dropped", report["dropped"])


def train_stage(config: DictConfig) -> None:
    how = OmegaConf.to_container(config.network, resolve=True)
    torch.set_num_threads(how["threads"])  # small pictures: two runs of one thread each are faster than one of two
    network, trainer = NetworkConfig(**how["config"]), TrainerConfig(**how["trainer"])
    crops = CropSet(config.data.crops)
    data, split = crops.column("data"), crops.column("split")
    emotion = emotion_numbers(crops, list(network.emotions))
    person, _ = person_numbers(crops)
    usable = np.isin(split, TRAINED_ON)
    # Numbered anew among those in training, so that no head has outputs for held-out people.
    taught = usable & (person != UNKNOWN)
    person[~taught] = UNKNOWN
    person[taught] = np.unique(person[taught], return_inverse=True)[1]
    points = wild_points(crops, config) if "points" in how["parts"] else np.full((len(data), POINTS, 2), np.nan)
    known = np.zeros(len(data), bool)
    for head, label in {"emotion": emotion != UNKNOWN, "person": person != UNKNOWN}.items():
        known |= label & (head in how["parts"])
    known |= np.isfinite(points).all((1, 2))
    weights = np.zeros(len(data))
    classes = (
        person if how["parts"].keys() == {"person"} else np.unique(crops.column("emotion"), return_inverse=True)[1]
    )
    for name, share in available_weights(crops, how["trust"], "network.trust").items():
        members = usable & known & (data == name)
        weights += share * members.sum() * balanced(classes, members, how["balance"])
    task = MeasuringTask(network, people=int(person.max()) + 1, parts=how["parts"])
    read = emotion_shares(crops, list(network.emotions)) if "emotion" in how["parts"] else emotion
    batches = LabelledBatches(
        crops,
        weights,
        Labels(read, person, points),
        batch_size=how["batch_size"],
        resolution=network.resolution,
        how=Augment(**how["augment"]),
        seed=trainer.seed,
    )
    averaged = train(task.to(memory_format=torch.channels_last), batches, config.work, trainer)
    # Rounded here, once: everything measured later sees the weights that are shipped, in a quarter of the space.
    checkpoints.round_weights(averaged.network)
    torch.save(averaged.network.state_dict(), Path(config.work) / "network.pt")


@torch.no_grad()
def outputs(crops: CropSet, chosen: np.ndarray, resolution: int, function: Callable) -> torch.Tensor:
    """A function of crops, over the chosen ones and their mirror images where it takes the mean of both."""
    parts = [function(crops.pixels(part, resolution)) for part in np.array_split(chosen, max(1, len(chosen) // 128))]
    return torch.cat(parts)


def finish_identity(network: MeasuringNetwork, crops: CropSet, config: DictConfig) -> dict[str, object]:
    report: dict[str, object] = {}
    person, _ = person_numbers(crops)
    data, split = crops.column("data"), crops.column("split")
    for name in ("wild", "london"):
        chosen = np.flatnonzero((data == name) & np.isin(split, HELD_OUT) & (person != UNKNOWN))
        e = outputs(crops, chosen, network.config.resolution, lambda x: F.normalize(network(x)["person"]))
        upper = np.triu_indices(len(chosen), 1)
        cosine = (e @ e.T).numpy()[upper]
        same = (person[chosen][:, None] == person[chosen][None])[upper]
        report[f"verification AUC, held-out people, {name} ({len(set(person[chosen]))} people, {same.sum()} pairs)"] = (
            round(float(binary_auroc(torch.from_numpy(cosine), torch.from_numpy(same).int())), 4)
        )
        report[f"mean cosine, {name}: same person / another"] = (
            f"{cosine[same].mean():.2f} / {cosine[~same].mean():.2f}"
        )
    return report


def finish_expression(network: MeasuringNetwork, crops: CropSet, config: DictConfig) -> dict[str, object]:
    report: dict[str, object] = {}
    names = list(network.config.emotions)
    label = emotion_numbers(crops, names)
    data, split = crops.column("data"), crops.column("split")
    for name in ("london", "wild", "fer2013"):  # of the last, what most of ten people said
        chosen = np.flatnonzero((data == name) & np.isin(split, HELD_OUT) & (label != UNKNOWN))
        p = outputs(crops, chosen, network.config.resolution, lambda x: network(x)["emotion"].softmax(1)).numpy()
        truth, read = label[chosen], p.argmax(1)
        counts = np.zeros((len(names), len(names)), int)
        np.add.at(counts, (truth, read), 1)
        there = counts.sum(1) > 0
        recall = counts.diagonal()[there] / counts.sum(1)[there]
        report[f"accuracy / balanced accuracy on held-out faces, {name} ({len(chosen)})"] = (
            f"{(truth == read).mean():.3f} / {recall.mean():.3f}"
        )
        lines = ["", "", f"  | true \\ read, {name} | {' | '.join(names)} |", f"  |---|{'---|' * len(names)}"]
        lines += [f"  | {names[k]} | {' | '.join(map(str, counts[k]))} |" for k in range(len(names)) if there[k]]
        report[f"confusion, {name}"] = "\n".join(lines) + "\n"
    return report


def finish_landmarks(network: MeasuringNetwork, crops: CropSet, config: DictConfig) -> dict[str, object]:
    points, split = wild_points(crops, config), crops.column("split")
    side = network.config.resolution
    chosen = np.flatnonzero(np.isfinite(points).all((1, 2)) & np.isin(split, HELD_OUT))
    found = outputs(crops, chosen, side, lambda x: network(x)["points"]).numpy()
    truth = points[chosen]
    eyes = np.linalg.norm(truth[:, 42:48].mean(1) - truth[:, 36:42].mean(1), axis=1)
    error = np.linalg.norm(found - truth, axis=2).mean(1) / eyes
    report: dict[str, object] = {
        f"error against the labels a model made, held-out wild faces ({len(chosen)}), eye distances": (
            f"mean {error.mean():.4f}, median {np.median(error):.4f}"
        )
    }
    root = Path(config.data.root) / config.data.sets.london.path
    with (root / "landmarks.csv").open(newline="", encoding="utf-8") as file:
        placed = {row[0]: np.array(row[1:], float).reshape(-1, 2) for row in csv.reader(file) if row[0] != "face_id"}
    chosen = crops.where(data="london", emotion="neutral")
    found = outputs(crops, chosen, side, lambda x: network(x)["points"]).numpy()
    errors = []
    for position, face in zip(chosen, found, strict=True):
        row = crops.rows[position]
        truth = to_crop(placed[row["person"]], row["matrix"], config.data.resolution)
        eyes = np.linalg.norm(truth[1] - truth[0])
        errors.append([np.linalg.norm(face[i] - truth[j]) / eyes for i, j in PLACED.items()])
    errors = np.array(errors)
    numbers = np.array(list(PLACED))
    for part, (low, high) in {"eyes": (36, 47), "lips": (48, 67), "chin": (8, 8)}.items():
        inside = (numbers >= low) & (numbers <= high)
        report[f"error against points people placed, London neutral ({len(chosen)}), {part}, pupil distances"] = round(
            float(errors[:, inside].mean()), 4
        )
    return report


def finish_perceptual(network: PerceptualNetwork, crops: CropSet, config: DictConfig) -> dict[str, object]:
    data, split = crops.column("data"), crops.column("split")
    side = network.config.resolution
    rng = np.random.default_rng(0)
    pool = np.flatnonzero((data == "wild") & np.isin(split, TRAINED_ON))
    first, second = (crops.pixels(rng.choice(pool, min(1024, len(pool)), replace=False), side) for _ in range(2))
    calibrate(network, first, second)
    held = np.flatnonzero((data == "wild") & np.isin(split, HELD_OUT))
    x = crops.pixels(held, side)
    other = crops.pixels(rng.permutation(held), side)
    how = {
        "blur": lambda x, s: F.avg_pool2d(F.pad(x, [s] * 4, mode="reflect"), 2 * s + 1, 1),
        "noise": lambda x, s: (x + 0.06 * s * torch.randn(x.shape, generator=torch.Generator().manual_seed(s))).clamp(
            -1, 1
        ),
        "shift": lambda x, s: x.roll(s, -1),
        "light": lambda x, s: x * 0.9**s,
        "another face": lambda x, s: x + 0.12 * s * (other - x),
    }

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat([network.distance(p, q) for p, q in zip(a.split(128), b.split(128), strict=True)])

    report: dict[str, object] = {}
    means = {name: [float(distance(x, change(x, s)).mean()) for s in (1, 2, 3)] for name, change in how.items()}
    for name, values in means.items():
        report[f"distance under growing {name} (3 steps)"] = ", ".join(f"{v:.3f}" for v in values)
    report["1 - SSIM under growing light (3 steps), to compare"] = ", ".join(
        f"{float((1 - ssim(x, how['light'](x, s))).mean()):.3f}" for s in (1, 2, 3)
    )
    person, _ = person_numbers(crops)
    pairs = [(i, j) for i in range(len(held)) for j in range(i + 1, len(held)) if person[held[i]] == person[held[j]]]
    chosen = np.array(pairs)[rng.permutation(len(pairs))[:500]]
    same = distance(x[chosen[:, 0]], x[chosen[:, 1]])
    others = distance(x[chosen[:, 0]], x[rng.permutation(chosen[:, 1])])
    labels = np.r_[np.ones(len(same), bool), np.zeros(len(others), bool)]
    report["mean distance, held-out people: another picture of the same person / another person"] = (
        f"{float(same.mean()):.2f} / {float(others.mean()):.2f}"
    )
    auc = binary_auroc(-torch.cat([same, others]).double(), torch.from_numpy(labels).int())
    report["AUC of same against another person"] = round(float(auc), 3)
    return report


ROLES = {
    "identity": "identity metric",
    "expression": "expression metric",
    "landmarks": "68 landmarks",
    "perceptual": "perceptual distance",
    "guidance": "guidance classifier, second opinion on candidates",
}
FER = "Apache-2.0; trained with FER-2013: research use"
LICENCES = {"identity": "Apache-2.0", "expression": FER, "landmarks": "Apache-2.0", "perceptual": FER, "guidance": FER}

FINISH = {
    "identity": finish_identity,
    "expression": finish_expression,
    "landmarks": finish_landmarks,
    "perceptual": finish_perceptual,
    "guidance": finish_expression,
}


def finish_stage(config: DictConfig) -> None:
    """Metrics on held-out people, the card and the finished folder."""
    name = config.network.name
    parts = NetworkConfig(**OmegaConf.to_container(config.network.config, resolve=True))
    state = torch.load(Path(config.work) / "network.pt", weights_only=True)
    if name == "perceptual":  # the heads only serve training; a distance needs the trunk alone
        network = PerceptualNetwork(replace(parts, heads={}, emotions=()))
        state = {key: value for key, value in state.items() if not key.startswith("heads.")}
        state["layer_weights"] = network.layer_weights
    else:
        network = MeasuringNetwork(parts)
    network.load_state_dict(state)
    network.eval().requires_grad_(False)
    report = FINISH[name](network, CropSet(config.data.crops), config)
    numbers = "\n".join(f"- {title}: {value}" for title, value in report.items())
    card = (Path(__file__).parent / "cards" / f"{name}.md").read_text("utf-8").replace("{numbers}", numbers)
    steps, batch = config.network.trainer.steps, config.network.batch_size
    state = torch.load(Path(config.work) / "state.pt", weights_only=True, mmap=True)
    minutes = state["seconds"] / 60
    cost = f"{steps:,} steps of {batch} pictures, {minutes:.0f} minutes on one CPU core beside other work"
    card = card.replace("{cost}", cost)
    network.save_pretrained(Path(config.output), card=card, role=ROLES[name], licence=LICENCES[name])
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_metrics")
def main(config: DictConfig) -> None:
    stages = {"prepare": prepare_stage, "train": train_stage, "finish": finish_stage}
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)

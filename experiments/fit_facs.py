"""Make ``checkpoints/facs``: action units as movements of landmarks (a minute on one core).

    python experiments/fit_facs.py --data /path/to/data

Two units are measured. AU12 is the median way of the mouth from the neutral to the smiling photograph of the same
people, brought to the strength of the widest smiles among them; AU26 has the shape of the lower face of surprised
people in photographs from the web, turned heads and nods regressed out. The others are anatomy: which landmarks a
muscle moves where, in hundredths of the distance between the pupils (about 0.6 mm), at the strongest that FACS codes
(E). Class means of photographs from the web do not show brows and lids: a model estimated their landmarks.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from emoedit.editors import Editor
from emoedit.faces.align import align
from emoedit.faces.curves import smoothstep
from emoedit.faces.detect import FaceDetector
from emoedit.faces.landmarks import landmark_finder
from emoedit.models.landmarks.backbone import LandmarkBackbone, LandmarksConfig
from emoedit.steering.unit_names import UNITS
from emoedit.steering.units import ActionUnits, face_shape
from emoedit.types import CropSpec, DataError

Table = Mapping[int, tuple[float, float]]

# The half of the face that lies left in the picture, and its middle; the other half mirrors it. x to the right, y down.
ANATOMY: dict[int, Table] = {
    1: {21: (1, -11), 20: (1, -9), 19: (0, -5), 18: (0, -1.5), 37: (0, -0.5), 38: (0, -1)},
    2: {17: (0, -9), 18: (-0.5, -12), 19: (0, -10), 20: (0, -4), 21: (0, -1.5), 37: (0, -1), 38: (0, -0.5)},
    4: {21: (6, 8), 20: (5, 8.5), 19: (3.5, 7), 18: (2, 4), 17: (1, 1.5), 37: (0, 0.7), 38: (0, 1)},
    5: {37: (0, -3.5), 38: (0, -3.5)},
    6: {36: (0.5, -0.5), 41: (0.3, -3.5), 40: (0, -2.8), 37: (0, 0.8), 17: (0, 1.5), 18: (0, 1)},
    7: {41: (0, -3), 40: (0, -3), 37: (0, 1.6), 38: (0, 1.6), 39: (0.3, 0)},
    9: {31: (-1, -5), 32: (-0.5, -4), 33: (0, -3), 21: (2, 5), 20: (1.5, 4), 19: (0.5, 2), 41: (0, -2), 40: (0, -2.5),
        49: (0, -3), 50: (0, -5), 51: (0, -4.5), 61: (0, -4), 62: (0, -3.5)},
    10: {31: (-1, -2.5), 32: (-0.3, -1.5), 49: (-0.5, -5), 50: (0, -8), 51: (0, -7), 61: (0, -7), 62: (0, -6),
         48: (0, -1), 60: (0, -1)},
    14: {48: (-3.5, -1.2), 60: (-3, -1), 49: (-1.5, 0), 59: (-1.5, -0.5)},
    15: {48: (-2, 7.5), 60: (-1.5, 6.5), 49: (-0.8, 4), 59: (-1, 4), 50: (0, 1.2), 58: (0, 1),
         61: (0, 1.2), 67: (0, 1.2)},
    16: {57: (0, 7), 58: (-0.5, 6), 59: (-0.5, 2.5), 66: (0, 6), 67: (0, 5)},
    17: {57: (0, -6), 58: (0, -5.5), 59: (0, -2.5), 66: (0, -4), 67: (0, -3.5), 62: (0, -3.5), 61: (0, -3),
         51: (0, -3.5), 50: (0, -3), 49: (0, -1), 48: (0, 1.5), 60: (0, 1), 8: (0, -3.5), 7: (0, -2.5)},
    20: {48: (-9, 2), 60: (-8, 2), 49: (-5, 1), 59: (-5, 2), 50: (-2, 0.5), 58: (-2, 1.5), 61: (-2, 0.3), 67: (-2, 1)},
    23: {48: (3.5, 0), 60: (3, 0), 49: (2, 1.6), 59: (2, -1.6), 50: (0.8, 2.8), 58: (0.8, -3), 51: (0, 2.8),
         57: (0, -3.2)},
    24: {49: (0.8, 2.4), 50: (0.3, 4), 51: (0, 4), 59: (0.8, -2.5), 58: (0.3, -4.5), 57: (0, -4.8), 61: (0, 0.8),
         62: (0, 1), 67: (0, -0.8), 66: (0, -1)},
    25: {49: (0, -0.6), 50: (0, -1.8), 51: (0, -2), 61: (0, -2.2), 62: (0, -2.4), 59: (0, 2), 58: (0, 5), 57: (0, 5.5),
         67: (0, 5.2), 66: (0, 5.8)},
    27: {48: (3.5, 14), 60: (3.5, 14), 49: (2, 4), 50: (0.5, -1), 51: (0, -1.5), 61: (0.5, -1), 62: (0, -1.5),
         59: (2, 28), 58: (1, 34), 57: (0, 35), 67: (1, 34), 66: (0, 35),
         8: (0, 33), 7: (0, 32), 6: (0, 30), 5: (0.5, 24), 4: (0.5, 14), 3: (0, 6)},
    43: {37: (0, 12), 38: (0, 12), 41: (0, -1), 40: (0, -1)},
}  # fmt: skip
# EMFACS: the units an emotion shows, and how strongly at strength 1. Contempt is one-sided. Of seven sums for anger and
# five for surprise, tried on 12 London people marked ``fit``, these were read best for the identity they keep: anger
# has the chin (17) and the corners of the mouth (15) of a pressed mouth in place of widened eyes (5).
SUMS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"AU6": 0.8, "AU12": 0.9, "AU25": 0.7},
    "sad": {"AU1": 1.0, "AU4": 0.6, "AU15": 0.9, "AU17": 0.6, "AU43": 0.15},
    "angry": {"AU4": 1.4, "AU7": 0.5, "AU15": 0.8, "AU17": 0.8, "AU23": 0.8},
    "surprised": {"AU1": 0.6, "AU2": 0.6, "AU5": 1.0, "AU26": 0.9, "AU27": 0.2},
    "fearful": {"AU1": 1.0, "AU2": 0.5, "AU4": 0.7, "AU5": 1.0, "AU7": 0.3, "AU20": 0.7, "AU26": 0.4},
    "disgusted": {"AU9": 1.1, "AU10": 0.4, "AU15": 0.5, "AU16": 0.2, "AU17": 0.8},
    "contempt": {"AU12R": 0.6, "AU14R": 0.9},
}
LANDMARK_ERROR = 0.02  # in distances between the pupils
JAW_DROP, WIDEST = 20.0, 0.9  # AU26: how far the lower lip goes; AU12: quantile of the smiles that are its strength
MIRROR = np.array([
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
])  # fmt: skip
STILL = [27, 28, 29, 30, 36, 39, 42, 45]  # bridge of the nose and corners of the eyes: what no expression moves
POSE = [*STILL, 0, 1, 15, 16]  # landmarks that show how the head is turned
LOWER_FACE = [*range(2, 15), *range(48, 68)]
CROP = CropSpec(96, "stable", 0.66, 0.074)
SIDED_BY = 0.12  # from the middle of the face, in distances between the pupils: what lies further belongs to one half


def symmetric(moves: np.ndarray) -> np.ndarray:
    """Displacements ``[68, 2]`` that are the same in a mirror."""
    return (moves + moves[MIRROR] * [-1, 1]) / 2


def whitener(neutral: np.ndarray) -> np.ndarray:
    """Whitening matrix ``[136, 136]`` of the differences between neutral faces ``[N, 68, 2]``."""
    away = (neutral - neutral.mean(0)).reshape(len(neutral), -1)
    covariance = away.T @ away / len(away) + LANDMARK_ERROR**2 * np.eye(away.shape[1])
    return np.linalg.cholesky(np.linalg.inv(covariance)).T


def london(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of people marked ``fit``: neutral and smiling, ``[N, 68, 2]`` each."""
    detector, finder = FaceDetector(), landmark_finder("cpu")
    found: dict[str, list[np.ndarray]] = {"neutral": [], "smiling": []}
    with (root / "info.csv").open(newline="") as file:
        people = [row["face_id"] for row in csv.DictReader(file) if row["split"] == "fit"]
    for person in people:
        for kind, points in found.items():
            picture = np.asarray(Image.open(root / kind / f"{person}.jpg").convert("RGB").resize((384, 384)))
            face = detector.choose(picture, "largest")[0]
            alignment = align(face.landmarks, CROP)
            points.append(face_shape(finder([alignment.crop(picture).astype(np.float32)], alignment, face)[0]))
    return np.array(found["neutral"]), np.array(found["smiling"])


def web_landmarks(root: Path) -> dict[str, np.ndarray]:
    """Landmarks of labelled photographs, label -> ``[N, 68, 2]``."""
    with (root / "labels.csv").open(newline="") as file:
        labels = {row["image"]: row["emotion"] for row in csv.DictReader(file)}
    found: dict[str, list[np.ndarray]] = {}
    with (root / "landmarks68.csv").open(newline="") as file:
        for name, *numbers in csv.reader(file):
            values = np.array(numbers, float)[4:].reshape(73, 2)
            points = align(values[:5], CROP).to_crop(values[5:])
            found.setdefault(labels.get(name, ""), []).append(face_shape(points))
    return {label: np.array(rows) for label, rows in found.items()}


def class_moves(faces: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Label -> median displacement from the neutral face in the same pose, ``[68, 2]``: a ridge regression on neutral
    faces says where landmarks are in a pose."""

    def pose(points: np.ndarray) -> np.ndarray:
        flat = points[:, POSE].reshape(len(points), -1)
        return np.concatenate([np.ones((len(points), 1)), flat, flat[:, 6:8] ** 2], 1)

    neutral = faces["neutral"]
    seen = pose(neutral)
    weights = np.linalg.solve(seen.T @ seen + 1e-2 * np.eye(seen.shape[1]), seen.T @ neutral.reshape(len(neutral), -1))
    moves = {}
    for label, points in faces.items():
        rest = points.reshape(len(points), -1) - pose(points) @ weights
        moves[label] = symmetric(np.median(rest, 0).reshape(68, 2))
    return moves


def smile(neutral: np.ndarray, smiling: np.ndarray) -> np.ndarray:
    """AU12 ``[68, 2]``: the way of the lips without a nod and without their parting, as strong as the widest smiles."""
    moves = smiling - neutral
    moves = moves - moves[:, STILL].mean(1, keepdims=True)
    median = symmetric(np.median(moves, 0))
    corners = np.linalg.norm(
        moves[:, [48, 54]].mean(1) * [0, 1] + (moves[:, [54]] - moves[:, [48]])[:, 0] / 2 * [1, 0], axis=-1
    )
    unit = np.zeros((68, 2))
    unit[31:36], unit[48:68] = median[31:36], median[48:68]
    for upper, lower in ((61, 67), (62, 66), (63, 65), (50, 58), (51, 57), (52, 56)):  # AU25 parts them
        parted = unit[lower, 1] - unit[upper, 1]
        unit[upper, 1] += parted / 2
        unit[lower, 1] -= parted / 2
    return unit * float(np.quantile(corners, WIDEST) / np.linalg.norm(unit[48]))


def units(smile_unit: np.ndarray, jaw: np.ndarray) -> np.ndarray:
    """Every unit's displacements, ``[20, 68, 2]`` in distances between the pupils."""
    rows = []
    for number in UNITS:
        moves = np.zeros((68, 2))
        for landmark, way in ANATOMY.get(number, {}).items():
            moves[landmark] = np.array(way) / 100
            moves[MIRROR[landmark]] = moves[landmark] * [-1, 1]
        moves[[8, 27, 28, 29, 30, 33, 51, 57, 62, 66], 0] = 0  # the middle goes up and down only
        rows.append({12: smile_unit, 26: jaw}.get(number, moves))
    return np.array(rows)


def agreement(steering: ActionUnits, moves: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Cosine between an emotion's sum of units and what was measured of it, over the lower face."""
    table = steering._activations().mean(-1).numpy() @ steering.displacements.numpy().reshape(len(UNITS), -1)
    result = {}
    for name, measured in moves.items():
        a = table[steering.emotions.index(name)].reshape(68, 2)[LOWER_FACE].ravel()
        b = measured[LOWER_FACE].ravel()
        result[name] = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return result


def main() -> None:
    """Fit, check, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with london-pairs and expressions-in-the-wild")
    parser.add_argument("--output", type=Path, default=Path("checkpoints/facs"))
    args = parser.parse_args()
    neutral, smiling = london(args.data / "london-pairs")
    if not len(neutral):
        raise DataError(f"{args.data / 'london-pairs'} has no people marked 'fit'")
    faces = web_landmarks(args.data / "expressions-in-the-wild")
    web, plain = class_moves(faces), np.concatenate([faces["neutral"], neutral])
    plain = np.concatenate([plain, plain[:, MIRROR] * [-1, 1]])
    smile_unit = smile(neutral, smiling)
    jaw = np.zeros((68, 2))
    jaw[LOWER_FACE] = web["surprise"][LOWER_FACE]
    jaw *= JAW_DROP / 100 / jaw[66, 1]
    mean = symmetric(neutral.mean(0))
    left = smoothstep(mean[:, 0], -SIDED_BY, SIDED_BY)
    rounded = np.round(units(smile_unit, jaw), 4).astype(np.float16)
    left = torch.from_numpy(left.astype(np.float16)).float()
    statistics = [torch.from_numpy(part).float() for part in (plain.mean(0), whitener(plain))]
    steering = ActionUnits(SUMS, torch.from_numpy(rounded.astype(np.float32)), left, *statistics)
    pairs = smiling - neutral
    measured = {
        "happy": symmetric(np.median(pairs - pairs[:, STILL].mean(1, keepdims=True), 0)),
        "surprised": web["surprise"],
        "angry": web["anger"],
        "sad": web["sadness"],
    }
    found = agreement(steering, measured)
    print("cosine with what was measured, lower face:", {name: round(value, 2) for name, value in found.items()})
    card = (Path(__file__).parent / "cards" / "facs.md").read_text(encoding="utf-8")
    for name, value in found.items():
        card = card.replace(f"{{{name}}}", f"{value:.2f}")
    editor = Editor(LandmarkBackbone(LandmarksConfig()), [steering], name="facs")
    editor.save_pretrained(
        args.output, card=card, role="action units, without a model", licence="Apache-2.0; statistics of research data"
    )
    print("wrote", args.output)


if __name__ == "__main__":
    main()

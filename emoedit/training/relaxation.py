"""Pairs of a smiling and a neutral photograph of one person, for the network that takes smiles out of landmarks."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from emoedit.faces.align import align
from emoedit.nn.relaxation import POINTS, RelaxationConfig, RelaxationNetwork
from emoedit.types import CropSpec, DataError

RIGID = [36, 39, 42, 45, 27, 28, 29, 30, 31, 33, 35]  # corners of the eyes and nose: what a smile hardly moves
TURNED, ALIKE = 0.35, 0.12  # the nose's way from between the eyes, their distance being 1: at most, and between two
EACH = 4  # photographs of a person's smile, and of their neutral face, at most
# Which landmark is which in a mirror image.
MIRROR = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
]


def read_pairs(folder: Path, config: RelaxationConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Landmarks of smiling faces and how they go to the same person's neutral ones; neutral faces stay.

    Args:
        folder: with ``labels.csv`` (image, emotion, person) and ``landmarks68.csv`` (image, box, five points, 68
            points).
        config: of the network.

    Returns:
        Landmarks ``[N, 68, 2]`` in fractions of the crop's side from its centre, displacements ``[N, 68, 2]``, and the
        number of the person ``[N]``.

    Raises:
        DataError: a file that is missing or of another form, or no pairs in it.
    """
    people = _by_person(folder, config)
    faces, moves, persons = [], [], []
    for number, found in enumerate(people.values()):
        for face in found["happiness"][:EACH]:
            for other in found["neutral"][:EACH]:
                if abs(_turn(face) - _turn(other)) < ALIKE and abs(_turn(face)) < TURNED:
                    faces.append(face)
                    moves.append(_turned_like(other, face) - face)
                    persons.append(number)
        for face in found["neutral"][: EACH // 2]:
            if abs(_turn(face)) < TURNED:
                faces.append(face)
                moves.append(np.zeros_like(face))
                persons.append(number)
    if not any(np.abs(move).max() > 0 for move in moves):
        raise DataError(f"{folder}: nobody who is both smiling and neutral")
    return np.array(faces), np.array(moves), np.array(persons)


def _by_person(folder: Path, config: RelaxationConfig) -> dict[str, dict[str, list[np.ndarray]]]:
    """Aligned landmarks of every person's smiling and neutral photographs."""
    spec = CropSpec(128, "stable", config.scale, config.down)
    people: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    try:
        with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
            labels = {row["image"]: row for row in csv.DictReader(file)}
        with (folder / "landmarks68.csv").open(newline="", encoding="utf-8") as file:
            for name, *values in csv.reader(file):
                row, numbers = labels.get(name), np.array(values, float)
                five, points = numbers[4:14].reshape(5, 2), numbers[14:].reshape(POINTS, 2)
                if row is None or not row["person"] or five[1, 0] <= five[0, 0]:
                    continue
                aligned = (align(five, spec).to_crop(points) + 0.5) / spec.resolution - 0.5
                people[row["person"]][row["emotion"]].append(aligned)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{folder}: labels.csv and landmarks68.csv cannot be read: {error}") from error
    return people


def _turned_like(face: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Landmarks moved by the affine map that brings what is rigid of them onto another face's."""
    source = np.c_[face, np.ones(POINTS)]
    return source @ np.linalg.lstsq(source[RIGID], other[RIGID], rcond=None)[0]


def _turn(face: np.ndarray) -> float:
    """How far a head is turned: the way of the nose's tip from between the eyes, their distance being 1."""
    left, right = face[36:42].mean(0), face[42:48].mean(0)
    return float((face[30, 0] - (left[0] + right[0]) / 2) / max(abs(right[0] - left[0]), 1e-6))


def fit_relaxation(
    network: RelaxationNetwork, faces: Tensor, moves: Tensor, *, steps: int, batch_size: int, seed: int = 0
) -> None:
    """Train the network in place.

    Args:
        network: with fresh weights.
        faces: ``[N, 68, 2]`` landmarks.
        moves: ``[N, 68, 2]`` displacements.
        steps: of AdamW; the learning rate falls over the second half.
        batch_size: pairs a step.
        seed: of batches, mirror images and noise.
    """
    network.mean.copy_(faces.flatten(1).mean(0))
    network.deviation.copy_(faces.flatten(1).std(0))
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    flip = torch.tensor([-1.0, 1.0])
    network.train()
    for step in tqdm(range(steps), desc="relaxation", leave=False):
        pick = torch.randint(len(faces), (batch_size,))
        mirrored = (torch.rand(batch_size) < 0.5)[:, None, None]
        x, y = (torch.where(mirrored, v[pick][:, MIRROR] * flip, v[pick]) for v in (faces, moves))
        loss = (network(x + 0.003 * torch.randn_like(x)) - y).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - step / steps))
    network.eval()

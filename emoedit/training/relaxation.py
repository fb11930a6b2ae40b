"""Pairs of a smiling and a neutral photograph of one person, for training the relaxation network."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from emoedit.compositing.relaxing import SMILE, close_lips, neutral_movement
from emoedit.faces.align import FFHQ_POINTS, Alignment
from emoedit.faces.analysis import FaceAnalysis, Finders, analyse
from emoedit.faces.curves import smoothstep
from emoedit.faces.detect import Face
from emoedit.faces.landmarks import landmark_finder
from emoedit.faces.layout import CORNERS, INNER, PAIRS
from emoedit.faces.masks import face_masks
from emoedit.faces.tone import Tone
from emoedit.nn.relaxation import POINTS, RelaxationNetwork
from emoedit.training.data import CropSet
from emoedit.types import CropSpec, DataError

RIGID = [36, 39, 42, 45, 27, 28, 29, 30, 31, 33, 35]  # corners of the eyes, and nose: a smile hardly moves them
TURNED, ALIKE = 0.35, 0.12  # largest turn of a head (``_turn``), and largest difference within a pair
EACH = 4  # largest number of smiling, and of neutral, photographs of a person
JITTER = 0.003  # in crop sides: noise added to landmarks, about the landmark network's error
# Index of each landmark's counterpart in a mirror image.
MIRROR = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
]


@dataclass(frozen=True)
class Pair:
    """A smiling and a neutral photograph of one person, turned alike; rows of prepared crops.

    Args:
        smiling: the row of the smile.
        neutral: the row of the neutral face.
    """

    smiling: int
    neutral: int


def crop_as_photo(side: int, spec: CropSpec) -> tuple[Face, Alignment]:
    """A prepared crop as a photograph: the face in it, and the alignment that leaves the crop unchanged.

    Args:
        side: side of the crop in pixels.
        spec: its crop; the resolution is ignored.
    """
    k = side / spec.scale
    points = FFHQ_POINTS * k + (side - 1) / 2 - np.array([0, spec.down * k])
    still = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return Face((0.0, 0.0, float(side), float(side)), points, 1.0), Alignment(still, still.copy(), side)


def analyse_crop(crop: np.ndarray, spec: CropSpec) -> FaceAnalysis:
    """Analyse the face in a prepared crop.

    Args:
        crop: uint8 ``[R, R, 3]``.
        spec: the crop's alignment.
    """
    face, alignment = crop_as_photo(len(crop), spec)
    masks = face_masks(CropSpec(len(crop), spec.style, spec.scale, spec.down))
    return analyse(crop, face, alignment, masks, Tone(), Finders.on("cpu"))


def closed_crop(crop: np.ndarray, spec: CropSpec) -> np.ndarray:
    """A prepared crop, uint8 ``[R, R, 3]``, with the lips of the face together.

    Args:
        crop: uint8 ``[R, R, 3]``.
        spec: the crop's alignment.
    """
    crop = np.ascontiguousarray(crop)
    return close_lips(crop, analyse_crop(crop, spec))


def find_points(crops: CropSet, rows: np.ndarray, spec: CropSpec) -> np.ndarray:
    """Landmarks of prepared crops, ``[len(crops.rows), 68, 2]`` in fractions of the side from its centre.

    Args:
        crops: prepared crops.
        rows: rows whose landmarks are found; the others are NaN.
        spec: their crop.
    """
    side = crops.crops.shape[1]
    face, alignment = crop_as_photo(side, spec)
    found, finder = np.full((len(crops.rows), POINTS, 2), np.nan), landmark_finder("cpu")
    for row in tqdm(rows, desc="landmarks", leave=False):
        points = finder([np.asarray(crops.crops[row], np.float32)], alignment, face)[0]
        found[row] = (points + 0.5) / side - 0.5
    return found


def people_in_pairs(crops: CropSet, splits: list[str]) -> list[dict[str, list[int]]]:
    """Rows of every person who is both smiling and neutral, by emotion, at most ``EACH`` of one.

    Args:
        crops: prepared crops.
        splits: splits that are searched.

    Raises:
        DataError: no person has both.
    """
    people: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(crops.rows):
        if row["person"] and row["split"] in splits and row["emotion"] in ("happy", "neutral"):
            people[row["data"], row["person"]][row["emotion"]].append(number)
    both = [{k: rows[:EACH] for k, rows in found.items()} for found in people.values() if len(found) == 2]
    if not both:
        raise DataError(
            f"no person in {' or '.join(splits)} is both smiling and neutral: prepare pictures with persons"
        )
    return both


def find_pairs(points: np.ndarray, people: list[dict[str, list[int]]]) -> list[Pair]:
    """Photographs of one person whose heads are turned alike.

    Args:
        points: ``[N, 68, 2]`` from [find_points][emoedit.training.relaxation.find_points].
        people: result of [people_in_pairs][emoedit.training.relaxation.people_in_pairs].
    """
    turns = {row: _turn(points[row]) for found in people for rows in found.values() for row in rows}
    return [
        Pair(smiling, neutral)
        for found in people
        for smiling in found["happy"]
        for neutral in found["neutral"]
        if abs(turns[smiling]) < TURNED and abs(turns[smiling] - turns[neutral]) < ALIKE
    ]


def landmark_moves(
    points: np.ndarray, pairs: list[Pair], people: list[dict[str, list[int]]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training data: landmarks of smiles with displacements to neutral faces, and neutral faces with none.

    Args:
        points: ``[N, 68, 2]``.
        pairs: pairs of smiles and neutral faces.
        people: people whose neutral faces are added with no displacement, half of ``EACH`` a person.

    Returns:
        Landmarks ``[M, 68, 2]``, displacements ``[M, 68, 2]``, rows of the crops ``[M]``.
    """
    still = [row for found in people for row in found["neutral"][: EACH // 2] if abs(_turn(points[row])) < TURNED]
    moves = [_turned_like(points[pair.neutral], points[pair.smiling]) - points[pair.smiling] for pair in pairs]
    rows = np.array([pair.smiling for pair in pairs] + still)
    return points[rows], np.array(moves + [np.zeros_like(points[row]) for row in still]), rows


def neutral_landmarks(face: FaceAnalysis, network: RelaxationNetwork) -> np.ndarray:
    """Where the landmarks of a face are when it is neutral, as a network predicts it.

    Args:
        face: analysis of the face.
        network: predicts movements.

    Returns:
        ``[68, 2]`` in fractions of the side of the face's crop, from its upper left corner. Where teeth are seen, lips
        meet in a line of one bend; predicted ones are a little apart.
    """
    moves = neutral_movement(face, network)
    corners = float(np.linalg.norm(moves[list(CORNERS)], axis=-1).mean())
    points = (face.landmarks + 0.5) / len(face.crop) + float(smoothstep(corners, *SMILE)) * moves
    if face.opening is None:
        return points
    middles = np.array([(points[upper] + points[lower]) / 2 for upper, lower in PAIRS])
    inner = np.concatenate([points[[60, 64]], middles])
    line, ends = np.polyfit(inner[:, 0], inner[:, 1], 2), np.sort(inner[:2, 0])
    met = points.copy()
    met[INNER, 1] = np.polyval(line, np.clip(points[INNER, 0], *ends))
    return met


def rigid_map(face: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The affine map that fits a face's rigid landmarks to another's.

    Args:
        face: ``[68, 2]``.
        other: ``[68, 2]``.

    Returns:
        ``[2, 3]``.
    """
    source = np.c_[face, np.ones(POINTS)]
    fitted: np.ndarray = np.linalg.lstsq(source[RIGID], other[RIGID], rcond=None)[0].T
    return fitted


def _turned_like(face: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Landmarks after the affine map that fits their rigid ones to another face's."""
    return np.c_[face, np.ones(POINTS)] @ rigid_map(face, other).T


def _turn(face: np.ndarray) -> float:
    """How far a head is turned: the nose tip's horizontal distance from the middle of the eyes, in eye distances."""
    left, right = face[36:42].mean(0), face[42:48].mean(0)
    return float((face[30, 0] - (left[0] + right[0]) / 2) / max(abs(right[0] - left[0]), 1e-6))


def fit_relaxation(
    network: RelaxationNetwork,
    faces: Tensor,
    moves: Tensor,
    weights: Tensor,
    *,
    steps: int,
    batch_size: int,
    seed: int = 0,
) -> None:
    """Train the network in place by squared errors, which yield the mean; absolute errors fall short of it.

    Args:
        network: network with fresh weights.
        faces: ``[N, 68, 2]`` landmarks.
        moves: ``[N, 68, 2]`` displacements.
        weights: ``[N]``: relative frequency of each face.
        steps: number of steps of AdamW; the learning rate falls over the second half.
        batch_size: faces a step.
        seed: seed of batches, mirror images and noise.
    """
    network.mean.copy_(faces.flatten(1).mean(0))
    network.deviation.copy_(faces.flatten(1).std(0))
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    flip, scale = torch.tensor([-1.0, 1.0]), moves.square().mean()
    network.train()
    for step in tqdm(range(steps), desc="relaxation", leave=False):
        pick = torch.multinomial(weights, batch_size, replacement=True)
        mirrored = (torch.rand(batch_size) < 0.5)[:, None, None]
        x, y = (torch.where(mirrored, v[pick][:, MIRROR] * flip, v[pick]) for v in (faces, moves))
        loss = (network(x + JITTER * torch.randn_like(x)) - y).square().mean() / scale
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - step / steps))
    network.eval()

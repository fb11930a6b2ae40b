"""Matching pictures of an emotion with neutral pictures that are alike in person and pose.

Classes differ in more than the emotion: different people smile and frown. Plain differences of class means include
this, and an edit then removes a beard with the frown. So every picture of an emotion is compared with the neutral one
that is most like it in person and pose (nearest-neighbour matching, Rubin 1973, Biometrics 29; mostly the same person,
where both expressions are there).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.metrics.landmarks import mouth_shape
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.training.data import CropSet


@dataclass(frozen=True)
class CropReadings:
    """A recogniser's outputs for crops.

    Args:
        positions: ``[N]`` of the crops.
        scores: ``[N, E]`` probabilities of its emotions.
        person: ``[N, D]`` identity embeddings, of length 1.
        yaw: ``[N]``: how far the head is turned, to either side.
    """

    positions: np.ndarray
    scores: Tensor
    person: Tensor
    yaw: Tensor

    def __getitem__(self, chosen: np.ndarray) -> CropReadings:
        """The readings of a part of the crops (numbers, or a mask)."""
        rows = torch.from_numpy(np.arange(len(self.positions))[chosen])
        return CropReadings(self.positions[chosen], self.scores[rows], self.person[rows], self.yaw[rows])


@torch.no_grad()
def read_crops(
    network: MeasuringNetwork, crops: CropSet, positions: np.ndarray, *, batch_size: int = 128
) -> CropReadings:
    """Scores and people of crops.

    Args:
        network: network with the heads ``emotion`` and ``person``.
        crops: prepared crops.
        positions: indices into the crops.
        batch_size: pictures in one pass of the model.
    """
    scores, people = [], []
    for part in np.array_split(positions, max(1, len(positions) // batch_size)):
        found = network(crops.pixels(part, network.config.resolution))
        scores.append(found["emotion"].float().softmax(1))
        people.append(F.normalize(found["person"].float(), dim=1))
    yaw = np.abs(crops.column("yaw")[positions].astype(np.float32))
    return CropReadings(positions, torch.cat(scores), torch.cat(people), torch.from_numpy(yaw))


@torch.no_grad()
def mouth_opening(network: MeasuringNetwork, crops: CropSet, positions: np.ndarray) -> np.ndarray:
    """Between the lips, in eye distances (``emoedit.metrics.landmarks.mouth_shape``), ``[N]``.

    Args:
        network: network with the head ``points``.
        crops: prepared crops.
        positions: indices into the crops.
    """
    parts = np.array_split(positions, max(1, len(positions) // 128))
    points = torch.cat([network(crops.pixels(part, network.config.resolution))["points"] for part in parts])
    return mouth_shape(points)[:, 0].numpy()


def nearest_matches(pictures: CropReadings, among: CropReadings, *, turned: float = 2.0) -> np.ndarray:
    """For each picture the number of the one among others that is most like it, ``[N]``.

    Args:
        pictures: indices of the crops to compare with.
        among: indices of the crops that may be chosen.
        turned: how much a head turned by 1 further counts beside the cosine between people.
    """
    alike = pictures.person @ among.person.T - turned * (pictures.yaw[:, None] - among.yaw[None]).abs()
    return alike.argmax(1).numpy()

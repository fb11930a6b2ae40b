"""A recogniser of emotions that is no network: softmax regression on histograms of oriented gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from skimage.feature import hog
from torch import Tensor, nn

from emoedit.emotions import BASIC
from emoedit.training.data import CropSet
from emoedit.training.recipes import HELD_OUT, TRAINED_ON, choose
from emoedit.training.votes import agreement

SIDE = 64  # pixels that a face is read at


def histograms(x: Tensor) -> Tensor:
    """Histograms of oriented gradients (Dalal and Triggs 2005): 8 directions in cells of 8 pixels, ``[N, D]``.

    Args:
        x: ``[N, C, R, R]``.
    """
    small = F.interpolate(x.float().mean(1, keepdim=True), (SIDE, SIDE), mode="bilinear", antialias=True)[:, 0]
    rows = [hog(face, orientations=8, pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for face in small.cpu().numpy()]
    return torch.from_numpy(np.stack(rows)).float()


def agreed_pictures(crops: CropSet, how: Mapping[str, Any], splits: tuple[str, ...]) -> tuple[np.ndarray, Tensor]:
    """Pictures on which people agree, and what they show, as numbers in ``BASIC``.

    Args:
        crops: with ``votes``.
        how: ``data`` (the set), ``agreement`` (share of the votes), ``least`` (of other emotions).
        splits: splits of the pictures.
    """
    positions, labels = [], []
    for number, emotion in enumerate(BASIC):
        for position in choose(crops, how["data"], [emotion], len(crops.rows), splits):
            votes = [int(value) for value in (crops.rows[position].get("votes") or "").split()]
            if votes and agreement(votes) >= how["least"].get(emotion, how["agreement"]) - 1e-9:
                positions.append(position)
                labels.append(number)
    return np.array(positions, int), torch.tensor(labels)


class GradientRecogniser(nn.Module):
    """Reads the basic emotions.

    Args:
        mean: mean of histograms, ``[D]``.
        deviation: deviation of histograms, ``[D]``.
        weights: ``[D, 7]``.
        bias: ``[7]``.
    """

    emotions = BASIC

    def __init__(self, mean: Tensor, deviation: Tensor, weights: Tensor, bias: Tensor) -> None:
        super().__init__()
        for name, value in {"mean": mean, "deviation": deviation, "weights": weights, "bias": bias}.items():
            self.register_buffer(name, value)

    def scores(self, x: Tensor) -> Tensor:
        """Probabilities of the emotions, ``[N, 7]``, of faces ``[N, C, R, R]`` in aligned crops."""
        return (((histograms(x) - self.mean) / self.deviation) @ self.weights + self.bias).softmax(1)

    @classmethod
    def fitted(cls, crops: CropSet, how: Mapping[str, Any]) -> Self:
        """Fitted to pictures of the training split, every emotion counting the same.

        Args:
            crops: see [agreed_pictures][].
            how: what [agreed_pictures][] takes, and ``penalty`` on squared weights, a picture.
        """
        positions, labels = agreed_pictures(crops, how, TRAINED_ON)
        x = histograms(crops.pixels(positions, SIDE))
        mean, deviation = x.mean(0), x.std(0) + 1e-3
        x = (x - mean) / deviation
        share = 1 / torch.bincount(labels, minlength=len(BASIC)).clamp_min(1).float()
        weights = torch.zeros(x.shape[1], len(BASIC), requires_grad=True)
        bias = torch.zeros(len(BASIC), requires_grad=True)
        optimizer = torch.optim.LBFGS([weights, bias], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(x @ weights + bias, labels, weight=share)
            value = value + how["penalty"] / len(x) * weights.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return cls(mean, deviation, weights.detach(), bias.detach())

    def accuracy(self, crops: CropSet, how: Mapping[str, Any]) -> float:
        """Share of held-out pictures that are read right."""
        positions, labels = agreed_pictures(crops, how, HELD_OUT)
        return float((self.scores(crops.pixels(positions, SIDE)).argmax(1) == labels).float().mean())

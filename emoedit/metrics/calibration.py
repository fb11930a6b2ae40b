"""Calibration of a recogniser's probabilities by temperature scaling."""

from __future__ import annotations

from typing import Any

import numpy as np

from emoedit.types import DataError

RANGE = (0.05, 20.0)  # of temperatures that are looked through
LEAST = 1e-12  # a probability that was rounded to 0


def temperature_scale(scores: Any, temperature: float) -> np.ndarray:
    """Scores at another temperature: softmax(z / T) for scores softmax(z).

    Guo et al. 2017 (arXiv 1706.04599), equation 9. The order of classes stays.

    Args:
        scores: ``[..., E]``, probabilities over the last axis.
        temperature: above 0; below 1 sharpens the distribution.

    Raises:
        DataError: a temperature that is not above 0, or scores below 0.
    """
    p = np.asarray(scores, float)
    if not temperature > 0 or not (p >= 0).all():
        raise DataError(f"a temperature is above 0 and scores are not below it, found {temperature!r} and {p.min()!r}")
    logs = np.log(np.maximum(p, LEAST)) / temperature
    powers = np.exp(logs - logs.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def calibrating_temperature(scores: Any, labels: Any) -> float:
    """The temperature at which scores explain labels best: the least negative log likelihood (Guo et al., section 4.2).

    Args:
        scores: ``[N, E]`` probabilities.
        labels: ``[N]`` numbers of the true classes.

    Raises:
        DataError: no labels, or shapes that do not fit.
    """
    p, labels = np.asarray(scores, float), np.asarray(labels)
    if p.ndim != 2 or labels.shape != p.shape[:1] or not len(p):
        raise DataError(f"expected scores [N, E] and labels [N], found {p.shape} and {labels.shape}")
    rows = np.arange(len(p))

    def loss(log_temperature: float) -> float:
        return -float(np.log(np.maximum(temperature_scale(p, np.exp(log_temperature))[rows, labels], LEAST)).mean())

    # Convex in 1 / T, so that it falls and rises once: golden-section search (Kiefer 1953).
    low, high = np.log(RANGE)
    golden = (np.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))

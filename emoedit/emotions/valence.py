"""Russell's circumplex: emotions as points of valence and arousal."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from emoedit.emotions.names import get
from emoedit.emotions.vocabulary import BASIC, EMOTIONS
from emoedit.types import EditError

NEAR = 0.22  # of valence and arousal: how far around a point emotions have a say in what is shown there


def place(weights: Mapping[str, float]) -> tuple[float, float]:
    """Where a mixture of emotions lies on Russell's circumplex: the sum of their valences and arousals by weight.

    Args:
        weights: names or aliases of the vocabulary -> weight; probabilities that sum to 1 give a mean.

    Returns:
        Valence and arousal, not limited to [-1, 1].

    Raises:
        UnknownNameError: a name that the vocabulary does not have.
    """
    entries = [(get(name), weight) for name, weight in weights.items()]
    return sum(e.valence * weight for e, weight in entries), sum(e.arousal * weight for e, weight in entries)


def circumplex(valence: float, arousal: float, basic: Collection[str] = BASIC) -> dict[str, float]:
    """The emotion at a point of valence and arousal: a mean of the vocabulary around it, weighted by nearness.

    Neutral is at the middle. The mixture changes smoothly with the point.

    Args:
        valence: valence in [-1, 1], unpleasant to pleasant.
        arousal: arousal in [-1, 1], sleepy to activated.
        basic: the basic emotions to mix it from; emotions that need others have no say.

    Returns:
        Basic emotion -> weight.

    Raises:
        EditError: a point outside of the square.
    """
    if not (abs(valence) <= 1 and abs(arousal) <= 1):
        raise EditError(f"valence and arousal go from -1 to 1, not {valence:g}, {arousal:g}")
    mixture, total = dict.fromkeys((name for name in BASIC if name in basic and name != "neutral"), 0.0), 0.0
    for emotion in EMOTIONS:
        parts = emotion.mixture or ({} if emotion.name == "neutral" else {emotion.name: 1.0})
        if not set(parts) <= set(mixture):
            continue
        squared = (emotion.valence - valence) ** 2 + (emotion.arousal - arousal) ** 2
        near = math.exp(-squared / (2 * NEAR**2)) + 1e-12  # no point is without an emotion
        total += near
        for name, weight in parts.items():
            mixture[name] += near * weight
    return {name: weight / total for name, weight in mixture.items()}

"""Directions in a latent space, in closed form.

A direction is a difference of class means taken inside one data set (so that what differs between data sets, such as
blur or light, cancels), averaged over data sets, as in Larsen et al. 2016 (arXiv 1512.09300) and Haas et al. 2024.
A linear discriminant over the same means (Fisher 1936; shared covariance) measures the source's own expression, so that
"neutral" is an edit too and a smile is subtracted before sadness is added.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.steering.base import Steering, are_names
from emoedit.types import CheckpointError, Control, DataError, Edit, Inversion

FEW = 10  # pictures of a class, below which no mean is worth taking
PARTS = ("directions", "gain", "means", "readout", "offset", "distance")
UNSURE, SURE = 0.35, 0.7  # neutral faces of 57 people read as any one emotion with at most .37, nine in ten below .26
MOST_SHOWN = 2.0  # directions: what reads as more is an outlier, not an expression


class LatentDirections(Steering):
    """``shift`` = strength x (gain x direction of the target - the source's own expression).

    Args:
        emotions: names, E of them; ``"neutral"`` may be one: its direction is zero.
        directions: ``[E, D]``, from neutral to the emotion.
        gain: ``[E]``: multiple of the direction at strength 1; default 1 each.
        means: ``[E, D]``, from neutral to the mean of the emotion's class, which is subtracted from sources that show
            it.
        readout: ``[E, D]`` and ``[E]``: logits of the source's own expression, relative to neutral, are ``latent @
            readout.T + offset``.
        offset: as ``readout``.
        distance: ``[E]``: how far a logit rises from neutral to a class mean. These four come together; without them
            the source is taken to be neutral.

    Raises:
        CheckpointError: shapes that do not fit each other.
    """

    directions: Tensor
    gain: Tensor
    means: Tensor | None
    readout: Tensor | None
    offset: Tensor | None
    distance: Tensor | None

    def __init__(
        self,
        emotions: Sequence[str],
        directions: Tensor,
        gain: Tensor | None = None,
        means: Tensor | None = None,
        readout: Tensor | None = None,
        offset: Tensor | None = None,
        distance: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.emotions = tuple(emotions)
        if directions.ndim != 2 or len(directions) != len(self.emotions):
            raise CheckpointError(
                f"directions {tuple(directions.shape)} for {len(self.emotions)} emotions; expected [E, D]"
            )
        gain = torch.ones(len(directions)) if gain is None else gain
        each, all_of = (len(directions),), tuple(directions.shape)
        shapes = [None if part is None else tuple(part.shape) for part in (means, readout, offset, distance)]
        if shapes not in ([None] * 4, [all_of, all_of, each, each]) or gain.shape != each:
            raise CheckpointError(
                "means, readout, offset and distance come together as [E, D], [E, D], [E] and [E], gain is [E]; found "
                f"{shapes} and {tuple(gain.shape)} for {len(directions)} directions"
            )
        parts = (directions, gain, means, readout, offset, distance)
        for name, part in zip(PARTS, parts, strict=True):
            self.register_buffer(name, None if part is None else part.float())

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the weights (safetensors)."""
        checkpoints.write_part(folder, {"emotions": list(self.emotions)}, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or does not fit this class.
        """
        folder = Path(folder)
        config = checkpoints.read_json(folder / checkpoints.CONFIG)
        emotions = config.get("emotions")
        if not are_names(emotions):
            raise CheckpointError(
                f"{folder / checkpoints.CONFIG}: 'emotions' must be a list of names, found {emotions!r}"
            )
        state = checkpoints.read_weights(folder / checkpoints.WEIGHTS)
        if "directions" not in state:
            raise CheckpointError(
                f"{folder / checkpoints.WEIGHTS} holds no 'directions', only {', '.join(state) or 'nothing'}"
            )
        model = cls(emotions, **{name: tensor for name, tensor in state.items() if name in PARTS})
        checkpoints.check_state(model.state_dict(), state, folder / checkpoints.WEIGHTS)
        return model.eval()

    def shown(self, latent: Tensor) -> Tensor:
        """How much of each emotion the source shows, in lengths of its direction: ``[N, E]``, 0 to ``MOST_SHOWN``.

        Probabilities below ``UNSURE`` count as 0, so that neutral faces are not changed.
        """
        readout, offset, distance = self.readout, self.offset, self.distance
        if readout is None or offset is None or distance is None:  # all three, or none
            return latent.new_zeros(len(latent), len(self.emotions))
        logits = latent @ readout.T + offset
        sure = ((logits.softmax(1) - UNSURE) / (SURE - UNSURE)).clamp(0, 1)
        # Generalised least squares of the latent on the direction: 0 at neutral, 1 one whole direction away from it.
        amount = (logits + 0.5 * distance) / distance.clamp_min(1e-6)
        return torch.where(distance > 0, sure * amount.clamp(0, MOST_SHOWN), torch.zeros_like(sure))

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """The control for a batch of edits; see ``Steering.control``."""
        return Control(shift=self.shift(inversion, edits))

    def shift(self, inversion: Inversion, edits: Sequence[Edit]) -> Tensor:
        """How far edits move the latents of pictures, ``[N, D]``.

        Args:
            inversion: inversion of N pictures.
            edits: one for each picture.

        Raises:
            CheckpointError: latents of another length.
        """
        latent = inversion.latent
        if latent.shape[1:] != self.directions.shape[1:]:
            raise CheckpointError(
                f"these directions are for a latent of {tuple(self.directions.shape[1:])}, the backbone's is "
                f"{tuple(latent.shape[1:])}"
            )
        weights = self.weights(inversion, edits)
        return (weights * self.gain) @ self.directions - self.shown_part(latent, weights)

    def shown_part(self, latent: Tensor, weights: Tensor) -> Tensor:
        """The part of a shift that is subtracted because of the source's own expression, ``[N, D]``.

        Emotions that are shown are subtracted in proportion to the strength. Of a requested emotion only the missing
        part is added, so a smile is not doubled. A negative weight is applied in full.

        Args:
            latent: ``[N, D]`` of the source.
            weights: ``[N, E]``: strength times mixture weight.
        """
        if self.means is None:
            return torch.zeros_like(latent)
        strength = weights.abs().amax(1, keepdim=True) * torch.where(weights.sum(1, keepdim=True) < 0, -1.0, 1.0)
        shown = strength * self.shown(latent)
        ended = torch.where(weights == 0, shown, torch.zeros_like(shown)) @ self.means
        held = torch.minimum(shown, weights * self.gain)
        return ended + torch.where(weights > 0, held, torch.zeros_like(shown)) @ self.directions


@dataclass(frozen=True)
class ClassStatistics:
    """Class statistics of the latents of one data set.

    Args:
        counts: ``{emotion: n}``.
        means: ``{emotion: [D]}``.
        scatter: ``[D, D]``, summed within classes.
    """

    counts: Mapping[str, int]
    means: Mapping[str, Tensor]
    scatter: Tensor


def class_statistics(latents: Tensor, labels: Sequence[str]) -> ClassStatistics:
    """Counts, means and within-class scatter of ``[N, D]`` latents with N labels (in float64).

    Args:
        latents: ``[N, D]``.
        labels: N names of emotions.
    """
    latents = latents.double()
    counts: dict[str, int] = {}
    means: dict[str, Tensor] = {}
    scatter = latents.new_zeros(latents.shape[1], latents.shape[1])
    for emotion in sorted(set(labels)):
        rows = latents[torch.tensor([label == emotion for label in labels])]
        counts[emotion], means[emotion] = len(rows), rows.mean(0)
        centred = rows - means[emotion]
        scatter += centred.T @ centred
    return ClassStatistics(counts, means, scatter)


def project_out(directions: Tensor, share: float) -> Tensor:
    """Each direction minus a share of its projection onto the span of the others, at its old length.

    Args:
        directions: ``[E, D]``.
        share: 0 leaves them, 1 makes each orthogonal to all others.
    """
    out = []
    for i, direction in enumerate(directions):
        others = torch.cat([directions[:i], directions[i + 1 :]])
        basis = torch.linalg.qr(others.T).Q
        reduced = direction - share * basis @ (basis.T @ direction)
        out.append(reduced * direction.norm() / reduced.norm().clamp_min(1e-12))
    return torch.stack(out)


def suppress_within_class(directions: Tensor, covariance: Tensor, ridge: float) -> Tensor:
    """Each direction with the variation inside classes (pose, light, build) suppressed, at its old length.

    ``(covariance / mean variance + ridge)^-1 direction``.

    A large ridge leaves the mean difference, none gives Fisher's discriminant, which shows as noise.

    Args:
        directions: ``[E, D]``.
        covariance: ``[D, D]``, within classes.
        ridge: above 0.
    """
    scaled = covariance / covariance.diagonal().mean()
    turned = torch.linalg.solve(scaled + ridge * torch.eye(len(covariance), dtype=covariance.dtype), directions.T).T
    return turned * directions.norm(dim=1, keepdim=True) / turned.norm(dim=1, keepdim=True).clamp_min(1e-12)


def mean_differences(
    sets: Mapping[str, tuple[Mapping[str, int], Mapping[str, Tensor]]],
    emotions: Sequence[str],
    *,
    trust: Mapping[str, float],
    min_count: int = 20,
) -> Tensor:
    """From neutral to each emotion, ``[E, ...]``: differences of class means inside each data set.

    They are averaged over data sets by their inverse variance.

    Args:
        sets: data set -> (``{emotion: n}``, ``{emotion: mean}``).
        emotions: names of emotions.
        trust: data set -> weight of one of its pictures.
        min_count: data sets with fewer pictures of an emotion or of neutral are skipped for it.

    Raises:
        DataError: no data set has enough pictures of an emotion.
    """
    rows = []
    for emotion in emotions:
        total, weight_sum = None, 0.0
        for name, (counts, means) in sets.items():
            n, n_neutral = counts.get(emotion, 0), counts.get("neutral", 0)
            if min(n, n_neutral) < min_count:
                continue
            # The variance of a difference of means falls with the harmonic mean of the counts.
            weight = trust[name] * n * n_neutral / (n + n_neutral)
            difference = means[emotion] - means["neutral"]
            total = weight * difference if total is None else total + weight * difference
            weight_sum += weight
        if total is None:
            raise DataError(f"no data set has {min_count} pictures of {emotion!r} and of neutral")
        rows.append(total / weight_sum)
    return torch.stack(rows)


def _from_few(
    sets: Mapping[str, tuple[Mapping[str, int], Mapping[str, Tensor]]],
    emotions: Sequence[str],
    trust: Mapping[str, float],
    min_count: int,
) -> Tensor:
    """As ``mean_differences``, for emotions of which no data set has enough pictures.

    They are taken from the data sets that have ``FEW``, with a warning.

    Raises:
        DataError: none has even those.
    """
    rows = []
    for emotion in emotions:
        try:
            rows.append(mean_differences(sets, [emotion], trust=trust, min_count=min_count)[0])
        except DataError:
            if min_count <= FEW:
                raise
            rows.append(mean_differences(sets, [emotion], trust=trust, min_count=FEW)[0])
            warnings.warn(
                f"no data set has {min_count} pictures of {emotion!r} and of neutral: what the few people have in "
                "common beside it is fitted too",
                stacklevel=3,
            )
    return torch.stack(rows)


def fit_directions(
    sets: Mapping[str, ClassStatistics],
    emotions: Sequence[str],
    *,
    trust: Mapping[str, float],
    gains: Mapping[str, float],
    ridge: float = 1.0,
    projection: float = 0.0,
    shrinkage: float = 0.1,
    min_count: int = 20,
) -> LatentDirections:
    """Directions and readout from class statistics of several data sets.

    Args:
        sets: the data sets.
        emotions: the targets; ``"neutral"`` is put first.
        trust: data set -> weight of one of its pictures.
        gains: emotion -> factor of the mean difference at strength 1: the mean of a class is weaker than a face that
            plainly shows it.
        ridge: ``suppress_within_class``'s.
        projection: ``project_out``'s share.
        shrinkage: shrinkage of the within-class covariance towards a multiple of the identity (Friedman 1989), 0 to 1.
        min_count: data sets with fewer pictures of an emotion or of neutral are skipped for it; an emotion of which no
            data set has as many is fitted on those with ``FEW``, with a warning.

    Raises:
        DataError: no data set has enough pictures of an emotion.
    """
    targets = [name for name in emotions if name != "neutral"]
    numbers = {name: (stats.counts, stats.means) for name, stats in sets.items()}
    plain = _from_few(numbers, targets, trust, min_count)
    dimension = plain.shape[1]
    pooled = sum((trust[name] * stats.scatter for name, stats in sets.items()), torch.zeros(()))
    pooled = pooled / sum(trust[name] * sum(stats.counts.values()) for name, stats in sets.items())
    spread = pooled.diagonal().mean()
    covariance = (1 - shrinkage) * pooled + shrinkage * spread * torch.eye(dimension, dtype=pooled.dtype)
    # The readout is centred at the neutral faces of the most trusted data set.
    home = max(sets, key=lambda name: trust[name] * sets[name].counts.get("neutral", 0))
    neutral = sets[home].means["neutral"]
    readout = torch.linalg.solve(covariance, plain.T).T
    distance = (plain * readout).sum(1)  # squared Mahalanobis distance from neutral to each class mean
    offset = -readout @ neutral - 0.5 * distance
    gain = torch.tensor([gains.get(name, 1.0) for name in targets], dtype=plain.dtype)

    def with_neutral(rows: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(rows[:1]), rows]).float()

    parts = (
        project_out(suppress_within_class(plain, pooled, ridge), projection),
        gain,
        plain,
        readout,
        offset,
        distance,
    )
    return LatentDirections(["neutral", *targets], *map(with_neutral, parts))

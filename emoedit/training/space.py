"""Learning the emotion space from votes, and the map from its points to directions in a latent space.

The space: the votes on a picture (FER+, Barsoum et al. 2016, arXiv 1608.01041) can be predicted from its point, its
first coordinates are valence and arousal of the votes, and distances between points match those between votes.

The map, after EmoGen (Yang et al., CVPR 2024, arXiv 2401.04608): a neutral face, edited by the direction of a point,
has to be read as people voted on the pictures at that point, and to stay the same person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.emotions import BASIC, get, place
from emoedit.metrics.landmarks import eye_opening, mouth_shape
from emoedit.models.luminance import in_luminance
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.space import ORDERED, EmotionSpace
from emoedit.training.data import CropSet
from emoedit.training.guides import Guide
from emoedit.training.vae import region_weights
from emoedit.training.votes import distribution
from emoedit.types import DataError

OPENS = ("happy", "surprised", "fearful")  # emotions that open mouths and eyes
SPARED = ("person", "near", "outside")  # losses that cost nothing as far as a mixture has them, too
ORDER_SCALE = 2.0  # distance in the space of two pictures whose votes have nothing in common


def voted_pictures(crops: CropSet, splits: Sequence[str]) -> tuple[np.ndarray, Tensor]:
    """The crops of these splits that people voted on: positions ``[N]``, and shares of the emotions ``[N, 7]``.

    Args:
        crops: prepared crops.
        splits: names of splits.

    Raises:
        DataError: there is none.
    """
    positions, shares = [], []
    for position in np.flatnonzero(np.isin(crops.column("split"), list(splits))):
        votes = [int(value) for value in (crops.rows[position].get("votes") or "").split()]
        share = distribution(votes) if votes else np.zeros(len(BASIC))
        if share.sum():
            positions.append(position)
            shares.append(share)
    if not positions:
        raise DataError(f"no picture in {' or '.join(splits)} has votes: prepare configs/data/votes.yaml")
    return np.array(positions), torch.tensor(np.array(shares), dtype=torch.float32)


@torch.no_grad()
def pooled_features(
    network: MeasuringNetwork, crops: CropSet, positions: np.ndarray, *, mirror: bool = False
) -> Tensor:
    """The last feature map of each crop, averaged, ``[N, F]``.

    Args:
        network: the trunk that the space is read from.
        crops: prepared crops.
        positions: indices into them.
        mirror: whether to use their mirror images.
    """
    rows = []
    for part in np.array_split(positions, max(1, len(positions) // 128)):
        x = crops.pixels(part, network.config.resolution)
        rows.append(network.features(x.flip(-1) if mirror else x)[-1].mean((2, 3)).float())
    return torch.cat(rows)


def js_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of distributions ``[..., E]`` in bits, 0 to 1 (Lin 1991).

    Args:
        first: ``[..., E]``.
        second: as ``first``.
    """
    middle = (first + second) / 2

    def against(p: Tensor) -> Tensor:
        return (p * ((p + 1e-12) / (middle + 1e-12)).log2()).sum(-1)

    return (0.5 * (against(first) + against(second))).clamp(0, 1)


def mixture_votes(name: str) -> Tensor:
    """Votes that a name's mixture in the vocabulary predicts, ``[7]`` in the order of ``BASIC``.

    Negative weights are left out, and the rest to 1 is neutral.
    """
    entry = get(name)
    share = torch.tensor([max(entry.mixture.get(each, float(each == entry.name)), 0.0) for each in BASIC])
    share[0] = share[0] + (1 - share.sum()).clamp_min(0)
    return share / share.sum()


def nearest_votes(votes: Tensor, target: Tensor, count: int) -> Tensor:
    """The pictures whose votes are most like a distribution: numbers ``[count]``, nearest first.

    Args:
        votes: ``[N, 7]``.
        target: ``[7]``.
        count: how many.
    """
    return js_divergence(votes, target[None]).argsort(stable=True)[:count]


class SpaceTask(nn.Module):
    """Trains the emotion space: votes, valence and arousal, and distances from points.

    Args:
        space: the space that is trained.
        weights: weights of ``votes``, ``circumplex`` and ``order``.
    """

    circumplex: Tensor

    def __init__(self, space: EmotionSpace, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.space, self.weights = space, dict(weights)
        rows = [[float(value) for value in place({name: 1.0})] for name in BASIC]
        self.register_buffer("circumplex", torch.tensor(rows), persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``batch``: ``features`` ``[N, F]``, ``votes`` ``[N, 7]``."""
        votes = batch["votes"]
        points = self.space(batch["features"])
        other = torch.roll(torch.arange(len(points), device=points.device), 1)
        apart = (points - points[other]).square().sum(1).add(1e-6).sqrt()
        wanted = ORDER_SCALE * js_divergence(votes, votes[other]).clamp_min(1e-9).sqrt()
        found = {
            "votes": F.kl_div(self.space.votes(points), votes, reduction="batchmean"),
            "circumplex": F.mse_loss(points[:, :ORDERED], votes @ self.circumplex),
            "order": F.mse_loss(apart, wanted),
        }
        total = torch.stack([weight * found[name] for name, weight in self.weights.items()]).sum()
        return {"loss": total, **{name: value.detach() for name, value in found.items()}}


class FeatureBatches:
    """Features of voted pictures as batches; classes that are rare are drawn more often.

    Args:
        features: ``[2, N, F]``: pictures, mirrored pictures.
        votes: ``[N, 7]``.
        batch_size: pictures in a batch.
        seed: seed of the draws.
        noise: standard deviation of the noise on features, in standard deviations of the features.
        balance: an emotion that n pictures show most is drawn as often as n ** balance.
    """

    def __init__(
        self, features: Tensor, votes: Tensor, *, batch_size: int, seed: int, noise: float, balance: float
    ) -> None:
        self.features, self.votes, self.batch_size, self.seed = features, votes, batch_size, seed
        self.noise, self.std = noise, features.flatten(0, 1).std(0)
        _, member, count = np.unique(votes.argmax(1).numpy(), return_inverse=True, return_counts=True)
        chance = count[member].astype(float) ** (balance - 1.0)
        self.chance = chance / chance.sum()

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """The batch of a step."""
        rng = np.random.default_rng((self.seed, step, process))
        chosen = rng.choice(len(self.votes), self.batch_size, p=self.chance)
        found = self.features[rng.integers(2, size=self.batch_size), chosen]
        shaken = torch.from_numpy(rng.standard_normal(found.shape, np.float32)) * self.std * self.noise
        return {"features": found + shaken, "votes": self.votes[chosen]}


@torch.no_grad()
def fit_places(space: EmotionSpace, features: Tensor, votes: Tensor, *, count: int) -> dict[str, Tensor]:
    """Set the origin to the mean of neutral faces, and every name's place to the mean of its pictures.

    Args:
        space: trained; its ``origin`` and ``places`` are set.
        features: ``[N, F]`` of training pictures.
        votes: ``[N, 7]``.
        count: pictures a name, those whose votes are nearest to its mixture (``mixture_votes``).

    Returns:
        Name -> the mean votes of its pictures, ``[7]``.
    """
    space.origin.zero_()
    points, means = space(features), {}
    for row, name in enumerate(space.config.names):
        nearest = nearest_votes(votes, mixture_votes(name), count)
        space.places[row], means[name] = points[nearest].mean(0), votes[nearest].mean(0)
    space.origin.copy_(space.place("neutral"))
    space.places -= space.origin.clone()
    return means


def residual_directions(vectors: Tensor, samples: Tensor, count: int) -> Tensor:
    """Principal directions of samples orthogonal to the vectors' span, with the mean length of the vectors.

    Args:
        vectors: ``[n, O]``.
        samples: ``[M, O]``, such as the mean latents of nuanced emotions, from neutral.
        count: m, how many.

    Returns:
        ``[m, O]``; numbers that no vector touches are zero.
    """
    touched = (vectors != 0).any(0)
    basis = torch.linalg.qr(vectors.T.double()).Q
    rest = (samples * touched).double()
    rest = rest - rest @ basis @ basis.T
    found = torch.linalg.svd(rest, full_matrices=False).Vh[:count].float()
    return found * touched * vectors.norm(dim=1).mean()


class VotesGuide(Guide):
    """Losses against a distribution of votes, with penalties on open lips and closed eyes.

    ``emotion``: Kullback-Leibler divergence of the distribution and another guide's recogniser; ``opened``: how much
    lips come apart, in eye distances, and ``shut``: how much eyes close, both weighted by the share of the
    distribution without emotions that open mouth and eyes (``OPENS``).

    Args:
        guide: a recogniser's; its labels are replaced by the distributions.
        landmarks: network with a head ``points``.
        targets: ``[M, 7]``: distributions, which the rows of a batch number, in the order of ``BASIC``.
        emotions: the recogniser's classes.
    """

    closed: Tensor
    entropy: Tensor

    def __init__(self, guide: Guide, landmarks: MeasuringNetwork, targets: Tensor, emotions: Sequence[str]) -> None:
        super().__init__()
        self.guide, self.landmarks = guide, landmarks.eval().requires_grad_(False)
        order = [BASIC.index(name) for name in emotions]
        # Cross entropy takes distributions in the place of labels.
        guide.labels = targets[:, order].contiguous()
        closed = 1 - targets[:, [BASIC.index(name) for name in OPENS]].sum(1)
        self.register_buffer("closed", closed, persistent=False)
        entropy = -(targets * targets.clamp_min(1e-9).log()).sum(1)
        self.register_buffer("entropy", entropy, persistent=False)

    def forward(self, plain: Tensor, edited: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """One pass of each network."""
        found = self.guide(plain, edited, rows)
        side = (self.landmarks.config.resolution,) * 2
        both = in_luminance(torch.cat([plain, edited]))
        points = self.landmarks(F.interpolate(both, side, mode="bilinear", antialias=True))["points"]
        before, after = points.chunk(2)
        before, closed = before.detach(), self.closed[rows]
        return {
            **found,
            "emotion": found["emotion"] - self.entropy[rows].mean(),
            "opened": (closed * F.relu(mouth_shape(after)[:, 0] - mouth_shape(before)[:, 0])).mean(),
            "shut": (closed * F.relu(eye_opening(before) - eye_opening(after))).mean(),
        }


@dataclass(frozen=True)
class Descent:
    """How coordinates are searched for.

    Args:
        steps: number of steps of Adam.
        batch_size: faces a step.
        learning_rate: at first; it falls to zero.
        seed: seed of the draws.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0


def finetune_coordinates(
    backbone: StyleGAN2Backbone,
    guide: Guide,
    latents: Tensor,
    basis: Tensor,
    start: Tensor,
    row: int,
    weights: Mapping[str, float],
    how: Descent,
) -> Tensor:
    """Finetune the coordinates of an emotion in a basis of directions, with a guide's losses.

    The guide has to read neutral faces, edited with these coordinates, as people voted on the emotion. Losses of
    identity and of changes outside the face count only above those of the start, for the same faces and noise.

    Args:
        backbone: frozen.
        guide: frozen; its rows number the targets.
        latents: ``[N, L, D]`` of neutral faces.
        basis: ``[K, L * D]``.
        start: ``[K]``, such as the mixture's weights.
        row: index of the guide's target.
        weights: weights of the guide's losses, ``near`` and ``outside``; those of ``SPARED`` above the start's alone.
        how: it is searched for.
    """
    found = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([found], how.learning_rate, betas=(0.8, 0.95))
    fall = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, how.steps)
    rng, average = np.random.default_rng(how.seed), torch.zeros_like(start)
    torch.manual_seed(how.seed)
    for step in range(how.steps):
        latent = latents[rng.choice(len(latents), how.batch_size, replace=how.batch_size > len(latents))]
        noise = torch.get_rng_state()
        with torch.no_grad():
            plain = backbone.synthesis(latent, dtype=backbone.dtype)
            cost = _edit_losses(backbone, guide, latent, plain, start @ basis, row)
        torch.set_rng_state(noise)
        losses = _edit_losses(backbone, guide, latent, plain, found @ basis, row)
        losses |= {name: F.relu(losses[name] - cost[name]) for name in SPARED}
        optimiser.zero_grad()
        torch.stack([weight * losses[name] for name, weight in weights.items()]).sum().backward()
        optimiser.step()
        fall.step()
        if step >= how.steps // 2:  # the mean of the last half: gradients of few faces are noisy
            average += found.detach() / (how.steps - how.steps // 2)
    return average


def _edit_losses(
    backbone: StyleGAN2Backbone, guide: Guide, latent: Tensor, plain: Tensor, moved: Tensor, row: int
) -> dict[str, Tensor]:
    """The guide's losses of edited pictures, and their mean change everywhere and outside the face."""
    inner = region_weights(backbone.crop.resolution)
    outer = 1 - (inner / inner.max()).sqrt()
    edited = backbone.synthesis(latent + moved.unflatten(0, latent.shape[1:]), dtype=backbone.dtype)
    change = (edited - plain).abs()
    rows = torch.full((len(latent),), row)
    return {**guide(plain, edited, rows), "near": change.mean(), "outside": (change * outer).mean()}

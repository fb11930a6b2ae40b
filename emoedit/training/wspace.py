"""Fitting directions in w+ to emotions.

Directions come from the generator's own samples, which a recogniser scores, from encoded labelled crops, or from both;
their gains are chosen at a recogniser's score, and they can be finetuned by gradient.

Samples need no labelled photograph (Shen et al. 2020, arXiv 1907.10786). Every source is a data set of its own in
``emoedit.steering.directions.fit_directions``: differences of class means are taken inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.models.luminance import in_luminance
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.steering.directions import LatentDirections
from emoedit.steering.wspace import Layers, WDirections, checked_layers, score_samples, select
from emoedit.training.data import CropSet
from emoedit.training.guides import Guide
from emoedit.training.hspace import ShiftLoss
from emoedit.training.loop import Shared
from emoedit.training.vae import region_weights
from emoedit.types import DataError, Edit, Inversion

Scorer = Callable[[Tensor], Tensor]


def recogniser_scores(network: MeasuringNetwork, emotions: Sequence[str]) -> Scorer:
    """Probabilities of these emotions ``[N, E]``, as a network reads them, of pictures ``[N, 1 or 3, R, R]``.

    The network's other classes are ignored.

    Args:
        network: network with the head ``emotion``.
        emotions: the columns of the result.

    Raises:
        DataError: the network lacks one of them.
    """
    known = network.config.emotions
    if lacking := [name for name in emotions if name not in known]:
        raise DataError(f"this recogniser lacks {', '.join(lacking)}; it reads {', '.join(known) or 'nothing'}")
    columns = [known.index(name) for name in emotions]
    side, network = network.config.resolution, network.eval()

    @torch.no_grad()
    def scores(x: Tensor) -> Tensor:
        x = F.interpolate(in_luminance(x), (side, side), mode="bilinear", antialias=True, align_corners=False)
        return network(x)["emotion"].float().softmax(1)[:, columns]

    return scores


def scored_samples(
    backbone: StyleGAN2Backbone,
    scorer: Scorer,
    emotions: Sequence[str],
    generator: torch.Generator,
    count: int,
    *,
    share: float,
    truncation: float,
) -> tuple[Tensor, list[str]]:
    """w+ of the samples that show each emotion most plainly, ``[n, L * D]``, and their labels.

    Args:
        backbone: the model that draws.
        scorer: pictures -> probabilities of emotions ``[N, E]``.
        emotions: names of the scorer's columns.
        generator: draws the noise; a model that draws none ignores it.
        count: count of samples.
        share: share of the samples, how many for each emotion.
        truncation: truncation of the samples: 1 none, 0 the mean.

    Raises:
        DataError: no sample for an emotion is left.
    """
    w, scores = score_samples(backbone, scorer, generator, count, truncation=truncation)
    rows, labels = select(scores, emotions, share=share)
    return w[rows].repeat(1, backbone.latent_shape[0]), labels


def encoded_crops(
    backbone: StyleGAN2Backbone, crops: CropSet, positions: np.ndarray, *, mirror: bool = False, batch_size: int = 64
) -> Tensor:
    """w+ of crops, or of their mirror images, ``[N, L * D]``.

    Args:
        backbone: the model.
        crops: prepared crops.
        positions: ``[N]``: which of the crops.
        mirror: whether to use the crops' mirror images.
        batch_size: pictures in a batch.
    """
    rows = []
    for start in range(0, len(positions), batch_size):
        part = positions[start : start + batch_size]
        x = crops.pixels(part, backbone.crop.resolution, backbone.channels).to(backbone.device)
        rows.append(backbone.invert(x.flip(-1) if mirror else x).latent.flatten(1).cpu())
    return torch.cat(rows)


def restrict_to_layers(fitted: LatentDirections, backbone: StyleGAN2Backbone, where: Layers | None) -> WDirections:
    """Directions of whole w+, restricted to a range of layers; the source's expression is read from all layers.

    Args:
        fitted: its directions are ``[E, L * D]``.
        backbone: the model that draws.
        where: the layers that it changes.

    Raises:
        EditError: no such layers.
    """
    parts = fitted.gain, fitted.means, fitted.readout, fitted.offset, fitted.distance
    whole = WDirections(backbone.latent_shape, fitted.emotions, fitted.directions, *parts)
    return whole.within(checked_layers(where, backbone.latent_shape[0]))


def with_gains(steering: WDirections, gains: Mapping[str, float]) -> WDirections:
    """The same directions with other gains; emotions that are not named keep their gain.

    Args:
        steering: left unchanged.
        gains: emotion -> its new gain.
    """
    gain = torch.tensor([gains.get(name, float(g)) for name, g in zip(steering.emotions, steering.gain, strict=True)])
    return steering.with_parts(gain=gain)


@torch.no_grad()
def emotion_scores(
    backbone: StyleGAN2Backbone,
    steering: WDirections,
    inversion: Inversion,
    scorer: Scorer,
    emotions: Sequence[str],
    strengths: Sequence[float],
) -> dict[str, list[float]]:
    """Mean probability of each emotion in pictures that were edited to show it, at each strength.

    Args:
        backbone: the model that draws.
        steering: the steering that is measured.
        inversion: inversion of pictures that show none of them.
        scorer: pictures -> probabilities of emotions ``[N, E]``.
        emotions: names of the scorer's columns.
        strengths: strengths to try.
    """
    found: dict[str, list[float]] = {name: [] for name in emotions if name != "neutral"}
    for name, means in found.items():
        for strength in strengths:
            control = steering.control(backbone, inversion, [Edit(name, strength)] * len(inversion))
            drawn = backbone.decode(inversion, control)
            means.append(float(scorer(drawn)[:, list(emotions).index(name)].mean()))
    return found


def choose_gains(found: Mapping[str, Sequence[float]], strengths: Sequence[float], score: float) -> dict[str, float]:
    """The smallest strength at which each emotion is read with this mean probability.

    If none reaches it, the strength with the highest probability.

    Args:
        found: result of ``emotion_scores`` for directions whose gains are 1.
        strengths: strengths to try.
        score: the mean probability, 0 to 1.
    """
    gains = {}
    for name, means in found.items():
        enough = [strength for strength, mean in zip(strengths, means, strict=True) if mean >= score]
        gains[name] = float(enough[0] if enough else strengths[int(np.argmax(means))])
    return gains


class FinetuneTask(nn.Module):
    """Finetunes one direction: a guide scores the edited pictures, and penalties keep them near their source.

    Args:
        backbone: frozen.
        guide: frozen, of one emotion.
        direction: ``[L, D]``, the shift of strength 1.
        loss: weights of the losses.
        where: layers that may change.
    """

    mask: Tensor
    outer: Tensor

    def __init__(
        self, backbone: StyleGAN2Backbone, guide: Guide, direction: Tensor, loss: ShiftLoss, *, where: Layers | None
    ) -> None:
        super().__init__()
        self.direction = nn.Parameter(direction.clone())
        frozen = backbone.eval().requires_grad_(False), guide.eval().requires_grad_(False)
        self.frozen, self.how = Shared(backbone=frozen[0], guide=frozen[1]), loss
        first, last = checked_layers(where, len(direction))
        mask = torch.zeros(len(direction), 1)
        mask[first:last] = 1
        self.register_buffer("mask", mask, persistent=False)
        inner = region_weights(backbone.crop.resolution)
        self.register_buffer("outer", 1 - (inner / inner.max()).sqrt(), persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``batch``: ``latent`` ``[N, L, D]``."""
        backbone, guide, latent = self.frozen.backbone, self.frozen.guide, batch["latent"]
        rows = torch.zeros(len(latent), dtype=torch.long, device=latent.device)
        with torch.autocast(latent.device.type, enabled=False):
            plain = backbone.synthesis(latent, dtype=backbone.dtype).detach()
            edited = backbone.synthesis(latent + self.mask * self.direction, dtype=backbone.dtype)
            moved = (edited - plain).abs()
        found = {**guide(plain, edited, rows), "near": moved.mean(), "outside": (moved * self.outer).mean()}
        weights = {**self.how.guide, "near": self.how.near, "outside": self.how.outside}
        total = sum((weight * found[name] for name, weight in weights.items()), torch.zeros(()))
        return {"loss": total, **{name: value.detach() for name, value in found.items()}}


class LatentBatches:
    """Batches of inverted pictures to edit.

    Args:
        latents: ``[N, L, D]``.
        batch_size: pictures in a batch.
        seed: seed of the draws.
    """

    def __init__(self, latents: Tensor, *, batch_size: int, seed: int) -> None:
        self.latents, self.batch_size, self.seed = latents, batch_size, seed

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """The batch of a step."""
        rng = np.random.default_rng((self.seed, step, process))
        chosen = rng.integers(len(self.latents), size=self.batch_size)
        return {"latent": self.latents[chosen]}


def with_direction(steering: WDirections, direction: Tensor, emotion: str) -> WDirections:
    """The steering with one direction replaced.

    The gain stays: the emotion that a source already shows is measured in lengths of the old direction, and that share
    of the new direction is left out.

    Args:
        steering: left unchanged.
        direction: ``[L, D]``, the shift of strength 1, such as ``FinetuneTask`` fits.
        emotion: name of the direction that is replaced.

    Returns:
        A new steering.
    """
    directions, k = steering.directions.clone(), steering.emotions.index(emotion)
    directions[k] = direction.detach().flatten().cpu() / steering.gain[k]
    return steering.with_parts(directions)


def replace_directions(old: WDirections, new: WDirections, emotions: Sequence[str]) -> WDirections:
    """A steering with some of its directions from another; the readout of the source's expression stays.

    Args:
        old: the steering.
        new: where the directions of ``emotions`` come from, as far as strength 1 goes there.
        emotions: names that are replaced; both have them.

    Returns:
        A new steering.

    Raises:
        DataError: one of them lacks an emotion.
    """
    if lacking := [name for name in emotions if name not in old.emotions or name not in new.emotions]:
        raise DataError(f"{', '.join(lacking)}: not in both steerings, so that it cannot be replaced")
    for name in emotions:
        old = with_direction(old, full_shift(new, name), name)
    return old


def full_shift(steering: WDirections, emotion: str) -> Tensor:
    """The shift of w+ of a neutral face at strength 1, ``[L, D]``.

    Args:
        steering: left unchanged.
        emotion: its canonical name.
    """
    k = steering.emotions.index(emotion)
    return (steering.gain[k] * steering.directions[k]).unflatten(0, steering.latent_shape)

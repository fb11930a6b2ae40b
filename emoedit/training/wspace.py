"""Fitting directions in w+ to emotions.

From the generator's own samples, which a recogniser scores, from labelled crops that the encoder took apart, or from
both; how far strength 1 goes; and refined by gradient.

Samples need no labelled photograph (Shen et al. 2020, arXiv 1907.10786). Every source is a data set of its own in
``emoedit.steering.directions.fit_directions``: differences of class means are taken inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.steering.directions import LatentDirections
from emoedit.steering.wspace import Layers, WDirections, checked_layers, score_samples, select
from emoedit.training.data import CropSet, in_luminance
from emoedit.training.guides import Guide
from emoedit.training.hspace import ShiftLoss
from emoedit.training.loop import Shared
from emoedit.training.vae import region_weights
from emoedit.types import DataError, Edit, Inversion

Scorer = Callable[[Tensor], Tensor]


def recogniser_scores(network: MeasuringNetwork, emotions: Sequence[str]) -> Scorer:
    """Probabilities of these emotions ``[N, E]``, as a network reads them, of pictures ``[N, 1 or 3, R, R]``.

    Of the classes that it knows beside them nothing is said.

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
        emotions: what the scorer's columns mean.
        generator: draws the noise; a model that draws none ignores it.
        count: of samples.
        share: of them, how many for each emotion.
        truncation: of the samples: 1 none, 0 the mean.

    Raises:
        DataError: no sample for an emotion is left.
    """
    w, scores = score_samples(backbone, scorer, generator, count, truncation=truncation)
    rows, labels = select(scores, emotions, share=share)
    return w[rows].repeat(1, backbone.latent_shape[0]), labels


def encoded_crops(
    backbone: StyleGAN2Backbone, crops: CropSet, positions: np.ndarray, *, mirror: bool = False, batch_size: int = 64
) -> Tensor:
    """w+ of crops, or of their mirror images, ``[N, L * D]``."""
    rows = []
    for start in range(0, len(positions), batch_size):
        part = positions[start : start + batch_size]
        x = crops.pixels(part, backbone.crop.resolution, backbone.channels).to(backbone.device)
        rows.append(backbone.invert(x.flip(-1) if mirror else x).latent.flatten(1).cpu())
    return torch.cat(rows)


def in_layers(fitted: LatentDirections, backbone: StyleGAN2Backbone, where: Layers | None) -> WDirections:
    """What was fitted on whole w+, for a range of layers; what the source shows is read from all.

    Args:
        fitted: its directions are ``[E, L * D]``.
        backbone: the model that draws.
        where: which layers.

    Raises:
        EditError: no such layers.
    """
    parts = fitted.gain, fitted.means, fitted.readout, fitted.offset, fitted.distance
    whole = WDirections(backbone.latent_shape, fitted.emotions, fitted.directions, *parts)
    return whole.within(checked_layers(where, backbone.latent_shape[0]))


def with_gains(steering: WDirections, gains: Mapping[str, float]) -> WDirections:
    """The same directions with another reach of strength 1; emotions that are not named keep theirs."""
    gain = torch.tensor([gains.get(name, float(g)) for name, g in zip(steering.emotions, steering.gain, strict=True)])
    return steering.with_parts(gain=gain)


@torch.no_grad()
def reached(
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
        steering: what is measured.
        inversion: of pictures that show none of them.
        scorer: pictures -> probabilities of emotions ``[N, E]``.
        emotions: what the scorer's columns mean.
        strengths: that are tried.
    """
    found: dict[str, list[float]] = {name: [] for name in emotions if name != "neutral"}
    for name, means in found.items():
        for strength in strengths:
            control = steering.control(backbone, inversion, [Edit(name, strength)] * len(inversion))
            drawn = backbone.decode(inversion, control)
            means.append(float(scorer(drawn)[:, list(emotions).index(name)].mean()))
    return found


def chosen_gains(found: Mapping[str, Sequence[float]], strengths: Sequence[float], score: float) -> dict[str, float]:
    """The smallest strength at which each emotion is read with this mean probability.

    Where none gets there, the one that gets furthest.

    Args:
        found: of ``reached``, of directions whose gains are 1.
        strengths: that are tried.
        score: strength -> probabilities.
    """
    gains = {}
    for name, means in found.items():
        enough = [strength for strength, mean in zip(strengths, means, strict=True) if mean >= score]
        gains[name] = float(enough[0] if enough else strengths[int(np.argmax(means))])
    return gains


class LeadTask(nn.Module):
    """A direction that is led on: the edited picture has to show the emotion, says a guide, and stay near what it was.

    Args:
        backbone: frozen; the guide is of that one emotion.
        guide: frozen.
        direction: ``[L, D]``, as long as strength 1 goes.
        where: layers that may move.
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
    """Inverted pictures that are to show the emotion.

    Args:
        latents: ``[N, L, D]``.
    """

    def __init__(self, latents: Tensor, *, batch_size: int, seed: int) -> None:
        self.latents, self.batch_size, self.seed = latents, batch_size, seed

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """The batch of a step."""
        rng = np.random.default_rng((self.seed, step, process))
        chosen = rng.integers(len(self.latents), size=self.batch_size)
        return {"latent": self.latents[chosen]}


def led(steering: WDirections, direction: Tensor, emotion: str) -> WDirections:
    """A steering with what ``LeadTask`` made of one of its directions, ``[L, D]``.

    The gain stays: what a source shows is read in lengths of the old direction, and as much of the new is left out.
    """
    directions, k = steering.directions.clone(), steering.emotions.index(emotion)
    directions[k] = direction.detach().flatten().cpu() / steering.gain[k]
    return steering.with_parts(directions)


def replaced(old: WDirections, new: WDirections, emotions: Sequence[str]) -> WDirections:
    """A steering with some of its directions from another; what a source shows is still read as before.

    Args:
        old: the steering.
        new: where the directions of ``emotions`` come from, as far as strength 1 goes there.
        emotions: what is replaced; both have it.

    Returns:
        A new steering.

    Raises:
        DataError: one of them lacks an emotion.
    """
    if lacking := [name for name in emotions if name not in old.emotions or name not in new.emotions]:
        raise DataError(f"{', '.join(lacking)}: not in both steerings, so that it cannot be replaced")
    for name in emotions:
        old = led(old, shift_of(new, name), name)
    return old


def shift_of(steering: WDirections, emotion: str) -> Tensor:
    """How far strength 1 moves w+ of a neutral face, ``[L, D]``."""
    k = steering.emotions.index(emotion)
    return (steering.gain[k] * steering.directions[k]).unflatten(0, steering.latent_shape)

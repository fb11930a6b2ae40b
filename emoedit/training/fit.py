"""Fitting one emotion to any model, from a handful of photographs or from the model's own samples.

Closed forms only: differences of class means in h at every noise level (Haas et al. 2024, arXiv 2303.11073) or in a
latent, and linear boundaries between samples that a recogniser tells apart (Shen et al. 2020, arXiv 1907.10786). Words
are learned by ``emoedit.training.tokens``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from emoedit.models.base import Backbone, Callback
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.steering.directions import LatentDirections
from emoedit.steering.hspace import Directions, HSpace
from emoedit.steering.wspace import WDirections, fit_boundaries, pooled, score_samples, select
from emoedit.training.hspace import edited_timesteps
from emoedit.training.wspace import recogniser_scores
from emoedit.types import CropSpec, DataError

LEAST, ENOUGH = 2, 10  # pictures of a class: below the first nothing is fitted, below the second a warning is given
GAIN = 4.0  # mean differences in h that make a plain expression: measured on this package's small U-Net


def check_pictures(shown: Tensor, neutral: Tensor) -> None:
    """Whether there are pictures enough; of few a warning is given.

    Args:
        shown: ``[N, C, R, R]``.
        neutral: ``[M, C, R, R]``.

    Raises:
        DataError: fewer than ``LEAST`` of a class.
    """
    for name, count in (("that show the emotion", len(shown)), ("of neutral faces", len(neutral))):
        if count < LEAST:
            raise DataError(f"{count} pictures {name}: at least {LEAST} are needed, {ENOUGH} and more are good")
        if count < ENOUGH:
            warnings.warn(
                f"only {count} pictures {name}: what these people have in common, and no expression, is fitted too; "
                f"{ENOUGH} and more are good",
                stacklevel=3,
            )


@torch.no_grad()
def mean_of_h(backbone: DDPMBackbone | StableDiffusionBackbone, crops: Tensor, generator: torch.Generator) -> Tensor:
    """Mean of h over crops and their mirror images at each timestep that is edited.

    Noise is drawn, not inverted: the mean over noise is what is wanted. The same generator's state gives two classes
    the same noise, which then cancels in their difference.

    Args:
        backbone: backbone whose h is shifted.
        crops: ``[N, C, R, R]`` in [-1, 1].
        generator: generator of the noise.

    Returns:
        ``[T, Ch, r, r]`` at ``emoedit.training.hspace.edited_timesteps``.

    Raises:
        DataError: ``t_edit`` leaves no timestep to edit.
    """
    times = edited_timesteps(backbone)
    if not times:
        raise DataError("t_edit leaves no timestep to edit: give a lower one (--set t_edit=300)")
    total = torch.zeros(len(times), *backbone.h_shape, dtype=torch.float64)
    for crop in crops.to(backbone.device, torch.float32):
        z = backbone.to_latent(torch.stack([crop, crop.flip(-1)]))[0]
        for k, t in enumerate(times):
            a = float(backbone.alpha_bar[t])
            noise = torch.randn(z.shape, generator=generator).to(z)
            h = backbone.state(a**0.5 * z + (1 - a) ** 0.5 * noise, t).h
            total[k] += h.double().mean(0).cpu()
    return total / len(crops)


def fit_shift(
    backbone: Backbone, emotion: str, shown: Tensor, neutral: Tensor, *, gain: float = GAIN, seed: int = 0
) -> HSpace:
    """A shift of h in closed form: mean h of faces that show an emotion minus mean h of neutral ones.

    Args:
        backbone: a DDPM or a Stable Diffusion.
        emotion: its name.
        shown: ``[N, C, R, R]`` in [-1, 1].
        neutral: ``[M, C, R, R]`` in [-1, 1].
        gain: how many such differences strength 1 is.
        seed: seed of the noise.

    Raises:
        DataError: another model, too few pictures, or no timestep that is edited.
    """
    if not isinstance(backbone, DDPMBackbone | StableDiffusionBackbone):
        raise DataError(f"a {type(backbone).__name__} has no h: fit a direction to it, or give a diffusion model")
    check_pictures(shown, neutral)
    first, second = (mean_of_h(backbone, x, torch.Generator().manual_seed(seed)) for x in (shown, neutral))
    directions = Directions((first - second).float(), edited_timesteps(backbone))
    return HSpace([emotion], [directions], train_steps=backbone.steps, gain=torch.tensor([gain])).eval()


@torch.no_grad()
def fit_direction(
    backbone: Backbone,
    emotion: str,
    shown: Tensor,
    neutral: Tensor,
    *,
    gain: float = 1.0,
    callback: Callback | None = None,
) -> LatentDirections:
    """A direction in a latent: the mean of faces that show an emotion minus the mean of neutral ones.

    Args:
        backbone: a StyleGAN2 or a VAE.
        emotion: its name.
        shown: ``[N, C, R, R]`` in [-1, 1].
        neutral: ``[M, C, R, R]`` in [-1, 1].
        gain: how many such differences strength 1 is.
        callback: called with (pictures done, pictures in all).

    Raises:
        DataError: a diffusion model, whose latent is noise, or too few pictures.
    """
    if isinstance(backbone, DDPMBackbone | StableDiffusionBackbone):
        raise DataError(f"the latent of a {type(backbone).__name__} is noise: fit a shift or a token to it")
    check_pictures(shown, neutral)
    means, done = [], 0
    for crops in (shown, neutral):
        latents = []
        for crop in crops:
            latents.append(backbone.invert(crop[None].to(backbone.device)).latent.cpu())
            done += 1
            if callback is not None:
                callback(done, len(shown) + len(neutral))
        means.append(torch.cat(latents).mean(0, keepdim=True))
    difference = means[0] - means[1]
    if isinstance(backbone, StyleGAN2Backbone):
        plain = LatentDirections([emotion], pooled(difference), torch.tensor([gain]))
        return WDirections.in_layers(plain, backbone.latent_shape[0], None).eval()
    if difference.ndim != 2:
        raise DataError(f"the latent of a {type(backbone).__name__} is {tuple(difference.shape[1:])}, and no vector")
    return LatentDirections([emotion], difference, torch.tensor([gain])).eval()


def scorer_of(network: MeasuringNetwork, emotions: tuple[str, ...], crop: CropSpec) -> Callable[[Tensor], Tensor]:
    """What a recogniser says of a model's pictures, whatever part of the face they show.

    Args:
        network: sees luminance crops of its own.
        emotions: E of those it knows.
        crop: crop of the model's pictures.

    Returns:
        Pictures ``[N, 1 or 3, R, R]`` in [-1, 1] -> probabilities ``[N, E]``.

    Raises:
        DataError: the network lacks one of the emotions, or sees more of a face than the model draws.
    """
    scores, wanted = recogniser_scores(network, emotions), network.crop
    share, below = wanted.scale / crop.scale, (wanted.down - crop.down) / crop.scale
    top, left = round((0.5 + below - share / 2) * crop.resolution), round((0.5 - share / 2) * crop.resolution)
    side = round(share * crop.resolution)
    if min(top, left) < 0 or max(top, left) + side > crop.resolution:
        raise DataError("the recogniser's crop is larger than the model's")

    def scored(x: Tensor) -> Tensor:
        return scores(x[..., top : top + side, left : left + side].float().clamp(-1, 1))

    return scored


def fit_direction_of_samples(
    backbone: Backbone,
    emotion: str,
    network: MeasuringNetwork,
    *,
    count: int = 2000,
    share: float = 0.05,
    seed: int = 0,
    callback: Callback | None = None,
) -> tuple[WDirections, Tensor, float]:
    """A boundary in W from the generator's own samples, without a photograph.

    Args:
        backbone: a StyleGAN2.
        emotion: one that the recogniser knows.
        network: the recogniser.
        count: samples that are drawn and scored.
        share: share of the samples, how many stand for the emotion, and how many for neutral.
        seed: seed of the samples.
        callback: called with (samples done, count).

    Returns:
        The steering, the boundary's unit normal ``[D]``, and how far along it strength 1 goes.

    Raises:
        DataError: another model, an emotion that the recogniser does not know, or one that no sample shows.
    """
    if not isinstance(backbone, StyleGAN2Backbone):
        raise DataError(f"a {type(backbone).__name__} draws no people at random: give --pictures and --neutral")
    known = network.config.emotions
    if emotion not in known or emotion == "neutral":
        raise DataError(
            f"the recogniser does not read {emotion!r}, only {', '.join(name for name in known if name != 'neutral')}: "
            "give --pictures and --neutral"
        )
    scorer = scorer_of(network, ("neutral", emotion), backbone.crop)
    w, scores = score_samples(
        backbone, scorer, torch.Generator().manual_seed(seed), count, batch_size=backbone.batch_size, callback=callback
    )
    rows, labels = select(scores, ("neutral", emotion), share=share)
    found = fit_boundaries(w[rows], labels, [emotion])
    number = found.emotions.index(emotion)
    steering = WDirections.in_layers(found, backbone.latent_shape[0], None).eval()
    parts = found.state_dict()
    return steering, parts["directions"][number], float(parts["gain"][number])

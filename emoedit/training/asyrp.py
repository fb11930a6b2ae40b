"""A network f_t trained as Asyrp's authors train theirs (Kwon et al. 2023, arXiv 2210.10960, section 3.3).

This package fits its own shifts with ``emoedit.training.hspace.ShiftTask``. This module follows the published order,
for comparison with the published files, including details that only the authors' code has: the optimiser takes a step
at every timestep of every batch; P_t is compared with P_t of the unedited reverse process; and CLIP's part of the loss
is -log((1 + cosine) / 2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emoedit import sampling
from emoedit.emotions import get
from emoedit.io.output import write_atomic
from emoedit.metrics.clip import Clip
from emoedit.models.base import Callback
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.steering.hspace import ShiftBlock
from emoedit.training.guides import ClipGuide
from emoedit.types import DataError

Losses = dict[str, float]
SOURCE = "face"  # the text that the emotion's phrase is held against


@dataclass(frozen=True)
class AsyrpTraining:
    """How long and how fast; defaults are those of CelebA-HQ in the paper and in the authors' code.

    Args:
        learning_rate: learning rate of plain SGD, without momentum.
        clip: weight of CLIP's part of the loss.
        near: weight of the mean absolute difference of the two P_t; the cosine of the two texts scales it too.
        epochs: how often each picture is seen.
        batch_size: pictures in one pass.
        step_size: epochs after which the learning rate falls (StepLR).
        gamma: factor by which it does.
        seed: seed of the network's first weights.
    """

    learning_rate: float = 0.5
    clip: float = 1.0
    near: float = 3.0
    epochs: int = 1
    batch_size: int = 1
    step_size: int = 3
    gamma: float = 0.1
    seed: int = 0


def text_cosine(clip: Clip, emotion: str) -> float:
    """Cosine of CLIP's embeddings of "face" and of the emotion's phrase ("smiling face").

    Args:
        clip: the authors use ViT-B/16.
        emotion: a name of the vocabulary.
    """
    before, after = clip.text_embeddings([SOURCE, get(emotion).phrase])
    return float(before @ after)


def find_interval(
    backbone: DDPMBackbone, x: Tensor, distance: Callable[[Tensor, Tensor], Tensor], cosine: float
) -> int:
    """The timestep where editing ends: LPIPS between pictures and their P_t is .33 times the cosine of the texts.

    Args:
        backbone: backbone whose reverse process it is.
        x: ``[N, C, R, R]`` in [-1, 1].
        distance: LPIPS, ``[N]`` from two ``[N, C, R, R]``.
        cosine: weight of ``text_cosine``.

    Returns:
        One of the schedule's timesteps.

    Raises:
        EditError: the distance never reaches it.
    """
    times, predicted, _ = backbone.distance_curves(x, distance)
    return sampling.find_t_edit(times, predicted, cosine)


def train_block(
    backbone: DDPMBackbone,
    clip: Clip,
    emotion: str,
    x: Tensor,
    how: AsyrpTraining = AsyrpTraining(),  # noqa: B008
    *,
    templates: Sequence[str] = ("{}",),
    callback: Callback | None = None,
) -> tuple[ShiftBlock, list[Losses]]:
    """A network f_t for one emotion, on pictures of faces without labels.

    Args:
        backbone: its ``steps``, ``t_last`` and ``t_edit`` are those of the training; it is not changed.
        clip: CLIP of the loss.
        emotion: a name of the vocabulary, whose phrase is the target text.
        x: ``[N, C, R, R]`` in [-1, 1].
        how: how long and how fast.
        templates: texts with ``{}``, in which CLIP reads "face" and the phrase; the authors' are CLIP's for ImageNet.
        callback: called with (batches done, batches in all).

    Returns:
        The network on the CPU; and for each batch the means over its timesteps of ``loss``, ``clip`` and ``near``.

    Raises:
        DataError: no picture, no timestep that is edited, or an edit that is not finite.
    """
    # The authors' way: DDIM inversion and back as it is, without what an exact inversion adds and without noise.
    backbone = backbone.with_sampling(exact=False, t_boost=0, boost="everywhere").eval().requires_grad_(False)
    if not len(x):
        raise DataError("no picture to train on")
    if not any(t >= backbone.config.t_edit for t in backbone.schedule.timesteps):
        raise DataError(f"no timestep from t_edit {backbone.config.t_edit} up: give a lower one")
    torch.manual_seed(how.seed)
    block = ShiftBlock(backbone.h_shape[0], backbone.temb_dim).to(backbone.device)
    guide, cosine = _guide(clip, emotion, templates).to(backbone.device), text_cosine(clip, emotion)
    optimizer = torch.optim.SGD(block.parameters(), lr=how.learning_rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, how.step_size, how.gamma)
    batches = x.split(how.batch_size)
    latents = [backbone.invert(part.to(backbone.device)) for part in batches]
    history: list[Losses] = []
    for _ in range(how.epochs):
        for part, inversion in zip(batches, latents, strict=True):
            found: list[Losses] = []
            light = inversion.extras["mean"], inversion.extras["gain"]
            for plain, edited in _both_ways(backbone, block, inversion.latent):
                plain, edited = (backbone.to_picture(p, *light) for p in (plain, edited))
                if not bool(edited.isfinite().all()):
                    raise DataError(f"the edit is not finite in batch {len(history) + 1}: lower learning_rate")
                rows = torch.zeros(len(part), dtype=torch.long, device=backbone.device)
                towards = -torch.log(1 - guide(part.to(edited), edited, rows)["emotion"] / 2)
                near = (edited - plain).abs().mean()
                loss = how.clip * towards + how.near * cosine * near
                _step(optimizer, loss)
                found.append(_numbers(loss=loss, clip=towards, near=near))
            history.append({name: sum(each[name] for each in found) / len(found) for name in found[0]})
            if callback is not None:
                callback(len(history), how.epochs * len(batches))
        schedule.step()
    return block.cpu().eval().requires_grad_(False), history


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _guide(clip: Clip, emotion: str, templates: Sequence[str]) -> ClipGuide:
    guide = ClipGuide(clip, [emotion])
    guide.before, guide.after = (_text_mean(clip, text, templates) for text in (SOURCE, get(emotion).phrase))
    return guide


def _text_mean(clip: Clip, text: str, templates: Sequence[str]) -> Tensor:
    """The mean of CLIP's embeddings of a text in templates, ``[1, D]``.

    Raises:
        DataError: a template without the place for the text, or none.
    """
    if not templates or any("{}" not in template for template in templates):
        raise DataError(f"templates are texts with {{}} where {text!r} goes, not {list(templates)[:3]!r}")
    return clip.text_embeddings([template.replace("{}", text) for template in templates]).mean(0, keepdim=True)


def _numbers(**losses: Tensor) -> Losses:
    return {name: float(value.detach()) for name, value in losses.items()}


def _both_ways(backbone: DDPMBackbone, block: ShiftBlock, latent: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """P_t of the plain way back, and P_t of the edited one, from x_T down to ``t_edit``; the second has a gradient.

    Args:
        backbone: frozen.
        block: as it is at each timestep.
        latent: x_T, ``[N, C, R, R]``.
    """
    plain, edited, schedule = latent, latent, backbone.schedule
    for k in reversed(range(len(schedule.timesteps))):
        t, a_t, below = schedule.timesteps[k], schedule.alpha_bar[k], schedule.below(k)
        if t < backbone.config.t_edit:
            return
        with torch.no_grad():
            state, noise_of = backbone.split(plain, t)
            eps = noise_of(state.h).float()
            before = sampling.predicted_x0(plain, eps, a_t)
            plain = sampling.ddim_step(plain, eps, a_t, below)
            state, noise_of = backbone.split(edited, t)
            eps = noise_of(state.h).float()
        shifted = noise_of(state.h + block(state)).float()
        after = sampling.predicted_x0(edited, shifted, a_t)
        edited = sampling.ddim_step(edited, eps, a_t, below, eps_shifted=shifted.detach())
        yield before, after


def block_name(emotion: str, backbone: DDPMBackbone, epochs: int) -> str:
    """What the authors' code would call the file; the steps in it say how large the shift is.

    Args:
        emotion: its canonical name.
        backbone: the model.
        epochs: number of epochs.
    """
    last, steps = backbone.schedule.timesteps[-1], backbone.steps
    return f"{emotion}_LC_CelebA_HQ_t{last}_ninv{steps}_ngen{steps}_{epochs - 1}.pth"


def write_block(path: str | os.PathLike[str], block: ShiftBlock, *, overwrite: bool = False) -> None:
    """A network f_t in a file of the authors' layout: its tensors under "0".

    Args:
        path: ends as ``block_name`` does, so that whoever reads it knows the steps.
        block: the network.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    write_atomic(path, lambda file: torch.save({"0": dict(block.state_dict())}, file), overwrite=overwrite)

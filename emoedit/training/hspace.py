"""Fitting shifts of h to an emotion, from unpaired pictures.

In closed form: differences of the classes' mean h at every noise level (Haas et al. 2024, arXiv 2303.11073). By
gradient: Asyrp's training (Kwon et al. 2023, arXiv 2210.10960, section 3.3): at every step of the edited reverse
process, a guide scores the emotion of the predicted picture P_t, and penalties keep it near the unedited one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from emoedit import sampling
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.nn.layers import ModuleList
from emoedit.steering.boundaries import linear_svm, principal_axes
from emoedit.steering.hspace import AdaptedDirections, Directions, Shift, ShiftBlock
from emoedit.training.data import CropSet
from emoedit.training.guides import Guide
from emoedit.training.vae import region_weights
from emoedit.types import DataError, HState, Inversion

MOUTH = (0.62, 0.92, 0.28, 0.72)  # of an aligned crop: top, bottom, left, right, with room for a jaw that drops
SKIN = (0.4, 0.62, 0.25, 0.75)  # cheeks and nose

Diffusion = DDPMBackbone | StableDiffusionBackbone


def edited_timesteps(backbone: Diffusion) -> tuple[int, ...]:
    """The timesteps of the schedule at which h is shifted, ascending.

    Args:
        backbone: the model.
    """
    return tuple(t for t in backbone.schedule.timesteps if t >= backbone.config.t_edit)


@torch.no_grad()
def mean_h(
    backbone: Diffusion, crops: CropSet, positions: np.ndarray, generator: torch.Generator, *, batch_size: int = 64
) -> Tensor:
    """Mean of h over crops, every other one mirrored, ``[T, Ch, r, r]`` at ``edited_timesteps``.

    Crops are read as the model sees them: in luminance, or in colour.

    Noise is drawn, not inverted: the mean over noise is what is wanted, and one pass of the down path gives each level.

    Args:
        backbone: the model.
        crops: prepared crops.
        positions: ``[N]``: which of the crops.
        generator: draws the noise.
        batch_size: pictures in a batch.
    """
    times = edited_timesteps(backbone)
    total = torch.zeros(len(times), *backbone.h_shape, dtype=torch.float64)
    for start in range(0, len(positions), batch_size):
        part = positions[start : start + batch_size]
        x = crops.pixels(part, backbone.crop.resolution, backbone.channels).to(backbone.device)
        z, flipped = (backbone.to_latent(side)[0] for side in (x, x.flip(-1)))
        for k, t in enumerate(times):
            a = float(backbone.alpha_bar[t])
            noise = torch.randn(z.shape, generator=generator).to(z)
            mirrored = (torch.arange(len(x), device=x.device) + k) % 2 == 0  # at the next timestep the others are
            seen = torch.where(mirrored[:, None, None, None], flipped, z)
            x_t = a**0.5 * seen + (1 - a) ** 0.5 * noise
            total[k] += backbone.state(x_t, t).h.double().sum(0).cpu()
    return total / len(positions)


def learnable(directions: Directions) -> Directions:
    """The same directions as parameters, for ``ShiftTask``.

    Args:
        directions: left unchanged.
    """
    start = directions.directions
    del directions._buffers["directions"]
    directions.directions = nn.Parameter(start.clone())
    return directions


def fixed(shift: Shift) -> Shift:
    """What was fitted, without ``learnable`` directions: as it is saved.

    Args:
        shift: a fitted shift.
    """
    if isinstance(shift, ShiftBlock):
        return shift
    directions = shift.directions if isinstance(shift, AdaptedDirections) else shift
    plain = Directions(directions.directions.detach(), directions.timesteps)
    return AdaptedDirections(plain, shift.block) if isinstance(shift, AdaptedDirections) else plain


@dataclass(frozen=True)
class ShiftLoss:
    """Weights of the parts of the loss.

    Args:
        guide: name of a guide's loss -> weight.
        near: weight of the absolute difference of P_t with and without the shift.
        outside: weight of that difference away from mouth, eyes and brows, in addition.
        pale: weight of how much the mouth gets brighter than nearly all of the skin, for emotions that open it: a
            recogniser accepts a white patch.
    """

    guide: Mapping[str, float] = field(default_factory=lambda: {"emotion": 1.0})
    near: float = 3.0
    outside: float = 0.0
    pale: float = 0.0


class ShiftTask(nn.Module):
    """Asyrp's training: losses of P_t along the edited reverse process, whose next step starts from the edited x_t.

    Args:
        backbone: frozen.
        guide: frozen.
        shifts: one for each of the guide's emotions, directions made ``learnable``; only these are trained.
        loss: weights of the losses.
        judged: number of steps whose P_t is in the loss, drawn anew for each batch; default all, as in the paper. The
            loss is the costly part: a third of the steps takes half the time.
    """

    outer: Tensor

    def __init__(
        self,
        backbone: Diffusion,
        guide: Guide,
        shifts: Sequence[Shift],
        loss: ShiftLoss,
        *,
        judged: int | None = None,
    ) -> None:
        super().__init__()
        self.shifts, self.how = ModuleList(shifts), loss
        self.judged = judged
        # Not registered: neither trained, nor averaged, nor saved with every checkpoint.
        self.frozen = (backbone.eval().requires_grad_(False), guide.eval().requires_grad_(False))
        inner = region_weights(backbone.crop.resolution)
        self.register_buffer("outer", 1 - (inner / inner.max()).sqrt(), persistent=False)
        self.mouth, self.skin = (self.box(*sides) for sides in (MOUTH, SKIN))

    def box(self, top: float, bottom: float, left: float, right: float) -> tuple[slice, slice]:
        """Rows and columns of a part of the crop, given in fractions of its side.

        Args:
            top: 0 to 1.
            bottom: 0 to 1.
            left: 0 to 1.
            right: 0 to 1.
        """
        side = self.outer.shape[-1]
        return slice(round(top * side), round(bottom * side)), slice(round(left * side), round(right * side))

    def paleness(self, plain: Tensor, edited: Tensor) -> Tensor:
        """How much brighter the edited mouth is than the brightest skin, where it was not before; scalar.

        The brightest twentieth of the skin of ``plain``, and the mouth of ``edited``. Both ``[N, C, R, R]``.
        """
        skin = plain[..., *self.skin].flatten(1).quantile(0.95, dim=1)[:, None, None, None]
        before, after = (p[..., *self.mouth] for p in (plain, edited))
        return F.relu(after - torch.maximum(before, skin).detach()).mean()

    def delta_h(self, rows: Tensor, state: HState) -> Tensor:
        """The shift of each picture's emotion, ``[N, Ch, r, r]``.

        Args:
            rows: ``[N]``: number of each picture's emotion.
            state: h and its surroundings at one step.
        """
        total = torch.zeros_like(state.h)
        for number, shift in enumerate(self.shifts):
            chosen = (rows == number).nonzero()[:, 0]
            if len(chosen):
                part = HState(state.x_t[chosen], state.t[chosen], state.h[chosen], state.temb[chosen])
                total = total.index_add(0, chosen, shift(part).to(total).expand(-1, *total.shape[1:]))
        return total

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses of a batch.

        ``batch``: ``latent`` and the residuals of an exact inversion, ``mean`` and ``gain`` of its crops, ``target``
        ``[N]``: number of the emotion each is to show.
        """
        backbone, guide = self.frozen
        rows, x, schedule = batch["target"], batch["latent"], backbone.schedule
        parts: dict[str, list[Tensor]] = {}
        edited_steps = [k for k, t in enumerate(schedule.timesteps) if t >= backbone.config.t_edit]
        judged = set(torch.randperm(len(edited_steps))[: self.judged].tolist())
        for k in reversed(edited_steps):
            t, a_t = schedule.timesteps[k], schedule.alpha_bar[k]
            with torch.no_grad():
                state, noise_of = backbone.split(x, t)
                state, eps = replace(state, h=state.h.float(), temb=state.temb.float()), noise_of(state.h).float()
            with torch.set_grad_enabled(torch.is_grad_enabled() and k - edited_steps[0] in judged):
                shifted = noise_of(state.h + self.delta_h(rows, state)).float()
            if k - edited_steps[0] in judged:
                shown = (sampling.predicted_x0(x, e, a_t) for e in (eps, shifted))
                plain, edited = (backbone.to_picture(p, batch["mean"], batch["gain"]) for p in shown)
                found = guide(plain, edited, rows)
                plain, edited = plain / batch["gain"], edited / batch["gain"]  # light counts alike in every picture
                moved = (edited - plain).abs()
                found = {**found, "near": moved.mean(), "outside": (moved * self.outer).mean()}
                if self.how.pale:
                    found["pale"] = self.paleness(plain, edited)
                for name, value in found.items():
                    parts.setdefault(name, []).append(value)
            step = sampling.ddim_step(x, eps, a_t, schedule.below(k), eps_shifted=shifted) + batch["residuals"][:, k]
            x = step.detach()
        means = {name: torch.stack(values).mean() for name, values in parts.items()}
        weights = {**self.how.guide, "near": self.how.near, "outside": self.how.outside}
        if self.how.pale:
            weights["pale"] = self.how.pale
        total = sum((weight * means[name] for name, weight in weights.items()), torch.zeros(()))
        return {"loss": total, **{name: value.detach() for name, value in means.items()}}


class SourceBatches:
    """Batches of inverted pictures, each with a target emotion.

    Args:
        inversion: inversion of all sources, exact (``DDPMBackbone.invert``).
        emotions: how many emotions there are to be fitted.
        shown: ``[N]`` number of the emotion that each source shows itself, -1 for none; it is never its target.
        batch_size: pictures in a batch.
        seed: seed of the draws.
    """

    def __init__(self, inversion: Inversion, emotions: int, shown: np.ndarray, *, batch_size: int, seed: int) -> None:
        self.inversion, self.emotions, self.shown = inversion, emotions, shown
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """The batch of a step."""
        rng = np.random.default_rng((self.seed, step, process))
        target = rng.integers(self.emotions, size=self.batch_size)
        chosen = rng.integers(len(self.inversion), size=self.batch_size)
        while (same := self.shown[chosen] == target).any():
            chosen = np.where(same, rng.integers(len(self.inversion), size=self.batch_size), chosen)
        extras = self.inversion.extras
        return {
            "target": torch.from_numpy(target),
            "latent": self.inversion.latent[chosen],
            **{name: extras[name][chosen].float() for name in ("residuals", "mean", "gain")},
        }


def invert_crops(
    backbone: Diffusion, crops: CropSet, positions: np.ndarray, *, mirrored: bool = False, batch_size: int = 32
) -> Inversion:
    """Exact inversions of many crops as one, residuals in half precision.

    Args:
        backbone: the model that draws.
        crops: prepared crops.
        positions: indices into the crops.
        mirrored: then of their mirror images too, behind all the others.
        batch_size: pictures in one pass of the model.
    """
    latents: list[Tensor] = []
    extras: dict[str, list[Tensor]] = {"residuals": [], "mean": [], "gain": []}
    parts: Sequence[np.ndarray] = np.array_split(positions, max(1, len(positions) // batch_size))
    jobs = [(part, flip) for flip in (False, True)[: 1 + mirrored] for part in parts]
    for part, flip in tqdm(jobs, desc="invert", leave=False):
        x = crops.pixels(part, backbone.crop.resolution, backbone.channels).to(backbone.device)
        found = backbone.invert(x.flip(-1) if flip else x)
        latents.append(found.latent)
        extras["residuals"].append(backbone.residuals(found).half())
        for name in ("mean", "gain"):
            extras[name].append(found.extras[name])
    return Inversion(torch.cat(latents), {name: torch.cat(values) for name, values in extras.items()})


@torch.no_grad()
def path_h(backbone: Diffusion, x: Tensor) -> Tensor:
    """Values of h along the inversion of pictures, ``[N, T, Ch, r, r]`` at ``edited_timesteps``.

    Args:
        backbone: the model that draws.
        x: ``[N, C, R, R]`` in [-1, 1].
    """
    times = set(edited_timesteps(backbone))
    return torch.stack([state.h for state, _ in backbone.path(x) if int(state.t[0]) in times], 1)


def principal_directions(h: Tensor, timesteps: Sequence[int], count: int) -> list[Directions]:
    """The directions in which h varies most, over all timesteps together, without any label.

    Each is as long as one standard deviation (Haas et al. 2024, section 4).

    Args:
        h: ``[N, T, Ch, r, r]`` of ``path_h``.
        timesteps: its T timesteps.
        count: how many.

    Raises:
        DataError: fewer pictures than directions.
    """
    axes, deviations = principal_axes(h.flatten(1), count)
    return [Directions(d * a.view(h.shape[1:]), timesteps) for a, d in zip(axes, deviations, strict=True)]


def boundary_direction(h: Tensor, timesteps: Sequence[int], positive: Tensor, t: int) -> Directions:
    """The direction across the boundary between two classes at one timestep, the mixing step.

    It is zero at the others (BoundaryDiffusion, Zhu et al. 2023, arXiv 2302.08357). Its length is the distance of the
    classes' means across the boundary.

    Args:
        h: ``[N, T, Ch, r, r]`` of ``path_h``.
        timesteps: its T timesteps.
        positive: ``[N]`` bool.
        t: one of the timesteps.

    Raises:
        DataError: another timestep, or a class without pictures.
    """
    times = list(timesteps)
    if t not in times:
        raise DataError(f"timestep {t} is none of those that are edited: {', '.join(map(str, times))}")
    k = times.index(t)
    found = linear_svm(h[:, k].flatten(1), positive)
    directions = torch.zeros(h.shape[1:])
    directions[k] = found.gap * found.normal.view(h.shape[2:])
    return Directions(directions, times)


def averaged(directions: Directions) -> Directions:
    """One direction for all timesteps, the mean over them (Asyrp's global delta h).

    Args:
        directions: directions of every timestep.
    """
    return Directions(directions.directions.mean(0, keepdim=True))

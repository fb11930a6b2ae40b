"""Finding the w+ of a picture, and bending the generator to it.

First w+ and the noise maps are optimised from where the encoder, or the mean of w, starts (Karras et al. 2020, arXiv
1912.04958, appendix D; in w+ as in Abdal et al. 2019, arXiv 1904.03189). What no w+ can draw, pivotal tuning teaches a
copy of the synthesis network with w+ held fast (Roich et al. 2021, arXiv 2106.05744).
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.io.images import write_atomic
from emoedit.models.base import Callback
from emoedit.types import CheckpointError, EmoEditError, Inversion

if TYPE_CHECKING:
    from emoedit.models.stylegan2.backbone import StyleGAN2Backbone

Distance = Callable[[Tensor, Tensor], Tensor]
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # shares of the steps over which the learning rate rises and falls
NOISE_WEIGHT = 1e5  # of the maps' squared autocorrelation
UNEXPLAINED = 0.5  # a picture of which more variance than this is left has not been found
PARTS = ("synthesis", "latent", "extras")


class InversionError(EmoEditError, ValueError):
    """The generator cannot draw the picture: the inversion or the tuning did not converge."""


@dataclass(frozen=True)
class Losses:
    """What is minimised: a weighted sum for each picture.

    Args:
        perceptual, identity: differentiable distances ``[N]`` of two batches ``[N, C, R, R]`` at the model's own mean
            and contrast (so values may leave [-1, 1]): LPIPS and 1 - cosine of a face recogniser's vectors in the
            papers. Left out where None.
        weights: of mean squared difference, perceptual and identity.
    """

    perceptual: Distance | None = None
    identity: Distance | None = None
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5)

    def __call__(self, drawn: Tensor, target: Tensor) -> Tensor:
        """``[N]``."""
        total = self.weights[0] * (drawn - target).square().mean((1, 2, 3))
        for weight, distance in zip(self.weights[1:], (self.perceptual, self.identity), strict=True):
            if distance is not None:
                total = total + weight * distance(drawn, target)
        return total


def unexplained(drawn: Tensor, target: Tensor) -> Tensor:
    """The share of a picture's variance that is not drawn, ``[N]``: 0 for equal pictures, 1 for a flat one of the right
    mean."""
    return (drawn - target).square().mean((1, 2, 3)) / target.var((1, 2, 3), unbiased=False).clamp_min(1e-4)


def autocorrelation(maps: list[Tensor]) -> Tensor:
    """How much noise maps ``[N, 1, r, r]`` look like pictures, ``[N]``: squared correlation of neighbours, summed over
    all scales down to 8 pixels (Karras et al. 2020, appendix D)."""
    total = maps[0].new_zeros(len(maps[0]))
    for each in maps:
        while True:
            for axis in (2, 3):
                total = total + (each * each.roll(1, axis)).mean((1, 2, 3)).square()
            if each.shape[2] <= 8:
                break
            each = F.avg_pool2d(each, 2)
    return total


def learning_rate(step: int, steps: int) -> float:
    """Factor of a step, above 0 and up to 1: up linearly, down along a cosine."""
    t = (step + 1) / (steps + 1)
    return min(1.0, t / RAMP_UP) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / RAMP_DOWN)))


def _noise_maps(flat: Tensor, sizes: list[int]) -> list[Tensor]:
    return [part.view(len(part), 1, math.isqrt(part.shape[1]), -1) for part in flat.split(sizes, 1)]


def optimise(
    draw: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    start: Tensor,
    noise: Tensor,
    sizes: list[int],
    losses: Losses,
    *,
    steps: int,
    rate: float = 0.05,
    callback: Callback | None = None,
) -> tuple[Tensor, Tensor]:
    """w+ and noise maps that draw the target. Nothing is random, and no picture of a batch looks at another.

    Args:
        draw: w+ ``[N, L, D]`` and noise ``[N, P]`` -> pictures ``[N, C, R, R]``.
        target: ``[N, C, R, R]``.  start: w+ to begin with.  noise: maps to begin with.  sizes: values of each map.
        rate: Adam's highest learning rate.
        callback: called with (steps done, steps in all).

    Raises:
        InversionError: some picture's loss is no longer finite, or more than :data:`UNEXPLAINED` of its variance is
            left.
    """
    with torch.enable_grad():
        latent, noise = (part.clone(memory_format=torch.contiguous_format).requires_grad_() for part in (start, noise))
        adam = torch.optim.Adam([latent, noise], lr=rate)
        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * learning_rate(step, steps)
            loss = losses(draw(latent, noise), target)
            _check_finite(loss, step)
            total = loss.sum() + NOISE_WEIGHT * autocorrelation(_noise_maps(noise, sizes)).sum()
            latent.grad, noise.grad = torch.autograd.grad(total, [latent, noise])  # and of no one else's weights
            adam.step()
            with torch.no_grad():
                for each in noise.split(sizes, 1):
                    each.sub_(each.mean(1, keepdim=True)).div_(each.square().mean(1, keepdim=True).sqrt() + 1e-8)
            if callback is not None:
                callback(step + 1, steps)
    latent, noise = latent.detach(), noise.detach()
    with torch.no_grad():
        left = unexplained(draw(latent, noise), target)
    _check_finite(left, steps)
    if bool((left > UNEXPLAINED).any()):
        worst = int(left.argmax())
        raise InversionError(
            f"picture {worst + 1} of {len(left)} was not found after {steps} steps: {float(left[worst]):.0%} of its "
            f"variance is left, more than {UNEXPLAINED:.0%}. Is it a face, aligned as this model's crop? Else take "
            "more steps"
        )
    return latent, noise


def _check_finite(values: Tensor, step: int) -> None:
    if not bool(values.isfinite().all()):
        worst = int((~values.isfinite()).int().argmax())
        raise InversionError(
            f"picture {worst + 1} of {len(values)}: the loss is {float(values[worst].detach())} at step {step}; take a "
            "lower learning rate, and see that the weights are not damaged"
        )


def digest(synthesis: nn.Module) -> str:
    """Identifies the weights of a synthesis network."""
    found = hashlib.sha256()
    for name, value in synthesis.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class Tuning:
    """What pivotal tuning made for some pictures: a synthesis network of their own, and their inversion.

    Args:
        weights: the tuned network's state dict.  inversion: of the pictures it was tuned for.
        base: :func:`digest` of the network it comes from.
    """

    weights: Mapping[str, Tensor]
    inversion: Inversion
    base: str
    losses: tuple[float, ...] = field(default=(), compare=False)  # mean over the pictures, before each step and at last

    def apply(self, backbone: StyleGAN2Backbone) -> StyleGAN2Backbone:
        """The backbone with the tuned synthesis network; everything else is shared, and the one given stays as it is.

        Raises:
            CheckpointError: the tuning comes from a network with other weights.
        """
        if digest(backbone.synthesis) != self.base:
            raise CheckpointError(
                f"this tuning was made from the weights {self.base}, the backbone has {digest(backbone.synthesis)}: "
                "tune again, or load the backbone it was made with"
            )
        synthesis = copy.deepcopy(backbone.synthesis)
        checkpoints.check_state(synthesis.state_dict(), self.weights, "the tuning")
        synthesis.load_state_dict(self.weights)
        return backbone.with_synthesis(synthesis)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one safetensors file.

        Raises:
            OutputError: it exists, or cannot be written; no half-written file is left.
        """
        from safetensors.torch import save

        groups = {"synthesis": self.weights, "latent": {"": self.inversion.latent}, "extras": self.inversion.extras}
        tensors = {
            f"{group}.{name}": value.detach().cpu().contiguous().clone()
            for group, values in groups.items()
            for name, value in values.items()
        }
        text = {"base": self.base, "fingerprint": self.inversion.fingerprint, "format": "pt"}
        data = save(tensors, text)
        write_atomic(path, lambda file: file.write(data), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: missing, damaged, or something else.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        state = checkpoints.read_weights(path)
        try:
            with safe_open(path, "pt") as file:
                text = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        parts: dict[str, dict[str, Tensor]] = {group: {} for group in PARTS}
        for name, value in state.items():
            group, _, rest = name.partition(".")
            if group not in parts:
                raise CheckpointError(f"{path} holds {name}; expected only {', '.join(PARTS)}: this is no tuning")
            parts[group][rest] = value.clone()  # aligned in memory as before: else sums are rounded otherwise
        if "base" not in text or set(parts["latent"]) != {""} or not parts["synthesis"]:
            raise CheckpointError(f"{path} is no tuning of a StyleGAN2: it lacks weights, w+ or what it comes from")
        inversion = Inversion(parts["latent"][""], parts["extras"], text.get("fingerprint", ""))
        return cls(parts["synthesis"], inversion, text["base"])


def tune(
    backbone: StyleGAN2Backbone,
    x: Tensor,
    inversion: Inversion,
    *,
    losses: Losses | None = None,
    steps: int = 100,
    rate: float = 3e-4,
    callback: Callback | None = None,
) -> Tuning:
    """Teach a copy of the synthesis network to draw pictures at their w+ (pivotal tuning).

    Args:
        backbone: stays as it is.
        x: ``[N, C, R, R]`` in [-1, 1]; all pictures share the tuned network.
        inversion: of these pictures by this backbone.
        losses: default: the backbone's own.
        steps, rate: of Adam; the paper takes 350 and 3e-4.
        callback: called with (steps done, steps in all).

    Raises:
        ImageError: pictures of another shape.
        InversionError: the loss is no longer finite, or not lower than before.
    """
    losses = backbone.losses if losses is None else losses
    target = backbone.normalise(backbone.checked(x))[0]
    noise = inversion.extras.get("noise")
    synthesis = copy.deepcopy(backbone.synthesis).requires_grad_(True)
    weights = list(synthesis.parameters())
    adam = torch.optim.Adam(weights, lr=rate)
    course: list[float] = []

    def loss_now(step: int) -> Tensor:
        loss = losses(synthesis(inversion.latent, noise, dtype=backbone.dtype), target)
        _check_finite(loss, step)
        course.append(float(loss.detach().mean()))
        return loss.sum()

    with torch.enable_grad():
        for step in range(steps):
            gradients = torch.autograd.grad(loss_now(step), weights)  # and of no one else's weights
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            adam.step()
            if callback is not None:
                callback(step + 1, steps)
    with torch.no_grad():
        loss_now(steps)
    if steps and course[-1] >= course[0]:
        raise InversionError(
            f"tuning led from a loss of {course[0]:.4g} to {course[-1]:.4g} in {steps} steps; take a lower learning "
            f"rate than {rate:g}, or more steps"
        )
    state = {name: value.detach().clone() for name, value in synthesis.state_dict().items()}
    return Tuning(state, inversion, digest(backbone.synthesis), tuple(course))

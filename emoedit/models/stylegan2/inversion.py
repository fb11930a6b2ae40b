"""Finding the w+ of a picture by optimisation.

w+ and the noise maps are optimised from where the encoder, or the mean of w, starts (Karras et al. 2020, arXiv
1912.04958, appendix D; in w+ as in Abdal et al. 2019, arXiv 1904.03189).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.models.base import Callback
from emoedit.types import EmoEditError

Distance = Callable[[Tensor, Tensor], Tensor]
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # shares of the steps over which the learning rate rises and falls
RATE = 0.05  # of Adam, at its highest
NOISE_WEIGHT = 1e5  # of the maps' squared autocorrelation
UNEXPLAINED = 0.5  # a picture of which more variance than this is left has not been found


class InversionError(EmoEditError, ValueError):
    """The generator cannot draw the picture: the inversion or the tuning did not converge."""


@dataclass(frozen=True)
class Losses:
    """What is minimised: a weighted sum for each picture.

    Args:
        perceptual: differentiable distances ``[N]`` of two batches ``[N, C, R, R]`` at the model's own mean and
            contrast (so values may leave [-1, 1]): LPIPS and 1 - cosine of a face recogniser's vectors in the papers.
            Left out where None.
        identity: as ``perceptual``.
        weights: weights of mean squared difference, perceptual and identity.
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
    """The share of a picture's variance that is not drawn, ``[N]``.

    0 for equal pictures, 1 for a flat one of the right mean.

    Args:
        drawn: ``[N, C, R, R]``.
        target: as ``drawn``.
    """
    return (drawn - target).square().mean((1, 2, 3)) / target.var((1, 2, 3), unbiased=False).clamp_min(1e-4)


def autocorrelation(maps: list[Tensor]) -> Tensor:
    """How much noise maps ``[N, 1, r, r]`` look like pictures, ``[N]``.

    Squared correlation of neighbours, summed over all scales down to 8 pixels (Karras et al. 2020, appendix D).
    """
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
    """Factor of a step, above 0 and up to 1: up linearly, down along a cosine.

    Args:
        step: number of the step.
        steps: how many there are.
    """
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
    callback: Callback | None = None,
) -> tuple[Tensor, Tensor]:
    """w+ and noise maps that draw the target. Nothing is random; pictures of a batch are independent.

    Args:
        draw: w+ ``[N, L, D]`` and noise ``[N, P]`` -> pictures ``[N, C, R, R]``.
        target: ``[N, C, R, R]``.
        start: w+ to begin with.
        noise: maps to begin with.
        sizes: values of each map.
        losses: losses that are minimised.
        steps: number of steps.
        callback: called with (steps done, steps in all).

    Raises:
        InversionError: some picture's loss is no longer finite, or more than ``UNEXPLAINED`` of its variance is left.
    """
    with torch.enable_grad():
        latent, noise = (part.clone(memory_format=torch.contiguous_format).requires_grad_() for part in (start, noise))
        adam = torch.optim.Adam([latent, noise], lr=RATE)
        for step in range(steps):
            adam.param_groups[0]["lr"] = RATE * learning_rate(step, steps)
            loss = losses(draw(latent, noise), target)
            check_finite(loss, step)
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
    check_finite(left, steps)
    if bool((left > UNEXPLAINED).any()):
        worst = int(left.argmax())
        raise InversionError(
            f"picture {worst + 1} of {len(left)} was not found after {steps} steps: {float(left[worst]):.0%} of its "
            f"variance is left, more than {UNEXPLAINED:.0%}. Is it a face, aligned as this model's crop? Else take "
            "more steps"
        )
    return latent, noise


def check_finite(values: Tensor, step: int) -> None:
    """Refuse losses ``[N]`` that are not finite.

    Args:
        values: ``[N]``.
        step: number of the step, for messages.

    Raises:
        InversionError: says which picture, and at which step.
    """
    if not bool(values.isfinite().all()):
        worst = int((~values.isfinite()).int().argmax())
        raise InversionError(
            f"picture {worst + 1} of {len(values)}: the loss is {float(values[worst].detach())} at step {step}; take a "
            "lower learning rate, and see that the weights are not damaged"
        )

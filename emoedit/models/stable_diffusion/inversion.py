"""Ways from a picture's latent to noise and back that are more than DDIM's: pure functions on tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from emoedit.sampling import Schedule, ddim_step

# x_t [N, C, R, R], t, context [N, T, D], the picture's own for None -> the noise
EpsUnder = Callable[[Tensor, int, Tensor | None], Tensor]


def noisy_path(x: Tensor, schedule: Schedule, noise: Callable[[], Tensor]) -> Tensor:
    """x_t at every timestep, each with noise of its own, ``[N, S, C, R, R]``.

    The path of edit-friendly noise (Huberman-Spiegelglas et al. 2024, arXiv 2304.06140, eq. 6).

    Independent noise at every step makes the steps between them larger and negatively correlated, so that they hold
    more of the picture than the noise that DDPM would have drawn.

    Args:
        x: ``[N, C, R, R]``.
        schedule: timesteps and their alpha_bar.
        noise: draws ``[N, C, R, R]`` standard normal values.
    """
    return torch.stack([a**0.5 * x + (1 - a) ** 0.5 * noise() for a in schedule.alpha_bar], 1)


def step_targets(path: Tensor, x: Tensor) -> Tensor:
    """The target of every decoding step, ``[N, S, C, R, R]``: the path's previous x_t, and the picture at the last.

    Args:
        path: ``[N, S, C, R, R]``.
        x: ``[N, C, R, R]``, the picture.
    """
    return torch.cat([x[:, None], path[:, :-1]], 1)


def path_residuals(path: Tensor, x: Tensor, eps: Tensor, schedule: Schedule, *, stochastic: bool) -> Tensor:
    """The residuals of every decoding step along a path, ``[N, S, C, R, R]``.

    ``emoedit.sampling.exact_inversion`` of a path that is known.

    Args:
        path: ``[N, S, C, R, R]``.
        x: ``[N, C, R, R]``, the picture.
        eps: as ``path``: the noise found on it.
        schedule: timesteps and their alpha_bar.
        stochastic: whether steps are DDPM's (eta = 1) without their noise; sigma z_t of eq. 5 there, where z_t is the
            noise map.
    """
    targets, none = step_targets(path, x), torch.zeros_like(x) if stochastic else None
    residuals = [
        targets[:, k] - ddim_step(path[:, k], eps[:, k], schedule.alpha_bar[k], schedule.below(k), noise=none)
        for k in range(len(schedule))
    ]
    return torch.stack(residuals, 1)


def noise_maps(residuals: Tensor, schedule: Schedule) -> Tensor:
    """z_t, the noise that makes DDPM's steps follow the path, ``[N, S, C, R, R]``.

    Huberman-Spiegelglas et al. 2024, eq. 5. The last step draws none: its row is 0.

    Args:
        residuals: result of ``path_residuals``, stochastic.
        schedule: timesteps and their alpha_bar.
    """
    maps = torch.zeros_like(residuals)
    for k in range(1, len(schedule)):
        a_t, a_next = schedule.alpha_bar[k], schedule.below(k)
        maps[:, k] = residuals[:, k] / ((1 - a_t / a_next) * (1 - a_next) / (1 - a_t)) ** 0.5
    return maps


def null_text(
    eps_under: EpsUnder,
    path: Tensor,
    x: Tensor,
    null: Tensor,
    schedule: Schedule,
    *,
    guidance: float,
    iterations: int,
    callback: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Embeddings in place of the empty prompt's, one a step, with which guided steps follow a path.

    ``[N, S, T, D]`` (Mokady et al. 2023, arXiv 2211.09794, algorithm 1).

    As there: from noise to picture, each step starting from the one before, Adam with a rate of .01 that falls to half.
    Every step is optimised at the path itself, because what it still loses can be kept (``path_residuals``); the number
    of iterations is fixed, so that a picture's embeddings do not depend on its batch.

    Args:
        eps_under: gives the noise under a context.
        path: ``[N, S, C, R, R]`` of DDIM inversion without guidance.
        x: ``[N, C, R, R]``.
        null: ``[N, T, D]``, of the empty prompt.
        schedule: timesteps and their alpha_bar.
        guidance: scale of classifier-free guidance.
        iterations: iterations of the optimiser at each step.
        callback: called with (steps done, steps in all).
    """
    targets, found = step_targets(path, x), []
    for done, k in enumerate(reversed(range(len(schedule)))):
        t, a_t, a_next = schedule.timesteps[k], schedule.alpha_bar[k], schedule.below(k)
        x_t = path[:, k]
        with torch.no_grad():
            eps = eps_under(x_t, t, None)
        with torch.enable_grad():
            null = null.detach().clone().requires_grad_()
            adam = torch.optim.Adam([null], 1e-2 * (1 - done / (2 * len(schedule))))
            for _ in range(iterations):
                empty = eps_under(x_t, t, null)
                there = ddim_step(x_t, empty + guidance * (eps - empty), a_t, a_next)
                loss = (there - targets[:, k]).square().mean((1, 2, 3)).sum()
                (null.grad,) = torch.autograd.grad(loss, null)
                adam.step()
        null = null.detach()
        found.append(null)
        if callback is not None:
            callback(done + 1, len(schedule))
    return torch.stack(found[::-1], 1)

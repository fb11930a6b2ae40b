"""DDIM inversion and sampling with Asyrp's asymmetric step: pure functions on tensors.

``alpha_bar`` is the cumulative product of 1 - beta: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps. A step
goes from ``a_t`` to ``a_next`` (two values of it), down to the picture (``a_next = 1``) or up to noise.

The model is a function ``eps_at(x_t, t)``; where a sampler edits, it gives the noise and the shifted noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.types import EditError

EpsAt = Callable[[Tensor, int], Tensor]
ShiftedEpsAt = Callable[[Tensor, int], tuple[Tensor, Tensor | None]]  # the noise; the shifted noise, None for no edit


UNCHANGED, CHANGED = (
    0.08,
    0.18,
)  # distances below which a place counts as unchanged, and above which it is another picture


def alpha_bar(betas: Tensor) -> Tensor:
    """Cumulative product of 1 - beta in float64, ``[T]`` (Ho et al. 2020, arXiv 2006.11239, below eq. 4)."""
    return (1 - betas.double()).cumprod(0)


@dataclass(frozen=True)
class Schedule:
    """The timesteps that are visited and their alpha_bar, ascending in t.

    Args:
        timesteps: ``[S]``, 0 the nearest to the picture.
        alpha_bar: ``[S]``, of the same timesteps.
    """

    timesteps: tuple[int, ...]
    alpha_bar: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.timesteps)

    def below(self, k: int) -> float:
        """alpha_bar one step nearer to the picture than step ``k``; below the last step is the picture itself, 1."""
        return self.alpha_bar[k - 1] if k else 1.0


def make_schedule(alphas: Tensor, steps: int, t_last: int | None = None) -> Schedule:
    """``steps`` timesteps spread evenly over 0 to ``t_last``, rounded down, as Asyrp spreads them (``t_0`` there).

    Args:
        alphas: alpha_bar of all T timesteps the model was trained on.
        steps: number of steps.
        t_last: default T - 1.

    Raises:
        EditError: fewer than 2 steps, more steps than timesteps, or a ``t_last`` the model does not know.
    """
    last = len(alphas) - 1 if t_last is None else t_last
    if not 0 < last < len(alphas):
        raise EditError(f"t_last is {last}, but the model was trained on timesteps 0 to {len(alphas) - 1}")
    if not 2 <= steps <= last + 1:
        raise EditError(f"{steps} steps over the timesteps 0 to {last}: 2 to {last + 1} are possible, 20 to 50 usual")
    timesteps = tuple(k * last // (steps - 1) for k in range(steps))
    return Schedule(timesteps, tuple(float(alphas[t]) for t in timesteps))


def predicted_x0(x_t: Tensor, eps: Tensor, a_t: float) -> Tensor:
    """P_t, the picture predicted from x_t and the noise in it (Song et al. 2021, arXiv 2010.02502, eq. 9).

    Args:
        x_t: ``[N, C, R, R]``.
        eps: as ``x_t``, the noise in it.
        a_t: alpha_bar at this step.
    """
    return (x_t - (1 - a_t) ** 0.5 * eps) / a_t**0.5


def ddim_step(
    x_t: Tensor,
    eps: Tensor,
    a_t: float,
    a_next: float,
    *,
    eps_shifted: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """One step of DDIM (Song et al. 2021, eq. 12).

    With shifted noise it is Asyrp's step (Kwon et al. 2023, arXiv 2210.10960, eq. 5).

    x_next = sqrt(a_next) P_t(eps_shifted) + D_t(eps) + sigma noise. The shift is in P_t only: in both terms its effects
    would nearly cancel (their theorem 1). Upwards (``a_next < a_t``) it is DDIM inversion.

    Args:
        x_t: ``[N, C, R, R]``.
        eps: as ``x_t``.
        a_t: alpha_bar at this step.
        a_next: alpha_bar at the next one.
        eps_shifted: the same; None for no edit.
        noise: ``[N, C, R, R]`` standard normal: sigma is then DDPM's (eta = 1), else 0; downwards only.
    """
    x0 = predicted_x0(x_t, eps if eps_shifted is None else eps_shifted, a_t)
    if noise is None:
        return a_next**0.5 * x0 + (1 - a_next) ** 0.5 * eps
    variance = (1 - a_t / a_next) * (1 - a_next) / (1 - a_t)
    return a_next**0.5 * x0 + (1 - a_next - variance) ** 0.5 * eps + variance**0.5 * noise


def symmetric_gain(a_t: float, a_next: float) -> float:
    """How much larger a shift of the noise has to be in P_t and D_t alike, to move x_next as far as in P_t alone.

    The ratio of the shift's coefficients in ``ddim_step``: 1 / (1 - s_next / s_t) with s = sqrt((1 - a) / a). With
    it one pass of the model a step is enough (Haas et al. 2024, arXiv 2303.11073, find both forms alike once rescaled).

    Args:
        a_t: alpha_bar at this step.
        a_next: alpha_bar at the next one.
    """
    return 1 / (1 - ((1 - a_next) * a_t / (a_next * (1 - a_t))) ** 0.5)


def inversion_path(eps_at: EpsAt, x: Tensor, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
    """DDIM inversion (Song et al. 2021, section 4.3): x_t and the noise in it at every timestep, ascending.

    Args:
        eps_at: gives the noise in x_t at a timestep.
        x: ``[N, C, R, R]``, taken for x at the first timestep, as Asyrp does.
        schedule: timesteps and their alpha_bar.

    Yields:
        ``x_t, eps``: S pairs for S steps, one pass of the model each; the last x_t is x_T.
    """
    for t, a_t, a_next in zip(schedule.timesteps, schedule.alpha_bar, (*schedule.alpha_bar[1:], None), strict=True):
        eps = eps_at(x, t)
        yield x, eps
        if a_next is not None:
            x = ddim_step(x, eps, a_t, a_next)


def exact_inversion(path: Iterator[tuple[Tensor, Tensor]], schedule: Schedule) -> tuple[Tensor, Tensor]:
    """x_T, and the residual of every DDIM step back from it against the inversion path.

    Inversion uses the noise of x_t in place of that of x_{t+1}; the reverse process uses x_{t+1} itself and leaves the
    path. The residual costs no pass of the model, since inversion computes that noise next. Added in the reverse
    process (``residuals`` of ``decode``), it makes the reconstruction exact at any number of steps, and an edit starts
    from the path itself (Ju et al. 2024, arXiv 2310.01506; for stochastic paths Wu & De la Torre 2023, arXiv
    2210.05559).

    Args:
        path: path of ``inversion_path``.
        schedule: timesteps and their alpha_bar.

    Returns:
        ``[N, C, R, R]`` and ``[N, S, C, R, R]``.
    """
    residuals: list[Tensor] = []
    before = torch.empty(0)
    for k, (x, eps) in enumerate(path):
        target = before if k else x  # the picture is x at the first timestep and what the last step gives
        residuals.append(target - ddim_step(x, eps, schedule.alpha_bar[k], schedule.below(k)))
        before = x
    return before, torch.stack(residuals, 1)


def decode(
    eps_at: ShiftedEpsAt,
    x: Tensor,
    schedule: Schedule,
    *,
    residuals: Tensor | None = None,
    t_boost: int = 0,
    changed: Callable[[Tensor], Tensor] | None = None,
    noise: Callable[[], Tensor] | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Asyrp's reverse process, from x_T to the picture (Kwon et al. 2023, eq. 5 and section 4).

    Args:
        eps_at: gives the noise in x_t at a timestep.
        x: ``[N, C, R, R]``, x_T.
        schedule: timesteps and their alpha_bar.
        residuals: result of ``exact_inversion``, for a source that is reproduced exactly.
        t_boost: quality boosting: at timesteps below it noise is drawn (eta = 1), and ``residuals``, which belong to
            the path without noise, are left out.
        changed: where noise is drawn: given P_t of the first boosted step, ``[N, 1, R, R]`` in [0, 1]; where it is 0
            steps stay without noise. Default: everywhere.
        noise: draws ``[N, C, R, R]`` standard normal values; needed if ``t_boost`` is above 0.
        callback: called with (steps done, steps in all).

    Raises:
        EditError: ``t_boost`` is above 0 and nothing draws noise.
    """
    where = None
    for k in reversed(range(len(schedule))):
        t, a_t, a_next = schedule.timesteps[k], schedule.alpha_bar[k], schedule.below(k)
        eps, eps_shifted = eps_at(x, t)
        step = partial(ddim_step, x, eps, a_t, a_next, eps_shifted=eps_shifted)
        boosted = t < t_boost
        if not boosted or changed is not None:
            onward = step() if residuals is None else step() + residuals[:, k]
        if boosted:
            if noise is None:
                raise EditError("quality boosting draws noise: give a generator, or set t_boost to 0")
            noisy = step(noise=noise())
            if changed is not None and where is None:
                where = changed(predicted_x0(x, eps if eps_shifted is None else eps_shifted, a_t))
            onward = noisy if where is None else onward.lerp(noisy, where)
        x = onward
        if callback is not None:
            callback(len(schedule) - k, len(schedule))
    return x


def change_mask(predicted: Tensor, source: Tensor) -> Tensor:
    """Where a predicted edit differs from its source, ``[N, 1, R, R]`` from 0 (not at all) to 1, with soft edges.

    Early P_t shows coarse shapes only, so both are compared through a Gaussian of 1/48 of the side.

    Args:
        predicted: ``[N, C, R, R]``, P_t of the edit and of the source at the same timestep, at the contrast the model
            works at (a face's deviation is about .45).
        source: as ``predicted``.
    """
    side = predicted.shape[-1]
    apart = (blurred(predicted, side / 48) - blurred(source, side / 48)).abs().mean(1, keepdim=True)
    return blurred(((blurred(apart, side / 32) - UNCHANGED) / (CHANGED - UNCHANGED)).clamp(0, 1), side / 48)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """``[N, C, R, R]`` through a Gaussian of ``sigma`` pixels, mirrored at the rim.

    Args:
        x: ``[N, C, R, R]``.
        sigma: standard deviation in pixels.
    """
    reach = min(math.ceil(3 * sigma), x.shape[-1] - 1)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=x.device) / sigma).square() / 2).to(x)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, [reach] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=x.shape[1]), kernel.mT, groups=x.shape[1])


def picture_noise(seeds: Tensor, shape: Sequence[int], device: torch.device) -> Callable[[], Tensor]:
    """Draws ``[N, *shape]`` standard normal values at every call, from one generator a picture.

    A picture's noise does not depend on the others in its batch, nor on the device.

    Args:
        seeds: ``[N]`` of int64.
        shape: shape of one picture.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
    """
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    return lambda: torch.stack([torch.randn(*shape, generator=g) for g in generators]).to(device)


def first_reaching(timesteps: Sequence[int], distances: Sequence[float], threshold: float) -> int:
    """The smallest timestep at which a distance curve reaches a threshold.

    Args:
        timesteps: timesteps of the curve.
        distances: at each timestep.
        threshold: value to reach.

    Raises:
        EditError: it never does.
    """
    for t, distance in sorted(zip(timesteps, distances, strict=True)):
        if distance >= threshold:
            return t
    raise EditError(
        f"the distance never reaches {threshold:.3g}; its largest value is {max(distances, default=float('nan')):.3g}: "
        "lower the threshold"
    )


def find_t_edit(timesteps: Sequence[int], distances: Sequence[float], cosine: float = 1.0) -> int:
    """Where editing ends: LPIPS between the picture and P_t reaches .33 x cosine (Kwon et al. 2023, section 4.1).

    Args:
        timesteps: timesteps of the curve.
        distances: mean LPIPS(x_0, P_t) at each timestep.
        cosine: similarity of the CLIP embeddings of source and target text; an edit that goes further lasts longer.
    """
    return first_reaching(timesteps, distances, 0.33 * cosine)


def find_t_boost(timesteps: Sequence[int], distances: Sequence[float]) -> int:
    """Where quality boosting begins: LPIPS between the picture and x_t reaches 1.2 (Kwon et al. 2023, section 4.2).

    Args:
        timesteps: timesteps of the curve.
        distances: mean LPIPS(x_0, x_t) at each timestep.
    """
    return first_reaching(timesteps, distances, 1.2)

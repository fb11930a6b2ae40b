"""Linear boundaries between two classes of latents, and the axes along which latents vary most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.types import DataError

ITERATIONS = 200  # of L-BFGS; some dozens are usual


@dataclass(frozen=True)
class Boundary:
    """A hyperplane: ``latent @ normal + offset`` is the signed distance, above 0 on the positive side.

    Args:
        normal: ``[D]``, unit length.
        offset: scalar.
        gap: how much further along the normal the mean of the positive examples lies than that of the negative ones.
    """

    normal: Tensor
    offset: Tensor
    gap: float


def linear_svm(latents: Tensor, positive: Tensor) -> Boundary:
    """A linear support vector machine with squared hinge loss (Cortes & Vapnik 1995).

    InterFaceGAN (Shen et al. 2020, arXiv 1907.10786) and BoundaryDiffusion (Zhu et al. 2023, arXiv 2302.08357) find
    their edits with one.

    Both classes count alike, however many examples they have. Latents are centred and brought to a mean variance of 1
    first, so that a violated margin, which costs C = 1, means the same for any latent space.

    Args:
        latents: ``[N, D]``.
        positive: ``[N]`` bool.

    Raises:
        DataError: shapes that differ, or a class without examples.
    """
    if latents.ndim != 2 or positive.shape != latents.shape[:1]:
        raise DataError(f"latents are [N, D] and labels [N], found {tuple(latents.shape)} and {tuple(positive.shape)}")
    counts = int(positive.sum()), int((~positive).sum())
    if not all(counts):
        raise DataError(f"a boundary needs examples of both classes, found {counts[0]} positive and {counts[1]} others")
    x = latents.double()
    centre = x.mean(0)
    spread = (x - centre).square().mean().sqrt().clamp_min(1e-12)
    x = (x - centre) / spread
    sign = torch.where(positive, 1.0, -1.0).to(x)
    share = torch.where(positive, 0.5 / counts[0], 0.5 / counts[1]).to(x)
    weights = torch.zeros(x.shape[1] + 1, dtype=x.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        margin = sign * (x @ weights[:-1] + weights[-1])
        total = 0.5 * weights[:-1].square().sum() / x.shape[1] + (share * F.relu(1 - margin).square()).sum()
        total.backward()
        return total

    with torch.enable_grad():
        solver.step(loss)
    normal, bias = weights.detach()[:-1], weights.detach()[-1]
    length = normal.norm().clamp_min(1e-12)
    normal = normal / length
    offset = bias / length * spread - centre @ normal
    gap = float((latents.double()[positive].mean(0) - latents.double()[~positive].mean(0)) @ normal)
    return Boundary(normal.float(), offset.float(), gap)


def principal_axes(latents: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The axes along which latents vary most, and the standard deviations along them.

    Args:
        latents: ``[N, D]``.
        count: how many, at most N - 1.

    Returns:
        ``[count, D]`` orthonormal, each with its largest entry positive, and ``[count]``, descending.

    Raises:
        DataError: fewer examples than axes.
    """
    if latents.ndim != 2 or not 1 <= count < len(latents):
        raise DataError(f"{count} axes of latents {tuple(latents.shape)}: at least {count + 1} rows [N, D] are needed")
    x = latents.double() - latents.double().mean(0)
    _, scale, axes = torch.linalg.svd(x, full_matrices=False)
    axes = axes[:count]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (axes * largest.sign()).float(), (scale[:count] / (len(x) - 1) ** 0.5).float()

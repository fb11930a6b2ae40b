"""Augmentations before a critic, so that it cannot learn a small data set by heart.

Karras et al. 2020 (arXiv 2006.06676); Zhao et al. 2020 (arXiv 2006.10738).

All are differentiable, and each is left out more often than not, so that none of them shows in what is generated (the
first paper, section 2.2). How often they are made follows from how sure the critic is of real pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LIMIT = 0.8  # of the probability: beyond it changes begin to show in what is generated


@dataclass(frozen=True)
class CriticAugment:
    """How far pictures are changed.

    Args:
        shift: largest share of the side, either way.
        turn: degrees, standard deviation.
        scale: standard deviation of its logarithm.
        bright: standard deviation of what is added.
        contrast: standard deviation of the logarithm of the factor.
        hide: side of the square that is made flat, of the picture's.
    """

    shift: float = 0.125
    turn: float = 5.0
    scale: float = 0.1
    bright: float = 0.15
    contrast: float = 0.2
    hide: float = 0.4


def augment_for_critic(x: Tensor, probability: Tensor | float, how: CriticAugment) -> Tensor:
    """Changed pictures; random numbers come from PyTorch's own generator.

    Args:
        x: ``[N, C, R, R]``.
        probability: 0 to 1, of each kind of change of each picture.
        how: settings.
    """
    count, side, device = len(x), x.shape[-1], x.device
    happens = (torch.rand(4, count, device=device) < probability).float()
    normal, even = torch.randn(4, count, device=device), torch.rand(4, count, device=device)
    if not bool(happens.any()):
        return x

    angle = torch.deg2rad(how.turn * normal[0]) * happens[0]
    factor = (how.scale * normal[1] * happens[0]).exp()
    cos, sin = angle.cos() * factor, angle.sin() * factor
    shift = (2 * even[:2] - 1) * 2 * how.shift * happens[1]  # the picture is 2 wide
    theta = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

    bright, contrast = how.bright * normal[2] * happens[2], (how.contrast * normal[3] * happens[2]).exp()
    x = x * contrast[:, None, None, None] + bright[:, None, None, None]

    axis = (torch.arange(side, device=device) + 0.5) / side
    inside = [(axis[None] - middle[:, None]).abs() < how.hide / 2 for middle in even[2:]]
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :] & (happens[3] > 0)[:, None, None, None]
    return x.masked_fill(hidden, 0.0)


def adapted(probability: float, logits: Tensor, *, target: float, speed: float) -> float:
    """The probability for the next step: more where the critic is surer of real pictures than ``target``.

    Args:
        probability: probability of augmentation so far.
        logits: ``[N]`` of real pictures; the mean of their signs is 0 where it guesses, 1 where it knows them all.
        target: share of real pictures that the critic is sure of.
        speed: pictures in which the probability may go from 0 to 1.
    """
    step = len(logits) / speed
    sure = float(logits.detach().sign().mean())
    return min(LIMIT, max(0.0, probability + (step if sure > target else -step)))

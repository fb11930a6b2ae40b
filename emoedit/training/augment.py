"""Aligned crops as a camera or a website might have delivered them: turned, shifted, blurred, noisy, half hidden.

Drawn from a NumPy generator, so that a batch is a function of its seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.metrics.landmarks import MIRROR


@dataclass(frozen=True)
class Augment:
    """How far pictures are changed.

    Args:
        rotation: degrees either way, one standard deviation.
        scale: standard deviation, as a fraction of the crop's side.
        shift: as ``scale``.
        soften: share of the pictures that lose detail: sampled down to between 0.3 and 0.9 of the crop and up again.
        noise: highest standard deviation of added noise, the range of a picture being 2.
        hide: share of the pictures of which a rectangle is painted over.
        light: highest slope of a ramp of light across the picture.
    """

    rotation: float = 6.0
    scale: float = 0.05
    shift: float = 0.025
    soften: float = 0.5
    noise: float = 0.08
    hide: float = 0.25
    light: float = 0.3


def _soften(x: Tensor, factor: float) -> Tensor:
    side = x.shape[-1]
    small = max(8, round(side * factor))
    x = F.interpolate(x, (small, small), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(x, (side, side), mode="bicubic", align_corners=False)


def augment(
    x: Tensor, points: Tensor, resolution: int, how: Augment, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Augmented pictures and their landmarks.

    Args:
        x: ``[N, 1, S, S]`` in [-1, 1].
        points: ``[N, 68, 2]`` as fractions of the side.
        resolution: side of the result.
        how: settings.
        rng: draws what is random.

    Returns:
        ``[N, 1, R, R]`` in [-1, 1] and ``[N, 68, 2]``.
    """
    count = len(x)
    angle = np.deg2rad(rng.normal(0, how.rotation, count))
    factor = np.exp(rng.normal(0, how.scale, count))
    shift = rng.normal(0, 2 * how.shift, (count, 2))
    flip = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
    # Result -> source, both in [-1, 1] across the picture.
    linear = np.stack([np.stack([cos * flip, -sin], -1), np.stack([sin * flip, cos], -1)], 1)
    theta = torch.from_numpy(np.concatenate([linear, shift[..., None]], 2)).float()
    grid = F.affine_grid(theta, [count, 1, resolution, resolution], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    inverse = torch.from_numpy(np.linalg.inv(linear)).float()
    points = ((points * 2 - 1) - theta[:, None, :, 2]) @ inverse.mT
    points = (points + 1) / 2
    mirrored = torch.from_numpy(flip < 0)
    points = torch.where(mirrored[:, None, None], points[:, MIRROR], points)

    axis = torch.linspace(-1, 1, resolution)
    slope = torch.from_numpy(rng.uniform(-how.light, how.light, (count, 2, 1, 1))).float()
    x = x * (1 + slope[:, :1] * axis[None, None, None] + slope[:, 1:] * axis[None, None, :, None])
    soft = rng.permutation(count)[: round(how.soften * count)]
    for part in np.array_split(soft, min(4, max(1, len(soft)))):  # a degree of softness for each quarter of them
        x[part] = _soften(x[part], float(rng.uniform(0.3, 0.9)))
    level = torch.from_numpy(rng.uniform(0, how.noise, count) * (rng.random(count) < 0.5)).float()
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
    x = x + level[:, None, None, None] * noise
    for number in np.flatnonzero(rng.random(count) < how.hide):
        height, width = rng.uniform(0.1, 0.4, 2) * resolution
        top, left = rng.uniform(-0.1, 0.9, 2) * resolution
        rows, columns = slice(max(0, int(top)), int(top + height)), slice(max(0, int(left)), int(left + width))
        x[number, :, rows, columns] = float(rng.uniform(-1, 1))
    return x.clamp(-1, 1), points

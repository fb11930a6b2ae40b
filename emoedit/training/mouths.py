"""Data and losses of the mouth network (``emoedit.nn.mouth``), which sharpens mouths and finds teeth.

Pairs of real mouths and degraded ones, as small models draw them: P_t of a noisy crop, a GAN's reconstruction, or a
blur, at less contrast and mixed with another mouth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.faces.layout import INNER, OUTER, PAIRS
from emoedit.nn.mouth import MouthConfig, MouthNetwork, standardise

FINE = 4  # how much finer outlines are filled
OPEN = 1.6 / 128  # of the crop's side: lips that are nearer to each other hide all teeth
BRIGHTER = 0.45  # deviations of the face's levels by which the brightest part of a mouth is teeth, and no lip
BETWEEN = (0.4, 0.15)  # of the way from lips to that: where teeth begin, and how softly
SMALLEST = 16 / 128**2  # of the crop's area
INSIDE = 0.35  # share of a patch of teeth that has to lie between the lips: other bright patches are gleams or skin
BLUR = 1.5  # pixels, at which pairs are compared a second time: a gap that is a little off counts less there


def _filled(outline: np.ndarray, side: int) -> np.ndarray:
    """How much of every pixel lies inside an outline ``[P, 2]`` (pixel centres at whole numbers): ``[side, side]``."""
    mask = np.zeros((side * FINE,) * 2, np.uint8)
    corners = np.round(((outline + 0.5) * FINE - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, shift=4)
    return cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def find_teeth(crop: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where a sharp photograph shows teeth: what between parted lips is much brighter than they are.

    Args:
        crop: uint8 ``[R, R]``.
        points: ``[68, 2]`` landmarks in its pixels.

    Returns:
        float32 ``[R, R]`` in [0, 1].
    """
    side, levels = len(crop), crop.astype(np.float32)
    nothing = np.zeros_like(levels)
    apart = np.mean([np.linalg.norm(points[i] - points[k]) for i, k in PAIRS])
    inner, outer = _filled(points[INNER], side), _filled(points[OUTER], side)
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (round(0.04 * side) | 1,) * 2)
    within = np.minimum(cv2.dilate(inner, near), outer)  # landmarks are a pixel or two off
    lips = (outer > 0.5) & (within < 0.3)
    if apart < OPEN * side or not lips.any() or not (within > 0.5).any():
        return nothing
    lip, top = np.median(levels[lips]), np.percentile(levels[within > 0.5], 92)
    face = levels[round(0.31 * side) : round(0.875 * side), round(0.25 * side) : round(0.75 * side)]
    if top < lip + BRIGHTER * max(face.std(), 8):
        return nothing
    share = np.clip((levels - lip - BETWEEN[0] * (top - lip)) / (BETWEEN[1] * (top - lip)) + 0.5, 0, 1) * within
    patch = cv2.morphologyEx((share > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(patch)
    for n in range(1, count):
        here = labels == n
        if stats[n, cv2.CC_STAT_AREA] >= SMALLEST * side**2 and (inner[here] > 0.5).mean() > INSIDE:
            nothing[here] = 1
    return cv2.GaussianBlur(nothing, (0, 0), 0.6)


@dataclass(frozen=True)
class MouthDegradation:
    """How real mouths are degraded.

    Args:
        shares: shares of P_t, of reconstructions; the rest are real mouths, blurred.
        blur: pixels, of these.
        blur_more: blur of the others.
        fade: share of the pictures at less contrast.
        faded: by how much at most.
        mix: share of the pictures with somebody else's mouth in them.
        mixed: how much of it at most.
    """

    shares: tuple[float, float] = (0.4, 0.3)
    blur: tuple[float, float] = (0.8, 2.6)
    blur_more: tuple[float, float] = (0.3, 1.5)
    fade: float = 0.6
    faded: float = 0.65
    mix: float = 0.3
    mixed: float = 0.4


class MouthBatches:
    """Batches of pairs, flipped at random.

    Args:
        mouths: uint8 ``[N, S, S]`` each: ``real``, ``teeth`` (255 where they are), ``denoised`` (P_t), ``rebuilt``.
        batch_size: pictures in a batch.
        how: how real mouths are degraded.
        seed: seed of the draws.
    """

    def __init__(
        self,
        mouths: Mapping[str, np.ndarray],
        *,
        batch_size: int,
        how: MouthDegradation = MouthDegradation(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:
        self.mouths, self.batch_size, self.how, self.seed = mouths, batch_size, how, seed
        # Sharp photographs and those with teeth more often: sharpness can only be learned from them.
        real = mouths["real"].astype(np.float32)
        inner = slice(real.shape[1] * 3 // 16, real.shape[1] * 13 // 16)
        crisp = np.array([cv2.Laplacian(r[inner], cv2.CV_32F).std() / max(r.std(), 8) for r in real])
        weight = np.where(mouths["teeth"].max((1, 2)) > 127, 1, 0.6) * np.clip(crisp / np.median(crisp), 0.3, 2) ** 1.5
        self.ladder = np.cumsum(weight) / weight.sum()

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """Batch of a step: ``unsure``, ``real``, ``teeth``, ``[B, 1, S, S]`` each."""
        rng = np.random.default_rng((self.seed, step, process))
        chosen = np.minimum(np.searchsorted(self.ladder, rng.random(self.batch_size)), len(self.ladder) - 1)
        real = self.mouths["real"][chosen].astype(np.float32) / 127.5 - 1
        unsure = np.stack([self._degraded(n, real, rng) for n in zip(range(self.batch_size), chosen, strict=True)])
        found = {
            "unsure": unsure,
            "real": real,
            "teeth": self.mouths["teeth"][chosen].astype(np.float32) / 255,
        }
        flip = (rng.random(self.batch_size) < 0.5)[:, None, None]
        return {
            name: torch.from_numpy(np.where(flip, value[..., ::-1], value).astype(np.float32))[:, None]
            for name, value in found.items()
        }

    def _degraded(self, which: tuple[int, int], real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One real mouth as a small model would draw it."""
        how, (number, row) = self.how, which
        kind = rng.random()
        if kind < sum(how.shares):
            name = "denoised" if kind < how.shares[0] else "rebuilt"
            x, blur = self.mouths[name][row].astype(np.float32) / 127.5 - 1, rng.uniform(*how.blur_more)
        else:
            x, blur = real[number], rng.uniform(*how.blur)
        x = cv2.GaussianBlur(x, (0, 0), blur)
        if rng.random() < how.mix:
            other = cv2.GaussianBlur(real[rng.integers(len(real))], (0, 0), rng.uniform(1.5, 2.5))
            other = (other - other.mean()) / max(other.std(), 0.03) * x.std() + x.mean()
            x = x + rng.uniform(0.1, how.mixed) * (other - x)
        if rng.random() < how.fade:
            x = x + rng.uniform(0.1, how.faded) * (cv2.GaussianBlur(x, (0, 0), rng.uniform(4, 7)) - x)
        return x + rng.uniform(0, 0.01) * rng.standard_normal(x.shape, np.float32)


class MouthTask(nn.Module):
    """The distance to the real mouth, sharp and blurred, and the cross entropy of its teeth.

    Args:
        config: config of the network.
        blurred: weights beside the plain distance.
        teeth: as ``blurred``.
    """

    where: Tensor

    def __init__(self, config: MouthConfig, *, blurred: float = 1.0, teeth: float = 1.0) -> None:
        super().__init__()
        self.network, self.blurred, self.teeth = MouthNetwork(config), blurred, teeth
        axis = (torch.arange(config.side) + 0.5) / config.side
        y, x = torch.meshgrid(axis - 0.52, axis - 0.5, indexing="ij")
        # What is beside the mouth counts little: it is cut away when the mouth is used.
        where = (1.2 - torch.hypot(x / 0.47, y / 0.375)).clamp(0.15, 1)
        self.register_buffer("where", where, persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One pass of the network.

        Args:
            batch: batch of a training step.
        """
        z, mean, deviation = standardise(batch["unsure"])
        sharp, teeth = self.network(z.contiguous(memory_format=torch.channels_last))
        with torch.autocast(z.device.type, enabled=False):
            off = sharp.float() - (batch["real"] - mean) / deviation
            near, far = ((x.abs() * self.where).mean() for x in (off, blur(off, BLUR)))
            entropy = F.binary_cross_entropy_with_logits(teeth.float(), batch["teeth"], reduction="none")
            entropy = (entropy * self.where).mean()
        loss = near + self.blurred * far + self.teeth * entropy
        return {"loss": loss, "near": near.detach(), "blurred": far.detach(), "teeth": entropy.detach()}


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``[N, 1, H, W]``, mirrored at the borders.

    Args:
        x: ``[N, 1, H, W]``.
        sigma: standard deviation in pixels.
    """
    reach = 6
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0, device=x.device).square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    x = F.pad(x, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def sample_crops(emotion: np.ndarray, usable: np.ndarray, counts: Mapping[str, int]) -> np.ndarray:
    """Positions of at most so many usable crops of every emotion, the same on every machine.

    Args:
        emotion: ``[N]`` names.
        usable: ``[N]`` bool.
        counts: emotion -> the most crops.
    """
    rng = np.random.default_rng(1)
    pools: Sequence[np.ndarray] = [np.flatnonzero(usable & (emotion == name)) for name in counts]
    return np.concatenate([np.sort(rng.permutation(p)[:n]) for p, n in zip(pools, counts.values(), strict=True)])

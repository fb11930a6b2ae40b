"""The training task of the network that takes smiles out of photographs.

Photographs of one person smiling and not, in the same pose and light, are rare. But editors put smiles on neutral faces
well, and learning to undo that needs no such photographs: the input is an edit, and what the network has to find is a
real photograph (as image restoration is trained with pictures that are degraded on purpose). Three kinds of input:

- neutral photographs with a smile put on, and people photographed both ways: what is composed has to be the neutral
  photograph;
- neutral photographs: they have to stay;
- photographs of real smiles, without a neutral one: the landmarks of what is composed have to be where the relaxation
  network predicts those of the neutral face.

In all of them lips are together ([emoedit.compositing.closing][]).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.faces.layout import LIPS
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.smile_removal import Layers, SmileRemovalConfig, SmileRemovalNetwork, composed
from emoedit.training.loop import Shared
from emoedit.training.vae import pyramid_loss, region_weights
from emoedit.types import LUMA_WEIGHTS

TURN, ZOOM, MOVE = 0.03, 0.03, 0.02  # deviations of random alignment: radians, share, half sides
GREY = 0.15  # share of pictures without colour
SOFT, SOFTEST = 0.3, 72 / 128  # share of soft inputs, and the resolution of the softest
NOISE = 0.02  # largest deviation of an input's noise
BETA = 0.01  # in crop sides: errors of landmarks below it count by their squares
REST = 0.3  # weight of landmarks of jaw, nose and eyes; brows and nose count 1 in the mean, lips 2
MOUTH = 2.0
SAME = 1 / 6  # share of pairs whose input is the neutral photograph


@dataclass(frozen=True)
class Pairs:
    """Crops of smiling and neutral faces, uint8 ``[N, R, R, 3]`` each.

    Args:
        smiling: the inputs.
        neutral: the same faces, neutral.
    """

    smiling: np.ndarray
    neutral: np.ndarray


@dataclass(frozen=True)
class RealSmiles:
    """Crops of smiling faces of whom there is no neutral photograph.

    Args:
        crops: uint8 ``[N, R, R, 3]``.
        points: ``[N, 68, 2]`` landmarks of the neutral face, in fractions of the side from the upper left corner.
    """

    crops: np.ndarray
    points: np.ndarray


class SmileBatches:
    """Batches, a function of the seed and the step.

    Args:
        made: smiles that an editor put on.
        photographed: people photographed both ways.
        real: smiles without a neutral photograph.
        sizes: ``made``, ``photographed`` and ``real``: how many of each there are in a batch.
        seed: seed of the draws.
    """

    def __init__(
        self, made: Pairs, photographed: Pairs, real: RealSmiles, sizes: Mapping[str, int], *, seed: int = 0
    ) -> None:
        self.made, self.photographed, self.real = made, photographed, real
        self.sizes, self.seed = sizes, seed

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """The batch of a step.

        Returns:
            ``smiling`` and ``neutral`` ``[M, 3, R, R]``, those photographed both ways first; ``real`` ``[K, 3, R, R]``
            and ``points`` ``[K, 68, 2]``; pictures in [-1, 1].
        """
        rng = np.random.default_rng([self.seed, step, process])
        both = []
        for pairs, count in ((self.photographed, self.sizes["photographed"]), (self.made, self.sizes["made"])):
            drawn = rng.integers(0, len(pairs.smiling), count)
            both.append((pairs.smiling[drawn], pairs.neutral[drawn]))
        smiling, neutral = (pictures(np.concatenate(parts)) for parts in zip(*both, strict=True))
        drawn = rng.integers(0, len(self.real.crops), self.sizes["real"])
        points = torch.from_numpy(self.real.points[drawn]).float()
        return {"smiling": smiling, "neutral": neutral, "real": pictures(self.real.crops[drawn]), "points": points}


def pictures(crops: np.ndarray) -> Tensor:
    """uint8 ``[N, R, R, 3]`` as float32 ``[N, 3, R, R]`` in [-1, 1]."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1


class SmileRemovalTask(nn.Module):
    """Composed pictures that have to be neutral photographs.

    Args:
        config: the architecture.
        landmarks: the frozen landmark network; its crop has the scale and offset of this one.
        weights: ``points`` (landmarks of real smiles), ``folds`` (change of the flows from pixel to pixel), ``light``
            (the same of the light), ``drawn`` (share of pixels that are drawn).
        same: number of pairs, behind those photographed, whose input is the neutral photograph.
        photographed: number of pairs photographed both ways, the first of a batch.
    """

    weight: Tensor
    luma: Tensor
    counted: Tensor

    def __init__(
        self,
        config: SmileRemovalConfig,
        landmarks: MeasuringNetwork,
        *,
        weights: Mapping[str, float],
        same: int,
        photographed: int,
    ) -> None:
        super().__init__()
        self.network = SmileRemovalNetwork(config)
        self.weights, self.same, self.photographed = weights, same, photographed
        self._shared = Shared(landmarks=landmarks)
        self.register_buffer("weight", region_weights(config.resolution), persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA_WEIGHTS)[None, :, None, None], persistent=False)
        counted = torch.ones(68)
        counted[: LIPS.start] = REST
        counted[LIPS] = MOUTH
        self.register_buffer("counted", counted[:, None], persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: as [SmileBatches][emoedit.training.smile_removal.SmileBatches] gives it.
        """
        smiling, neutral = batch["smiling"].clone(), batch["neutral"]
        kept = slice(self.photographed, self.photographed + self.same)
        smiling[kept] = neutral[kept]
        smiling, neutral = self._lit(*_aligned_anew(smiling, neutral))
        (real,) = self._lit(batch["real"])
        sources = torch.cat([smiling, real])
        # The network sees a worse picture than the one whose pixels move: it must not learn from noise.
        layers = self.network(_degraded(sources).contiguous(memory_format=torch.channels_last))
        made, relaxed = composed(sources, layers).split([len(smiling), len(real)])
        found = {
            "pixels": pyramid_loss(made, neutral, self.weight),
            "points": self._points_error(relaxed, batch["points"]),
            "folds": _roughness(layers.flow, 2),
            "light": _roughness(layers.light, 1) + 0.2 * layers.light.abs().mean(),
            "drawn": layers.drawn.mean(),
        }
        loss = found["pixels"] + sum(weight * found[name] for name, weight in self.weights.items())
        return {"loss": loss} | {name: value.detach() for name, value in found.items()}

    def _points_error(self, x: Tensor, points: Tensor) -> Tensor:
        network = self._shared.landmarks
        side = network.config.resolution
        grey = F.interpolate((x * self.luma).sum(1, keepdim=True), (side, side), mode="bilinear", antialias=True)
        error = F.smooth_l1_loss(network(grey)["points"], points, beta=BETA, reduction="none")
        return (error * self.counted).mean()

    def _lit(self, *pictures: Tensor) -> list[Tensor]:
        """The same random light, contrast and colour on each of some pictures ``[N, 3, R, R]``."""
        x = pictures[0]
        count = (len(x), 1, 1, 1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, device=x.device)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, device=x.device)

        gain = 1 + 0.15 * normal(len(x), 3, 1, 1) * uniform(*count)
        contrast, shift, gamma = 0.8 + 0.4 * uniform(*count), 0.15 * normal(*count), (0.15 * normal(*count)).exp()
        grey, found = uniform(*count) < GREY, []
        for picture in pictures:
            new = ((((picture + 1) / 2).clamp(0, 1) ** gamma * 2 - 1) * contrast * gain + shift).clamp(-1, 1)
            found.append(torch.where(grey, (new * self.luma).sum(1, keepdim=True).expand_as(new), new))
        return found


def _aligned_anew(*pictures: Tensor) -> list[Tensor]:
    """The same random similarity, or its mirror image, for each of some pictures ``[N, 3, R, R]``."""
    count, device = len(pictures[0]), pictures[0].device
    turn, zoom = TURN * torch.randn(count, device=device), 1 + ZOOM * torch.randn(count, device=device)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * turn.cos(), -zoom * turn.sin()
    theta[:, 1, 0], theta[:, 1, 1] = zoom * turn.sin(), zoom * turn.cos()
    theta[:, :, 2] = MOVE * torch.randn(count, 2, device=device)
    theta[torch.rand(count, device=device) < 0.5, :, 0] *= -1
    grid = F.affine_grid(theta, list(pictures[0].shape), align_corners=False)
    return [F.grid_sample(x, grid, padding_mode="reflection", align_corners=False) for x in pictures]


def _degraded(x: Tensor) -> Tensor:
    """Pictures ``[N, 3, R, R]`` with noise, some of them soft."""
    side, count = x.shape[-1], (len(x), 1, 1, 1)
    small = round(side * SOFTEST)
    soft = F.interpolate(x, (small, small), mode="bilinear", antialias=True)
    soft = F.interpolate(soft, (side, side), mode="bicubic", align_corners=False)
    share = torch.rand(count, device=x.device) * (torch.rand(count, device=x.device) < SOFT)
    x = x + share * (soft - x)
    return (x + NOISE * torch.rand(count, device=x.device) * torch.randn_like(x)).clamp(-1, 1)


def _roughness(maps: Tensor, power: int) -> Tensor:
    """Mean of how much maps ``[N, C, R, R]`` change a pixel, to a power; for squares, in pixels."""
    changes = [(maps[:, :, 1:] - maps[:, :, :-1]).abs(), (maps[..., 1:] - maps[..., :-1]).abs()]
    side = maps.shape[-1] if power == 2 else 1
    return torch.stack([(change * side).pow(power).mean() for change in changes]).sum()


def mean_error(network: SmileRemovalNetwork, pairs: Pairs) -> tuple[float, float]:
    """How far smiling photographs are from the neutral ones of the same people, before and after.

    Args:
        network: takes smiles out.
        pairs: people photographed both ways.

    Returns:
        Mean errors by [pyramid_loss][emoedit.training.vae.pyramid_loss], of pictures in [-1, 1].
    """
    x, y = pictures(pairs.smiling), pictures(pairs.neutral)
    weight = region_weights(x.shape[-1])
    with torch.no_grad():
        after = torch.cat([composed(part, Layers(*network(part))) for part in x.split(32)])
    return float(pyramid_loss(x, y, weight)), float(pyramid_loss(after, y, weight))

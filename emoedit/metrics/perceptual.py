"""The embedded perceptual distance: LPIPS's formula on a trunk of this project's own, for runs without a network.

It is not LPIPS and never called so: the trunk saw faces only, in luminance, and no human judgements weigh its channels.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from emoedit.metrics.base import MeanMetric, check_pictures
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.types import ImageError


class PerceptualNetwork(MeasuringNetwork):
    """A trunk whose stages are weighted so that each has an equal say in the distance between two people. Always in
    inference mode, whatever ``train()`` asks for: it was taught as part of a network with heads.

    Args:
        config: without heads.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.register_buffer("layer_weights", torch.ones(len(config.widths)))
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    @torch.no_grad()
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """``[N]``: 0 for equal crops, 1 on average for two people (:func:`perceptual_distance`)."""
        return layer_distances(self, first, second) @ self.layer_weights


def layer_distances(network: MeasuringNetwork, first: Tensor, second: Tensor) -> Tensor:
    """Squared differences of channel-normalised features, averaged over places, ``[N, layers]``.

    Zhang et al. 2018 (LPIPS, arXiv 1801.03924), eq. 1 with equal channel weights.

    Args:
        first, second: crops ``[N, 1, R, R]`` in [-1, 1].
    """
    columns = []
    for a, b in zip(*(network.features(x) for x in (first, second)), strict=True):
        a, b = (f.float() / f.float().norm(dim=1, keepdim=True).clamp_min(1e-6) for f in (a, b))
        columns.append((a - b).square().sum(1).mean((1, 2)))
    return torch.stack(columns, 1)


@torch.no_grad()
def calibrate(network: PerceptualNetwork, first: Tensor, second: Tensor) -> None:
    """Set the layer weights from crops of people and of other people, ``[N, 1, R, R]`` each: every layer's mean
    distance becomes 1 / layers."""
    parts = [layer_distances(network, a, b) for a, b in zip(first.split(128), second.split(128), strict=True)]
    mean = torch.cat(parts).mean(0)
    network.layer_weights.copy_(1 / (len(mean) * mean))


def perceptual_distance(first: Tensor, second: Tensor, network: PerceptualNetwork) -> Tensor:
    """How different two faces look, ``[N]``: 0 equal, 1 as two people do on average; symmetric.

    Args:
        first, second: aligned luminance crops ``[N, 1, R, R]`` in [-1, 1], R being the network's resolution.

    Raises:
        ImageError: another shape or range.
    """
    check_pictures(first, second, channels=(1,))
    side = network.config.resolution
    if first.shape[2:] != (side, side):
        raise ImageError(f"this network compares crops of {side} x {side}, found {tuple(first.shape[2:])}")
    return network.distance(first, second)


class PerceptualDistance(MeanMetric):
    """Module of :func:`perceptual_distance`.

    Args:
        network: :func:`emoedit.metrics.embedded.load` gives it.
    """

    name = "perceptual"
    higher_is_better = False
    range = (0.0, float("inf"))
    units = "mean distance of two people"
    source = "the formula of LPIPS, Zhang et al. 2018, eq. 1, on this project's own face trunk"

    def __init__(self, network: PerceptualNetwork) -> None:
        super().__init__()
        self.network = network

    def values(self, first: Tensor, second: Tensor) -> Tensor:
        return perceptual_distance(first, second, self.network)

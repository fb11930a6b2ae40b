"""Perceptual distance of two faces: LPIPS's formula on a small embedded trunk.

It is not LPIPS: the trunk is trained on luminance crops of faces only, and its channels have no weights from human
judgements.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig


class PerceptualNetwork(MeasuringNetwork):
    """A trunk whose stages are weighted equally in the mean distance between two people.

    It is always in inference mode, also after ``train()``: the trunk is trained as part of a network with heads.

    Args:
        config: configuration without heads.
    """

    layer_weights: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.register_buffer("layer_weights", torch.ones(len(config.widths)))
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in inference mode.

        Args:
            mode: ignored.
        """
        return super().train(False)

    @torch.no_grad()
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """``[N]``: 0 for equal crops, 1 on average for two people.

        Args:
            first: ``[N, 1, R, R]`` in [-1, 1].
            second: as ``first``.
        """
        return layer_distances(self, first, second) @ self.layer_weights


def layer_distances(network: MeasuringNetwork, first: Tensor, second: Tensor) -> Tensor:
    """Squared differences of channel-normalised features, averaged over places, ``[N, layers]``.

    Zhang et al. 2018 (LPIPS, arXiv 1801.03924), eq. 1 with equal channel weights.

    Args:
        network: the trunk.
        first: crops ``[N, 1, R, R]`` in [-1, 1].
        second: as ``first``.
    """
    columns = []
    for a, b in zip(*(network.features(x) for x in (first, second)), strict=True):
        a, b = (f.float() / f.float().norm(dim=1, keepdim=True).clamp_min(1e-6) for f in (a, b))
        columns.append((a - b).square().sum(1).mean((1, 2)))
    return torch.stack(columns, 1)


@torch.no_grad()
def calibrate(network: PerceptualNetwork, first: Tensor, second: Tensor) -> None:
    """Set the layer weights so that the mean distance of different people in every layer is 1 / layers.

    Args:
        network: changed in place.
        first: ``[N, 1, R, R]`` crops of people.
        second: crops of other people, of the same shape.
    """
    parts = [layer_distances(network, a, b) for a, b in zip(first.split(128), second.split(128), strict=True)]
    mean = torch.cat(parts).mean(0)
    network.layer_weights.copy_(1 / (len(mean) * mean))

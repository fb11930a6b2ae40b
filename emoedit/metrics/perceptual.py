"""The embedded perceptual distance: LPIPS's formula on a trunk of this project's own, for runs without a network.

It is not LPIPS and never called so: the trunk saw faces only, in luminance, and no human judgements weigh its channels.
"""

from __future__ import annotations

from torch import Tensor

from emoedit.metrics.base import MeanMetric, check_pictures
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.types import ImageError


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
        network: ``EmbeddedNetwork.load("perceptual").network``.
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

"""The embedded perceptual distance: LPIPS's formula on an embedded trunk, for runs without network access.

It is not LPIPS: the trunk was trained on faces only, in luminance; its channels have no weights from human judgements.
"""

from __future__ import annotations

from torch import Tensor

from emoedit.metrics.base import check_pictures
from emoedit.metrics.measure import Measure
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.types import ImageError


def perceptual_distance(first: Tensor, second: Tensor, network: PerceptualNetwork) -> Tensor:
    """How different two faces look, ``[N]``: 0 equal, 1 as two people do on average; symmetric.

    Args:
        first: aligned luminance crops ``[N, 1, R, R]`` in [-1, 1], R being the network's resolution.
        second: as ``first``.
        network: a trunk with weights for its layers.

    Raises:
        ImageError: another shape or range.
    """
    check_pictures(first, second, channels=(1,))
    side = network.config.resolution
    if first.shape[2:] != (side, side):
        raise ImageError(f"this network compares crops of {side} x {side}, found {tuple(first.shape[2:])}")
    return network.distance(first, second)


PERCEPTUAL = Measure(
    "perceptual",
    "perceptual",
    3,
    False,
    "1",
    "distance to the source, 0 the same picture",
    lambda views: views.distance([views.source] * len(views), views.edits),
)

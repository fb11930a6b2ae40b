"""How much nearer an edit came to the truth, where the truth is known: the same person, really smiling."""

from __future__ import annotations

import torch
from torch import Tensor

from emoedit.metrics.base import MeanMetric
from emoedit.metrics.landmarks import check_points, upright
from emoedit.types import ImageError

EXPRESSIVE = (*range(17, 27), *range(36, 68))  # brows, eyes, lips


def relative_distance(edit_to_truth: Tensor, source_to_truth: Tensor) -> Tensor:
    """Distance of the edit to the true photograph, that of the source being 1, ``[N]``.

    0 is the true photograph, 1 no better than doing nothing, above 1 worse. NaN where the source is the truth already.

    Args:
        edit_to_truth, source_to_truth: ``[N]``, in any one distance.

    Raises:
        ImageError: other shapes, or a distance below 0.
    """
    if edit_to_truth.shape != source_to_truth.shape or edit_to_truth.ndim != 1:
        raise ImageError(
            f"distances are [N] each, found {tuple(edit_to_truth.shape)} and {tuple(source_to_truth.shape)}"
        )
    if bool((edit_to_truth < 0).any()) or bool((source_to_truth < 0).any()):
        raise ImageError("a distance is below 0")
    some = source_to_truth > 1e-9
    return torch.where(some, edit_to_truth / source_to_truth.clamp_min(1e-9), torch.nan)


def expression_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean distance of brows, eyes and lips of two upright faces, ``[N]`` in eye distances.

    Each face is turned, moved and scaled so that its eyes are level and 1 apart: two photographs of a person need not
    be taken from the same place.

    Args:
        first, second: ``[N, 68, 2]`` each.
    """
    check_points(first, second)
    a, b = (upright(points)[:, list(EXPRESSIVE)] for points in (first, second))
    return (a - b).norm(dim=2).mean(1)


class RelativeDistance(MeanMetric):
    """Module of :func:`relative_distance`."""

    name = "paired"
    higher_is_better = False
    range = (0.0, float("inf"))
    units = "distance of the source"
    source = "distance to the true photograph of the same person, that of the unedited source being 1"

    def values(self, edit_to_truth: Tensor, source_to_truth: Tensor) -> Tensor:
        return relative_distance(edit_to_truth, source_to_truth)

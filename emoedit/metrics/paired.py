"""Distances of an edit to a true photograph: the same person, really smiling."""

from __future__ import annotations

import torch
from torch import Tensor

from emoedit.faces.networks import identity_similarity
from emoedit.metrics.landmarks import check_points, upright
from emoedit.metrics.measure import EditViews, Measure
from emoedit.types import ImageError

EXPRESSIVE = (*range(17, 27), *range(36, 68))  # brows, eyes, lips


def relative_distance(edit_to_truth: Tensor, source_to_truth: Tensor) -> Tensor:
    """Distance of the edit to the true photograph, that of the source being 1, ``[N]``.

    0 is the true photograph, 1 no better than doing nothing, above 1 worse. NaN where the source is the truth already.

    Args:
        edit_to_truth: ``[N]``, in any one distance.
        source_to_truth: as ``edit_to_truth``.

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
        first: ``[N, 68, 2]`` each.
        second: as ``first``.
    """
    check_points(first, second)
    a, b = (upright(points)[:, list(EXPRESSIVE)] for points in (first, second))
    return (a - b).norm(dim=2).mean(1)


def _paired_perceptual(views: EditViews) -> Tensor | None:
    if views.truth is None:
        return None
    far = views.distance([views.source], [views.truth]).expand(len(views))
    return relative_distance(views.distance([views.truth] * len(views), views.edits), far)


def _paired_identity(views: EditViews) -> Tensor | None:
    if views.truth is None:
        return None
    truth = views.truth.identity
    far = 1 - identity_similarity(views.source.identity[None], truth[None]).expand(len(views))
    return relative_distance(1 - identity_similarity(views.repeated(truth), views.identity), far)


def _paired_landmarks(views: EditViews) -> Tensor | None:
    if views.truth is None:
        return None
    truth = views.truth.points
    far = expression_distance(views.source.points[None], truth[None]).expand(len(views))
    return relative_distance(expression_distance(views.repeated(truth), views.points), far)


PAIRED_PERCEPTUAL = Measure(
    "paired_perceptual",
    "to truth",
    2,
    False,
    "1",
    "perceptual distance to the true photograph; the source's is 1",
    _paired_perceptual,
)
PAIRED_IDENTITY = Measure(
    "paired_identity",
    "to truth, id",
    2,
    False,
    "1",
    "identity distance to the true photograph; the source's is 1",
    _paired_identity,
    shown_in="summary",
)
PAIRED_LANDMARKS = Measure(
    "paired_landmarks",
    "to truth, points",
    2,
    False,
    "1",
    "brows, eyes and lips; the source's distance is 1",
    _paired_landmarks,
)

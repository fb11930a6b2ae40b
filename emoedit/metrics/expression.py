"""Scores of an expression recogniser before and after an edit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from emoedit.emotions import resolve
from emoedit.metrics.control import harmonic
from emoedit.metrics.identity import identity
from emoedit.metrics.measure import EditViews, Measure
from emoedit.types import ImageError, UnknownNameError


def check_scores(scores: Tensor, classes: int) -> None:
    """Refuse what are no probabilities.

    Args:
        scores: ``[N, K]``.
        classes: K.

    Raises:
        ImageError: not ``[N, classes]`` probabilities.
    """
    if scores.ndim != 2 or scores.shape[1] != classes:
        raise ImageError(f"scores are [N, {classes}], found {tuple(scores.shape)}")
    if not bool(((scores >= -1e-4) & (scores <= 1.0001)).all()):  # also refuses NaN
        raise ImageError("scores are probabilities, 0 to 1")


def target_classes(emotion: str, names: Sequence[str]) -> list[int]:
    """Which of a recogniser's classes an edit aims at.

    These are the emotion's own, or those it is mixed from with a positive weight (shame is part sadness, part fear).

    Args:
        emotion: a name, or algebra on names.
        names: names of the recogniser's classes.

    Raises:
        UnknownNameError: the recogniser has no class for it.
    """
    if emotion in names:
        return [list(names).index(emotion)]
    parts = resolve(emotion, [name for name in names if not name.startswith("other:")])
    chosen = [list(names).index(name) for name, weight in parts.items() if weight > 0]
    if not chosen:
        raise UnknownNameError(f"this recogniser has no class that {emotion!r} aims at; it has {', '.join(names)}")
    return chosen


def target_score(scores: Tensor, emotions: Sequence[str], names: Sequence[str]) -> Tensor:
    """Probability of what each edit aims at (``target_classes``, summed), ``[N]`` in [0, 1].

    Args:
        scores: ``[N, E]`` probabilities.
        emotions: N targets.
        names: the recogniser's E classes.

    Raises:
        ImageError: other shapes.
        UnknownNameError: a target that the recogniser has no class for.
    """
    check_scores(scores, len(names))
    if len(emotions) != len(scores):
        raise ImageError(f"{len(emotions)} targets for {len(scores)} pictures")
    rows = [row[target_classes(emotion, names)].sum() for row, emotion in zip(scores, emotions, strict=True)]
    return torch.stack(rows).clamp(0, 1) if rows else scores.new_zeros(0)


def expression_change(before: Tensor, after: Tensor) -> Tensor:
    """Total variation distance of what is read before and after, ``[N]``: 0 nothing changed, 1 everything.

    Args:
        before: ``[N, E]`` probabilities.
        after: as ``before``.

    Raises:
        ImageError: other shapes, or no probabilities.
    """
    classes = after.shape[-1] if after.ndim else 0
    check_scores(before, classes)
    check_scores(after, classes)
    if len(before) != len(after):
        raise ImageError(f"scores of as many pictures are compared, found {len(before)} and {len(after)}")
    return 0.5 * (after - before).abs().sum(1)


def target(views: EditViews) -> Tensor:
    """``target_score`` of the edits, ``[N]``."""
    return views.shared("target", lambda v: target_score(v.scores, v.emotions, v.classes))


TARGET_SCORE = Measure("target_score", "target", 2, True, "1", "probability of the intended emotion, 0 to 1", target)
HES = Measure(
    "hes",
    "HES",
    2,
    True,
    "1",
    "harmonic mean of target and identity, 0 to 1 (PixelSmile, arXiv 2603.25728)",
    lambda views: harmonic(target(views), identity(views)),
)
EXPRESSION_CHANGE = Measure(
    "expression_change",
    "change",
    2,
    None,
    "1",
    "how much else is read than before, 0 to 1 (total variation)",
    lambda views: expression_change(views.repeated(views.source.scores), views.scores),
    shown_in="rows",
)

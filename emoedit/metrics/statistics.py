"""Statistics over many pictures: intervals over people and curves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from emoedit.types import DataError


@dataclass(frozen=True)
class Interval:
    """A statistic and its confidence interval.

    Args:
        value: over all rows.
        low: ends of the interval; NaN where there is none (one person, or no value at all).
        high: as ``low``.
        people: number of people.
        ignored: rows left out because they hold NaN.
    """

    value: float
    low: float
    high: float
    people: int
    ignored: int = 0


def bootstrap(
    values: Any,
    people: Sequence[Hashable],
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the cluster bootstrap (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).

    Pictures of one person resemble each other, so people are drawn, with replacement, and each brings all their rows.
    Drawing pictures instead would make intervals too narrow by what the pictures of a person have in common.

    Args:
        values: ``[N]``, or ``[N, ...]`` for a statistic of several columns. A row with a NaN is left out and counted.
        people: N labels, one a row.
        statistic: rows ``[M, ...]`` -> a number. Resamples for which it gives NaN are left out of the percentiles.
        level: level of the interval, above 0 and below 1.
        resamples: how many are drawn.
        seed: the same seed draws the same people.

    Returns:
        The statistic over all rows with its interval. One person gives no interval (NaN), because nothing is known of
        how people differ. If every row is left out the value is NaN, of 0 people.

    Raises:
        DataError: no rows, not a label a row, a value that is infinite, or a level or number of resamples of no use.
    """
    rows, labels = _numbers(values), list(people)
    if rows.ndim == 0 or len(rows) == 0:
        raise DataError("there are no values to draw from")
    if len(rows) != len(labels):
        raise DataError(f"{len(rows)} values of {len(labels)} people; expected one label a row")
    if any(label is None or label != label for label in labels):
        raise DataError("a row does not say whose it is; without people there is no interval over people")
    if np.isinf(rows).any():
        raise DataError("a value is infinite")
    if not 0 < level < 1 or resamples < 1:
        raise DataError(f"level is above 0 and below 1 and resamples at least 1, found {level!r} and {resamples!r}")
    kept = ~np.isnan(rows).reshape(len(rows), -1).any(1)
    ignored = int((~kept).sum())
    rows, labels = rows[kept], [label for label, keep in zip(labels, kept, strict=True) if keep]
    if not len(rows):
        return Interval(np.nan, np.nan, np.nan, 0, ignored)
    number: dict[Hashable, int] = {}
    person = np.array([number.setdefault(label, len(number)) for label in labels])
    value = float(statistic(rows))
    if len(number) == 1:
        return Interval(value, np.nan, np.nan, 1, ignored)

    drawn = np.random.default_rng(seed).integers(len(number), size=(resamples, len(number)))
    found = _resampled(rows, person, drawn, statistic)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) if len(found) else (np.nan, np.nan)
    return Interval(value, float(low), float(high), len(number), ignored)


def _resampled(
    rows: np.ndarray, person: np.ndarray, drawn: np.ndarray, statistic: Callable[[np.ndarray], float]
) -> np.ndarray:
    """The statistic of each resample, ``[B]`` or less: without those that have none.

    Args:
        rows: ``[N, ...]``.
        person: ``[N]``, whose each row is, from 0 on.
        drawn: ``[B, P]``, the people of each resample.
        statistic: as ``bootstrap`` says.
    """
    if statistic is np.mean and rows.ndim == 1:
        totals, counts = np.bincount(person, rows), np.bincount(person)
        found = totals[drawn].sum(1) / counts[drawn].sum(1)
    else:
        of = [np.flatnonzero(person == each) for each in range(drawn.shape[1])]
        found = np.array([statistic(rows[np.concatenate([of[each] for each in draw])]) for draw in drawn], float)
    return found[~np.isnan(found)]


def curve_at(identity: Any, target: Any, at: Any) -> np.ndarray:
    """Target score at given identities, read off the curve an editor draws as its strength grows.

    Editors can be compared at one strength only if strength means the same to them; at one identity they always can.

    Args:
        identity: ``[S]`` each, in order of strength: the points of the curve, joined by straight lines. Identity
            usually falls from point to point. Where it does not, the curve passes an identity more than once, and the
            highest target counts (the upper envelope): one would choose that strength.
        target: as ``identity``.
        at: identities, of any shape.

    Returns:
        Target scores in the shape of ``at``; NaN outside the range of the curve, which is never prolonged.

    Raises:
        DataError: no points, shapes that do not fit, or a point that is not finite.
    """
    x, y, at = _numbers(identity), _numbers(target), _numbers(at)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise DataError(f"a curve has [S] identities and [S] targets, found {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("a point of the curve is not finite; leave it out")
    # The points themselves come first: they are the whole curve where there is only one, and the ends of level parts.
    found = np.where(at[..., None] == x, y, -np.inf).max(-1)
    for (x0, y0), (x1, y1) in pairwise(zip(x, y, strict=True)):
        if x0 != x1:
            share = (at - x0) / (x1 - x0)
            found = np.where((share >= 0) & (share <= 1), np.maximum(found, y0 + share * (y1 - y0)), found)
    return np.where(np.isneginf(found), np.nan, found)


def _numbers(values: Any) -> np.ndarray:
    """float64; tensors of any device."""
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"expected numbers: {error}") from error

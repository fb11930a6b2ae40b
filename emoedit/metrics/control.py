"""How well an editor follows its instructions: the control measures of FFE-Bench (PixelSmile, arXiv 2603.25728).

All of them look at edits through an expression recogniser: which emotion it reads, and how much of the intended one.
They do not measure identity; print it beside them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from emoedit.emotions import canonical
from emoedit.types import DataError

CONFUSABLE = (("fearful", "surprised"), ("angry", "disgusted"))  # FFE-Bench's pairs
SAME_SCORE = 1e-6  # float32 rounding moves a score of the same picture by no more, from one batch size to another


class ControlLinearity(NamedTuple):
    """CLS over many sweeps.

    Args:
        value: mean Pearson r over the sweeps that have one, -1 to 1; NaN if none has.
        sweeps: how many there were.
        undefined: how many of them have no r, because the score never moved; not part of the mean.
    """

    value: float
    sweeps: int
    undefined: int


def confusion(intended: Any, read: Any, classes: int) -> Tensor:
    """C(i->j), the share of the pictures meant as i that are read as j.

    Args:
        intended: ``[N]`` class indices, 0 to ``classes`` - 1 (tensor, array or list).
        read: as ``intended``.
        classes: how many there are, E.

    Returns:
        ``[E, E]`` float32 in [0, 1], a row for each intended class. Rows sum to 1; a class that no picture was meant as
        has a row of NaN.

    Raises:
        DataError: not two lists of one length, or an index that is no class.
    """
    return _shares(_counts(intended, read, classes))


def binary_confusion_rate(C: Tensor, i: int, j: int) -> float:
    """BCR = (C(i->j) + C(j->i)) / 2, 0 to 1, lower is better; NaN if one of the two was never meant.

    Args:
        C: ``[K, K]`` of ``confusion``.
        i: number of a class.
        j: number of another class.
    """
    return float((C[i, j] + C[j, i]) / 2)


def mscr(C: Tensor, names: Sequence[str]) -> float:
    """mSCR, the mean binary confusion rate of the ``CONFUSABLE`` pairs. Lower is better.

    Args:
        C: ``[E, E]`` of ``confusion``.
        names: the E classes in its order; aliases are understood.

    Returns:
        0 to 1; NaN if no pair counts: one does if pictures were meant as both of its emotions.

    Raises:
        DataError: C does not fit the names, or two of them are one emotion.
        UnknownNameError: a name is not in the vocabulary.
    """
    index = {canonical(name): number for number, name in enumerate(names)}
    if len(index) != len(names) or C.shape != (len(names), len(names)):
        raise DataError(f"a table {tuple(C.shape)} for {len(names)} names of {len(index)} emotions; expected [E, E]")
    rates = [binary_confusion_rate(C, index[a], index[b]) for a, b in CONFUSABLE if a in index and b in index]
    rates = [rate for rate in rates if rate == rate]
    return sum(rates) / len(rates) if rates else float("nan")


def accuracy(intended: Any, read: Any) -> float:
    """Acc, the share of pictures read as what they were meant as, 0 to 1; NaN of none.

    Args:
        intended: ``[N]`` class numbers.
        read: ``[N]`` class numbers.

    Raises:
        DataError: not two lists of one length.
    """
    intended, read = _indices(intended), _indices(read)
    if intended.shape != read.shape:
        raise DataError(f"{len(intended)} intended emotions and {len(read)} readings; expected one of each a picture")
    return float((intended == read).double().mean())


def linearity(strengths: Any, scores: Any) -> float:
    """Pearson's r between strength and score over one sweep: one picture, one emotion, several strengths.

    Args:
        strengths: ``[S]``; the score is what the recogniser reads of the intended emotion.
        scores: as ``strengths``.

    Returns:
        -1 to 1, higher is better. NaN where r is not defined: fewer than two strengths, or scores that never move (an
        editor that does nothing, or one that is at its end already), which is the case within ``SAME_SCORE``.

    Raises:
        DataError: not two lists of one length, or a value that is not finite.
    """
    x, y = _numbers(strengths, "strengths"), _numbers(scores, "scores")
    if x.ndim != 1 or x.shape != y.shape:
        raise DataError(f"strengths {tuple(x.shape)} and scores {tuple(y.shape)}; expected [S] both")
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise DataError("a strength or score is not finite; leave out what could not be read")
    if len(x) < 2 or float(x.max() - x.min()) == 0 or float(y.max() - y.min()) <= SAME_SCORE:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(((x / x.norm()) @ (y / y.norm())).clamp(-1, 1))


def cls(table: Mapping[Hashable, tuple[Any, Any]]) -> ControlLinearity:
    """CLS, the mean of ``linearity`` over sweeps.

    The count of sweeps without an r belongs beside the value: an editor that leaves most pictures alone and moves one
    in a straight line has a CLS of 1.

    Args:
        table: a sweep's key, such as (picture, emotion), -> its strengths ``[S]`` and scores ``[S]``.

    Raises:
        DataError: see ``linearity``.
    """
    values = [linearity(strengths, scores) for strengths, scores in table.values()]
    defined = [value for value in values if value == value]
    mean = sum(defined) / len(defined) if defined else float("nan")
    return ControlLinearity(mean, len(values), len(values) - len(defined))


def harmonic(target_score: Any, identity: Any) -> Tensor:
    """HES, the harmonic mean of what is read of the target and of what is left of the person. Higher is better.

    Never print it alone. An editor that does nothing keeps an identity of 1, and the recogniser reads a little of every
    emotion in any face, so doing nothing has a HES above 0: at a target score of .1 it is .18. Print the target score
    beside it, and a row of an editor that does nothing.

    Args:
        target_score: ``[N]`` in [0, 1], the recogniser's probability of the intended emotion.
        identity: ``[N]`` cosine in [-1, 1]; a negative one counts as 0.

    Returns:
        ``[N]`` float32 in [0, 1]; 0 where either is 0, NaN where either is NaN.

    Raises:
        DataError: shapes that differ, or values out of range.
    """
    score, identity = _numbers(target_score, "target scores"), _numbers(identity, "identities")
    if score.shape != identity.shape:
        raise DataError(f"{tuple(score.shape)} target scores and {tuple(identity.shape)} identities; expected the same")
    if bool(((score < 0) | (score > 1.001) | (identity.abs() > 1.001)).any()):
        raise DataError("a target score is a probability in [0, 1], and an identity a cosine in [-1, 1]")
    score, identity = score.clamp_max(1), identity.clamp(0, 1)
    total = score + identity
    return torch.where(total == 0, torch.zeros_like(total), 2 * score * identity / total).float()


def _counts(intended: Any, read: Any, classes: int) -> Tensor:
    """``[E, E]`` int64."""
    intended, read = _indices(intended), _indices(read)
    if intended.shape != read.shape:
        raise DataError(f"{len(intended)} intended emotions and {len(read)} readings; expected one of each a picture")
    for which in (intended, read):
        if len(which) and not 0 <= int(which.min()) <= int(which.max()) < classes:
            raise DataError(
                f"class indices are 0 to {classes - 1}, found {int(which.min())} to {int(which.max())}; give classes "
                "that are not among the names an index of their own, or leave those pictures out"
            )
    return torch.bincount(intended * classes + read, minlength=classes**2).reshape(classes, classes)


def _shares(counts: Tensor) -> Tensor:
    return (counts / counts.sum(1, keepdim=True)).float()  # 0 / 0 is NaN


def _indices(values: Any) -> Tensor:
    """``[N]`` int64."""
    found = torch.as_tensor(values)
    if found.numel() == 0:  # an empty list has no kind
        found = found.long()
    if found.ndim != 1 or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise DataError(f"expected [N] integers, found {tuple(found.shape)} of {found.dtype}")
    return found.long()


def _numbers(values: Any, what: str) -> Tensor:
    """float64, of any shape."""
    try:
        return torch.as_tensor(values).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} are numbers: {error}") from error

"""Control measures and the statistics around them, against scipy, brute force and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from emoedit.emotions import BASIC
from emoedit.metrics.control import (
    ControlLinearity,
    accuracy,
    binary_confusion_rate,
    cls,
    confusion,
    harmonic,
    linearity,
    mscr,
)
from emoedit.metrics.statistics import bootstrap, curve_at
from emoedit.types import DataError, UnknownNameError

FOUR = ("surprised", "happy", "fearful", "angry")


def random(seed=0):
    return np.random.default_rng(seed)


# Confusion


def test_confusion_by_hand():
    C = confusion([0, 0, 0, 0, 2, 2], [0, 0, 2, 1, 0, 2], 4)
    assert C.shape == (4, 4) and C.dtype == torch.float32
    assert C[0].tolist() == [0.5, 0.25, 0.25, 0]
    assert C[2].tolist() == [0.5, 0, 0.5, 0]
    assert C[[1, 3]].isnan().all()  # nothing was meant as these
    assert binary_confusion_rate(C, 0, 2) == binary_confusion_rate(C, 2, 0) == 0.375
    assert math.isnan(binary_confusion_rate(C, 0, 1))
    assert mscr(C, FOUR) == 0.375  # angry and disgusted don't count: disgusted is no class
    assert accuracy([0, 0, 0, 0, 2, 2], [0, 0, 2, 1, 0, 2]) == 0.5


def test_confusion_agrees_with_counting_in_any_container():
    truth, read = random(1).integers(7, size=(2, 300))
    expected = np.array([[(read[truth == i] == j).mean() for j in range(7)] for i in range(7)])
    for kind in (np.asarray, torch.tensor, lambda values: [int(v) for v in values]):
        assert np.allclose(confusion(kind(truth), kind(read), 7), expected, atol=1e-6)
        assert accuracy(kind(truth), kind(read)) == pytest.approx((truth == read).mean())


def test_mscr_is_the_mean_over_the_pairs_that_were_edited():
    truth = np.repeat(np.arange(7), 10)
    read = truth.copy()
    index = {name: number for number, name in enumerate(BASIC)}
    read[truth == index["fearful"]] = index["surprised"]  # all of one, none of the other: .5
    read[np.flatnonzero(truth == index["angry"])[:4]] = index["disgusted"]  # .4 and 0: .2
    assert mscr(confusion(truth, read, 7), BASIC) == pytest.approx((0.5 + 0.2) / 2)
    edited = truth != index["angry"]
    assert mscr(confusion(truth[edited], read[edited], 7), BASIC) == pytest.approx(0.5)
    assert math.isnan(mscr(confusion([1], [1], 7), BASIC))
    assert mscr(confusion(truth, truth, 7), BASIC) == 0
    swapped = np.select(
        [truth == index["fearful"], truth == index["surprised"]], [index["surprised"], index["fearful"]], truth
    )
    assert mscr(confusion(truth, swapped, 7), BASIC) == pytest.approx(0.5)  # (1 + 0) / 2


def test_mscr_understands_aliases_and_refuses_what_it_does_not_know():
    C = confusion([0, 1], [1, 1], 2)
    assert mscr(C, ("fear", "Surprise")) == mscr(C, ("fearful", "surprised")) == 0.5
    with pytest.raises(UnknownNameError):
        mscr(C, ("fear", "xyzzy"))
    with pytest.raises(DataError):
        mscr(C, ("fear", "fearful"))
    with pytest.raises(DataError):
        mscr(C, ("fear", "surprise", "happy"))


@pytest.mark.parametrize(
    ("intended", "read"),
    [([0, 1], [0]), ([0], [7]), ([-1], [0]), ([0.0], [0.0]), ([[0]], [[0]]), ([True], [True])],
    ids=["lengths", "large", "negative", "floats", "shape", "booleans"],
)
def test_confusion_refuses_what_are_no_classes(intended, read):
    with pytest.raises(DataError):
        confusion(intended, read, 7)


def test_nothing_has_no_confusion():
    assert confusion([], [], 3).isnan().all()
    assert math.isnan(accuracy([], []))
    with pytest.raises(DataError):
        accuracy([1], [])


# Linearity


def test_linearity_agrees_with_scipy():
    strengths = np.array([0, 0.25, 0.5, 1, 1.5, 2])
    for seed in range(20):
        scores = random(seed).random(6).astype(np.float32)
        assert linearity(strengths, scores) == pytest.approx(stats.pearsonr(strengths, scores).statistic, abs=1e-6)
    assert linearity(torch.tensor(strengths), 0.3 * strengths + 0.1) == pytest.approx(1)
    assert linearity(strengths, -strengths) == pytest.approx(-1)
    assert 0.9 < linearity(strengths, strengths**2) < 1


@pytest.mark.parametrize(
    "scores", [[0.1, 0.1, 0.1], [0.1, 0.1 + 3e-8, 0.1], [0.3] * 3], ids=["equal", "rounding", "inexact"]
)
def test_a_score_that_never_moves_has_no_linearity(scores):
    assert math.isnan(linearity([0, 1, 2], scores))


def test_linearity_needs_two_strengths_and_finite_numbers():
    assert math.isnan(linearity([1], [0.5]))
    assert math.isnan(linearity([1, 1], [0.5, 0.6]))
    assert math.isnan(linearity([], []))
    for bad in (([0, 1], [0, math.nan]), ([0, math.inf], [0, 1]), ([0, 1], [0, 1, 2]), ([[0, 1]], [[0, 1]])):
        with pytest.raises(DataError):
            linearity(*bad)
    with pytest.raises(DataError, match="strengths are numbers"):
        linearity(["a", "b"], [0, 1])


def test_cls_is_the_mean_over_sweeps_and_counts_those_without():
    strengths = [0, 1, 2]
    table = {
        ("a", "happy"): (strengths, [0, 0.1, 0.2]),
        ("a", "sad"): (strengths, [0, 1, 0]),
        "still": ([0, 1], [0, 0]),
    }
    found = cls(table)
    assert found == ControlLinearity(pytest.approx(0.5), 3, 1)
    nothing = cls({n: (strengths, [0.2] * 3) for n in range(4)})
    assert math.isnan(nothing.value) and nothing[1:] == (4, 4)
    assert math.isnan(cls({}).value) and cls({})[1:] == (0, 0)


# Harmonic


def test_harmonic_by_hand():
    found = harmonic([0.5, 1, 0, 0, 0.1, 0.8], [0.5, 0.5, 1, 0, 1, -0.2])
    assert found.tolist() == pytest.approx([0.5, 2 / 3, 0, 0, 0.2 / 1.1, 0])
    assert found.dtype == torch.float32
    scores, identities = random(2).uniform(0.01, 1, (2, 50))
    expected = stats.hmean(np.stack([scores, identities]))
    assert np.allclose(harmonic(scores, torch.tensor(identities)), expected, atol=1e-6)
    assert torch.equal(harmonic(scores, identities), harmonic(identities, scores))


def test_doing_nothing_has_a_harmonic_above_zero():
    assert harmonic([0.1], [1.0]).item() == pytest.approx(0.18, abs=0.005)


def test_harmonic_passes_nan_on_and_refuses_what_is_out_of_range():
    assert harmonic([math.nan, 0.5], [0.5, math.nan]).isnan().all()
    assert harmonic(0.5, 1.0000001).item() == pytest.approx(2 / 3)
    for bad in (([1.2], [0.5]), ([-0.1], [0.5]), ([0.5], [1.5]), ([0.5], [-1.5]), ([0.5, 0.5], [0.5])):
        with pytest.raises(DataError):
            harmonic(*bad)


# Bootstrap


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_bootstrap_of_one_value_a_person_agrees_with_scipy(statistic):
    values = random(3).gamma(2, size=40)
    found = bootstrap(values, range(40), statistic, resamples=4000, level=0.9)
    expected = stats.bootstrap(
        (values,), statistic, method="percentile", n_resamples=4000, confidence_level=0.9, rng=random(4)
    )
    error = 0.15 * expected.standard_error  # five times that of a 5 % quantile of 4000 draws
    assert found.value == statistic(values) and found.people == 40 and found.ignored == 0
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=error)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=error)


def test_people_are_drawn_with_all_their_pictures():
    rng = random(5)
    person = np.repeat(np.arange(12), 20)
    values = rng.normal(size=12)[person] + 0.1 * rng.normal(size=240)
    by_person = bootstrap(values, person)
    by_picture = bootstrap(values, range(240))
    assert by_person.people == 12
    assert by_person.high - by_person.low > 3 * (by_picture.high - by_picture.low)
    once = bootstrap([values[person == p].mean() for p in range(12)], range(12))  # all have as many pictures
    assert (by_person.low, by_person.high) == pytest.approx((once.low, once.high))


def test_the_fast_way_of_the_mean_is_the_general_one():
    rng = random(6)
    person = [f"p{n}" for n in rng.integers(9, size=100)]  # some have more pictures than others
    values = rng.random(100)
    fast = bootstrap(values, person, resamples=300)
    general = bootstrap(values, person, lambda rows: rows.mean(), resamples=300)
    assert fast.value == pytest.approx(values.mean())
    assert (fast.low, fast.high) == pytest.approx((general.low, general.high))
    assert fast == bootstrap(torch.tensor(values), person, resamples=300)
    assert fast != bootstrap(values, person, resamples=300, seed=1)
    assert fast.low < fast.value < fast.high


def test_more_people_and_a_lower_level_make_narrower_intervals():
    values = random(7).random(400)
    widths = []
    for people, level in ((25, 0.95), (100, 0.95), (400, 0.95), (400, 0.5)):
        found = bootstrap(values[:people], range(people), level=level)
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)


def test_bootstrap_of_several_columns():
    truth, read = random(8).integers(7, size=(2, 400))
    person = np.arange(400) % 20

    def rate(rows):
        return mscr(confusion(rows[:, 0].astype(int), rows[:, 1].astype(int), 7), BASIC)

    found = bootstrap(np.stack([truth, read], 1), person, rate, resamples=100)
    assert found.low < found.value == rate(np.stack([truth, read], 1)) < found.high


def test_one_person_gives_no_interval_and_nan_is_left_out_and_counted():
    one = bootstrap([1.0, 2.0, 3.0], ["a"] * 3)
    assert one.value == 2 and math.isnan(one.low) and math.isnan(one.high) and one.people == 1
    values = [1.0, math.nan, 3.0, math.nan]
    some = bootstrap(values, ["a", "a", "b", "c"])
    assert (some.value, some.people, some.ignored) == (2, 2, 2)
    assert (some.low, some.high) == (1, 3)
    none = bootstrap([math.nan] * 2, ["a", "b"])
    assert math.isnan(none.value) and math.isnan(none.low) and (none.people, none.ignored) == (0, 2)


def test_resamples_without_a_value_are_left_out():
    def first_class(rows):
        return rows[rows < 1].mean() if (rows < 1).any() else math.nan

    found = bootstrap([0.5, 2, 2], ["a", "b", "c"], first_class, resamples=200)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "people", "options"),
    [([], [], {}), ([1], [1, 2], {}), ([1, math.inf], "ab", {}), ([1, 2], ["a", None], {}), (["x"], "a", {}),
     ([1, 2], ["a", math.nan], {}), ([1, 2], "ab", {"level": 95}), ([1, 2], "ab", {"resamples": 0}), (3.0, "a", {})],
    ids=["empty", "lengths", "infinite", "nobody", "text", "nan", "level", "resamples", "scalar"],
)  # fmt: skip
def test_bootstrap_refuses_what_gives_no_interval(values, people, options):
    with pytest.raises(DataError):
        bootstrap(values, people, **options)


# Fronts, curves, ranks, counts


def test_curve_between_its_points_and_not_beyond():
    identity, target = [1, 0.9, 0.7, 0.6], [0.1, 0.3, 0.8, 0.9]
    at = np.array([1, 0.95, 0.8, 0.7, 0.6, 0.59, 1.01])
    found = curve_at(identity, target, at)
    assert found[:5] == pytest.approx(np.interp(at[:5], identity[::-1], target[::-1]))
    assert np.isnan(found[5:]).all()
    assert curve_at(identity, target, 0.8).shape == () and curve_at(identity, target, np.zeros((2, 3))).shape == (2, 3)
    assert np.isnan(curve_at(identity, target, math.nan))


def test_curve_takes_the_best_where_it_passes_twice():
    identity, target = [1, 0.8, 0.9, 0.6], [0.1, 0.5, 0.7, 0.4]  # comes back from .8 to .9
    assert curve_at(identity, target, 0.85) == pytest.approx(0.65)  # out: .4, back: .6, down again: .65
    assert curve_at(identity, target, 0.9) == pytest.approx(0.7)
    level = curve_at([0.9, 0.9, 0.8], [0.2, 0.6, 0.1], [0.9, 0.85])  # two targets at one identity
    assert level == pytest.approx([0.6, 0.35])
    alone = curve_at([0.9], [0.2], [0.9, 0.8])
    assert alone[0] == 0.2 and np.isnan(alone[1])


@pytest.mark.parametrize(
    ("identity", "target"), [([], []), ([1, 2], [1]), ([1, math.nan], [1, 1]), ([1, 2], [1, math.inf]), ([[1]], [[1]])]
)
def test_what_is_no_curve_is_refused(identity, target):
    with pytest.raises(DataError):
        curve_at(identity, target, 0.5)

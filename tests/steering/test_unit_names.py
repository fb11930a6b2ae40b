"""Names of action units, and points of valence and arousal: what is asked for before any model is loaded."""

from __future__ import annotations

import numpy as np
import pytest

from emoedit.emotions import BASIC, circumplex, parse, resolve, smile_reduction
from emoedit.steering.unit_names import unit_algebra, unit_name
from emoedit.types import EditError, UnknownNameError


@pytest.mark.parametrize("text", ["12", "AU12", "au12", " AU 12 ", "012"])
def test_units_are_known_by_their_numbers(text):
    assert unit_name(text) == "AU12"
    assert unit_name(text.strip() + "l") == "AU12L"


@pytest.mark.parametrize(("text", "says"), [("3", "there are 1, 2"), ("smile", "there are"), ("26L", "both halves")])
def test_units_that_do_not_exist_are_refused(text, says):
    with pytest.raises(UnknownNameError, match=says):
        unit_name(text)


def test_units_become_algebra():
    assert unit_algebra(["12=.8", "6L=-0.5", "25"]) == "0.8*AU12 - 0.5*AU6L + 1.0*AU25"
    assert unit_algebra({"4": -0.5}) == "- 0.5*AU4"


@pytest.mark.parametrize(
    ("units", "says"),
    [
        (["12=2"], "from -1 to 1.5"),
        (["12=nan"], "from -1 to 1.5"),
        (["12=much"], "12=.8"),
        (["12=1", "AU12=.5"], "twice"),
        ([], "no action unit"),
        (["5", "43"], "contradict"),
        (["24", "26=.2"], "contradict"),
        (["5L", "43L"], "contradict"),
    ],
)
def test_units_that_make_no_sense_are_refused(units, says):
    with pytest.raises(EditError, match=says):
        unit_algebra(units)


def test_opposite_units_of_one_sign_each_go_together():
    assert unit_algebra(["5=-.5", "43=.5"]) == "- 0.5*AU5 + 0.5*AU43"


# --- valence and arousal ----------------------------------------------------------------------------------------------


def test_a_point_reads_as_the_emotion_that_is_there():
    for name, point in {"happy": (0.8, 0.4), "sad": (-0.7, -0.3), "surprised": (0.2, 0.85)}.items():
        mixture = circumplex(*point)
        assert max(mixture, key=mixture.__getitem__) == name
        assert mixture[name] > 0.6
    assert sum(circumplex(0.0, 0.0).values()) < 0.45


def test_points_stand_in_algebra_like_names():
    mixture = circumplex(-0.7, 0.4)
    found = parse("happy - 0.5*VA( -.7 , 0.4 )")
    assert found["angry"] == pytest.approx(-0.5 * mixture["angry"])
    assert found["happy"] == pytest.approx(1 - 0.5 * mixture["happy"])


def test_points_use_what_an_editor_has():
    assert set(resolve("va(-.6, .7)", ["neutral", "anger", "happy"])) <= {"anger", "happy"}
    assert smile_reduction("va(-.7, -.3)", 1.0, BASIC) < 1e-6  # a trace of happy is happy
    assert set(circumplex(-1, -1)) == set(BASIC) - {"neutral"}


@pytest.mark.parametrize("text", ["va(2, 0)", "va(0, -1.01)"])
def test_points_outside_are_refused(text):
    with pytest.raises(EditError, match="from -1 to 1"):
        parse(text)


@pytest.mark.parametrize("text", ["va(1)", "va(.1, .2", "va(a, b)", "va()"])
def test_points_that_do_not_parse_are_refused(text):
    with pytest.raises((EditError, UnknownNameError)):
        parse(text)


@pytest.mark.parametrize(
    ("first", "last"),
    [((-0.8, 0.6), (0.8, 0.4)), ((-0.7, -0.3), (0.8, 0.4)), ((0.2, 0.8), (0.8, 0.4)), ((0.6, -0.6), (-0.9, 0.9))],
)
def test_paths_have_no_steps(first, last):
    """No step of a path is above three times the median one."""
    points = np.linspace(first, last, 21)
    path = np.array([list(circumplex(*point).values()) for point in points])
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() < 3 * np.median(steps)

"""Points of the valence-arousal pad, settings as expressions, and what is drawn beside photographs."""

from __future__ import annotations

import numpy as np
import pytest

from emoedit.app.figures import bars, face_at, numbers
from emoedit.app.pad import SHOWN, anchors, markup, nearest, place_of, weights_at
from emoedit.app.session import Reading
from emoedit.app.settings import Settings
from emoedit.emotions import BASIC, get, resolve
from emoedit.faces.detect import Face
from emoedit.types import Edit, UnknownNameError


@pytest.mark.parametrize("name", [name for name in SHOWN if name not in ("angry", "fearful")])
def test_a_point_on_a_name_is_its_mixture(name) -> None:
    at = weights_at(get(name).valence, get(name).arousal, BASIC)
    alone = [other for other in anchors(BASIC).names if get(other).valence == get(name).valence]
    if [other for other in alone if get(other).arousal == get(name).arousal] == [name]:
        assert {n: w for n, w in at.items() if w} == pytest.approx(resolve(name, BASIC), abs=0.006)


def test_the_middle_changes_nothing_and_what_lies_outside_counts_as_the_edge() -> None:
    assert not any(weights_at(0, 0, BASIC).values())
    assert weights_at(9, -9, BASIC) == weights_at(1, -1, BASIC)
    assert nearest(0.8, 0.4, BASIC) == "happy"


def test_weights_change_smoothly_along_the_pad() -> None:
    path = [weights_at(v, 0.3, BASIC) for v in np.linspace(-1, 1, 201)]
    steps = [max(abs(a[n] - b[n]) for n in BASIC) for a, b in zip(path, path[1:], strict=False)]
    assert max(steps) < 0.35  # in a hundredth of the pad, across a name
    assert sorted(steps)[180] < 0.06


def test_an_editor_with_words_of_its_own_keeps_them_at_zero() -> None:
    weights = weights_at(0.8, 0.4, ("happy", "sad", "wistful-x"))
    assert weights == {"happy": 1.0, "sad": 0.0, "wistful-x": 0.0}
    assert place_of({"wistful-x": 1.0, "happy": 0.5}) == pytest.approx((0.4, 0.2))


@pytest.mark.parametrize(
    ("weights", "edit"),
    [
        ((("happy", 1.0), ("sad", 0.0)), Edit("happy", 1.5)),
        ((("happy", 0.3), ("sad", -0.4)), Edit("0.3*happy - 0.4*sad", 1.5)),
        ((("sad", -1.0),), Edit("- sad", 1.5)),
        ((("sad", 0.001),), Edit("neutral", 0.0)),
        ((), Edit("neutral", 0.0)),
    ],
)
def test_settings_read_as_algebra(weights, edit) -> None:
    settings = Settings(weights, 1.5)
    assert settings.parts(BASIC) == (edit, ())
    if edit.strength:
        assert resolve(edit.emotion, BASIC) == pytest.approx({n: w for n, w in weights if w})


def face(x: float, side: float) -> Face:
    return Face((x, 0.0, x + side, side), np.zeros((5, 2)), 1.0)


def test_a_click_finds_the_smallest_face_around_it_or_the_nearest_one() -> None:
    faces = [face(0, 100), face(20, 20), face(300, 40)]
    assert face_at(faces, 25, 10) == 1
    assert face_at(faces, 80, 80) == 0
    assert face_at(faces, 345, 20) == 2
    assert face_at(faces, 200, 50) is None


def test_markup_is_escaped_and_says_everything_in_words() -> None:
    with pytest.raises(UnknownNameError):
        bars(Reading({"happy": 0.75, "<b>": 0.25}))  # what is no emotion has no valence
    page = bars(Reading({"happy": 0.75, "sad": 0.25}))
    assert "75%" in page and "valence" in page and '<th scope="row">happy</th>' in page
    assert all(f">{name}</button>" in markup() for name in SHOWN)


def test_numbers_say_when_the_edit_was_weakened() -> None:
    from PIL import Image

    from emoedit.app.session import Result

    image, reading = Image.new("RGB", (4, 4)), Reading({"happy": 1.0})
    settings = Settings((("happy", 1.0),), 1.0, min_identity=0.9)
    weaker = numbers(Result(image, image, settings, 0.5, 0.91, reading, 0.1))
    assert "0.5 of 1, to keep 0.9" in weaker and "0.91" in weaker
    assert "of 1" not in numbers(Result(image, image, settings, 1.0, 0.95, reading, 0.1))

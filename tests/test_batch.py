"""Many photographs: results and errors in their order."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import emoedit
from emoedit.photo import PhotoEditor
from emoedit.types import EditError, ImageError, NoFaceError, UnknownNameError
from tests.fixtures.editors import tiny_vae


@pytest.fixture(scope="module")
def photos() -> PhotoEditor:
    return PhotoEditor(tiny_vae())


def test_each_photograph_has_its_result_or_its_error(photos, tmp_path, astronaut) -> None:
    Image.fromarray(astronaut).save(tmp_path / "me.png")
    many = [tmp_path / "me.png", str(tmp_path / "nosuch.png"), np.zeros((64, 64, 3), np.uint8), astronaut]
    results = list(emoedit.edit_many(many, "sad", editor=photos, strength=0.5))
    assert [r.name for r in results] == [str(tmp_path / "me.png"), str(tmp_path / "nosuch.png"), "photo 3", "photo 4"]
    assert [type(r.error) for r in results] == [type(None), ImageError, NoFaceError, type(None)]
    assert [r.edited is None for r in results] == [False, True, True, False]
    alone = emoedit.edit(astronaut, "sad", editor=photos, strength=0.5)
    assert np.array_equal(np.asarray(results[3].edited.image), np.asarray(alone.image))


def test_photographs_are_read_one_at_a_time(photos, astronaut) -> None:
    asked = []

    def feed():
        for number in range(3):
            asked.append(number)
            yield astronaut

    next(emoedit.edit_many(feed(), editor=photos, strength=0))
    assert asked == [0]


@pytest.mark.parametrize(("emotion", "error"), [("nosuch", UnknownNameError), ("happy +", EditError)])
def test_what_is_wrong_for_all_is_raised(photos, emotion, error) -> None:
    with pytest.raises(error):
        next(emoedit.edit_many(["me.jpg"], emotion, editor=photos))

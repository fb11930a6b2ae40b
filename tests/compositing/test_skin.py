"""Edges of skin: what a small drawing loses of a face stays; what it adds is no sharper than creases are; what eyes and
mouths do is left as it is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.compositing.composite import Composite
from emoedit.compositing.compositors import compositor
from emoedit.compositing.skin import Skin, limit_new_edges, restore_lost_edges
from tests.fixtures.faces import EYES, LEVEL, analysis_of, face_of, near, photo_of, scene_of, shown

CHEEK = (28, 60)  # away from eyes and mouth


def with_patch(level: float, at: tuple[float, float] = CHEEK) -> np.ndarray:
    """Skin with a soft patch of another level."""
    crop = np.full((96, 96), LEVEL, np.float32)
    crop[round(at[1]) - 3 : round(at[1]) + 4, round(at[0]) - 3 : round(at[0]) + 4] = level
    return cv2.GaussianBlur(crop, (0, 0), 1.0)


def left(before: np.ndarray, after: np.ndarray, part: Skin = Skin()) -> np.ndarray:
    """The change that skin leaves of a drawing in which nothing moves."""
    scene = scene_of(analysis_of(photo_of(before), face_of()), before, after)
    composite = Composite(np.zeros((96, 96, 2), np.float32), (after - before).astype(np.float32))
    changed = part(scene, composite).change
    assert changed.dtype == np.float32 and np.isfinite(changed).all()
    return changed


def test_an_edge_that_fades_is_given_back():
    dark, fainter = with_patch(LEVEL - 60), with_patch(LEVEL - 20)
    y, x = CHEEK[::-1]
    whole = left(dark, fainter, Skin(restored=1.0, gleam=9.0, crease=9.0))
    assert abs(whole[y, x]) < 8 < 35 < left(dark, fainter, Skin(restored=0.0, gleam=9.0, crease=9.0))[y, x]
    away = np.hypot(*(np.mgrid[:96, :96] - np.array(CHEEK[::-1])[:, None, None])) > 14
    assert np.abs(whole[away]).max() < 3
    default = left(dark, fainter)
    assert abs(default[y, x]) < 0.5 * 40


def test_what_comes_or_grows_is_not_taken_for_a_loss():
    y, x = CHEEK[::-1]
    skin, dark = with_patch(LEVEL), with_patch(LEVEL - 20)
    for before, after in ((skin, dark), (dark, with_patch(LEVEL - 40))):
        assert left(before, after)[y, x] == pytest.approx((after - before)[y, x], abs=6)


def test_what_is_lost_of_an_edge_is_no_more_than_there_was():
    was, change = np.array([-30.0, -30, 30, 0]), np.array([20.0, 60, -10, 5])
    np.testing.assert_array_equal(restore_lost_edges(was, change), [-20, -30, 10, 0])


def test_new_edges_are_limited_and_faint_ones_left():
    change = np.array([0.0, 0.5, 100, -0.5, -100])
    kept = change - limit_new_edges(change, 10.0, 30.0)
    assert kept[0] == 0 and kept[1] == pytest.approx(0.5, rel=0.01) and kept[3] == pytest.approx(-0.5, rel=0.01)
    assert kept[2] == pytest.approx(10, rel=0.01) and kept[4] == pytest.approx(-30, rel=0.02)


@pytest.mark.parametrize(("level", "most"), [(100.0, "gleam"), (-100.0, "crease")])
def test_no_edge_becomes_sharper_than_a_crease(level: float, most: str):
    part, (y, x) = Skin(), CHEEK[::-1]
    changed = left(with_patch(LEVEL), with_patch(LEVEL + level), part)
    assert 0.6 < changed[y, x] / np.sign(level) / (getattr(part, most) * LEVEL) < 1.6
    # A faint crease stays nearly as it is, and so does light that changes as a whole.
    np.testing.assert_allclose(left(with_patch(LEVEL), with_patch(LEVEL - 6))[y, x], -5.5, atol=1.5)
    np.testing.assert_allclose(left(with_patch(LEVEL), with_patch(LEVEL) + 25)[y, x], 25, atol=1.5)


def test_eyes_and_mouths_are_left_alone():
    for x, y in (*((round(x), round(y)) for x, y in EYES), (48, 72)):
        changed = left(with_patch(LEVEL, (x, y)), with_patch(LEVEL + 60, (x, y)))
        assert changed[y, x] > 45
    share = Skin()._beside_eyes(face_of(), 96)
    assert all(share[round(y), round(x)] < 0.05 for x, y in EYES) and share[70:].min() > 0.99


def test_a_mole_that_a_drawing_loses_stays_unless_the_model_is_believed():
    """As the photograph shows it, by the whole compositor."""
    before, after = with_patch(LEVEL - 60), with_patch(LEVEL)
    after[20:26, 40:56] += 8  # a light elsewhere
    photo = photo_of(before)
    scene = scene_of(analysis_of(photo, face_of()), before, after)
    kept = {}
    for restored in (0.9, 0.0):
        made = compositor({"name": "drawn", "settings": {"skin": {"restored": restored, "gleam": 9.0}}})
        result = shown(photo, scene, made)
        kept[restored] = (LEVEL - near(result, *CHEEK, 1).mean()) / (LEVEL - near(photo, *CHEEK, 1).mean())
    assert kept[0.9] > 0.75 and kept[0.0] < 0.35

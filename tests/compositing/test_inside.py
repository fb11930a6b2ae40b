"""What is drawn between lips that an edit parts: teeth, as crisp and as bright as the photograph allows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from emoedit.compositing.cavity import Between, cavity
from emoedit.compositing.dentition import SMILE, SURPRISE, dentition
from emoedit.compositing.inside import draw_inside
from emoedit.compositing.optics import black_level, edge_blur, no_darker

from emoedit.compositing.mouth import LARGER, teeth_level
from emoedit.compositing.window import Place
from emoedit.faces.align import FFHQ_POINTS, align
from emoedit.faces.masks import regions
from tests.fixtures.faces import LEVEL, SPEC, lips, points_of

APART = 36.0  # pixels of the crop between the pupils of points_of
MM = 63 / APART


def face(apart: float) -> np.ndarray:
    """68 landmarks of a smile whose lips are so far apart."""
    return points_of(48, 72, half=17, apart=apart)


def teeth_of(apart: float, shown=SMILE, skin: float = 140.0) -> tuple[Between, np.ndarray, np.ndarray]:
    between = Between.lips(face(apart), 96, 4.0, 0.0)
    light = np.full_like(between.mask, skin)
    levels, teeth = dentition(between, APART * LARGER, light, shown, cavity(between, light, tongue=shown.tongue))
    assert levels.dtype == teeth.dtype == np.float32 and np.isfinite(levels).all()
    assert teeth.min() >= 0 and teeth.max() <= 1
    return between, levels, teeth * (between.mask > 0.5)


def test_a_smile_shows_rounded_teeth_that_recede():
    between, levels, teeth = teeth_of(7)
    middle = round(np.mean(between.ends))
    inside = (between.mask > 0.99) & (teeth > 0.99)
    x = np.abs(np.arange(len(between.height)) - middle) / LARGER * MM  # mm from the middle
    white = teeth_level(140.0)
    front, back = (np.median(levels[inside & (x >= a)[None] & (x < b)[None]]) for a, b in ((1, 8), (20, 26)))
    assert 1.05 < front / white < 1.3 and back < 0.85 * front
    # A line between two teeth: at 0, 8.5, 15 and 20.5 mm.
    row = levels[round((72 - 0.5) * LARGER), middle : middle + round(22 / MM * LARGER)]
    dark = [n for n in range(2, len(row) - 2) if row[n] == row[n - 2 : n + 3].min()]
    for end in (8.5, 15.0):
        assert min(abs(n / LARGER * MM - end) for n in dark) < 0.5
    # Edges are lower in the middle of a tooth than at its sides.
    length = (teeth > 0.5).sum(0) / np.maximum(between.height, 1)
    at = [middle + round(v / MM * LARGER) for v in (4.2, 8.5, 11.7)]
    assert length[at[0]] > length[at[1]] < length[at[2]]


def test_no_tooth_is_longer_than_teeth_are_and_none_stands_in_closed_lips():
    wide, narrow = teeth_of(16)[2], teeth_of(3)[2]
    middle = round((48 + 4.2 / MM + 0.5) * LARGER)
    assert (wide[:, middle] > 0.5).sum() / LARGER * MM == pytest.approx(11, abs=1)
    assert 2 < (narrow[:, middle] > 0.5).sum() / LARGER * MM < 3 * MM
    between, levels, teeth = teeth_of(0)
    assert (teeth * between.mask).sum() < 0.1 * (teeth_of(3)[2] > 0.5).sum()


def test_a_surprised_mouth_shows_their_edges_above_the_dark():
    between, levels, teeth = teeth_of(9, SURPRISE)
    middle = round((48 + 4.2 / MM + 0.5) * LARGER)
    assert 1.5 < (teeth[:, middle] > 0.5).sum() / LARGER * MM < 4
    rows = np.nonzero(between.mask[:, middle] > 0.99)[0]
    column = levels[rows, middle]
    assert column[: len(column) // 4].max() > 2.5 * column[len(column) // 3 : len(column) // 2].min()
    assert not teeth[:, : round((48 - 20 / MM) * LARGER)].any()


@pytest.mark.parametrize("sigma", [1.5, 2.0, 4.0])
def test_the_blur_of_a_photograph_is_found(sigma: float):
    picture = np.zeros((200, 200), np.float32)
    for n, x in enumerate(range(20, 180, 40)):
        cv2.circle(picture, (x, 60 + 25 * n), 14, 150.0, -1, cv2.LINE_AA)
    found = edge_blur(cv2.GaussianBlur(picture, (0, 0), sigma), np.ones_like(picture))
    assert found == pytest.approx(sigma, rel=0.3)


def test_where_there_is_nothing_to_tell_by():
    flat = np.full((50, 50), 90, np.float32)
    assert edge_blur(flat, np.ones_like(flat)) == 0 == edge_blur(flat, np.zeros_like(flat))
    assert black_level(flat, np.zeros_like(flat)) == 0


def test_what_is_drawn_is_not_much_darker_than_the_face_is():
    levels, skin = np.array([10.0, 50, 140, 180]), np.full(4, 140.0)
    np.testing.assert_allclose(no_darker(levels, 60.0, np.full(4, 10.0), skin), [60, 84.6, 140, 180], atol=0.1)
    np.testing.assert_array_equal(no_darker(levels, 5.0, np.full(4, 10.0), skin), levels)


@pytest.mark.parametrize("shown", [SMILE, SURPRISE])
def test_it_is_drawn_in_the_light_and_the_blur_of_the_photograph(shown):
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    drawing = lips(48, 72)
    photo = np.clip(cv2.warpAffine(drawing, alignment.inverse, (300, 300), borderValue=LEVEL), 0, 255)
    for x in (40, 56):  # pupils
        cv2.circle(photo, alignment.to_photo(np.array([[x, 40.0]]))[0].round().astype(int).tolist(), 4, 8.0, -1)
    place, points = Place.of(alignment, 300, 300), face(8)

    def drawn(picture: np.ndarray, of: np.ndarray = drawing):
        rgb = np.repeat(picture.round().astype(np.uint8)[..., None], 3, -1)
        found = draw_inside(rgb, place, points, of, where, shown)
        assert found.levels.shape == found.mask.shape == found.teeth.shape == (96 * LARGER,) * 2
        return found

    plain, soft = drawn(photo), drawn(cv2.GaussianBlur(photo, (0, 0), 3))

    def slope(inside) -> float:
        return np.abs(np.diff(inside.levels * inside.mask, axis=0)).max()

    assert slope(soft) < 0.7 * slope(plain)
    # Fog: nothing of it is black, so the inside of a mouth is not either.
    foggy = drawn(photo / 4 + 110)
    assert foggy.levels[foggy.mask > 0.9].min() > 70 > 1.3 * plain.levels[plain.mask > 0.9].min()
    # Half of the face in shadow: its teeth are, too.
    shade = np.linspace(0.6, 1.3, 96, dtype=np.float32)[None]
    lit = drawn(photo, drawing * shade).levels
    left, right = (lit[68 * LARGER : 72 * LARGER, round(x * LARGER)].mean() for x in (41, 55))
    assert right > 1.08 * left

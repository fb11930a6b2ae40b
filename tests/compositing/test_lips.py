"""What a drawing says of a mouth: whether it opens, shows teeth or closes, by degrees, and where its lips are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.compositing.lips import LipReading, read_lips, snap_lips
from emoedit.faces.masks import face_masks
from emoedit.faces.teeth import MouthGrid
from tests.fixtures.faces import LEVEL, SPEC, likely_teeth, lips, points_of

CLOSED, OPEN, MASKS, GRID = points_of(48, 72), points_of(48, 72, apart=9), face_masks(SPEC), MouthGrid(96)
ROW = (36, 68, 60, 75)


def opened(inside: float) -> np.ndarray:
    """What a small model draws of an open mouth: one blur, whose middle has this level."""
    crop = np.full((96, 96), LEVEL, np.float32)
    cv2.ellipse(crop, (48, 72), (14, 10), 0, 0, 360, LEVEL - 50, -1)
    cv2.ellipse(crop, (48, 72), (11, 5), 0, 0, 360, inside, -1)
    return cv2.GaussianBlur(crop, (0, 0), 2.5)


def read(
    first: np.ndarray, last: np.ndarray, after: np.ndarray, teeth: np.ndarray | None = None, has_teeth: bool = False
) -> LipReading:
    seen = likely_teeth() if teeth is None else teeth
    return read_lips(np.stack([first, last]), lips(48, 72), after, seen, MASKS, has_teeth=has_teeth)


def test_a_mouth_opens_where_lips_part_and_it_darkens_between_them():
    found = read(CLOSED, OPEN, opened(0.3 * LEVEL))
    assert found.opens == 1 and found.teeth == 0 and found.shuts == 0
    assert read(CLOSED, OPEN, opened(1.2 * LEVEL)).opens == 0  # a smile whose teeth nobody saw
    assert read(CLOSED, CLOSED, opened(0.3 * LEVEL)).opens == 0
    assert read(OPEN, OPEN, opened(0.3 * LEVEL)).opens == 0  # it was open before
    closing = read(OPEN, CLOSED, lips(48, 72))
    assert closing.opens == 0 and closing.shuts == 1


def test_a_mouth_opens_by_degrees():
    """The wider lips part, and the darker it is between them, the more surely; without a jump."""
    for results in (
        [read(CLOSED, points_of(48, 72, apart=a), opened(0.3 * LEVEL)).opens for a in np.linspace(0, 3, 61)],
        [read(CLOSED, OPEN, opened(level * LEVEL)).opens for level in np.linspace(1.2, 0.3, 241)],
        [read(CLOSED, OPEN, opened(LEVEL), likely_teeth(ROW, sure)).opens for sure in np.linspace(0.2, 0.9, 71)],
    ):
        assert results[0] == 0 and results[-1] == 1
        assert 0 < max(np.diff(results)) < 0.25 and min(np.diff(results)) > -1e-6


@pytest.mark.parametrize(
    ("row", "has_teeth", "why"),
    [
        (ROW, False, ""),
        (ROW, True, "the photograph's own are better than any drawn"),
        ((46, 69, 51, 75), False, "a single tooth"),
        ((47, 69, 70, 75), False, "on one side only"),
        ((38, 56, 58, 60), False, "the gleam of a lip"),
        ((36, 79, 60, 84), False, "at the bottom of an open mouth"),
    ],
)
def test_which_teeth_are_a_row(row: tuple, has_teeth: bool, why: str):
    found = read(CLOSED, OPEN, opened(LEVEL), likely_teeth(row), has_teeth)
    assert (found.opens > 0.9 and found.teeth > 0.9) is not bool(why)
    if why:
        assert found.opens * found.teeth < 0.1


def test_an_unsure_row_is_none():
    assert read(CLOSED, OPEN, opened(LEVEL), likely_teeth(ROW, 0.22)).opens == 0


def test_lips_go_to_the_ends_of_teeth_and_half_way_to_those_of_the_dark():
    """Landmarks of a blur say too little."""
    narrow = points_of(48, 72, apart=5)
    seen = likely_teeth((36, 64, 60, 80)) > 0.5
    whole, half = (snap_lips(narrow, seen, GRID, outwards=out, weight=1.0) for out in (1.0, 0.5))
    assert whole[62, 1] == pytest.approx(63.5, abs=0.8) and whole[66, 1] == pytest.approx(79.5, abs=0.8)
    assert half[62, 1] == pytest.approx((69.5 + whole[62, 1]) / 2, abs=0.3)
    # The outer edge goes with the inner one, and the corners stay.
    assert whole[62, 1] - whole[51, 1] == pytest.approx(narrow[62, 1] - narrow[51, 1])
    np.testing.assert_array_equal(whole[[48, 54, 60, 64]], narrow[[48, 54, 60, 64]])
    np.testing.assert_array_equal(snap_lips(narrow, seen, GRID, outwards=1.0, weight=0.0), narrow)
    np.testing.assert_array_equal(snap_lips(OPEN, np.zeros_like(seen), GRID, outwards=1.0, weight=1.0), OPEN)


def test_what_is_dark_elsewhere_moves_no_lip():
    wide = opened(0.3 * LEVEL)
    shadow = wide.copy()
    shadow[86:88, 30:66] = 0.3 * LEVEL  # the shadow below a lip
    narrow = points_of(48, 72, apart=5)
    first, other = read(CLOSED, narrow, wide), read(CLOSED, narrow, shadow)
    np.testing.assert_allclose(first.after, other.after, atol=0.3)
    assert first.after[66, 1] > narrow[66, 1] + 0.5  # but what hangs together with the gap does

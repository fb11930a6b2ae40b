"""Edges of skin: what a small drawing loses of a face stays; what it adds is as it is drawn, if no sharper than creases
are; what eyes and mouths do is as it is drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from emoedit.compositing.fading import BLURRED, CREASE, GLEAM, KEPT, beside_eyes, faded, torn
from emoedit.compositing.paste import paste

from emoedit.faces.align import FFHQ_POINTS, align
from emoedit.faces.masks import LUMA, regions
from emoedit.types import CropSpec
from tests.fixtures.faces import EYES, LEVEL, SPEC, face_of

CHEEK = (28, 60)  # away from eyes and mouth
ALL = np.ones((96, 96), np.float32)


def with_patch(level: float, at: tuple[float, float] = CHEEK, side: int = 96) -> np.ndarray:
    """Skin with a soft patch of another level."""
    crop = np.full((side, side), LEVEL, np.float32)
    crop[round(at[1]) - 3 : round(at[1]) + 4, round(at[0]) - 3 : round(at[0]) + 4] = level
    return cv2.GaussianBlur(crop, (0, 0), 1.0)


def test_an_edge_that_fades_is_what_is_missing():
    dark, fainter = with_patch(LEVEL - 60), with_patch(LEVEL - 20)
    missing = faded(dark, fainter, ALL)
    assert missing.dtype == np.float32
    away = np.hypot(*(np.mgrid[:96, :96] - np.array(CHEEK[::-1])[:, None, None])) > 12
    assert np.abs(fainter + missing - dark).max() < 0.1 * 40
    assert np.abs(missing[away]).max() < 2
    np.testing.assert_allclose(faded(255 - dark, 255 - fainter, ALL), -missing, atol=1e-3)  # a gleam as a shadow


def test_what_comes_or_grows_is_not_missing():
    skin, dark = with_patch(LEVEL), with_patch(LEVEL - 60)
    assert np.abs(faded(skin, dark, ALL)).max() < 1e-3 and np.abs(faded(dark, dark, ALL)).max() == 0
    y, x = CHEEK[::-1]
    assert np.abs(faded(with_patch(LEVEL - 30), dark, ALL)[y - 3 : y + 4, x - 3 : x + 4]).max() < 1e-3


def test_what_turns_into_its_opposite_misses_no_more_than_there_was():
    dark, bright = with_patch(LEVEL - 30), with_patch(LEVEL + 60)
    y, x = CHEEK[::-1]
    assert -31 < faded(dark, bright, ALL)[y, x] < -20


def test_light_that_changes_as_a_whole_is_believed():
    y = np.linspace(-1, 1, 96, dtype=np.float32)[:, None] + np.zeros((96, 96), np.float32)
    dark = with_patch(LEVEL - 60)
    assert np.abs(faded(dark, dark + 25, ALL)).max() < 0.01
    assert np.abs(faded(dark, dark + 12 * y, ALL)).max() < 4


def test_what_is_not_looked_at_has_no_halo():
    """A mouth that becomes black beside a bright cheek."""
    where, bright = ALL.copy(), with_patch(LEVEL + 40)
    where[55:85, 34:62] = 0
    black = bright.copy()
    black[60:80, 38:58] = 20
    assert np.abs(faded(bright, black, where)).max() == 0
    assert faded(bright, with_patch(LEVEL + 20), where)[60, 28] > 10


@pytest.mark.parametrize(("level", "most"), [(100.0, GLEAM), (-100.0, CREASE)])
def test_no_edge_becomes_sharper_than_a_crease(level: float, most: float):
    skin, patch = with_patch(LEVEL), with_patch(LEVEL + level)
    left = patch - torn(skin, patch, ALL, LEVEL) - skin
    y, x = CHEEK[::-1]
    assert 0.7 < left[y, x] / np.sign(level) / (most * LEVEL) < 1.35
    # A faint crease stays nearly as it is, and so does light that changes as a whole.
    crease = with_patch(LEVEL - 8)
    assert np.abs(torn(skin, crease, ALL, LEVEL)).max() < 0.4
    assert np.abs(torn(skin, skin + 40, ALL, LEVEL)).max() < 0.01
    assert not torn(patch, patch, ALL, LEVEL).any() and not torn(skin, patch, 0 * ALL, LEVEL).any()


def test_eyes_are_left_alone():
    share = beside_eyes(face_of(), 96)
    for x, y in EYES:
        assert share[round(y), round(x)] < 0.05
    assert share[70:].min() > 0.99 and share[:25].min() > 0.99


@pytest.mark.parametrize("mode", ["mouth", "redraw"])
@pytest.mark.parametrize("resolution", [96, 128])
def test_a_mole_that_a_small_drawing_loses_stays(mode, resolution):
    """Only small drawings that are pasted as mouths lose what nobody asked for; of larger ones as much is believed as
    is no tear, and those that draw the whole face are believed."""
    spec = CropSpec(resolution, SPEC.style, SPEC.scale, SPEC.down)
    points, where = face_of() * (resolution / 96), regions(spec)
    at = tuple(v * resolution / 96 for v in CHEEK)
    before, after = with_patch(LEVEL - 60, at, resolution), with_patch(LEVEL, at, resolution)
    alignment = align(FFHQ_POINTS * 150 + [150, 140], spec)
    grey = cv2.warpAffine(before, alignment.inverse, (300, 300), borderMode=cv2.BORDER_REPLICATE)
    photo = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, 2)
    shown = paste(photo, alignment, [before, after], where, mode=mode, points=(points, points)) @ LUMA
    x, y = alignment.to_photo(np.array([at]))[0].round().astype(int)
    share = (LEVEL - shown[y, x]) / (LEVEL - float(photo[y, x] @ LUMA))
    if mode == "mouth" and resolution <= BLURRED:
        assert KEPT - 0.1 < share <= 1.02
    elif mode == "mouth":
        assert share == pytest.approx(1 - GLEAM * LEVEL / 60, abs=0.15)
    else:
        assert share < 0.4

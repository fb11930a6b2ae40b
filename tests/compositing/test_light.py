"""A change of light becomes one of colour: shadows are warm, and creases that go leave no glow."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from emoedit.compositing.composite import Composite
from emoedit.compositing.light import Light
from emoedit.faces.tone import LUMA, Tone
from tests.fixtures.faces import analysis_of, face_of, scene_of
from tests.fixtures.faces import photo_of as picture_of

SKIN = np.array([200.0, 160.0, 140.0])


def lit(crop: np.ndarray, light: np.ndarray | float, tone: Tone | None = None) -> np.ndarray:
    """The crop ``[96, 96, 3]`` with this light added to its luminance, in colour."""
    face = replace(analysis_of(picture_of(crop @ LUMA), face_of(), tone=tone), crop=crop.astype(np.float32))
    added = np.broadcast_to(np.asarray(light, np.float32), (96, 96)).copy()
    scene = scene_of(face, added, added)
    composite = Light()(scene, Composite(np.zeros((96, 96, 2), np.float32), added))
    assert composite.change.shape == (96, 96, 3) and np.isfinite(composite.change).all()
    return crop + composite.change


def skin() -> np.ndarray:
    return np.tile(SKIN, (96, 96, 1)).astype(np.float32)


@pytest.mark.parametrize("light", [-60.0, -10.0, 15.0])
def test_light_is_what_it_was_meant_to_be_and_keeps_the_hue(light):
    after = lit(skin(), light)
    np.testing.assert_allclose(after @ LUMA, SKIN @ LUMA + light, atol=1)
    colour = after[0, 0]
    assert colour[0] > colour[1] > colour[2]
    warmth = np.ptp(colour) / (colour @ LUMA) / (np.ptp(SKIN) / (SKIN @ LUMA))
    assert warmth > 1.03 if light < -30 else warmth == pytest.approx(1, abs=0.15)


def test_a_crease_that_goes_leaves_no_glow_and_a_gleam_no_grey_line():
    crop = skin()
    crop[:, 48] = (150.0, 95.0, 70.0)
    after = lit(crop, SKIN @ LUMA - crop @ LUMA)
    np.testing.assert_allclose(after[:, 48], np.tile(SKIN, (96, 1)), atol=0.15 * np.ptp(SKIN))
    gleam = skin()
    gleam[:, 48] = 235.0
    dulled = lit(gleam, SKIN @ LUMA - gleam @ LUMA)
    assert np.ptp(dulled[20:76, 48], axis=-1).min() > 0.65 * np.ptp(SKIN)


def test_an_iris_that_is_darkened_keeps_its_colour_and_a_gleam_does_not():
    iris, gleam = np.array([90.0, 105.0, 120.0]), np.array([240.0, 238.0, 238.0])
    yy, xx = np.mgrid[:96, :96]
    inside = np.hypot(yy - 48, xx - 48) < 4
    for spot, light, kept in ((iris, -40.0, True), (gleam, -60.0, False)):
        crop = skin()
        crop[inside] = spot
        added = cv2.GaussianBlur(np.where(inside, light, 0).astype(np.float32), (0, 0), 0.7)
        red, _, blue = lit(crop, added)[48, 48]
        assert (blue > red) == kept


def test_a_grey_photograph_stays_grey():
    grey = np.tile(np.float32(140), (96, 96, 3))
    assert np.ptp(lit(grey, np.random.default_rng(0).normal(0, 30, (96, 96))), axis=-1).max() < 1e-3


def test_a_dark_face_changes_at_its_own_tones():
    """A step at lifted tones is a smaller one at the photograph's, and nothing leaves the range."""
    tone = Tone(0.4)
    dark = np.tile(np.array([60.0, 40, 30], np.float32), (96, 96, 1))
    level = float(dark[0, 0] @ LUMA)
    after = lit(dark, -40.0, tone) @ LUMA
    np.testing.assert_allclose(after, tone.lower(tone.lift(np.float64(level)) - 40), atol=1)
    assert level - 40 < after.mean() < level
    assert lit(dark, 0.0, tone) == pytest.approx(dark, abs=1e-2)
    assert 0 <= (lit(dark, -250.0, tone) @ LUMA).min() and (lit(dark, 400.0, tone) @ LUMA).max() <= 255.01

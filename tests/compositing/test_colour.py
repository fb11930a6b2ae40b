"""The change of colour that comes with a change of luminance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emoedit.compositing.colour import Colour
from emoedit.compositing.composite import Composite
from emoedit.faces.tone import LUMA
from tests.fixtures.faces import analysis_of, face_of, lips, photo_of, scene_of

REDDER = np.float32([12, -4, -6])


def changed(part: Colour, by: np.ndarray, flow: float = 0.0):
    """The scene of a drawing that changes by a colour, and the composite of one part."""
    crop = np.repeat(lips(48, 72)[..., None], 3, -1)
    scene = scene_of(analysis_of(photo_of(lips(48, 72)), face_of()), crop, crop + by, (face_of(), face_of()))
    empty = Composite.empty(96)
    return scene, part(scene, replace(empty, change=empty.change + 5, flow=empty.flow + np.float32(flow)))


def test_colour_is_added_and_luminance_stays_what_the_parts_before_made_it():
    _, made = changed(Colour(), REDDER)
    assert made.change.shape == (96, 96, 3) and np.allclose(made.change @ LUMA, 5, atol=1e-3)
    assert made.change[48, 48] - made.change[48, 48] @ LUMA == pytest.approx(REDDER - REDDER @ LUMA, abs=1e-3)


def test_colours_that_only_move_are_no_change():
    crop = np.zeros((96, 96, 3), np.float32) + [90, 60, 50]
    crop[:, 50:] = [60, 60, 90]
    scene = scene_of(analysis_of(photo_of(lips(48, 72)), face_of()), crop, np.roll(crop, -4, 1), (face_of(), face_of()))
    flow = np.zeros((96, 96, 2), np.float32)
    flow[..., 0] = 4
    made = Colour()(scene, replace(Composite.empty(96), flow=flow))
    assert np.abs(made.change[:, 8:-8]).max() < 0.01


def test_a_drawn_mouth_keeps_the_colour_of_its_lips_and_colours_are_bounded():
    scene, made = changed(Colour(mouth=0.25, face=1.0, most=8.0), REDDER)
    red, masks = made.change[..., 0] - 5, scene.face.masks
    inside = masks.mouth > 0.9999
    assert inside.any() and red[inside] == pytest.approx(0.25 * 8 * masks.face[inside], abs=1e-3)
    assert np.abs(red[masks.face == 0]).max() == 0 and red.max() == pytest.approx(8, abs=1e-3)

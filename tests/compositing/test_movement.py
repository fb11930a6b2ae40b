"""Flow: landmarks first, optical flow for the rest; no folds, and no movement between edges."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from emoedit.compositing.composite import Composite
from emoedit.compositing.movement import SIDE, KnownMovement, Movement
from emoedit.faces.layout import LIPS
from emoedit.faces.masks import face_masks
from emoedit.faces.tone import LUMA
from emoedit.faces.warp import jacobian, landmark_flow, sample
from emoedit.types import Change, EditError
from tests.fixtures.faces import (
    LEVEL,
    SPEC,
    analysis_of,
    face_of,
    lips,
    near,
    photo_of,
    points_of,
    scene_of,
    shown,
)

MASKS = face_masks(SPEC)
SETTINGS = {"reach": 0.07, "noise": 0.2}


def blob(shift: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:96, :96].astype(np.float32)
    waves = 30 * np.sin(x / 5) * np.cos(y / 6) + 20 * np.sin((x + y) / 9)
    return (120 + waves + 60 * np.exp(-((x - 48 - shift) ** 2 + (y - 60) ** 2) / 60)).astype(np.float32)


def moved(before: np.ndarray, after: np.ndarray, *points: np.ndarray, part: Movement = Movement()) -> Composite:
    face = analysis_of(photo_of(before if before.ndim == 2 else before @ LUMA), points[0] if points else face_of())
    return part(scene_of(face, before, after, points or None), Composite.empty(96))


def test_flow_finds_a_known_movement_and_the_light_it_does_not_explain():
    y, x = np.mgrid[:96, :96].astype(np.float32)
    true = np.stack([2.0 * np.exp(-((x - 48) ** 2 + (y - 55) ** 2) / 300), np.zeros_like(x)], -1).astype(np.float32)
    before = blob()
    after = cv2.remap(before, x + true[..., 0], y + true[..., 1], cv2.INTER_CUBIC)
    centre = np.s_[45:65, 38:58]
    flow = Movement().find(before, after, MASKS.face)
    assert np.abs(flow - true)[centre].mean() < 0.35
    assert np.abs(after - sample(before, flow))[centre].mean() < 0.35 * np.abs(after - before)[centre].mean()


def test_flow_never_folds_and_is_still_outside_the_mask():
    rng = np.random.default_rng(0)
    for _ in range(3):  # two unrelated pictures: the worst a flow can be asked for
        a, b = (cv2.GaussianBlur(rng.random((96, 96)).astype(np.float32) * 255, (0, 0), 2) for _ in range(2))
        flow = moved(a, b, face_of(), points_of(48, 66, apart=9)).flow
        assert jacobian(flow).min() > 0
        assert np.abs(flow[MASKS.face == 0]).max() < 0.7  # reduced from twice the side, which bleeds half a pixel


def test_light_that_changes_on_a_cheek_is_no_movement():
    """An even face whose light moves, beside a line that moves by 2 pixels."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)

    def drawn(light: float, line: float) -> np.ndarray:
        return 150 + 6 * np.cos((x - light) / 30) - 90 * np.exp(-(((y - line) / 3) ** 2))

    flow = Movement().find(drawn(60, 150), drawn(78, 152), np.ones((SIDE, SIDE), np.float32))
    cheek, edge = flow[30:90, 40:150], flow[151:154, 40:150]
    assert np.linalg.norm(cheek, axis=-1).mean() < 1.0
    assert edge[..., 1].mean() == pytest.approx(-2, abs=0.4)


def test_flow_finds_the_rest_of_what_landmarks_say():
    """Lips that rise by more than their height, in other light: with landmarks that are a pixel off it finds the true
    movement better than alone."""
    before, after = lips(48, 74), lips(48, 65, light=25)
    start = landmark_flow(points_of(48, 74), points_of(49, 66), LIPS, 96, SIDE, **SETTINGS)
    error = {}
    for name, known in (("alone", None), ("landmarks", start)):
        flow = Movement().find(before, after, MASKS.face, known)
        error[name] = float(np.abs(flow[62:69, 38:59] - [0.0, 9.0]).mean())
    assert error["landmarks"] < 0.8 * error["alone"] < 1.0


def test_flow_goes_no_further_than_landmarks_may_be_off():
    """What looks like the lip, but is elsewhere: where lips are sure to have stayed, it is not followed."""
    before, after = lips(48, 74), lips(48, 65)
    flow, sure = landmark_flow(points_of(48, 74), points_of(48, 74), LIPS, 96, SIDE, **SETTINGS)
    guided = Movement().find(before, after, MASKS.face, (flow, sure))[68:74, 38:59, 1]
    free = Movement().find(before, after, MASKS.face, (flow, np.zeros_like(sure)))[68:74, 38:59, 1]
    assert np.abs(guided).mean() < 2.5 and np.abs(free).mean() > 1.5 * np.abs(guided).mean()


def test_a_start_outside_the_mask_moves_nothing():
    before = lips(48, 74)
    start = np.full((SIDE, SIDE, 2), 5.0, np.float32), np.zeros((SIDE, SIDE), np.float32)
    flow = Movement().find(before, before, MASKS.face, start)
    assert np.abs(flow[MASKS.face == 0]).max() < 0.3
    assert np.abs(sample(before, flow) - before)[MASKS.face > 0.9].mean() < 1.0


def test_lips_that_part_go_their_own_ways():
    """In one flow both lips would be averaged; in two, each goes the whole way, and the jaw goes with the lower one."""
    after = cv2.GaussianBlur(lips(48, 72), (0, 0), 1.5)
    cv2.ellipse(after, (48, 72), (11, 5), 0, 0, 360, 0.3 * LEVEL, -1)
    flow = moved(lips(48, 72), after, face_of(), points_of(48, 72, apart=9)).flow
    assert flow[64:67, 48, 1].mean() > 2.0 and flow[78:81, 48, 1].mean() < -2.0
    assert jacobian(flow).min() > 0


def test_lids_that_open_take_the_photographs_eye_along():
    points = face_of(), face_of(open_by=3.0, raised=2.0)
    flow = moved(lips(48, 72), lips(48, 72) + 1, *points).flow
    for x in (34, 62):
        assert flow[34, x, 1] > 1.0 and abs(flow[52, x, 1]) < 0.7


def test_lips_take_their_colour_along():
    before, after = lips(48, 74), lips(48, 65, light=25)
    # Skin everywhere, of the crop's light; lips redder than it.
    skin, red = np.array([1.3, 0.9, 0.75]), np.array([1.55, 0.8, 0.8])
    skin, red = skin / (skin @ LUMA), red / (red @ LUMA)
    share = np.clip((LEVEL - photo_of(before)[..., :1].astype(float)) / 40, 0, 1)
    photo = (photo_of(before) * (skin + (red - skin) * share)).clip(0, 255).round().astype(np.uint8)
    points = points_of(48, 74), points_of(48, 65)
    result = shown(photo, scene_of(analysis_of(photo, points[0]), before, after, points))
    rgb = np.stack([near(result, 48, height, 0)[0, 0] for height in range(63, 68)])
    hue = (rgb[:, 1] - rgb[:, 2]) / (rgb[:, 0] - rgb[:, 2])  # whatever the light: 0 of these lips, .27 of the skin
    assert hue.max() < 0.1


def test_the_nose_is_held_and_shows_nothing_twice():
    """A drawing that moves the whole face down by two pixels moves cheeks so far and the tip of the nose less."""
    before = blob()
    after = np.roll(before, 2, 0)
    points = face_of(), face_of() + [0, 2]
    held, free = (moved(before, after, *points, part=Movement(held=h)) for h in (0.8, 0.0))
    nose, cheeks = MASKS.nose > 0.95, (MASKS.face > 0.9) & (MASKS.nose < 0.02) & (MASKS.mouth < 0.02)
    assert np.abs(held.flow[nose]).mean() < 0.4 * np.abs(free.flow[nose]).mean()
    np.testing.assert_allclose(held.flow[cheeks], free.flow[cheeks], atol=0.3)
    assert np.abs(held.change[nose]).mean() < 0.4 * np.abs(free.change[nose]).mean() + 0.5


def test_of_a_drawing_in_colour_it_takes_the_change_of_luminance():
    crop = np.repeat(blob()[..., None], 3, -1)
    redder = crop + np.float32([12, 0, -6]) * MASKS.face[..., None]
    change = moved(crop, redder, part=replace(Movement(), held=0.0)).change
    inside = MASKS.face > 0.95
    assert change.shape == (96, 96) and change[inside].mean() == pytest.approx(float([12, 0, -6] @ LUMA), abs=1.5)


def test_a_movement_that_is_known_is_taken_as_it_is():
    flow, light = np.ones((96, 96, 2), np.float32), np.full((96, 96), 7, np.float32)
    face = analysis_of(photo_of(lips(48, 72)), face_of())
    scene = scene_of(face, lips(48, 72), lips(48, 72), known=Change(flow, light))
    composite = KnownMovement()(scene, Composite.empty(96))
    assert composite.flow is flow and composite.change is light
    with pytest.raises(EditError, match="leave it out"):
        KnownMovement()(scene_of(face, lips(48, 72), lips(48, 72)), Composite.empty(96))

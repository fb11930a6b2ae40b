"""Eyes between two drawings: landmarks lead lids and brows, and irises stay the photograph's own."""

from __future__ import annotations

import cv2
import numpy as np
from emoedit.compositing.paste import paste
from emoedit.compositing.redraw import find_movement

from emoedit.compositing.eyes import beside_own_eyes, eye_flow
from emoedit.faces.align import FFHQ_POINTS, align
from emoedit.faces.masks import LUMA, regions
from tests.fixtures.faces import EYES, LEVEL, SPEC, drawn, face_of


def eyes(iris: float, white: float = LEVEL + 40) -> np.ndarray:
    """A crop of skin with two eyes."""
    crop = np.full((96, 96), LEVEL, np.float32)
    for x, y in EYES:
        centre = (round(x), round(y))
        cv2.ellipse(crop, centre, (6, 3), 0, 0, 360, white, -1)
        cv2.circle(crop, centre, 2, iris, -1)
    return cv2.GaussianBlur(crop, (0, 0), 0.7)


def test_lids_and_brows_move_as_their_landmarks_and_nothing_far_from_them():
    before, after = face_of(), face_of(raised=4.0)
    flow, near = eye_flow(before, after, 96, 96)
    assert flow.dtype == near.dtype == np.float32
    for x in (34, 62):
        assert flow[27, x, 1] > 3.0 and abs(flow[27, x, 0]) < 0.3 and near[27, x] > 0.8  # from below: they rise
    assert np.abs(flow[64:]).max() < 0.1 and near[70:].max() < 0.1
    assert np.abs(eye_flow(before, before, 96, 192)[0]).max() == 0


def test_the_share_of_light():
    still, raised = np.zeros((96, 96, 2), np.float32), np.zeros((96, 96, 2), np.float32)
    raised[..., 1] = 6.0
    face = eyes(40.0)
    share, higher = (beside_own_eyes(face_of(), face_of(), flow, face) for flow in (still, raised))
    assert share.dtype == np.float32 and share.shape == (96, 96)
    for x, y in EYES:
        iris, white = share[round(y), round(x)], share[round(y), [round(x) - 4, round(x) + 4]]
        assert iris < 0.3 and white.min() > 0.6
    assert share[40, 48] > 0.95 and share[72, 48] == 1
    # Brows are where they were, moved; irises are where landmarks see lids.
    assert all(share[32, x] < 0.25 < 0.8 < share[24, x] for x in (34, 62))
    assert all(higher[26, x] < 0.25 and higher[40, x] < 0.3 for x in (34, 62)) and share[32, 48] > 0.8


def test_eyes_without_contrast_have_no_iris():
    still, flat = np.zeros((96, 96, 2), np.float32), np.full((96, 96), LEVEL, np.float32)
    shut = face_of(open_by=-5.0)
    shut[36:48, 1] = np.repeat([y for _, y in EYES], 6)
    for points in (face_of(), shut):
        share = beside_own_eyes(points, points, still, flat)
        assert np.isfinite(share).all() and all(share[round(y), round(x)] > 0.9 for x, y in EYES)


def test_an_iris_stays_as_it_is_where_a_drawing_smears_it():
    """The drawing has a pale iris and a glaring white; a shadow on a cheek is drawn as ever."""
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    before, after = eyes(40.0), eyes(120.0, LEVEL + 80)
    after[54:64, 24:34] -= 30
    large = cv2.warpAffine(before, alignment.inverse, (300, 300), borderValue=LEVEL)
    photo = np.repeat(large[..., None], 3, -1).clip(0, 255).round().astype(np.uint8)
    points, mouths = (face_of(), face_of()), (drawn(), drawn())
    shown = paste(photo, alignment, [before, after], where, mode="mouth", points=points, mouths=mouths)
    large_drawing = paste(photo, alignment, [before, after], where, mode="mouth", points=points)
    light, drawn_light = (alignment.crop((p @ LUMA - photo @ LUMA).astype(np.float32)) for p in (shown, large_drawing))
    for x, y in EYES:
        iris = slice(round(y) - 1, round(y) + 2), slice(round(x) - 1, round(x) + 2)
        assert np.abs(light[iris]).mean() < 0.6 * np.abs(drawn_light[iris]).mean()
        white = slice(round(y) - 1, round(y) + 2), slice(round(x) + 4, round(x) + 6)
        assert light[white].mean() > 0.6 * drawn_light[white].mean() > 10
    assert light[57:61, 27:31].mean() < -15


def test_a_brow_keeps_its_hairs_where_a_drawing_fades_it():
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    before, after = eyes(40.0), eyes(40.0)
    before[30:34, 25:44] -= 70
    after[30:34, 25:44] -= 30
    large = cv2.warpAffine(before, alignment.inverse, (300, 300), borderValue=LEVEL)
    photo = np.repeat(large[..., None], 3, -1).clip(0, 255).round().astype(np.uint8)
    shown = [
        paste(photo, alignment, [before, after], where, mode="redraw", points=(face_of(), face_of()), mouths=mouths)
        for mouths in ((drawn(), drawn()), None)
    ]
    own, faded = (alignment.crop((p @ LUMA - photo @ LUMA).astype(np.float32))[31:33, 28:41].mean() for p in shown)
    assert faded > 20 and abs(own) < 10


def test_lids_that_open_take_the_photographs_eye_along():
    before = eyes(40.0)
    after, points = eyes(40.0), (face_of(), face_of(open_by=3.0, raised=2.0))
    movement = find_movement(before, after, regions(SPEC), points, (drawn(), drawn()))
    led, _ = eye_flow(*points, 96, 96)
    for x, y in EYES:
        assert movement.flow[round(y) - 6, round(x), 1] > 1.0
        assert led[round(y) - 6, round(x), 1] > 1.5 and abs(led[round(y) + 8, round(x), 1]) < 0.5

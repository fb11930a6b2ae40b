"""What is known of a face: its colours, its blur, its darkest places, the white of its eyes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from emoedit.faces.align import align
from emoedit.faces.analysis import Finders, analyse, edge_blur, eye_white
from emoedit.faces.detect import FaceDetector
from emoedit.faces.masks import face_masks
from emoedit.faces.tone import LUMA, Tone
from tests.fixtures.faces import EYES, LEVEL, SPEC, analysis_of, face_of, lips, photo_of


@pytest.mark.parametrize("sigma", [1.5, 2.0, 4.0])
def test_the_blur_of_a_photograph_is_found(sigma: float):
    picture = np.zeros((200, 200), np.float32)
    for n, x in enumerate(range(20, 180, 40)):
        cv2.circle(picture, (x, 60 + 25 * n), 14, 150.0, -1, cv2.LINE_AA)
    found = edge_blur(cv2.GaussianBlur(picture, (0, 0), sigma), np.ones(picture.shape, bool))
    assert found == pytest.approx(sigma, rel=0.3)


def test_where_there_is_nothing_to_tell_by():
    flat = np.full((50, 50), 90, np.float32)
    assert edge_blur(flat, np.ones(flat.shape, bool)) == 0 == edge_blur(flat, np.zeros(flat.shape, bool))


def test_the_white_of_an_eye_and_skin_where_both_are_shut():
    crop = np.tile(np.array([200, 150, 130], np.float32), (96, 96, 1))
    for x, y in EYES:
        cv2.ellipse(crop, (round(x), round(y)), (6, 3), 0, 0, 360, (220, 215, 210), -1)
        cv2.circle(crop, (round(x), round(y)), 2, (40, 30, 20), -1)
    skin = np.array([200.0, 150, 130])
    np.testing.assert_allclose(eye_white(crop, face_of(), skin), [220, 215, 210], atol=3)
    shut = face_of()
    shut[36:48, 1] = np.repeat([y for _, y in EYES], 6)
    lids = np.tile(skin.astype(np.float32), (96, 96, 1))
    np.testing.assert_allclose(eye_white(lids, shut, skin), skin)
    nowhere = face_of() - 500.0  # lids outside the crop
    np.testing.assert_array_equal(eye_white(crop, nowhere, skin), skin)


def test_a_drawn_face_is_known():
    hue = np.array([1.3, 0.9, 0.75])
    photo = photo_of(lips(48, 72), hue)
    kept = photo.copy()
    face = analysis_of(photo, face_of())
    assert np.array_equal(photo, kept) and face.crop.shape == (96, 96, 3) and face.crop.dtype == np.float32
    np.testing.assert_allclose(face.skin, LEVEL * hue / (hue @ LUMA), atol=2)
    assert face.skin_level == pytest.approx(LEVEL, abs=2) and face.black < 0.7 * LEVEL
    assert face.opening is None and face.pupil_distance == pytest.approx(28, abs=0.1)
    assert analysis_of(cv2.GaussianBlur(photo, (0, 0), 4), face_of()).blur > 1.3 * face.blur


def test_a_turned_head_keeps_a_measure():
    points = face_of()
    points[36:42] += [26.0, 0]  # eyes that nearly meet
    assert analysis_of(photo_of(lips(48, 72)), points).pupil_distance == pytest.approx(0.2 * 96)


def test_a_portrait_is_known(astronaut):
    face = FaceDetector()(astronaut)[0]
    found = analyse(
        astronaut,
        face,
        align(face.landmarks, SPEC),
        face_masks(SPEC),
        Tone(),
        replace(Finders.on("cpu"), occlusion=lambda *_: np.zeros((96, 96), np.float32)),
    )
    assert found.opening is not None  # she smiles
    assert found.skin[0] > found.skin[1] > found.skin[2] and 100 < found.skin_level < 230
    assert np.ptp(found.white) < np.ptp(found.skin) and found.black < 40 < found.skin_level < found.brightest

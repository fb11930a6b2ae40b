"""Finding faces: in any size and place, ordered by size, and a typed error where there is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.faces.detect import Face, FaceDetector
from emoedit.types import NoFaceError


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


def test_detection_finds_the_portrait_in_any_size_and_place(detector, astronaut):
    (face,) = detector(astronaut)[:1]
    assert face.confidence > 0.99
    x0, y0, x1, y1 = face.box
    assert 160 < x0 < x1 < 290
    assert 40 < y0 < y1 < 220
    assert abs(face.yaw) < 0.35
    eyes, mouth = face.landmarks[:2], face.landmarks[3:]
    assert eyes[0, 0] < eyes[1, 0]
    assert eyes[:, 1].max() < mouth[:, 1].min()
    large = cv2.resize(astronaut, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(detector(large)[0].landmarks / 4, face.landmarks, atol=4)


def test_ten_faces_are_ordered_by_size_and_chosen_by_index(detector, astronaut):
    head = astronaut[0:260, 90:350]
    canvas = np.full((620, 1400, 3), 128, np.uint8)
    for n in range(10):
        side = 250 - 12 * n
        small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
        top, left = (n // 5) * 300 + 10, (n % 5) * 275 + 10
        canvas[top : top + side, left : left + side] = small
    faces = detector.choose(canvas, "all")
    assert len(faces) == 10
    assert all(a.area >= b.area for a, b in zip(faces, faces[1:], strict=False))
    assert detector.choose(canvas, "3")[0].box == faces[3].box
    assert len(detector.choose(canvas)) == 1
    for bad in (10, -1, "biggest"):
        with pytest.raises(NoFaceError):
            detector.choose(canvas, bad)


@pytest.mark.parametrize("shape", [(1, 1), (15, 400), (40, 40), (300, 300)])
def test_no_face_is_a_typed_error(detector, shape):
    with pytest.raises(NoFaceError, match="no face"):
        detector.choose(np.full((*shape, 3), 90, np.uint8))


def test_yaw_is_zero_from_the_front_and_does_not_turn_with_the_picture():
    points = np.array([[-1.0, 0], [1, 0], [0, 1], [-0.8, 2], [0.8, 2]])
    assert Face((0, 0, 1, 1), points, 1.0).yaw == pytest.approx(0, abs=1e-9)
    points[2, 0] = 0.6
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    assert Face((0, 0, 1, 1), points, 1.0).yaw == pytest.approx(0.3)
    assert Face((0, 0, 1, 1), points @ turn.T * 7 + 3, 1.0).yaw == pytest.approx(0.3)

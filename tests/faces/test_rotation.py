"""Photographs that lie on their side: faces are found, and told in the photograph as it lies."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from emoedit.faces.detect import Face, FaceDetector


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def turned(points: np.ndarray, turns: int, side: int) -> np.ndarray:
    """Points of a square picture in ``np.rot90(picture, turns)``."""
    for _ in range(turns):
        points = np.stack([points[:, 1], side - 1 - points[:, 0]], -1)
    return points


def test_a_face_is_found_however_the_photograph_lies(detector, astronaut):
    (upright,) = detector(astronaut)[:1]
    eyes = np.hypot(*(upright.landmarks[1] - upright.landmarks[0]))
    assert upright.down > 0.95
    for turns in (1, 2, 3):
        picture = np.ascontiguousarray(np.rot90(astronaut, turns))
        before = picture.copy()
        found = detector.choose(picture)[0]
        expected = turned(upright.landmarks, turns, len(astronaut))
        # In the order of an upright face, so that its crop is upright: the person's right eye stays first.
        assert np.abs(found.landmarks - expected).max() < 0.1 * eyes
        assert found.box[0] < found.landmarks[:, 0].min() and found.landmarks[:, 0].max() < found.box[2]
        assert found.area == pytest.approx(upright.area, rel=0.15)
        assert np.array_equal(picture, before)


def test_a_sure_upright_face_costs_one_look(detector, astronaut, monkeypatch):
    looks = []
    face = Face((10, 10, 90, 110), np.array([[30.0, 40], [70, 40], [50, 60], [35, 85], [65, 85]]), 0.999)
    monkeypatch.setattr(FaceDetector, "_upright", lambda self, rgb, size: looks.append(rgb.shape) or [face])
    assert detector(astronaut[:200, :100]) == [face] and looks == [(200, 100, 3)]


def test_the_surest_turn_is_taken(detector, astronaut, monkeypatch):
    """A lying face is sometimes told as another one, with little confidence or with its mouth beside its eyes."""
    points = np.array([[30.0, 40], [70, 40], [50, 60], [35, 85], [65, 85]])
    answers = iter([[Face((0, 0, 9, 9), points, 0.97)], [], [Face((10, 10, 90, 110), points, 0.999)], []])
    monkeypatch.setattr(FaceDetector, "_upright", lambda self, rgb, size: next(answers))
    (found,) = detector(astronaut[:200, :100])
    assert np.array_equal(found.landmarks, np.stack([points[:, 1], 199 - points[:, 0]], -1))
    lying = Face((0, 0, 9, 9), points[:, ::-1].copy(), 0.9999)
    answers = iter([[lying], [], [], []])
    assert detector(astronaut[:200, :100]) == [lying]  # nothing better was found


def test_one_detector_serves_many_threads(detector, astronaut):
    """Each call has a smallest face of its own."""
    pictures = [astronaut[:256, 96:352], astronaut[40:200, 150:310]] * 2
    alone = [[face.box for face in detector(picture)] for picture in pictures[:2]] * 2
    found: dict[int, list] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: [face.box for face in detector(pictures[n])]}))
        for n in range(len(pictures))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(len(pictures))] == alone


def test_mps_detects_on_the_cpu():
    assert FaceDetector("mps").device == "cpu" and FaceDetector("cuda:1").device == "cuda:1"

"""What is in front of a face stays as it is, and a hidden mouth is said to be hidden."""

from __future__ import annotations

import numpy as np

from emoedit.compositing.compositors import compositor
from emoedit.compositing.front import MOUTH_HIDDEN
from tests.fixtures.faces import analysis_of, face_of, likely_teeth, lips, near, photo_of, points_of, scene_of

POINTS = face_of(), face_of()
POINTS[1][48:68] = points_of(48, 72, apart=6)[48:68]
ROW = (36, 68, 60, 75)


def edited(hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """A photograph, the same made to smile and lit, and what is said of it."""
    photo = photo_of(lips(48, 72), np.array([1.3, 0.9, 0.75]))
    after = lips(48, 72, light=20) + 12
    scene = scene_of(analysis_of(photo, POINTS[0], hidden=hidden), lips(48, 72), after, POINTS, teeth=likely_teeth(ROW))
    return photo, *compositor("drawn")(photo, scene)


def test_a_hand_at_the_cheek_stays_and_the_mouth_is_edited():
    hidden = np.zeros((96, 96), np.float32)
    hidden[45:65, 15:35] = 1
    photo, result, notes = edited(hidden)
    assert not notes
    assert np.array_equal(near(result, 25, 55), near(photo, 25, 55))
    assert np.abs(near(result, 68, 55) - near(photo, 68, 55)).mean() > 3
    assert np.abs(near(result, 48, 71) - near(photo, 48, 71)).mean() > 10


def test_a_hidden_mouth_stays_and_is_told_of_and_the_rest_is_edited():
    hidden = np.zeros((96, 96), np.float32)
    hidden[60:90, 28:68] = 1
    photo, result, notes = edited(hidden)
    assert notes == (MOUTH_HIDDEN,)
    assert np.array_equal(near(result, 48, 72, 4), near(photo, 48, 72, 4))
    assert np.abs(near(result, 48, 45) - near(photo, 48, 45)).mean() > 2


def test_what_is_surer_is_kept_more():
    changes = []
    for sure in (0.0, 0.5, 1.0):
        photo, result, _ = edited(np.full((96, 96), sure, np.float32) * (np.arange(96) < 40))
        changes.append(np.abs(near(result, 25, 55) - near(photo, 25, 55)).mean())
    assert changes[0] > changes[1] >= changes[2] == 0

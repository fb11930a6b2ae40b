"""Eyes: irises and brows keep the photograph's own light, whites take the drawing's."""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.compositing.composite import Composite
from emoedit.compositing.eyes import Eyes
from tests.fixtures.faces import EYES, LEVEL, analysis_of, face_of, photo_of, scene_of


def eyes(iris: float, white: float = LEVEL + 40) -> np.ndarray:
    """A crop of skin with two eyes."""
    crop = np.full((96, 96), LEVEL, np.float32)
    for x, y in EYES:
        centre = (round(x), round(y))
        cv2.ellipse(crop, centre, (6, 3), 0, 0, 360, white, -1)
        cv2.circle(crop, centre, 2, iris, -1)
    return cv2.GaussianBlur(crop, (0, 0), 0.7)


def share(before: np.ndarray, points: np.ndarray, up: float = 0.0) -> np.ndarray:
    """How much of a change of light is left, ``[96, 96]``, where everything moves up so far."""
    flow = np.zeros((96, 96, 2), np.float32)
    flow[..., 1] = up
    scene = scene_of(analysis_of(photo_of(before), points), before, before + 1)
    return Eyes(kept=1.0)(scene, Composite(flow, np.ones((96, 96), np.float32))).change


def test_irises_and_brows_keep_their_light_and_the_rest_does_not():
    still, higher = share(eyes(40.0), face_of()), share(eyes(40.0), face_of(), up=6.0)
    for x, y in EYES:
        iris, white = still[round(y), round(x)], still[round(y), [round(x) - 4, round(x) + 4]]
        assert iris < 0.3 and white.min() > 0.5
    assert still[40, 48] > 0.95 and still[72, 48] == 1 and still[32, 48] > 0.8
    # Brows are where they were, moved.
    assert all(still[32, x] < 0.25 < 0.8 < still[24, x] for x in (34, 62))
    assert all(higher[26, x] < 0.25 for x in (34, 62))


def test_eyes_without_contrast_and_eyes_that_are_shut_have_no_iris():
    flat = np.full((96, 96), LEVEL, np.float32)
    shut = face_of(open_by=-5.0)
    shut[36:48, 1] = np.repeat([y for _, y in EYES], 6)
    for points in (face_of(), shut):
        left = share(flat, points)
        assert np.isfinite(left).all() and all(left[round(y), round(x)] > 0.9 for x, y in EYES)


def test_an_iris_stays_where_a_drawing_smears_it_and_a_brow_where_it_fades():
    """By the whole composite: the drawing has a pale iris, a glaring white and a faint brow."""
    before, after = eyes(40.0), eyes(120.0, LEVEL + 80)
    before[30:34, 25:44] -= 70
    after[30:34, 25:44] -= 30
    change = (after - before).astype(np.float32)
    scene = scene_of(analysis_of(photo_of(before), face_of()), before, after)
    left = Eyes()(scene, Composite(np.zeros((96, 96, 2), np.float32), change)).change
    for x, y in EYES:
        iris = slice(round(y) - 1, round(y) + 2), slice(round(x) - 1, round(x) + 2)
        assert np.abs(left[iris]).mean() < 0.6 * np.abs(change[iris]).mean()
        white = slice(round(y) - 1, round(y) + 2), slice(round(x) + 4, round(x) + 6)
        assert left[white].mean() > 0.6 * change[white].mean() > 10
    assert np.abs(left[31:33, 28:41]).mean() < 0.4 * np.abs(change[31:33, 28:41]).mean()

"""Movements of pixels: sampling, folds, and flows from landmarks."""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.faces.layout import BROWS, EYES, LIPS
from emoedit.faces.warp import jacobian, landmark_flow, pixel_grid, sample, unfold
from tests.fixtures.faces import face_of, points_of

UPPER_FACE = [i for part in (*BROWS, *EYES) for i in range(part.start, part.stop)]
SETTINGS = {"reach": 0.07, "noise": 0.2}


def test_a_picture_is_sampled_where_the_flow_points():
    picture = np.random.default_rng(0).uniform(0, 255, (40, 40)).astype(np.float32)
    flow = np.broadcast_to(np.array([3.0, -2.0], np.float32), (40, 40, 2)).copy()
    np.testing.assert_allclose(sample(picture, flow)[5:-5, 5:-5], np.roll(picture, (2, -3), (0, 1))[5:-5, 5:-5])
    assert sample(np.dstack([picture] * 3), flow).shape == (40, 40, 3)


def test_a_flow_that_folds_is_unfolded_and_one_that_does_not_is_left_alone():
    rng = np.random.default_rng(0)
    wild = cv2.GaussianBlur(rng.normal(0, 40, (96, 96, 2)).astype(np.float32), (0, 0), 2)
    assert jacobian(wild).min() < 0 < jacobian(unfold(wild)).min()
    gentle = cv2.GaussianBlur(rng.normal(0, 1, (96, 96, 2)).astype(np.float32), (0, 0), 3)
    assert jacobian(gentle).min() > 0.5 and unfold(gentle) is gentle
    # A flow that stretches everything by a tenth.
    x, y = pixel_grid(96, 96)
    np.testing.assert_allclose(jacobian(np.stack([0.1 * x, 0.1 * y], -1)), 1.21, atol=1e-6)


def test_lips_move_as_their_landmarks_and_nothing_far_from_them():
    before, after = points_of(48, 72), points_of(51, 66)
    flow, near = landmark_flow(before, after, LIPS, 96, 96, **SETTINGS)
    assert flow.dtype == near.dtype == np.float32
    np.testing.assert_allclose(flow[66, 40:62], np.tile([-3.0, 6.0], (22, 1)), atol=0.3)
    assert np.abs(flow[:20]).max() < 1e-3 and near[:20].max() < 1e-3 and near[66, 40:62].min() > 0.8
    # The same movement, in the pixels of a larger picture.
    large, _ = landmark_flow(before, after, LIPS, 96, 192, **SETTINGS)
    np.testing.assert_allclose(cv2.resize(large, (96, 96), interpolation=cv2.INTER_AREA), 2 * flow, atol=0.08)


def test_a_landmark_that_errs_is_corrected_by_the_others():
    before, after = points_of(48, 72), points_of(48, 68)
    after[57] += [0.0, 3.0]
    assert np.abs(landmark_flow(before, after, LIPS, 96, 96, **SETTINGS)[0][63:74, 36:60, 1] - 4).max() < 1.5


def test_lids_and_brows_move_as_their_landmarks_and_nothing_far_from_them():
    before, after = face_of(), face_of(raised=4.0)
    flow, near = landmark_flow(before, after, UPPER_FACE, 96, 96, reach=0.05, noise=0.3)
    for x in (34, 62):
        assert flow[27, x, 1] > 3.0 and abs(flow[27, x, 0]) < 0.3 and near[27, x] > 0.8  # from below: they rise
    assert np.abs(flow[64:]).max() < 0.1 and near[70:].max() < 0.1
    assert np.abs(landmark_flow(before, before, UPPER_FACE, 96, 192, reach=0.05, noise=0.3)[0]).max() == 0

"""Landmarks that move and the pixels that go with them, on a drawn face."""

from __future__ import annotations

import numpy as np
import pytest

from emoedit.faces.layout import EYES, LOWER_MIDDLE, PAIRS
from emoedit.faces.masks import face_masks
from emoedit.faces.moving import crease_light, face_flow, possible
from emoedit.types import CropSpec

SPEC = CropSpec(96, "stable", 0.66, 0.074)
MASK = face_masks(SPEC).face


def face() -> np.ndarray:
    """68 landmarks of a plain face in a crop of 96 pixels, lips closed."""
    points = np.zeros((68, 2))
    turn = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([48 + 42 * np.cos(turn), 42 + 50 * np.sin(turn)], -1)
    points[17:22] = [(x, 22) for x in np.linspace(16, 40, 5)]
    points[22:27] = [(x, 22) for x in np.linspace(56, 80, 5)]
    points[27:31] = [(48, y) for y in (32, 38, 44, 50)]
    points[31:36] = [(x, 54) for x in np.linspace(41, 55, 5)]
    for eye, x in zip(EYES, (30.0, 66.0), strict=True):
        turn = np.linspace(np.pi, 3 * np.pi, 6, endpoint=False)
        points[eye] = np.stack([x + 6 * np.cos(turn), 32 + 2.5 * np.sin(turn)], -1)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    points[48:60] = np.stack([48 - 14 * np.cos(turn), 68 - 5 * np.sin(turn)], -1)
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    points[60:68] = np.stack([48 - 11 * np.cos(turn), np.full(8, 68.0)], -1)
    return points


def at(flow: np.ndarray, point: np.ndarray) -> np.ndarray:
    x, y = np.round(point).astype(int)
    return flow[y, x]


def test_nothing_moves_by_itself():
    assert not face_flow(face(), face(), MASK).any()


def test_pixels_follow_their_landmarks_and_nothing_moves_outside():
    before = face()
    after = before.copy()
    after[[48, 54]] += [(-4, -4), (4, -4)]
    flow = face_flow(before, after, MASK)
    for corner in (48, 54):
        np.testing.assert_allclose(at(flow, after[corner]), (before - after)[corner], atol=1.5)
    assert not flow[MASK == 0].any()
    assert np.abs(flow[:30]).max() < 0.5  # brows and lids


def test_lips_part_and_do_not_pass_each_other():
    before = face()
    after = before.copy()
    after[[65, 66, 67, *LOWER_MIDDLE], 1] += 8
    flow = face_flow(before, after, MASK)
    above, below = at(flow, np.array([48, 66])), at(flow, np.array([48, 77]))
    assert abs(above[1]) < 1.5 and below[1] < -5
    pressed = possible(before, before * 0 + [[0, 3] if i in (61, 62, 63) else [0, 0] for i in range(68)])
    for upper, lower in PAIRS:
        assert (before + pressed)[upper, 1] <= (before + pressed)[lower, 1] + 1e-9


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_a_lid_that_closes_covers_the_ball(share):
    before = face()
    after = before.copy()
    for upper, lower in (((37, 38), (41, 40)), ((43, 44), (47, 46))):
        for u, k in zip(upper, lower, strict=True):
            after[u, 1] += share * (before[k, 1] - before[u, 1])
    flow = face_flow(before, after, MASK)
    lid = at(flow, np.array([30, after[37, 1] - 1]))
    assert lid[1] < -0.5 * share  # skin comes down
    assert np.isfinite(flow).all()
    assert np.abs(flow[60:]).max() < 0.5  # the mouth


def test_a_brow_that_rises_lifts_no_lid():
    before = face()
    after = before.copy()
    after[17:27, 1] -= 5
    flow = face_flow(before, after, MASK)
    assert at(flow, after[19])[1] > 2.5
    assert abs(at(flow, before[37])[1]) < 1


def test_skin_that_is_pushed_together_is_darker():
    squeezed = np.zeros((96, 96, 2), np.float32)
    squeezed[..., 0] = 0.3 * (np.arange(96) - 48)  # everything comes from further out
    light = crease_light(squeezed, MASK, np.zeros_like(MASK), 150.0)
    assert light[48, 48] < -1 and light.max() <= 0
    assert not crease_light(squeezed * 0, MASK, np.zeros_like(MASK), 150.0).any()

"""Folds that go with a smile, and movement that is not made up between edges."""

import cv2
import numpy as np
import pytest
from emoedit.compositing.flow import FLOW_SIDE, estimate_flow
from emoedit.compositing.folds import FOLD_SIDE, beside_lips, fold_lines, unsmiling
from emoedit.compositing.paste import _relight


def face(width: float, *, eyes: float = 40.0) -> np.ndarray:
    """68 landmarks with a mouth ``width`` wide and eyes so far apart."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (48 - eyes / 2, 35), (48 + eyes / 2, 35)
    angles = np.pi + np.arange(12) * np.pi / 6
    points[48:60] = np.stack([48 + width / 2 * np.cos(angles), 66 + 4 * np.sin(angles)], -1)
    points[60:68] = 48, 66
    return points


def test_a_smile_goes_where_a_wide_mouth_becomes_narrower():
    smile, neutral, between = face(37), face(30), face(33.2)
    assert unsmiling(smile, neutral) == 1 and unsmiling(smile, smile) == 0
    assert unsmiling(neutral, face(24)) == 0  # that was no smile
    assert unsmiling(neutral, smile) == 0  # and here one comes
    assert 0 < unsmiling(between, neutral) < 1
    assert unsmiling(smile * 3, neutral * 3) == pytest.approx(unsmiling(smile, neutral))


def test_lines_go_and_pores_and_light_stay():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:FOLD_SIDE, :FOLD_SIDE].astype(np.float32)
    pores = rng.normal(0, 6, (FOLD_SIDE, FOLD_SIDE)).astype(np.float32)
    light = 30 * np.sin(x / FOLD_SIDE * 3)
    curve = 150 - 0.0015 * (y - 230) ** 2
    crease = -30 * np.exp(-(((x - curve) / 2.5) ** 2)) * ((y > 150) & (y < 310))
    left = (pores + light + crease) - fold_lines(pores + light + crease)
    on = np.abs(x - curve) < 1.5
    inner = on & (y > 170) & (y < 290)
    assert np.abs((left - light)[inner].mean()) < 0.3 * np.abs(crease[inner].mean())
    away = (np.abs(x - curve) > 40) & (y > 60) & (y < 320) & (x > 60) & (x < 320)
    assert np.corrcoef(left[away], (pores + light)[away])[0, 1] > 0.98
    assert np.abs((left - light - pores)[away]).mean() < 2


def test_lips_are_left_out():
    away = beside_lips(face(30), 96)
    assert away.shape == (96, 96) and away[66, 48] == 0 and away[66, 38] == 0
    assert away[66, 20] == 1 and away[40, 48] == 1 and 0 <= away.min() and away.max() <= 1


def test_light_that_changes_on_a_cheek_is_no_movement():
    """An even face whose light moves, beside a line that moves by 2 pixels."""
    side = FLOW_SIDE
    y, x = np.mgrid[:side, :side].astype(np.float32)
    mask = np.ones((side, side), np.float32)

    def drawn(light: float, line: float) -> np.ndarray:
        return 150 + 6 * np.cos((x - light) / 30) - 90 * np.exp(-(((y - line) / 3) ** 2))

    flow = estimate_flow(drawn(60, 150), drawn(78, 152), mask)
    cheek, edge = flow[30:90, 40:150], flow[151:154, 40:150]
    assert np.linalg.norm(cheek, axis=-1).mean() < 1.0
    assert edge[..., 1].mean() == pytest.approx(-2, abs=0.4)


def test_an_iris_that_is_darkened_keeps_its_colour_and_a_gleam_does_not():
    skin, iris, gleam = np.array([200.0, 160.0, 140.0]), np.array([90.0, 105.0, 120.0]), np.array([240.0, 238.0, 238.0])
    for spot, light, kept in ((iris, -40.0, True), (gleam, -60.0, False)):
        rgb = np.broadcast_to(skin, (61, 61, 3)).astype(np.float32).copy()
        yy, xx = np.mgrid[:61, :61]
        inside = np.hypot(yy - 30, xx - 30) < 4
        rgb[inside] = spot
        added = cv2.GaussianBlur(np.where(inside, light, 0).astype(np.float32), (0, 0), 0.7)
        none = np.zeros((61, 61), np.float32)
        red, _, blue = _relight(rgb, added, none, none, spread=8.0)[30, 30]
        assert (blue > red) == kept

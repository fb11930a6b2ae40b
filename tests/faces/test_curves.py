"""Curves through points, what lies within them, and smooth steps."""

from __future__ import annotations

import numpy as np
import pytest

from emoedit.faces.curves import arc, filled, outline, smoothstep
from tests.fixtures.faces import points_of


def test_curves_go_through_their_points_smoothly():
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    points = np.stack([20 * np.cos(turn), 9 * np.sin(turn)], -1)
    curve, line = outline(points), arc(points[:5])
    assert len(curve) == 8 * 16 and len(line) == 4 * 16 + 1
    np.testing.assert_allclose(curve[::16], points, atol=1e-9)
    np.testing.assert_allclose(line[::16], points[:5], atol=1e-9)
    # An ellipse comes back as one, from whichever of its points it begins.
    np.testing.assert_allclose((curve / [20, 9]) ** 2 @ np.ones(2), 1, atol=0.05)
    np.testing.assert_allclose(np.roll(outline(np.roll(points, 3, 0)), -48, 0), curve, atol=1e-9)
    np.testing.assert_allclose(arc(np.outer(np.arange(5.0), [1, 2]))[:, 1], np.linspace(0, 8, 65), atol=1e-9)


def test_what_lies_within_a_curve():
    opened, closed = (outline(points_of(48, 70, apart=apart)[60:68]) for apart in (8, 0))
    inside = filled(opened, (96, 96))
    assert inside.dtype == np.float32 and inside[70, 48] > 0.99 and inside[60, 48] == 0 and inside[70, 20] == 0
    assert filled(closed, (96, 96))[65:69].max() < 0.05
    # The same on a finer grid of a part of the crop.
    fine = filled(opened, (160, 160), 4, (28, 50))
    assert fine[(70 - 50) * 4, (48 - 28) * 4] > 0.99
    assert fine.sum() / 16 == pytest.approx(np.pi * 11.2 * 4, rel=0.06)  # at the crop's size half a pixel more


def test_a_smooth_step_is_flat_at_its_ends_and_rises_between():
    x = np.linspace(0, 3, 61)
    y = smoothstep(x, 1.0, 2.0)
    assert (y[x <= 1] == 0).all() and (y[x >= 2] == 1).all() and (np.diff(y) >= 0).all()
    np.testing.assert_allclose(y + y[::-1], 1, atol=1e-12)

"""Lips brought together over teeth."""

from __future__ import annotations

import numpy as np
import pytest

from emoedit.compositing.closing import ABOVE, MARGIN, UPPER, closing_flows, lip_line
from emoedit.faces.opening import Opening
from emoedit.faces.teeth import MouthGrid

SIDE, TOP, BOTTOM = 128, 0.70, 0.78


def opening() -> Opening:
    """A mouth of one height, but at its corners."""
    x = np.linspace(0.35, 0.65, 61)
    shape = np.clip(8 * (1 - np.abs(x - 0.5) / 0.15), 0, 1)
    middle = TOP + UPPER * (BOTTOM - TOP)
    return Opening(x, middle + (TOP - middle) * shape, middle + (BOTTOM - middle) * shape)


def test_edges_of_the_opening_meet_in_a_line():
    still = np.zeros((SIDE, SIDE, 2), np.float32)
    above, below = closing_flows(opening(), still, 1.0)
    line = TOP + UPPER * (BOTTOM - TOP)
    row, column = round(line * SIDE - 0.5), SIDE // 2
    assert row + above[row, column, 1] == pytest.approx((TOP - MARGIN[0]) * SIDE, abs=1.2)  # from the upper lip
    assert row + below[row, column, 1] == pytest.approx((BOTTOM + MARGIN[1]) * SIDE, abs=1.2)  # from the lower
    assert not above[..., 0].any() and not below[..., 0].any()
    far = round((line - 3 * ABOVE) * SIDE)
    assert abs(above[far, column, 1]) < 0.01
    assert not above[:, :20].any() and not below[:, -20:].any()  # nothing moves beside the mouth


def test_they_close_by_degrees():
    still = np.zeros((SIDE, SIDE, 2), np.float32)
    whole, half = (closing_flows(opening(), still, amount) for amount in (1.0, 0.5))
    for one, other in zip(whole, half, strict=True):
        assert other == pytest.approx(one / 2, abs=1e-5)
    assert not np.any(closing_flows(opening(), still, 0.0))


def test_the_lower_lip_is_shown_below_a_dark_line():
    still, grid = np.zeros((SIDE, SIDE, 2), np.float32), MouthGrid(SIDE)
    below, shade = lip_line(opening(), still, 1.0)
    assert below.shape == shade.shape == grid.size[::-1]
    line = (TOP + UPPER * (BOTTOM - TOP)) * SIDE - 0.5
    row, column = (round((at - grid.to_crop[i, 2]) / grid.to_crop[i, i]) for i, at in ((1, line), (0, SIDE / 2)))
    assert below[row - 6, column] == 0 and below[row + 6, column] == 1
    assert shade[:, column].argmax() == pytest.approx(row, abs=2) and shade[:, column].max() > 0.6
    assert not lip_line(opening(), still, 0.0)[1].any()


def test_a_face_that_moves_takes_the_line_with_it():
    down, grid = np.zeros((SIDE, SIDE, 2), np.float32), MouthGrid(SIDE)
    down[..., 1] = -3  # pixels come from above: the face moves down
    rows = [lip_line(opening(), flow, 1.0)[1].sum(1).argmax() for flow in (0 * down, down)]
    assert (rows[1] - rows[0]) * grid.to_crop[1, 1] == pytest.approx(3, abs=0.5)

"""Temperatures of scores: what they do, and that the right one is found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from emoedit.metrics.calibration import RANGE, calibrating_temperature, temperature_scale
from emoedit.types import DataError


def test_a_temperature_divides_logits():
    z = np.random.default_rng(0).normal(0, 2, (50, 7))
    for temperature in (0.5, 1.0, 3.0):
        found = temperature_scale(softmax(z, 1), temperature)
        np.testing.assert_allclose(found, softmax(z / temperature, 1), atol=1e-9)
    assert temperature_scale([1.0, 0, 0], 0.5).tolist() == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_makes_scores_right_is_found(temperature: float):
    """Labels drawn from probabilities that are shown at another temperature."""
    random = np.random.default_rng(1)
    z = random.normal(0, 2, (20_000, 7))
    labels = (softmax(z, 1).cumsum(1) > random.random((len(z), 1))).argmax(1)
    shown = softmax(z / temperature, 1)
    found = calibrating_temperature(shown, labels)
    assert found == pytest.approx(1 / temperature, rel=0.04)
    right = temperature_scale(shown, found)
    assert right.max(1).mean() == pytest.approx((right.argmax(1) == labels).mean(), abs=0.02)


def test_labels_that_are_never_or_always_right_end_the_search():
    scores = np.full((5, 3), [0.5, 0.3, 0.2])
    assert calibrating_temperature(scores, np.zeros(5, int)) == pytest.approx(RANGE[0], rel=0.01)
    assert calibrating_temperature(scores, np.full(5, 2)) == pytest.approx(RANGE[1], rel=0.01)


def test_what_is_no_score_is_refused():
    for scores, labels in (([[0.5, 0.5]], [0, 1]), ([], []), ([0.5, 0.5], [0, 1])):
        with pytest.raises(DataError):
            calibrating_temperature(scores, labels)
    for temperature in (0, -1, float("nan")):
        with pytest.raises(DataError):
            temperature_scale([0.5, 0.5], temperature)
    with pytest.raises(DataError):
        temperature_scale([-0.1, 1.1], 1.0)

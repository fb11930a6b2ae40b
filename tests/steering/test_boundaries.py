"""Boundaries and axes of latents, and the directions of h that are made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from emoedit.steering.boundaries import linear_svm, principal_axes
from emoedit.training.hspace import averaged, boundary_direction, edited_timesteps, path_h, principal_directions
from emoedit.types import DataError, HState
from tests.fixtures.ddpm import smooth, tiny


def two_classes(count: int = 60, dimension: int = 8):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, dimension, generator=generator) * torch.linspace(0.2, 2, dimension) + 5
    positive = torch.arange(count) < count // 3
    x[positive, 0] += 3
    return x, positive


def test_the_boundary_is_the_one_another_solver_finds():
    x, positive = two_classes()
    found = linear_svm(x, positive)
    z = (x - x.mean(0)).double()
    z = (z / z.square().mean().sqrt()).numpy()
    sign = np.where(positive, 1.0, -1.0)
    share = np.where(positive, 0.5 / 20, 0.5 / 40)

    def loss(w):
        slack = np.maximum(0, 1 - sign * (z @ w[:-1] + w[-1]))
        return 0.5 * (w[:-1] ** 2).sum() / z.shape[1] + (share * slack**2).sum()

    best = minimize(loss, np.zeros(9), method="BFGS", options={"gtol": 1e-8}).x
    expected = best[:-1] / np.linalg.norm(best[:-1])
    np.testing.assert_allclose(found.normal.numpy(), expected, atol=2e-4)
    distance = x @ found.normal + found.offset
    ours = (z @ best[:-1] + best[-1]) / np.linalg.norm(best[:-1])
    np.testing.assert_allclose(distance.numpy(), ours * float((x - x.mean(0)).square().mean().sqrt()), atol=2e-3)
    assert float(((distance > 0) == positive).float().mean()) > 0.95
    assert found.gap == pytest.approx(float(distance[positive].mean() - distance[~positive].mean()), abs=1e-4)


def test_a_boundary_needs_two_classes():
    x, positive = two_classes()
    with pytest.raises(DataError, match="60 positive and 0 others"):
        linear_svm(x, torch.ones_like(positive))
    with pytest.raises(DataError, match="labels"):
        linear_svm(x, positive[:3])


def test_principal_axes_are_those_of_the_covariance():
    x, _ = two_classes()
    axes, deviations = principal_axes(x, 3)
    values, vectors = np.linalg.eigh(np.cov(x.numpy().T))
    np.testing.assert_allclose(deviations.numpy() ** 2, values[::-1][:3], rtol=1e-4)
    for axis, vector in zip(axes.numpy(), vectors.T[::-1][:3], strict=True):
        assert abs(axis @ vector) == pytest.approx(1, abs=1e-4)
        assert axis[np.abs(axis).argmax()] > 0
    with pytest.raises(DataError, match="at least 61 rows"):
        principal_axes(x, 60)


def test_directions_of_h_from_boundaries_and_axes():
    backbone = tiny()
    times, h = edited_timesteps(backbone), path_h(backbone, smooth(6))
    assert h.shape == (6, len(times), *backbone.h_shape)
    seen = {int(s.t[0]): s.h for s, _ in backbone.path(smooth(6))}
    torch.testing.assert_close(h[:, 1], seen[times[1]])
    positive = torch.tensor([True, True, True, False, False, False])
    crossing = boundary_direction(h, times, positive, times[1])
    assert bool((crossing.directions[[0, 2]] == 0).all())
    moved = h[3:, 1] + crossing.directions[1]
    found = linear_svm(h[:, 1].flatten(1), positive)
    ours, theirs = ((x.flatten(1) @ found.normal).mean() for x in (moved, h[:3, 1]))
    assert float(ours) == pytest.approx(float(theirs), abs=1e-4)  # the class's mean lands on the other's
    with pytest.raises(DataError, match="timestep 1 is none"):
        boundary_direction(h, times, positive, 1)
    first, second = principal_directions(h, times, 2)
    assert float((first.directions * second.directions).sum()) == pytest.approx(0, abs=1e-3)
    state = HState(torch.zeros(1, 1, 16, 16), torch.tensor([times[0]]), h[:1, 0], torch.zeros(1, 32))
    torch.testing.assert_close(averaged(first)(state)[0], first.directions.mean(0))

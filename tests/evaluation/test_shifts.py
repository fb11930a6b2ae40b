"""What an edit adds to h: recorded, compared, and added to other faces."""

from __future__ import annotations

import math

import pytest
import torch

from emoedit.editors import Editor
from emoedit.evaluation.shifts import (
    mean_cosine,
    pairwise_cosines,
    projection_onto,
    random_directions,
    record_shifts,
    with_directions,
)
from emoedit.steering.hspace import Directions
from emoedit.types import Edit, EditError
from tests.fixtures.editors import tiny_asyrp, tiny_vae


@pytest.fixture(scope="module")
def editor() -> Editor:
    return tiny_asyrp()


@pytest.fixture(scope="module")
def inversion(editor):
    rough = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    return editor.invert(torch.nn.functional.interpolate(rough, (32, 32), mode="bicubic").clamp(-1, 1))


@pytest.mark.parametrize("emotion", ["happy", "sad"])
def test_what_is_recorded_makes_the_same_edit(editor, inversion, emotion):
    """A block's shifts, different for each face, added to each face as directions; and a direction's own."""
    times, shifts, drawn = record_shifts(editor, inversion, Edit(emotion))
    assert times == tuple(t for t in editor.backbone.schedule.timesteps if t >= 300)
    assert shifts.shape == (3, len(times), 16, 8, 8)
    torch.testing.assert_close(drawn, next(editor.decode(inversion, [Edit(emotion)])), atol=1e-5, rtol=0)
    for row in range(3):
        same = with_directions(editor, {emotion: Directions(shifts[row], times)}, name="same")
        again = next(same.decode(inversion, [Edit(emotion)]))[row]
        torch.testing.assert_close(again, drawn[row], atol=1e-4, rtol=0)
    alike = mean_cosine(shifts)
    assert alike > 0.9999 if emotion == "sad" else alike < 0.9999  # sad: a direction, one for all


def test_multiples_are_recorded(editor, inversion):
    one, two = (record_shifts(editor, inversion, Edit("sad", s))[1] for s in (1.0, 2.0))
    cosine, length = projection_onto(two, one)
    torch.testing.assert_close(cosine, torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(length, torch.full((3,), 2.0), atol=1e-4, rtol=0)


def test_an_editor_without_h_is_refused(editor, inversion):
    other = tiny_vae()
    found = other.invert(torch.zeros(1, 1, 32, 32))
    with pytest.raises(EditError, match="shifts no h"):
        record_shifts(other, found, Edit("happy"))


def test_random_directions_have_the_length(editor):
    given = Directions(torch.randn(3, 16, 8, 8) * torch.tensor([1.0, 2, 3])[:, None, None, None], (300, 400, 600))
    found = random_directions(given, torch.Generator().manual_seed(0)).directions
    torch.testing.assert_close(found.flatten(1).norm(dim=1), given.directions.flatten(1).norm(dim=1))
    assert float(pairwise_cosines(found).min()) > 0.9999
    assert (
        abs(float(torch.nn.functional.cosine_similarity(found[0].flatten(), given.directions[0].flatten(), dim=0)))
        < 0.2
    )


def test_cosines_and_linear_parts():
    rows = torch.tensor([[2.0, 0], [0, 3], [-1, 0], [0, 0]])
    expected = torch.tensor([[1.0, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(pairwise_cosines(rows), expected)
    assert mean_cosine(rows[:3]) == pytest.approx(-1 / 3) and math.isnan(mean_cosine(rows[:1]))
    cosine, length = projection_onto(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]))
    assert float(cosine) == pytest.approx(0.6) and float(length) == pytest.approx(1.5)
    assert float(projection_onto(torch.ones(1, 2), torch.zeros(1, 2))[1]) == 0

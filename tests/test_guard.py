"""The identity guard: the largest strength that keeps a floor, for several edits and faces, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import emoedit
from emoedit.guard import STEPS, IdentityGuard
from emoedit.photo import PhotoEditor
from emoedit.types import Edit, EditError


class Fading:
    """A network for whom identity falls by ``slope`` times the mean change of the face, a number a pixel of 255."""

    def __init__(self, slope: float) -> None:
        self.slope, self.source = slope, None

    def faces(self, photo: np.ndarray, face) -> np.ndarray:
        x0, y0, x1, y1 = (int(v) for v in face.box)
        return photo[max(0, y0) : y1, max(0, x0) : x1].mean(2)

    def embed(self, faces: np.ndarray) -> torch.Tensor:
        if self.source is None:
            self.source = faces
        angle = float(np.arccos(max(-1.0, 1 - self.slope * np.abs(faces - self.source).mean())))
        return torch.tensor([[np.cos(angle), np.sin(angle)]], dtype=torch.float32)


@pytest.fixture(scope="module")
def photos() -> PhotoEditor:
    return PhotoEditor("vae")


def test_the_strength_found_keeps_the_floor_and_a_little_more_would_not(photos, astronaut):
    opened = photos.open(astronaut)
    edits = [Edit("happy", 1.0), Edit("sad", -2.0), Edit("angry", 0.0)]
    change = [float(v) for v in 1 - IdentityGuard(photos, 0.0, network=Fading(0.1)).identities(opened, edits)]
    guard = IdentityGuard(photos, 1 - 0.5 * change[0], network=Fading(0.1))
    found = guard.limit(opened, edits)
    assert [e.emotion for e in found] == [e.emotion for e in edits] and found[2].strength == 0
    assert 0.2 < found[0].strength < 0.8 and -2 <= found[1].strength < 0
    guard.network.source = None
    kept = guard.identities(opened, found)
    assert bool((kept >= guard.min_identity).all())
    for n in (0, 1):
        share = found[n].strength / edits[n].strength
        if share < 1:
            more = Edit(edits[n].emotion, edits[n].strength * (share + 1 / STEPS**2))
            assert float(guard.identities(opened, [more])) < guard.min_identity


def test_floors_that_hold_anyway_or_never(photos, astronaut):
    opened, edits = photos.open(astronaut), [Edit("happy", 0.8)]
    assert IdentityGuard(photos, 0.0).limit(opened, edits) == edits
    assert IdentityGuard(photos, 1.0, network=Fading(1e3)).limit(opened, edits)[0].strength == 0


def test_an_edit_of_a_photograph_keeps_the_floor(photos, astronaut):
    plain = emoedit.edit(astronaut, "happy", editor=photos, strength=2.0)
    guard = IdentityGuard(photos, 0.5)
    opened = photos.open(astronaut)
    floor = (float(guard.identities(opened, [Edit("happy", 2.0)])) + 1) / 2
    guarded = emoedit.edit(astronaut, "happy", editor=photos, strength=2.0, min_identity=floor)
    assert 0 < guarded.edit.strength < plain.edit.strength
    assert float(guard.identities(opened, [guarded.edit])) >= floor


@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan"), "0.8", True])
def test_floors_that_are_none(photos, floor):
    with pytest.raises(EditError, match="min_identity must be a number from 0 to 1"):
        IdentityGuard(photos, floor)

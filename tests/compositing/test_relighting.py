"""The light of a smile, taken off a photograph: inside the face, by degrees, and nothing in front of it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from emoedit.compositing.relighting import AMOUNT, relight, relighting_network
from emoedit.nn.relighting import DIM, RelightingNetwork
from emoedit.nn.unet import UNetConfig
from emoedit.photo import PhotoEditor
from tests.fixtures.editors import from_neutral, tiny_vae


@pytest.fixture(scope="module")
def face(_astronaut):
    """What is known of a portrait's face."""
    return PhotoEditor(from_neutral(tiny_vae())).open(_astronaut, edits=[]).source.faces[0]


class Brighter(RelightingNetwork):
    """Answers with the same ratio everywhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 0.2)


def test_every_channel_changes_by_as_much_as_the_light_does(face, _astronaut):
    dim = _astronaut // 2
    kept = dim.copy()
    lit = relight(dim, face, Brighter(UNetConfig()))
    assert np.array_equal(dim, kept)
    x, y = np.rint(face.alignment.to_photo(face.landmarks[[30]])[0]).astype(int)  # the tip of the nose
    was, now = (picture[y, x].astype(float) for picture in (dim, lit))
    expected = (was @ [0.299, 0.587, 0.114] + DIM) * (np.exp(0.2 * AMOUNT) - 1)
    assert np.abs(now - was - expected).max() <= 1


def test_outside_the_outline_of_the_face_not_one_bit_changes(face, _astronaut):
    lit = relight(_astronaut, face, Brighter(UNetConfig()))
    hull = np.zeros(_astronaut.shape[:2], np.uint8)
    points = np.rint(face.alignment.to_photo(face.landmarks)).astype(np.int32)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    outside = cv2.dilate(hull, np.ones((9, 9))) == 0
    assert np.array_equal(lit[outside], _astronaut[outside]) and not np.array_equal(lit, _astronaut)


def test_what_is_in_front_of_a_face_keeps_its_light(face, _astronaut):
    hidden = replace(face, hidden=np.ones_like(face.hidden))
    assert np.array_equal(relight(_astronaut, hidden, Brighter(UNetConfig())), _astronaut)


def test_light_changes_by_degrees(face, _astronaut):
    network = relighting_network("cpu")
    frames = [relight(_astronaut, face, network, amount).astype(float) for amount in np.linspace(0, 1, 6)]
    assert np.array_equal(frames[0], _astronaut)
    steps = [np.abs(b - a).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert min(steps) > 0 and max(steps) < 2 * np.median(steps)

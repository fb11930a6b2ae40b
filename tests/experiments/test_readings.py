"""What the prompt studies read of pictures, measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.types import DataError
from lib.readings import camera, read_picture, shot


class Colours:
    """A CLIP to which a red picture is what the words say."""

    def image_embeddings(self, x):
        return torch.nn.functional.normalize(x.mean((2, 3)) + 1, dim=1)

    def text_embeddings(self, texts):
        if texts == ["long"]:
            raise DataError("too long")
        return torch.tensor([[1.0, 0, 0]])


def test_a_portrait_is_read(_astronaut):
    found = read_picture(Image.fromarray(_astronaut), "cinematic", Colours())
    assert (found.faces, found.shot, found.camera) == (1, "medium shot", "eye level")
    assert 0.3 < found.shape < 2 and 0.3 < found.style < 1
    near = read_picture(Image.fromarray(_astronaut[40:220, 130:310]), "", None)
    assert near.shot in ("close-up", "extreme close-up") and near.style is None


def test_what_a_picture_does_not_tell_is_left_empty():
    grey = Image.new("RGB", (96, 96), (90, 90, 90))
    found = read_picture(grey, "long", Colours())
    assert (found.faces, found.shot, found.camera, found.shape, found.style) == (0, None, None, None, None)


@pytest.mark.parametrize(("share", "name"), [(0.7, "extreme close-up"), (0.33, "close-up"), (0.01, "long shot")])
def test_shots_are_named_by_the_share_of_the_face(share, name):
    assert shot(share) == name


@pytest.mark.parametrize(("nose", "name"), [(0.77, "eye level"), (0.92, "from above"), (0.6, "from below")])
def test_cameras_are_named_by_the_place_of_the_nose(nose, name):
    points = np.zeros((68, 2))
    points[31:36, 1], points[30, 1] = 1.0, nose
    assert camera(points) == name

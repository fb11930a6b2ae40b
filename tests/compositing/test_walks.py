"""A walk from nothing to a strong edit pops nowhere."""

from __future__ import annotations

import numpy as np
import pytest

from emoedit.io import checkpoints
from emoedit.photo import OpenPhoto, PhotoEditor
from emoedit.types import Edit
from tests.golden.cases import face, source

pytestmark = pytest.mark.skipif("stylegan" not in checkpoints.embedded_names(), reason="no embedded StyleGAN")


@pytest.fixture(scope="module")
def opened() -> tuple[PhotoEditor, OpenPhoto]:
    photos = PhotoEditor("stylegan")
    return photos, photos.open(source("astronaut"), face("astronaut"))


@pytest.mark.parametrize("emotion", ["happy", "sad", "angry", "surprised", "neutral"])
def test_no_step_of_a_walk_is_three_times_the_median_one(opened, emotion):
    """From 0 to 1.5 in 16 frames, of a portrait whose smile most of these edits end."""
    photos, photo = opened
    edits = [Edit(emotion, float(strength)) for strength in np.linspace(0, 1.5, 16)]
    frames = [np.asarray(result.image).astype(np.float32) for result in photos.edit(photo, edits)]
    steps = np.array([np.abs(b - a).mean() for a, b in zip(frames, frames[1:], strict=False)])
    assert np.median(steps) > 0 and steps.max() <= 3 * np.median(steps), np.round(steps / np.median(steps), 2)

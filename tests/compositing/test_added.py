"""What a model itself changes, added to the photograph as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emoedit.compositing.compositors import compositor
from emoedit.faces.tone import LUMA, Tone
from tests.fixtures.faces import analysis_of, face_of, lips, photo_of, scene_of


@pytest.mark.parametrize("power", [1.0, 0.7])
def test_the_change_is_added_inside_the_mask_at_the_photographs_own_tones(power):
    before = lips(48, 72)
    photo = photo_of(before)
    face = replace(analysis_of(photo, face_of()), tone=Tone(power))
    scene = scene_of(face, before, before + 9.0)
    composite = compositor("added").compose(scene)
    own = face.crop @ LUMA
    expected = face.tone.lower(face.tone.lift(own) + 9.0) - own if power != 1 else 9.0
    np.testing.assert_allclose(composite.change, np.broadcast_to(expected, composite.change.shape), atol=1e-3)
    assert not composite.flow.any() and not composite.layers
    result, _ = compositor("added")(photo, scene)
    inside = np.all(face.masks.face[30:60, 36:60] > 0.99)
    changed = np.abs(face.alignment.crop(result).astype(int) - face.alignment.crop(photo)).max(-1)
    assert inside and changed[30:60, 36:60].min() > 3 and changed[face.masks.face == 0].max() == 0


def test_colours_are_added_as_colours():
    before = lips(48, 72)
    photo = photo_of(before)
    red = np.repeat(before[..., None], 3, -1)
    scene = scene_of(analysis_of(photo, face_of()), red, red + (12.0, 0.0, -3.0))
    change = compositor("added").compose(scene).change
    np.testing.assert_allclose(change.reshape(-1, 3).mean(0), (12, 0, -3), atol=1e-4)

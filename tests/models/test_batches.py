"""How far an edit depends on what is drawn beside it."""

from __future__ import annotations

import numpy as np

import emoedit
from emoedit.types import Edit


def test_an_edit_by_diffusion_hardly_depends_on_its_batch(astronaut):
    """Sums are taken in another order in a batch: the bound is what docs/asyrp.md says, in float32."""
    editor = emoedit.load_editor("asyrp")
    few = editor.with_sampling(steps=5, precision="float32")
    photos = emoedit.PhotoEditor(few)
    opened = photos.open(astronaut[:300, 90:390])
    edits = [Edit("sad"), Edit("happy"), Edit("surprised")]
    together = [np.asarray(result.image).astype(int) for result in photos.edit(opened, edits)]
    alone = np.asarray(next(photos.edit(opened, edits[:1])).image).astype(int)
    difference = np.abs(alone - together[0])
    assert difference.max() <= 2 and (difference > 0).mean() < 1e-3
    assert (alone != astronaut[:300, 90:390]).mean() > 0.01

"""How far an edit depends on what is drawn beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import emoedit
from emoedit.types import Edit
from tests.fixtures.editors import tiny_asyrp, tiny_vae


@pytest.mark.parametrize(
    ("precision", "drawn", "levels", "changed", "visible"),
    [("float32", 0.01, 2, 1e-3, 0.0), ("bfloat16", 15.0, 20, 3e-2, 5e-3)],
)
@pytest.mark.parametrize("emotion", ["surprised", "sad"])
def test_an_edit_by_diffusion_hardly_depends_on_its_batch(
    astronaut, emotion, precision, drawn, levels, changed, visible
):
    """Sums are taken in another order in a batch: the bounds are what docs/asyrp.md says.

    Args:
        astronaut: the portrait.
        emotion: of the edit.
        precision: of the U-Net's passes.
        drawn: the largest difference of what the model draws, in grey levels.
        levels: the largest difference of a value of the photograph, of 255.
        changed: share of values that differ.
        visible: share of values that differ by more than 2 levels.
    """
    few = emoedit.load_editor("asyrp").with_sampling(steps=8, precision=precision)
    photos = emoedit.PhotoEditor(few)
    opened = photos.open(astronaut[:300, 90:390])
    edits = sorted([Edit("surprised"), Edit("happy"), Edit("sad")], key=lambda edit: edit.emotion != emotion)
    inversion = opened.source.inversion
    crops = [next(iter(few.decode(inversion, part)))[0].float() for part in (edits, edits[:1])]
    assert float((crops[0] - crops[1]).abs().max()) * 127.5 <= drawn
    together = np.asarray(next(photos.edit(opened, edits)).image).astype(int)
    alone = np.asarray(next(photos.edit(opened, edits[:1])).image).astype(int)
    difference = np.abs(alone - together)
    assert difference.max() <= levels and (difference > 0).mean() < changed and (difference > 2).mean() <= visible
    assert (alone != astronaut[:300, 90:390]).mean() > 0.01


@pytest.mark.parametrize("make", [tiny_asyrp, tiny_vae])
def test_one_picture_at_a_time_is_drawn_alike_beside_others(astronaut, make, monkeypatch):
    """``--batch 1``: to the bit; in the photograph nearly, as landmarks of all drawings are found together."""
    editor, sizes = make(), []
    editor.batch = 1
    drawn = type(editor.backbone).decode
    monkeypatch.setattr(
        type(editor.backbone),
        "decode",
        lambda self, inversion, *a: sizes.append(len(inversion)) or drawn(self, inversion, *a),
    )
    photos = emoedit.PhotoEditor(editor)
    opened = photos.open(astronaut)
    edits = [Edit("sad"), Edit("happy"), Edit("sad", 0.5)]
    together = [np.asarray(result.image) for result in photos.edit(opened, edits)]
    drawings = list(editor.decode(opened.inversion, edits))
    for edit, beside, drawing in zip(edits, together, drawings, strict=True):
        assert torch.equal(next(editor.decode(opened.inversion, [edit])), drawing)
        alone = np.asarray(next(photos.edit(opened, [edit])).image)
        difference = np.abs(alone.astype(int) - beside)
        assert difference.max() <= 2 and (difference > 0).mean() < 1e-3
    assert set(sizes) == {1}

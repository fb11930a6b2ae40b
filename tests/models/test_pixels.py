"""Pixels that are moved and lit: the backbone of the references, and compositing a change that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from emoedit.compositing.movement import Movement
from emoedit.editors import load_editor
from emoedit.faces.warp import jacobian
from emoedit.io import checkpoints
from emoedit.models.pixels.backbone import PixelBackbone, PixelsConfig
from emoedit.photo import PhotoEditor
from emoedit.types import CheckpointError, Control, CropSpec, Edit, EditError
from tests.fixtures.editors import smooth, tiny_pixels, tiny_vae


def planes_of(side: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two crops full of detail ``[2, 1, R, R]``, and a shift that moves them up to 4 pixels and lights them."""
    crops = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
    planes = smooth(2, 4, side=side, seed=seed + 1) * torch.tensor([0, 4 / side, 4 / side, 0.2])[:, None, None]
    return crops, planes.flatten(1)


def warped(crop: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The crop at ``p + flow[p]``, mirrored at its border, by scipy."""
    y, x = np.mgrid[: len(crop), : len(crop)]
    return map_coordinates(crop.astype(float), [y + flow[..., 1], x + flow[..., 0]], order=1, mode="reflect")


def test_pixels_are_moved_and_lit_as_by_scipy():
    backbone = PixelBackbone(PixelsConfig(resolution=32))
    crops, shift = planes_of(32)
    drawn = backbone.decode(backbone.invert(crops), Control(shift=shift)).numpy()
    for n, (_, right, down, light) in enumerate(shift.reshape(2, 4, 32, 32).numpy()):
        expected = warped(crops[n, 0].numpy(), np.stack([right, down], -1) * 32) + light
        np.testing.assert_allclose(drawn[n, 0], expected, atol=1e-3)


def test_changes_are_what_is_drawn():
    backbone = PixelBackbone(PixelsConfig(resolution=32))
    crops, shift = planes_of(32, seed=5)
    inversion, control = backbone.invert(crops), Control(shift=shift)
    drawn = (backbone.decode(inversion, control)[:, 0].numpy() + 1) * 127.5
    changes = backbone.changes(inversion, control)
    assert len(changes) == 2
    for n, change in enumerate(changes):
        assert change.flow.shape == (32, 32, 2) and change.flow.dtype == np.float32 and change.flow.max() > 1
        levels = (crops[n, 0].numpy() + 1) * 127.5
        np.testing.assert_allclose(warped(levels, change.flow) + change.remainder, drawn[n], atol=0.1)


def test_an_editor_tells_what_an_edit_changes_or_that_it_does_not_know():
    editor = tiny_pixels()
    inversion = editor.invert(planes_of(32)[0])
    half, full = editor.changes(inversion, Edit("sad", 0.5)), editor.changes(inversion, Edit("sad"))
    assert len(half) == len(full) == 2
    for a, b in zip(half, full, strict=True):
        np.testing.assert_allclose(2 * a.flow, b.flow, rtol=1e-5)
        np.testing.assert_allclose(2 * a.remainder, b.remainder, rtol=1e-5)
    assert not editor.changes(inversion, Edit("sad", 0))[0].flow.any()
    other = tiny_vae()
    assert other.changes(other.invert(torch.zeros(1, 1, 32, 32)), Edit("sad")) is None


@pytest.mark.skipif("pixel_mean" not in checkpoints.embedded_names(), reason="no embedded references in this checkout")
def test_the_mean_smile_folds_nothing_and_the_mean_difference_moves_nothing():
    """The mean smile moves no pixel further than a flow may (and lights what that leaves); the other only lights."""
    crops = smooth(1, 1, side=96, seed=1).clamp(-1, 1)
    moved, lit = (load_editor(name) for name in ("mean_warp", "pixel_mean"))
    (change,) = moved.changes(moved.invert(crops), Edit("happy"))
    assert 0.5 < np.abs(change.flow).max() <= Movement().longest * 96 + 1e-3
    assert jacobian(change.flow).min() > 0
    (change,) = lit.changes(lit.invert(crops), Edit("happy"))
    assert not change.flow.any() and np.abs(change.remainder).max() > 1


def test_a_configuration_of_something_else_is_refused():
    config = PixelBackbone(PixelsConfig(resolution=16, crop_scale=0.5)).to_config()
    assert PixelBackbone.from_config(config).crop == CropSpec(16, "stable", 0.5, 0.074)
    for bad in ({**config, "latent_dim": 8}, {"resolution": "large"}):
        with pytest.raises(CheckpointError, match="no configuration of a pixel backbone"):
            PixelBackbone.from_config(bad)


def test_nothing_is_looked_for_where_the_change_is_known(astronaut, monkeypatch):
    monkeypatch.setattr(Movement, "find", lambda *_: pytest.fail("looked for what is known"))
    photos = PhotoEditor(tiny_pixels())
    head = astronaut[20:180, 144:304]
    opened = photos.open(head)
    half, full = (np.asarray(r.image, int) for r in photos.edit(opened, [Edit("happy", 0.5), Edit("happy")]))
    assert 0 < np.abs(half - head).mean() < np.abs(full - head).mean()


def test_a_face_that_was_found_before_is_not_looked_for_again(astronaut, monkeypatch):
    photos = PhotoEditor(tiny_pixels())
    head = astronaut[20:180, 144:304]
    opened = photos.open(head)
    monkeypatch.setattr(photos.detector, "choose", lambda *_: pytest.fail("looked again"))
    again = photos.open(head, opened.faces[0])
    assert again.faces == opened.faces
    assert torch.equal(again.inversion.latent, opened.inversion.latent)


def test_an_edit_that_fails_takes_no_other_along(astronaut):
    photos = PhotoEditor(tiny_pixels())
    opened = photos.open(astronaut[20:180, 144:304])
    edits = [Edit("happy"), Edit("1e39 sad"), Edit("sad"), Edit("angry", 0.5), Edit("1e39 happy")]
    results = list(photos.attempt(opened, edits))
    assert [isinstance(result, EditError) for result in results] == [False, True, False, False, True]
    for edit, result in zip(edits, results, strict=True):
        if not isinstance(result, EditError):
            assert result.edit == edit
            alone = next(photos.edit(opened, [edit]))
            assert np.array_equal(np.asarray(alone.image), np.asarray(result.image))

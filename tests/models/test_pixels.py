"""Pixels that are moved and lit: the backbone of the references, and pasting a change that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emoedit.compositing.flow import MAX_FLOW, Change, jacobian
from emoedit.compositing.paste import paste
from scipy.ndimage import map_coordinates, maximum_filter

from emoedit.compositing import paste as pasting
from emoedit.editors import load_editor
from emoedit.faces.align import Alignment
from emoedit.faces.masks import LUMA, regions
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
        assert not change.gap.any()
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
    assert 0.5 < np.abs(change.flow).max() <= MAX_FLOW * 96
    assert jacobian(change.flow).min() > 0
    (change,) = lit.changes(lit.invert(crops), Edit("happy"))
    assert not change.flow.any() and np.abs(change.remainder).max() > 1


def test_a_configuration_of_something_else_is_refused():
    config = PixelBackbone(PixelsConfig(resolution=16, crop_scale=0.5)).to_config()
    assert PixelBackbone.from_config(config).crop == CropSpec(16, "stable", 0.5, 0.074)
    for bad in ({**config, "latent_dim": 8}, {"resolution": "large"}):
        with pytest.raises(CheckpointError, match="no configuration of a pixel backbone"):
            PixelBackbone.from_config(bad)


# --- pasting a change that is known ---------------------------------------------------------------------------------

SPEC = CropSpec(48, "stable", 0.66, 0.074)
FRAMES = [np.zeros((48, 48), np.float32), np.ones((48, 48), np.float32)]  # not looked at, as long as they differ


def placed(angle: float, zoom: float, centre: tuple[float, float]) -> Alignment:
    """A crop of :data:`SPEC` around ``centre``, turned by ``angle`` degrees, ``zoom`` photograph pixels a pixel."""
    turn = np.deg2rad(angle)
    inverse = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    inverse = np.column_stack([inverse, np.array(centre) - inverse @ [23.5, 23.5]])
    return Alignment(np.linalg.inv(np.vstack([inverse, [0, 0, 1]]))[:2], inverse, 48)


def changed(flow: tuple[float, float] = (0, 0), light: float = 0) -> Change:
    flows = np.broadcast_to(np.array(flow, np.float32), (48, 48, 2)).copy()
    return Change(flows, np.full((48, 48), light, np.float32), np.zeros((48, 48), np.float32))


def mask_in(photo: np.ndarray, alignment: Alignment, mask: np.ndarray, order: int = 1) -> np.ndarray:
    """A crop's mask in the photograph's pixels, by scipy."""
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    points = alignment.to_crop(np.stack([x, y], -1).reshape(-1, 2).astype(float))
    return map_coordinates(mask, points[:, ::-1].T, order=order).reshape(photo.shape[:2])


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (150, 130, 3), dtype=np.uint8)


@pytest.mark.parametrize("angle", [0, 33, 180])
@pytest.mark.parametrize("centre", [(64, 80), (5, 140)])
def test_outside_the_mask_not_one_bit_changes(noise, angle, centre):
    alignment, where = placed(angle, 1.7, centre), regions(SPEC)
    before = noise.copy()
    out = paste(noise, alignment, FRAMES, where, change=changed((5, -4), 40))
    assert np.array_equal(noise, before)
    outside = mask_in(noise, alignment, maximum_filter((where.face > 0).astype(np.uint8), 3), order=0) == 0
    inside = mask_in(noise, alignment, where.face) > 0.9
    assert outside.any() and np.array_equal(out[outside], noise[outside])
    assert (out[inside] != noise[inside]).any(-1).mean() > 0.9


@pytest.mark.parametrize("angle", [0, 33])
def test_a_change_of_nothing_leaves_the_photo_alone(noise, angle):
    out = paste(noise, placed(angle, 1.7, (64, 80)), FRAMES, regions(SPEC), change=changed())
    assert np.array_equal(out, noise)


def test_what_lands_here_comes_from_where_the_flow_points(noise):
    """On whole pixels, where nothing is interpolated: ``out[p] == photo[p + flow[p]]``."""
    alignment, where = placed(0, 1, (63.5, 80.5)), regions(SPEC)
    out = paste(noise, alignment, FRAMES, where, change=changed((3, -2)))
    inside = mask_in(noise, alignment, where.face) > 0.3  # blended in fully
    assert inside.sum() > 300
    expected = np.roll(noise, (2, -3), (0, 1))
    assert np.abs(out[inside].astype(int) - expected[inside]).max() <= 1


@pytest.mark.parametrize(("angle", "zoom"), [(0, 1.0), (90, 1.5), (200, 2.5), (-35, 0.8)])
def test_a_shift_of_the_crop_is_turned_and_scaled_with_it(angle, zoom):
    alignment, where = placed(angle, zoom, (90, 80)), regions(SPEC)
    start = np.array([24.0, 30.0])  # of a dot, in the crop
    x0, y0 = alignment.to_photo(start[None])[0]
    y, x = np.mgrid[:170, :180]
    dot = 60 + 150 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * (2.2 * zoom) ** 2))
    photo = np.repeat(np.rint(dot).astype(np.uint8)[..., None], 3, -1)
    out = paste(photo, alignment, FRAMES, where, change=changed((2.0, -3.0)))
    weight = out[..., 0] - 60.0
    found = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    np.testing.assert_allclose(alignment.to_crop(found[None])[0], start - [2, -3], atol=0.15)


def test_light_is_added_to_luminance_in_grey_levels(noise):
    photo = (noise // 4 + 90).astype(np.uint8)
    alignment, where = placed(20, 1.4, (64, 80)), regions(SPEC)
    out = paste(photo, alignment, FRAMES, where, change=changed(light=20))
    inside = mask_in(photo, alignment, where.face) > 0.5
    added = out.astype(np.float32) @ LUMA - photo.astype(np.float32) @ LUMA
    np.testing.assert_allclose(added[inside], 20, atol=1)


def test_frames_that_are_equal_change_nothing_and_other_modes_draw(noise):
    alignment, where = placed(0, 1.5, (64, 80)), regions(SPEC)
    assert np.array_equal(paste(noise, alignment, [FRAMES[0]] * 2, where, change=changed((3, 0))), noise)
    for mode in ("residual", "replace"):
        with_change = paste(noise, alignment, FRAMES, where, mode=mode, change=changed((3, 0)))
        assert np.array_equal(with_change, paste(noise, alignment, FRAMES, where, mode=mode))


def test_nothing_is_looked_for_where_the_change_is_known(astronaut, monkeypatch):
    monkeypatch.setattr(pasting, "estimate_change", lambda *_: pytest.fail("looked for what is known"))
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

"""The contract every editor keeps, on tiny editors with random weights and on the embedded ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates, maximum_filter

from emoedit import hub
from emoedit.backbones.pixels import PixelBackbone, PixelsConfig
from emoedit.backbones.vae import VAEBackbone, VAEConfig
from emoedit.editors import Editor, as_crops, load_editor
from emoedit.faces import paste as pasting
from emoedit.faces.align import Alignment, CropSpec
from emoedit.faces.flow import MAX_FLOW, Change, jacobian
from emoedit.faces.paste import paste
from emoedit.faces.regions import LUMA, regions
from emoedit.photo import PhotoEditor
from emoedit.steering.directions import LatentDirections, mean_differences
from emoedit.types import (
    CheckpointError,
    Control,
    DataError,
    Edit,
    EditError,
    ImageError,
    Inversion,
    UnknownNameError,
)

NAMES = ("neutral", "happy", "sad", "angry", "surprised", "fearful", "disgusted")


def tiny_vae() -> Editor:
    torch.manual_seed(0)
    backbone = VAEBackbone(VAEConfig(resolution=32, widths=(8, 16), latent_dim=8))
    for parameter in backbone.parameters():  # zero-initialised layers would make every edit the same picture
        torch.nn.init.normal_(parameter, std=0.2)
    directions = torch.randn(7, 8)
    directions[0] = 0
    gain, distance, offset = torch.rand(7) + 1, torch.rand(7), torch.randn(7)
    steering = LatentDirections(
        NAMES, directions, gain, means=directions.clone(), readout=torch.randn(7, 8), offset=offset, distance=distance
    )
    return Editor(backbone, [steering], name="tiny")


def smooth(*shape: int, side: int, seed: int) -> torch.Tensor:
    """Planes ``[*shape, side, side]`` without sharp edges, about -1 to 1."""
    rough = torch.rand(int(np.prod(shape)), 1, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(rough, (side, side), mode="bicubic").reshape(*shape, side, side)


def tiny_pixels(name: str = "tiny-pixels", seed: int = 0) -> Editor:
    """Moves pixels and adds light, without rhyme or reason."""
    side = 32
    planes = smooth(len(NAMES), 4, side=side, seed=seed)
    planes *= torch.tensor([0, 0.06, 0.06, 0.2])[:, None, None]
    planes[0] = 0
    steering = LatentDirections(NAMES, planes.flatten(1), torch.linspace(1, 2, len(NAMES)))
    return Editor(PixelBackbone(PixelsConfig(resolution=side)), [steering], name=name)


EDITORS = {
    "tiny-vae": tiny_vae,
    "tiny-pixels": tiny_pixels,
    **{name: (lambda name=name: load_editor(name)) for name in hub.embedded_names()},
}


@pytest.fixture(scope="module", params=sorted(EDITORS))
def editor(request) -> Editor:
    return EDITORS[request.param]()


@pytest.fixture(scope="module")
def crops(editor: Editor) -> torch.Tensor:
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    generator = torch.Generator().manual_seed(1)
    rough = torch.rand(3, channels, 6, 6, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(rough, (side, side), mode="bicubic").clamp(-1, 1)


def some(editor: Editor, count: int) -> list[str]:
    """Emotions that the editor has, other than neutral; the same again where it has few."""
    names = [name for name in editor.emotions if name != "neutral"]
    return [names[n % len(names)] for n in range(count)]


def test_strength_zero_gives_the_source(editor, crops):
    (result,) = editor.edit(editor.invert(crops), [Edit(editor.emotions[-1], 0.0)])
    assert torch.equal(result, crops)


def from_neutral(editor: Editor) -> Editor:
    """The editor, taking every source for neutral: what random crops seem to show does not matter then."""
    (steering,) = editor.steerings
    return Editor(editor.backbone, [LatentDirections(steering.emotions, steering.directions, steering.gain)])


def test_an_edit_changes_the_picture_and_grows_with_strength(editor, crops):
    editor = from_neutral(editor)
    inversion = editor.invert(crops)
    for emotion in editor.emotions:
        if emotion == "neutral":
            continue
        half, full = editor.decode(inversion, [Edit(emotion, 0.5), Edit(emotion, 1.0)])
        before = inversion.extras["reconstruction"]
        small, large = (half - before).abs().mean(), (full - before).abs().mean()
        assert 0 < small < large, emotion


def test_a_batch_equals_a_loop(editor, crops):
    edits = [Edit(name, strength) for name, strength in zip(some(editor, 3), (1.0, 0.5, -1.0), strict=True)]
    together = list(editor.edit(editor.invert(crops), edits, batch_size=8))
    for n in range(len(crops)):
        alone = list(editor.edit(editor.invert(crops[n : n + 1]), edits, batch_size=1))
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[n], atol=2e-4, rtol=0)


def test_a_cached_inversion_equals_a_fresh_one(editor, crops):
    first = editor(crops, "happy", output_type="pt")
    again = editor(None, "happy", inversion=first.inversion, output_type="pt")
    fresh = editor(crops, "happy", output_type="pt")
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, fresh.images)
    assert first.inversion.fingerprint == fresh.inversion.fingerprint
    other = editor.invert(crops.flip(-1))
    assert other.fingerprint != first.inversion.fingerprint


def test_inputs_and_weights_are_never_modified(editor, crops):
    before = crops.clone()
    weights = {k: v.clone() for k, v in editor.backbone.state_dict().items()}
    inversion = editor.invert(crops)
    latent = inversion.latent.clone()
    list(editor.edit(inversion, [Edit("happy", 2.0)]))
    assert torch.equal(crops, before)
    assert torch.equal(inversion.latent, latent)
    assert all(torch.equal(weights[k], v) for k, v in editor.backbone.state_dict().items())


def test_save_then_load_is_bit_equal(editor, crops, tmp_path):
    folder = editor.save_pretrained(tmp_path / "saved")
    again = Editor.from_pretrained(folder)
    edits = [Edit(name, strength) for name, strength in zip(some(editor, 2), (1.0, -0.5), strict=True)]
    for a, b in zip(editor.edit(editor.invert(crops), edits), again.edit(again.invert(crops), edits), strict=True):
        assert torch.equal(a, b)
    assert again.emotions == editor.emotions
    assert (folder / "README.md").read_text()


def test_algebra_is_linear_in_the_control(editor, crops):
    if not all(name in editor.emotions for name in ("happy", "sad")):
        pytest.skip("no such emotions")
    inversion = editor.invert(crops[:1])
    plain = from_neutral(editor)
    mix = plain.control(inversion, [Edit("0.5*happy - sad", 2.0)]).shift
    happy = plain.control(inversion, [Edit("happy")]).shift
    sad = plain.control(inversion, [Edit("sad")]).shift
    torch.testing.assert_close(mix, happy - 2 * sad)
    torch.testing.assert_close(plain.control(inversion, [Edit("shame")]).shift.shape, happy.shape)


def test_neutral_takes_away_what_is_shown_and_nothing_else(editor, crops):
    steering = editor.steerings[0]
    inversion = editor.invert(crops[:1])
    shown = steering.shown(inversion.latent)
    assert float(shown.min()) >= 0
    shift = editor.control(inversion, [Edit("neutral")]).shift
    if steering.means is None:  # it does not look, and takes every source for neutral
        assert not bool(shown.any()) and not bool(shift.any())
    else:
        torch.testing.assert_close(shift, -shown @ steering.means)


def test_what_is_shown_is_not_added_again():
    """On a latent whose expression is known: the target is reached from wherever the source is, at the same place."""
    directions = torch.zeros(3, 4)
    directions[1, 0], directions[2, 1] = 1.0, 1.0
    readout, distance = 20 * directions, torch.tensor([0.0, 20, 20])
    steering = LatentDirections(
        ("neutral", "happy", "sad"),
        directions,
        gain=torch.tensor([0.0, 1.5, 1.5]),
        means=directions.clone(),
        readout=readout,
        offset=-0.5 * distance,
        distance=distance,
    )
    neutral, smiling = torch.zeros(1, 4), directions[1:2] * 1.0
    backbone = tiny_vae().backbone

    def reached(latent: torch.Tensor, emotion: str, strength: float = 1.0) -> list[float]:
        inversion = Inversion(latent)
        return (latent + steering.control(backbone, inversion, [Edit(emotion, strength)]).shift)[0, :2].tolist()

    assert reached(neutral, "happy") == pytest.approx([1.5, 0])
    assert reached(smiling, "happy") == pytest.approx([1.5, 0], abs=1e-3)
    assert reached(smiling, "neutral") == pytest.approx([0, 0], abs=1e-3)
    assert reached(smiling, "neutral", 0.5) == pytest.approx([0.5, 0], abs=1e-3)
    assert reached(smiling, "sad") == pytest.approx([0, 1.5], abs=1e-3)
    assert reached(neutral, "sad", -1) == pytest.approx([0, -1.5])
    assert reached(smiling, "happy", -1) == pytest.approx([-0.5, 0], abs=1e-3)
    assert reached(neutral, "neutral") == pytest.approx([0, 0])


def test_unknown_emotions_and_wrong_counts_are_refused(editor, crops):
    inversion = editor.invert(crops)
    with pytest.raises(UnknownNameError, match="happy"):
        list(editor.edit(inversion, [Edit("hapy")]))
    with pytest.raises(EditError, match="one edit a picture"):
        editor.control(inversion, [Edit("happy")])
    with pytest.raises(EditError):
        Edit("happy", float("nan"))
    with pytest.raises(EditError, match="too large"):
        list(editor.edit(inversion, [Edit("1e300 happy")]))
    with pytest.raises(EditError, match="usual"):
        Edit("happy", 1000)
    with pytest.raises(EditError):
        editor(emotions="happy")
    with pytest.raises(EditError, match="output_type"):
        editor(crops, output_type="numpy")


def test_pictures_are_accepted_in_any_form(editor, crops):
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    levels = ((crops[0] + 1) * 127.5).round().byte()
    array = levels[0].numpy() if channels == 1 else levels.permute(1, 2, 0).numpy()
    from_array, from_pil = as_crops(array, editor.backbone), as_crops([Image.fromarray(array)], editor.backbone)
    assert from_array.shape == (1, channels, side, side)
    assert torch.equal(from_array, from_pil)
    torch.testing.assert_close(from_array[0], crops[0], atol=1 / 127, rtol=0)
    pictures = editor(array, some(editor, 2), strength=[0.5, 1]).images
    assert len(pictures) == 4
    assert pictures[0].size == (side, side)
    for bad in (crops[:, :, 1:], crops * 3, crops.long(), crops * float("nan"), []):
        with pytest.raises(ImageError):
            editor.invert(bad)


def test_damaged_folders_are_refused(tmp_path):
    editor = tiny_vae()

    def fresh():
        return editor.save_pretrained(tmp_path / "e")

    folder = fresh()
    weights = folder / "backbone" / hub.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 255
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        Editor.from_pretrained(folder)

    folder = fresh()
    (folder / "steering_0" / hub.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        Editor.from_pretrained(folder)

    for content, match in (("{", "json"), ("[]", "object"), ("{}", "entry")):
        folder = fresh()
        (folder / hub.EDITOR).write_text(content)
        with pytest.raises(CheckpointError, match=match):
            Editor.from_pretrained(folder)

    folder = fresh()
    config = json.loads((folder / "backbone" / hub.CONFIG).read_text())
    (folder / "backbone" / hub.CONFIG).write_text(json.dumps({**config, "latent_dim": 9}))
    with pytest.raises(CheckpointError, match="expected"):
        Editor.from_pretrained(folder)
    (folder / "backbone" / hub.CONFIG).write_text(json.dumps({**config, "colour": 9}))
    with pytest.raises(CheckpointError, match="configuration"):
        Editor.from_pretrained(folder)


def test_weights_are_safetensors_of_another_width_or_nothing(tmp_path):
    editor = tiny_vae()
    folder = editor.save_pretrained(tmp_path / "e")
    wide = LatentDirections(("happy",), torch.randn(1, 9))
    crops = torch.zeros(1, 1, 32, 32)
    with pytest.raises(CheckpointError, match="latent"):
        list(Editor(editor.backbone, [wide]).edit(editor.invert(crops), [Edit("happy")]))
    (folder / "backbone" / hub.WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match="safetensors"):
        VAEBackbone.from_pretrained(folder / "backbone")


def test_unknown_editors_are_refused_with_what_there_is(tmp_path):
    with pytest.raises((UnknownNameError, CheckpointError), match="vae"):
        load_editor("vea")
    with pytest.raises(CheckpointError):
        load_editor(tmp_path)


def test_controls_add():
    one, two = torch.ones(1, 2), torch.full((1, 2), 2.0)
    total = Control(shift=one) + Control(shift=two) + Control(delta_h=lambda s: s)
    assert torch.equal(total.shift, one + two)
    assert (total + Control(delta_h=lambda s: 2 * s)).delta_h(3) == 9
    with pytest.raises(EditError, match="context"):
        Control(context=one) + Control(context=two)


def test_uniform_pictures_do_not_become_noise(editor):
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    flat = torch.zeros(1, channels, side, side)
    inversion = editor.invert(flat)
    (result,) = editor.edit(inversion, [Edit("happy")])
    assert bool(result.isfinite().all())
    known = editor.changes(inversion, Edit("happy"))
    light = 0.5 if known is None else np.abs(known[0].remainder).max() / 127.5  # what is added, whatever is there
    assert np.abs(result.numpy()).max() <= light + 1e-6


# --- pixels that are moved and lit ----------------------------------------------------------------------------------


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


@pytest.mark.skipif("pixel_mean" not in hub.embedded_names(), reason="no embedded references in this checkout")
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


# --- class means ----------------------------------------------------------------------------------------------------


def test_mean_differences_by_hand():
    """Each data set counts by trust and by the harmonic mean of its counts; too few pictures say nothing."""
    one = {"neutral": torch.tensor([[1.0, 2.0]]), "happy": torch.tensor([[2.0, 4.0]])}
    two = {"neutral": torch.tensor([[0.0, 0.0]]), "happy": torch.tensor([[4.0, 8.0]]), "sad": torch.tensor([[1.0, 1]])}
    few = {"neutral": torch.tensor([[0.0, 0.0]]), "happy": torch.tensor([[99.0, 99.0]])}
    sets = {
        "one": ({"neutral": 30, "happy": 60}, one),
        "two": ({"neutral": 40, "happy": 40, "sad": 20}, two),
        "few": ({"neutral": 500, "happy": 19}, few),
    }
    found = mean_differences(sets, ["sad", "happy"], trust={"one": 1.0, "two": 0.5, "few": 1.0})
    first, second = 30 * 60 / 90, 0.5 * 40 * 40 / 80
    happy = (first * torch.tensor([[1.0, 2.0]]) + second * torch.tensor([[4.0, 8.0]])) / (first + second)
    torch.testing.assert_close(found, torch.stack([torch.tensor([[1.0, 1.0]]), happy]))
    assert found.shape == (2, 1, 2)
    trust = {"one": 1.0, "two": 1.0, "few": 1.0}
    with pytest.raises(DataError, match="no data set has 20 pictures of 'angry' and of neutral"):
        mean_differences(sets, ["angry"], trust=trust)
    with pytest.raises(DataError, match="no data set has 21 pictures of 'sad'"):
        mean_differences(sets, ["sad"], trust=trust, min_count=21)

"""The contract every editor keeps, on tiny editors with random weights and on the embedded ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit import hub
from emoedit.backbones.vae import VAEBackbone, VAEConfig
from emoedit.editors import Editor, as_crops, load_editor
from emoedit.steering.directions import LatentDirections
from emoedit.types import CheckpointError, Control, Edit, EditError, ImageError, Inversion, UnknownNameError

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


EDITORS = {"tiny-vae": tiny_vae, **{name: (lambda name=name: load_editor(name)) for name in hub.embedded_names()}}


@pytest.fixture(scope="module", params=sorted(EDITORS))
def editor(request) -> Editor:
    return EDITORS[request.param]()


@pytest.fixture(scope="module")
def crops(editor: Editor) -> torch.Tensor:
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    generator = torch.Generator().manual_seed(1)
    smooth = torch.rand(3, channels, 6, 6, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(smooth, (side, side), mode="bicubic").clamp(-1, 1)


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
    edits = [Edit("happy"), Edit("sad", 0.5), Edit("angry", -1.0)]
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
    edits = [Edit("happy"), Edit("sad", -0.5)]
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
    pictures = editor(array, ["happy", "sad"], strength=[0.5, 1]).images
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
    (result,) = editor.edit(editor.invert(flat), [Edit("happy")])
    assert bool(result.isfinite().all())
    assert np.abs(result.numpy()).max() < 0.5

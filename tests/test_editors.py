"""The contract every editor keeps: tiny editors of each kind with random weights, saved and loaded, and every embedded
one. What only one kind of steering or backbone promises is tested beside its own tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.editors import Editor, as_crops, list_editors, load_editor
from emoedit.emotions import list_emotions, resolve
from emoedit.io import checkpoints
from emoedit.steering.directions import LatentDirections
from emoedit.steering.hspace import Directions, HSpace
from emoedit.types import CheckpointError, Control, Edit, EditError, ImageError, Inversion, UnknownNameError
from tests.fixtures.editors import TINY, from_neutral, smooth, tiny_asyrp, tiny_vae


def brief(editor: Editor) -> Editor:
    """The editor, in fewer steps where it takes steps: the contract does not depend on how many."""
    if "steps" not in editor.backbone.settings:
        return editor
    steps = min(editor.backbone.steps, 4)
    return Editor(editor.backbone.with_sampling(steps=steps), editor.steerings, name=editor.name)


@pytest.fixture(scope="module", params=[*TINY, *list_editors(), *checkpoints.reference_names()])
def editor(request, tmp_path_factory) -> Editor:
    """As it is used: loaded from its folder."""
    name = request.param
    if name in TINY:
        name = TINY[name]().save_pretrained(tmp_path_factory.mktemp("editors") / name)
    return brief(load_editor(name, device="cpu"))


@pytest.fixture(scope="module")
def crops(editor: Editor) -> torch.Tensor:
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    generator = torch.Generator().manual_seed(1)
    rough = torch.rand(2, channels, 6, 6, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(rough, (side, side), mode="bicubic").clamp(-1, 1)


@pytest.fixture(scope="module")
def inversion(editor: Editor, crops: torch.Tensor) -> Inversion:
    return editor.invert(crops)


@pytest.fixture(scope="module")
def edits(editor: Editor) -> list[Edit]:
    first, second = some(editor, 2)
    return [Edit(first), Edit(second, 0.5), Edit(first, -1.0)]


@pytest.fixture(scope="module")
def edited(editor: Editor, inversion: Inversion, edits: list[Edit]) -> list[torch.Tensor]:
    """What came of the edits, all drawn in one batch."""
    return list(editor.edit(inversion, edits))


def some(editor: Editor, count: int) -> list[str]:
    """Emotions that the editor has, other than neutral; the same again where it has few."""
    names = [name for name in editor.emotions if name != "neutral"]
    return [names[n % len(names)] for n in range(count)]


def changes(editor: Editor, inversion: Inversion, *edits: Edit) -> list[torch.Tensor]:
    """What each edit changes of the reconstruction."""
    return [drawn - inversion.extras["reconstruction"] for drawn in editor.decode(inversion, edits)]


def same(first: torch.Tensor, second: torch.Tensor) -> None:
    """As far as rounding, which depends on the batch, lets them be."""
    torch.testing.assert_close(first, second, atol=max(2e-4, 0.01 * float(second.abs().max())), rtol=0)


# --- strengths and names --------------------------------------------------------------------------------------------


def test_strength_zero_gives_the_source(editor, crops, inversion, edited):
    emotion = editor.emotions[-1]
    for zero in (0.0, -0.0):
        (source,) = editor.edit(inversion, [Edit(emotion, zero)])
        assert torch.equal(source, crops)
        assert not changes(editor, inversion, Edit(emotion, zero))[0].any()
    assert not any(torch.equal(result, crops) for result in edited)


def test_an_edit_changes_the_picture_and_grows_with_strength(editor, inversion):
    editor, one = from_neutral(editor), inversion[:1]
    names = [name for name in editor.emotions if name != "neutral"]
    found = changes(editor, one, *(Edit(name, strength) for name in names for strength in (0.5, 1.0)))
    for name, half, whole in zip(names, found[::2], found[1::2], strict=True):
        assert 0 < float(half.abs().mean()) < float(whole.abs().mean()), name


def test_small_edits_are_linear_in_strength(editor, inversion):
    """Half the strength gives half the change, and the opposite strength the opposite change."""
    editor, (name,) = from_neutral(editor), some(editor, 1)
    half, whole, opposite = changes(editor, inversion[:1], *(Edit(name, s) for s in (0.02, 0.04, -0.04)))
    assert float((2 * half - whole).norm() / whole.norm()) < 0.1
    # Pixels moved left and right are taken from different neighbours: the mirror image is not exact for all.
    assert float(torch.cosine_similarity(-opposite.flatten(), whole.flatten(), 0)) > 0.8


def test_every_strength_gives_a_picture(editor, crops, inversion):
    (name,) = some(editor, 1)
    results = list(editor.edit(inversion[:1], [Edit(name, strength) for strength in (-2, -1, 0.5, 1, 2.5)]))
    for result in results:
        assert result.shape == crops[:1].shape and result.dtype == torch.float32
        assert bool(result.isfinite().all()) and float(result.abs().max()) <= 1
    assert len({result.numpy().tobytes() for result in results}) == len(results)


def nuanced(editor: Editor) -> list[tuple[str, str]]:
    """A name that the editor was not fitted for, and the mixture it stands for, if it can mix any."""
    for name in list_emotions():
        try:
            weights = resolve(name, editor.emotions)
        except UnknownNameError:
            continue
        if len(weights) > 1:
            terms = "".join(f" {'-' if w < 0 else '+'} {abs(w)!r} {part}" for part, w in weights.items())
            return [(name, terms.removeprefix(" + "))]
    return []


def test_a_mixture_is_the_algebra_it_stands_for(editor, inversion):
    one, (a, b) = inversion[:1], some(editor, 2)
    pairs = [(Edit(f"{a} - 2 {a}", -1.0), Edit(a)), (Edit(f"0.5*{a} + {b}", 0.5), Edit(f"0.25 {a} + 0.5*{b}"))]
    pairs += [(Edit(name), Edit(mixture)) for name, mixture in nuanced(editor)]
    found = changes(editor, one, *(edit for pair in pairs for edit in pair))
    for first, second in zip(found[::2], found[1::2], strict=True):
        same(first, second)
        assert second.any()
    (nothing,) = changes(editor, one, Edit(f"{a} - {a}"))
    assert float(nothing.abs().max()) < 0.01 * float(found[0].abs().max()) + 2e-4


def test_unknown_emotions_and_wrong_counts_are_refused(editor, crops, inversion):
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
        editor(None, "happy", strength=0, inversion=inversion, output_type="numpy")


# --- the same again -------------------------------------------------------------------------------------------------


def test_a_batch_equals_a_loop(editor, crops, edits, edited):
    for n in range(len(crops)):
        alone = editor.edit(editor.invert(crops[n : n + 1]), edits, batch_size=1)
        for one, many in zip(alone, edited, strict=True):
            same(one[0], many[n])


def test_the_same_seed_gives_the_same_picture_whatever_the_batch(editor, crops, edits):
    def seeded(pictures: torch.Tensor) -> list[torch.Tensor]:
        opened = editor.invert(pictures, generator=torch.Generator().manual_seed(7))
        return list(editor.edit(opened, [edits[0], Edit("happy", 0)]))

    (first, source), (again, _), (together, _) = seeded(crops[1:]), seeded(crops[1:]), seeded(crops)
    assert torch.equal(first, again)
    assert torch.equal(source, crops[1:])
    same(first, together[1:])


def test_a_cached_inversion_equals_a_fresh_one(editor, crops):
    one = crops[:1]
    first = editor(one, "happy", output_type="pt")
    again = editor(None, "happy", inversion=first.inversion, output_type="pt")
    fresh = editor(one, "happy", output_type="pt")
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, fresh.images)
    assert first.inversion.fingerprint == fresh.inversion.fingerprint


def test_save_then_load_is_bit_equal(editor, crops, inversion, edits, edited, tmp_path):
    folder = editor.save_pretrained(tmp_path / "saved")
    again = load_editor(folder, device="cpu")
    opened = again.invert(crops)
    assert opened.fingerprint == inversion.fingerprint
    for a, b in zip(edited, again.edit(opened, edits), strict=True):
        assert torch.equal(a, b)
    assert (again.emotions, again.name) == (editor.emotions, editor.name)
    assert (folder / "README.md").read_text()


# --- nothing is touched ---------------------------------------------------------------------------------------------


@contextmanager
def untouched(editor: Editor, *tensors: torch.Tensor) -> Iterator[None]:
    """Weights, modes, hooks, random numbers and the given tensors are afterwards what they were before."""
    parts = (editor.backbone, *editor.steerings)
    modules = [module for part in parts for module in part.modules()]

    def state() -> tuple[list, list[torch.Tensor]]:
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in modules]
        modes = [m.training for m in modules], [p.requires_grad for part in parts for p in part.parameters()]
        weights = [value.clone() for part in parts for value in part.state_dict().values()]
        world = torch.is_grad_enabled(), torch.get_default_dtype(), editor.name, editor.emotions
        return [hooks, modes, world], [torch.get_rng_state(), *weights, *(tensor.clone() for tensor in tensors)]

    before, values = state()
    yield
    after, values_after = state()
    assert after == before
    assert all(torch.equal(a, b) for a, b in zip(values, values_after, strict=True))


def test_inputs_weights_and_the_worlds_random_numbers_are_never_modified(editor, crops):
    one = crops[:1]
    with untouched(editor, crops):
        opened = editor.invert(one, generator=torch.Generator().manual_seed(3))
    with untouched(editor, crops, opened.latent, *opened.extras.values()):
        list(editor.edit(opened, [Edit("happy", 2.0)]))
        editor.changes(opened, Edit("happy"))


def test_after_an_exception_everything_is_as_before(editor, crops, inversion, edits, edited):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with untouched(editor, crops, inversion.latent, *inversion.extras.values()):
        with pytest.raises(KeyboardInterrupt):
            editor.invert(crops, callback=interrupt)
        with pytest.raises(KeyboardInterrupt):
            editor.backbone.decode(inversion, editor.control(inversion, edits[:1] * len(crops)), callback=interrupt)
        with pytest.raises(UnknownNameError):
            list(editor.edit(inversion, [edits[0], Edit("hapy")]))
        with pytest.raises(EditError):
            list(editor.edit(inversion, [edits[0], Edit("1e300 happy")]))
        half_way = editor.edit(inversion[:1], edits, batch_size=1)
        next(half_way)
        half_way.close()
    for a, b in zip(edited, editor.edit(inversion, edits), strict=True):
        assert torch.equal(a, b)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_are_accepted_in_any_form(editor, crops):
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    levels = ((crops[0] + 1) * 127.5).round().byte()
    array = levels[0].numpy() if channels == 1 else levels.permute(1, 2, 0).numpy()
    from_array, from_pil = as_crops(array, editor.backbone), as_crops([Image.fromarray(array)], editor.backbone)
    assert from_array.shape == (1, channels, side, side)
    assert torch.equal(from_array, from_pil)
    torch.testing.assert_close(from_array[0], crops[0], atol=1 / 127, rtol=0)
    found = editor([array, Image.fromarray(array)], some(editor, 2), strength=[0, 0.5])
    assert len(found.images) == 8 and found.images[0].size == (side, side)
    assert found.images[0].tobytes() == found.images[1].tobytes() == array.tobytes() != found.images[2].tobytes()
    assert [(edit.emotion, edit.strength) for edit in found.edits] == [
        (name, strength) for name in some(editor, 2) for strength in (0, 0.5)
    ]
    for bad in (crops[:, :, 1:], crops * 3, crops.long(), crops * float("nan"), []):
        with pytest.raises(ImageError):
            editor.invert(bad)


def test_uniform_pictures_do_not_become_noise(editor):
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    inversion = editor.invert(torch.zeros(1, channels, side, side))
    (result,) = editor.edit(inversion, [Edit("happy")])
    assert bool(result.isfinite().all())
    known = editor.changes(inversion, Edit("happy"))
    light = 0.5 if known is None else np.abs(known[0].remainder).max() / 127.5  # what is added, whatever is there
    assert np.abs(result.numpy()).max() <= light + 1e-6


def test_changes_that_are_known_have_the_size_of_the_crop(editor, crops, inversion):
    known = editor.changes(inversion, Edit("happy"))
    if known is not None:
        side = editor.backbone.crop.resolution
        assert len(known) == len(crops)
        assert all(c.flow.shape == (side, side, 2) and c.remainder.shape == (side, side) for c in known)


# --- which inversion it is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tiny-vae", "tiny-pixels", "tiny-asyrp"])
def test_the_fingerprint_is_of_pixels_settings_weights_and_seed(kind):
    editor = TINY[kind]()
    side = editor.backbone.crop.resolution
    crops = smooth(1, 1, side=side, seed=1).clamp(-1, 1)

    def fingerprint(of: Editor, pictures: torch.Tensor = crops, seed: int | None = None) -> str:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return of.invert(pictures, generator=generator).fingerprint

    first = fingerprint(editor)
    assert fingerprint(editor) == first and fingerprint(TINY[kind]()) == first
    renamed = Editor(editor.backbone, from_neutral(editor).steerings, name="other")
    assert fingerprint(renamed) == first  # what is done with an inversion does not make it another
    found = [first, fingerprint(editor, crops.flip(-1)), fingerprint(editor, seed=1), fingerprint(editor, seed=2)]
    assert fingerprint(editor, seed=2) == found[-1]
    config = editor.backbone.to_config()
    setting = {"std": 0.3} if "std" in config else {"crop_scale": 0.5}
    other = type(editor.backbone).from_config({**config, **setting})
    other.load_state_dict(editor.backbone.state_dict())
    found.append(fingerprint(Editor(other, editor.steerings)))
    if kind == "tiny-asyrp":
        for settings in ({"steps": 5}, {"t_edit": 200}, {"exact": False}, {"precision": "bfloat16"}):
            found.append(fingerprint(Editor(editor.backbone.with_sampling(**settings), editor.steerings)))
    weights = list(editor.backbone.parameters())
    for parameter in weights[:1]:
        with torch.no_grad():
            parameter[0] += 1  # in place: the editor that has hashed it before has to see it
        found.append(fingerprint(editor))
        parameter.data = parameter.data.clone() + 1
        found.append(fingerprint(editor))
    assert len(set(found)) == len(found) == 5 + 4 * (kind == "tiny-asyrp") + 2 * bool(weights)


def test_an_editor_loaded_in_inference_mode_works():
    with torch.inference_mode():
        editor = tiny_vae()
    crops = smooth(1, 1, side=32, seed=1).clamp(-1, 1)
    first = editor.invert(crops)
    assert first.fingerprint == tiny_vae().invert(crops).fingerprint
    with torch.inference_mode():
        next(editor.backbone.parameters())[0] += 1  # such tensors do not count their versions
    assert editor.invert(crops).fingerprint != first.fingerprint


def test_other_noise_gives_another_picture_where_noise_is_drawn():
    editor = TINY["tiny-asyrp-noise"]()
    crops = smooth(1, 3, side=16, seed=1).clamp(-1, 1)

    def drawn(generator: torch.Generator | None) -> torch.Tensor:
        return next(editor.decode(editor.invert(crops, generator=generator), [Edit("happy")]))

    results = [drawn(torch.Generator().manual_seed(seed)) for seed in (0, 1, 1)]
    assert torch.equal(results[1], results[2])
    assert float((results[0] - results[1]).abs().max()) > 0.01
    assert torch.equal(drawn(None), drawn(None))


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tiny-vae", "tiny-asyrp"])
def test_damaged_folders_are_refused(tmp_path, kind):
    editor = TINY[kind]()

    def fresh():
        return editor.save_pretrained(tmp_path / "e")

    names = [path.relative_to(fresh()) for path in fresh().rglob("*.safetensors")]
    assert len(names) == 2
    for name in names:
        weights = fresh() / name
        data = bytearray(weights.read_bytes())
        data[-1] ^= 255
        weights.write_bytes(data)
        with pytest.raises(CheckpointError, match="SHA-256"):
            Editor.from_pretrained(tmp_path / "e")
        weights.unlink()
        with pytest.raises(CheckpointError, match="missing"):
            Editor.from_pretrained(tmp_path / "e")

    description = json.loads((fresh() / checkpoints.EDITOR).read_text())
    for content, match in (
        ("{", "json"),
        ("[]", "object"),
        ("{}", "entry"),
        (json.dumps({**description, "sha256": ["x"]}), "'sha256' must be an object"),
        (json.dumps({**description, "backbone": {"kind": "vea", "folder": "backbone"}}), "vea.*did you mean 'vae'"),
    ):
        (fresh() / checkpoints.EDITOR).write_text(content)
        with pytest.raises(CheckpointError, match=match):
            Editor.from_pretrained(tmp_path / "e")

    folder = fresh()
    config = json.loads((folder / "backbone" / checkpoints.CONFIG).read_text())
    (folder / "backbone" / checkpoints.CONFIG).write_text(json.dumps({**config, "colour": 9}))
    with pytest.raises(CheckpointError, match="configuration"):
        Editor.from_pretrained(folder)
    wider = {"latent_dim": 9} if kind == "tiny-vae" else {"patch": 1}
    (folder / "backbone" / checkpoints.CONFIG).write_text(json.dumps({**config, **wider}))
    with pytest.raises(CheckpointError, match="expected"):
        Editor.from_pretrained(folder)


def test_what_a_folder_could_not_name_is_not_saved(tmp_path):
    class Own(LatentDirections):
        pass

    plain = tiny_vae()
    plain.save_pretrained(tmp_path / "e")
    editor = Editor(plain.backbone, [Own(("happy",), torch.randn(1, 8))])
    with pytest.raises(EditError, match="Own is not registered"):
        editor.save_pretrained(tmp_path / "e")
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    assert load_editor(tmp_path / "e").name == "tiny"


def test_steerings_of_another_backbone_are_refused():
    vae, asyrp = tiny_vae(), TINY["tiny-asyrp"]()
    for backbone, steerings in ((vae.backbone, asyrp.steerings), (asyrp.backbone, vae.steerings)):
        mixed = Editor(backbone, steerings)
        with pytest.raises(CheckpointError):
            list(mixed.edit(mixed.invert(torch.zeros(1, 1, 32, 32)), [Edit("happy")]))


def test_two_steerings_of_one_backbone_add(tmp_path):
    """And share the emotions that both have; each has a folder of its own."""
    asyrp = TINY["tiny-asyrp"]()
    (first,) = asyrp.steerings
    second = HSpace(("happy", "calm"), [Directions(torch.randn(1, 16)), Directions(torch.zeros(1, 16))], train_steps=6)
    both = Editor(asyrp.backbone, [first, second], name="both")
    assert both.emotions == ("happy",)
    inversion = both.invert(smooth(1, 1, side=32, seed=2).clamp(-1, 1))
    few = Edit("happy", 0.02)
    alone = [changes(Editor(asyrp.backbone, [one]), inversion, few)[0] for one in (first, second)]
    (together,) = changes(both, inversion, few)
    assert float((together - sum(alone)).norm() / together.norm()) < 0.1
    again = load_editor(both.save_pretrained(tmp_path / "both"), device="cpu")
    same(changes(again, again.invert(inversion.extras["source"]), few)[0], together)


@pytest.mark.skipif("vae" not in checkpoints.embedded_names(), reason="no embedded VAE in this checkout")
def test_unknown_editors_are_refused_with_what_there_is(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'vae'"):
        load_editor("vea")
    with pytest.raises(UnknownNameError, match="known: .*vae.*no folder of that name"):
        load_editor("nothing-like-it")
    with pytest.raises(CheckpointError):
        load_editor(tmp_path)


def test_controls_add():
    one, two = torch.ones(1, 2), torch.full((1, 2), 2.0)
    total = Control(shift=one) + Control(shift=two) + Control(delta_h=lambda s: s)
    assert torch.equal(total.shift, one + two)
    assert (total + Control(delta_h=lambda s: 2 * s)).delta_h(3) == 9
    with pytest.raises(EditError, match="context"):
        Control(context=one) + Control(context=two)


def test_an_editor_can_share_another_ones_backbone(tmp_path):
    owner = tiny_asyrp()
    owner.save_pretrained(tmp_path / "owner")
    x = torch.zeros(1, 1, owner.backbone.crop.resolution, owner.backbone.crop.resolution)
    other = Editor(owner.backbone.with_sampling(t_boost=100), owner.steerings, name="other")
    other.save_pretrained(tmp_path / "other", backbone_of=tmp_path / "owner")
    assert not (tmp_path / "other" / "backbone").exists()
    found = load_editor(tmp_path / "other", device="cpu")
    assert found.backbone.config == other.backbone.config and found.name == "other"
    assert torch.equal(found.invert(x).latent, other.invert(x).latent)
    own = load_editor(tmp_path / "owner", device="cpu")
    own.backbone.unet.conv_in.weight.data += 1
    with pytest.raises(EditError, match="other weights"):
        own.save_pretrained(tmp_path / "new", backbone_of=tmp_path / "owner")
    assert not (tmp_path / "new").exists()
    with pytest.raises(EditError, match="other weights"):
        tiny_vae().save_pretrained(tmp_path / "new", backbone_of=tmp_path / "owner")
    path = tmp_path / "other" / checkpoints.EDITOR
    description = json.loads(path.read_text())
    for part, match in (
        ({"settings": {"colour": 1}}, "colour: no settings"),
        ({"editor": str(tmp_path / "other")}, "which has none"),
        ({"kind": "vae"}, "needs the vae of"),
        ({"editor": str(tmp_path / "nobody")}, "no folder"),
    ):
        path.write_text(json.dumps({**description, "backbone": {**description["backbone"], **part}}))
        with pytest.raises(CheckpointError, match=match):
            load_editor(tmp_path / "other", device="cpu")


def test_a_vae_of_luminance_says_so_of_colour():
    with pytest.raises(ImageError, match=r"crops are \(1, 3, 32, 32\), expected luminance, \[N, 1, 32, 32\]"):
        tiny_vae().backbone.invert(torch.zeros(1, 3, 32, 32))

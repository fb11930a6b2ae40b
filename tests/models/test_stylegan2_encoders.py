"""Encoders of pSp and e4e: what they find, in which files, and for which generators."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emoedit.editors import load_editor
from emoedit.models import identify
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.models.stylegan2.encoders import DELTAS, StyleEncoder, read_encoder
from emoedit.steering.wspace import read_boundary
from emoedit.types import CheckpointError, Edit, EditError
from tests.fixtures.style_encoder import KINDS, by_formula, wave, write_encoder
from tests.fixtures.stylegan2 import faces, smooth, tiny

# What the authors' code finds with these weights in a picture of 32 pixels (psp_encoders.py of omertov/encoder4editing,
# its fixed channels 64, 128, 256, 512 made 16, 32, 48, 64 and its heads three convolutions shorter).
EVERY = 7  # th value is compared
FOUND = {
    "psp": (
        *(1.0665, 0.52536, 1.39139, 1.21118, 0.85419, 1.03607, 1.02964, 1.37324, 0.2374, 0.91667, 0.88471, 1.11469),
        *(-1.09667, -1.26596, -1.11476, -0.7332, -0.24378, -0.90062, -0.67019, -1.11579, -0.61336, -0.55098, -0.39362),
    ),
    "e4e": (
        *(1.0665, 0.52536, 1.58451, 0.65391, -0.32314, 0.11826, 0.98309, 2.11535, 1.3039, 1.44204, 1.07783, 0.55742),
        *(-1.09667, -2.04887, -1.1578, -0.0707, 0.76336, -0.18881, -0.56444, -1.81857, -1.71003, -1.3339, -0.43666),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_finds_what_its_authors_code_finds(kind):
    encoder = StyleEncoder((16, 32, 48, 64), 8, 10, 1, deltas=DELTAS[KINDS[kind]]).eval()
    state = by_formula(8, 10)
    assert encoder.state_dict().keys() == state.keys()
    encoder.load_state_dict(state)
    with torch.no_grad():
        found = encoder(torch.from_numpy(wave((2, 3, 32, 32), 1.0)).float())
    assert found.flatten()[::EVERY].tolist() == pytest.approx(FOUND[kind], abs=1e-4)


def test_published_widths_are_those_of_the_papers():
    """IR-SE50 of 64 to 512 channels, 18 heads over maps of 16, 32 and 64 pixels for pictures of 256."""
    with torch.device("meta"):
        encoder = StyleEncoder((64, 128, 256, 512), 512, 18, 4, deltas=True)
    counts = [
        sum(layer.weight.ndim == 4 for layer in head.convs if hasattr(layer, "weight")) for head in encoder.styles
    ]
    assert encoder.side == 256 and counts == [4] * 3 + [5] * 4 + [6] * 11
    assert encoder.state_dict()["body.21.res_layer.1.weight"].shape == (512, 256, 3, 3)
    assert encoder.state_dict()["body.23.res_layer.5.fc1.weight"].shape == (32, 512, 1, 1)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Backbone:
    """Of 32 pixels, in colour."""
    return tiny(resolution=32, widths=(12, 12, 8, 8), channels=3, encoder_widths=None, optimise_steps=1)


@pytest.fixture(params=KINDS)
def file(request, generator, tmp_path) -> Path:
    return write_encoder(tmp_path / f"{request.param}_ffhq_encode.pt", request.param, generator)


def test_a_file_is_generator_and_encoder_in_one(file, generator):
    model = StyleGAN2Backbone.load(file)
    expected = generator.state_dict()
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    assert own.keys() == expected.keys() and all(torch.equal(own[name], expected[name]) for name in own)
    assert model.config.optimise_steps == 0 and isinstance(model.encoder, StyleEncoder)
    x = smooth(2, 3, 32)
    found = model.invert(x)
    assert found.latent.shape == (2, 8, 16) and "noise" not in found.extras
    with torch.no_grad():
        torch.testing.assert_close(found.latent, model.encoder(x) + generator.mapping.w_avg)
    torch.testing.assert_close(model.invert(x[1:]).latent, found.latent[1:])
    more = StyleGAN2Backbone.load(file, optimise_steps=60)  # from where the encoder starts
    drawn = faces(generator, 1)
    start, end = ((m.decode(m.invert(drawn)) - drawn).square().mean() for m in (model, more))
    assert end < start


def test_where_an_encoder_starts(file, generator, tmp_path):
    """From the mean in the file, from the generator's own, or from nothing, as its training did."""
    x = smooth(1, 3, 32)
    codes = read_encoder(file).encoder(x)
    kind = next(kind for kind in KINDS if file.name.startswith(kind))
    mean = torch.linspace(-1, 1, 8 * 16).view(8, 16)
    for changes, added in (
        ({"latent_avg": mean}, mean),
        ({"latent_avg": None}, generator.mapping.w_avg),
        ({"start_from_latent_avg": False}, torch.zeros(16)),
    ):
        other = write_encoder(tmp_path / "other.pt", kind, generator, **changes)
        found = StyleGAN2Backbone.from_file(file, encoder=other).invert(x).latent
        torch.testing.assert_close(found, codes + added)


def test_an_encoder_for_a_generator_of_another_file(file, generator, tmp_path, recwarn):
    generator.save_pretrained(tmp_path / "generator")
    boundary = tmp_path / "smile.pt"
    torch.save(torch.eye(16)[:1], boundary)  # as e4e publishes them
    how = {"model": tmp_path / "generator", "boundaries": {"happy": boundary}, "device": "cpu"}
    editor = load_editor("stylegan2", encoder=str(file), **how)
    assert not recwarn and editor.emotions == ("happy",) and editor.backbone.config.optimise_steps == 0
    x = smooth(1, 3, 32)
    still, happy = editor.edit(editor.invert(x), [Edit("happy", 0), Edit("happy")])
    assert torch.equal(still, x) and not torch.equal(happy, x)
    again = load_editor(editor.save_pretrained(tmp_path / "mine"), device="cpu")
    assert torch.equal(again.invert(x).latent, editor.invert(x).latent)
    assert (tmp_path / "mine" / "editor.json").stat().st_size < 5000
    assert load_editor(file, boundaries=how["boundaries"], device="cpu").name == "stylegan2"


def test_generators_that_an_encoder_was_not_made_for(file, tmp_path):
    wide = tiny(resolution=64, widths=(8,) * 5, channels=3, encoder_widths=None, optimise_steps=1)
    wide.save_pretrained(tmp_path / "wide")
    with pytest.raises(CheckpointError, match=r"finds w\+ of 8 styles, 16 wide: .* of 32 pixels. This one draws 64"):
        StyleGAN2Backbone.load(tmp_path / "wide", encoder=file)
    tiny(resolution=32, widths=(8,) * 4, encoder_widths=(8,) * 3).save_pretrained(tmp_path / "grey")
    with pytest.raises(CheckpointError, match="in colour, and this generator draws luminance alone"):
        StyleGAN2Backbone.load(tmp_path / "grey", encoder=file)
    other = tiny(resolution=32, widths=(8,) * 4, channels=3, encoder_widths=None, optimise_steps=1)
    with torch.no_grad():
        other.mapping.layers[0].weight.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    with pytest.warns(UserWarning, match="trained with a generator of other weights"):
        StyleGAN2Backbone.load(tmp_path / "other", encoder=file)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"encoder_type": "BackboneEncoderUsingLastLayerIntoW"},
            "encoder_type is 'BackboneEncoder.*GradualStyleEncoder",
        ),
        ({"opts": None}, "encoder_type is None"),
        ({"latent_avg": torch.zeros(7)}, r"latent_avg is \(7,\), expected \(8, 16\)"),
        (
            {"state_dict": {"decoder.input.input": torch.zeros(1)}},
            "holds state_dict, opts, latent_avg; expected a",
        ),
    ],
)
def test_files_of_other_kinds_are_refused(generator, tmp_path, changes, match):
    path = write_encoder(tmp_path / "x.pt", "e4e", generator, **changes)
    with pytest.raises(CheckpointError, match=match):
        read_encoder(path)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("body.7.res_layer.1.weight", None, r"body\.7\.res_layer\.1\.weight is missing"),
        ("body.8.res_layer.1.weight", None, r"1 missing \(body\.8\.res_layer\.1\.weight\)"),
        ("styles.2.convs.0.weight", (16, 64, 5, 5), r"styles\.2\.convs\.0\.weight is \(16, 64, 5, 5\), expected"),
        ("styles.8.convs.0.weight", (1,), r"1 unexpected \(styles\.8"),
        ("input_layer.0.weight", (16, 6, 3, 3), "takes 6 channels; expected 3"),
        ("input_layer.2.weight", "nan", "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(generator, tmp_path, name, value, match):
    state = {f"encoder.{key}": tensor for key, tensor in by_formula(16, 8).items()}
    if value is None:
        del state[f"encoder.{name}"]
    else:
        shape = state[f"encoder.{name}"].shape if value == "nan" else value
        state[f"encoder.{name}"] = torch.full(shape, torch.nan if value == "nan" else 0.0)
    path = write_encoder(tmp_path / "x.pt", "psp", generator, state_dict=state)
    with pytest.raises(CheckpointError, match=match):
        read_encoder(path)


def test_an_encoder_that_changes_faces_is_told(generator, tmp_path):
    path = write_encoder(tmp_path / "psp_ffhq_frontalization.pt", "psp", generator, dataset_type="ffhq_frontalize")
    with pytest.warns(UserWarning, match="trained for 'ffhq_frontalize', not to find pictures as they are"):
        read_encoder(path)


def test_files_say_what_they_are_and_where_they_belong(file, generator, tmp_path):
    assert identify.file(file) == "stylegan2"
    alone = {f"encoder.{key}": tensor for key, tensor in by_formula(16, 8).items()}
    path = write_encoder(tmp_path / "alone.pt", "e4e", generator, state_dict=alone)
    with pytest.raises(CheckpointError, match="an encoder without its generator: .*--model FILE --encoder"):
        load_editor(path)
    with pytest.raises(CheckpointError, match=r"holds state_dict, opts, latent_avg; expected a generator"):
        StyleGAN2Backbone.load(path)
    torch.save(torch.eye(16)[:1], tmp_path / "smile.pt")
    with pytest.raises(CheckpointError, match="a boundary in W: .*--boundary EMOTION="):
        load_editor(tmp_path / "smile.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list; expected a boundary"):
        read_boundary(tmp_path / "list.pt")


def test_what_is_asked_of_the_wrong_editor_or_of_no_file_is_told_first(generator, tmp_path, monkeypatch):
    monkeypatch.setattr("emoedit.full_size.load_backbone", lambda *a, **k: pytest.fail("read weights"))
    torch.save(torch.eye(16)[:1], tmp_path / "smile.pt")
    how = {"model": tmp_path, "boundaries": {"happy": tmp_path / "smile.pt"}, "device": "cpu"}
    with pytest.raises(CheckpointError, match="encoder none.pt: there is no such file"):
        load_editor("stylegan2", encoder="none.pt", **how)
    with pytest.raises(EditError, match="encoder: no settings of sd15"):
        load_editor("sd15", encoder="none.pt", device="cpu")

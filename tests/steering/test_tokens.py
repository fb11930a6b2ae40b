"""Learned tokens as a steering: contexts, strengths, files of three kinds and diffusers' own reading of ours."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from emoedit.editors import Editor
from emoedit.models.ddpm.backbone import DDPMBackbone, DDPMConfig
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.text import encode, fill, frozen_copy, with_tokens
from emoedit.steering.hspace import Directions, HSpace
from emoedit.steering.tokens import EmotionTokens, read_embedding, token_of, write_embedding
from emoedit.types import CheckpointError, Control, Edit, EditError, Inversion, OutputError, UnknownNameError
from tests.fixtures.stable_diffusion import smooth, tiny, tokenizer, write_model
from tests.fixtures.steerings import WIDTH, steering, vectors


@pytest.fixture(scope="module")
def backbone() -> StableDiffusionBackbone:
    return tiny()


def context(model: EmotionTokens, backbone, *edits: Edit) -> Tensor:
    return model.control(backbone, Inversion(torch.zeros(len(edits), 1)), edits).context


# Contexts


def test_a_token_puts_its_vectors_where_it_stands(backbone):
    """The same as the text encoder with those rows written into its own table."""
    model = steering()
    table = copy.deepcopy(backbone.text_encoder)
    first = len(tokenizer())
    rows = torch.cat([table.get_input_embeddings().weight, *model.vectors])
    table.set_input_embeddings(nn.Embedding.from_pretrained(rows))
    start = tokenizer()("a photo of a")["input_ids"][:-1]
    end = tokenizer()("face")["input_ids"][1:]
    at = first
    for n, count in enumerate((1, 2, 3)):
        ids = [*start, *range(at, at + count), *end]
        ids += [tokenizer().pad_token_id] * (16 - len(ids))
        with torch.no_grad():
            truth = table(torch.tensor([ids]))[0]
        torch.testing.assert_close(model.contexts(backbone)[n : n + 1], truth, atol=1e-6, rtol=0)
        at += count


def test_strength_is_a_straight_line_from_neutral_to_token(backbone):
    model, neutral = steering(), backbone.context()
    happy, sad, smirk = model.contexts(backbone)
    assert torch.equal(context(model, backbone, Edit("happy", 0.0)), neutral)
    torch.testing.assert_close(context(model, backbone, Edit("happy"))[0], happy)
    torch.testing.assert_close(context(model, backbone, Edit("smirk", -0.5)), neutral - 0.5 * (smirk - neutral))
    mixed = context(model, backbone, Edit("0.5 happy + smirk - 2*sad", 0.5))
    truth = neutral + 0.25 * (happy - neutral) + 0.5 * (smirk - neutral) - (sad - neutral)
    torch.testing.assert_close(mixed, truth, atol=1e-5, rtol=1e-5)
    gained = steering(gain=torch.tensor([2.0, 1.0, 1.0]))
    torch.testing.assert_close(
        context(gained, backbone, Edit("happy", 0.5), Edit("sad", 0.5)),
        context(model, backbone, Edit("happy", 1.0), Edit("sad", 0.5)),
    )


def test_a_token_has_its_own_timesteps_and_a_mixture_those_of_all_its_emotions(backbone):
    assert steering().control(backbone, Inversion(torch.zeros(1, 1), {}), [Edit("happy")]).spans is None
    model = steering(spans={"sad": (100, 300), "smirk": (200, 580)})
    usual = [backbone.config.t_text_min, backbone.config.t_text_max]
    asked = ["happy", "sad", "sad - smirk", "happy + sad", "0 sad"]
    inversion = Inversion(torch.zeros(len(asked), 1), {})
    spans = model.control(backbone, inversion, [Edit(name) for name in asked]).spans
    assert spans[:4].tolist() == [usual, [100, 300], [100, 580], [min(usual[0], 100), max(usual[1], 300)]]
    shift = Control(delta_h=lambda state: state.h)
    both = model.control(backbone, inversion, [Edit("sad")] * len(asked))
    assert torch.equal((shift + both).spans, both.spans) and torch.equal((both + shift).spans, both.spans)


def test_every_picture_of_a_batch_has_its_own_edit(backbone):
    model = steering()
    edits = [Edit("sad"), Edit("happy", 0.5), Edit("melancholy"), Edit("happy", 0.0)]
    together = context(model, backbone, *edits)
    assert together.shape == (4, 16, WIDTH)
    for n, edit in enumerate(edits):
        torch.testing.assert_close(together[n : n + 1], context(model, backbone, edit), atol=1e-6, rtol=1e-5)
    with pytest.raises(EditError, match="2 edits for 1"):
        model.control(backbone, Inversion(torch.zeros(1, 1)), edits[:2])
    with pytest.raises(UnknownNameError, match="angry"):
        context(model, backbone, Edit("angry"))


def test_the_shared_tokenizer_and_text_encoder_stay_as_they_are(backbone):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    modules, words = [id(m) for m in backbone.modules()], len(backbone.tokenizer)
    ids = backbone.tokenizer("a photo of a <happy> face")["input_ids"]
    editor = Editor(backbone, [steering()])
    editor(smooth(2), ["happy", "sad - smirk"], strength=[0.5, 1], output_type="pt")
    assert [id(m) for m in backbone.modules()] == modules and len(backbone.tokenizer) == words
    assert backbone.tokenizer("a photo of a <happy> face")["input_ids"] == ids
    after = backbone.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(value, after[name]) for name, value in before.items())


def test_copies_share_memory_and_nothing_else(backbone):
    unet = frozen_copy(backbone.unet)
    for (name, one), (_, other) in zip(unet.named_parameters(), backbone.unet.named_parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr() and one is not other, name
    live = tiny().requires_grad_(True).train()
    frozen = frozen_copy(live.text_encoder)
    assert not any(p.requires_grad for p in frozen.parameters()) and not frozen.training
    assert all(p.requires_grad for p in live.text_encoder.parameters()) and live.text_encoder.training
    larger, knowing = with_tokens(tokenizer(), live.text_encoder, {"<a>": vectors(2)})
    assert len(larger) == len(tokenizer()) + 2
    assert len(knowing.get_input_embeddings().weight) == len(larger)
    assert (
        knowing.get_input_embeddings().shared.weight.data_ptr()
        == live.text_encoder.get_input_embeddings().weight.data_ptr()
    )


def test_contexts_are_kept_while_nothing_changes(backbone, monkeypatch):
    from emoedit.steering import tokens

    calls = []
    monkeypatch.setattr(tokens, "encode", lambda *args: calls.append(args) or encode(*args))
    model = steering()
    first = context(model, backbone, Edit("happy"))
    assert torch.equal(context(model, backbone, Edit("happy")), first) and len(calls) == 1
    other = tiny()
    other.text_encoder.get_input_embeddings().weight.mul_(1.5)
    assert not torch.equal(context(model, other, Edit("happy")), first)
    assert torch.equal(context(model, backbone, Edit("happy")), first)
    with torch.no_grad():
        model.vectors[0].add_(0.1)
    assert not torch.equal(context(model, backbone, Edit("happy")), first)
    assert copy.deepcopy(model).emotions == model.emotions
    with torch.inference_mode():
        other = tiny()
    assert torch.equal(context(steering(), other, Edit("happy")), first)


# Editing


def test_an_editor_edits_with_tokens(backbone):
    editor, x = Editor(backbone, [steering()], name="ti"), smooth(2)
    inversion = editor.invert(x)
    none, half, full, other = editor.edit(
        inversion, [Edit("happy", 0.0), Edit("happy", 0.5), Edit("happy"), Edit("smirk")]
    )
    assert torch.equal(none, x)
    assert 0 < float((half - x).norm()) < float((full - x).norm())
    assert float((other - full).abs().max()) > 1e-3


def test_tokens_and_shifts_of_h_add_and_either_at_strength_0_is_the_other(backbone):
    inversion = backbone.invert(smooth(2))
    shift = Directions(torch.randn(1, backbone.h_shape[0], generator=torch.Generator().manual_seed(0)))
    tokens, hspace = steering(), HSpace(["happy"], [shift], train_steps=5)

    def control(steering, strength: float) -> Control:
        return steering.control(backbone, inversion, [Edit("happy", strength)] * 2)

    by_tokens, by_h = (backbone.decode(inversion, control(part, 1.0)) for part in (tokens, hspace))
    assert torch.equal(backbone.decode(inversion, control(tokens, 0.0) + control(hspace, 1.0)), by_h)
    everywhere = backbone.with_sampling(t_text_max=600)  # no step that only a shift would need
    alone = everywhere.decode(inversion, control(tokens, 1.0))
    assert torch.equal(everywhere.decode(inversion, control(tokens, 1.0) + control(hspace, 0.0)), alone)
    both = backbone.decode(inversion, control(tokens, 1.0) + control(hspace, 1.0))
    assert float((both - by_tokens).abs().max()) > 1e-3 < float((both - by_h).abs().max())
    with pytest.raises(EditError, match="two controls"):
        control(tokens, 1.0) + control(tokens, 1.0)


# Files


def test_save_then_load_is_bit_equal(tmp_path, backbone):
    model = steering(template="the face of a {}", gain=torch.tensor([1.5, 1.0, 0.25]), spans={"sad": (80, 480)})
    model.save_pretrained(tmp_path)
    again = EmotionTokens.from_pretrained(tmp_path)
    assert (again.emotions, again.tokens, again.template) == (model.emotions, model.tokens, model.template)
    assert torch.equal(again.gain, model.gain) and again.spans == model.spans == {"sad": (80, 480)}
    assert all(torch.equal(a, b) for a, b in zip(again.vectors, model.vectors, strict=True))
    edits = [Edit("happy"), Edit("0.5 sad + smirk")]
    assert torch.equal(context(again, backbone, *edits), context(model, backbone, *edits))
    assert sorted(path.parent.name for path in tmp_path.rglob("learned_embeds.safetensors")) == [
        "0-happy",
        "1-sad",
        "2-smirk",
    ]


def test_diffusers_reads_what_is_written(tmp_path):
    """The file round-trips through a pipeline, and its prompts have the contexts that ours have."""
    from diffusers import StableDiffusionPipeline
    from safetensors import safe_open

    folder = write_model(tmp_path / "model")
    backbone = StableDiffusionBackbone.load(folder)
    model = EmotionTokens({"happy": vectors(1, 32), "pleasantly surprised": vectors(3, 32)})
    assert model.tokens == ("<happy>", "<pleasantly-surprised>")
    model.save_pretrained(tmp_path / "tokens")
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    for path, token, found in zip(sorted((tmp_path / "tokens").glob("*-*")), model.tokens, model.vectors, strict=True):
        with safe_open(path / "learned_embeds.safetensors", "pt") as file:
            assert list(file.keys()) == [token] and file.metadata() == {"format": "pt"}
        pipe.load_textual_inversion(path)
        ids = pipe.tokenizer.convert_tokens_to_ids([token, *(f"{token}_{n}" for n in range(1, len(found)))])
        assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[ids], found)
    with torch.no_grad():
        for n, token in enumerate(model.tokens):
            embeds = pipe.encode_prompt(f"a photo of a {token} face", "cpu", 1, False)[0]
            torch.testing.assert_close(model.contexts(backbone)[n : n + 1], embeds, atol=1e-5, rtol=0)


def test_files_of_diffusers_script_and_of_automatic1111_are_read(tmp_path, backbone):
    from safetensors.torch import save_file

    found = vectors(2)
    # What diffusers' examples/textual_inversion writes, with and without safe serialization, and long ago.
    save_file({"<happy>": found}, tmp_path / "learned_embeds.safetensors", {"format": "pt"})
    torch.save({"<sad>": found[0]}, tmp_path / "learned_embeds.bin")
    # What Automatic1111 writes.
    a1111 = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": found.clone().requires_grad_()},
        "name": "grumpy",
        "step": 1500,
        "sd_checkpoint": "cc6cb27103",
        "sd_checkpoint_name": "v1-5-pruned-emaonly",
    }
    torch.save(a1111, tmp_path / "any.pt")
    save_file({"emb_params": found.half()}, tmp_path / "smirking.safetensors")
    # What the original repository of latent diffusion writes.
    params = torch.nn.ParameterDict({"*": torch.nn.Parameter(found.clone())})
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": params}, tmp_path / "gs-6099.pt")
    for path, token, expected in (
        (tmp_path, "<happy>", found),
        (tmp_path / "learned_embeds.safetensors", "<happy>", found),
        (tmp_path / "learned_embeds.bin", "<sad>", found[:1]),
        (tmp_path / "any.pt", "grumpy", found),
        (tmp_path / "smirking.safetensors", "smirking", found.half().float()),
        (tmp_path / "gs-6099.pt", "gs-6099", found),
    ):
        read, rows = read_embedding(path)
        assert read == token and torch.equal(rows, expected) and not rows.requires_grad and rows.dtype == torch.float32
    files = {"happy": tmp_path, "angry": tmp_path / "any.pt"}
    model = EmotionTokens.from_files(files, tokens={"angry": "<grr>"}, template="the {} face")
    assert model.tokens == ("<happy>", "<grr>")
    happy, angry = model.contexts(backbone)
    torch.testing.assert_close(happy, angry)
    (tmp_path / "old").mkdir()
    (tmp_path / "learned_embeds.bin").rename(tmp_path / "old" / "learned_embeds.bin")
    assert read_embedding(tmp_path / "old")[0] == "<sad>"


class Hostile:
    def __reduce__(self):
        return print, ("code in a weight file was run",)


def test_files_that_are_no_token_are_refused(tmp_path, capsys):
    from safetensors.torch import save_file

    def refused(contents, match, name="x.pt"):
        path = tmp_path / name
        if isinstance(contents, bytes):
            path.write_bytes(contents)
        elif name.endswith(".safetensors"):
            save_file(contents, path)
        else:
            torch.save(contents, path)
        with pytest.raises(CheckpointError, match=match):
            read_embedding(path)

    row = vectors(1)
    refused({"<a>": row, "<b>": row + 1}, r"2 keys \(<a>, <b>\); expected one token", "x.safetensors")
    refused({"clip_l": row, "clip_g": row + 1}, "clip_g.*1.x or 2.x", "x.safetensors")
    refused({}, "0 keys", "x.safetensors")
    refused({"<a>": torch.zeros(1, 2, 3)}, r"\(1, 2, 3\); expected floating point \[n, D\]", "x.safetensors")
    refused({"<a>": torch.ones(1, 2, dtype=torch.int64)}, "int64", "x.safetensors")
    refused({"<a>": torch.full((1, 2), float("nan"))}, "not finite", "x.safetensors")
    refused({"<a>": torch.zeros(0, 2)}, "expected floating point", "x.safetensors")
    refused(b"no weights", "safetensors", "x.safetensors")
    refused({"string_to_param": {"*": row, "+": row}}, "2 embeddings")
    refused({"string_to_param": {"*": [1.0]}, "name": "a"}, "list; expected a token and a tensor")
    refused({7: row}, "expected a token and a tensor")
    refused([row], "a list")
    refused(b"\x80\x04", "damaged")
    refused({"<a>": Hostile()}, "more than tensors")
    assert "was run" not in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="missing|no such file"):
        read_embedding(tmp_path / "nothing.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="learned_embeds.safetensors is missing"):
        read_embedding(tmp_path / "empty")


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a" / "learned_embeds.safetensors"
    write_embedding(path, "<a>", vectors(2))
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        write_embedding(path, "<b>", vectors(1))
    with pytest.raises(CheckpointError, match="not finite"):
        write_embedding(path, "<b>", vectors(1) * float("inf"), overwrite=True)
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        write_embedding(path, "<b>", vectors(1), overwrite=True)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_damaged_folders_are_refused(tmp_path):
    def fresh():
        steering().save_pretrained(tmp_path)

    for change, match in (
        ({"template": "a face"}, "needs one {}"),
        ({"emotions": [{"emotion": "happy"}]}, "garbles"),
        ({"emotions": [{"emotion": "happy", "folder": "0-happy", "gain": "x"}]}, "garbles"),
        ({"emotions": [{"emotion": "happy", "folder": "0-happy", "gain": 1, "span": 3}]}, "garbles"),
        ({"emotions": [{"emotion": "happy", "folder": "0-happy", "gain": 1, "span": [9, 3]}]}, "timesteps"),
        ({"emotions": []}, "no emotion"),
        ({"emotions": 3}, "garbles"),
    ):
        fresh()
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=match):
            EmotionTokens.from_pretrained(tmp_path)
    for name in ("config.json", "1-sad/learned_embeds.safetensors"):
        fresh()
        (tmp_path / name).unlink()
        with pytest.raises(CheckpointError, match="missing"):
            EmotionTokens.from_pretrained(tmp_path)


# What does not fit


def test_tokens_that_do_not_fit_a_model_are_refused(backbone):
    def refused(model, match):
        with pytest.raises(CheckpointError, match=match):
            context(model, backbone, *[Edit(model.emotions[0])])

    refused(EmotionTokens({"happy": vectors(1, 768)}), r"\(1, 768\), the text encoder's are 16 wide")
    refused(EmotionTokens({"happy": vectors(1)}, tokens={"happy": "happy</w>"}), "'happy</w>' exists already")
    refused(EmotionTokens({"happy": vectors(1)}, tokens={"happy": "<very happy>"}), "holds a space")
    both = {"happy": vectors(2), "sad": vectors(1)}
    refused(EmotionTokens(both, tokens={"happy": "<x>", "sad": "<x>_1"}), "'<x>_1' exists already")
    unet = {"sample_size": 8, "block_out_channels": [8], "norm_num_groups": 4, "layers_per_block": 1}
    unet |= {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    with pytest.raises(CheckpointError, match="DDPMBackbone has no text input"):
        context(steering(), DDPMBackbone(DDPMConfig(unet=unet, steps=2)), Edit("happy"))
    with pytest.raises(EditError, match="the text encoder reads 16"):
        context(EmotionTokens({"happy": vectors(12)}), backbone, Edit("happy"))


def test_tokens_that_make_no_sense_are_refused():
    for embeddings, how, match in (
        ({}, {}, "no emotion"),
        ({"happy": vectors(1), "sad": vectors(1, 8)}, {}, r"happy \(16 wide\), sad \(8 wide\)"),
        ({"happy": vectors(1)[0]}, {}, r"expected floating point \[n, D\]"),
        ({"happy": vectors(1) * float("nan")}, {}, "not finite"),
        ({"happy": vectors(1), "sad": vectors(1)}, {"tokens": {"happy": "<x>", "sad": "<x>"}}, "same token"),
        ({"happy": vectors(1)}, {"tokens": {"sad": "<x>"}}, "tokens for sad"),
        ({"happy": vectors(1)}, {"gain": torch.ones(2)}, "one number each"),
        ({"happy": vectors(1)}, {"gain": torch.tensor([float("inf")])}, "one number each"),
        ({"happy": vectors(1)}, {"spans": {"sad": (0, 10)}}, r"timesteps \[0, 10\] for 'sad'"),
        ({"happy": vectors(1)}, {"spans": {"happy": (10, 0)}}, r"timesteps \[10, 0\] for 'happy'"),
        ({"happy": vectors(1)}, {"spans": {"happy": (10,)}}, "the first and the last"),
        ({"happy": vectors(1)}, {"spans": {"happy": (0.5, 2)}}, "the first and the last"),
    ):
        with pytest.raises(CheckpointError, match=match):
            EmotionTokens(embeddings, **how)
    for template in ("a photo of a face", "a {} photo of a {} face"):
        with pytest.raises(EditError, match="needs one {}"):
            EmotionTokens({"happy": vectors(1)}, template=template)


def test_names_of_tokens():
    assert (token_of("happy"), token_of("Pleasantly surprised"), token_of("in-awe")) == (
        "<happy>",
        "<pleasantly-surprised>",
        "<in-awe>",
    )
    assert fill("a {} face", "<a>", 3) == "a <a> <a>_1 <a>_2 face"

"""Editors of published models, from small files of the same layout: in one call, and refused in the user's words."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from emoedit.editors import Editor, load_editor
from emoedit.emotions import list_emotions
from emoedit.full_size import Request, list_models
from emoedit.io import checkpoints
from emoedit.models.pretrained import STABLE_DIFFUSION, TABLE
from emoedit.registry import BACKBONES
from emoedit.steering.hspace import ShiftBlock
from emoedit.steering.tokens import write_embedding
from emoedit.types import CheckpointError, Edit, EditError, Inversion, UnknownNameError
from tests.fixtures.editors import tiny_asyrp
from tests.fixtures.faceflex import LATENT, numbers, weights
from tests.fixtures.stable_diffusion import SMALL_TEXT, write_model
from tests.fixtures.stylegan2 import tiny as tiny_stylegan

SMILING = "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
QUICK = {"steps": 3, "t_last": 500, "device": "cpu", "precision": "float32"}


def works(editor: Editor, *emotions: str) -> None:
    """Each emotion changes a crop, and strength 0 does not."""
    side, channels = editor.backbone.crop.resolution, editor.backbone.channels
    x = torch.nn.functional.interpolate(numbers(5, 1, channels, 4, 4).clamp(-0.8, 0.8), (side, side), mode="bilinear")
    inversion = editor.invert(x)
    still, *changed = editor.edit(inversion, [Edit(emotions[0], 0), *map(Edit, emotions)])
    assert torch.equal(still, x)
    for picture in changed:
        assert bool(picture.isfinite().all()) and not torch.equal(picture, x)


@pytest.fixture(scope="module")
def sd(tmp_path_factory) -> Path:
    """A folder as Stable Diffusion 1.5 is published, at tiny widths."""
    return write_model(tmp_path_factory.mktemp("hub") / "sd")


@pytest.fixture(scope="module")
def token(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("token") / "learned_embeds.safetensors"
    write_embedding(file, "<irritated>", numbers(3, 1, SMALL_TEXT["hidden_size"]))
    return file


@pytest.fixture(scope="module")
def celebahq(tmp_path_factory) -> tuple[Path, Path]:
    """A DDPM's folder, and a folder with one of Asyrp's three files."""
    backbone = tiny_asyrp().backbone
    model, shifts = tmp_path_factory.mktemp("ddpm"), tmp_path_factory.mktemp("checkpoint")
    backbone.save_pretrained(model)
    torch.save({"0": ShiftBlock(backbone.h_shape[0], backbone.temb_dim).state_dict()}, shifts / SMILING)
    return model, shifts


def boundary(path: Path, width: int) -> Path:
    normal = numbers(3, 1, width)
    np.save(path, (normal / normal.norm()).numpy())
    return path


def test_the_table_names_settings_that_exist():
    for entry in TABLE.values():
        if entry.backbone != "instruct":
            assert set(entry.settings) == set(BACKBONES.get(entry.backbone).settings), entry.name
        assert set(entry.defaults) <= set(entry.allowed) and entry.compositor == "rgb" and entry.channels == 3
        assert set(entry.needs) <= set(entry.takes)


@pytest.mark.parametrize("form", [".safetensors", ".fp16.safetensors", ".bin"])
def test_models_lists_full_size_editors_and_whether_they_are_here(monkeypatch, form):
    def look(repository, name):
        here = name == f"diffusion_pytorch_model{form}" and repository == TABLE["celebahq"].model
        return f"/cache/{name}" if here else object()  # known not to exist

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    found = {model.name: model for model in list_models()}
    assert set(TABLE) < set(found) and found["celebahq"].here and not found["sd15"].here
    assert found["celebahq"].needs == "--shift" and found["stylegan2"].needs == "--model --boundary"
    assert 4.2e9 < found["sd15"].size < 4.4e9 and found["sd15"].memory < 3
    assert [model.name for model in list_models("SD*")] == ["sd15", "sd15-asyrp"]


def test_words_need_no_fitting(sd, caplog):
    with caplog.at_level(logging.INFO, "emoedit"):
        editor = load_editor("sd15", model=sd, **QUICK)
    assert editor.name == "sd15" and editor.emotions == list_emotions() and editor.backbone.steps == 3
    assert editor.backbone.compositor == "rgb" and editor.backbone.batch_size == 8
    assert "sd15 computes on cpu" in caplog.messages
    works(editor, "happy", "happy - 0.4*surprised", "jealousy")


def test_words_at_strength_one_are_the_prompt_itself(sd):
    editor = load_editor("sd15", model=sd, **QUICK)
    inversion = editor.invert(torch.zeros(1, 3, 64, 64))
    context = editor.control(inversion, [Edit("sad")]).context
    torch.testing.assert_close(context, editor.backbone.context("a photo of a sad, unhappy face"), atol=1e-5, rtol=0)
    assert torch.equal(editor.control(inversion, [Edit("sad", 0)]).context, editor.backbone.context())


@pytest.mark.parametrize("name", ["sd15", "sd15-asyrp"])
def test_tokens(sd, token, name):
    editor = load_editor(name, model=sd, tokens={"irritated": token}, t_edit=100, **QUICK)
    assert editor.name == name and editor.emotions == ("irritated",)
    works(editor, "irritated")


def test_words_do_to_h_what_they_do_to_the_context(sd, tmp_path):
    editor = load_editor("sd15-asyrp", model=sd, t_edit=100, **QUICK)
    works(editor, "sad")
    again = load_editor(editor.save_pretrained(tmp_path / "saved"), device="cpu", precision="float32")
    x = torch.zeros(1, 3, 64, 64)
    pictures = [list(each.edit(each.invert(x), [Edit("sad")]))[0] for each in (editor, again)]
    assert torch.equal(*pictures)


def test_asyrps_files(celebahq):
    model, shifts = celebahq
    editor = load_editor(
        "celebahq",
        model=model,
        shifts={"happy": shifts / SMILING},
        **(QUICK | {"steps": 4, "t_edit": 100, "t_boost": 0}),
    )
    assert editor.emotions == ("happy",) and editor.steerings[0].train_steps == 40 and editor.backbone.steps == 4
    works(editor, "happy")


def test_several_emotions_at_once_as_the_official_code_adds_them(celebahq, tmp_path):
    """It divides the sum of n shifts by the root of n; the algebra on names does not, and can say so."""
    model, shifts = celebahq
    torch.manual_seed(3)
    backbone = tiny_asyrp().backbone
    block = ShiftBlock(backbone.h_shape[0], backbone.temb_dim)
    torch.save({"0": block.state_dict()}, tmp_path / "angry_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth")
    files = {"happy": shifts / SMILING, "angry": tmp_path / "angry_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"}
    editor = load_editor("celebahq", model=model, shifts=files, **QUICK | {"steps": 40, "t_edit": 100, "t_boost": 0})
    x_t = torch.randn(1, *editor.backbone.latent_shape)
    inversion, state = Inversion(torch.zeros_like(x_t)), editor.backbone.state(x_t, 300)

    def shift(emotion: str) -> torch.Tensor:
        return editor.control(inversion, [Edit(emotion)]).delta_h(state)

    official = (shift("happy") + shift("angry")) / 2**0.5
    torch.testing.assert_close(shift("0.70710678*happy + 0.70710678*angry"), official)


def test_shifts_of_the_other_u_net_family_are_named(celebahq, tmp_path):
    file = tmp_path / "dog_happy_LC_dog_t999_ninv40_ngen40_0.pth"
    torch.save({"0": {"in_layers.0.weight": torch.ones(512), "emb_layers.1.weight": torch.ones(512, 512)}}, file)
    with pytest.raises(CheckpointError, match="ADM U-Net of guided diffusion"):
        load_editor("celebahq", model=celebahq[0], shifts={"happy": file}, **QUICK)


def test_a_token_of_another_stable_diffusion_is_refused(sd, tmp_path):
    write_embedding(tmp_path / "wide.safetensors", "<glad>", numbers(3, 1, 48))
    editor = load_editor("sd15", model=sd, tokens={"happy": tmp_path / "wide.safetensors"}, **QUICK)
    with pytest.raises(CheckpointError, match="1.x has 768, 2.x 1024"):
        editor.control(editor.invert(torch.zeros(1, 3, 64, 64)), [Edit("happy")])


def test_a_part_that_is_missing_leaves_out_its_emotion(celebahq, sd, token, tmp_path):
    model, shifts = celebahq
    how = {"model": model, **QUICK, "t_edit": 100, "t_boost": 0}
    with pytest.warns(UserWarning, match="--shift sad=.*there is no such file.*without this emotion"):
        editor = load_editor("celebahq", shifts={"happy": shifts / SMILING, "sad": shifts / "none_ngen40_.pth"}, **how)
    assert editor.emotions == ("happy",)
    assert load_editor("celebahq", shifts=shifts, **how).emotions == ("happy",)  # by its published name
    with pytest.raises(CheckpointError, match="--shift happy=.*none.pth: there is no such file"):
        load_editor("celebahq", shifts={"happy": shifts / "none.pth"}, **how)
    with pytest.raises(CheckpointError, match=f"nothing there that is known by its name; expected {SMILING}"):
        load_editor("celebahq", shifts=tmp_path, **how)
    with pytest.warns(UserWarning, match="--token sad="):
        load_editor("sd15", model=sd, tokens={"irritated": token, "sad": tmp_path / "none.safetensors"}, **QUICK)


def test_stylegan(tmp_path):
    model = tiny_stylegan()
    model.save_pretrained(tmp_path)
    layers, width = model.latent_shape
    smile = boundary(tmp_path / "smile.npy", width)
    how = {"model": tmp_path, "device": "cpu"}
    editor = load_editor("stylegan2", boundaries={"happy": (smile, 2.0)}, layers=(0, 2), **how)
    works(editor, "happy")
    directions = editor.steerings[0].directions.view(layers, width)
    assert bool(directions[:2].any()) and not bool(directions[2:].any())
    three = load_editor("stylegan2", boundaries={"happy": smile}, layers=(0, 2), **how).steerings[0]
    torch.testing.assert_close(
        three.gain[0] * three.directions[0], 1.5 * editor.steerings[0].gain[0] * editor.steerings[0].directions[0]
    )
    with pytest.raises(CheckpointError, match="boundary of width 7"):
        load_editor("stylegan2", boundaries={"happy": boundary(tmp_path / "narrow.npy", 7)}, **how)
    old = boundary(tmp_path / "stylegan_ffhq_smile_w_boundary.npy", width)
    with pytest.warns(UserWarning, match="StyleGAN1, whose W is another space"):
        load_editor("stylegan2", boundaries={"happy": old}, **how)


def test_face_flex(tmp_path):
    torch.save(weights(), tmp_path / "weights.pth")
    save_file({"pos": numbers(1, 2, LATENT), "neg": numbers(2, 2, LATENT)}, tmp_path / "Smiling.safetensors")
    vectors = {"happy": tmp_path / "Smiling.safetensors"}
    works(load_editor("face-flex", model=tmp_path / "weights.pth", boundaries=vectors, device="cpu"), "happy")
    with pytest.raises(CheckpointError, match="none.pth"):
        load_editor("face-flex", model=tmp_path / "none.pth", boundaries=vectors)


# A folder, a file, a name of the hub


def test_a_bare_folder_is_the_words_editor(sd, token):
    works(load_editor(sd, **QUICK), "happy")
    assert load_editor(sd, tokens={"irritated": token}, **QUICK).emotions == ("irritated",)


def test_a_bare_folder_that_needs_more_says_what(celebahq):
    model, shifts = celebahq
    with pytest.raises(CheckpointError, match=f"celebahq needs shifts: --shift happy={SMILING}.*emoedit fit shift"):
        load_editor(model)
    assert load_editor(model, shifts=shifts, **QUICK, t_edit=100, t_boost=0).name == "celebahq"


@pytest.fixture
def hub(sd, tmp_path, monkeypatch) -> dict[str, list[str]]:
    """A hub that holds the small Stable Diffusion under the name of the large one: name -> what was asked for."""
    asked: dict[str, list[str]] = {}

    def download(name: str, *, revision: str | None = None, allow_patterns: list[str]) -> str:
        from huggingface_hub.utils import filter_repo_objects

        if name not in (STABLE_DIFFUSION, "someone/fine-tuned"):
            raise OSError("no network")
        target = tmp_path / "snapshots" / "0123456789abcdef"
        files = [path.relative_to(sd).as_posix() for path in sd.rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            asked.setdefault(name, []).append(file)
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            (target / file).write_bytes((sd / file).read_bytes())
        target.mkdir(parents=True, exist_ok=True)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_the_hub_gives_what_is_not_here(hub):
    works(load_editor("sd15", **QUICK), "happy")
    works(load_editor("someone/fine-tuned", **QUICK), "happy")
    assert hub["someone/fine-tuned"][0] == "model_index.json"  # what it is comes before what it weighs


def test_without_a_network_the_error_says_how_to_give_a_folder(hub):
    with pytest.raises(CheckpointError, match="hf download nobody/model --local-dir FOLDER.*--model FOLDER"):
        load_editor("sd15", model="nobody/model", **QUICK)


@pytest.mark.parametrize(
    ("name", "how", "error", "match"),
    [
        ("sd15", {"step": 4}, EditError, r"step: no settings of sd15; did you mean steps\?"),
        ("sd15", {"shifts": {"happy": "x.pth"}, "model": "nobody/model"}, CheckpointError, "--shift happy=x.pth"),
        ("sd15", {"boundaries": {"happy": "x.npy"}}, EditError, "sd15 takes no --boundary; it takes --token"),
        ("celebahq", {}, CheckpointError, "celebahq needs shifts"),
        ("celebahq", {"tokens": {"happy": "x"}}, EditError, "celebahq takes no --token; it takes --shift"),
        ("stylegan2", {}, CheckpointError, "--boundary happy=smile.pt .* Published: smile.pt.*fit"),
        ("stylegan2", {"boundaries": {"happy": "x.npy"}}, CheckpointError, "stylegan2 needs its weights: --model FILE"),
        ("vae", {"tokens": {"happy": "x"}}, EditError, "vae is an editor of its own and takes no --token"),
        ("vae", {"model": "x"}, EditError, "vae holds its own weights and takes no --model"),
        ("vae", {"step": 4}, EditError, "step: no settings of sampling of VAEBackbone; it has none"),
        ("sd16", {}, UnknownNameError, "did you mean 'sd15'"),
        ("sd15", {"device": "cuda:x"}, EditError, "device is auto, cpu, mps, cuda or cuda:N, not 'cuda:x'"),
        ("sd15", {"batch": 0}, EditError, "batch is a whole number from 1 on"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_downloaded(monkeypatch, name, how, error, match):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(error, match=match):
        load_editor(name, **{"device": "cpu", **how})


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("StableDiffusionXLPipeline", "SDXL"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("FluxPipeline", "FLUX"),
    ],
)
def test_folders_of_other_models_are_named(tmp_path, kind, match):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    with pytest.raises(CheckpointError, match=f"holds a {kind}: {match}.*sd15 takes Stable Diffusion 1.x and 2.x"):
        load_editor(tmp_path)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ({"lora_unet_down_blocks_0.lora_down.weight": (4, 8)}, "is a LoRA"),
        ({"conditioner.embedders.0.x": (1,), "model.diffusion_model.input_blocks.0.0.weight": (1,)}, "a file of SDXL"),
        ({"model.diffusion_model.joint_blocks.0.x": (1,)}, "a file of Stable Diffusion 3"),
        (
            {
                "model.diffusion_model.input_blocks.0.0.weight": (1,),
                "cond_stage_model.model.transformer.resblocks.0.ln_1.weight": (1,),
            },
            r"a Stable Diffusion 2.x in one file, .* noise or v: make a folder of it .*from_single_file\(FILE\)",
        ),
        ({"double_blocks.0.img_attn.x": (1,)}, "a file of FLUX"),
        ({"<smirk>": (1, 768)}, "learned token: .*--editor sd15 --token"),
        ({"a": (1,), "b": (2,)}, "expected a Stable Diffusion 1.x"),
    ],
)
def test_files_of_other_models_are_named(tmp_path, names, match):
    save_file({name: torch.zeros(shape) for name, shape in names.items()}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=match):
        load_editor(tmp_path / "x.safetensors")


def test_files_of_parts_say_where_they_belong(celebahq, tmp_path):
    torch.save({"0": {"conv1.weight": torch.ones(1)}}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="a shift of h"):  # in the format of old versions of torch too
        load_editor(tmp_path / "old.pth")
    with pytest.raises(CheckpointError, match="a shift of h .*--editor celebahq --shift EMOTION="):
        load_editor(celebahq[1] / SMILING)
    with pytest.raises(CheckpointError, match="a boundary in W: .*--boundary EMOTION="):
        load_editor(boundary(tmp_path / "smile.npy", 8))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    import pickle

    class Program:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    (tmp_path / "model.ckpt").write_bytes(pickle.dumps({"state_dict": Program()}))
    with pytest.raises(CheckpointError, match="reading one runs code.*Nothing of it was executed"):
        load_editor(tmp_path / "model.ckpt")
    assert not (tmp_path / "ran").exists()


# Repositories with other files


def test_half_precision_and_pickles_of_tensors_are_read(sd, tmp_path):
    """One repository has only fp16 files, the other only .bin ones: the same weights, rounded in the first."""
    import shutil

    whole = load_editor(sd, **QUICK).backbone.unet.state_dict()
    for form in ("fp16", "bin"):
        folder = Path(shutil.copytree(sd, tmp_path / form))
        for part in ("unet", "vae", "text_encoder"):
            old = next((folder / part).glob("*.safetensors"))
            state = load_file(old)
            old.unlink()
            stem = old.name.removesuffix(".safetensors")
            if form == "fp16":
                half = {name: v.half() if v.is_floating_point() else v for name, v in state.items()}
                save_file(half, folder / part / f"{stem}.fp16.safetensors")
            else:
                torch.save(state, folder / part / f"{'pytorch_model' if stem == 'model' else stem}.bin")
        found = load_editor(folder, **QUICK).backbone.unet.state_dict()
        for name, value in whole.items():
            assert torch.equal(found[name], value.half().float() if form == "fp16" else value), name


def as_one_file(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a folder under the names of the original implementation."""
    from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING

    state = {}
    text = load_file(folder / "text_encoder" / "model.safetensors")
    state.update({f"cond_stage_model.transformer.{name}": value for name, value in text.items()})
    unet = load_file(folder / "unet" / checkpoints.WEIGHTS)
    tops = DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"]
    for name, value in unet.items():
        state[f"model.diffusion_model.{tops[name] if name in tops else unet_name(name)}"] = value
    for name, value in load_file(folder / "vae" / checkpoints.WEIGHTS).items():
        old = vae_name(name)
        conv = ".attn_1." in old and old.endswith(("q.weight", "k.weight", "v.weight", "proj_out.weight"))
        state[f"first_stage_model.{old}"] = value[:, :, None, None] if conv else value
    return {name: value.contiguous() for name, value in state.items()}


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def unet_name(name: str) -> str:
    """As the original names a layer: blocks are counted through all levels, two (on the way up three) a level."""
    import re

    def inner(kind: str, rest: str) -> str:
        if kind == "attentions":
            return rest
        layer, _, end = rest.partition(".")
        return f"{RESNET[layer]}.{end}"

    if m := re.match(r"down_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", name):
        return f"input_blocks.{1 + 3 * int(m[1]) + int(m[3])}.{int(m[2] == 'attentions')}.{inner(m[2], m[4])}"
    if m := re.match(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{3 * (int(m[1]) + 1)}.0.op.{m[2]}"
    if m := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        return f"middle_block.{1 if m[1] == 'attentions' else 2 * int(m[2])}.{inner(m[1], m[3])}"
    if m := re.match(r"up_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", name):
        return f"output_blocks.{3 * int(m[1]) + int(m[3])}.{int(m[2] == 'attentions')}.{inner(m[2], m[4])}"
    m = re.match(r"up_blocks\.(\d)\.upsamplers\.0\.conv\.(.*)", name)
    return f"output_blocks.{3 * int(m[1]) + 2}.{1 if m[1] == '0' else 2}.conv.{m[2]}"


def vae_name(name: str) -> str:
    import re

    for new, old in (("conv_norm_out", "norm_out"), ("mid_block.resnets.0", "mid.block_1")):
        name = name.replace(new, old)
    name = name.replace("mid_block.resnets.1", "mid.block_2").replace("mid_block.attentions.0", "mid.attn_1")
    for new, old in (("group_norm", "norm"), ("query", "q"), ("key", "k"), ("value", "v"), ("proj_attn", "proj_out")):
        name = name.replace(f".{new}.", f".{old}.")
    name = name.replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_one_file_is_the_folder_it_was_made_from(tmp_path, suffix, monkeypatch):
    folder = write_model(
        tmp_path / "sd", text={"hidden_size": 64, "num_attention_heads": 1}, unet={"cross_attention_dim": 64}
    )
    state, path = as_one_file(folder), tmp_path / f"v1-5{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    how = {"device": "cpu", "steps": 2, "t_last": 500, "resolution": 64}
    editor = load_editor(path, tokenizer=str(folder), **how)
    expected = load_editor(folder, **{name: how[name] for name in ("device", "steps", "t_last")}).backbone
    for part in ("unet", "vae", "text_encoder"):
        want, found = (getattr(model, part).state_dict() for model in (expected, editor.backbone))
        assert want.keys() == found.keys() and all(torch.equal(want[name], found[name]) for name in want), part
    assert editor.backbone.crop == expected.crop
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(CheckpointError, match="holds no tokenizer.*--set tokenizer=FOLDER"):
        load_editor(path, **how)


# Shared by reference


def test_a_saved_editor_names_its_model_and_does_not_copy_it(sd, token, tmp_path):
    editor = load_editor("sd15", model=sd, tokens={"irritated": token}, guidance=2.0, **QUICK)
    folder = editor.save_pretrained(tmp_path / "shared")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10_000
    part = json.loads((folder / "editor.json").read_text())["backbone"]
    assert part["source"] == str(sd.resolve()) and part["settings"]["guidance"] == 2.0
    again = load_editor(folder, device="cpu", precision="float32")
    assert again.backbone.config == editor.backbone.config and again.emotions == ("irritated",)
    x = torch.zeros(1, 3, 64, 64)
    pictures = [list(each.edit(each.invert(x), [Edit("irritated")]))[0] for each in (editor, again)]
    assert torch.equal(*pictures)
    works(load_editor(folder, model=sd, device="cpu", steps=2), "irritated")


def test_a_named_model_that_is_gone_is_told_and_can_be_given(sd, token, tmp_path):
    import shutil

    moved = Path(shutil.copytree(sd, tmp_path / "here"))
    folder = load_editor(moved, tokens={"irritated": token}, **QUICK).save_pretrained(tmp_path / "shared")
    shutil.rmtree(moved)
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_editor(folder)
    assert load_editor(folder, model=sd, device="cpu").emotions == ("irritated",)


def test_what_a_request_stands_for_is_known_without_weights(sd, token, monkeypatch):
    monkeypatch.setattr("emoedit.full_size.load_backbone", lambda *a, **k: pytest.fail("read weights"))
    found = Request("sd15", model=str(sd), tokens={"irritated": token}).resolved()
    assert found.name == "sd15" and found.emotions == ("irritated",)

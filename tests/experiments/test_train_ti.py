"""The recipe of the embedded Stable Diffusion: its config fits the code, it runs from crops to an editor that diffusers
reads too, and a token is learned from a folder of photographs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.editors import load_editor
from emoedit.emotions import BASIC
from emoedit.metrics.clip import Clip
from emoedit.models.ddpm.backbone import DDPMBackbone, DDPMConfig
from emoedit.models.stable_diffusion import files
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.config import StableDiffusionConfig
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.steering.tokens import read_embedding
from emoedit.training.augment import Augment
from emoedit.training.captions import learn_tokenizer, vocabulary_texts
from emoedit.training.colouring import start_autoencoder_in_colour, start_unet_in_colour
from emoedit.training.contrastive import new_clip, text_config
from emoedit.training.loop import TrainerConfig
from emoedit.training.text_to_image import copy_unconditional_weights
from emoedit.types import Edit
from tests.fixtures.configs import ROOT, composed
from tests.fixtures.stable_diffusion import write_model


def fresh_backbone(config: dict, tokenizer) -> StableDiffusionBackbone:
    parts = {**config["backbone"], "text_encoder": text_config(config["backbone"]["text_encoder"], tokenizer)}
    return StableDiffusionBackbone(StableDiffusionConfig(**parts), tokenizer)


def test_the_config_fits_the_code_and_the_budget(tmp_path):
    config = composed("train_ti", "recipe=ti_colour")
    how = config["captions"]
    tokenizer = learn_tokenizer(vocabulary_texts(how["kinds"], 2000), tmp_path, merges=how["merges"])
    assert 600 <= len(tokenizer) <= 900 and how["length"] == 24
    texts = list(vocabulary_texts(how["kinds"], 2000)[:2000])
    assert max(len(tokenizer(text)["input_ids"]) for text in texts) <= how["length"]
    backbone = fresh_backbone(config, tokenizer)
    assert backbone.crop.resolution == 96 and backbone.latent_shape == (6, 48, 48) and backbone.channels == 3
    shape = {"text": config["backbone"]["text_encoder"], **config["clip"]}
    clip = new_clip(shape, tokenizer)
    sizes = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in (
            ("unet", backbone.unet),
            ("vae", backbone.vae),
            ("text", backbone.text_encoder),
            ("clip", clip),
        )
    }
    assert sizes["unet"] <= 6.2e6 and sizes["vae"] <= 0.5e6 and sizes["clip"] <= 1.2e6
    assert 2 * sum(sizes.values()) <= 15.3e6  # half precision; the rest is small files
    # The same skeletons as the models that training starts from.
    luminance = fresh_backbone(composed("train_ti"), tokenizer)
    start_unet_in_colour(backbone.unet, luminance.unet)
    start_autoencoder_in_colour(backbone.vae, luminance.vae)
    source = DDPMBackbone(DDPMConfig(**composed("train_asyrp", "recipe=asyrp_luminance")["backbone"]))
    fresh = copy_unconditional_weights(luminance.unet, source.unet)
    assert all("attentions" in name for name in fresh) and luminance.h_shape == source.h_shape
    for each in (backbone, luminance):
        assert each.crop == source.crop and each.config.t_last == source.config.t_last
        assert torch.equal(each.alpha_bar, source.alpha_bar)
    assert backbone.config.std == [source.config.std] * 3 and luminance.config.std == source.config.std


def test_the_ddpm_in_colour_starts_from_that_of_luminance():
    config = composed("train_asyrp")
    colour = DDPMBackbone(DDPMConfig(**config["backbone"]))
    luminance = DDPMBackbone(DDPMConfig(**composed("train_asyrp", "recipe=asyrp_luminance")["backbone"]))
    start_unet_in_colour(colour.unet, luminance.unet)
    assert colour.latent_shape == (6, 48, 48) and colour.crop == luminance.crop
    assert colour.config.chroma == composed("train_ti", "recipe=ti_colour")["autoencoder"]["chroma"]
    drawn = {"batch_size", "shares", "balance", "balance_groups"}
    assert config["trainer"].keys() - {field.name for field in fields(TrainerConfig)} == drawn


@pytest.mark.parametrize("recipe", [(), ("recipe=ti_colour",)], ids=["luminance", "colour"])
def test_trainers_and_names_fit_the_code(recipe):
    config, known = composed("train_ti", *recipe), {field.name for field in fields(TrainerConfig)}
    drawn, colour = {"batch_size", "shares", "balance"}, bool(recipe)
    assert config["clip"]["trainer"].keys() - known == drawn | {"augment"}
    assert config["autoencoder"].keys() - known == drawn | {"beta", "pull"} | ({"chroma"} if colour else set())
    assert config["unet"].keys() - known == drawn | {"empty"} | ({"balance_groups"} if colour else set())
    words = config["tokens"]
    assert words["trainer"].keys() <= known
    assert set(words["data"].values()) | words["templates"].keys() <= set(config["data"]["sets"])
    assert words["spans"].keys() | words["closed"].keys() | (words["data"].keys() - {"others"}) <= words["like"].keys()
    assert words["voted"].keys() <= words["like"].keys() == words["gain"].keys() >= set(BASIC)
    (shipped,) = load_editor("ti").steerings
    assert shipped.spans == {name: tuple(span) for name, span in words["spans"].items()}
    torch.testing.assert_close(shipped.gain, torch.tensor([words["gain"][name] for name in shipped.emotions]))
    Augment(**config["clip"]["trainer"]["augment"])
    assert set(config["captions"]["kinds"]) >= set(config["data"]["sets"])
    for how in (config["autoencoder"], config["unet"], *([] if colour else [config["clip"]["trainer"]])):
        assert set(how["shares"]) <= set(config["data"]["sets"])
    assert "{numbers}" in (ROOT / "experiments" / "cards" / "ti.md").read_text()


UNET = (
    "{sample_size: 8, in_channels: 4, out_channels: 4, block_out_channels: [8, 16], layers_per_block: 1,"
    " down_block_types: [CrossAttnDownBlock2D, AttnDownBlock2D], up_block_types: [AttnUpBlock2D, CrossAttnUpBlock2D],"
    " attention_head_dim: [8, 8], norm_num_groups: 4, cross_attention_dim: 16}"
)
VAE = (
    "{in_channels: 1, out_channels: 1, latent_channels: 4, block_out_channels: [8, 8], layers_per_block: 1,"
    " down_block_types: [DownEncoderBlock2D, DownEncoderBlock2D], up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D],"
    " norm_num_groups: 4, mid_block_add_attention: false, scaling_factor: 1.0}"
)
TEXT = "{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2}"
VISION = (
    "{num_channels: 1, image_size: 16, patch_size: 4, hidden_size: 16, intermediate_size: 32,"
    " num_hidden_layers: 1, num_attention_heads: 2}"
)


@pytest.fixture(scope="module")
def grey():
    from skimage.data import astronaut

    return np.asarray(Image.fromarray(astronaut()[0:256, 96:352]).convert("L").resize((16, 16)), float)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, grey) -> Path:
    """The whole recipe on a tiny data set, with the finished editor in ``editor``."""
    tmp_path, rng = tmp_path_factory.mktemp("recipe"), np.random.default_rng(0)
    crops = tmp_path / "crops"
    crops.mkdir()
    np.save(crops / "crops.npy", (grey + rng.normal(0, 12, (32, 16, 16))).clip(0, 255).astype(np.uint8))
    rows = [
        f"faces,{n},{'happy' if n % 2 else 'neutral'},{'train' if n < 24 else 'valid'},,{'' if n % 2 else '9 1'}"
        for n in range(32)
    ]
    (crops / "index.csv").write_text("\n".join(["data,name,emotion,split,person,votes", *rows]))
    classifier = {"heads": {"emotion": 3, "person": 4}, "resolution": 16, "widths": (8, 8, 8, 8)}
    network = MeasuringNetwork(NetworkConfig(**classifier, emotions=("neutral", "happy", "surprised")))
    torch.save(network.state_dict(), tmp_path / "classifier.pt")
    source = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": 8,
        "norm_num_groups": 4,
    }
    cosine = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
    DDPMBackbone(DDPMConfig(unet=source, scheduler=cosine, patch=2, steps=4)).save_pretrained(tmp_path / "start")
    tiny = (
        "steps: 2, batch_size: 6, shares: {faces: 1.0}, balance: 0.5, precision: 'no', save_every: 1, preview_every: 2"
    )
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train_ti.py"),
        f"data.root={tmp_path}",
        f"data.crops={crops}",
        f"agreed.crops={crops}",
        "~data.sets",
        "+data.sets={faces: {reader: labels_csv, path: labels.csv}}",
        f"work={tmp_path / 'work'}",
        f"output={tmp_path / 'editor'}",
        f"start={tmp_path / 'start'}",
        f"classifier_weights={tmp_path / 'classifier.pt'}",
        "stages=[tokenizer,clip,autoencoder,unet,tokens,finish]",
        *("~backbone.unet", f"+backbone.unet={UNET}", "~backbone.vae", f"+backbone.vae={VAE}"),
        *("~backbone.text_encoder", f"+backbone.text_encoder={TEXT}", "~clip.vision", f"+clip.vision={VISION}"),
        *("clip.projection_dim=8", "backbone.steps=4", "captions.merges=120"),
        *("~captions.kinds", "+captions.kinds={faces: [photo]}", "shown=[a face, a happy face]", "held_out=6"),
        *("~clip.trainer", f"+clip.trainer={{{tiny}, augment: {{rotation: 3.0}}}}"),
        *("~autoencoder", f"+autoencoder={{{tiny}, beta: 1.0e-6, pull: 1.0}}"),
        *("~unet", f"+unet={{{tiny}, empty: 0.1, accumulate: 2}}"),
        "~classifier.config",
        "+classifier.config={heads: {emotion: 3, person: 4}, resolution: 16, widths: [8, 8, 8, 8],"
        " emotions: [neutral, happy, surprised]}",
        "~tokens",
        "+tokens={data: {others: faces}, templates: {}, spans: {delighted: [0, 999]}, pictures: 4,"
        " like: {happy: happy, delighted: happy, neutral: neutral}, vectors: 1, batch_size: 3,"
        " shown: {faces: 2}, closed: {happy: 9.0}, voted: {neutral: {agreed: 0.8, closed: 9.0}},"
        " gain: {happy: 1.0, delighted: 2.0, neutral: 1.0}, kept: false,"
        " trainer: {steps: 2, precision: 'no', save_every: 1, preview_every: 2}}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "stdout").write_text(done.stdout)
    wide = {
        "in_channels: 4": "in_channels: 6",
        "out_channels: 4": "out_channels: 6",
        "in_channels: 1": "in_channels: 3",
    }
    wide |= {"out_channels: 1": "out_channels: 3", "latent_channels: 4": "latent_channels: 6"}
    for grey, colour in wide.items():
        command = [
            argument if "vision" in argument else argument.replace(f"{grey},", f"{colour},") for argument in command
        ]
    changed = {
        f"start={tmp_path / 'start'}": f"luminance={tmp_path / 'work'}",
        f"work={tmp_path / 'work'}": f"work={tmp_path / 'colour'}",
        f"output={tmp_path / 'editor'}": f"output={tmp_path / 'coloured'}",
        "stages=[tokenizer,clip,autoencoder,unet,tokens,finish]": "stages=[autoencoder,unet,finish]",
    }
    command = [changed.get(argument, argument).replace("kept: false", "kept: true") for argument in command]
    command.append("recipe=ti_colour")
    command = [argument.replace("pull: 1.0}", "pull: 1.0, chroma: 4.0}") for argument in command]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_the_whole_recipe_runs_and_its_editor_edits(folder, grey):
    editor = load_editor(folder / "editor")
    assert editor.emotions == ("happy", "delighted", "neutral")
    assert editor.backbone.config.prompt == "a photo of a face" and editor.backbone.config.steps == 4
    for emotion in editor.emotions:
        (edited,) = editor.edit(editor.invert(grey.astype(np.uint8)), [Edit(emotion, 2.0)])
        assert edited.shape == (1, 1, 16, 16) and bool(edited.isfinite().all())
    card = (folder / "editor" / "README.md").read_text()
    for line in (
        "zero-shot emotion of 6 held-out faces, faces",
        "autoencoder, 6 held-out faces, faces",
        "2 steps of 12 pictures",
        "loss on held-out faces under: the true caption",
        "token <delighted>: 4 pictures",
        "token <neutral>: 4 pictures of faces (80% or more of the people who voted see neutral)",
    ):
        assert line in card, line
        assert line in (folder / "stdout").read_text()
    assert json.loads((folder / "editor" / "editor.json").read_text())["licence"]
    for name in ("unet", "vae", "text_encoder"):
        (path,) = (folder / "editor" / "backbone" / name).glob("*.safetensors")
        parts = sum(value.numel() for value in getattr(editor.backbone, name).state_dict().values())
        assert path.stat().st_size < 2 * parts + 60_000  # half precision


@pytest.mark.slow
def test_the_model_in_colour_keeps_the_words_of_the_model_of_luminance(folder, grey):
    editor, luminance = load_editor(folder / "coloured"), load_editor(folder / "editor")
    assert editor.emotions == luminance.emotions and editor.backbone.channels == 3
    assert editor.backbone.latent_shape == (6, 8, 8) and editor.compositor == "coloured"
    for mine, kept in zip(editor.steerings[0].parameters(), luminance.steerings[0].parameters(), strict=True):
        assert torch.equal(mine, kept)
    rgb = np.stack([grey, 0.8 * grey, 0.6 * grey], -1).astype(np.uint8)
    (edited,) = editor.edit(editor.invert(rgb), [Edit("happy", 2.0)])
    assert edited.shape == (1, 3, 16, 16) and bool(edited.isfinite().all())
    card = (folder / "coloured" / "README.md").read_text()
    for line in ("zero-shot emotion of 6", "autoencoder, 6 held-out faces", "U-Net, loss on held-out", "token <happy>"):
        assert card.count(line) == 1, line


@pytest.mark.slow
def test_the_clip_beside_it_is_the_one_its_text_encoder_comes_from(folder):
    clip = Clip.from_pretrained(folder / "editor" / "clip")
    backbone = load_editor(folder / "editor").backbone
    ids = torch.tensor([backbone.tokenizer("a happy face", padding="max_length", max_length=24)["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(clip.model.text_model(input_ids=ids)[0], backbone.text_encoder(ids)[0])
    assert clip.image_embeddings(torch.zeros(1, 1, 16, 16)).shape == (1, 8)


@pytest.mark.slow
def test_diffusers_own_pipeline_reads_it_and_its_tokens_and_draws(folder):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder / "editor" / "backbone", local_files_only=True)
    steering = folder / "editor" / "steering_0"
    for path in sorted(steering.glob("*/learned_embeds.safetensors")):
        pipeline.load_textual_inversion(path)
    assert pipeline.tokenizer.convert_tokens_to_ids("<neutral>") == len(pipeline.tokenizer) - 1
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        "a photo of a <happy> face",
        num_inference_steps=3,
        height=16,
        width=16,
        generator=torch.Generator().manual_seed(0),
    ).images
    assert drawn[0].mode == "L" and drawn[0].size == (16, 16)


@pytest.mark.slow
def test_a_token_is_learned_from_a_folder_of_photographs(folder, tmp_path, astronaut):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(3):
        Image.fromarray(np.roll(astronaut, 5 * n, 1)).save(pictures / f"{n}.png")
    command = [
        sys.executable,
        str(ROOT / "experiments" / "fit_tokens.py"),
        *("token=smirk", "like=happy", f"pictures={pictures}", f"validation={pictures}"),
        *(f"model={folder / 'editor'}", f"output={tmp_path / 'run'}", "batch_size=2", "device=cpu"),
        "trainer={steps: 2, learning_rate: 0.01, warmup: 1, precision: 'no', save_every: 1, preview_every: 2}",
    ]
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "env": _environment()}
    done = subprocess.run(command, **run)
    assert done.returncode == 0, done.stdout + done.stderr
    token, vectors = read_embedding(tmp_path / "run")
    assert token == "<smirk>" and vectors.shape == (1, 16) and "<smirk>:" in done.stdout
    longer = subprocess.run([*command[:-1], command[-1].replace("steps: 2", "steps: 3")], **run)  # goes on
    assert longer.returncode == 0 and torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 3
    refused = subprocess.run([*command, "vectors=2"], **run)
    assert refused.returncode == 1 and "another run" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_a_full_size_folder_of_diffusers_is_a_model_too(tmp_path):
    sys.path.insert(0, str(ROOT / "experiments"))
    from fit_tokens import load_model

    assert load_model(str(write_model(tmp_path))).channels == 3
    assert files.INDEX in {path.name for path in tmp_path.iterdir()}

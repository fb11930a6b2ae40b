"""The recipes in configs/ and experiments/: every config fits the code it configures, and the whole path runs on a tiny
data set, as it does on the real one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.editors import load_editor
from emoedit.models.ddpm.backbone import DDPMBackbone, DDPMConfig
from emoedit.models.vae.backbone import VAEConfig
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.registry import READERS
from emoedit.training.cropping import Filter
from emoedit.training.hspace import ShiftLoss
from emoedit.training.loop import TrainerConfig
from emoedit.types import CropSpec, Edit
from tests.fixtures.configs import ROOT, composed


def test_every_training_config_fits_the_code():
    config = composed("train_embedded")
    assert VAEConfig(**config["backbone"]).resolution % 2 ** len(config["backbone"]["widths"]) == 0
    shipped = load_editor("vae").backbone.to_config()
    assert {name: list(v) if isinstance(v, tuple) else v for name, v in shipped.items()} == config["backbone"]
    known = {field.name for field in fields(TrainerConfig)}
    assert config["trainer"].keys() - known == {"batch_size", "beta", "shares", "balance", "balance_groups"}
    assert set(config["trainer"]["shares"]) <= set(config["data"]["sets"])
    assert Filter(**config["data"]["filter"]) == Filter()
    assert all(how["reader"] in READERS.names() for how in config["data"]["sets"].values())
    # Of everyday faces nobody said what they show.
    assert set(config["steering"]["trust"]) == set(config["data"]["sets"]) - {"everyday"}
    start = composed("train_embedded", "recipe=vae_luminance")["backbone"]
    assert start["channels"] == 1 and start["latent_dim"] <= config["backbone"]["latent_dim"]
    assert set(config["steering"]["gains"]) == set(config["steering"]["emotions"])


def test_the_ablation_judges_what_the_editor_draws():
    study, training = composed("compositor_ablation"), composed("train_embedded")
    assert study["crops"]["luminance"] == training["backbone"]["resolution"]
    assert CropSpec(study["crops"]["luminance"], "stable", study["data"]["scale"], study["data"]["down"])
    assert study["perfect"] <= study["people"] and 1.0 in study["strengths"]


@pytest.mark.slow
def test_the_whole_recipe_runs_and_its_editor_edits(tmp_path, astronaut):
    rng = np.random.default_rng(0)
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    rows = ["image,emotion,split"]
    for n in range(12):
        head = astronaut[0:300, 60:380].astype(float)
        picture = np.roll(head, 3 * n, 1) * rng.uniform(0.7, 1.1) + rng.normal(0, 8, head.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(images / f"{n}.png")
        rows.append(f"{n}.png,{'happy' if n % 2 else 'neutral'},{'train' if n < 10 else 'valid'}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train_embedded.py"),
        f"data.root={tmp_path / 'data'}",
        "~data.sets",
        "+data.sets={faces: {reader: labels_csv, path: labels.csv}}",
        f"data.crops={tmp_path / 'crops'}",
        "data.resolution=64",
        f"work={tmp_path / 'work'}",
        f"output={tmp_path / 'editor'}",
        "start=null",
        "backbone={resolution: 32, widths: [8, 16], encoder_blocks: 1, decoder_blocks: 1, latent_dim: 8,"
        " crop_scale: 0.66, crop_down: 0.074, channels: 3, mean: [0.1, 0, -0.1], std: [0.4, 0.3, 0.3]}",
        "~trainer",
        "+trainer={steps: 3, batch_size: 4, beta: 0.1, shares: {faces: 1.0}, precision: 'no', save_every: 2}",
        "~steering",
        "+steering={emotions: [happy], trust: {faces: 1.0}, gains: {happy: 1.5}, min_count: 1, pictures: 99,"
        " agreed: {default: 0.8}, voted: [], closed: {}}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    editor = load_editor(tmp_path / "editor")
    assert editor.emotions == ("neutral", "happy")
    picture = np.asarray(Image.fromarray(astronaut).resize((32, 32)))
    (edited,) = editor.edit(editor.invert(picture), [Edit("happy")])
    assert edited.shape == (1, 3, 32, 32)
    card = (tmp_path / "editor" / "README.md").read_text()
    assert "in luminance" in card and "in RGB" in card
    assert "pictures the directions come from, faces: {'happy': 5, 'neutral': 5}" in card
    assert json.loads((tmp_path / "editor" / "editor.json").read_text())["licence"]


def test_the_asyrp_config_fits_the_code():
    config = composed("train_asyrp")
    backbone = DDPMBackbone(DDPMConfig(**config["backbone"]))
    assert backbone.crop.resolution == 96 and backbone.channels == 3
    shipped = load_editor("asyrp").backbone.to_config()
    # The shipped model is the recipe's; diffusers adds its defaults to what is configured.
    assert {name: shipped["unet"][name] for name in config["backbone"]["unet"]} == config["backbone"]["unet"]
    assert {name: shipped[name] for name in config["backbone"] if name not in ("unet", "scheduler")} == {
        name: value for name, value in config["backbone"].items() if name not in ("unet", "scheduler")
    }
    assert NetworkConfig(**config["classifier"]["config"]).heads.keys() == {"emotion", "person"}
    how, known = config["steering"], {field.name for field in fields(TrainerConfig)}
    assert how["trainer"].keys() <= known
    assert config["trainer"].keys() - known == {"batch_size", "shares", "balance", "balance_groups"}
    assert set(config["trainer"]["shares"]) <= set(config["data"]["sets"])
    assert set(how["emotions"]) == set(how["start"]) <= set(config["classifier"]["config"]["emotions"])
    luminance = composed("train_asyrp", "recipe=asyrp_luminance")
    assert luminance["steering"] == how and luminance["trainer"].keys() - known == {"batch_size", "shares", "balance"}
    assert set(how["trust"]) | set(how["sources"]) | set(how["shown"]) <= set(config["data"]["sets"])
    ShiftLoss(**how["loss"])
    words = config["words"]
    assert words.keys() - {"words"} <= how.keys() and words["trainer"].keys() <= known
    assert (
        set(words["emotions"])
        <= set(load_editor(words["words"]).emotions) & words["start"].keys() & words["kept"].keys()
    )
    ShiftLoss(**words["loss"])
    assert how["alone"].keys() <= set(how["emotions"])
    for other in how["alone"].values():
        assert other.keys() <= how.keys() and other["trainer"].keys() <= known
        ShiftLoss(**other["loss"])


@pytest.mark.slow
def test_asyrps_whole_recipe_runs_and_its_editor_edits(tmp_path, astronaut):
    rng = np.random.default_rng(0)
    crops = tmp_path / "crops"
    crops.mkdir()
    grey = np.asarray(Image.fromarray(astronaut[0:256, 96:352]).convert("L").resize((16, 16)), float)
    np.save(crops / "crops.npy", (grey + rng.normal(0, 12, (24, 16, 16))).clip(0, 255).astype(np.uint8))
    rows = [f"faces,{n},{'happy' if n % 2 else 'neutral'},{'train' if n < 20 else 'valid'},0.1" for n in range(24)]
    (crops / "index.csv").write_text("\n".join(["data,name,emotion,split,yaw", *rows]))
    heads = {"emotion": 2, "person": 4}
    classifier = {"heads": heads, "resolution": 16, "widths": (8, 8, 8, 8), "emotions": ("neutral", "happy")}
    torch.save(MeasuringNetwork(NetworkConfig(**classifier)).state_dict(), tmp_path / "classifier.pt")
    unet = "{sample_size: 8, in_channels: 4, out_channels: 4, block_out_channels: [8, 16], layers_per_block: 1,"
    unet += " down_block_types: [DownBlock2D, DownBlock2D], up_block_types: [UpBlock2D, UpBlock2D], norm_num_groups: 4}"
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train_asyrp.py"),
        f"data.root={tmp_path}",
        f"data.crops={crops}",
        f"work={tmp_path / 'work'}",
        f"output={tmp_path / 'editor'}",
        f"classifier_weights={tmp_path / 'classifier.pt'}",
        "stages=[train,means,fit]",
        "recipe=asyrp_luminance",
        "~backbone.unet",
        f"+backbone.unet={unet}",
        "backbone.steps=4",
        "~trainer",
        "+trainer={steps: 3, batch_size: 6, shares: {faces: 1.0}, balance: 0.5, precision: 'no', save_every: 2,"
        " preview_every: 3}",
        "~classifier.config",
        "+classifier.config={heads: {emotion: 2, person: 4}, resolution: 16, widths: [8, 8, 8, 8],"
        " emotions: [neutral, happy]}",
        "~steering",
        "+steering={emotions: [happy], neutral: true, trust: {faces: 1.0}, pictures: 8, neutral_pictures: 8,"
        " posed: [faces], closed: {}, t_edit: 400, until: {happy: 500},"
        " kept: {happy: 0.5}, gain: {}, min_count: 2, start: {happy: 2.0},"
        " sources: {faces: 8}, shown: {faces: 2}, mirrored: true, batch_size: 4, judged: 1,"
        " guide: {jitter: 0.0, noise: 0.0},"
        " loss: {guide: {emotion: 1.0, person: 1.0}}, trainer: {steps: 2, precision: 'no', preview_every: 2},"
        " alone: {happy: {loss: {guide: {emotion: 1.0}, pale: 1.0}}}}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    command.remove("recipe=asyrp_luminance")
    changed = {
        f"work={tmp_path / 'work'}": f"work={tmp_path / 'colour'}",
        "stages=[train,means,fit]": "stages=[train,finish]",
        f"+backbone.unet={unet}": f"+backbone.unet={unet.replace('channels: 4', 'channels: 6')}",
    }
    command = [*(changed.get(argument, argument) for argument in command), f"luminance={tmp_path / 'work'}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    editor = load_editor(tmp_path / "editor")
    assert editor.emotions == ("happy", "neutral") and editor.compositor == "coloured"
    rgb = np.stack([grey, 0.8 * grey, 0.6 * grey], -1).astype(np.uint8)
    for emotion in editor.emotions:
        (edited,) = editor.edit(editor.invert(rgb), [Edit(emotion, 3.0)])
        assert edited.shape == (1, 3, 16, 16) and bool(edited.isfinite().all())
    card = (tmp_path / "editor" / "README.md").read_text()
    assert "3 of 6 pictures" in card and "happy, neutral: 2 steps" in card and "happy: 2 steps" in card


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}

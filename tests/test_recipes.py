"""The recipes in configs/ and experiments/: every config fits the code it configures, and the whole path runs on a tiny
data set, as it does on the real one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from emoedit.backbones.vae import VAEConfig
from emoedit.editors import load_editor
from emoedit.faces.align import CropSpec
from emoedit.training.loop import TrainerConfig
from emoedit.training.prepare import Filter
from emoedit.training.readers import READERS
from emoedit.types import Edit

ROOT = Path(__file__).parent.parent


def composed(name: str) -> dict:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return OmegaConf.to_container(compose(name, overrides=["data.root=/data"]), resolve=True)


def test_every_training_config_fits_the_code():
    config = composed("train_embedded")
    assert VAEConfig(**config["backbone"]).resolution % 2 ** len(config["backbone"]["widths"]) == 0
    known = {field.name for field in fields(TrainerConfig)}
    assert config["trainer"].keys() - known == {"batch_size", "beta", "shares"}
    assert set(config["trainer"]["shares"]) <= set(config["data"]["sets"])
    assert Filter(**config["data"]["filter"]) == Filter()
    assert all(how["reader"] in READERS for how in config["data"]["sets"].values())
    assert set(config["steering"]["trust"]) == set(config["data"]["sets"])
    assert set(config["steering"]["gains"]) == set(config["steering"]["emotions"])


def test_the_study_pastes_what_the_editor_pastes():
    study, training = composed("paste_study"), composed("train_embedded")
    assert study["resolution"] == training["backbone"]["resolution"]
    assert CropSpec(study["resolution"], "stable", study["data"]["scale"], study["data"]["down"])


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
        "backbone={resolution: 32, widths: [8, 16], encoder_blocks: 1, decoder_blocks: 1, latent_dim: 8,"
        " crop_scale: 0.66, crop_down: 0.074}",
        "~trainer",
        "+trainer={steps: 3, batch_size: 4, beta: 0.1, shares: {faces: 1.0}, precision: 'no', save_every: 2}",
        "~steering",
        "+steering={emotions: [happy], trust: {faces: 1.0}, gains: {happy: 1.5}, min_count: 1}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    editor = load_editor(tmp_path / "editor")
    assert editor.emotions == ("neutral", "happy")
    picture = np.asarray(Image.fromarray(astronaut).convert("L").resize((32, 32)))
    (edited,) = editor.edit(editor.invert(picture), [Edit("happy")])
    assert edited.shape == (1, 1, 32, 32)
    card = (tmp_path / "editor" / "README.md").read_text()
    assert "pictures the directions come from, faces: {'happy': 5, 'neutral': 5}" in card
    assert json.loads((tmp_path / "editor" / "editor.json").read_text())["licence"]


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}

"""``emoedit fit``: an emotion of one's own on small models of the published layout, and the editor that comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from emoedit.cli import main
from emoedit.cli.fit import _training_device
from emoedit.editors import load_editor
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.steering.tokens import read_embedding
from emoedit.steering.wspace import read_boundary
from tests.fixtures.editors import tiny_asyrp
from tests.fixtures.stable_diffusion import write_model
from tests.fixtures.stylegan2 import tiny as tiny_stylegan

FAST = ("--set", "steps=2", "t_last=500", "t_edit=100")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Three photographs of each of two classes, lit from the left and from the right."""
    monkeypatch.chdir(tmp_path)
    head = astronaut()[:256, 96:352].astype(float)
    light = np.linspace(0.7, 1.1, 256)[None, :, None]
    for name, lit in (("smirk", head * light), ("neutral", head * light[:, ::-1])):
        (tmp_path / name).mkdir()
        for n in range(3):
            Image.fromarray(np.roll(lit, n, 0).clip(0, 255).astype(np.uint8)).save(f"{name}/{n}.png")
    Image.fromarray(head.astype(np.uint8)).save("me.png")
    return tmp_path


def fit(kind: str, *options: object) -> int:
    return main(["fit", kind, *map(str, options), "--device", "cpu"])


PICTURES = ("--emotion", "smirk", "--pictures", "smirk", "--neutral", "neutral")


def test_a_shift_of_h_is_an_editor_that_names_its_model(here, capsys):
    tiny_asyrp(1, channels=3, std=None).backbone.save_pretrained(here / "ddpm")
    assert fit("shift", *PICTURES, "--model", "ddpm", *FAST, "t_boost=0", "--output", "mine") == 0
    err = capsys.readouterr().err
    assert "only 3 pictures that show the emotion" in err and "wrote mine" in err
    part = json.loads(Path("mine/editor.json").read_text())["backbone"]
    assert part["source"] == str(here / "ddpm") and not Path("mine/backbone").exists()
    editor = load_editor("mine", device="cpu")
    (shift,) = editor.steerings[0].shifts
    assert editor.emotions == ("smirk",) and bool(shift.directions.any()) and float(editor.steerings[0].gain[0]) == 4
    assert main(["edit", "me.png", "--editor", "mine", "--emotion", "smirk", "--device", "cpu"]) == 0
    assert fit("shift", *PICTURES, "--model", "ddpm", "--output", "mine") == 1  # it exists


def test_a_direction_of_an_embedded_editor_shares_its_backbone(here):
    assert fit("direction", *PICTURES, "--model", "vae", "--output", "mine") == 0
    assert not Path("mine/backbone").exists()
    editor = load_editor("mine", device="cpu")
    assert editor.emotions == ("smirk",) and bool(editor.steerings[0].directions.any())
    assert editor.compositor == "coloured"  # small models do not draw mouths and eyes as sharply as full-size ones


def test_a_boundary_comes_from_a_generators_own_samples(here, capsys):
    tiny_stylegan(resolution=32, widths=(8, 8, 8, 8), encoder_widths=(8, 8, 8)).save_pretrained(here / "gan")
    options = ("--emotion", "happy", "--model", "gan", "--samples", 60, "--output", "smile")
    assert fit("direction", *options) == 0, capsys.readouterr().err
    editor = load_editor("smile", device="cpu")
    assert "happy" in editor.emotions
    normal = read_boundary("smile.npy", width=editor.backbone.latent_shape[1])
    assert abs(float(normal.norm()) - 1) < 1e-3
    load_editor("stylegan2", model="gan", boundaries={"happy": ("smile.npy", 2.0)}, device="cpu")


def test_a_token_is_learned_and_used(here):
    pytest.importorskip("accelerate")
    write_model(here / "sd")
    options = ("--emotion", "smirk", "--like", "happy", "--pictures", "smirk", "--model", "sd", "--steps", 2)
    assert fit("token", *options, "--output", "token") == 0
    name, vectors = read_embedding("token")
    assert name == "<smirk>" and vectors.shape == (1, 32)
    assert load_editor("sd15", model="sd", tokens={"smirk": "token"}, device="cpu").emotions == ("smirk",)


class Placed(Exception):
    """Where a process put its model and its training."""


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_of_a_launch_puts_everything_on_its_own_card(here, monkeypatch, rank):
    """A machine that claims to have two cards, as the second process of ``accelerate launch`` sees it."""
    accelerate = pytest.importorskip("accelerate")
    write_model(here / "sd")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("LOCAL_RANK", rank), ("RANK", rank), ("WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    placed = []

    def accelerator(*, cpu: bool, **_):
        raise Placed(cpu)

    def loaded(*_):
        model = StableDiffusionBackbone.load(here / "sd")
        monkeypatch.setattr(StableDiffusionBackbone, "to", lambda self, device: placed.append(device) or self)
        return model, None

    monkeypatch.setattr("emoedit.full_size.backbone_of", loaded)
    monkeypatch.setattr(accelerate, "Accelerator", accelerator)
    options = ("--emotion", "smirk", "--like", "happy", "--pictures", "smirk", "--model", "sd", "--steps", "2")
    with pytest.raises(Placed) as found:
        main(["fit", "token", *options, "--output", "token"])
    assert placed == [f"cuda:{rank}"]
    assert found.value.args == (False,)  # accelerate puts the rest on the card of LOCAL_RANK itself


def test_a_launch_trains_tokens_and_nothing_else(here, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert fit("shift", *PICTURES, "--model", "asyrp", "--output", "o") == 2
    assert "run emoedit fit without a launcher" in capsys.readouterr().err


def test_tokens_are_trained_where_accelerate_trains(here, capsys, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    options = ("--emotion", "smirk", "--pictures", "smirk", "--model", "ti", "--output", "o")
    assert main(["fit", "token", *options, "--device", "mps"]) == 2
    assert "trained on cpu on this machine, not on mps: leave out --device" in capsys.readouterr().err
    assert _training_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("words", "status", "match"),
    [
        (("token", "--emotion", "x", "--model", "ti", "--output", "o"), 2, "learned from pictures: --pictures"),
        (
            ("shift", "--emotion", "x", "--model", "asyrp", "--pictures", "smirk", "--output", "o"),
            2,
            "--neutral FOLDER",
        ),
        (
            ("direction", "--emotion", "x", "--model", "vae", "--neutral", "neutral", "--output", "o"),
            2,
            "or, of a Style",
        ),
        (("direction", "--emotion", "happy", "--model", "vae", "--output", "o"), 1, "draws no people at random"),
        (("shift", *PICTURES, "--model", "vae", "--output", "o"), 1, "VAEBackbone has no h"),
        (("direction", *PICTURES, "--model", "asyrp", "--output", "o"), 1, "is noise: fit a shift"),
        (("shift", *PICTURES, "--model", "nothing-like-it", "--output", "o"), 1, "unknown model"),
        (("token", *PICTURES, "--model", "vae", "--output", "o"), 2, "has no text input"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(here, capsys, words, status, match):
    assert fit(*words) == status
    assert match in capsys.readouterr().err and not Path("o").exists()

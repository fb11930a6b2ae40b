"""Full-size editors from the command line: one command each, on small files of the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from emoedit.cli import main
from emoedit.steering.hspace import ShiftBlock
from emoedit.steering.tokens import write_embedding
from tests.fixtures.editors import tiny_asyrp
from tests.fixtures.faceflex import numbers
from tests.fixtures.instruct import write_pix2pix
from tests.fixtures.nvidia import W, by_formula, nvidia_file, nvidia_generator
from tests.fixtures.stable_diffusion import SMALL_TEXT, write_model
from tests.fixtures.style_encoder import write_encoder
from tests.fixtures.stylegan2 import tiny as tiny_stylegan

SMILING = "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
FAST = ("--set", "steps=2", "t_last=500", "t_edit=100", "--device", "cpu", "--precision", "float32")
BOOSTLESS = (*FAST[:4], "t_boost=0", *FAST[4:])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A Stable Diffusion, a DDPM, a StyleGAN2, a part for each, and an InstructPix2Pix."""
    folder = tmp_path_factory.mktemp("weights")
    write_model(folder / "sd")
    write_embedding(folder / "learned_embeds.safetensors", "<glad>", numbers(3, 1, SMALL_TEXT["hidden_size"]))
    ddpm = tiny_asyrp(1, channels=3, std=None).backbone
    ddpm.save_pretrained(folder / "ddpm")
    torch.save({"0": ShiftBlock(ddpm.h_shape[0], ddpm.temb_dim).state_dict()}, folder / SMILING)
    stylegan = tiny_stylegan()
    stylegan.save_pretrained(folder / "stylegan")
    normal = numbers(3, 1, stylegan.latent_shape[1])
    np.save(folder / "smile.npy", (normal / normal.norm()).numpy())
    write_pix2pix(folder / "instruct")
    nvidia_file(folder / "ffhq.pkl", nvidia_generator(by_formula()))
    np.save(folder / "pkl.npy", np.eye(1, W, dtype=np.float32))
    colour = tiny_stylegan(resolution=32, widths=(12, 12, 8, 8), channels=3, encoder_widths=None, optimise_steps=1)
    write_encoder(folder / "e4e_ffhq_encode.pt", "e4e", colour)
    torch.save(torch.eye(16)[:1], folder / "smile.pt")
    return folder


@pytest.fixture
def photo(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    # A PNG: a JPEG that is saved again differs everywhere, edited or not.
    Image.fromarray(astronaut()[:256, 96:352]).save("me.png")
    return "me.png"


@pytest.mark.parametrize(
    ("name", "options", "known"),
    [
        ("sd15", ("--model", "{sd}", *FAST), "sd15 computes on cpu"),
        ("sd15", ("--model", "{sd}", "--token", "happy={token}", *FAST), "sd15 computes on cpu"),
        ("sd15-asyrp", ("--model", "{sd}", "--token", "happy={token}", *FAST), "sd15-asyrp computes on cpu"),
        ("celebahq", ("--model", "{ddpm}", "--shift", f"happy={{root}}/{SMILING}", *BOOSTLESS), "celebahq"),
        ("stylegan2", ("--model", "{stylegan}", "--boundary", "happy={boundary}:3", "--layers", "0-2"), "stylegan2"),
        (
            "stylegan2",
            ("--model", "{root}/e4e_ffhq_encode.pt", "--boundary", "happy={root}/smile.pt:3", "--layers", "4-8"),
            "stylegan2",
        ),
        (
            "stylegan2",
            ("--model", "{root}/e4e_ffhq_encode.pt", "--encoder", "{root}/e4e_ffhq_encode.pt", "--boundary", "{root}"),
            "stylegan2",
        ),
        ("instruct", ("--model", "{pix2pix}", "--set", "steps=2", "resolution=32", "--device", "cpu"), "instruct"),
        ("{sd}", FAST, "sd15 computes on cpu"),
    ],
)
def test_one_command_edits_a_photograph(photo, files, capsys, name, options, known):
    paths = {name: files / name for name in ("sd", "ddpm", "stylegan")}
    paths["pix2pix"] = files / "instruct" / "pipeline"
    paths |= {"token": files / "learned_embeds.safetensors", "boundary": files / "smile.npy", "root": files}
    words = [str(word).format(**paths) for word in ("edit", photo, "--editor", name, *options, "--json", "report.json")]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert known in err and "wrote me_happy.png" in err
    before, after = (np.asarray(Image.open(each).convert("RGB"), int) for each in (photo, "me_happy.png"))
    assert before.shape == after.shape and np.abs(before - after).max() > 0
    (row,) = json.loads(Path("report.json").read_text())
    assert row["error"] is None and row["editor"] == (name if name[0] != "{" else "sd15")


def test_models_says_what_an_editor_needs_and_whether_it_is_here(capsys):
    assert main(["models", "sd*"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "role", "size", "GPU", "needs", "licence", "here", "source"]
    assert [row.split()[0] for row in rows] == ["sd15", "sd15-asyrp"]
    assert all("4.26 GB" in row and "2.5 GB" in row and "CreativeML OpenRAIL-M" in row for row in rows)
    assert main(["models", "stylegan2"]) == 0
    assert "--model --boundary" in capsys.readouterr().out
    assert main(["models", "sdx"]) == 2
    assert "unknown model 'sdx'" in capsys.readouterr().err


def test_nvidias_pickle_in_one_command(photo, files, capsys):
    """Its generator of waves draws no photograph, so that optimisation cannot find one, and says so; the layers of the
    command are checked against those it has."""
    words = ["edit", photo, "--editor", "stylegan2", "--model", str(files / "ffhq.pkl"), "--device", "cpu"]
    words += ["--boundary", f"happy={files / 'pkl.npy'}:3", "--set", "optimise_steps=1"]
    assert main([*words, "--layers", "4-8"]) == 1
    assert "layers 4 to 8 of 6" in capsys.readouterr().err
    assert main([*words, "--layers", "4-6"]) == 1
    assert "was not found after 1 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "status", "match"),
    [
        (("--set", "step=4"), 2, "step: no settings of sd15; did you mean steps?"),
        (("--set", "steps"), 2, "expected NAME=VALUE, as in steps=20, not 'steps'"),
        (("--token", "a", "b"), 2, "--token takes EMOTION=FILE, or one folder; not a, b"),
        (("--token", "happy=none.bin"), 1, "--token happy=none.bin: there is no such file"),
        (("--layers", "8-4"), 2, "expected two numbers, the second larger, as in 4-8"),
        (("--layers", "4-8"), 2, "sd15 takes no --layers; it takes --token"),
        (("--batch", "0"), 2, "expected auto or a whole number from 1 on"),
        (("--device", "gpu"), 2, "expected auto, cpu, mps, cuda or cuda:N"),
        (("--precision", "int8"), 2, "invalid choice: 'int8'"),
        (("--emotion", "hapy"), 2, "did you mean 'happy'"),
    ],
)
def test_what_makes_no_sense_is_said_before_a_weight_is_read(photo, capsys, monkeypatch, options, status, match):
    monkeypatch.setattr("emoedit.full_size.load_backbone", lambda *a, **k: pytest.fail("read weights"))
    try:
        found = main(["edit", photo, "--editor", "sd15", *options])
    except SystemExit as stop:
        found = stop.code
    assert found == status and match in capsys.readouterr().err

"""Full-size editors in a sweep: described by plain values, checked before any weight is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.evaluation.sweeps import Job, with_one_editor
from emoedit.steering.hspace import ShiftBlock
from emoedit.steering.tokens import write_embedding
from emoedit.types import CheckpointError, DataError, EditError
from tests.fixtures.editors import tiny_asyrp
from tests.fixtures.faceflex import numbers
from tests.fixtures.instruct import write_pix2pix
from tests.fixtures.stable_diffusion import SMALL_TEXT, write_model
from tests.fixtures.style_encoder import write_encoder
from tests.fixtures.stylegan2 import tiny as tiny_stylegan
from tests.fixtures.sweeps import described, run


def test_entries_of_the_editor_become_one_override():
    given = [
        "-m",
        "editor=sd15",
        "emotion=happy,sad",
        "editor.model=/a b/c",
        "editor.steps=2",
        "editor.tokens.sad=x",
    ]
    assert with_one_editor(given) == [
        "-m",
        "emotion=happy,sad",
        "editor={editor:'sd15',model:'/a b/c',steps:2,tokens:{sad:'x'}}",
    ]
    assert with_one_editor(["editor=vae,asyrp"]) == ["editor=vae,asyrp"]
    for wrong in (["editor.model=x"], ["editor=vae,asyrp", "editor.model=x"]):
        with pytest.raises(DataError, match="say of which editor"):
            with_one_editor(wrong)


def test_hydra_reads_the_override_as_it_was_meant():
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    (text,) = with_one_editor(["editor=sd15", "editor.model=it's/here", "editor.guidance=2.5", "editor.masked=false"])
    found = parser.parse_override(text).value()
    assert found == {"editor": "sd15", "model": "it's/here", "guidance": 2.5, "masked": False}


def test_a_job_edits_with_a_full_size_model(tmp_path, astronaut):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.ascontiguousarray(astronaut[:256, 96:352])).save(tmp_path / "photos" / "0.png")
    editor = {"editor": "sd15", "model": str(write_model(tmp_path / "sd")), "name": "words", "steps": 2, "t_last": 500}
    config = described(tmp_path / "photos", tmp_path, tmp_path / "out") | {"editor": editor, "strength": [1.0]}
    assert run(config) == {"cells": 2, "failed": 0}
    for change, error, match in (
        ({"step": 4}, EditError, "did you mean steps"),
        ({"tokens": {"happy": "none.bin"}}, CheckpointError, "there is no such file"),
    ):
        with pytest.raises(error, match=match):
            Job.from_config({**config, "editor": {**editor, **change}}).check()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A model of each kind, and what it needs beside it."""
    folder = tmp_path_factory.mktemp("weights")
    write_model(folder / "sd")
    ddpm = tiny_asyrp(1, channels=3, std=None).backbone
    ddpm.save_pretrained(folder / "ddpm")
    torch.save({"0": ShiftBlock(ddpm.h_shape[0], ddpm.temb_dim).state_dict()}, folder / "smiling_ngen40_.pth")
    stylegan = tiny_stylegan()
    stylegan.save_pretrained(folder / "stylegan")
    normal = numbers(3, 1, stylegan.latent_shape[1])
    np.save(folder / "smile.npy", (normal / normal.norm()).numpy())
    write_embedding(folder / "learned_embeds.safetensors", "<glad>", numbers(3, 1, SMALL_TEXT["hidden_size"]))
    colour = tiny_stylegan(resolution=32, widths=(12, 12, 8, 8), channels=3, encoder_widths=None, optimise_steps=1)
    write_encoder(folder / "e4e_ffhq_encode.pt", "e4e", colour)
    torch.save(torch.eye(16)[:1], folder / "smile.pt")
    (folder / "instruct").mkdir()
    write_pix2pix(folder / "instruct")
    return folder


QUICK = ("editor.steps=2", "editor.t_last=500", "editor.t_edit=100")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "celebahq",
            ("editor.model={0}/ddpm", "editor.shifts.happy={0}/smiling_ngen40_.pth", "editor.t_boost=0", *QUICK),
        ),
        ("sd15", ("editor.model={0}/sd", "editor.tokens.happy={0}/learned_embeds.safetensors", *QUICK)),
        ("sd15-asyrp", ("editor.model={0}/sd", *QUICK)),
        ("sd15-asyrp", ("editor.model={0}/sd", "editor.tokens.happy={0}/learned_embeds.safetensors", *QUICK)),
        (
            "stylegan2",
            ("editor.model={0}/stylegan", "editor.boundaries.happy=['{0}/smile.npy',3]", "editor.layers=[0,2]"),
        ),
        (
            "stylegan2",
            (
                "editor.model={0}/e4e_ffhq_encode.pt",
                "editor.encoder={0}/e4e_ffhq_encode.pt",
                "editor.boundaries.happy=['{0}/smile.pt',3]",
                "editor.layers=[4,8]",
            ),
        ),
        ("instruct", ("editor.model={0}/instruct/pipeline", "editor.steps=2", "editor.resolution=32")),
        (
            "instruct",
            ("editor.model={0}/instruct/pipeline", "editor.steps=2", "editor.resolution=32", "editor.whole=true"),
        ),
    ],
)
def test_lines_of_a_config_make_a_job_that_runs(weights, tmp_path, astronaut, name, lines):
    """As a user writes them, through Hydra's own grammar, to pictures that differ from the photograph."""
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    (text,) = with_one_editor([f"editor={name}", *(line.format(weights) for line in lines)])
    editor = parser.parse_override(text).value()
    (tmp_path / "photos").mkdir()
    photo = np.ascontiguousarray(astronaut[:256, 96:352])
    Image.fromarray(photo).save(tmp_path / "photos" / "0.png")
    config = described(tmp_path / "photos", tmp_path, tmp_path / "out") | {"editor": editor, "strength": [1.0]}
    config |= {"emotion": ["happy"], "pictures": "png"}
    Job.from_config(config).check()
    assert run(config) == {"cells": 1, "failed": 0}
    (made,) = Job.from_config(config).folder.rglob("*.png")
    assert np.abs(np.asarray(Image.open(made).convert("RGB"), int) - photo).max() > 0

"""Full-size editors in a sweep: described by plain values, checked before any weight is read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emoedit.evaluation.sweeps import Job, with_one_editor
from emoedit.types import CheckpointError, DataError, EditError
from tests.fixtures.stable_diffusion import write_model
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

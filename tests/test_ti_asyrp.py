"""The recipe that puts words and shifts together, and the study's arithmetic."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from test_combined import shifts
from test_ddpm import tiny as unconditional
from test_stable_diffusion import tiny
from test_tokens import steering as tokens

from emoedit.editors import Editor, load_editor
from emoedit.steering.combined import TokenAndShift, TokenShift
from emoedit.steering.hspace import Directions, HSpace

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


@pytest.fixture
def scripts(monkeypatch):
    """Scripts as modules, by name."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))

    def load(name: str):
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


def test_words_and_shifts_of_two_editors_become_one(scripts, tmp_path):
    backbone = tiny()
    Editor(backbone, [tokens()], name="ti").save_pretrained(tmp_path / "ti")
    other = unconditional()
    moved = HSpace(
        ["happy", "sad", "angry"],
        [Directions(torch.randn(1, *other.h_shape)) for _ in range(3)],
        train_steps=other.steps,
        gain=torch.tensor([0.5, 1.0, 2.0]),
    )
    Editor(other, [moved], name="asyrp").save_pretrained(tmp_path / "asyrp")
    config = OmegaConf.create(
        {
            "name": "both",
            "words": str(tmp_path / "ti"),
            "shifts": str(tmp_path / "asyrp"),
            "sampling": {"t_edit": 100},
            "gain": {"sad": {"token": 0.5, "h": 0.75}, "happy": {"token": 1.0, "h": 0.5}},
        }
    )
    editor = scripts("train_ti_asyrp").join(config)
    (part,) = editor.steerings
    assert editor.emotions == ("happy", "sad") and editor.backbone.config.t_edit == 100
    assert part.shift.emotions == ("sad", "happy") and part.shift.gain.tolist() == [0.75, 0.25]
    assert part.tokens.gain.tolist() == [1.0, 0.5, 1.0] and part.tokens.tokens == tokens().tokens
    torch.testing.assert_close(part.shift.shifts[0].directions, moved.shifts[1].directions, atol=2e-3, rtol=0)
    editor.save_pretrained(tmp_path / "both", backbone_of=tmp_path / "ti")
    assert load_editor(tmp_path / "both", device="cpu").backbone.config.t_edit == 100


def test_a_variant_is_the_model_with_other_parts(scripts):
    backbone = tiny()
    model = Editor(backbone, [TokenAndShift(tokens(), shifts(backbone), token_strength=0.5)], name="both")
    variant = scripts("ti_asyrp_study").variant
    assert variant(model, "same", {}).steerings[0].token_strength == 0.5
    alone = variant(model, "h", {"token_strength": 0.0, "sampling": {"guidance": 1.0}})
    assert alone.steerings[0].token_strength == 0 and alone.backbone.config.guidance == 1 and alone.name == "h"
    assert isinstance(variant(model, "t", {"token_shift": True}).steerings[0].shift, TokenShift)


def test_target_scores_at_one_identity_are_read_off_curves_of_means(scripts):
    study = scripts("ti_asyrp_study")
    # Two editors, one emotion, strengths 0 to 2: identity falls from 1 to .5, the first's score rises to 1, 2nd's to .5
    line = np.array([[1.0, 0.0], [0.75, 0.5], [0.5, 1.0]])
    cells = np.stack([line, line * [1, 0.5]])[None, :, None]
    for identity, expected in ((1.0, 0.0), (0.75, 0.5), (0.6, 0.8)):
        assert study.at_identity(cells, identity) == pytest.approx([expected, expected / 2])
    assert np.isnan(study.at_identity(cells, 0.3)).all()


def test_only_people_with_every_cell_are_compared(scripts):
    study = scripts("ti_asyrp_study")

    def row(person: str, editor: str, strength: float | None) -> dict:
        score = 0.1 if strength is None else strength / 2
        found = {"person": person, "editor": editor, "emotion": "happy", "strength": strength, "identity": 0.9}
        return {**found, "target_score": score, "error": None}

    lines = [("x", 1.0), ("x", 2.0), ("y", 1.0), ("y", 2.0), (study.NOTHING, None)]
    rows = [row(person, *line) for person in "ab" for line in lines if (person, *line) != ("b", "y", 2.0)]
    cells, people = study.cube(SimpleNamespace(rows=rows), ["x", "y"], ["happy"])
    assert people == ["a"] and cells.shape == (1, 2, 1, 3, 2)
    assert cells[0, 0, 0].tolist() == [[1.0, 0.1], [0.9, 0.5], [0.9, 1.0]]


def test_costs_name_every_variant(scripts):
    backbone = tiny(std=0.45)
    model = Editor(backbone, [TokenAndShift(tokens(), shifts(backbone))], name="both")
    study = scripts("ti_asyrp_study")
    editors = {name: study.variant(model, name, how) for name, how in {"a": {}, "b": {"h_strength": 0.0}}.items()}
    text = study.costs(editors, "happy", "a")
    assert "| a |" in text and "| b |" in text and "1.00 |" in text

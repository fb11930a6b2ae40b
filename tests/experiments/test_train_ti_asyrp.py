"""The recipe that puts words and shifts together, and the study's arithmetic."""

from __future__ import annotations

import importlib
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from emoedit.editors import Editor, load_editor
from emoedit.io import checkpoints
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.steering.combined import TokenAndShift, TokenShift
from emoedit.steering.hspace import AdaptedDirections, Directions, HSpace
from emoedit.training.hspace import ShiftLoss
from emoedit.training.loop import TrainerConfig
from tests.fixtures.configs import composed
from tests.fixtures.ddpm import tiny as unconditional
from tests.fixtures.stable_diffusion import smooth, tiny
from tests.fixtures.steerings import shifts
from tests.fixtures.steerings import steering as tokens

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def scripts(monkeypatch):
    """Scripts as modules, by name."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))

    def load(name: str):
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


def written_crops(folder: Path) -> Path:
    """Smooth pictures, half of them called happy."""
    folder.mkdir()
    pictures = (smooth(12)[:, 0] * 127 + 128).clamp(0, 255).byte().numpy()
    np.save(folder / "crops.npy", pictures)
    rows = [f"faces,{n},{'happy' if n % 2 else 'neutral'},{'train' if n < 10 else 'valid'},0.1" for n in range(12)]
    (folder / "index.csv").write_text("\n".join(["data,name,emotion,split,yaw", *rows]))
    return folder


def test_shifts_of_another_unet_are_fitted_here_and_joined_with_words(scripts, tmp_path):
    backbone, names = tiny(t_edit=300), ["happy", "sad", "smirk"]
    Editor(backbone, [tokens()], name="ti").save_pretrained(tmp_path / "ti")
    other = unconditional(unet={"sample_size": 8})
    assert other.h_shape == backbone.h_shape
    fitted = [Directions(torch.randn(1, *other.h_shape)) for _ in names]
    moved = HSpace(names, fitted, train_steps=other.steps, gain=torch.tensor([0.5, 1.0, 2.0]))
    Editor(other, [moved], name="asyrp").save_pretrained(tmp_path / "asyrp")
    classifier = {"heads": {"emotion": 3, "person": 4}, "resolution": 16, "widths": (8, 8, 8, 8)}
    classifier["emotions"] = ("neutral", "happy", "sad")
    torch.manual_seed(0)
    torch.save(MeasuringNetwork(NetworkConfig(**classifier)).state_dict(), tmp_path / "classifier.pt")
    trainer = {
        "steps": 3,
        "learning_rate": 0.05,
        "rate_factors": {"block.": 0.5},
        "precision": "no",
        "warmup": 1,
        "ema": 0.0,
    }
    config = OmegaConf.create(
        {
            "name": "ti_asyrp",
            "words": str(tmp_path / "ti"),
            "shifts": str(tmp_path / "asyrp"),
            "fit": {
                "emotions": ["happy", "sad"],
                "t_edit": 200,
                "sources": {"faces": 8},
                "mirrored": True,
                "batch_size": 4,
                "judged": 1,
                "guide": {"jitter": 0.0, "noise": 0.0},
                "loss": {"guide": {"emotion": 1.0, "person": 1.0}},
                "trainer": trainer,
                "alone": {
                    "sad": {"trainer": {"steps": 2}, "loss": {"guide": {"opened": 9.0, "shut": 9.0}}},
                    "happy": {"loss": {"guide": {"teeth": 0.1}}},
                },
            },
            "sampling": {"t_edit": 100},
            "gain": {
                "sad": {"token": 0.5, "h": 0.75},
                "happy": {"token": 1.0, "h": 0.5},
                "smirk": {"token": 1.0, "h": 0.25},
            },
            "data": {"crops": str(written_crops(tmp_path / "crops"))},
            "classifier": {"config": classifier},
            "classifier_weights": str(tmp_path / "classifier.pt"),
            "work": str(tmp_path / "work"),
            "output": str(tmp_path / "both"),
        }
    )
    recipe = scripts("train_ti_asyrp")
    recipe.fit_stage(config)
    recipe.join_stage(config)
    editor = load_editor(tmp_path / "both", device="cpu")
    (part,) = editor.steerings
    assert editor.emotions == ("happy", "sad", "smirk") and editor.backbone.config.t_edit == 100
    assert part.shift.emotions == ("sad", "happy", "smirk")
    # A shift that was not fitted here is taken as it is; it acts once a step, and there are other steps now.
    assert part.shift.gain.tolist() == pytest.approx([0.75, 0.5, 0.25 * 2 * other.steps / backbone.steps], rel=1e-3)
    kept = part.shift.shifts[2].directions
    torch.testing.assert_close(kept, fitted[2].directions, atol=2e-3, rtol=0)
    assert part.tokens.gain.tolist() == [1.0, 0.5, 1.0] and part.tokens.tokens == tokens().tokens
    for emotion, gain in (("sad", 1.0), ("happy", 0.5)):
        shift = part.shift.shifts[part.shift.emotions.index(emotion)]
        moved_by = shift.directions.directions - gain * fitted[names.index(emotion)].directions
        assert 0.01 < float(moved_by.abs().max()) < 0.2  # from where strength 1 of the other editor was
        assert float(shift.block.conv2.weight.abs().max()) > 0
    card = (tmp_path / "both" / "README.md").read_text()
    assert "sad: 2 steps of 4 pictures out of 10" in card and "happy: 3 steps of 4 pictures out of 14" in card


def test_the_config_fits_the_code_and_what_is_shipped():
    config = composed("train_ti_asyrp")
    how, known = config["fit"], {field.name for field in fields(TrainerConfig)}
    assert how["trainer"].keys() <= known and set(how["alone"]) <= set(how["emotions"]) <= set(config["gain"])
    for each in (how, *how["alone"].values()):
        assert each.keys() <= how.keys()
        ShiftLoss(**each.get("loss", {}))
    (part,) = load_editor(config["name"], device="cpu").steerings
    shares = checkpoints.read_json(checkpoints.embedded_root() / config["name"] / checkpoints.EDITOR)["model_shares"]
    assert part.shift.emotions == tuple(config["gain"])
    for name, shift, gain in zip(part.shift.emotions, part.shift.shifts, part.shift.gain.tolist(), strict=True):
        assert isinstance(shift, AdaptedDirections) == (name in how["emotions"])
        if name in how["emotions"]:
            # What units are added to is a share of what the recipe fits (experiments/fit_units.py).
            assert gain == pytest.approx(shares.get(name, 1.0) * config["gain"][name]["h"], rel=1e-3)


def test_a_variant_is_the_model_with_other_parts(scripts, tmp_path):
    backbone = tiny()
    model = Editor(backbone, [TokenAndShift(tokens(), shifts(backbone), token_strength=0.5)], name="both")
    variant = scripts("ti_asyrp_study").variant
    assert variant(model, "same", {}).steerings[0].token_strength == 0.5
    alone = variant(model, "h", {"token_strength": 0.0, "sampling": {"guidance": 1.0}})
    assert alone.steerings[0].token_strength == 0 and alone.backbone.config.guidance == 1 and alone.name == "h"
    assert isinstance(variant(model, "t", {"token_shift": True}).steerings[0].shift, TokenShift)
    louder = tokens()
    louder.gain *= 3
    Editor(backbone, [louder], name="ti").save_pretrained(tmp_path / "ti")
    said = variant(model, "w", {"words": str(tmp_path / "ti"), "h_strength": 0.0}).steerings[0]
    torch.testing.assert_close(said.tokens.gain, 3 * tokens().gain)
    assert said.h_strength == 0 and said.token_strength == 0.5


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


def test_scores_at_another_temperature(scripts):
    """What is read changes, who it is does not, and failed rows stay."""
    study = scripts("ti_asyrp_study")
    row = {"error": None, "emotion": "happy", "target_score": 0.6, "identity": 0.8}
    row |= {"score_neutral": 0.3, "score_happy": 0.6, "score_sad": 0.1}
    failed = {"error": "no face", "emotion": "sad", "target_score": None}
    emotions = ("neutral", "happy", "sad")
    found = study.Evaluation([row, failed], ("happy", "sad"))
    sharper, same = (list(study.calibrated(found, emotions, t).rows) for t in (0.5, 1.0))
    assert sharper[0]["target_score"] == pytest.approx(0.36 / (0.36 + 0.09 + 0.01))
    assert sharper[0]["identity"] == 0.8 and sharper[1] == failed and row["target_score"] == 0.6
    assert same[0] == pytest.approx(row)

"""The study of inversion: its squares and rows with a tiny model of random weights, and its page."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from emoedit.editors import Editor
from emoedit.faces.align import align
from emoedit.faces.detect import FaceDetector
from emoedit.faces.networks import NAMES
from emoedit.io import checkpoints
from emoedit.metrics.suite import Suite
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone, StyleGAN2Config
from emoedit.steering.wspace import WDirections
from emoedit.types import Edit

ROOT = Path(__file__).resolve().parents[2]
EMOTIONS = ("neutral", "happy", "sad")
STEPS = {"w_plus": 2, "tuning": 2}
needs_networks = pytest.mark.skipif(
    not all((checkpoints.embedded_root() / name).is_dir() for name in NAMES),
    reason="no embedded measuring networks here",
)


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("stylegan_study", ROOT / "experiments" / "stylegan_study.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def editor() -> Editor:
    torch.manual_seed(0)
    config = StyleGAN2Config(
        resolution=32,
        widths=(12, 12, 8, 8),
        z_dim=8,
        w_dim=8,
        mapping_layers=2,
        encoder_widths=(8, 8, 8),
        crop_style="stable",
        crop_scale=0.66,
        crop_down=0.074,
        std=0.45,
    )
    directions = torch.randn(3, 8 * 8)
    directions[0] = 0
    return Editor(StyleGAN2Backbone(config), [WDirections((8, 8), EMOTIONS, directions)], name="tiny")


def test_a_square_is_laid_where_the_crop_was_taken(study, editor, astronaut):
    face = FaceDetector().choose(astronaut)[0]
    alignment = align(face.landmarks, editor.backbone.crop)
    same = alignment.crop(astronaut).astype(np.float32)
    laid = study.paste_square(astronaut, alignment, same)
    changed = (laid != astronaut).any(2)
    corners = alignment.to_photo(np.array([[0, 0], [31, 0], [31, 31], [0, 31]], float))
    inside = cv2.fillConvexPoly(np.zeros(changed.shape, np.uint8), np.rint(corners).astype(np.int32), 1) > 0
    assert changed[inside].mean() > 0.9
    grown = cv2.dilate(inside.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0  # half a pixel of the crop around
    assert not changed[~grown].any()
    assert np.abs(laid.astype(int) - astronaut)[inside].mean() < 12  # softer, and in its place
    dark = study.paste_square(astronaut, alignment, np.zeros((32, 32), np.float32))
    assert cv2.cvtColor(dark, cv2.COLOR_RGB2GRAY)[inside].mean() < 15


@needs_networks
def test_every_stage_is_measure_editor_in_every_way(study, editor, astronaut, monkeypatch):
    monkeypatch.setattr("emoedit.models.stylegan2.inversion.UNEXPLAINED", 100.0)
    weights = {name: value.clone() for name, value in editor.backbone.state_dict().items()}
    edits, suite = [Edit("happy"), Edit("sad")], Suite(identity="embedded", perceptual="embedded")
    rows = study.study(editor, astronaut, suite, study.embedded_losses(), edits, STEPS)
    assert [(row["stage"], row["way"], row.get("emotion")) for row in rows if row["way"] != "time"] == [
        (stage, way, emotion)
        for stage in ("encoder", "w_plus", "tuned")
        for way, meant in (("redrawn", ["neutral"]), ("square", ["happy", "sad"]), ("pasted", ["happy", "sad"]))
        for emotion in meant
    ]
    by_way = {
        way: [row["background_change"] for row in rows if row["way"] == way] for way in ("square", "pasted", "redrawn")
    }
    # A square of random weights changes what lies around the face more than what is pasted through a mask.
    assert min(by_way["square"]) > max(by_way["pasted"]) and min(by_way["redrawn"]) > max(by_way["pasted"])
    times = {row["stage"]: row["inversion"] for row in rows if row["way"] == "time"}
    assert 0 < times["encoder"] < times["w_plus"] < times["tuned"]
    assert all(torch.equal(editor.backbone.state_dict()[name], value) for name, value in weights.items())

    config = {"emotions": ["happy", "sad"], "strength": 1.0, "steps": STEPS}
    named = [{**row, "photo": name} for name in ("a", "b") for row in rows]
    page = study.page(named, suite.backends, config, editor)
    words = " ".join(page.split())
    assert "from 2 neutral photographs" in words and "identity_backend embedded" in words
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 9 and all(line.count("|") == lines[0].count("|") for line in lines)
    mean = np.mean([row["identity"] for row in rows if (row["stage"], row["way"]) == ("encoder", "pasted")])
    assert f"{mean:.2f} (" in next(line for line in lines if line.startswith("| encoder | edits, pasted"))
    assert "pivotal tuning 0 of 2" in page and "to open a photograph" in page


@needs_networks
def test_photographs_that_are_not_found_are_counted(study, editor, astronaut, monkeypatch):
    monkeypatch.setattr("emoedit.models.stylegan2.inversion.UNEXPLAINED", 0.0)
    suite = Suite(identity="embedded", perceptual="embedded")
    rows = study.study(editor, astronaut, suite, study.embedded_losses(), [Edit("happy")], STEPS)
    assert {row["stage"] for row in rows if row["way"] == "pasted"} == {"encoder"}
    errors = [row for row in rows if row["way"] == "error"]
    assert [row["stage"] for row in errors] == ["w_plus", "tuned"] and "not found" in errors[0]["error"]
    config = {"emotions": ["happy"], "strength": 1.0, "steps": STEPS}
    page = study.page([{**row, "photo": "a"} for row in rows], suite.backends, config, editor)
    assert "encoder 0 of 1, w+ optimised 1 of 1, pivotal tuning 1 of 1" in page

"""The recipe that chooses which action units an editor adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from emoedit.editors import load_editor
from emoedit.models.landmarks.backbone import LandmarkBackbone, LandmarksConfig
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.photo import PhotoEditor
from emoedit.training.data import CropSet

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import fit_units

    from lib import gradients

    yield fit_units, gradients
    for name in ("fit_units", "lib.gradients"):
        sys.modules.pop(name, None)


@pytest.fixture
def crops(tmp_path, astronaut) -> CropSet:
    """One face in many lights; on half of the pictures everybody sees anger: they are darker above."""
    opened = PhotoEditor("facs").open(astronaut)
    face = cv2.cvtColor(opened.alignments[0].crop(astronaut), cv2.COLOR_RGB2GRAY).astype(np.float32)
    rng, pictures, rows = np.random.default_rng(0), [], ["data,name,emotion,split,yaw,votes"]
    for n in range(40):
        shade = np.linspace(-60, 0, 128)[:, None] * (np.arange(128)[None] > 64) if n % 2 else 0
        pictures.append((face + shade + rng.normal(0, 6, face.shape)).clip(0, 255).astype(np.uint8))
        votes = "1 0 0 9 0 0 0 0" if n % 2 else "10 0 0 0 0 0 0 0"
        rows.append(f"faces,{n},{'angry' if n % 2 else 'neutral'},{'train' if n < 30 else 'valid'},0.1,{votes}")
    folder = tmp_path / "crops"
    folder.mkdir()
    np.save(folder / "crops.npy", np.stack(pictures))
    (folder / "index.csv").write_text("\n".join(rows))
    return CropSet(folder)


def test_gradients_tell_apart_what_people_agree_on(scripts, crops):
    _, gradients = scripts
    how = {"data": "faces", "agreement": 0.8, "least": {}, "penalty": 1.0}
    found = gradients.GradientRecogniser.fitted(crops, how)
    assert found.accuracy(crops, how) == 1.0
    scores = found.scores(crops.pixels(np.arange(4), 128))
    torch.testing.assert_close(scores.sum(1), torch.ones(4))
    assert gradients.agreed_pictures(crops, {**how, "agreement": 0.95}, ("train",))[1].tolist() == [0] * 15


def test_the_sum_is_the_best_that_leaves_the_person(scripts):
    fit_units, _ = scripts
    how = {"emotions": {"angry": ["AU4", "AU7"]}, "steps": [0.0, 0.5, 1.0], "rounds": 2, "worth": 0.01}

    def added(units):
        return lambda drawn, edit: torch.tensor([units.get("AU4", 0.0), units.get("AU7", 0.0)])

    def judged(moved):
        brows, lids = moved.tolist()
        return 0.2 + 0.5 * brows - 0.3 * lids, 1.0 - 0.2 * brows

    assert fit_units.best_sum("angry", torch.zeros(2), judged, added, how, 0.5) == (0.7, {"AU4": 1.0})
    assert fit_units.best_sum("angry", torch.zeros(2), judged, added, how, 0.85) == (0.45, {"AU4": 0.5})
    assert fit_units.best_sum("angry", torch.zeros(2), judged, added, how, 1.1) == (0.0, {})


def test_units_and_the_share_of_the_model_are_chosen_together(scripts, crops, monkeypatch):
    fit_units, _ = scripts
    editor = load_editor("vae", device="cpu")
    column, before = editor.emotions.index("angry"), editor.steerings[0].gain.clone()
    mover = LandmarkBackbone(LandmarksConfig(128, 0.66, 0.074))

    def judge(*args):
        """Anger is how low the inner ends of the brows lie; less of the model is more of the person."""
        start = args[-2]

        def judged(drawn):
            low = mover.invert(drawn).extras["landmarks"][:, [21, 22], 1].mean()
            return float(low), 1 - float((drawn - start).abs().mean()) * 0.01

        return judged

    monkeypatch.setattr(fit_units, "judge", judge)
    how = {"emotions": {"angry": ["AU4"]}, "shares": [0.5], "steps": [0.0, 1.0], "rounds": 1}
    fit_units.fit(editor, crops, np.arange(2), (None, None), {**how, "worth": 1e-4, "slack": 0.01})
    assert editor.units.sums == {"angry": {"AU4": 1.0}}
    before[column] /= 2
    torch.testing.assert_close(editor.steerings[0].gain, before)


@pytest.mark.slow
def test_the_recipe_writes_an_editor_with_units(crops, tmp_path):
    torch.manual_seed(0)
    heads, known = {"emotion": 2, "person": 4}, ["neutral", "angry"]
    coach = NetworkConfig(heads=heads, resolution=16, widths=(8, 8, 8, 8), emotions=tuple(known))
    torch.save(MeasuringNetwork(coach).state_dict(), tmp_path / "coach.pt")
    command = [
        *(sys.executable, str(ROOT / "experiments" / "fit_units.py"), f"data.root={tmp_path}", "editor=vae"),
        *(
            f"data.crops={tmp_path / 'crops'}",
            f"coach_weights={tmp_path / 'coach.pt'}",
            f"output={tmp_path / 'editor'}",
        ),
        "~coach.config",
        "+coach.config={heads: {emotion: 2, person: 4}, resolution: 16, widths: [8, 8, 8, 8],"
        " emotions: [neutral, angry]}",
        *("~emotions", "+emotions={angry: [AU4]}", "shares=[0.5]", "steps=[0.0,1.5]", "worth=-1", "slack=2"),
        *("~neutral", "+neutral={faces: 3}", "~unlabelled", "+unlabelled={}", "rounds=1"),
        *("gradients.data=faces", "gradients.agreement=0.8", "gradients.least={}"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "of held-out pictures right" in done.stdout and "angry: " in done.stdout
    described = json.loads((tmp_path / "editor" / "editor.json").read_text())
    assert described["compositor"] == load_editor("vae").compositor
    assert (tmp_path / "editor" / "README.md").read_text() == (ROOT / "checkpoints/vae/README.md").read_text()
    assert load_editor(tmp_path / "editor").emotions == load_editor("vae").emotions

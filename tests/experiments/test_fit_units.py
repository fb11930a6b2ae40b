"""The recipe that chooses which action units an editor adds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from emoedit.editors import Editor, load_editor
from emoedit.io import checkpoints
from emoedit.models.landmarks.backbone import LandmarkBackbone, LandmarksConfig
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.photo import PhotoEditor
from emoedit.training.data import CropSet
from emoedit.types import CheckpointError, DataError, Edit

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = yaml.safe_load((ROOT / "configs" / "fit_units.yaml").read_text())["chosen"]


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
    for n in range(2):  # and two photographs without labels, which the classifier of the test reads as whatever
        rows.append(f"unlabelled,{n}.png,,train,0.1,")
        pictures.append(face.astype(np.uint8))
        Image.fromarray(astronaut[: 300 + n]).save(tmp_path / f"{n}.png")
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
    how = {"steps": [0.0, 0.5, 1.0], "rounds": 2, "worth": 0.01}

    def scores_of(units):
        brows, lids = units.get("AU4", 0.0), units.get("AU7", 0.0)
        return fit_units.RecogniserScores(0.2 + 0.5 * brows - 0.3 * lids, 0.9 - 0.4 * brows, 1.0 - 0.2 * brows)

    def best(near, guided=0.0):
        return fit_units.best_sum(scores_of, ["AU4", "AU7"], how, fit_units.RecogniserScores(0.0, guided, near))

    assert best(near=0.5) == (0.7, {"AU4": 1.0})
    assert best(near=0.85) == best(near=0.5, guided=0.6) == (0.45, {"AU4": 0.5})
    assert best(near=1.1) == (0.0, {})


class Reader:
    """In place of both recognisers: anger is how low the inner ends of the brows lie, and everybody is one person."""

    config = NetworkConfig(heads={"emotion": 2, "person": 4}, resolution=128, emotions=("neutral", "angry"))
    emotions = config.emotions

    def __init__(self):
        self.mover = LandmarkBackbone(LandmarksConfig(128, self.config.scale, self.config.down))

    def __call__(self, x):
        return {"person": torch.ones(len(x), 4), "emotion": torch.zeros(len(x), 2)}

    def scores(self, x):
        low = self.mover.invert(x).extras["landmarks"][:, [21, 22], 1].mean(1)
        return torch.stack([-low, low], 1)


def test_units_and_the_share_of_the_model_are_chosen_in_photographs(scripts, astronaut):
    fit_units, _ = scripts
    editor = load_editor("vae", device="cpu")
    column, before = editor.emotions.index("angry"), editor.steerings[0].gain.clone()
    trials = fit_units.Trials(
        fit_units.CachingEditor(editor), [astronaut, np.zeros_like(astronaut)], Reader(), Reader()
    )
    assert len(trials.opened) == 1  # what shows no face is left out
    how = {"emotions": {"angry": ["AU4"]}, "shares": [0.5], "steps": [0.0, 1.0], "rounds": 1}
    chosen, shares = fit_units.fit(trials, {**how, "worth": 1e-4, "slack": 0.01, "guided": 0.5})
    assert chosen == {"angry": {"AU4": 1.0}} and shares == {"angry": 0.5}
    fit_units.scale_gains(editor, shares)
    before[column] /= 2
    torch.testing.assert_close(editor.steerings[0].gain, before)
    # The units of the fitted editor are those that were tried at its share.
    fitted = Editor(editor.backbone, editor.steerings, compositor=editor.compositor, units=chosen)
    photo_editor = PhotoEditor(fitted)
    final = np.asarray(next(photo_editor.edit(photo_editor.open(astronaut), [Edit("angry")])).image)
    tried = trials.scores_of("angry", 1.0, {"AU4": 1.0})  # the gains are halved by now, the drawings are not yet
    assert tried.score == pytest.approx(float(Reader().scores(trials._crop(trials.opened[0], final))[0, 1]), abs=0.01)


def test_photographs_without_a_face_are_an_error(scripts, astronaut):
    fit_units, _ = scripts
    editor = fit_units.CachingEditor(load_editor("vae", device="cpu"))
    with pytest.raises(DataError, match="no face"):
        fit_units.Trials(editor, [np.zeros_like(astronaut)], Reader(), Reader())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def gains(folder: Path) -> dict[str, float]:
    (steering,) = load_editor(folder, device="cpu").steerings
    return dict(zip(steering.emotions, steering.gain.tolist(), strict=True))


def test_running_twice_gives_the_same_editor_and_other_shares_start_from_the_model(scripts, tmp_path):
    fit_units, _ = scripts
    own = tmp_path / "own"  # an editor as it is trained: no units, the model's own gains
    editor = load_editor("vae", device="cpu")
    fit_units.scale_gains(editor, {"angry": 1 / 0.8, "sad": 1 / 0.85, "fearful": 1 / 0.85})
    editor.units = None
    editor.save_pretrained(own, card="# vae")
    plain = gains(own)

    folder, sums = tmp_path / "editor", {"angry": {"AU4": 1.2}, "sad": {"AU1": 1.0}}
    fit_units.write(str(own), folder, sums, {"angry": 0.7, "sad": 1.0})
    assert gains(folder) == pytest.approx({**plain, "angry": 0.7 * plain["angry"]}, rel=1e-6)
    first = contents(folder)
    fit_units.write(str(folder), folder, sums, {"angry": 0.7, "sad": 1.0})
    assert contents(folder) == first
    fit_units.write(str(folder), folder, {"sad": {"AU1": 1.0}}, {"sad": 0.5})
    assert gains(folder) == pytest.approx({**plain, "sad": 0.5 * plain["sad"]}, rel=1e-6)
    assert checkpoints.read_json(folder / checkpoints.EDITOR)["model_shares"] == {"sad": 0.5}


@pytest.mark.parametrize(
    ("entry", "error"), [(None, "does not say which shares"), ({"angry": 0}, "positive"), (0.8, "garbles")]
)
def test_an_editor_with_units_of_an_unknown_share_is_left_alone(scripts, tmp_path, entry, error):
    fit_units, _ = scripts
    folder = tmp_path / "editor"
    shutil.copytree(checkpoints.embedded_root() / "vae", folder)
    described = checkpoints.read_json(folder / checkpoints.EDITOR)
    del described["model_shares"]
    if entry is not None:
        described["model_shares"] = entry
    (folder / checkpoints.EDITOR).write_text(json.dumps(described))
    before = contents(folder)
    with pytest.raises((DataError, CheckpointError), match=error):
        fit_units.write(str(folder), folder, {"angry": {"AU4": 1.0}}, {"angry": 0.5})
    assert contents(folder) == before


@pytest.mark.parametrize("name", sorted(CHOSEN))
def test_the_embedded_editors_are_what_the_configuration_chooses(scripts, tmp_path, name):
    fit_units, _ = scripts
    units, shares = fit_units.chosen_units(CHOSEN[name], load_editor(name, device="cpu").emotions)
    written, shipped = fit_units.write(name, tmp_path / name, units, shares), checkpoints.embedded_root() / name
    assert contents(written).keys() == contents(shipped).keys()
    first, second = (checkpoints.read_json(folder / checkpoints.EDITOR) for folder in (written, shipped))
    assert {**first, "sha256": {}} == {
        **second,
        "sha256": {},
    }  # versions of safetensors order their headers differently
    for path in sorted(written.glob("steering_*/**/*.safetensors")):
        found, wanted = (checkpoints.read_weights(folder / path.relative_to(written)) for folder in (written, shipped))
        assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in found)


@pytest.mark.slow
def test_the_recipe_writes_an_editor_with_units(crops, tmp_path):
    torch.manual_seed(0)
    classifier = NetworkConfig(
        {"emotion": 2, "person": 4}, resolution=16, widths=(8, 8, 8, 8), emotions=("neutral", "angry")
    )
    network = MeasuringNetwork(classifier)
    network.heads["emotion"][-1].bias.data[0] += 5  # every photograph is read as neutral
    torch.save(network.state_dict(), tmp_path / "classifier.pt")
    heads = "heads: {emotion: 2, person: 4}, resolution: 16, widths: [8, 8, 8, 8], emotions: [neutral, angry]"
    settings = {
        "data.root": tmp_path,
        "data.crops": tmp_path / "crops",
        "classifier_weights": tmp_path / "classifier.pt",
        "use_chosen": False,
        "output": tmp_path / "editor",
        "+classifier.config": f"{{{heads}}}",
        "+emotions": "{angry: [AU4]}",
        "shares": "[0.5]",
        "steps": "[0.0,1.5]",
        "photographs.data": "unlabelled",
        "photographs.folder": tmp_path,
        "photographs.count": 2,
        "gradients.data": "faces",
        "gradients.agreement": 0.8,
        "gradients.least": "{}",
    }
    command = [
        sys.executable,
        str(ROOT / "experiments" / "fit_units.py"),
        "editor=vae",
        "~classifier.config",
        "~emotions",
    ]
    command += [f"{name}={value}" for name, value in settings.items()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "of held-out pictures right" in done.stdout and "angry: " in done.stdout
    assert "no face" not in done.stdout
    described = json.loads((tmp_path / "editor" / "editor.json").read_text())
    assert described["compositor"] == load_editor("vae").compositor
    assert (tmp_path / "editor" / "README.md").read_text() == (ROOT / "checkpoints/vae/README.md").read_text()
    assert load_editor(tmp_path / "editor").emotions == load_editor("vae").emotions

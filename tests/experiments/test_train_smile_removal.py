"""The recipe of the network that takes smiles out of photographs, on a few pictures."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from emoedit.nn.smile_removal import SmileRemovalConfig, SmileRemovalNetwork
from emoedit.training.relaxation import closed_crop
from emoedit.types import CropSpec
from tests.fixtures.configs import ROOT

SOURCES = ROOT / "tests" / "golden" / "sources"
NEUTRAL, SMILING = ("001", "034", "043", "062"), ("010", "041", "087")


@pytest.fixture
def data(tmp_path):
    """Faces without labels, and two people photographed neutral and smiling."""
    faces, pairs = tmp_path / "data" / "faces" / "images", tmp_path / "data" / "pairs"
    faces.mkdir(parents=True)
    rows = ["image,age,gender,group"]
    names = [f"{name}-neutral" for name in NEUTRAL] + [f"{name}-smiling" for name in SMILING]
    for number, light in enumerate((1.0, 0.8, 0.65)):
        for name in names:
            picture = np.asarray(Image.open(SOURCES / f"{name}.jpg").convert("RGB")) * light
            Image.fromarray(np.roll(picture, 5 * number, 1).astype(np.uint8)).save(faces / f"{name}-{number}.png")
            rows.append(f"{name}-{number}.png,30,female,{number}")
    (faces.parent / "info.csv").write_text("\n".join(rows))
    for folder in ("neutral", "smiling"):
        (pairs / folder).mkdir(parents=True)
        for name in ("024", "043"):
            (pairs / folder / f"{name}.jpg").write_bytes((SOURCES / f"{name}-{folder}.jpg").read_bytes())
    (pairs / "info.csv").write_text("face_id,split\n024,fit\n043,test\n")
    return tmp_path / "data"


def test_the_whole_recipe_runs_and_its_network_loads(tmp_path, data):
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train_smile_removal.py"),
        f"data.root={data}",
        "~data.sets",
        "+data.sets={faces: {reader: faces, path: faces}, pairs: {reader: pairs, path: pairs}}",
        f"data.crops={tmp_path / 'crops'}",
        "data.resolution=96",
        f"faces={{data: faces, folder: '{data}/faces/images', neutral: 0.0, happy: 0.0}}",
        f"paired={{data: pairs, folder: '{data}/pairs'}}",
        "~smiles",
        "+smiles={mean_warp: {faces: 3, each: 2, strengths: [0.7, 1.5]}}",
        "config={resolution: 96, scale: 0.66, down: 0.074, widths: [8, 8, 16, 16]}",
        "real=2",
        "batch={made: 3, photographed: 1, real: 1}",
        "same=1",
        "trainer={steps: 3, warmup: 1, precision: 'no', compile: false, save_every: 2, preview_every: 2}",
        f"work={tmp_path / 'work'}",
        f"output={tmp_path / 'smile_removal'}",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    network = SmileRemovalNetwork.from_pretrained(tmp_path / "smile_removal")
    assert network.config == SmileRemovalConfig(96, 0.66, 0.074, (8, 8, 16, 16))
    made = np.load(tmp_path / "work" / "made_mean_warp.npz")
    assert made["smiling"].shape == made["neutral"].shape and 1 <= len(made["smiling"]) <= 6
    assert np.abs(made["smiling"].astype(int) - made["neutral"]).mean() > 1
    assert np.load(tmp_path / "work" / "photographed.npz")["neutral"].shape == (1, 96, 96, 3)
    card = (tmp_path / "smile_removal" / "README.md").read_text()
    assert "by mean_warp" in card and "held-out people photographed both ways: 1" in card and "{numbers}" not in card


def test_a_crop_with_teeth_gets_its_lips_together(astronaut):
    from emoedit.faces.align import align
    from emoedit.faces.detect import FaceDetector
    from emoedit.training.relaxation import analyse_crop

    spec = CropSpec(128, "stable", 0.66, 0.074)
    crop = align(FaceDetector("cpu")(astronaut)[0].landmarks, spec).crop(astronaut)
    assert analyse_crop(crop, spec).opening is not None
    closed = closed_crop(crop, spec)
    assert analyse_crop(closed, spec).opening is None and closed.shape == crop.shape

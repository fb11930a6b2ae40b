"""The recipe of the network that tells how a smile has moved landmarks, on a few pictures."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from emoedit.compositing.relaxing import smile_amount
from emoedit.nn.relaxation import RelaxationNetwork
from emoedit.training.relaxation import analyse_crop, crop_as_photo, neutral_landmarks, people_in_pairs
from emoedit.types import CropSpec, DataError
from tests.fixtures.configs import ROOT

SPEC = CropSpec(96, "stable", 0.66, 0.074)


class Rows:
    """An index without pictures."""

    def __init__(self, *rows: tuple[str, str, str]) -> None:
        self.rows = [{"data": "d", "person": p, "emotion": e, "split": s} for p, e, s in rows]


def test_people_of_whom_there_are_both():
    crops = Rows(
        ("a", "happy", "train"), ("a", "neutral", "train"), ("a", "neutral", "valid"), ("b", "happy", "train"),
        ("", "neutral", "train"), ("", "happy", "train"), ("c", "sad", "train"), ("c", "happy", "train"),
    )  # fmt: skip
    assert people_in_pairs(crops, ["train"]) == [{"happy": [0], "neutral": [1]}]
    with pytest.raises(DataError, match="valid"):
        people_in_pairs(crops, ["valid"])


def test_a_prepared_crop_is_its_own_crop(astronaut):
    from emoedit.faces.align import align

    face, alignment = crop_as_photo(96, SPEC)
    assert np.allclose(align(face.landmarks, SPEC).matrix, alignment.matrix, atol=1e-6)


def test_the_whole_recipe_runs_and_its_networks_load(tmp_path, astronaut):
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    rows = ["image,emotion,person,split"]
    head = astronaut[0:300, 60:380].astype(float)
    for n in range(8):
        picture = np.roll(head, 3 * n, 1) * (0.7 + 0.05 * n)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(images / f"{n}.png")
        rows.append(f"{n}.png,{'happy' if n % 2 else 'neutral'},{n // 2},{'train' if n < 6 else 'valid'}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train_relaxation.py"),
        f"data.root={tmp_path / 'data'}",
        "~data.sets",
        "+data.sets={faces: {reader: labels_csv, path: labels.csv}}",
        f"data.crops={tmp_path / 'crops'}",
        "data.resolution=96",
        "landmarks={width: 8, steps: 4, batch_size: 4}",
        f"output={tmp_path / 'relaxation'}",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    network = RelaxationNetwork.from_pretrained(tmp_path / "relaxation")
    crop = np.load(tmp_path / "crops" / "crops.npy")[0]
    face = analyse_crop(crop, SPEC)
    assert smile_amount(face, network) == 1  # it shows teeth
    points = neutral_landmarks(face, network)
    assert points.shape == (68, 2) and (np.abs(points - 0.5) < 0.7).all()
    card = (tmp_path / "relaxation" / "README.md").read_text()
    assert "held-out people: 1 pairs" in card and "{numbers}" not in card

"""The recipe of the networks that take smiles out of photographs, on a few pictures."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from emoedit.compositing.relaxing import find_smile
from emoedit.nn.relaxation import RelaxationNetwork
from emoedit.nn.relighting import RelightingNetwork
from emoedit.training.relaxation import crop_as_photo, people_in_pairs
from emoedit.training.relighting import _ratio, analyse_crop
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


def test_light_that_falls_smoothly_is_no_part_of_a_ratio():
    v, u = np.mgrid[0:64, 0:64] / 64 - 0.5
    inside = np.hypot(u, v) < 0.4
    smooth = 0.4 * u + 0.3 * v * v
    assert np.abs(_ratio(smooth, inside)[inside]).max() < 0.05
    bulge = 0.4 * np.exp(-((u - 0.2) ** 2 + (v - 0.1) ** 2) / 0.005)
    kept = _ratio(smooth + bulge, inside)
    assert kept[int(0.6 * 64), int(0.7 * 64)] > 0.25


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
        "light={resolution: 32, steps: 4, batch_size: 4}",
        f"output={tmp_path / 'relaxation'}",
        f"light_output={tmp_path / 'relighting'}",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    network = RelaxationNetwork.from_pretrained(tmp_path / "relaxation")
    crop = np.load(tmp_path / "crops" / "crops.npy")[0]
    assert find_smile(analyse_crop(crop, SPEC), network) is not None  # it shows teeth
    assert RelightingNetwork.from_pretrained(tmp_path / "relighting").config.resolution == 32
    card = (tmp_path / "relighting" / "README.md").read_text()
    assert "held-out people: 1 pairs" in card and "{numbers}" not in card

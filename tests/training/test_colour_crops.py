"""Everyday faces and crops in colour: groups are recorded, grey stays grey, copies stay on one side of a split."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from emoedit.training.data import CropSet, MixtureBatches
from emoedit.training.prepare import prepare_config
from emoedit.training.readers import read
from emoedit.types import DataError


def faces(root, rows, *, pictures=True):
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name, *_ in rows:
        if pictures:
            Image.new("RGB", (8, 8)).save(root / "images" / name)
    with (root / "info.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "age", "gender", "group"), *rows])
    return root


def test_children_are_left_out_and_groups_are_named(tmp_path):
    found = read("faces", faces(tmp_path, [("a.png", 17, "male", 0), ("b.png", 18, "female", 3)]))
    assert [(s.name, s.emotion, dict(s.traits)) for s in found] == [
        ("b.png", "", {"group": "indian", "age": "18", "gender": "female"})
    ]
    for row, match in ((("c.png", "old", "male", 0), "whole number"), (("c.png", 30, "male", 7), "group '7'")):
        with pytest.raises(DataError, match=match):
            read("faces", faces(tmp_path, [row]))
    with pytest.raises(DataError, match="no face of 18"):
        read("faces", faces(tmp_path, [("d.png", 3, "male", 0)]))
    with pytest.raises(DataError, match="is not there"):
        read("faces", faces(tmp_path, [("gone.png", 30, "male", 0)], pictures=False))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Colour, grey, CMYK and 16-bit pictures of one portrait, prepared; its folder and the report."""
    root = tmp_path_factory.mktemp("everyday")
    portrait = astronaut()[0:300, 60:380]
    (root / "images").mkdir()
    pictures = {
        "colour.png": Image.fromarray(portrait),
        "grey.png": Image.fromarray(np.roll(portrait, 7, 1)).convert("L"),
        "print.jpg": Image.fromarray(np.roll(portrait, 14, 1)).convert("CMYK"),
        "deep.png": Image.fromarray(np.roll(portrait, 21, 1).mean(-1).astype(np.uint16) * 257),
        "tight.png": Image.fromarray(portrait[20:235, 72:228]),
    }
    for name, picture in pictures.items():
        picture.save(root / "images" / name)
    (root / "images" / "broken.png").write_bytes(b"\x89PNG")
    rows = [(name, 30, "female", n % 2) for n, name in enumerate([*pictures, "broken.png"])]
    with (root / "info.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "age", "gender", "group"), *rows])
    config = {
        "root": str(root.parent),
        "crops": str(root / "crops"),
        "sets": {
            "everyday": {"reader": "faces", "path": root.name, "filter": {"min_coverage": 0.3}, "split": "content"}
        },
        "resolution": 64,
        "scale": 0.66,
        "down": 0.074,
        "filter": {"min_confidence": 0.95, "max_yaw": 0.45, "min_coverage": 0.5, "min_contrast": 12.0},
    }
    import emoedit.training.prepare as module

    patch = pytest.MonkeyPatch()
    patch.setattr(module.os, "cpu_count", lambda: 1)  # in this process
    report = prepare_config(config)
    patch.undo()
    return root / "crops", report


def test_any_kind_of_picture_becomes_a_crop_in_colour_or_is_counted(prepared):
    folder, report = prepared
    crops = CropSet(folder)
    assert crops.crops.shape == (5, 64, 64, 3) and report["kept"] == {"everyday": 5}
    assert report["dropped"] == {"unreadable": {"everyday": 1}} and report["grey"] == {"everyday": 2}
    assert report["groups"] == {"everyday": {"white": 3, "black": 2}} and report["emotions"] == {}
    assert json.loads((folder / "report.json").read_text())["groups"] == report["groups"]
    by_name = {row["name"]: number for number, row in enumerate(crops.rows)}
    assert [crops.rows[by_name[name]]["colour"] for name in ("colour.png", "grey.png", "print.jpg", "deep.png")] == [
        *("1", "0", "1", "0")
    ]
    x = crops.pixels(np.array([by_name["grey.png"], by_name["colour.png"]]), 32, 3)
    assert x.shape == (2, 3, 32, 32)
    assert float((x[0, 0] - x[0, 2]).abs().max()) == 0 and float((x[1, 0] - x[1, 2]).abs().mean()) > 0.05
    grey = crops.pixels(np.array([by_name["colour.png"]]), 32)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close(grey[0, 0], (x[1] * weights).sum(0), atol=1e-5, rtol=0)
    np.testing.assert_allclose(crops.luminance(by_name["colour.png"]).mean(), (grey.mean() + 1) * 127.5, atol=1)


def test_a_copy_under_another_name_is_on_the_same_side(prepared):
    from emoedit.training.cropping import fingerprint
    from emoedit.training.prepare import _drawn

    folder, _ = prepared
    crops = CropSet(folder)
    drawn = [_drawn("everyday", fingerprint(np.asarray(crop)).hex()) for crop in crops.crops]
    assert min(drawn) > 0.05  # so that by chance alone nothing would be held out
    assert crops.column("split").tolist() == ["valid" if value == min(drawn) else "train" for value in drawn]


def test_emotions_and_groups_are_drawn_evenly_and_in_colour(tmp_path):
    np.save(
        tmp_path / "crops.npy", np.arange(40, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 8, 8, 3), np.uint8)
    )
    rows = [("everyday", "sad" if n < 4 else "happy", "train", "asian" if n % 10 == 9 else "") for n in range(40)]
    with (tmp_path / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("data", "emotion", "split", "group"), *rows])
    common = {"batch_size": 50, "resolution": 8, "split": "train", "seed": 0, "channels": 3}
    crops = CropSet(tmp_path)
    even = MixtureBatches(crops, {"everyday": 1.0}, balance=0.0, **common)
    plain = MixtureBatches(crops, {"everyday": 1.0}, **common)
    assert even(0).shape == (50, 3, 8, 8)
    share = [np.mean([(batches.draw(step)[0] < 4).mean() for step in range(20)]) for batches in (even, plain)]
    assert 0.4 < share[0] < 0.6 and share[1] < 0.2
    groups = MixtureBatches(crops, {"everyday": 1.0}, balance_groups=0.0, **common)
    assert 0.4 < np.mean([(groups.draw(step)[0] % 10 == 9).mean() for step in range(20)]) < 0.6

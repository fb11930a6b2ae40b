"""The study by groups of people: gaps, their causes, and the whole study with a tiny editor."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.evaluation.entries import Entry
from emoedit.faces.align import align
from emoedit.faces.detect import FaceDetector
from emoedit.photo import PhotoEditor
from emoedit.training.data import CropSet
from emoedit.types import DataError
from lib.candidates import CROP
from lib.groups import age_band, cause, emotion_table, gap, group_table, with_groups
from tests.fixtures.configs import composed
from tests.fixtures.editors import tiny_pixels

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study():
    spec = importlib.util.spec_from_file_location("groups_study", ROOT / "experiments" / "groups_study.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def made(first: dict[str, float], second: dict[str, float], before: dict[str, float], people: int = 12) -> list[dict]:
    """Rows of two emotions, with a little noise."""
    rng, rows = np.random.default_rng(0), []
    for group in first:
        for n in range(people):
            for emotion in ("happy", "sad"):
                noise = rng.normal(0, 0.02)
                rows.append(
                    {
                        "person": f"{group}{n}", "emotion": emotion, "group": group, "gender": "fe" * (n % 2) + "male",
                        "age": str(20 + 4 * n), "brightness": 10.0 * n, "identity": 0.9 + noise,
                        "first": first[group] + noise, "second": second[group] + noise,
                        "first_before": before[group], "second_before": before[group],
                    }
                )  # fmt: skip
    return with_groups(rows, ["happy"])


def test_groups_of_a_row():
    assert [age_band(age) for age in ("18", "44", "60")] == ["18 to 29", "30 to 44", "60 and more"]
    for wrong in ("17", "", "old"):
        with pytest.raises(DataError, match="whole number"):
            age_band(wrong)
    rows = made({"a": 0.8, "b": 0.8}, {"a": 0.4, "b": 0.4}, {"a": 0.1, "b": 0.1})
    happy, sad = rows[:2]
    assert happy["target"] == happy["first"] and sad["target"] == (sad["first"] + sad["second"]) / 2
    assert [row["light"].split()[0] for row in rows[0:24:2]] == ["darkest"] * 4 + ["middle"] * 4 + ["lightest"] * 4


def test_a_gap_is_compared_with_chance():
    rows = made({"a": 0.8, "b": 0.5, "c": 0.7}, {"a": 0.8, "b": 0.5, "c": 0.7}, {"a": 0.1, "b": 0.1, "c": 0.1})
    found = gap(rows, "group", "first", 8)
    assert (found.best, found.worst) == ("a", "b") and found.value == pytest.approx(0.3, abs=0.02)
    assert found.low < found.value < found.high and found.chance < 0.2
    none = gap(rows, "gender", "identity", 8)
    assert none.value < none.chance < 0.02
    assert gap(rows, "group", "first", 13) is None  # no group is that large
    small = [row for row in rows if row["group"] != "b" or row["person"] in ("b0", "b1")]
    assert gap(small, "group", "first", 8).worst == "c"


def test_where_a_gap_comes_from():
    even = {"a": 0.1, "b": 0.1}
    assert "no more than chance" in cause(made({"a": 0.6, "b": 0.6}, {"a": 0.6, "b": 0.6}, even), "group", 8)
    apart = made({"a": 0.9, "b": 0.5}, {"a": 0.5, "b": 0.6}, even)
    assert "the recognisers disagree. The first reads least in `b`, the second in `a`" in cause(apart, "group", 8)
    same = made({"a": 0.8, "b": 0.6}, {"a": 0.8, "b": 0.6}, {"a": 0.3, "b": 0.12})
    assert "most of it is there before the edit, 0.18" in cause(same, "group", 8)
    edits = made({"a": 0.8, "b": 0.6}, {"a": 0.8, "b": 0.6}, even)
    assert "0.19 comes with the edit, 0.00 is there before it. Both recognisers read least in `b`" in cause(
        edits, "group", 8
    )
    assert "fewer than two groups" in cause(edits, "group", 13)


def test_tables_have_a_line_a_group():
    rows = made({"b": 0.8, "a": 0.6}, {"b": 0.8, "a": 0.6}, {"a": 0.1, "b": 0.1})
    lines = group_table(rows, {"group": ["b", "a"]}, 8).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:6]] == ["b", "a", "**best less worst**", "by chance, up to"]
    assert lines[2].startswith("| group | b | 12 | 0.8") and lines[4].split(" | ")[3] == "0.19 [0.18, 0.20]"
    happy, sad = emotion_table(rows, "group", {"group": ["b", "a"]}, 8).splitlines()[2:]
    assert happy.split(" | ")[1] == "0.79 / 0.10" and sad.endswith("| a, a |")


@pytest.fixture
def photographs(tmp_path, astronaut) -> Path:
    """Two photographs of one face in different light; votes on eight crops for the second recogniser."""
    images, crops = tmp_path / "everyday" / "images", tmp_path / "crops"
    images.mkdir(parents=True)
    crops.mkdir()
    head = astronaut[0:240, 110:350]
    rows, pictures = ["data,name,emotion,split,votes,group,age,gender,yaw"], []
    alignment = align(FaceDetector().choose(head)[0].landmarks, CROP)
    for n in range(2):
        photo = (head * (0.7 + 0.2 * n)).astype(np.uint8)
        Image.fromarray(photo).save(images / f"{n}.png")
        pictures.append(cv2.cvtColor(alignment.crop(photo), cv2.COLOR_RGB2GRAY))
        rows.append(f"everyday,{n}.png,,valid,,{'black' if n else 'white'},{20 + 20 * n},{'fe' * (n % 2)}male,0")
    for n in range(8):
        pictures.append(np.roll(pictures[0], 9 * n, 1))
        votes, emotion = ("10 0 0 0 0 0 0 0", "neutral") if n % 2 else ("0 10 0 0 0 0 0 0", "happy")
        rows.append(f"fer2013,{n}.png,{emotion},train,{votes},,,,0")
    np.save(crops / "crops.npy", np.stack(pictures))
    (crops / "index.csv").write_text("\n".join(rows))
    return tmp_path


def test_the_study_makes_its_page_and_goes_on(study, photographs, monkeypatch):
    how = composed("groups_study")
    how["data"] |= {"root": str(photographs), "crops": str(photographs / "crops")}
    how["faces"]["folder"] = str(photographs / "everyday" / "images")
    how["gradients"]["crops"] = how["data"]["crops"]
    how |= {"work": str(photographs / "work"), "least": 1}
    monkeypatch.setattr(study, "load_entries", lambda names, **_: [Entry("tiny-pixels", PhotoEditor(tiny_pixels()))])
    monkeypatch.setattr(study, "BASIC", ("happy", "neutral", "sad"))
    with torch.no_grad():
        page = study.study(how)
    assert "## Smiling photographs" in page and "## Neutral photographs" not in page  # the astronaut smiles
    assert "| group | white | 1 |" in page and "| group | black | 1 |" in page and "| age | 30 to 44 | 1 |" in page
    assert (
        "| white | 1 | 0 | 1 | 0 (0.00) | – |" in page and "the aim of 0.10" in page and "gap that no edit made" in page
    )
    tables = [part.splitlines() for part in page.split("\n\n") if part.startswith("| ")]
    assert len(tables) == 4 and all(len({line.count(" | ") for line in lines}) == 1 for lines in tables)

    monkeypatch.setattr(study.TwoRecognisers, "measure", lambda *_, **__: pytest.fail("measured twice"))
    assert study.study(how) == page


def test_an_index_without_groups_is_refused(study, photographs):
    crops = CropSet(photographs / "crops")
    with pytest.raises(DataError, match="no held-out crops"):
        study.held_out(crops, {"data": "nosuch", "folder": ".", "count": 9})
    for row in crops.rows:
        row["group"] = ""
    with pytest.raises(DataError, match="groups of people"):
        study.held_out(crops, {"data": "everyday", "folder": ".", "count": 9})

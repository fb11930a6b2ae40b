"""``emoedit recognise``, ``emoedit emotions --editor``, and what was meant by an emotion among the photos."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

from emoedit.cli import main
from emoedit.emotions import BASIC
from emoedit.types import MissingExtraError


@pytest.fixture
def photo(tmp_path, astronaut, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(astronaut).save("me.jpg", quality=95)
    return "me.jpg"


def test_recognise_prints_a_table_and_says_which_file_failed(photo, capsys) -> None:
    assert main(["recognise", photo, "nosuch.jpg"]) == 1
    out, err = capsys.readouterr()
    header, row = out.splitlines()
    assert header.split()[:3] == ["photo", "face", "shows"] and row.split()[:3] == ["me.jpg", "0", "happy"]
    assert "nosuch.jpg" in err and "Traceback" not in err


def test_recognise_as_json(photo, capsys) -> None:
    assert main(["recognise", photo, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert sum(row["scores"].values()) == pytest.approx(1, abs=0.01) and set(BASIC) <= set(row["scores"])
    assert row["shows"] == "happy" and row["valence"] > 0.3 and len(row["box"]) == 4


def test_emotions_of_an_editor(capsys) -> None:
    assert main(["emotions", "--editor", "ti"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["irritated"].strip() == "learned" and "happy" in lines["amused"]
    assert "fearful" not in lines  # it has not learned fear, and cannot mix it
    assert main(["emotions", "--editor", "nosuch"]) == 2


def test_an_emotion_among_the_photos_is_told_apart(photo, capsys) -> None:
    assert main(["edit", photo, "happy"]) == 2
    assert "write: emoedit edit me.jpg --emotion happy" in capsys.readouterr().err
    assert main(["edit", "sad"]) == 2
    assert "emoedit edit PHOTO --emotion sad" in capsys.readouterr().err


def test_a_file_with_the_name_of_an_emotion_is_a_photo(photo, tmp_path, capsys) -> None:
    (tmp_path / "happy").write_bytes((tmp_path / photo).read_bytes())
    assert main(["edit", "happy", "--strength", "0", "--output", "out.png"]) == 0
    assert (tmp_path / "out.png").is_file()


def test_a_walk_asks_for_its_encoder_before_anything_is_computed(photo, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "emoedit.photo", None)  # importing it would fail
    assert main(["walk", photo, "-o", "out.mp4"]) == 1
    assert "pip install" in capsys.readouterr().err


def test_a_missing_extra_names_what_pip_has_to_be_given() -> None:
    assert "pip install '.[metrics]' in " in str(MissingExtraError("pandas", "metrics"))  # tests run from a checkout

"""Prompts of the studies: their parts, the emotions in them, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoedit.emotions import parse, resolve
from emoedit.types import DataError, UnknownNameError
from lib.prompts import LONGEST, parse_prompt, read_emotions, read_prompts

STUDIES = Path(__file__).parents[2] / "experiments" / "prompt_studies.csv"
SHAME = (
    "facial-expressions Shame: Desolate, lonely, a sense of regret ; A man: hooded; eye-level; Single Person; "
    "A wet street, at night; cinematic"
)
BASIC = ("happy", "sad", "angry", "surprised", "fearful", "disgusted")


def prompt(expression: str, nuances: str) -> str:
    return f"facial-expressions {expression}: {nuances}; a man; eye-level; Hero; a room; cinematic"


def test_a_prompt_has_its_parts():
    found = parse_prompt(SHAME)
    assert (found.expression, found.nuances) == ("Shame", ("Desolate", "lonely", "a sense of regret"))
    assert (found.subject, found.camera, found.type) == ("A man: hooded", "eye-level", "Single Person")
    assert (found.scene, found.style, found.text) == ("A wet street, at night", "cinematic", SHAME)


@pytest.mark.parametrize("text", ["Facial Expression  JOY :;;;;;", "facial_expressions Joy: ; ; ; ; ;"])
def test_fields_may_be_empty_and_spelling_may_vary(text):
    found = parse_prompt(text)
    assert found.expression.lower() == "joy" and found.nuances == () and found.style == ""


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        b"facial-expressions Joy: a;b;c;d;e;f",
        "",
        "Joy",
        "a portrait of a happy man",
        "facial-expressions : sad; a; b; c; d; e",
        "facial-expressions Joy; a; b; c; d; e",
        "facial-expressions Joy: a; b; c; d; e",
        "facial-expressions Joy: a; b; c; d; e; f; g",
        "facial-expressions Joy: a; b; c\n; d; e; f",
        "facial-expressions Joy: a; b; c\0; d; e; f",
        prompt("Joy", "sad " * LONGEST),
        "facial-expressions " + " " * 3000,
        "facial-expressions " * 200,
    ],
)
def test_what_is_no_prompt_is_refused(text):
    with pytest.raises(DataError):
        parse_prompt(text)


@pytest.mark.parametrize(
    ("expression", "nuances", "emotions", "unread"),
    [
        ("Shame", "Guilt, regret, a sense of responsibility", ("shame", "guilty"), ("a sense of responsibility",)),
        ("Jealousy", "Lonely and envious", ("jealousy", "lonely", "envy"), ()),
        ("Jealousy", "Jealous", ("jealousy",), ()),
        ("Shame", "a deep sense of despair", ("shame", "grief"), ()),
        ("Shame", "without fear", ("shame",), ("without fear",)),
        ("Shame", "Sandy, command", ("shame",), ("Sandy", "command")),
        ("Zzz", "pleasantly surprised", ("pleasantly surprised",), ("Zzz",)),
        ("Shame", "", ("shame",), ()),
    ],
)
def test_the_emotions_of_a_prompt(expression, nuances, emotions, unread):
    reading = read_emotions(parse_prompt(prompt(expression, nuances)))
    assert (reading.emotions, reading.unread) == (emotions, unread)
    weights = parse(reading.algebra)
    assert tuple(weights) == emotions and all(abs(w - 1 / len(emotions)) < 1e-3 for w in weights.values())
    assert resolve(reading.algebra, BASIC)


def test_no_emotion_at_all_names_the_nearest():
    with pytest.raises(UnknownNameError, match="shame"):
        read_emotions(parse_prompt(prompt("Shaem", "blue, round")))


def test_the_studies_are_read_whole():
    prompts = read_prompts(STUDIES)
    assert [p.expression for p in prompts] == ["Shame"] * 10 + ["Jealousy"] * 10
    assert all(p.style == "cinematic" and p.subject and p.scene and float(p.about["entropy"]) > 5 for p in prompts)
    assert all(read_emotions(p).emotions[0] in ("shame", "jealousy") for p in prompts)


def test_a_file_that_does_not_parse_names_its_row(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text(f"{SHAME}\n\n{prompt('Joy', 'glad')}\n", encoding="utf-8-sig")
    assert [p.expression for p in read_prompts(file)] == ["Shame", "Joy"]
    file.write_text(f"{SHAME}\nnothing\n")
    with pytest.raises(DataError, match="prompt 2"):
        read_prompts(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(file)
    file.write_text("\n")
    with pytest.raises(DataError, match="no prompt"):
        read_prompts(file)
    table = tmp_path / "prompts.csv"
    table.write_text("text\nx\n")
    with pytest.raises(DataError, match="no column prompt; found text"):
        read_prompts(table)
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path / "none.csv")

"""Photographs to evaluate on: three layouts of a folder, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoedit.evaluation.cases import Case, read_cases
from emoedit.types import DataError


def make(folder: Path, *names: str) -> Path:
    """Files of these names, without content: nobody looks into a picture before it is edited."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def write(folder: Path, name: str, *lines: str, encoding: str = "utf-8") -> None:
    (folder / name).write_text("".join(line + "\n" for line in lines), encoding=encoding)


# --- plain ----------------------------------------------------------------------------------------------------------


def test_every_picture_of_a_plain_folder_is_another_person(tmp_path):
    make(tmp_path, "b.JPG", "a.png", "ünï (1).webp", "notes.txt", ".hidden.png", "._a.png", "more/c.png")
    cases = read_cases(tmp_path)
    assert [case.name for case in cases] == ["a.png", "b.JPG", "more/c.png", "ünï (1).webp"]
    assert cases[0] == Case(tmp_path / "a.png", "a.png", "a.png", {}, {})
    assert cases[2] == Case(tmp_path / "more/c.png", "more/c.png", "more/c.png", {}, {})
    assert len({case.person for case in cases}) == 4


def test_a_home_folder_and_a_string_will_do(tmp_path, monkeypatch):
    make(tmp_path, "set/a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_cases("~/set") == read_cases(str(tmp_path / "set"))


def test_folders_without_neutral_ones_make_no_pairs_and_results_are_no_photographs(tmp_path):
    make(tmp_path, "a.png", "results/pictures/b.png", "results/results.jsonl", "smiling/a.png")
    assert [case.name for case in read_cases(tmp_path)] == ["a.png", "smiling/a.png"]


# --- pairs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path) -> Path:
    make(tmp_path, *(f"{emotion}/{n}.jpg" for emotion in ("neutral", "smiling", "Anger", "results") for n in "123"))
    make(tmp_path, "neutral/4.jpg", "neutral/.5.jpg", "neutral/readme.txt", "smiling/.1.jpg")
    (tmp_path / "Anger" / "2.jpg").rename(tmp_path / "Anger" / "2.png")  # the same picture in another format
    (tmp_path / "Anger" / "3.jpg").unlink()
    return tmp_path


def test_pairs_are_the_same_names_in_folders_of_emotions(pairs):
    cases = read_cases(pairs)
    assert [(case.name, case.person) for case in cases] == [(f"{n}.jpg", n) for n in "1234"]
    assert all(case.photo == pairs / "neutral" / case.name for case in cases)
    assert [dict(case.truth) for case in cases] == [
        {"happy": pairs / "smiling" / "1.jpg", "angry": pairs / "Anger" / "1.jpg"},
        {"happy": pairs / "smiling" / "2.jpg", "angry": pairs / "Anger" / "2.png"},
        {"happy": pairs / "smiling" / "3.jpg"},
        {},
    ]


@pytest.mark.parametrize("source", ["happy", "smiling", "Joy"])
def test_any_emotion_can_be_the_source_under_any_of_its_names(pairs, source):
    cases = read_cases(pairs, source=source)
    assert [case.photo for case in cases] == [pairs / "smiling" / f"{n}.jpg" for n in "123"]
    assert cases[0].truth == {"neutral": pairs / "neutral" / "1.jpg", "angry": pairs / "Anger" / "1.jpg"}


def test_two_folders_of_one_emotion_are_refused(pairs):
    make(pairs, "happy/1.jpg")
    with pytest.raises(DataError, match="happy and .*smiling are folders of one emotion, happy"):
        read_cases(pairs)


def test_info_csv_tells_more_and_chooses_a_split(pairs):
    write(pairs, "info.csv", "face_id,age,split", "1,31,train", "2,22,test", "4,,test", encoding="utf-8-sig")
    assert [dict(case.info) for case in read_cases(pairs)] == [
        {"age": "31", "split": "train"},
        {"age": "22", "split": "test"},
        {},
        {"age": "", "split": "test"},
    ]
    cases = read_cases(pairs, split="test")
    assert [case.person for case in cases] == ["2", "4"]
    assert cases[0].truth["happy"] == pairs / "smiling" / "2.jpg"
    with pytest.raises(DataError, match="no picture to edit"):
        read_cases(pairs, split="validation")


def test_rows_of_another_length_are_read_as_far_as_they_go(pairs):
    write(pairs, "info.csv", "face_id,age", "1", "2,22,what,is,this")
    assert [dict(case.info) for case in read_cases(pairs)] == [{"age": ""}, {"age": "22"}, {}, {}]


def test_a_split_needs_a_csv_that_tells_it(pairs):
    with pytest.raises(DataError, match="info.csv with a column split is needed to choose split 'test'"):
        read_cases(pairs, split="test")
    write(pairs, "info.csv", "face_id,age", "1,31")
    with pytest.raises(DataError, match="column split"):
        read_cases(pairs, split="test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,age\n1,3\n", "info.csv: no column face_id; found id, age"),
        (b"", "no column face_id; found nothing"),
        (b"face_id,name\n1,Zo\xeb\n", "info.csv cannot be read as a csv in UTF-8"),
    ],
)
def test_an_info_csv_that_is_none(pairs, content, message):
    (pairs / "info.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_cases(pairs)


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path) -> Path:
    make(tmp_path, "images/a.png", "images/b.png", "images/deep/c.png", "images/d.png", "images/unlisted.png")
    write(
        tmp_path,
        "labels.csv",
        "image,emotion,person,split,age",
        "a.png,neutral,anna,test,30",
        "b.png,Neutral,anna,train,30",
        "deep/c.png,neutrality,,test,",
        "d.png,happiness,bob,test,41",
    )
    return tmp_path


def test_labels_say_what_is_edited_and_who_it_is(labelled):
    cases = read_cases(labelled)
    assert [(case.name, case.person) for case in cases] == [
        ("a.png", "anna"),
        ("b.png", "anna"),
        ("deep/c.png", "deep/c.png"),
    ]
    assert [case.photo for case in cases] == [labelled / "images" / case.name for case in cases]
    assert cases[0].info == {"split": "test", "age": "30"}
    assert not any(case.truth for case in cases)


def test_labels_choose_split_and_source(labelled):
    assert [case.name for case in read_cases(labelled, split="test")] == ["a.png", "deep/c.png"]
    assert [case.name for case in read_cases(labelled, source="smiling")] == ["d.png"]
    with pytest.raises(DataError, match="no picture to edit"):
        read_cases(labelled, source="fearful")


def test_labels_come_before_folders_of_emotions_and_beside_pictures(tmp_path):
    make(tmp_path, "neutral/1.png", "smiling/1.png", "a.png")
    write(tmp_path, "labels.csv", "image,emotion", "a.png,neutral", "neutral/1.png,neutral")
    assert [(case.name, case.person) for case in read_cases(tmp_path)] == [
        ("a.png", "a.png"),
        ("neutral/1.png", "neutral/1.png"),
    ]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["image,label", "a.png,neutral"], {}, "no column emotion; found image, label"),
        (["image,emotion", "a.png,neutral"], {"split": "test"}, "no column split; found image, emotion"),
        (["image,emotion", "a.png,neutrl"], {}, "labels.csv: unknown emotion 'neutrl'; did you mean 'neutral'"),
        (["image,emotion", "a.png"], {}, "unknown emotion ''"),
        (["image,emotion", "gone.png,neutral"], {}, "gone.png is not there"),
        (["emotion,image", "neutral"], {}, "is not there"),
        (["image,emotion"], {}, "no picture to edit"),
        ([], {}, "no column image, emotion; found nothing"),
    ],
)
def test_labels_that_are_wrong(labelled, lines, options, message):
    write(labelled, "labels.csv", *lines)
    with pytest.raises(DataError, match=message):
        read_cases(labelled, **options)


def test_a_wrong_label_of_another_emotion_is_found_too(labelled):
    write(labelled, "labels.csv", "image,emotion", "a.png,neutral", "b.png,smilling")
    with pytest.raises(DataError, match="did you mean"):
        read_cases(labelled)


@pytest.mark.parametrize("content", [b"image,emotion\ncaf\xe9.png,neutral\n", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_labels_that_are_no_csv(labelled, content):
    (labelled / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match="labels.csv cannot be read as a csv in UTF-8"):
        read_cases(labelled)


# --- no set at all --------------------------------------------------------------------------------------------------


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="gone: no such folder"):
        read_cases(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="no such folder"):
        read_cases(tmp_path / "file")
    with pytest.raises(DataError, match="no picture to edit there"):
        read_cases(tmp_path)
    make(tmp_path, "a.png")
    with pytest.raises(DataError, match="no csv that says which pictures belong to split 'test'"):
        read_cases(tmp_path, split="test")
    make(tmp_path, "neutral/.a.png")
    with pytest.raises(DataError, match="no picture to edit there"):
        read_cases(tmp_path)

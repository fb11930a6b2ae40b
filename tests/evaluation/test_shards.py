"""Parts of a data set, and folders that are larger than memory."""

from __future__ import annotations

import tracemalloc

import pytest

from emoedit.evaluation.cases import Case, read_cases
from emoedit.evaluation.shards import Photographs, Shard, open_cases
from emoedit.types import DataError


@pytest.mark.parametrize("count", [1, 2, 3, 8, 57, 60])
def test_shards_are_the_whole_and_nothing_twice(count):
    things = list(range(57))
    parts = [Shard(index, count).of(things) for index in range(count)]
    assert sorted(sum(parts, [])) == things
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(part == sorted(part) for part in parts)


def test_shards_as_text():
    assert Shard.parse("0/8") == Shard(0, 8) and Shard.parse("7/8").of("abcdefgh") == "h"
    assert str(Shard(3, 8)) == "3/8" and Shard() == Shard(0, 1)
    for text in ("8/8", "1/0", "0/0"):
        with pytest.raises(DataError, match="there is no shard"):
            Shard.parse(text)
    for text in ("", "3", "-1/8", "1/-8", "1/8/2", "a/b", "1 / 8", "٣/٨", "1/8\n", None, 0.125, "1/" + "9" * 30):
        with pytest.raises(DataError, match="INDEX/COUNT"):
            Shard.parse(text)


@pytest.fixture
def photos(tmp_path):
    """Names only: whether they are pictures is found out when they are edited."""
    for name in ("b.PNG", "a.jpg", "c d.webp", ".hidden.png", "notes.txt", "ä.jpeg"):
        (tmp_path / name).touch()
    (tmp_path / "results").mkdir()
    return tmp_path


def test_a_folder_of_pictures_is_read_as_always(photos):
    cases = open_cases(photos)
    assert isinstance(cases, Photographs)
    assert list(cases) == read_cases(photos)
    assert [case.name for case in cases] == ["a.jpg", "b.PNG", "c d.webp", "ä.jpeg"]
    assert cases[1] == Case(photos / "b.PNG", "b.PNG", "b.PNG") and cases[-1].name == "ä.jpeg" and len(cases) == 4
    assert list(cases[1:3]) == list(cases)[1:3]
    with pytest.raises(IndexError):
        cases[4]


def test_the_limit_is_of_the_whole_folder(photos):
    parts = [[case.name for case in open_cases(photos, limit=3, shard=Shard(index, 2))] for index in range(2)]
    assert parts == [["a.jpg", "c d.webp"], ["b.PNG"]]
    assert not open_cases(photos, limit=1, shard=Shard(1, 2))


def test_other_layouts_are_read_as_always(photos):
    (photos / "neutral").mkdir()
    (photos / "happy").mkdir()
    for folder in ("neutral", "happy"):
        (photos / folder / "1.png").touch()
    assert list(open_cases(photos)) == read_cases(photos) and len(open_cases(photos)) == 1
    (photos / "info.csv").write_text("face_id,split\n1,test\n")
    assert len(open_cases(photos, split="test")) == 1
    with pytest.raises(DataError, match="no picture"):
        open_cases(photos, split="train")
    (photos / "labels.csv").write_text("image,emotion\na.jpg,neutral\nb.PNG,happy\n")
    assert [case.name for case in open_cases(photos)] == ["a.jpg"]


def test_folders_that_cannot_be_used(photos):
    for wrong, match in (
        (photos / "reslts", "no such folder; did you mean 'results'"),
        (photos / "a.jpg", "no such folder"),
        (photos / "gone" / "further", "no such folder$"),
        (photos / "results", "no picture to edit"),
    ):
        with pytest.raises(DataError, match=match):
            open_cases(wrong)
    with pytest.raises(DataError, match="no csv that says"):
        open_cases(photos, split="test")


def test_a_large_folder_takes_the_room_of_its_names(tmp_path):
    """Not of its cases: a shard of it less still. (A case takes about 600 bytes, a name 70.)"""
    for number in range(5000):
        (tmp_path / f"{number:06d}.jpg").touch()
    tracemalloc.start()
    cases = open_cases(tmp_path, shard=Shard(0, 8))
    kept, peak = tracemalloc.get_traced_memory()
    assert sum(1 for case in cases if case.photo.name == case.name) == 625
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 120 * 625 and peak < 300 * 5000 and after - kept < 20_000

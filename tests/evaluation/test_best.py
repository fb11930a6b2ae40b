"""Candidates, ranked: floors, reasons, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from emoedit.cli import main
from emoedit.evaluation.best import Best, Candidate, Floors, _explained, _ranked, best, plan_candidates
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.types import EditError, NoFaceError, OutputError, UnknownNameError
from tests.fixtures.editors import tiny_vae

FLOORS = Floors(identity=0.6, target_score=0.2, realism=0.5)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite(device="cpu")


@pytest.fixture(scope="module")
def found(suite, _astronaut) -> Best:
    done = []
    result = best(
        _astronaut,
        "sad",
        candidates=4,
        keep=2,
        editors=["facs", PhotoEditor(tiny_vae())],
        suite=suite,
        floors=Floors(identity=-1.0, target_score=0.0, realism=0.0),
        progress=lambda *state: done.append(state),
    )
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return result


def candidate(target: float, identity: float = 0.9, realism: float = 1.0) -> Candidate:
    return Candidate("facs", "sad", 1.0, 0, Image.new("RGB", (8, 8)), target, identity, realism)


def test_every_editor_is_tried_about_as_often():
    assert plan_candidates(["a", "b"], 5) == [("a", 0.7), ("a", 1.15), ("a", 1.6), ("b", 0.7), ("b", 1.6)]
    assert plan_candidates(["a", "b", "c"], 2) == [("a", 1.0), ("b", 1.0)]
    assert plan_candidates(["a"], 2, [0.5, 2.0]) == [("a", 0.5), ("a", 2.0)]
    for editors, count in (([], 3), (["a"], 0)):
        with pytest.raises(EditError, match="at least one"):
            plan_candidates(editors, count)


def test_the_best_come_first_and_floors_precede_scores():
    tried = [candidate(0.5), candidate(1.0, identity=0.1), candidate(0.9), candidate(0.6), candidate(0.9, realism=0.4)]
    ranked = _ranked([*tried, replace(candidate(1.0), image=None, reason="failed: no face")], FLOORS, keep=2)
    assert [c.target_score for c in ranked[:3]] == [0.9, 0.6, 0.5]
    assert [c.kept for c in ranked] == [True, True, False, False, False, False]
    assert "0.9" in ranked[0].reason and "2 are kept" in ranked[2].reason
    assert {"identity 0.10 is below 0.60", "realism 0.40 is below 0.50", "failed: no face"} == {
        c.reason for c in ranked[3:]
    }
    assert _explained(ranked, FLOORS).startswith("2 of 6")


def test_all_below_the_floor_is_an_empty_result_that_says_why():
    ranked = _ranked([candidate(0.1), candidate(0.05, identity=0.2)], FLOORS, keep=2)
    assert not any(c.kept for c in ranked)
    said = _explained(ranked, FLOORS)
    assert "none of 2" in said and "2 below 0.2 in target_score" in said and "1 below 0.6 in identity" in said


def test_candidates_of_a_photograph(found, _astronaut):
    assert len(found.candidates) == 4 and len(found.kept) == 2
    scores = [c.score for c in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert {c.editor for c in found.candidates} == {"facs", "custom"} or len({c.editor for c in found.candidates}) == 2
    for one in found.candidates:
        assert one.image.size == _astronaut.shape[1::-1]
        assert 0 <= one.target_score <= 1 and 0 <= one.realism <= 1 and -1 <= one.identity <= 1
    facs = {c.strength: c for c in found.candidates if c.editor == "facs"}
    assert facs[0.7].identity > facs[1.6].identity  # a stronger edit keeps less of the person


def test_what_is_written(found, tmp_path):
    files = found.save(tmp_path / "out")
    assert sorted(f.name for f in files) == sorted(p.name for p in (tmp_path / "out").iterdir())
    report = json.loads((tmp_path / "out" / "candidates.json").read_text())
    assert [row["kept"] for row in report["candidates"]] == [True, True, False, False]
    assert all(row["reason"] for row in report["candidates"]) and report["explanation"] == found.explanation
    assert Image.open(tmp_path / "out" / "sheet.png").width > 2 * 256
    assert found._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(OutputError):
        found.save(tmp_path / "out")


def test_bad_requests_are_refused(suite, _astronaut):
    with pytest.raises(EditError, match="at least one"):
        best(_astronaut, keep=0, suite=suite)
    with pytest.raises(EditError, match="one face"):
        best(_astronaut, face="all", suite=suite)
    with pytest.raises(UnknownNameError):
        best(_astronaut, "hapy", suite=suite)
    with pytest.raises(NoFaceError):
        best(Image.new("RGB", (64, 64)), candidates=1, editors=["facs"], suite=suite)


def test_the_command(tmp_path, monkeypatch, _astronaut, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(_astronaut).save("me.png")
    arguments = ["best", "me.png", "--emotion", "sad", "--candidates", "2", "--editors", "facs", "--json", "-"]
    assert main([*arguments, "--min-target", "0", "--min-identity", "0", "--min-realism", "0"]) == 0
    assert len(json.loads(capsys.readouterr().out)["candidates"]) == 2
    assert (tmp_path / "me_sad_best" / "sheet.png").is_file()
    assert main([*arguments, "--min-target", "1", "--output", "none"]) == 1
    assert "none of 2 candidates" in json.loads(capsys.readouterr().out)["explanation"]
    assert main(["best", "me.png", "--candidates", "0"]) == 2
    assert main(["best", "me.png", "--editors", "nobody"]) == 2
    assert main([*arguments, "--output", "none"]) == 1  # it exists

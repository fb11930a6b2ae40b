"""Candidates, ranked: floors, reasons, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from emoedit.cli import main
from emoedit.evaluation.best import Best, Candidate, Floors, _explained, _ranked, best
from emoedit.evaluation.trials import STRONGEST, WEAKEST, LoadedEditors, next_strength, plan_candidates
from emoedit.io import checkpoints
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


def candidate(target: float, identity: float = 0.9, realism: float = 1.0, second: float | None = None) -> Candidate:
    read = target if second is None else second
    return Candidate("facs", "sad", 1.0, 0, Image.new("RGB", (8, 8)), target, read, identity, realism)


def test_every_editor_is_tried_about_as_often():
    assert plan_candidates(["a", "b"], 5) == {"a": 3, "b": 2}
    assert plan_candidates(["a", "b", "c"], 2) == {"a": 1, "b": 1}
    for editors, count in (([], 3), (["a"], 0)):
        with pytest.raises(EditError, match="at least one"):
            plan_candidates(editors, count)


@pytest.mark.parametrize("power", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("bearable", [0.5, 0.9, 1.4])
def test_strengths_approach_what_the_person_bears(power, bearable):
    def keeps(strength: float) -> float:
        return 1 - 0.15 * (strength / bearable) ** power

    tried: dict[float, float] = {}
    for _ in range(6):
        strength = next_strength(tried, 0.85)
        assert strength not in tried and 0 < strength <= STRONGEST
        tried[strength] = keeps(strength)
    keeping = [strength for strength, identity in tried.items() if identity >= 0.85]
    assert 0.9 * bearable < max(keeping) <= bearable


def test_strengths_stay_where_editors_work():
    assert next_strength({}, 0.5) == 1.0
    assert next_strength({1.0: 0.99}, 0.5) == STRONGEST and next_strength({1.0: 0.1}, 0.99) == WEAKEST
    assert next_strength({1.0: 0.99, STRONGEST: 0.98}, 0.5) < STRONGEST  # no stronger one is tried
    assert 0 < next_strength({1.0: 0.1, WEAKEST: 0.2}, 0.99) < WEAKEST


def test_editors_in_turn_are_loaded_once(tmp_path, monkeypatch):
    vae = PhotoEditor(tiny_vae())
    load = LoadedEditors([vae, f"{vae.editor.name}+facs", [vae, vae]], "cpu")
    name = vae.editor.name
    assert load.names == [name, f"{name}+facs", f"{name}+{name}"]
    assert load(name) == [vae] and load(f"{name}+facs")[0] is vae and load(f"{name}+{name}") == [vae, vae]
    assert load("facs")[0] is load(f"{name}+facs")[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b").mkdir()
    assert LoadedEditors(["a+b"], "cpu").names == ["a+b"]  # a folder whose name holds a plus
    with pytest.raises(UnknownNameError):
        LoadedEditors(["facs+nobody"], "cpu")("facs+nobody")


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


def test_a_candidate_that_fools_one_recogniser_is_not_first():
    ranked = _ranked([candidate(0.9, second=0.1), candidate(0.5, second=0.5)], FLOORS, keep=2)
    assert [c.target_score for c in ranked] == [0.5, 0.9]


def test_identity_above_the_floor_does_not_count():
    ranked = _ranked([candidate(0.5, identity=0.99), candidate(0.6, identity=0.61)], FLOORS, keep=2)
    assert [c.target_score for c in ranked] == [0.6, 0.5]
    assert ranked[0].score == pytest.approx(0.6 * 0.6)


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
    facs = sorted((c for c in found.candidates if c.editor == "facs"), key=lambda c: c.strength)
    assert facs[0].identity > facs[1].identity  # a stronger edit keeps less of the person
    assert facs[1].strength == STRONGEST  # no floor holds it back


@pytest.mark.skipif(not (checkpoints.embedded_root() / "stylegan").is_dir(), reason="no embedded editors here")
def test_the_best_keeps_as_much_as_one_edit_of_the_default_editor(suite, _astronaut):
    found = best(_astronaut, "happy", candidates=4, keep=4, editors=["facs", "stylegan+facs"], suite=suite)
    assert len(found.candidates) == 5  # and the default editor's
    single = next(c for c in found.candidates if c.editor == "stylegan")
    assert single.strength == 1.0 and single.kept and found.floors.identity == single.identity
    assert all(c.identity >= single.identity for c in found.kept) and found.kept[0].score >= single.score
    tried = {name: [c for c in found.candidates if c.editor == name] for name in ("facs", "stylegan+facs")}
    assert all(len({c.strength for c in some}) == 2 for some in tried.values())
    assert "stylegan+facs" in {c.editor for c in found.candidates} and found.stem(tried["stylegan+facs"][0])


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
    assert "none of 3 candidates" in json.loads(capsys.readouterr().out)["explanation"]
    assert main(["best", "me.png", "--candidates", "0"]) == 2
    assert main(["best", "me.png", "--editors", "nobody"]) == 2
    assert main(["best", "me.png", "--editors", "facs+nobody"]) == 2
    assert main([*arguments, "--output", "none"]) == 1  # it exists

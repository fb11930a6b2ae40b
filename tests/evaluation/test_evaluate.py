"""Editors on a data set: rows, summaries, and a run that is stopped at any moment and goes on."""

from __future__ import annotations

import csv
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import pearsonr

import emoedit
from emoedit.cli import main
from emoedit.evaluation.cases import Case, read_cases
from emoedit.evaluation.compare import NOTHING, PHOTOGRAPH
from emoedit.evaluation.evaluate import evaluate
from emoedit.evaluation.summary import Evaluation, format_interval, mean_columns, people_interval
from emoedit.faces.networks import NAMES as NETWORKS
from emoedit.io import checkpoints
from emoedit.io.results import Results, key_of
from emoedit.metrics.control import CONFUSABLE
from emoedit.metrics.measure import measures
from emoedit.metrics.statistics import bootstrap
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.types import DataError, MissingExtraError, OutputError, UnknownNameError
from tests.fixtures.editors import tiny_pixels

pytest.importorskip("matplotlib")
needs_networks = pytest.mark.skipif(
    not all((checkpoints.embedded_root() / name).is_dir() for name in (*NETWORKS, "mean_warp", "pixel_mean")),
    reason="no embedded measuring networks or references in this checkout",
)

EMOTIONS, STRENGTHS = ("happy", "sad"), (0.5, 1.0)
FILES = {"results.jsonl", "settings.json", "lock", "summary.csv", "pareto.svg", "report.html"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite(identity="embedded", perceptual="embedded")


@pytest.fixture(scope="module")
def editor() -> PhotoEditor:
    return PhotoEditor(tiny_pixels("one"))


@pytest.fixture(scope="module")
def people(_astronaut) -> dict[str, np.ndarray]:
    """Three "people", uint8 ``[160, 160, 3]``: the portrait, its mirror image, and it again in less light."""
    head = _astronaut[20:180, 144:304]
    return {"anna": head, "bob": head[:, ::-1], "cleo": (head * 0.6 + 10).astype(np.uint8)}


@pytest.fixture(scope="module")
def data(people, tmp_path_factory) -> Path:
    """Neutral people and their smiles: mean smiles, so that truth and editing have something in common."""
    folder = tmp_path_factory.mktemp("data")
    smile = PhotoEditor("mean_warp")
    for emotion in ("neutral", "smiling"):
        (folder / emotion).mkdir()
    for name, picture in people.items():
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / "neutral" / f"{name}.png")
        emoedit.edit(np.ascontiguousarray(picture), "happy", editor=smile, strength=1.4).save(
            folder / "smiling" / f"{name}.png"
        )
    (folder / "info.csv").write_text("face_id,age,photo,split\nanna,44,x,test\nbob,44,y,test\ncleo,50,z,train\n")
    return folder


@pytest.fixture(scope="module")
def whole(data, suite, editor, tmp_path_factory) -> tuple[Path, Evaluation]:
    """A run that nothing stopped, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, run(data, folder, suite, editor)


def run(data, folder: Path, suite: Suite, editor: PhotoEditor, *, limit: int | None = None, **options) -> Evaluation:
    options = {"editors": [editor], "strengths": STRENGTHS, "suite": suite, "seed": 5, **options}
    return evaluate(read_cases(data)[:limit], EMOTIONS, output=folder, **options)


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def same(first: Iterable[dict], second: Iterable[dict]) -> None:
    """Equal rows in equal order, but for the time they took and for the last digit, which the batch size moves."""
    first, second = list(first), list(second)
    assert [key_of(row) for row in first] == [key_of(row) for row in second]
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds"}:
            if isinstance(one[key], float):
                assert one[key] == pytest.approx(other[key], abs=1e-3, rel=1e-3), (key_of(one), key)
            else:
                assert one[key] == other[key], (key_of(one), key)


# --- a run ----------------------------------------------------------------------------------------------------------


@needs_networks
class TestRun:
    def test_every_cell_has_a_row(self, whole):
        folder, found = whole
        cells = [(row["photo"], row["editor"], row["emotion"], row["strength"]) for row in found.rows]
        edits = [(emotion, strength) for emotion in EMOTIONS for strength in STRENGTHS]
        assert cells == [
            cell
            for photo in ("anna.png", "bob.png", "cleo.png")
            for cell in (
                *((photo, "one", *edit) for edit in edits),
                *((photo, "mean_warp", *edit) for edit in edits[:2]),
                *((photo, "pixel_mean", *edit) for edit in edits),
                (photo, NOTHING, "happy", None),
                (photo, PHOTOGRAPH, "happy", None),
                (photo, NOTHING, "sad", None),
            )
        ]
        assert list(found.rows) == rows_in(folder) and len(found.rows) == 39 and not found.errors
        assert rows_in(folder)[7] in found.rows and {} not in found.rows
        assert {path.name for path in folder.iterdir()} == FILES

    def test_rows_say_who_and_what_else_is_known(self, whole):
        wanted = {m.key for m in measures()} | {
            "photo",
            "person",
            "age",
            "split",
            "editor",
            "reference",
            "error",
            "hit",
        }
        assert len(whole[1].rows) == 39
        for row in whole[1].rows:
            assert wanted <= row.keys()
            assert row["photo"] == f"{row['person']}.png"  # and not what a column of that name says
            assert row["age"] == ("50" if row["person"] == "cleo" else "44")
            assert row["reference"] == (row["editor"] != "one")

    def test_truths_are_compared_with(self, whole):
        for row in whole[1].rows:
            paired = [row[key] for key in ("paired_perceptual", "paired_identity", "paired_landmarks")]
            if row["emotion"] == "sad":
                assert paired == [None] * 3
            elif row["editor"] in (NOTHING, PHOTOGRAPH):
                assert paired == pytest.approx([float(row["editor"] == NOTHING)] * 3, abs=1e-4)
        # The truth was made with the mean smile: nothing comes nearer to it.
        nearness = {
            editor: np.mean([row["paired_perceptual"] for row in whole[1].groups()[editor, "happy", 1.0]])
            for editor in ("one", "mean_warp", "pixel_mean")
        }
        assert nearness["mean_warp"] == min(nearness.values()) < 1

    def test_the_summary_is_the_rows(self, whole):
        folder, found = whole
        summary = found.summary()
        assert [(line["editor"], line["emotion"], line["strength"]) for line in summary] == list(found.groups())
        for line in summary:
            cell = line["editor"], line["emotion"], line["strength"]
            own = [row for row in found.rows if (row["editor"], row["emotion"], row["strength"]) == cell]
            assert (line["pictures"], line["people"]) == (3, 3)
            for key in mean_columns():
                values = [row[key] for row in own if row.get(key) is not None]
                if not values:
                    assert np.isnan(line[key])
                    continue
                assert line[key] == pytest.approx(np.mean(values))
                assert line[f"{key}_low"] <= line[key] + 1e-9 and line[key] <= line[f"{key}_high"] + 1e-9
                assert min(values) - 1e-9 <= line[f"{key}_low"] and line[f"{key}_high"] <= max(values) + 1e-9
        written = read_summary(folder)
        assert len(written) == len(summary)
        for text, line in zip(written, summary, strict=True):
            assert text.keys() == line.keys()
            for key, value in line.items():
                if value is None or isinstance(value, float) and np.isnan(value):
                    assert text[key] == ""
                elif isinstance(value, str | bool):
                    assert text[key] == str(value)
                else:
                    assert float(text[key]) == pytest.approx(value)

    def test_the_report_holds_the_summary_and_the_drawing(self, whole):
        folder, found = whole
        page, drawing = ((folder / name).read_text("utf-8") for name in ("report.html", "pareto.svg"))
        root = ElementTree.fromstring(drawing)
        words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {"one", "mean_warp", "pixel_mean", NOTHING, PHOTOGRAPH, "happy", "sad"} <= words
        assert drawing in page
        for line in found.summary():
            assert format_interval(line["identity"], line["identity_low"], line["identity_high"]) in page
        for line in found.control():
            assert f"{line['target_score']:.3f}" in page and f"{line['acc']:.3f}" in page
        assert f"{len(found.rows)} cells of 3 people" in page
        assert "Metric networks" in page and "failed" not in page

    def test_settings_say_what_made_the_rows(self, whole):
        settings = json.loads((whole[0] / "settings.json").read_text())
        assert settings["seed"] == 5 and settings["identity_backend"] == "embedded"
        assert set(settings["networks"]) == set(NETWORKS)
        assert set(settings["editors"]) == {"one", "mean_warp", "pixel_mean"}
        assert len(set(settings["editors"].values())) == 3

    def test_data_frames(self, whole):
        pytest.importorskip("pandas")
        table = whole[1].to_pandas()
        means = table[table.editor == "one"].groupby(["emotion", "strength"])["identity"].mean()
        for line in whole[1].summary():
            if line["editor"] == "one":
                assert means[line["emotion"], line["strength"]] == pytest.approx(line["identity"])

    def test_no_picture_stays_in_memory(self, data, suite, editor, tmp_path, monkeypatch):
        """Neither in the result nor while the run goes on: one open photograph at a time, and the edits of a batch."""
        opened, made, most = [], [], [0, 0]
        open_, edit, append = PhotoEditor.open, PhotoEditor.edit, Results.append

        def watched_open(self, *arguments, **options):
            photo = open_(self, *arguments, **options)
            opened.append(weakref.ref(photo))
            return photo

        def watched_edit(self, *arguments, **options):
            for result in edit(self, *arguments, **options):
                made.append(weakref.ref(result.image))
                yield result
                del result

        def watched_append(self, rows):
            gc.collect()
            for place, references in enumerate((opened, made)):
                most[place] = max(most[place], sum(reference() is not None for reference in references))
            append(self, rows)

        monkeypatch.setattr(PhotoEditor, "open", watched_open)
        monkeypatch.setattr(PhotoEditor, "edit", watched_edit)
        monkeypatch.setattr(Results, "append", watched_append)
        found = run(data, tmp_path / "out", suite, editor, references=False, limit=2)
        gc.collect()
        assert len(opened) == 2 and len(made) == 8
        assert most[0] <= 1 and most[1] <= 2
        assert not any(reference() for reference in (*opened, *made))
        seen, waiting = set(), [found]
        while waiting:
            thing = waiting.pop()
            assert not isinstance(thing, np.ndarray | torch.Tensor | Image.Image | bytes)
            if id(thing) not in seen and not isinstance(thing, type):
                seen.add(id(thing))
                waiting += gc.get_referents(thing)
        assert len(seen) < 5000


# --- a run that goes on ---------------------------------------------------------------------------------------------


@pytest.fixture
def appended(monkeypatch) -> list:
    """The cells that are done, in order."""
    done: list = []
    append = Results.append

    def watched(self, rows):
        done.extend(key_of(row) for row in rows)
        append(self, rows)

    monkeypatch.setattr(Results, "append", watched)
    return done


def cut(folder: Path, to: Path, where: str) -> list:
    """A copy of a run whose results end somewhere else; the cells that are lost."""
    shutil.copytree(folder, to)
    path = to / "results.jsonl"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    end = {
        "last newline": len(data) - 1,
        "in the last line": len(data) - len(lines[-1]) // 2,
        "between two lines": len(data) - len(lines[-1]) - len(lines[-2]),
        "in the editor's rows": sum(map(len, lines[:-10])) + len(lines[-10]) // 3,
    }[where]
    path.write_bytes(data[:end])
    kept = data[:end].count(b"\n")
    return [key_of(json.loads(line)) for line in lines[kept:]]


@needs_networks
class TestResume:
    @pytest.mark.parametrize(
        "where",
        [
            "last newline",
            "in the last line",
            "between two lines",
            "in the editor's rows",
        ],
    )
    def test_only_what_is_missing_is_done_again(self, where, whole, data, suite, editor, tmp_path, appended):
        folder, complete = whole
        lost = cut(folder, tmp_path / "cut", where)
        assert lost
        found = run(data, tmp_path / "cut", suite, editor)
        assert appended == lost
        same(found.rows, complete.rows)
        same(rows_in(tmp_path / "cut"), complete.rows)
        for name in FILES - {"results.jsonl"}:
            assert (tmp_path / "cut" / name).is_file()

    def test_a_complete_run_does_nothing_but_write_its_reports(self, whole, data, suite, editor, tmp_path, monkeypatch):
        folder, complete = whole
        shutil.copytree(folder, tmp_path / "copy")
        for name in ("summary.csv", "pareto.svg", "report.html"):
            (tmp_path / "copy" / name).unlink()
        monkeypatch.setattr(PhotoEditor, "open", lambda *_, **__: pytest.fail("opened a photograph again"))
        monkeypatch.setattr(Suite, "subject", lambda *_, **__: pytest.fail("looked at a photograph again"))
        assert list(run(data, tmp_path / "copy", suite, editor).rows) == list(complete.rows)
        for name in FILES:
            assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes(), name

    def test_less_is_read_from_what_is_there_and_more_is_added(self, whole, data, suite, editor, tmp_path, appended):
        folder, complete = whole
        shutil.copytree(folder, tmp_path / "copy")
        few = run(data, tmp_path / "copy", suite, editor, limit=1, strengths=[1.0], references=False)
        assert [row["emotion"] for row in few.rows] == ["happy", "sad"] and not appended
        other = PhotoEditor(tiny_pixels("two", seed=7), detector=editor.detector)
        options = {"editors": [other, editor], "limit": 1, "strengths": [1.0], "references": False}
        more = run(data, tmp_path / "copy", suite, editor, **options)
        assert appended == [("anna.png", "two", emotion, 1.0) for emotion in EMOTIONS]
        assert len(more.rows) == 4 and len(rows_in(tmp_path / "copy")) == len(complete.rows) + 2
        assert "two" in json.loads((tmp_path / "copy" / "settings.json").read_text())["editors"]

    def test_rows_of_other_editors_networks_or_seeds_are_not_mixed(
        self, whole, data, suite, editor, tmp_path, appended
    ):
        folder, _ = whole
        shutil.copytree(folder, tmp_path / "copy")

        def refused(match, **options):
            before = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
            with pytest.raises(DataError, match=f"made with another {match}; choose another folder"):
                run(data, tmp_path / "copy", suite, editor, **options)
            assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == before

        refused("seed", seed=6)
        refused("one", editors=[PhotoEditor(tiny_pixels("one", seed=1), detector=editor.detector)])
        refused("one", editors=[PhotoEditor(editor.editor, detector=editor.detector, compositor="replace")])
        refused("seed, one", editors=[tiny_pixels("one", seed=1)], seed=0)
        settings = json.loads((folder / "settings.json").read_text())
        for key, value in (
            ("networks", {**settings["networks"], "identity": "0"}),
            ("expression_backend", "someone/else"),
        ):
            (tmp_path / "copy" / "settings.json").write_text(json.dumps({**settings, key: value}))
            refused(key)
        (tmp_path / "copy" / "settings.json").unlink()
        with pytest.raises(DataError, match="results.jsonl but no settings.json"):
            run(data, tmp_path / "copy", suite, editor)
        assert not appended

    def test_a_damaged_line_is_told_and_kept(self, whole, data, suite, editor, tmp_path, appended):
        shutil.copytree(whole[0], tmp_path / "copy")
        path = tmp_path / "copy" / "results.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        lines[4] = lines[4][:50] + b"\n"
        path.write_bytes(b"".join(lines))
        with pytest.raises(DataError, match="line 5 is no row of results"):
            run(data, tmp_path / "copy", suite, editor)
        assert path.read_bytes() == b"".join(lines) and not appended

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
    def test_a_run_that_is_killed_goes_on(self, people, tmp_path):
        """Really killed, twice, at moments nobody chose; every cell is there once in the end."""
        (tmp_path / "data").mkdir()
        for n in range(8):
            picture = np.roll(list(people.values())[n % 3], n % 4, 0)
            Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / "data" / f"{n}.png")
        tiny_pixels("tiny").save_pretrained(tmp_path / "tiny")
        command = [sys.executable, "-m", "emoedit", "evaluate", "--data", "data", "--editors", "./tiny"]
        command += ["--emotions", "happy,sad", "--strengths", "0.5,1", "--output", "out", "--no-references"]
        command += ["--identity", "embedded", "--perceptual", "embedded", "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        results = tmp_path / "out" / "results.jsonl"

        def lines() -> int:
            return results.read_bytes().count(b"\n") if results.is_file() else 0

        for _ in range(2):
            start = lines()
            child = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
            while lines() < start + 5 and child.poll() is None:
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            _, err = child.communicate()
            assert child.returncode == -signal.SIGKILL, err
            assert start < lines() < 32
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        counts = Counter(key_of(row) for row in rows_in(tmp_path / "out"))
        assert counts == {
            (f"{n}.png", "tiny", emotion, strength): 1
            for n in range(8)
            for emotion in EMOTIONS
            for strength in STRENGTHS
        }
        assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


# --- what fails -----------------------------------------------------------------------------------------------------


@needs_networks
class TestFailures:
    @pytest.fixture
    def mixed(self, people, tmp_path) -> Path:
        """A wall without a face, a text, and a face."""
        (tmp_path / "data").mkdir()
        Image.new("RGB", (120, 120), "grey").save(tmp_path / "data" / "a wall.png")
        (tmp_path / "data" / "b text.png").write_text("no picture")
        Image.fromarray(people["anna"]).save(tmp_path / "data" / "face.png")
        return tmp_path / "data"

    def test_a_photograph_that_cannot_be_used_is_an_error_in_its_rows(
        self, mixed, suite, editor, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        tiny_pixels("one").save_pretrained("one")
        command = ["evaluate", "--data", str(mixed), "--editors", "./one", "--emotions", "happy", "--strengths", "1"]
        command += ["--output", "out", "--identity", "embedded", "--perceptual", "embedded", "--device", "cpu"]
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert out == "" and "Traceback" not in err
        assert err.count("emoedit: error:") == 2
        assert "emoedit: error: a wall.png: no face found" in err and "b text.png: " in err
        assert "wrote out" in err
        rows = rows_in(tmp_path / "out")
        cells = [("one", 1.0), ("mean_warp", 1.0), ("pixel_mean", 1.0), (NOTHING, None)]
        assert [(row["photo"], row["editor"], row["strength"]) for row in rows] == [
            (photo, *cell) for photo in ("a wall.png", "b text.png", "face.png") for cell in cells
        ]
        assert [row["error"] is None for row in rows] == [False] * 8 + [True] * 4
        assert all("no face found" in row["error"] for row in rows[:4])
        page = (tmp_path / "out" / "report.html").read_text("utf-8")
        assert "8 cells failed; the first: a wall.png: no face found" in page
        assert all(line["pictures"] == line["people"] == "1" for line in read_summary(tmp_path / "out"))

        before = (tmp_path / "out" / "results.jsonl").read_bytes()
        assert main(command) == 1  # what failed stays failed, and is not tried again
        assert (tmp_path / "out" / "results.jsonl").read_bytes() == before

    def test_nothing_but_failures(self, mixed, suite, editor, tmp_path):
        found = evaluate(read_cases(mixed)[:2], ["happy"], editors=[editor], output=tmp_path / "out", suite=suite)
        assert len(found.errors) == len(found.rows) and not found.summary() and not found.control()
        assert (tmp_path / "out" / "summary.csv").read_text() == "editor\n"
        assert not (tmp_path / "out" / "pareto.svg").exists() and (tmp_path / "out" / "report.html").is_file()

    def test_an_edit_that_fails_takes_no_other_along(self, people, suite, editor, tmp_path):
        Image.fromarray(people["anna"]).save(tmp_path / "a.png")
        emotions = ["happy", "1e39 sad", "sad"]
        options = {"editors": [editor], "suite": suite, "references": False, "strengths": [1]}
        found = evaluate([Case(tmp_path / "a.png", "a", "anna")], emotions, output=tmp_path / "out", **options)
        assert [(row["emotion"], row["error"] is None) for row in found.rows] == [
            ("happy", True),
            ("1e39 sad", False),
            ("sad", True),
        ]
        assert "too large" in found.errors[0]["error"] and found.errors[0]["person"] == "anna"

    def test_a_truth_without_a_face_is_told(self, people, suite, editor, tmp_path):
        Image.fromarray(people["anna"]).save(tmp_path / "a.png")
        Image.new("RGB", (120, 120), "grey").save(tmp_path / "wall.png")
        case = Case(tmp_path / "a.png", "a.png", "anna", {"happy": tmp_path / "wall.png"})
        options = {"editors": [editor], "suite": suite, "strengths": [1], "output": tmp_path / "out"}
        found = evaluate([case], ["happy"], **options)
        assert {(row["editor"], row["emotion"]) for row in found.errors} == {
            (name, "happy") for name in ("one", "mean_warp", "pixel_mean", NOTHING, PHOTOGRAPH)
        }
        assert all("no face found" in row["error"] for row in found.errors)

    def test_what_cannot_be_run_leaves_nothing_behind(self, mixed, suite, editor, tmp_path, monkeypatch):
        options = {"editors": [editor], "suite": suite, "output": tmp_path / "out"}
        case = Case(mixed / "face.png", "face.png", "anna")
        for given, emotions, error, match in (
            (tmp_path / "gone", ["happy"], DataError, "no such folder"),
            (mixed, ["hapy"], UnknownNameError, "did you mean 'happy'"),
            ([], ["happy"], DataError, "no photograph"),
            ([case, case], ["happy"], DataError, "both called 'face.png'"),
        ):
            with pytest.raises(error, match=match):
                evaluate(given, emotions, **options)
        with pytest.raises(DataError, match="no csv that says"):
            evaluate(read_cases(mixed, split="test"), ["happy"], **options)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtraError, match=r"\[metrics\]"):
            evaluate(mixed, ["happy"], **options)
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_cannot_be_written(self, mixed, suite, editor, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError):
            evaluate(mixed, ["happy"], editors=[editor], suite=suite, output=tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"


def read_summary(folder: Path) -> list[dict]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- numbers of rows that nobody measured ---------------------------------------------------------------------------

NAMES = ("neutral", "happy", "sad", "angry", "surprised", "fearful", "disgusted")


def made_up(seed: int = 0, others: bool = False) -> list[dict]:
    """Rows of two editors, six emotions, three strengths and twelve pictures of four people, drawn at random."""
    draw = np.random.default_rng(seed)
    classes = [*NAMES, "other:contemplative"] if others else NAMES
    rows = []
    for photo in range(12):
        for editor, reference in (("good", False), ("wild", False), (NOTHING, True)):
            for emotion in NAMES[1:]:
                for strength in (None,) if editor == NOTHING else (0.5, 0.9, 1.5):
                    score = {"good": (strength or 0) / 2, "wild": 0.3, NOTHING: 0.1}[editor] + 0.1 * draw.random()
                    top = emotion if draw.random() < score else str(draw.choice(classes))
                    identity = 1 - 0.3 * draw.random() * (strength or 0)
                    rows.append(
                        dict.fromkeys(mean_columns())
                        | {
                            "photo": f"{photo}.png",
                            "person": f"person {photo % 4}",
                            "editor": editor,
                            "reference": reference,
                            "emotion": emotion,
                            "strength": strength,
                            "error": None,
                            "target_score": score,
                            "identity": identity,
                            "hes": 2 * score * identity / (score + identity),
                            "top1": top,
                            "hit": int(top == emotion),
                        }
                    )
    return rows


@pytest.mark.parametrize("others", [False, True])
def test_control_agrees_with_a_direct_computation(others):
    """Also where the recogniser reads classes that are no emotion of the vocabulary."""
    rows = made_up(others=others)
    broken = {**rows[0], "photo": "broken.png", "error": "cannot", "top1": None, "hit": None, "target_score": None}
    algebra = {**rows[0], "emotion": "happy - 0.4*surprised", "strength": 0.9, "hit": None}
    found = Evaluation([broken, *rows, algebra], NAMES[1:]).control()
    assert [line["editor"] for line in found] == ["good", "wild", NOTHING]
    assert [line["reference"] for line in found] == [False, False, True]
    assert not others or any(row["top1"].startswith("other:") for row in rows)
    for line in found:
        own = [row for row in rows if row["editor"] == line["editor"]]
        at = [row for row in own if row["strength"] in (0.9, None)]
        assert (line["strength"], line["emotions"]) == (None if line["editor"] == NOTHING else 0.9, 6)
        assert line["acc"] == pytest.approx(np.mean([row["top1"] == row["emotion"] for row in at]))
        for key in ("target_score", "hes", "identity"):
            assert line[key] == pytest.approx(np.mean([row[key] for row in at]))

        def share(meant: str, read: str, at=at) -> float:
            return np.mean([row["top1"] == read for row in at if row["emotion"] == meant])

        confused = np.mean([(share(a, b) + share(b, a)) / 2 for a, b in CONFUSABLE])
        assert line["mscr"] == pytest.approx(confused)
        sweeps: dict = {}
        for row in own:
            if row["strength"] is not None:
                sweeps.setdefault((row["photo"], row["emotion"]), []).append((row["strength"], row["target_score"]))
        if sweeps:
            linear = [pearsonr(*zip(*sweep, strict=True)).statistic for sweep in sweeps.values()]
            assert line["cls"] == pytest.approx(np.mean(linear), abs=1e-6)
            assert line["cls_undefined"] == (line["editor"] == "good")  # the algebra, at one strength
        else:
            assert np.isnan(line["cls"])


def test_sweeps_that_never_move_are_counted_and_left_out():
    rows = made_up()
    for row in rows:
        if row["editor"] == "wild" and row["photo"] == "3.png":
            row["target_score"] = 0.25
    line = Evaluation(rows, NAMES[1:]).control()[1]
    assert line["editor"] == "wild" and line["cls_undefined"] == 6 and -1 <= line["cls"] <= 1


def test_intervals_are_over_people():
    rows = made_up()
    found = Evaluation(rows, NAMES[1:])
    for line in found.summary():
        own = found.groups()[line["editor"], line["emotion"], line["strength"]]
        assert (line["pictures"], line["people"]) == (12, 4)
        expected = bootstrap([row["identity"] for row in own], [row["person"] for row in own])
        assert (line["identity"], line["identity_low"], line["identity_high"]) == (
            expected.value,
            expected.low,
            expected.high,
        )
        if line["strength"] is not None:
            assert line["identity_low"] < line["identity"] < line["identity_high"]
        assert np.isnan(line["seconds"]) and np.isnan(line["seconds_low"])
    alone = Evaluation([row for row in rows if row["person"] == "person 1"], NAMES[1:]).summary()
    assert all(line["people"] == 1 and line["pictures"] == 3 and np.isnan(line["identity_low"]) for line in alone)
    assert people_interval(rows, "no such column").people == 0


def test_curves_go_through_the_strengths_of_each_editor():
    rows = made_up()
    found = Evaluation(rows[::-1], ("sad", "happy", "shame"))
    curves = found.curves()
    assert list(curves) == ["sad", "happy"]  # in the order that was asked for, where there is anything to draw
    summary = {(line["editor"], line["emotion"], line["strength"]): line for line in found.summary()}
    for emotion, panel in curves.items():
        assert {curve.name: curve.strengths for curve in panel} == {
            "good": [0.5, 0.9, 1.5],
            "wild": [0.5, 0.9, 1.5],
            NOTHING: [None],
        }
        for curve in panel:
            lines = [summary[curve.name, emotion, strength] for strength in curve.strengths]
            assert curve.reference == (curve.name == NOTHING)
            assert curve.x == [line["identity"] for line in lines]
            assert curve.y_high == [line["target_score_high"] for line in lines]


def test_numbers_in_words():
    assert format_interval(0.7249, 0.65, 0.794) == "0.72 [0.65, 0.79]"
    assert format_interval(0.5, float("nan"), float("nan")) == "0.50"
    assert format_interval(float("nan"), float("nan"), float("nan")) == "–"


@needs_networks
def test_results_of_another_picture_of_the_same_name_are_refused(tmp_path, data, suite, editor):
    photos = tmp_path / "photos"
    photos.mkdir()
    first, second = sorted((data / "neutral").iterdir())[:2]
    shutil.copy(first, photos / "me.png")
    how = {"editors": [editor], "strengths": [1.0], "references": False, "suite": suite}
    evaluate(photos, ["happy"], output=tmp_path / "results", **how)
    shutil.copy(second, photos / "me.png")
    with pytest.raises(DataError, match="another picture"):
        evaluate(photos, ["happy"], output=tmp_path / "results", **how)

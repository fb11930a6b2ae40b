"""The command line for people: what faces show, what was meant, where results go and in which format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from emoedit.cli import main
from emoedit.emotions import BASIC
from emoedit.steering.unit_names import is_unit
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
    assert all(lines[name].strip() == "learned" for name in BASIC)
    assert main(["emotions", "--editor", "mean_warp"]) == 0
    assert "fearful" not in capsys.readouterr().out  # it has not learned fear, and cannot mix it
    assert main(["emotions", "--editor", "nosuch"]) == 2


def test_action_units_are_told_from_emotions(capsys) -> None:
    assert main(["emotions", "--editor", "facs"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["AU12L"].strip() == "action unit: lip corner puller, left" and lines["happy"].strip() == "learned"
    assert is_unit("AU43") and not is_unit("AU3") and not is_unit("12") and not is_unit("happy")


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


# --- where results go, and in which format --------------------------------------------------------------------------


@pytest.fixture
def edit(photo, tmp_path, monkeypatch):
    """``emoedit edit ARGUMENTS`` at strength 0, which changes no pixel; the names of the new files."""

    def call(*arguments: str) -> set[str]:
        before = set(tmp_path.rglob("*"))
        assert main(["edit", *arguments, "--strength", "0", "--emotion", "happy"]) == 0
        return {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before if path.is_file()}

    return call


def test_results_have_the_format_of_the_photo_unless_one_is_asked_for(edit, photo, astronaut) -> None:
    Image.fromarray(astronaut).save("b.bmp")
    assert edit(photo) == {"me_happy_0.jpg"}
    assert edit("b.bmp") == {"b_happy_0.jpg"}
    assert edit(photo, "--format", "webp") == {"me_happy_0.webp"}
    assert edit(photo, "--output", "new/x.tif") == {"new/x.tif"}


def test_quality_says_how_large_a_jpeg_is(edit, photo, tmp_path) -> None:
    assert edit(photo, "--output", "low.jpg", "--quality", "30") and edit(photo, "--output", "high.jpg")
    assert (tmp_path / "low.jpg").stat().st_size < 0.4 * (tmp_path / "high.jpg").stat().st_size


def test_the_tree_of_a_folder_is_kept(edit, photo, tmp_path, astronaut) -> None:
    for name in ("photos/a/1.jpg", "photos/b/1.jpg", "photos/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(astronaut).save(tmp_path / name)
    expected = {"out/a/1_happy_0.jpg", "out/b/1_happy_0.jpg", "out/2_happy_0.png"}
    assert edit("photos", "--output", "out/") == expected
    assert edit("photos/a", "photos/b", "--output", "two/") == {"two/a/1_happy_0.jpg", "two/b/1_happy_0.jpg"}
    assert edit("photos/a", "--output", "one") == {"one/1_happy_0.jpg"}


@pytest.mark.parametrize(
    "arguments", [("--format", "bmp"), ("--quality", "0"), ("--quality", "x"), ("--format", "png", "--output", "x.jpg")]
)
def test_what_is_no_format_or_quality_is_refused(photo, arguments, capsys) -> None:
    try:
        status = main(["edit", photo, *arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and "Traceback" not in capsys.readouterr().err


def test_an_error_names_the_editor(photo, capsys) -> None:
    assert main(["edit", photo, "--editor", "mean_warp", "--emotion", "fearful"]) == 2
    assert "editor mean_warp: this editor cannot do 'fearful'" in capsys.readouterr().err


# --- experiments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "script", "rest"),
    [
        (["sweep", "-m", "editor=a,b", "--help"], "sweep.py", ["-m", "editor=a,b", "--help"]),
        (["report", "out", "--output", "x"], "report.py", ["out", "--output", "x"]),
        (["reproduce", "ffe-bench", "-c", "job"], "reproduce_ffe_bench.py", ["-c", "job"]),
        (["train", "ti_asyrp", "--config-dir", "mine"], "train_ti_asyrp.py", ["--config-dir", "mine"]),
    ],
)
def test_experiments_are_handed_all_arguments(words, script, rest, monkeypatch) -> None:
    called = []
    monkeypatch.setattr("emoedit.cli.experiments.start", lambda command, env: called.append((command, env)) or 7)
    assert main(words) == 7
    ((command, env),) = called
    assert command[0] == sys.executable and command[1].endswith(script) and command[2:] == rest
    assert (Path(env["PYTHONPATH"].split(os.pathsep)[0]) / "emoedit").is_dir() and Path(command[1]).is_file()


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["reproduce"], ("asyrp", "benchmark", "stylegan_study")),
        (["train", "nosuch"], ("asyrp", "tokens", "references")),
        (["train", "--help"], ("embedded",)),
    ],
)
def test_experiments_that_there_are_not_are_listed(words, known, capsys) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    listed = said.partition("takes one of ")[2].replace(",", " ").split()
    assert set(known) <= set(listed) and not {"sweep", "report", "example", "train_asyrp"} & set(listed)


def test_a_report_of_no_folder_says_so_at_once(tmp_path) -> None:
    code = "import sys; from emoedit.cli import main; sys.exit(main(['report', 'nosuch']))"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "there is no such folder" in done.stderr


@pytest.mark.parametrize("experiment", ["steps", "strengths", "editors"])
def test_every_experiment_takes_a_folder_in_place_of_its_data(experiment) -> None:
    hydra = pytest.importorskip("hydra", reason="hydra is not installed")
    root = Path(__file__).resolve().parents[2]
    with hydra.initialize_config_dir(str(root / "configs"), version_base="1.3"):
        how = [f"experiment={experiment}", "hydra/sweeper=basic", "hydra/job_logging=default"]
        own = hydra.compose("sweep", [*how, "data=folder", "data.path=photos"])
        assert own.data.split is None and own.data.path == "photos"
        if experiment != "editors":
            assert hydra.compose("sweep", how).data.split == "test"

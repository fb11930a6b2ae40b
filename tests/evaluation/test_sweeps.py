"""Sweeps: what a job is, what a config may not say, and runs that are killed, run side by side, and put together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from emoedit.evaluation.cases import Case
from emoedit.evaluation.compare import NOTHING, PHOTOGRAPH, Entry
from emoedit.evaluation.evaluate import _skip, complete_results
from emoedit.evaluation.merging import find_parts, merge
from emoedit.evaluation.plan import Plan
from emoedit.evaluation.sweeps import Job
from emoedit.faces.detect import FaceDetector
from emoedit.io.progress import Lines
from emoedit.io.results import key_of, last_rows, read_rows
from emoedit.metrics.null_suite import NullSuite
from emoedit.photo import PhotoEditor
from emoedit.types import CheckpointError, DataError, Edit, EditError, NoFaceError, OutputError, UnknownNameError
from tests.fixtures.editors import tiny_asyrp, tiny_pixels
from tests.fixtures.sweeps import described, needs_networks, portraits, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def photos(_astronaut, tmp_path_factory) -> Path:
    return portraits(tmp_path_factory.mktemp("sweeps") / "photos", _astronaut)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_pixels("tiny").save_pretrained(tmp_path_factory.mktemp("editors") / "tiny")


@pytest.fixture
def config(photos, tiny, tmp_path) -> dict:
    return described(photos, tiny, tmp_path / "out")


def rows_of(config: dict, **changes) -> list[dict]:
    return list(last_rows(Job.from_config({**config, **changes}).folder / "results.jsonl"))


# --- what a job is --------------------------------------------------------------------------------------------------


def test_a_job_keeps_its_folder_when_more_is_asked_of_it(config):
    def key(**changes) -> str:
        return Job.from_config({**config, **changes}).key

    same = key()
    assert same.startswith("tiny-") and same.endswith("-faces")
    assert same == key(emotion="angry") == key(strength=2) == key(data={**config["data"], "limit": 1})
    assert same == key(retry=True) == key(device="auto") == key(pictures="jpg")
    others = {
        key(editor="vae"),
        key(editor="references"),
        key(editor={"editor": "asyrp", "name": "other", "steps": 3}),
        key(editor={"editor": "asyrp", "name": "other", "steps": 4}),
        key(seed=1),
        key(shard="0/2"),
        key(shard="1/2"),
        key(data={**config["data"], "split": "test"}),
        key(data={**config["data"], "name": None}),
        key(data={**config["data"], "name": None, "path": "/elsewhere/photos"}),
    }
    assert len(others) == 10 and same not in others
    assert "vae-faces" in others and "references-faces" in others
    assert "/" not in key(editor="some/one", data={**config["data"], "name": "../../etc"})


def test_one_emotion_and_strength_need_no_list_and_none_is_done_twice(config):
    job = Job.from_config({**config, "emotion": "happiness", "strength": 1})
    assert job.edits == [Edit("happy", 1.0)]
    job = Job.from_config({**config, "emotion": ["sad", "sadness", "sad"], "strength": [1, 1.0, -0.0]})
    assert job.edits == [Edit("sad", 1.0), Edit("sad", 0.0)]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"editor": "asirp"}, UnknownNameError, "did you mean 'asyrp'"),
        ({"editor": "/gone/editor"}, CheckpointError, "no folder"),
        ({"editor": 3}, DataError, "an editor is a name"),
        ({"editor": None}, DataError, "an editor is a name"),
        ({"editor": {"name": "x"}}, DataError, "mapping with editor, name and settings"),
        ({"editor": {"_target_": "os.system", "command": "touch here"}}, DataError, "mapping with editor, name"),
        ({"editor": {"editor": "vea", "name": "x"}}, UnknownNameError, "did you mean 'vae'"),
        ({"data": {"path": "x", "reader": "tea_leaves"}}, UnknownNameError, "unknown data reader"),
        ({"emotion": "hapy"}, UnknownNameError, "did you mean 'happy'"),
        ({"emotion": ["happy", "happy - 0.4*surprized"]}, UnknownNameError, "did you mean 'surprised'"),
        ({"editor": "references", "emotion": "hapy"}, UnknownNameError, "did you mean 'happy'"),
        ({"emotion": []}, DataError, "emotion is a name"),
        ({"emotion": [3]}, DataError, "emotion is a name"),
        ({"strength": "x"}, DataError, "strength is a number"),
        ({"strength": [[1, 2]]}, DataError, "strength is a number"),
        ({"strength": True}, DataError, "strength is a number"),
        ({"strength": float("nan")}, EditError, "strength must be"),
        ({"strength": 1e9}, EditError, "strength must be"),
        ({"data": "london"}, DataError, "data is a mapping"),
        ({"data": {"path": "/gone"}}, DataError, "no such folder"),
        ({"data": {"path": None}}, DataError, "data.path"),
        ({"data": {"name": "x"}}, DataError, "data needs path"),
        ({"data": {"path": ".", "pth": "."}}, DataError, "data has no pth; it has path, name"),
        ({"data": {"path": ".", "limit": 0}}, DataError, "at least 1"),
        ({"data": {"path": ".", "limit": "all"}}, DataError, "whole number"),
        ({"shard": "8/8"}, DataError, "no shard 8/8"),
        ({"shard": "all/8"}, DataError, "INDEX/COUNT"),
        ({"seed": -1}, DataError, "seed"),
        ({"seed": "a"}, DataError, "seed"),
        ({"retry": "yes"}, DataError, "retry"),
        ({"device": "gpu"}, EditError, "device"),
        ({"pictures": "gif"}, DataError, "pictures is one of png"),
        ({"metric_networks": {"identity": "embedded"}}, DataError, "metric_networks needs perceptual, expression"),
        (
            {"metric_networks": {"identity": "x", "perceptual": "auto", "expression": "embedded"}},
            UnknownNameError,
            "vggface2",
        ),
        ({"sed": 1}, DataError, "has no sed"),
    ],
)
def test_what_makes_no_sense_is_told_before_any_model_is_loaded(config, changes, error, match, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("emoedit.editors.load_editor", "emoedit.metrics.suite.Suite.__init__"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("loaded a model"))
    monkeypatch.setattr(FaceDetector, "__init__", lambda *_, **__: pytest.fail("loaded a detector"))
    if isinstance(changes.get("data"), dict) and changes["data"].get("path") == "." and "limit" not in changes["data"]:
        changes = {"data": {**changes["data"], "path": config["data"]["path"]}}
    with pytest.raises(error, match=match):
        run(config, **changes)
    assert not list(tmp_path.iterdir())


@needs_networks
def test_an_emotion_that_the_recogniser_cannot_read_is_told_early(config, monkeypatch):
    monkeypatch.setattr("emoedit.editors.load_editor", lambda *_, **__: pytest.fail("loaded a model"))
    metric_networks = {"identity": "embedded", "perceptual": "embedded", "expression": "embedded"}
    with pytest.raises(UnknownNameError, match="no class that '-happy' aims at"):
        run(config, emotion="-happy", metric_networks=metric_networks)


def test_a_missing_entry_is_named(config):
    for name in config:
        with pytest.raises(DataError, match=f"a sweep needs {name}"):
            Job.from_config({key: value for key, value in config.items() if key != name})


# --- runs -----------------------------------------------------------------------------------------------------------


def test_every_cell_is_done_once_and_a_wall_is_a_row(config, monkeypatch):
    opened = []
    open_ = PhotoEditor.open
    monkeypatch.setattr(PhotoEditor, "open", lambda self, *a, **k: opened.append(1) or open_(self, *a, **k))
    assert run(config) == {"cells": 24, "failed": 4}
    assert len(opened) == 5  # one inversion for all emotions and strengths
    rows = rows_of(config)
    assert Counter(row["error"] is None for row in rows) == {True: 20, False: 4}
    assert all("no face found" in row["error"] for row in rows if row["photo"] == "wall.png")
    assert {key_of(row)[2:] for row in rows} == {(e, s) for e in ("happy", "sad") for s in (0.5, 1.0)}
    assert all(row["seconds"] > 0 for row in rows if row["error"] is None)
    opened.clear()
    assert run(config) == {"cells": 24, "failed": 4} and not opened
    assert run(config, strength=[1.0, 1.5]) == {"cells": 36, "failed": 6} and len(opened) == 5


def test_what_failed_is_tried_again_when_asked(config, tmp_path, photos):
    data = tmp_path / "photos"
    data.mkdir()
    for name in ("0.png", "wall.png"):
        (data / name).write_bytes((photos / name).read_bytes())
    config["data"]["path"] = str(data)
    assert run(config) == {"cells": 8, "failed": 4}
    (data / "wall.png").write_bytes((photos / "1.png").read_bytes())  # somebody steps in front of it
    with pytest.raises(DataError, match="another picture 'wall.png'"):
        run(config)
    path = Job.from_config(config).folder / "results.jsonl"
    before = path.read_bytes()
    assert run(config, retry=True) == {"cells": 8, "failed": 0}
    assert path.read_bytes().startswith(before) and sum(1 for _ in read_rows(path)) == 12
    assert run(config, retry=True) == {"cells": 8, "failed": 0} and sum(1 for _ in read_rows(path)) == 12


def test_pictures_are_kept_beside_their_rows(config, tmp_path):
    run(config, pictures="png")
    job = Job.from_config(config)
    rows = rows_of(config)
    kept = {row["picture"] for row in rows if row["error"] is None}
    assert kept == {f"pictures/{n}.png_{e}{s}.png" for n in range(5) for e in ("happy", "sad") for s in ("_0.5", "")}
    assert {path.relative_to(job.folder).as_posix() for path in job.folder.rglob("*.png")} == kept
    assert not any("picture" in row for row in rows if row["error"] is not None)
    for row in rows[:4]:
        made = np.asarray(Image.open(job.folder / row["picture"]), float)
        source = np.asarray(Image.open(job.cases[0].photo), float)
        assert made.shape == source.shape and 0 < np.abs(made - source).mean() < 60
    with pytest.raises(DataError, match="made with another pictures"):  # rows without pictures would be left
        run(config)
    with pytest.raises(DataError, match="made with another pictures"):
        run(config, pictures="jpg")


def test_names_of_photographs_lead_nowhere_else(config, tmp_path, photos, tiny):
    """A csv may call its pictures what it likes."""
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for name in ("0.png", "data/sub/0.png", "data/0%2F1.png"):
        (tmp_path / name).write_bytes((photos / "0.png").read_bytes())
    names = ["../0.png", "sub/0.png", str(tmp_path / "0.png"), "0%2F1.png"]
    (tmp_path / "data" / "labels.csv").write_text("image,emotion\n" + "".join(f"{name},neutral\n" for name in names))
    before = set(tmp_path.rglob("*"))
    data = {**config["data"], "path": str(tmp_path / "data")}
    assert run(config, data=data, pictures="jpg", strength=1.0, emotion="sad") == {"cells": 4, "failed": 0}
    folder = Job.from_config(config).folder
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(folder in path.parents for path in made) and sum(path.suffix == ".jpg" for path in made) == 4
    assert (folder / "pictures" / "..%2F0.png_sad.jpg").is_file()


def test_a_name_too_long_for_a_picture_is_that_pictures_fault(config, tmp_path, photos):
    (tmp_path / "data").mkdir()
    for name in ("0.png", "x" * 250 + ".png"):
        (tmp_path / "data" / name).write_bytes((photos / "0.png").read_bytes())
    data = {**config["data"], "path": str(tmp_path / "data")}
    assert run(config, data=data, pictures="png", strength=1.0, emotion="sad") == {"cells": 2, "failed": 1}


def test_a_full_disk_ends_the_job(config, monkeypatch):
    def full(*_, **__):
        error = OutputError("cannot be written: No space left on device")
        error.__cause__ = OSError(28, "No space left on device")
        raise error

    monkeypatch.setattr("emoedit.evaluation.evaluate.save_picture", full)
    with pytest.raises(OutputError, match="No space left"):
        run(config, pictures="png")
    monkeypatch.undo()
    assert run(config, pictures="png") == {"cells": 24, "failed": 4}  # and what was not written is not counted as done


def test_shards_share_the_work(config):
    for index in range(4):
        run(config, shard=f"{index}/4")
    parts = [rows_of(config, shard=f"{index}/4") for index in range(4)]
    assert sorted(len(part) for part in parts) == [4, 4, 8, 8]
    assert {key_of(row) for part in parts for row in part} == {
        (f"{name}.png", "tiny", e, s) for name in (0, 1, 2, 3, 4, "wall") for e in ("happy", "sad") for s in (0.5, 1.0)
    }
    assert run(config, shard="6/7") == {"cells": 0, "failed": 0}  # more shards than photographs
    (found,) = merge(find_parts(Path(config["output"]))).values()
    assert len(found.rows) == 24


@needs_networks
def test_the_references_are_a_job_of_their_own(config):
    metric_networks = {"identity": "embedded", "perceptual": "embedded", "expression": "embedded"}
    config |= {"metric_networks": metric_networks, "data": {**config["data"], "limit": 2}, "strength": [1.0]}
    assert run(config) == {"cells": 4, "failed": 0}
    assert run(config, editor="references") == {"cells": 10, "failed": 0}
    rows = rows_of(config, editor="references")
    assert {row["editor"] for row in rows} == {"mean_warp", "pixel_mean", NOTHING} and PHOTOGRAPH not in rows
    assert all(row["reference"] and row["identity_backend"] == "embedded" for row in rows)
    (found,) = merge(find_parts(Path(config["output"]))).values()
    assert {line["editor"] for line in found.control()} == {"tiny", "mean_warp", "pixel_mean", NOTHING}


def test_an_editor_that_no_folder_holds(config, tmp_path):
    tiny_asyrp().save_pretrained(tmp_path / "asyrp")
    few, more = (
        {
            "editor": str(tmp_path / "asyrp"),
            "name": f"in-{n}",
            "steps": n,
        }
        for n in (3, 5)
    )
    config |= {"emotion": "happy", "strength": 1.0, "data": {**config["data"], "limit": 1}, "pictures": "png"}
    for editor in (few, more, str(tmp_path / "asyrp")):
        assert run(config, editor=editor) == {"cells": 1, "failed": 0}
    rows = [rows_of(config, editor=editor)[0]["editor"] for editor in (few, more)]
    assert rows == ["in-3", "in-5"]
    made = [np.asarray(Image.open(path), float) for path in Path(config["output"]).glob("*/pictures/*.png")]
    assert len(made) == 3 and all(np.abs(made[i] - made[i - 1]).max() > 0 for i in range(3))
    with pytest.raises(EditError, match="no settings of sampling"):
        run(config, editor={**few, "editor": config["editor"]})
    with pytest.raises(EditError, match="stepps"):
        run(config, editor={**few, "stepps": 3})


def test_steps_are_part_of_what_made_a_row(config, tmp_path):
    """The same weights in other steps are another editor."""
    tiny_asyrp().save_pretrained(tmp_path / "asyrp")
    config |= {"editor": str(tmp_path / "asyrp"), "data": {**config["data"], "limit": 1}, "strength": 1.0}
    run(config)
    path = tmp_path / "asyrp" / "backbone" / "config.json"
    if not path.is_file():
        (path,) = (p for p in (tmp_path / "asyrp" / "backbone").rglob("*.json") if '"steps"' in p.read_text())
    path.write_text(path.read_text().replace('"steps": 6', '"steps": 5'))
    with pytest.raises(DataError, match="made with another tiny-asyrp"):
        run(config)


def test_another_process_is_locked_out(config):
    from emoedit.io.locks import exclusive

    folder = Job.from_config(config).folder
    with exclusive(folder / "lock"), pytest.raises(OutputError, match="is being written by process"):
        run(config)
    assert not (folder / "results.jsonl").exists() and not (folder / "job.json").exists()


def test_memory_does_not_grow_with_the_number_of_photographs(config, tmp_path, tiny, monkeypatch):
    """Names, rows and lists of what is done included; editing and measuring are tested in test_evaluate.py."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr("emoedit.evaluation.evaluate.BLOCK", 50)

    def nobody(self, *_):
        raise NoFaceError("no face found")

    monkeypatch.setattr(FaceDetector, "choose", nobody)
    picture = tmp_path / "0.png"
    Image.new("RGB", (8, 8)).save(picture)

    class Many:
        """Cases that are made when they are asked for."""

        def __init__(self, where: range) -> None:
            self.where = where

        def __len__(self) -> int:
            return len(self.where)

        def __getitem__(self, index):
            if isinstance(index, slice):
                return [Case(picture, f"photograph {n}.png", "somebody") for n in self.where[index]]
            return Case(picture, f"photograph {self.where[index]}.png", "somebody")

    field = [Entry("tiny", PhotoEditor(str(tiny)))]
    plan = Plan(field, [Edit("sad", s) for s in (0.5, 1.0)], NullSuite(), references=False)

    def peak(count: int) -> int:
        tracemalloc.start()
        complete_results(tmp_path / f"{count}", Many(range(count)), plan, progress=False)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows = (tmp_path / f"{count}" / "results.jsonl").read_bytes().count(b"\n")
        assert rows == 2 * count
        return most

    peak(60)  # what is made once
    few, many = peak(100), peak(1000)
    assert many - few < 50_000
    assert peak(1000) - peak(100) < 50_000  # nor when everything has been done before


# --- the script -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together():
    sys.path.insert(0, str(ROOT / "experiments"))
    try:
        import hydra_plugins.emoedit_together as module
    finally:
        sys.path.remove(str(ROOT / "experiments"))
    return module


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        (["strength=0.5,1.0"], [["strength=[0.5,1.0]"]]),
        (["strength=[0.5,1.0]"], [["strength=[0.5,1.0]"]]),
        (["strength=range(0.5,2,0.5)"], [["strength=[0.5,1.0,1.5]"]]),
        (["strength=1"], [["strength=1"]]),
        (
            ["editor=a,b", "emotion=happy,sad", "strength=0.5,1"],
            [[f"editor={name}", "emotion=[happy,sad]", "strength=[0.5,1]"] for name in "ab"],
        ),
        (["emotion='happy - 0.4*surprised',sad"], [["emotion=['happy - 0.4*surprised',sad]"]]),
        (["editor=a,b", "editor=c"], [["editor=c"]]),  # the command line's, not an experiment's
        (["shard=all/3"], [["shard=0/3"], ["shard=1/3"], ["shard=2/3"]]),
        (["shard=0/3,2/3"], [["shard=0/3"], ["shard=2/3"]]),
        (["shard=all/1"], [["shard=0/1"]]),
        (
            ["seed=1,2", "data=london,folder"],
            [[f"seed={s}", f"data={d}"] for s in (1, 2) for d in ("london", "folder")],
        ),
    ],
)
def test_what_shares_an_inversion_stays_together(together, arguments, jobs):
    overrides = OverridesParser.create().parse_overrides(arguments)
    assert together.Together.split_arguments(overrides, None) == [jobs]


def command(photos, tiny, *arguments: str, multirun: bool = True) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "experiments" / "sweep.py"),
        *(["-m"] if multirun else []),
        f"editor={tiny}",
        "emotion=happy,sad" if multirun else "emotion=[happy,sad]",
        "strength=0.5,1.0" if multirun else "strength=[0.5,1.0]",
        "data=folder",
        "data.name=faces",
        f"data.path={photos}",
        "metric_networks=null",
        "device=cpu",
        "output=out",
        *arguments,
    ]


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def cells(folder: Path) -> Counter:
    """How many rows each cell has, over all jobs."""
    return Counter(key_of(row) for path in folder.glob("*/results.jsonl") for row in read_rows(path))


EVERY = {(f"{n}.png", "tiny", e, s): 1 for n in (0, 1, 2, 3, 4, "wall") for e in ("happy", "sad") for s in (0.5, 1.0)}


SLURM = {  # a cluster of one machine: every task of an array is started here, from a copy, as the script is moved then
    "sbatch": """
script=$(mktemp "$(dirname "$0")/script.XXXXXX") && cp "$1" "$script"
count=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
for task in $(seq 0 "${count:-0}"); do
  SLURM_JOB_ID=77 SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$task SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 \\
    SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here sh "$script" >/dev/null 2>&1 &
done
echo "Submitted batch job 77"
""",
    "srun": """
while [ "${1#-}" != "$1" ]; do
  case "$1" in --output|--error) shift 2 ;; *) shift ;; esac
done
exec "$@"
""",
    "sacct": "printf 'JobID|State|NodeList\\n77_0|RUNNING|here\\n77_1|RUNNING|here\\n'\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "submitit_slurm"])
def test_launchers_run_the_same_sweep(launcher, photos, tiny, tmp_path, environment, monkeypatch, capsys):
    if launcher != "basic":
        pytest.importorskip(launcher.partition("_")[0])
    asked = command(photos, tiny, "shard=all/2", f"launcher={launcher}")
    if launcher == "submitit_slurm":
        if os.name == "nt":
            pytest.skip("needs a POSIX shell")
        (tmp_path / "bin").mkdir()
        for name, script in SLURM.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}")
            (tmp_path / "bin" / name).chmod(0o755)
        environment["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{environment['PATH']}"
        asked.append("hydra.launcher.partition=main")
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert cells(tmp_path / "out") == EVERY
    assert {path.parent.name[-4:] for path in (tmp_path / "out").glob("*/results.jsonl")} == {"0of2", "1of2"}
    if launcher == "basic":
        report = [sys.executable, str(ROOT / "experiments" / "report.py"), "out"]
        done = subprocess.run(report, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = done.stdout
    else:  # the same script in this process: most of another one is its start
        import report

        monkeypatch.chdir(tmp_path)
        assert report.main(["out"]) == 0
        said = capsys.readouterr().out
    if launcher == "submitit_slurm":
        (script,) = (tmp_path / "out" / ".submitit").glob("*/*.sh")
        wanted = {"--array=0-1%2", "--partition=main", "--time=240", "--mem=8GB", "--cpus-per-task=4"}
        assert wanted <= {line.removeprefix("#SBATCH ") for line in script.read_text().splitlines()}
    assert "0of2: 12 of 12 cells" in said and "wrote out/report/faces/report.html" in said


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_sweep_that_is_killed_goes_on(photos, tiny, tmp_path, environment):
    """Really killed, at moments nobody chose: nothing is lost, nothing done twice."""
    asked = command(photos, tiny, "shard=all/2", "pictures=jpg")
    results = tmp_path / "out"

    def lines() -> int:
        return sum(path.read_bytes().count(b"\n") for path in results.glob("*/results.jsonl"))

    for stop in (2, 9):
        child = subprocess.Popen(asked, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        while lines() < stop and child.poll() is None:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        _, err = child.communicate()
        assert child.returncode == -signal.SIGKILL, err
        assert stop <= lines() < 24
    before = {path: path.read_bytes() for path in results.glob("*/results.jsonl")}
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert cells(results) == EVERY
    for path, data in before.items():
        assert path.read_bytes().startswith(data[: data.rfind(b"\n") + 1])
    assert sum(1 for _ in results.glob("*/pictures/*.jpg")) == 20


@pytest.mark.slow
def test_mistakes_end_a_sweep_before_its_first_job(photos, tiny, tmp_path, environment):
    def refused(status: int, said: str, told: str) -> None:
        assert status == 1 and told in said and "Traceback" not in said, said
        assert not list(tmp_path.glob("out/*/*")) and not (tmp_path / "here").exists()

    asked = command(photos, tiny, "editor=vae,vea")
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True)
    refused(done.returncode, done.stderr, "did you mean 'vae'")
    mistakes = (
        ("emotion=happy,hapy", "unknown emotion 'hapy'; did you mean 'happy'"),
        ("data.path=/gone", "/gone: no such folder"),
        ("editor=vae,{_target_:os.system,command:'touch here'}", "mapping with editor, name and settings"),
        ("editor={editor:asyrp,name:a,steps:3},{editor:asyrp,name:a,steps:5}", "both called 'a'"),
        ("shard=all/0", "INDEX/COUNT"),
        ("launchr=joblib", "launchr"),
        ("data=lodon", "london"),
    )
    # The others in one process: most of each is its start.
    jobs = [{"folder": str(tmp_path), "words": ["sweep", *command(photos, tiny, wrong)[2:]]} for wrong, _ in mistakes]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    script = [sys.executable, "-P", str(ROOT / "tests" / "fixtures" / "run_commands.py"), "jobs.json", "results.json"]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["results"]
    for (_, told), result in zip(mistakes, found, strict=True):
        refused(result["status"], result["said"], told)
    alone = command(photos, tiny, "data.limit=1", multirun=False)
    done = subprocess.run(alone, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(cells(tmp_path / "out")) == 4 and "4 cells" in done.stderr and "4/4" in done.stderr


# --- how far it is --------------------------------------------------------------------------------------------------


def test_a_log_gets_lines_and_no_carriage_returns_between(tmp_path):
    with (tmp_path / "log").open("w", newline="") as file:
        with Lines(total=30, unit="edit", desc="job", file=file, mininterval=0, miniters=10) as bar:
            for _ in range(30):
                bar.update()
    lines = (tmp_path / "log").read_text().strip("\r\n").splitlines()
    assert len(lines) == 4 and "0/30" in lines[0] and "30/30" in lines[-1] and "job" in lines[0]
    assert not any("\r" in line for line in lines)


def test_what_was_done_before_is_not_taken_for_speed():
    with Lines(total=100, file=open(os.devnull, "w")) as bar:
        _skip(bar, 90)
        assert bar.n == 90 and bar.format_dict["initial"] == 90
        bar.update(5)
        assert bar.n == 95

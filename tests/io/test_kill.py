"""Runs that are killed at any moment: what is there is whole, nothing is lost, nothing is done twice."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from emoedit.io.images import load_picture
from emoedit.io.output import write_atomic
from emoedit.io.results import Results
from tests.fixtures import kills

CELLS = 120
RUN = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from emoedit.io.images import save_picture, write_json
from emoedit.io.locks import exclusive
from emoedit.io.results import Results

folder = Path(sys.argv[1])
with exclusive(folder / ".lock"), Results(folder / "results.jsonl") as results:
    done = results.found()
    print("ready", flush=True)
    for number in range(int(sys.argv[2])):
        cell = (f"{number}.jpg", "vae", "happy", 1.0)
        if cell in done:
            continue
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        save_picture(Image.fromarray(pixels), folder / f"{number}.png", overwrite=True)
        write_json(folder / "summary.json", {"last": number, "pad": "x" * 20_000}, overwrite=True)
        results.append([dict(zip(("photo", "editor", "emotion", "strength"), cell)) | {"content": "c", "error": None}])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    rng = random.Random(5)
    command = [sys.executable, "-c", RUN, str(tmp_path), str(CELLS)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = 0
    for _ in range(60):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout.readline() == "ready\n"  # its lock was free: the one before is gone with its process
            time.sleep(rng.uniform(0, 0.03))  # far less than all cells take on any machine
            run.kill()
        killed += run.returncode == -9
        if (tmp_path / "summary.json").exists():
            assert len(json.loads((tmp_path / "summary.json").read_text("utf-8"))["pad"]) == 20_000
        for path in tmp_path.glob("*.png"):
            if path.stat().st_mtime > time.time() - 5:
                assert load_picture(path).rgb.shape == (64, 64, 3)  # whole, whenever it appeared
        if run.returncode == 0 or killed >= 8:
            break
    assert killed >= 3
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=120).returncode == 0
    lines = Path(tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert sorted(int(row["photo"][:-4]) for row in rows) == list(range(CELLS))  # each once
    assert all((tmp_path / f"{number}.png").is_file() for number in range(CELLS))
    with Results(tmp_path / "results.jsonl") as results:
        assert results.rows == CELLS


@pytest.fixture(scope="module")
def forks():
    if not hasattr(os, "fork"):
        pytest.skip("needs POSIX processes")
    with kills.Forks() as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "how", "times"),
    [("edit", signal.SIGKILL, 2), ("edit", signal.SIGTERM, 2), ("train", signal.SIGKILL, 3)],
)
def test_commands_that_are_ended_go_on(forks, tmp_path, command, how, times):
    """Those that evaluate and sweep are in their own tests; the long run ends all of them many times."""
    photos = kills.photographs(tmp_path, 1, (200, 280))
    case = kills.edit(tmp_path, photos) if command == "edit" else kills.training(tmp_path, steps=30)
    outcome = kills.interrupt(case, times, how, forks=forks)
    assert outcome.broken == [] and outcome.lost == [] and outcome.ended + outcome.finished == times
    assert outcome.seen > 0
    if how == signal.SIGTERM and command == "edit":
        assert outcome.litter == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["edit", "evaluate", "sweep"])
def test_a_full_disk_ends_a_command_in_order(forks, tmp_path, command):
    """Said in a line; nothing half-written is left, and the command goes on when there is room."""
    photos = kills.photographs(tmp_path, 1, (200, 280))
    case = getattr(kills, command)(tmp_path, photos)
    status, told = forks.run(case, largest=10_000)
    assert status == 1 and "cannot be written: File too large" in told and "Traceback" not in told, told
    outcome = kills.Outcome()
    kills.look(case.output, outcome)
    assert outcome.broken == [] and not [path for path in case.output.rglob("*") if kills.is_litter(path)]
    assert forks.run(case)[0] == 0 and case.whole(case.output)
    kills.look(case.output, outcome)
    assert outcome.broken == []


@pytest.mark.slow
def test_a_full_disk_ends_a_training_in_order(forks, tmp_path):
    """The last state that had room stays, and the training goes on from it when there is room."""
    case = kills.training(tmp_path, steps=4)
    assert forks.run(case)[0] == 0
    states = case.output / "state.pt", case.output / "learned_embeds.safetensors"
    wanted, before = case.whole(case.output), states[0].read_bytes()
    states[1].unlink()
    longer = kills.training(tmp_path, steps=8)
    status, told = forks.run(kills.training(tmp_path, steps=8, largest=2500))
    assert status == 1 and "state.pt cannot be written: File too large" in told, told
    assert states[0].read_bytes() == before and not [p for p in case.output.rglob("*") if kills.is_litter(p)]
    assert forks.run(longer)[0] == 0 and longer.whole(case.output) != wanted


@pytest.mark.slow
@pytest.mark.skipif(not Path("/sys/fs").is_dir(), reason="no folder that nobody can write")
@pytest.mark.parametrize("command", ["edit", "evaluate", "sweep"])
def test_a_folder_that_cannot_be_written(forks, tmp_path, command):
    case = getattr(kills, command)(tmp_path, kills.photographs(tmp_path, 1, (200, 280)))
    there = tuple(part.replace(str(case.output), "/sys/fs/emoedit") for part in case.command)
    status, told = forks.run(replace(case, command=there))
    assert status in (1, 2) and "/sys/fs/emoedit" in told and "Traceback" not in told, told


def test_sigterm_ends_a_command_as_an_exception_does(tmp_path, monkeypatch, capsys):
    """What was being written goes, and the status is that of a program that the signal ended."""
    from emoedit import cli

    before = signal.getsignal(signal.SIGTERM)

    def run(_: object) -> int:
        def write(file) -> None:
            file.write(b"half")
            signal.raise_signal(signal.SIGTERM)

        write_atomic(tmp_path / "x.png", write)
        return 0

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    monkeypatch.setattr(cli, "make_parser", lambda: parser)
    assert cli.main([]) == 143
    assert capsys.readouterr().err == "emoedit: terminated\n" and not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path, monkeypatch):
    from emoedit.io import output
    from emoedit.types import OutputError

    path = tmp_path / "x.json"
    output.write_json(path, 1)
    real = open

    def full(name, *arguments, **options):
        if str(name).endswith(".tmp"):
            Path(name).touch()
            return real("/dev/full", "wb", *arguments[1:], **options)
        return real(name, *arguments, **options)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OutputError, match="No space left"):
        output.write_json(path, 2, overwrite=True)
    monkeypatch.undo()
    assert path.read_text("utf-8") == "1\n" and [p.name for p in tmp_path.iterdir()] == ["x.json"]

"""Training under ``accelerate launch``: as many processes as there are, one result.

What "the same result" means: a loss is a mean over pictures, and processes average their gradients, so a batch that is
dealt out evenly gives the step of the whole batch, but for rounding. Noise that a task draws itself differs, because
processes draw from seeds of their own; it has to come with the batch where results are to be the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.fixtures.two_processes import main

pytest.importorskip("accelerate")
ROOT = Path(__file__).resolve().parents[2]
TIGHT = {"atol": 2e-6, "rtol": 1e-5}


def weights(folder: Path, rank: int = 0, processes: int = 1) -> dict[str, torch.Tensor]:
    found = torch.load(folder / f"{rank}.pt", weights_only=True)
    assert found["processes"] == processes
    return found["weights"]


def launch(folder: Path, steps: int) -> None:
    """On two processes without a GPU. (``--multi_gpu`` is what accelerate calls its launcher of several processes;
    with ``--cpu`` it would want MPI.)"""
    how = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    how += ["--main_process_port=0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *how, str(ROOT / "tests/fixtures/two_processes.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder), str(steps), "1"], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    main(str(folder), "6", "1")
    return folder


def test_a_batch_in_parts_is_the_whole_batch(alone, tmp_path):
    main(str(tmp_path), "6", "2")
    torch.testing.assert_close(weights(tmp_path), weights(alone), **TIGHT)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_give_what_one_gives(alone, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    launch(whole, 6)
    torch.testing.assert_close(weights(whole, 0, 2), weights(alone), **TIGHT)
    torch.testing.assert_close(weights(whole, 1, 2), weights(whole, 0, 2), atol=0, rtol=0)  # each is given the same
    # Stopped, and gone on with on another number of processes.
    shutil.copytree(whole, parts)
    state = torch.load(parts / "work" / "state.pt", weights_only=True)
    assert state["step"] == 6
    main(str(parts), "9", "1")
    main(str(alone), "9", "1")
    torch.testing.assert_close(weights(parts), weights(alone), **TIGHT)


def test_the_comparison_can_fail(alone, tmp_path):
    """Other batches, or half of each, are no rounding."""
    main(str(tmp_path), "5", "1")
    with pytest.raises(AssertionError):
        torch.testing.assert_close(weights(tmp_path), weights(alone), **TIGHT)

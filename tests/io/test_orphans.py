"""Workers of a sweep whose parent is killed end with it, and their locks are free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from emoedit.io.locks import exclusive
from emoedit.types import OutputError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

# A worker that would hold its lock for ever: its job is to wait for what never comes.
WORK = """
import threading
from pathlib import Path

from emoedit.io.locks import end_with_parent, exclusive


def work(folder):
    assert end_with_parent()
    with exclusive(Path(folder) / "lock"):
        print("locked", flush=True)
        threading.Event().wait()
"""
SPAWN = """
import multiprocessing
import sys

from work import work

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1],))
    child.start()
    child.join()
"""
JOBLIB = """
import sys

from joblib import Parallel, delayed

from work import work

if __name__ == "__main__":
    Parallel(n_jobs=2, backend="loky")(delayed(work)(folder) for folder in sys.argv[1:])
"""


@pytest.mark.parametrize("script", [SPAWN, JOBLIB], ids=["spawn", "joblib"])
def test_a_killed_parent_leaves_no_worker_with_a_lock(script, tmp_path):
    if "joblib" in script:
        pytest.importorskip("joblib")
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "parent.py").write_text(script)
    folders = [tmp_path / name for name in (["a"] if script is SPAWN else ["a", "b"])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", *folders], env=environment, stdout=subprocess.PIPE, text=True
    )
    for _ in folders:
        assert parent.stdout.readline() == "locked\n"
    for folder in folders:
        with pytest.raises(OutputError, match="is being written by process"), exclusive(folder / "lock"):
            pass
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for folder in folders:
        with FileLock(folder / "lock", timeout=120):  # waits until the worker is gone; a limit for one that stays
            pass
    assert parent.stdout.read() == ""  # every process that held its other end is gone


def test_a_process_that_is_no_worker_is_left_alone():
    code = "from emoedit.io.locks import end_with_parent; print(end_with_parent())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

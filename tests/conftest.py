"""What several test files use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.wheel import built, installed, tree, wheel  # noqa: F401

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker, and what it starts, has one thread: two programs of two threads on two cores wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_finish(session):
    """The embedded models are small: more than a few threads only wait for each other."""
    torch = sys.modules.get("torch")  # not imported here, so that tests without it start at once
    if torch is not None:
        torch.set_num_threads(min(4, torch.get_num_threads()))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the data sets; the test is skipped where there is none."""
    root = os.environ.get("EMOEDIT_DATA")
    if not root:
        pytest.skip("EMOEDIT_DATA is not set")
    if not Path(root).is_dir():
        pytest.fail(f"EMOEDIT_DATA is {root!r}, which is no folder")
    return Path(root)


@pytest.fixture(scope="session")
def _astronaut() -> np.ndarray:
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture
def astronaut(_astronaut) -> np.ndarray:
    """A portrait: uint8 ``[512, 512, 3]``, RGB."""
    return _astronaut.copy()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Runs headless Chromium with the given arguments; returns its standard output."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    profile = tmp_path_factory.mktemp("chromium")

    def run(*arguments: str) -> str:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command = [program, *options, f"--user-data-dir={profile}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

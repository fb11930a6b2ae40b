"""The app as it installs, as a process: visitors at once, an editor of one's own, and the end by SIGTERM."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest

from tests.fixtures.editors import tiny_vae

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed"),
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM"),
]
VISITORS = 5  # `python -m benchmarks.app` takes 50


def test_each_visitor_gets_its_own_picture_and_sigterm_leaves_nothing(installed, tmp_path) -> None:
    from benchmarks.app import end, served, visit

    root, elsewhere = tmp_path / "temporary", tmp_path / "elsewhere"
    root.mkdir(), elsewhere.mkdir()
    tiny_vae().save_pretrained(elsewhere / "mine")
    with served(root, "--editor", "mine", environment=installed.environment(), cwd=elsewhere) as app:
        (folder,) = [path for path in root.iterdir() if path.name.startswith("emoedit-app-")]
        with ThreadPoolExecutor(VISITORS) as pool:
            found = list(pool.map(lambda number: visit(app.address, number), range(VISITORS)))
        assert [wrong for _, wrong in found] == [""] * VISITORS
        assert len(list((folder / "sessions").iterdir())) == VISITORS
        status, left = end(app)
    assert (status, left) == (143, [])
    assert not any("Traceback" in line for line in app.messages)
    assert {path.name for path in elsewhere.iterdir()} == {"mine"}

"""The documentation site builds without a warning, and holds every public name, model card and notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import emoedit

pytest.importorskip("mkdocs", reason="mkdocs is not installed")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site; a warning is a failure."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_public_name_is_on_the_site(site) -> None:
    pages = [path.read_text("utf-8") for path in (site / "reference").rglob("*.html")]
    anchors = {anchor for page in pages for anchor in re.findall(r'id="(emoedit[\w.]*)"', page)}
    index = (site / "reference" / "index.html").read_text("utf-8")
    for name in set(emoedit.__all__) - {"__version__"}:
        value = getattr(emoedit, name)
        assert f"{value.__module__}.{name}" in anchors and f"emoedit.{name}" in index


def test_every_module_and_model_card_has_a_page(site) -> None:
    pages = "".join(path.read_text("utf-8") for path in (site / "reference").rglob("*.html"))
    for path in (ROOT / "emoedit").rglob("*.py"):
        if not path.stem.startswith("_"):
            assert f'id="{".".join(path.relative_to(ROOT).with_suffix("").parts)}"' in pages, path
    for card in (ROOT / "checkpoints").glob("*/README.md"):
        assert (site / "cards" / card.parent.name / "index.html").is_file()
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert (site / "notebooks" / notebook.stem / "index.html").is_file()


def test_pages_load_nothing_from_other_machines(site) -> None:
    for path in site.rglob("index.html"):
        if "notebooks" in path.parts:
            continue  # notebooks bring their own page parts; formulas there come with a script of MathJax
        text = path.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="(https?:[^"]*)', text)
        loaded += re.findall(r'<link rel="stylesheet" href="(https?:[^"]*)', text)
        assert loaded == [], path

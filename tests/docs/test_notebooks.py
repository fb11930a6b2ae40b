"""The notebooks are what their script writes and hold no outputs; that they run is tested with the wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "notebooks"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "docs" / "make_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_are_what_the_script_writes_without_outputs(script) -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(script.NOTEBOOKS)
    for name, cells in script.NOTEBOOKS.items():
        text = (FOLDER / f"{name}.ipynb").read_text("utf-8")
        assert text == script.notebook(cells), f"{name}: run docs/make_notebooks.py"
        found = nbformat.reads(text, 4)
        nbformat.validate(found)
        assert all(not cell.get("outputs") for cell in found.cells)
        assert found.cells[0].cell_type == "markdown" and found.cells[0].source.startswith("# ")

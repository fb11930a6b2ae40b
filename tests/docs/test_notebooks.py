"""The notebooks are what their script writes, hold no outputs, and run."""

from __future__ import annotations

import importlib.util
import os
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


@pytest.mark.slow
def test_all_notebooks_run(script, tmp_path, monkeypatch) -> None:
    """One kernel runs them one after the other, with all names forgotten in between: most of each is its start."""
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    monkeypatch.setenv("EMOEDIT_NOTEBOOK_SIZE", "small")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    joined = nbformat.v4.new_notebook()
    for name in script.NOTEBOOKS:
        cells = nbformat.read(FOLDER / f"{name}.ipynb", 4).cells
        joined.cells += [nbformat.v4.new_code_cell("%reset -f"), *cells]
    for number, cell in enumerate(joined.cells):
        cell["id"] = f"joined-{number}"
    client.NotebookClient(joined, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in joined.cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in outputs]
    pictures = [d for d in data if "image/png" in d or "<img" in d.get("text/html", "")]
    assert len(pictures) >= 6
    assert not any("tensor([" in str(o.get("data", {}).get("text/html", "")) for o in outputs)

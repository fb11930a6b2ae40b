"""The plugins of docs/extending.md, installed as a distribution: from Python, from the command line, in a sweep."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoedit.faces.networks import NAMES as NETWORKS
from emoedit.io import checkpoints

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extending.md").read_text("utf-8")
PLUGINS = dict(re.findall(r"<!-- not run: [^\n]* as (\w+\.py) -->\n```python\n(.*?)```", PAGE, re.S))
pytestmark = pytest.mark.skipif(
    not all((checkpoints.embedded_root() / name).is_dir() for name in NETWORKS),
    reason="no embedded measuring networks in this checkout",
)

# From Python: the registries find everything; a folder of plugged parts is written.
SCRIPT = """
import sys, torch
import emoedit
from emoedit.cli import main
from emoedit.editors import Editor, load_editor
from emoedit.registry import BACKBONES, EDITORS, METRICS, READERS, STEERINGS

assert "tinted" in EDITORS.names() and "redness" in METRICS.names() and "listed" in READERS.names()
shifts = {"neutral": torch.zeros(3, 64, 64), "happy": torch.full((3, 64, 64), 0.2)}
backbone, steering = BACKBONES.get("residual_pixels")(), STEERINGS.get("mean_shift")(shifts)
Editor(backbone, [steering], name="plugged").save_pretrained("plugged")
again = load_editor("plugged")
assert [type(part).__name__ for part in (again.backbone, *again.steerings)] == ["ResidualPixels", "MeanShift"]

photos = emoedit.PhotoEditor("tinted")
compared = emoedit.compare("me.png", "happy", editors=[photos, "plugged"], strengths=[1.0], references=False)
compared.save("compared")

parts = {"parts": ["movement", "colour", "blush"], "settings": {"blush": {"amount": 30.0}}}
blushing = emoedit.PhotoEditor("vae", compositor=parts)
emoedit.edit("me.png", "happy", editor=blushing, strength=0.5).save("blushing.png")

assert main(["edit", "me.png", "--emotion", "happy", "--editor", "tinted", "--output", "tinted.png"]) == 0
assert main(["edit", "me.png", "--emotion", "happy", "--editor", "plugged", "--output", "plugged.png"]) == 0
how = ["--reader", "listed", "--editors", "tinted", "--emotions", "happy", "--strengths", "1", "--no-references"]
assert main(["evaluate", "--data", "photos.txt", *how, "--output", "evaluated"]) == 0
assert main(["metrics"]) == 0
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory, _astronaut) -> Path:
    """A folder with a photograph, and the plugins' distribution installed in ``site``."""
    folder = tmp_path_factory.mktemp("extending")
    source = folder / "source"
    source.mkdir()
    project = re.search(r"```toml\n(.*?)```", PAGE, re.S)[1]
    modules = json.dumps([name.removesuffix(".py") for name in PLUGINS])
    (source / "pyproject.toml").write_text(f"{project}\n[tool.setuptools]\npy-modules = {modules}\n")
    for name, text in PLUGINS.items():
        (source / name).write_text(text)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", folder / "site", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    Image.fromarray(np.ascontiguousarray(_astronaut[:256, 96:352])).save(folder / "me.png")
    (folder / "photos.txt").write_text("me.png\tneutral\n")
    return folder


@pytest.fixture(scope="module")
def environment(work) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(work / "site")])}


@pytest.fixture(scope="module")
def used(work, environment) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=work, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def test_each_plugin_is_short():
    assert len(PLUGINS) == 6
    for name, text in PLUGINS.items():
        assert len(text.splitlines()) <= 40, name


def test_a_registered_metric_is_in_rows_summary_table_and_list(used, work):
    for folder in ("compared", "evaluated"):
        rows = [json.loads(line) for line in (work / folder / "results.jsonl").read_text().splitlines()]
        tinted = next(row for row in rows if row["editor"] == "tinted")
        assert tinted["redness"] > 2
    header, line = (text.split(",") for text in (work / "evaluated/summary.csv").read_text().splitlines())
    assert float(line[header.index("redness")]) == pytest.approx(tinted["redness"])
    assert re.search(r"redness +grey levels +change of red", used.stdout)


def test_plugged_editors_change_the_photograph(used, work):
    before = np.asarray(Image.open(work / "me.png"), int)
    for name in ("tinted", "plugged"):
        after = np.asarray(Image.open(work / f"{name}.png"), int)
        assert after.shape == before.shape and (np.abs(after - before).max(-1) > 4).mean() > 0.02, name


def test_a_plugged_part_of_the_compositor_reddens_skin(used, work):
    before, after = (np.asarray(Image.open(work / name).convert("RGB"), float) for name in ("me.png", "blushing.png"))
    redder = (after - before) @ [1, -0.5, -0.5]
    assert redder.max() > 20 and (redder > 10).mean() > 0.02


def test_a_sweep_takes_a_plugged_editor_reader_and_metric(work, environment):
    settings = ["editor=tinted", "emotion=happy", "strength=1", "data=folder", "data.path=photos.txt", "output=swept"]
    command = [sys.executable, str(ROOT / "experiments/sweep.py"), *settings, "data.reader=listed", "device=cpu"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (results,) = work.glob("swept/tinted-*/results.jsonl")
    (row,) = [json.loads(line) for line in results.read_text().splitlines()]
    assert row["error"] is None and row["redness"] > 2


def test_the_metric_is_seen_in_a_browser(used, work, browser):
    page = work / "evaluated/report.html"
    dom = browser("--virtual-time-budget=3000", "--dump-dom", page.as_uri())
    assert "redder" in re.sub(r"<(script|style)\b.*?</\1>", "", dom, flags=re.S)
    dom = browser("--virtual-time-budget=3000", "--dump-dom", (work / "compared/report.html").as_uri())
    meaning = "change of red minus the mean of green and blue, grey levels"
    assert f"<dt>redder</dt><dd>{meaning}</dd>" in dom  # in the list of what the numbers mean
    assert dom.count(f'title="{meaning}"') >= 2  # under a picture, and in the table of all numbers

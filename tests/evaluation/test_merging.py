"""The jobs of a sweep put together: tables, a plot and a page, and how far each is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from emoedit.evaluation.merging import find_parts, job_states, merge, write_merged
from emoedit.evaluation.sweeps import Job
from emoedit.io.results import read_rows
from emoedit.report.html import Table
from emoedit.report.tables import markdown
from emoedit.types import DataError
from tests.fixtures.editors import tiny_pixels
from tests.fixtures.sweeps import described, needs_networks, portraits, run


@pytest.fixture(scope="module")
def photos(_astronaut, tmp_path_factory) -> Path:
    return portraits(tmp_path_factory.mktemp("merging") / "photos", _astronaut)


@pytest.fixture
def config(photos, tmp_path) -> dict:
    tiny = tiny_pixels("tiny").save_pretrained(tmp_path / "editors" / "tiny")
    return described(photos, tiny, tmp_path / "out")


@needs_networks
def test_a_page_with_tables_a_plot_and_the_pictures(config, tmp_path):
    pytest.importorskip("matplotlib")
    config |= {
        "metric_networks": {"identity": "embedded", "perceptual": "embedded", "expression": "embedded"},
        "pictures": "jpg",
    }
    config["data"] = {**config["data"], "limit": None}
    for index in range(2):
        run(config, shard=f"{index}/2")
    output = tmp_path / "page"
    (place,) = write_merged(Path(config["output"]), output, photographs=2)
    assert place == output / "faces"
    assert {path.name for path in place.iterdir()} == {
        "results.jsonl",
        "summary.csv",
        "tables.md",
        "pareto.svg",
        "report.html",
    }
    assert len(list(read_rows(place / "results.jsonl"))) == 24
    page, tables = ((place / name).read_text("utf-8") for name in ("report.html", "tables.md"))
    assert page.count("data:image/jpeg") == 2 + 2 * 4  # two sources and their edits
    for text in (page, tables):
        assert "What could not be edited" in text and "no face found" in text and "Means over people" in text
    (found,) = merge(find_parts(Path(config["output"]))).values()
    assert (place / "pareto.svg").read_text("utf-8") in page
    line = found.summary()[0]
    assert f"| tiny | happy | 0.5 | 5 | {line['target_score']:.2f} [" in tables
    written = write_merged(Path(config["output"]), Path(config["output"]) / "report", photographs=0)
    assert (written[0] / "report.html").read_text("utf-8").count("data:image/jpeg") == 0
    assert len(find_parts(Path(config["output"]))) == 2  # the report is no job


def test_jobs_that_say_different_things_are_not_mixed(config, tmp_path):
    run(config, data={**config["data"], "limit": 1})
    other = tiny_pixels("tiny", seed=3).save_pretrained(tmp_path / "other" / "tiny")
    run(config, editor=str(other), data={**config["data"], "limit": 1}, output=str(tmp_path / "beside"))
    for folder in (tmp_path / "beside").iterdir():  # in one sweep it would have been refused
        shutil.move(folder, config["output"])
    parts = find_parts(Path(config["output"]))
    with pytest.raises(DataError, match="tiny is another editor than the tiny of an earlier job.*name: CALLED"):
        merge(parts)
    settings = parts[1].folder / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "identity_backend": "somebody"}))
    with pytest.raises(DataError, match="measured by another identity_backend"):
        merge(find_parts(Path(config["output"])))
    (parts[1].folder / "job.json").write_text("{}")
    with pytest.raises(DataError, match="no folder of a sweep's job"):
        find_parts(Path(config["output"]))
    with pytest.raises(DataError, match="holds no results"):
        find_parts(tmp_path / "other")
    with pytest.raises(DataError, match="no such folder"):
        find_parts(tmp_path / "gone")


def test_cells_of_two_jobs_count_once_and_seeds_apart(config):
    config["data"]["limit"] = 2
    run(config)
    run(config, shard="0/2")
    assert len(merge(find_parts(Path(config["output"])))["faces"].rows) == 8
    run(config, seed=1)
    assert len(merge(find_parts(Path(config["output"])))["faces"].rows) == 16
    run(config, data={**config["data"], "name": "others"})
    found = merge(find_parts(Path(config["output"])))
    assert {name: len(evaluation.rows) for name, evaluation in found.items()} == {"faces": 16, "others": 8}


def test_how_far_a_job_is(config):
    run(config)
    folder = Job.from_config(config).folder
    (state,) = job_states(find_parts(folder.parent))
    assert (state["cells"], state["done"], state["failed"], state["left"]) == (24, 24, 4, 0.0)
    path = folder / "results.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:8]))
    about = json.loads((folder / "job.json").read_text())
    os.utime(path, (about["started"] + 40, about["started"] + 40))
    (state,) = job_states(find_parts(folder.parent))
    assert state["done"] == 8 and state["rate"] == pytest.approx(0.2) and state["left"] == pytest.approx(80)
    (folder / "job.json").write_text(json.dumps({**about, "rows": 8}))
    (state,) = job_states(find_parts(folder.parent))
    assert state["rate"] is None and state["left"] is None


def test_tables_as_text():
    table = Table("A | b\nc", ["name", "n"], [["x|y\x00", 3], ["z", 0.12345], ["", None], ["w", float("nan")]], "Help")
    assert markdown(table) == (
        "## A \\| b c\n\n| name | n |\n| --- | --- |\n| x\\|y\\x00 | 3 |\n| z | 0.123 |\n|  | – |\n| w | – |\n\nHelp\n"
    )

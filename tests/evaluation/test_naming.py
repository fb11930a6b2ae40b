"""What editors of a sweep are called: settings give names of their own, and two editors of one name are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from emoedit.evaluation.merging import find_parts, merge
from emoedit.evaluation.naming import EditorDescription, check_names
from emoedit.evaluation.sweeps import Job, with_one_editor
from emoedit.types import CheckpointError, DataError, EditError, UnknownNameError
from tests.fixtures.editors import tiny_asyrp
from tests.fixtures.sweeps import described, run


@pytest.fixture(scope="module")
def asyrp(tmp_path_factory) -> Path:
    return tiny_asyrp().save_pretrained(tmp_path_factory.mktemp("editors") / "asyrp")


@pytest.fixture
def config(_astronaut, asyrp, tmp_path) -> dict:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.ascontiguousarray(_astronaut[20:180, 144:304])).save(tmp_path / "photos" / "0.png")
    found = described(tmp_path / "photos", asyrp, tmp_path / "out")
    return found | {"emotion": "happy", "strength": 1.0, "pictures": "png"}


def test_settings_and_compositors_name_an_editor(asyrp):
    def called(**entries) -> str:
        return EditorDescription.of({"editor": str(asyrp), **entries}).result_name

    assert EditorDescription.of(str(asyrp)).result_name == called() == called(batch=2) == "tiny-asyrp"
    assert called(steps=3) == "tiny-asyrp(steps=3)"
    assert called(steps=3, compositor="replace") == "tiny-asyrp(compositor=replace, steps=3)"
    assert called(name="mine", steps=3) == "mine"
    details = [called(compositor={"name": "drawn", "settings": {"skin": {"restored": r}}}) for r in (0.0, 0.5)]
    assert len(set(details)) == 2 and all(name.startswith("tiny-asyrp(compositor=drawn-") for name in details)


def test_a_report_tells_swept_settings_and_compositors_apart(config, asyrp):
    swept = [str(asyrp)] + [
        {"editor": str(asyrp), **entries}
        for entries in ({"steps": 3}, {"compositor": "drawn"}, {"compositor": {"parts": ["light"]}, "name": "light"})
    ]
    for editor in swept:
        assert run(config, editor=editor) == {"cells": 1, "failed": 0}
    (found,) = merge(find_parts(Path(config["output"]))).values()
    names = {"tiny-asyrp", "tiny-asyrp(steps=3)", "tiny-asyrp(compositor=drawn)", "light"}
    assert {row["editor"] for row in found.rows} == names
    made = [np.asarray(Image.open(path), int) for path in sorted(Path(config["output"]).glob("*/pictures/*.png"))]
    assert len(made) == 4
    light = np.asarray(Image.open(next(Path(config["output"]).glob("light-*/pictures/*.png"))), int)
    assert sum(np.array_equal(light, other) for other in made) == 1  # it is put in in another way
    assert run(config, editor=swept[1]) == {"cells": 1, "failed": 0}  # and goes on


def test_one_name_for_two_editors_of_a_sweep_is_refused_with_what_to_do(asyrp, tmp_path):
    other = str(shutil.copytree(asyrp, tmp_path / "other"))
    few, more = ({"editor": str(asyrp), "name": "mine", "steps": steps} for steps in (3, 5))

    def check(*editors, data=("faces", "faces")) -> None:
        check_names([(key, EditorDescription.of(editor)) for key, editor in zip(data, editors, strict=True)])

    advice = (
        rf"both called 'mine' .*give one of them a name of its own: editor={{editor: {asyrp}, name: CALLED, steps: 5}}"
    )
    with pytest.raises(DataError, match=advice):
        check(few, more)
    with pytest.raises(DataError, match=rf"'tiny-asyrp' .*editor={{editor: {other}, name: CALLED}}"):
        check(str(asyrp), other)
    check(few, more, data=("faces", "others"))  # two reports
    check(few, {**few, "batch": 2})
    check(str(asyrp), {"editor": str(asyrp)})
    check(str(asyrp), {"editor": other, "name": "other"})


def test_one_name_for_two_editors_of_two_runs_is_refused_before_any_work(config, asyrp, monkeypatch):
    few, more = ({"editor": str(asyrp), "name": "mine", "steps": steps} for steps in (3, 5))
    run(config, editor=few)
    before = sorted(Path(config["output"]).rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr("emoedit.evaluation.evaluate.complete_results", lambda *_, **__: pytest.fail("began to work"))
        with pytest.raises(DataError, match=r"called 'mine' too.*name: CALLED, steps: 5}.*another output"):
            run(config, editor=more)
    assert sorted(Path(config["output"]).rglob("*")) == before
    assert run(config, editor={**few, "batch": 1}) == {"cells": 1, "failed": 0}  # the same editor: nothing differs


@pytest.mark.parametrize(
    ("entries", "error", "match"),
    [
        ({"compositor": "drwan"}, UnknownNameError, "did you mean 'drawn'"),
        ({"compositor": {"settings": {}}}, CheckpointError, "by a name or its parts"),
        ({"compositor": 3}, CheckpointError, "by a name or its parts"),
        ({"step": 3}, EditError, "step"),
    ],
)
def test_a_described_editor_that_makes_no_sense_is_told(config, asyrp, entries, error, match):
    with pytest.raises(error, match=match):
        run(config, editor={"editor": str(asyrp), **entries})
    assert not list(Path(config["output"]).glob("*/results.jsonl"))
    Job.from_config(config).check()


def test_entries_of_an_editor_can_be_swept():
    given = with_one_editor(
        ["editor=asyrp", "editor.steps=20,50", "editor.compositor=drawn,rgb", "editor.model=/a,b/c"]
    )
    override = OverridesParser.create().parse_override(given[0])
    values = [OverridesParser.create().parse_override(f"x={text}").value() for text in override.sweep_string_iterator()]
    assert values == [
        {"editor": "asyrp", "steps": steps, "compositor": name, "model": "/a,b/c"}
        for steps in (20, 50)
        for name in ("drawn", "rgb")
    ]

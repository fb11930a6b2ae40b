"""What ranking is worth: rows of candidates, how they are chosen, and the two pages that are made of them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from emoedit.io import checkpoints
from emoedit.training.prepare import split_of
from emoedit.types import DataError

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(name: str, *overrides: str) -> dict:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return OmegaConf.to_container(compose(name, list(overrides)), resolve=True)


def row(person: str, rank: int, identity: float, score: float, **more: object) -> dict:
    told = {"person": person, "emotion": "sad", "rank": rank, "order": -rank, "identity": identity, "score": score}
    read = {"target_score": score, "top": "sad" if score > 0.5 else "neutral", "editor": "facs", "kept": True}
    return told | read | more


ROWS = [
    row("a", 0, 0.9, 0.3, editor="stylegan"),
    row("a", 1, 0.92, 0.6),
    row("a", 2, 0.95, 0.1),
    row("a", 3, 0.7, 0.8, kept=False),
    row("b", 0, 0.9, 0.4, editor="stylegan"),
    row("b", 1, 0.8, 0.9, kept=False),
]


def test_the_best_is_compared_with_the_single_edit():
    study = script("best_study")
    chosen = study.chosen_rows(ROWS)
    assert [each["score"] for each in chosen["a", "sad"]] == [0.3, 0.6]
    assert [each["score"] for each in chosen["b", "sad"]] == [0.4, 0.4]  # none reaches the floors: the single edit
    text = study.comparison(chosen, "target_score")
    assert "0.350 / 0.900 | 0.500 / 0.910 | +0.150" in text
    assert study.editors_of(chosen) == "`facs` 1, `stylegan` 1"


def test_people_are_those_marked_test_or_all(tmp_path):
    from lib.candidates import people

    for folder in ("pairs/neutral", "pairs/smiling", "plain"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("a", "b", "c"):
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "pairs" / "info.csv").write_text("face_id,split\na,test\nb,fit\nc,test\n")
    found = people(tmp_path, {"pairs": [1, 5], "plain": [0, 2]})
    assert [case.photo.relative_to(tmp_path).as_posix() for case in found] == [
        "pairs/neutral/c.png",
        "plain/a.png",
        "plain/b.png",
    ]


def test_rows_without_what_the_independent_recogniser_reads_are_made_again(tmp_path):
    from lib.candidates import IndependentRecogniser, stored_rows

    path, without = tmp_path / "rows.jsonl", IndependentRecogniser(None, tmp_path)
    assert stored_rows(path, without) == []
    path.write_text("".join(json.dumps(each) + "\n" for each in (ROWS[0], ROWS[1] | {"independent_score": 0.5})))
    assert [each["rank"] for each in stored_rows(path, without)] == [0, 1]
    given = IndependentRecogniser(None, tmp_path)
    given.network = torch.nn.Identity()
    assert [each["rank"] for each in stored_rows(path, given)] == [1]


def test_a_part_is_put_between_its_marks_and_nowhere_else(tmp_path):
    study, page = script("best_study"), tmp_path / "best.md"
    page.write_text(f"before\n{study.BEGIN}\nold\n{study.END}\nafter\n")
    study.put(page, "new")
    assert page.read_text() == f"before\n{study.BEGIN}\n\nnew\n\n{study.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(DataError, match="marks"):
        study.put(page, "new")
    assert page.read_text() == "no marks"
    shipped = (ROOT / "docs" / "best.md").read_text()
    assert shipped.count(study.BEGIN) == shipped.count(study.END) == 1


def test_kept_candidates_are_counted_by_person():
    vaha = script("reproduce_vaha")
    text = vaha.ranking_table(ROWS, 2, independent=False)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines()[2:]}
    assert "| 0.83 [" in lines["all, and so any three on average"]  # of a two of three, of b its only one
    assert "| 0.75 [" in lines["the 2 best as `emoedit best` ranks"]
    assert "| 1.00 [" in lines["the best"]
    assert "| 0.75 [" in lines["the first 2 that are made"]  # of a the third and second
    seen = [{"label": "happy", "read": "happy"}, {"label": "sad", "read": "happy"}, {"label": "sad", "read": ""}]
    assert vaha.accuracy(seen) == [3, 2, 0.5, pytest.approx(1 / 3), 0.5]


@pytest.mark.skipif(not (checkpoints.embedded_root() / "facs").is_dir(), reason="no embedded editors here")
def test_both_studies_are_made_of_one_run(tmp_path, _astronaut):
    portrait = Image.fromarray(_astronaut[:320, 64:384])
    (tmp_path / "people").mkdir()
    portrait.save(tmp_path / "people" / "one.png")
    held = next(f"{n}.png" for n in range(500) if split_of("fer2013", f"happy/{n}.png", "") in ("valid", "test"))
    for name in ("happy", "sad"):
        (tmp_path / "fer" / name).mkdir(parents=True)
        portrait.resize((160, 160)).save(tmp_path / "fer" / name / held)
    (tmp_path / "work").mkdir()
    size = 7 * 7 * 4 * 8  # blocks of 4 cells of 8 directions
    fitted = {"mean": torch.zeros(size), "deviation": torch.ones(size), "weights": torch.zeros(size, 7)}
    torch.save(fitted | {"bias": torch.tensor([0, 1.0, 0, 0, 0, 0, 0])}, tmp_path / "work" / "gradients.pt")
    how = [f"data.root={tmp_path}", "~people", "+people={people: [0, 1]}", "emotions=[happy]", "editors=[facs]",
           "candidates=2", "keep=1", f"gradients.crops={tmp_path}", f"work={tmp_path / 'work'}"]  # fmt: skip
    text = script("reproduce_vaha").section(config("reproduce_vaha", *how, "fer=fer", "votes=null"))
    assert "the data set's own labels | 1 | 1 |" in text or "the data set's own labels | 2 | 2 |" in text
    assert "the 1 best as `emoedit best` ranks" in text and "target score, independent recogniser" in text
    rows = [json.loads(line) for line in (tmp_path / "work" / "vaha-candidates.jsonl").read_text().splitlines()]
    assert [each["rank"] for each in rows] == [0, 1, 2, 3] and rows[0]["editor"] == "stylegan"
    assert all(
        each["independent_score"] == pytest.approx(torch.tensor(1.0).exp() / (6 + torch.tensor(1.0).exp()))
        for each in rows
    )
    (tmp_path / "work" / "vaha-candidates.jsonl").rename(tmp_path / "work" / "candidates.jsonl")
    part = script("best_study").part(config("best_study", *how))  # nothing is edited again
    assert part.count("| mean | – | – |") == 3 and "took no part in ranking" in part
    for name in ("reproduce_vaha", "best_study"):
        missing = config(name) | {"data": {"root": None}}
        with pytest.raises(DataError, match="data.root"):
            getattr(script(name), "section" if name == "reproduce_vaha" else "part")(missing)
    assert "lib.candidates" in sys.modules

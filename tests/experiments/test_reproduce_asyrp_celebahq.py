"""Asyrp's f_t in the published order, from eight photographs to an edit, on a tiny DDPM and a tiny CLIP."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from emoedit.cli import main
from emoedit.io.weights import read_torch
from emoedit.steering.hspace import HSpace
from emoedit.types import DataError
from tests.fixtures.clip import write_clip
from tests.fixtures.configs import ROOT
from tests.fixtures.editors import tiny_asyrp

SCRIPT = ROOT / "experiments" / "reproduce_asyrp_celebahq.py"


@pytest.fixture(scope="module")
def folders(_astronaut, tmp_path_factory) -> Path:
    """``photos`` of ten people, if one looks at pixels only; ``ddpm``; ``clip``."""
    root = tmp_path_factory.mktemp("asyrp")
    (root / "photos").mkdir()
    for n in range(10):
        head = np.roll(_astronaut[10:190, 134:314], n, 1)
        Image.fromarray(np.ascontiguousarray(head)).save(root / "photos" / f"{n}.png")
    tiny_asyrp(1, channels=3, std=None).backbone.save_pretrained(root / "ddpm")
    (root / "clip").mkdir()
    write_clip(root / "clip")
    return root


@pytest.fixture(scope="module")
def module():
    """The script, imported."""
    spec = importlib.util.spec_from_file_location("reproduce_asyrp_celebahq", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def overrides(folders: Path, output: Path, *more: str) -> list[str]:
    given = [f"clip={folders / 'clip'}", f"model={folders / 'ddpm'}", f"pictures={folders / 'photos'}"]
    return [*given, f"output={output}", "device=cpu", "steps=4", "t_last=600", "t_edit=300", "t_boost=0", *more]


def composed(*given: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return OmegaConf.to_container(compose("reproduce_asyrp_celebahq", overrides=list(given)), resolve=True)


def test_the_config_is_the_papers():
    config = composed("pictures=faces")
    assert (config["steps"], config["t_last"], config["t_edit"], config["t_boost"]) == (40, 999, 513, 167)
    assert config["count"] == 1000 and config["training"]["epochs"] == 1 and config["training"]["learning_rate"] == 0.5
    assert (config["training"]["clip"], config["training"]["near"]) == (1.0, 3.0)


def test_eight_photographs_make_a_shift_that_the_editor_takes(folders, module, tmp_path, monkeypatch, capsys):
    other = tmp_path / "first"
    command = [sys.executable, str(SCRIPT), *overrides(folders, other, "count=8", "held_out=2")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    file = other / "happy_LC_CelebA_HQ_t600_ninv4_ngen4_0.pth"
    assert list(read_torch(file)) == ["0"] and HSpace.from_asyrp({"happy": file}).train_steps == 4
    report = json.loads((other / "report.json").read_text())
    assert report["pictures"] == len(report["losses"]) == 8 and report["texts"] == ["face", "smiling face"]
    assert -1 <= report["trained"]["directional"] <= 1 and "published" not in report
    # Another seed stands for the authors' file: the comparison finds that they are two.
    more = ("count=2", "held_out=2", "training.seed=1", f"published={file}")
    module.reproduce(composed(*overrides(folders, tmp_path / "second", *more)))
    assert abs(json.loads((tmp_path / "second" / "report.json").read_text())["cosine_of_shifts"]) < 0.99
    monkeypatch.chdir(tmp_path)
    words = ["edit", str(folders / "photos" / "0.png"), "--editor", "celebahq", "--model", str(folders / "ddpm")]
    words += ["--shift", f"happy={file}", "--set", "steps=4", "t_last=600", "t_edit=300", "t_boost=0"]
    assert main([*words, "--device", "cpu", "--precision", "float32", "--output", "happy.png"]) == 0, (
        capsys.readouterr()
    )
    before, after = (np.asarray(Image.open(p).convert("RGB"), int) for p in (folders / "photos" / "0.png", "happy.png"))
    assert before.shape == after.shape and np.abs(before - after).max() > 0


def test_texts_are_read_in_templates(folders, module, tmp_path):
    """As the authors' code does: the direction is the mean over them."""
    (tmp_path / "templates.txt").write_text("a photo of a {}.\n\nart of the {}.\n")
    how = ("count=1", "held_out=0", "training.learning_rate=1e-3")
    reports = []
    for name, more in (("bare", ()), ("filled", (f"templates={tmp_path / 'templates.txt'}",))):
        module.reproduce(composed(*overrides(folders, tmp_path / name, *how, *more)))
        reports.append(json.loads((tmp_path / name / "report.json").read_text()))
    assert [report["templates"] for report in reports] == [1, 2]
    assert reports[0]["losses"][0]["clip"] != reports[1]["losses"][0]["clip"]
    (tmp_path / "templates.txt").write_text("a photo")
    for file, match in (("templates.txt", "texts with {} where 'face' goes"), ("none.txt", "cannot be read")):
        with pytest.raises(DataError, match=match):
            module.reproduce(composed(*overrides(folders, tmp_path / "out", *how, f"templates={tmp_path / file}")))


def test_nothing_to_train_on_is_an_error(folders, module, tmp_path):
    with pytest.raises(DataError, match="none is left to train on"):
        module.reproduce(composed(*overrides(folders, tmp_path / "none", "count=0", "held_out=2")))
    assert not (tmp_path / "none").exists()


def test_the_end_of_editing_is_measured(folders, module, tmp_path, monkeypatch):
    class Growing:
        """A distance that grows by .1 with every call: .1, .3, .5 and .7 are those of P_t."""

        def __init__(self, net: str, trunk: str | None) -> None:
            self.calls = 0

        def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return torch.full((len(a),), 0.1 * self.calls)

    monkeypatch.setattr("emoedit.metrics.lpips.LPIPSDistance", Growing)
    monkeypatch.setattr(module, "text_cosine", lambda *_: 0.8)
    module.reproduce(composed(*overrides(folders, tmp_path / "out", "count=1", "held_out=0", "t_edit=null")))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["t_edit"] == 200  # .3 is the first above .264

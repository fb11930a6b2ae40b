"""Folders of steerings and backbones are given as strings, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from emoedit.io import checkpoints
from emoedit.registry import BACKBONES, STEERINGS

EDITORS = sorted(path.parent for path in checkpoints.embedded_root().glob("*/editor.json"))


@pytest.mark.parametrize("folder", EDITORS, ids=lambda folder: folder.name)
def test_a_steering_is_read_and_written_by_the_name_of_its_folder(folder: Path, tmp_path: Path):
    for part in json.loads((folder / "editor.json").read_text())["steerings"]:
        kind, target = STEERINGS.get(part["kind"]), tmp_path / part["folder"]
        target.mkdir()
        steering = kind.from_pretrained(str(folder / part["folder"]))
        steering.save_pretrained(str(target))
        again, state = kind.from_pretrained(str(target)).state_dict(), steering.state_dict()
        assert again.keys() == state.keys() and all(torch.allclose(again[k], state[k], atol=1e-6) for k in state)


def test_a_backbone_is_read_and_written_by_the_name_of_its_folder(tmp_path: Path):
    part = json.loads((checkpoints.embedded_root() / "vae/editor.json").read_text())["backbone"]
    kind = BACKBONES.get(part["kind"])
    backbone = kind.from_pretrained(str(checkpoints.embedded_root() / "vae" / part["folder"]))
    backbone.save_pretrained(str(tmp_path))
    assert kind.from_pretrained(str(tmp_path)).to_config() == backbone.to_config()

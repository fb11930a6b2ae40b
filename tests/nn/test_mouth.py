"""The network of mouths: its files, and that it does nothing before it has learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from emoedit.io import checkpoints
from emoedit.nn.mouth import MouthConfig, MouthNetwork
from emoedit.types import CheckpointError

SMALL = MouthConfig(widths=(8, 8, 16))


def test_a_network_that_has_learned_nothing_changes_nothing():
    x = torch.randn(2, 1, 64, 64)
    sharp, teeth = MouthNetwork(SMALL)(x)
    assert torch.equal(sharp, x) and not teeth.any()


def test_files(tmp_path: Path):
    torch.manual_seed(0)
    network = MouthNetwork(SMALL)
    torch.nn.init.normal_(network.last.weight)
    checkpoints.round_weights(network)
    network.save_pretrained(tmp_path / "mouth", card="a card", role="sharp mouths")
    again, x = MouthNetwork.from_pretrained(tmp_path / "mouth"), torch.randn(1, 1, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(network(x), again(x), strict=True)) and again.config == SMALL
    assert not again.training and (tmp_path / "mouth" / "README.md").read_text() == "a card"
    weights = (tmp_path / "mouth" / "model.safetensors").read_bytes()
    assert len(weights) < 1.5 * sum(p.numel() for p in network.parameters()) + 8000  # a byte a weight
    for name, text in {"widths": [8, 8], "side": "wide", "resolution": None}.items():
        raw = json.loads((tmp_path / "mouth" / "config.json").read_text())
        (tmp_path / "mouth" / "config.json").write_text(json.dumps(raw | {name: text}))
        with pytest.raises(CheckpointError, match="config.json"):
            MouthNetwork.from_pretrained(tmp_path / "mouth")
        (tmp_path / "mouth" / "config.json").write_text(json.dumps(raw))
    (tmp_path / "mouth" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        MouthNetwork.from_pretrained(tmp_path / "mouth")
    (tmp_path / "mouth" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        MouthNetwork.from_pretrained(tmp_path / "mouth")

"""The network that takes smiles out of landmarks: its files, and that it leaves a face alone before it has learned."""

from __future__ import annotations

import json

import pytest
import torch

from emoedit.io import checkpoints
from emoedit.nn.relaxation import RelaxationConfig, RelaxationNetwork
from emoedit.types import CheckpointError


def test_a_network_that_has_learned_nothing_moves_nothing():
    points = torch.randn(3, 68, 2)
    moved = RelaxationNetwork(RelaxationConfig(width=8)).eval()(points)
    assert moved.shape == (3, 68, 2) and not moved.any()


def test_files(tmp_path):
    torch.manual_seed(0)
    network = RelaxationNetwork(RelaxationConfig(width=8, scale=0.7)).eval()
    torch.nn.init.normal_(network.layers[-1].weight)
    checkpoints.round_weights(network)
    network.save_pretrained(tmp_path / "relaxation", card="a card", role="smiles")
    again, points = RelaxationNetwork.from_pretrained(tmp_path / "relaxation"), torch.randn(2, 68, 2)
    assert torch.equal(network(points), again(points)) and again.config == network.config and not again.training
    config = json.loads((tmp_path / "relaxation" / "config.json").read_text())
    (tmp_path / "relaxation" / "config.json").write_text(json.dumps({**config, "width": "wide"}))
    with pytest.raises(CheckpointError, match="config.json"):
        RelaxationNetwork.from_pretrained(tmp_path / "relaxation")


def test_the_embedded_one_is_symmetric_enough_and_takes_a_smile_away():
    """Corners of a wide, raised mouth come together and down."""
    network = RelaxationNetwork.from_pretrained(checkpoints.embedded_root() / "relaxation")
    mean = network.mean.reshape(1, 68, 2)
    smiling = mean.clone()
    smiling[0, [48, 60], 0] -= 0.03
    smiling[0, [54, 64], 0] += 0.03
    smiling[0, [48, 54, 60, 64], 1] -= 0.02
    with torch.no_grad():
        moved = (network(smiling) - network(mean))[0]
    assert moved[48, 0] > 0.003 and moved[54, 0] < -0.003
    assert moved[[48, 54], 1].mean() > 0.002

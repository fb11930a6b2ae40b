"""The network that takes a smile's light off a face, and the U-Net that it shares with the one for occlusions."""

from __future__ import annotations

import json

import pytest
import torch

from emoedit.io import checkpoints
from emoedit.nn.occlusion import OcclusionNetwork
from emoedit.nn.relighting import RelightingNetwork
from emoedit.nn.unet import UNetConfig
from emoedit.types import CheckpointError

TINY = UNetConfig(32, widths=(8, 8, 16, 16))


@pytest.mark.parametrize("kind", [RelightingNetwork, OcclusionNetwork])
def test_an_answer_for_every_place_and_files(kind, tmp_path):
    torch.manual_seed(0)
    network, x = kind(TINY).eval(), torch.randn(2, kind.inputs, 32, 32)
    assert network(x).shape == (2, 1, 32, 32)
    checkpoints.round_weights(network)
    network.save_pretrained(tmp_path / "net", card="a card", role="a role")
    again = kind.from_pretrained(tmp_path / "net")
    assert torch.equal(network(x), again(x)) and again.config == TINY
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    (tmp_path / "net" / "config.json").write_text(json.dumps({**config, "widths": [8, 8]}))
    with pytest.raises(CheckpointError, match="config.json"):
        kind.from_pretrained(tmp_path / "net")


def test_the_embedded_one_leaves_an_even_face_nearly_as_it_is():
    network = RelightingNetwork.from_pretrained(checkpoints.embedded_root() / "relighting")
    with torch.no_grad():
        ratio = network(torch.zeros(1, 1, 64, 64))
    assert ratio.abs().mean() < 0.08 and torch.isfinite(ratio).all()

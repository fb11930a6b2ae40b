"""The network that takes smiles out: what it gives before training, and what layers mean."""

from __future__ import annotations

import json

import pytest
import torch

from emoedit.io import checkpoints
from emoedit.nn.smile_removal import Layers, SmileRemovalConfig, SmileRemovalNetwork, composed, moved
from emoedit.types import CheckpointError

SMALL = SmileRemovalConfig(resolution=32, widths=(8, 8, 16, 16))


def still(side: int = 32, **changed: torch.Tensor) -> Layers:
    """Layers that change nothing, but for those given."""
    flow, one = torch.zeros(1, 2, side, side), torch.zeros(1, 1, side, side)
    return Layers(flow, one, torch.zeros(1, 3, side, side), one)._replace(**changed)


def test_untrained_it_changes_nothing_but_a_trace_of_grey():
    torch.manual_seed(0)
    network, x = SmileRemovalNetwork(SMALL).eval(), torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        layers = network(x)
        assert (composed(x, layers) - x).abs().max() < 0.03
    assert not layers.flow.any() and not layers.light.any()


@pytest.mark.parametrize("columns", [1, 3])
def test_a_flow_says_where_pixels_come_from(columns):
    x = torch.rand(1, 3, 32, 32)
    flow = torch.zeros(1, 2, 32, 32)
    flow[:, 0] = columns / 32  # from the right
    assert torch.allclose(moved(x, flow)[..., :-columns], x[..., columns:], atol=1e-5)


def test_light_is_a_ratio_of_grey_levels():
    x = torch.full((1, 3, 32, 32), 0.0)  # level 127.5
    twice = composed(x - 0.5, still(light=torch.full((1, 1, 32, 32), 2.0).log()))
    assert torch.allclose(twice, x, atol=1e-5)


def test_what_is_drawn_covers_what_was_moved():
    x, paint = torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), 0.7)
    drawn = torch.zeros(1, 1, 32, 32)
    drawn[..., :8] = 1
    result = composed(x, still(paint=paint, drawn=drawn))
    assert torch.allclose(result[..., :8], paint[..., :8]) and not result[..., 8:].any()


def test_it_is_saved_and_loaded_and_refuses_what_is_damaged(tmp_path):
    torch.manual_seed(0)
    network, x = SmileRemovalNetwork(SMALL).eval(), torch.rand(1, 3, 32, 32)
    torch.nn.init.normal_(network.coarse.weight, std=0.1)
    network.save_pretrained(tmp_path / "it", card="a card", role="removal of smiles")
    again = SmileRemovalNetwork.from_pretrained(tmp_path / "it")
    with torch.no_grad():
        for before, after in zip(network(x), again(x), strict=True):
            assert torch.allclose(before, after, atol=0.02)  # weights are rounded
    raw = json.loads((tmp_path / "it" / "config.json").read_text())
    for wrong in ({"widths": [8, 8]}, {"resolution": "large"}, {"widths": None}):
        (tmp_path / "it" / "config.json").write_text(json.dumps(raw | wrong))
        with pytest.raises(CheckpointError):
            SmileRemovalNetwork.from_pretrained(tmp_path / "it")
    (tmp_path / "it" / "config.json").write_text(json.dumps(raw))
    weights = tmp_path / "it" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError):
        SmileRemovalNetwork.from_pretrained(tmp_path / "it")


def test_the_shipped_one_has_the_default_architecture():
    network = SmileRemovalNetwork.from_pretrained(checkpoints.embedded_root() / "smile_removal")
    assert network.config == SmileRemovalConfig() and not network.training

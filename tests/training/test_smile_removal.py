"""What the network that takes smiles out learns from, and its losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io import checkpoints
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.smile_removal import SmileRemovalConfig
from emoedit.training import smile_removal
from emoedit.training.smile_removal import Pairs, RealSmiles, SmileBatches, SmileRemovalTask, mean_error

SMALL = SmileRemovalConfig(resolution=32, widths=(8, 8, 16, 16))
SIZES = {"made": 4, "photographed": 1, "real": 2}
WEIGHTS = {"points": 9.0, "folds": 0.02, "light": 0.05, "drawn": 0.15}


def pairs(count: int, level: int) -> Pairs:
    """Grey faces, one lighter than the other, with a light bar where the mouth is, which the neutral ones lack."""
    neutral = np.full((count, 32, 32, 3), level, np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None, None]
    smiling = neutral.copy()
    smiling[:, 22:26, 10:22] = 250
    return Pairs(smiling, neutral)


def batches(seed: int = 0) -> SmileBatches:
    """Batches of drawn faces."""
    real = RealSmiles(pairs(3, 90).smiling, np.full((3, 68, 2), 0.5, np.float32))
    return SmileBatches(pairs(6, 120), pairs(2, 60), real, SIZES, seed=seed)


def task() -> SmileRemovalTask:
    """A small task with the shipped landmark network."""
    landmarks = MeasuringNetwork.from_pretrained(checkpoints.embedded_root() / "landmarks").eval()
    return SmileRemovalTask(SMALL, landmarks.requires_grad_(False), weights=WEIGHTS, same=1, photographed=1)


def test_a_batch_is_a_function_of_seed_and_step():
    first, again = batches()(3), batches()(3)
    assert all(torch.equal(first[key], again[key]) for key in first)
    for other in (batches()(4), batches(1)(3)):
        assert not torch.equal(other["smiling"], first["smiling"])
    assert first["smiling"].shape == first["neutral"].shape == (5, 3, 32, 32)
    assert first["real"].shape == (2, 3, 32, 32) and first["points"].shape == (2, 68, 2)
    assert first["neutral"][0].mean() < first["neutral"][1].mean()  # those photographed both ways are the first


def test_training_takes_what_neutral_photographs_lack_out():
    torch.manual_seed(0)
    learning, source = task(), batches()
    before, untrained = mean_error(learning.network.eval(), source.made)
    assert abs(before - untrained) < 0.1 * before
    optimiser = torch.optim.AdamW(learning.network.parameters(), 4e-3)
    learning.train()
    for step in range(60):
        found = learning(source(step))
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
    _, after = mean_error(learning.network.eval(), source.made)
    assert after < 0.7 * before


def test_landmarks_of_real_smiles_have_a_gradient_and_the_landmark_network_is_not_trained():
    torch.manual_seed(0)
    learning = task()
    assert {name.split(".")[0] for name, _ in learning.named_parameters()} == {"network"}
    torch.nn.init.normal_(learning.network.coarse.weight, std=0.05)
    learning(batches()(0))["loss"].backward()
    assert learning.network.coarse.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in learning._shared.landmarks.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_light_and_alignment_change_both_of_a_pair_alike(seed):
    torch.manual_seed(seed)
    x = torch.rand(4, 3, 32, 32) * 1.6 - 0.8
    for change in (task()._lit, smile_removal._aligned_anew):
        first, second = change(x, x.clone())
        assert torch.equal(first, second) and not torch.equal(first, x)
        assert first.shape == x.shape and first.abs().max() <= 1


def test_an_input_is_softer_and_noisier_and_nothing_else():
    torch.manual_seed(0)
    x = torch.zeros(64, 3, 32, 32)
    x[:, :, :, 16:] = 0.5
    worse = smile_removal._degraded(x)
    assert (worse.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs().max() < 0.01
    assert 0 < (worse - x).abs().max() < 0.6


def test_maps_that_do_not_change_are_smooth():
    assert smile_removal._roughness(torch.full((1, 2, 8, 8), 0.3), 2) == 0
    slope = torch.arange(8.0).expand(1, 1, 8, 8) / 8
    assert smile_removal._roughness(slope, 2) == pytest.approx(1.0)  # a pixel for each pixel
    assert smile_removal._roughness(slope, 1) == pytest.approx(1 / 8)


def test_the_landmark_network_reads_crops_as_they_are_prepared():
    """Its crop is that of the default architecture, so that no resampling is needed."""
    network, config = EmbeddedNetwork.load("landmarks").network.config, SmileRemovalConfig()
    assert (network.scale, network.down) == (config.scale, config.down)

"""What the network of mouths learns from, and that it learns; and the guide that asks for teeth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from emoedit.faces.teeth import TeethFinder, teeth_finder
from emoedit.nn.mouth import MouthConfig, standardise
from emoedit.training.guides import Guide, TeethGuide
from emoedit.training.loop import TrainerConfig, train
from emoedit.training.mouths import MouthBatches, MouthDegradation, MouthTask, find_teeth
from tests.fixtures.faces import LEVEL, lips, points_of, smiling

SMALL = MouthConfig(widths=(8, 8, 16))


@pytest.fixture(scope="module")
def finder() -> TeethFinder:
    return teeth_finder("cpu")


def test_a_guide_to_teeth(finder: TeethFinder):
    """Beside another guide's losses: a smile that shows them counts little, closed lips much, and more light on them
    is asked for; at any resolution of the same crop, and with nothing to learn."""

    class Other(Guide):
        def forward(self, plain: torch.Tensor, edited: torch.Tensor, rows: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"emotion": (edited - plain).mean()}

    guide = TeethGuide(Other(), finder.network)
    crops = np.stack([smiling(), lips(48, 72)])
    pictures = (torch.from_numpy(crops)[:, None] / 127.5 - 1).requires_grad_()
    shown, closed = (guide(p[None] - 1, p[None], torch.zeros(1, dtype=torch.long)) for p in pictures)
    assert shown["emotion"].item() == pytest.approx(1.0) and set(shown) == {"emotion", "teeth"}
    assert shown["teeth"] < 0.5 < 2 < closed["teeth"]
    larger = torch.nn.functional.interpolate(pictures[:1].detach(), (128, 128), mode="bicubic")
    torch.testing.assert_close(guide(larger, larger, torch.zeros(1))["teeth"], shown["teeth"], atol=0.05, rtol=0)
    closed["teeth"].backward()
    assert pictures.grad[1].any() and not pictures.grad[1, :, :40].any()
    assert not any(p.requires_grad for p in guide.parameters())


def test_teeth_of_a_photograph_are_found_and_gleams_are_not():
    crop = np.full((128, 128), LEVEL, np.float32)
    cv2.ellipse(crop, (64, 96), (22, 12), 0, 0, 360, LEVEL - 50, -1)
    closed = crop.copy()
    cv2.ellipse(crop, (64, 96), (16, 6), 0, 0, 360, LEVEL + 40, -1)
    crop += np.random.default_rng(0).normal(0, 8, crop.shape)
    points = points_of(64, 96, half=22, height=6, apart=12)
    found = find_teeth(crop.clip(0, 255).astype(np.uint8), points)
    true = np.zeros((128, 128), np.uint8)
    cv2.ellipse(true, (64, 96), (16, 6), 0, 0, 360, 1, -1)
    assert ((found > 0.5) & (true > 0)).sum() / ((found > 0.5) | (true > 0)).sum() > 0.8
    # Lips that do not part have none, however bright what is between them; nor have dark mouths.
    assert not find_teeth(crop.clip(0, 255).astype(np.uint8), points_of(64, 96, half=22, height=11)).any()
    assert not find_teeth(closed.astype(np.uint8), points).any()


def mouths(count: int = 6) -> dict[str, np.ndarray]:
    real = np.stack([np.roll(cv2.resize(smiling(), (128, 128))[64:, 32:96], n % 3, 1) for n in range(count)])
    real = real.clip(0, 255).astype(np.uint8)
    soft = np.stack([cv2.GaussianBlur(r, (0, 0), 2) for r in real])
    return {
        "real": real,
        "teeth": np.where(real > LEVEL + 15, 255, 0).astype(np.uint8),
        "denoised": soft,
        "rebuilt": soft,
    }


def test_batches_depend_on_their_step_alone():
    sources = mouths()
    batches = MouthBatches(sources, batch_size=4, seed=3)
    first, again, other = batches(5), MouthBatches(sources, batch_size=4, seed=3)(5), batches(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["unsure"], other["unsure"])
    assert {name: tuple(value.shape) for name, value in first.items()} == dict.fromkeys(
        ("unsure", "real", "teeth"), (4, 1, 64, 64)
    )
    # A pair is flipped together: teeth are where the real mouth is bright.
    assert first["real"][first["teeth"] > 0.9].min() > (LEVEL + 10) / 127.5 - 1


def test_unsure_mouths_are_softer_than_real_ones():
    sources = mouths()
    batch = MouthBatches(sources, batch_size=6, how=MouthDegradation(mix=0.0), seed=1)(0)
    steepest = [float(x.diff(dim=-1).abs().max()) for x in (batch["unsure"], batch["real"])]
    assert steepest[0] < 0.8 * steepest[1] and batch["unsure"].std() < 0.95 * batch["real"].std()


def test_it_learns_what_teeth_are(tmp_path: Path):
    """Forty steps on six mouths: teeth are told from lips, and it is nearer to the real mouth than what it is given."""
    torch.manual_seed(0)
    task, batches = MouthTask(SMALL), MouthBatches(mouths(), batch_size=4)
    trainer = TrainerConfig(steps=40, learning_rate=5e-3, warmup=1, ema=0.8, precision="no", save_every=40)
    averaged, held = train(task, batches, tmp_path, trainer), batches(999)
    z, mean, deviation = standardise(held["unsure"])
    sharp, teeth = averaged.network(z)
    right = ((teeth > 0) == (held["teeth"] > 0.5)).float().mean()
    assert right > 0.97 > (held["teeth"] <= 0.5).float().mean()
    off = (sharp * deviation + mean - held["real"]).abs().mean()
    assert off < 0.8 * (held["unsure"] - held["real"]).abs().mean()

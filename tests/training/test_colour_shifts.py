"""Shifts of h are fitted to models of colour as to those of luminance; a guide sees colour or luminance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoedit.models.luminance import in_luminance
from emoedit.models.stylegan2.backbone import StyleGAN2Config
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.steering.hspace import ShiftBlock
from emoedit.training.critic import Critic
from emoedit.training.data import CropSet
from emoedit.training.guides import RecogniserGuide
from emoedit.training.hspace import ShiftLoss, ShiftTask, SourceBatches, edited_timesteps, invert_crops, mean_h
from emoedit.training.recipes import tiles
from emoedit.training.stylegan import EncoderTask, GANTask, Weights
from emoedit.training.wspace import encoded_crops, recogniser_scores
from emoedit.types import LUMA_WEIGHTS
from tests.fixtures.ddpm import smooth, tiny
from tests.fixtures.stylegan2 import CONFIG
from tests.fixtures.stylegan2 import tiny as tiny_stylegan

COLOUR = {"unet": {"in_channels": 3, "out_channels": 3}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six crops in colour, written as the preparation writes them."""
    folder = tmp_path_factory.mktemp("crops")
    np.save(folder / "crops.npy", np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8))
    rows = [f"a,{n},{'happy' if n < 3 else 'neutral'},train" for n in range(6)]
    (folder / "index.csv").write_text("\n".join(["data,name,emotion,split", *rows]))
    return folder


@pytest.fixture(scope="module")
def recogniser():
    torch.manual_seed(0)
    heads = {"emotion": 2, "person": 4}
    return MeasuringNetwork(NetworkConfig(heads, 16, widths=(8, 8, 8, 8), emotions=("neutral", "happy")))


def test_mean_h_sees_colour(folder):
    backbone, crops, seed = tiny(**COLOUR), CropSet(folder), torch.Generator().manual_seed(0)
    found = mean_h(backbone, crops, np.arange(3), seed)
    assert found.shape == (len(edited_timesteps(backbone)), *backbone.h_shape)
    grey = folder / "grey"
    grey.mkdir()
    (grey / "index.csv").write_bytes((folder / "index.csv").read_bytes())
    np.save(grey / "crops.npy", np.rint(np.asarray(crops.crops) @ np.array(LUMA_WEIGHTS)).astype(np.uint8))
    without = mean_h(backbone, CropSet(grey), np.arange(3), torch.Generator().manual_seed(0))
    assert float((found - without).abs().max()) > 1e-3


def test_a_shift_is_fitted_in_colour(folder, recogniser):
    """Inversion, the edited way back, its prices, and the gradient that reaches the block."""
    backbone, crops = tiny(**COLOUR), CropSet(folder)
    sources = invert_crops(backbone, crops, np.arange(4), mirrored=True)
    assert sources.latent.shape == (8, 3, 16, 16)
    x = crops.pixels(np.arange(4), 16, 3)
    restored = backbone.decode(backbone.invert(x))
    torch.testing.assert_close(restored, x, atol=1e-4, rtol=0)
    block = ShiftBlock(backbone.h_shape[0], backbone.temb_dim)
    loss = ShiftLoss(guide={"emotion": 1.0, "person": 1.0}, outside=1.0, pale=1.0)
    task = ShiftTask(backbone, RecogniserGuide(recogniser, ["happy"]), [block], loss)
    losses = task(SourceBatches(sources, 1, np.full(8, -1), batch_size=2, seed=0)(0))
    assert set(losses) == {"loss", "emotion", "person", "near", "outside", "pale"}
    losses["loss"].backward()
    assert all(float(each.grad.abs().max()) > 0 for each in (block.conv1.weight, block.conv2.weight))


def test_a_recogniser_of_luminance_reads_colour(recogniser):
    x = smooth(4, 3)
    grey = in_luminance(x)
    torch.testing.assert_close(grey[:, 0], sum(x[:, n] * LUMA_WEIGHTS[n] for n in range(3)))
    assert in_luminance(grey) is grey
    scores = recogniser_scores(recogniser, ["happy"])
    torch.testing.assert_close(scores(x), scores(grey))
    guide, rows = RecogniserGuide(recogniser, ["happy"], jitter=0.0, noise=0.0), torch.zeros(4, dtype=torch.long)
    for name, value in guide(x, x.flip(-1), rows).items():
        torch.testing.assert_close(value, guide(grey, grey.flip(-1), rows)[name])


def test_generators_take_crops_apart_in_their_own_colours(folder):
    backbone = tiny_stylegan(channels=3)
    found = encoded_crops(backbone, CropSet(folder), np.arange(2))
    assert found.shape == (2, backbone.latent_shape[0] * backbone.latent_shape[1]) and bool(found.isfinite().all())


def test_generators_are_trained_in_colour(recogniser):
    """Both stages: the guide sees luminance, the output has colour, and the gradient reaches the encoder."""
    config, x = StyleGAN2Config(**CONFIG, channels=3), smooth(2, 3)
    perceptual = PerceptualNetwork(NetworkConfig({}, 16, widths=(8, 8, 8, 8)))
    task = GANTask(config, perceptual)
    drawn, losses = task({"real": x, "shown": x[:1], "side": 16})
    assert drawn.shape == x.shape and "perceptual" in losses
    assert Critic(3, (8, 8))(drawn.repeat(2, 1, 1, 1)).shape == (4,)
    losses["loss"].backward()
    encoder = EncoderTask(tiny_stylegan(channels=3), perceptual, recogniser, Weights(identity=1.0), samples=2)
    losses = encoder(x)
    assert {"rebuild", "perceptual", "identity"} <= set(losses)
    losses["loss"].backward()
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in encoder.encoder.parameters())


def test_previews_are_in_colour():
    rows = smooth(6, 3).view(2, 3, 3, 16, 16)
    sheet = tiles(rows)
    assert sheet.shape == (3, 32, 48)
    torch.testing.assert_close(sheet[:, 16:, :16], rows[1, 0] / 2 + 0.5)

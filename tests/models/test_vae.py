"""The VAE in colour: light and colour of the photograph come back, grey stays grey, configurations are checked."""

from __future__ import annotations

import pytest
import torch

from emoedit.models.vae.backbone import VAEBackbone, VAEConfig
from emoedit.types import CheckpointError, ImageError

COLOUR = {"resolution": 32, "widths": (8, 16), "latent_dim": 8, "channels": 3}
LIGHT = {"mean": (0.3, 0.0, -0.2), "std": (0.34, 0.31, 0.29)}


@pytest.fixture(scope="module")
def backbone() -> VAEBackbone:
    torch.manual_seed(0)
    return VAEBackbone(VAEConfig(**COLOUR, **LIGHT)).eval()


def faces(channels: int) -> torch.Tensor:
    return torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.6 - 0.4


def test_each_channel_is_encoded_at_one_mean_and_contrast(backbone):
    x = faces(3)
    lamp = x * torch.tensor([0.9, 0.6, 0.4])[:, None, None] + torch.tensor([0.1, -0.1, -0.3])[:, None, None]
    plain, warm = backbone.invert(x), backbone.invert(lamp)
    torch.testing.assert_close(warm.latent, plain.latent, atol=1e-4, rtol=1e-3)
    # What is drawn comes back under each photograph's own lamp.
    before, after = backbone.decode(plain), backbone.decode(warm)
    expected = before * torch.tensor([0.9, 0.6, 0.4])[:, None, None] + torch.tensor([0.1, -0.1, -0.3])[:, None, None]
    torch.testing.assert_close(after, expected, atol=1e-3, rtol=1e-3)


def test_a_grey_photograph_stays_grey(backbone):
    drawn = backbone.decode(backbone.invert(faces(1).expand(-1, 3, -1, -1)))
    assert drawn.shape == (2, 3, 32, 32) and float((drawn - drawn.mean(1, keepdim=True)).abs().max()) < 1e-5


def test_a_saved_model_of_colour_is_read_again(backbone, tmp_path):
    backbone.save_pretrained(tmp_path)
    again = VAEBackbone.from_pretrained(tmp_path)
    assert again.channels == 3
    torch.testing.assert_close(again.decode(again.invert(faces(3))), backbone.decode(backbone.invert(faces(3))))


def test_crops_of_another_kind_are_refused(backbone):
    with pytest.raises(ImageError, match=r"expected RGB, \[N, 3, 32, 32\]"):
        backbone.invert(faces(1))


@pytest.mark.parametrize(
    "wrong", [{"channels": 2}, {"mean": (0.0, 0.1)}, {"std": (0.3, 0.0, 0.3)}, {"std": "wide"}, {"mean": float("nan")}]
)
def test_a_configuration_that_does_not_fit_is_refused(wrong):
    with pytest.raises(CheckpointError, match="not a configuration of this VAE"):
        VAEBackbone.from_config({**COLOUR, **LIGHT, **wrong})

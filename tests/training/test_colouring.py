"""Models of colour that start from one of luminance draw the same faces, in the colours of the mean face."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from emoedit.models.stylegan2.backbone import StyleGAN2Backbone, StyleGAN2Config
from emoedit.models.vae.backbone import VAEBackbone, VAEConfig
from emoedit.training.colouring import (
    start_autoencoder_in_colour,
    start_stylegan_in_colour,
    start_unet_in_colour,
    start_vae_in_colour,
)
from emoedit.types import DataError
from tests.fixtures.ddpm import tiny as ddpm
from tests.fixtures.stable_diffusion import tiny as stable_diffusion

MEAN, STD = (0.3, 0.0, -0.2), (0.34, 0.31, 0.29)
GREY = VAEConfig(resolution=32, widths=(8, 16), latent_dim=8, mean=0.1, std=0.4)
COLOUR = replace(GREY, channels=3, latent_dim=12, mean=MEAN, std=STD)
SMALL = StyleGAN2Config(
    resolution=16, channels=1, widths=(8, 8, 8), z_dim=8, w_dim=8, encoder_widths=(8, 8), mean=0.1, std=0.4
)
BROAD = replace(SMALL, channels=3, mean=MEAN, std=STD)


def coloured(drawn: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (drawn - 0.1) / 0.4 * std + mean


def stirred(kind, config):
    """A model that draws something: a fresh one's blocks are silent."""
    torch.manual_seed(0)
    backbone = kind(config).eval()
    for weight in backbone.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return backbone


@pytest.fixture
def luminance() -> VAEBackbone:
    return stirred(VAEBackbone, GREY)


@pytest.fixture
def small() -> StyleGAN2Backbone:
    return stirred(StyleGAN2Backbone, SMALL)


def test_a_vae_is_drawn_in_the_colours_of_the_mean_face(luminance):
    torch.manual_seed(1)
    colour = VAEBackbone(COLOUR).eval()
    start_vae_in_colour(colour, luminance)
    z = torch.randn(2, 8)
    with torch.no_grad():
        drawn = luminance.decoder(z)
        more = colour.decoder(torch.cat([z, torch.randn(2, 4)], 1))  # what is new in the latent changes nothing yet
    torch.testing.assert_close(more, coloured(drawn), atol=1e-5, rtol=1e-4)


def test_grey_faces_have_the_same_latent_at_the_start(luminance):
    colour = VAEBackbone(COLOUR).eval()
    start_vae_in_colour(colour, luminance)
    grey = torch.rand(2, 1, 32, 32) * 1.2 - 0.6
    expected = luminance.invert(grey).latent
    found = colour.invert(grey.expand(-1, 3, -1, -1)).latent[:, :8]
    # Padding alone differs: beside the crop there is no mean face, but zero.
    assert float((found - expected).std()) < 0.3 * float(expected.std())


@pytest.mark.parametrize("wrong", [{"channels": 1, "mean": 0.0, "std": 0.4}, {"latent_dim": 4}, {"widths": (8, 24)}])
def test_models_that_do_not_fit_each_other_are_refused(luminance, wrong):
    with pytest.raises(DataError, match="^start: "):
        start_vae_in_colour(VAEBackbone(replace(COLOUR, **wrong)), luminance)


def test_a_stylegan_draws_and_reads_the_same_faces(small):
    torch.manual_seed(1)
    colour = StyleGAN2Backbone(BROAD).eval()
    start_stylegan_in_colour(colour, small)
    w = torch.randn(2, *small.latent_shape)
    with torch.no_grad():
        torch.testing.assert_close(colour.synthesis(w), coloured(small.synthesis(w)), atol=1e-5, rtol=1e-4)
    grey = torch.rand(2, 1, 16, 16) * 1.2 - 0.6
    expected, found = small.invert(grey).latent, colour.invert(grey.expand(-1, 3, -1, -1)).latent
    assert float((found - expected).std()) < 0.3 * float(expected.std())


@pytest.mark.parametrize("wrong", [{"channels": 1, "mean": 0.0, "std": 0.4}, {"std": None}, {"widths": (8, 8, 16)}])
def test_stylegans_that_do_not_fit_each_other_are_refused(small, wrong):
    with pytest.raises(DataError, match="^start: "):
        start_stylegan_in_colour(StyleGAN2Backbone(replace(BROAD, **wrong)), small)


def channels(count: int) -> dict[str, int]:
    return {"in_channels": count, "out_channels": count}


def test_a_unet_finds_the_same_noise_in_luminance_and_none_in_colour():
    torch.manual_seed(0)
    luminance = ddpm(patch=2, unet={"sample_size": 8, **channels(4)})
    colour = ddpm(patch=2, chroma=4.0, unet={"sample_size": 8, **channels(6)})
    start_unet_in_colour(colour.unet, luminance.unet)
    x_t = torch.randn(2, 6, 8, 8)
    state, noise = colour.split(x_t, 300)
    expected, expected_noise = luminance.split(x_t[:, :4], 300)
    with torch.no_grad():
        torch.testing.assert_close(state.h, expected.h)
        found = noise(state.h)
        torch.testing.assert_close(found[:, :4], expected_noise(expected.h))
    assert float(found[:, 4:].abs().max()) == 0


@pytest.mark.parametrize("wrong", [{"block_out_channels": [8, 24]}, channels(4)])
def test_unets_that_do_not_fit_each_other_are_refused(wrong):
    luminance = ddpm(patch=2, unet={"sample_size": 8, **channels(4)})
    other = {"sample_size": 8, **channels(6), **wrong}
    colour = ddpm(patch=2, chroma=None if wrong == channels(4) else 4.0, unet=other)
    before = [weight.clone() for weight in colour.unet.parameters()]
    with pytest.raises(DataError, match="start: it takes a U-Net of luminance"):
        start_unet_in_colour(colour.unet, luminance.unet)
    assert all(torch.equal(a, b) for a, b in zip(before, colour.unet.parameters(), strict=True))


def test_an_autoencoder_encodes_luminance_as_before():
    latent = {"latent_channels": 4, "block_out_channels": [8, 8], "norm_num_groups": 4}
    torch.manual_seed(0)
    luminance = stable_diffusion(unet=channels(4), vae={**channels(1), **latent}).vae
    torch.manual_seed(1)
    colour = stable_diffusion(unet=channels(6), vae={**channels(3), **latent, "latent_channels": 6}).vae
    start_autoencoder_in_colour(colour, luminance)
    x = torch.randn(2, 3, 16, 16)
    luma = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    with torch.no_grad():
        found, expected = colour.encode(x).latent_dist, luminance.encode(luma).latent_dist
        torch.testing.assert_close(found.mean[:, :4], expected.mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.logvar[:, :4], expected.logvar, atol=1e-5, rtol=1e-4)
    with pytest.raises(DataError, match="start: it takes an autoencoder of luminance"):
        start_autoencoder_in_colour(colour, colour)

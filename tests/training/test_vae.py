"""Training the VAE in colour."""

from __future__ import annotations

import torch

from emoedit.models.vae.backbone import VAEConfig
from emoedit.training.vae import VAETask

COLOUR = VAEConfig(resolution=32, widths=(8, 16), latent_dim=8, channels=3, std=(0.34, 0.31, 0.29))


def test_grey_pictures_teach_no_grey():
    task = VAETask(COLOUR, beta=0.0)
    grey = (torch.rand(2, 1, 32, 32) * 1.2 - 0.6).expand(-1, 3, -1, -1)
    task(grey)["loss"].backward()
    bias = task.backbone.decoder.out.bias.grad.view(3, 4).sum(1)
    # A loss of luminance alone has the weights of luminance as its gradient: no channel is drawn to the others.
    torch.testing.assert_close(bias / bias.sum(), torch.tensor([0.299, 0.587, 0.114]), atol=1e-4, rtol=1e-3)

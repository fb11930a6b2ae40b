"""The training task of the embedded VAE.

Absolute differences over a Laplacian pyramid (Burt & Adelson 1983; as a loss: Bojanowski et al. 2018, arXiv
1707.05776), weighted towards mouth, eyes and brows, plus the Kullback-Leibler term of the evidence bound.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.models.luminance import in_luminance, is_grey
from emoedit.models.vae.backbone import VAEBackbone, VAEConfig


def region_weights(resolution: int) -> Tensor:
    """``[1, 1, R, R]``, mean 1 over the crop: most at mouth, eyes and brows, least in the corners."""
    axis = torch.linspace(-1, 1, resolution)
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def bump(cx: float, cy: float, sx: float, sy: float) -> Tensor:
        return torch.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))

    weight = 0.25 + 0.75 * bump(0, 0.1, 0.8, 0.95)
    weight = (
        weight
        + 2.0 * bump(0, 0.47, 0.45, 0.32)
        + 1.5 * (bump(-0.38, -0.36, 0.32, 0.25) + bump(0.38, -0.36, 0.32, 0.25))
    )
    return (weight / weight.mean())[None, None]


def pyramid_loss(x: Tensor, y: Tensor, weight: Tensor, *, levels: int = 4) -> Tensor:
    """Weighted mean absolute difference of two Laplacian pyramids, ``[N, C, R, R]`` each -> scalar.

    The pyramid is linear, so the difference is taken first; a level's share halves with every octave.

    Args:
        x: ``[N, C, R, R]``.
        y: as ``x``.
        weight: ``[1, 1, R, R]``.
        levels: levels of the pyramids.
    """
    difference, total = x - y, x.new_zeros(())
    for level in range(levels):
        if level + 1 == levels:
            band = difference
        else:
            smaller = F.avg_pool2d(difference, 2)
            band = difference - F.interpolate(smaller, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + 2.0**-level * 2 * (band.abs() * weight).mean()
        if level + 1 < levels:
            difference, weight = smaller, F.avg_pool2d(weight, 2)
    return total


class VAETask(nn.Module):
    """Reconstruction and divergence of a VAE.

    Args:
        config: the architecture.
        beta: weight of the Kullback-Leibler term in nats a pixel.
    """

    weight: Tensor

    def __init__(self, config: VAEConfig, *, beta: float) -> None:
        super().__init__()
        self.backbone = VAEBackbone(config)
        self.beta = beta
        self.register_buffer("weight", region_weights(config.resolution), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``x`` ``[N, C, R, R]`` in [-1, 1]; of grey pictures in three channels luminance alone is compared."""
        grey = is_grey(x) if self.backbone.channels == 3 else None
        with torch.autocast(x.device.type, enabled=False):
            x, _, _ = self.backbone.normalise(x)
            x = x.clamp(-2.5, 2.5).contiguous(memory_format=torch.channels_last)
        mean, log_var = self.backbone.encoder(x)
        mean, log_var = mean.float(), log_var.float()
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        y = self.backbone.decoder(z).float()
        x = x.float()
        if grey is not None:  # their colours are unknown, and would teach the decoder to draw in grey
            x, y = (torch.where(grey, in_luminance(picture), picture) for picture in (x, y))
        reconstruction = pyramid_loss(x, y, self.weight)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean()
        return {
            "loss": reconstruction + self.beta * kl / x[0].numel(),
            "l1": (x - y).abs().mean().detach(),
            "kl": kl.detach(),
        }

"""What the embedded U-Net is trained for: to find the noise in a noisy crop (Ho et al. 2020, arXiv 2006.11239, eq. 14),
every noise level counted as min-SNR does (Hang et al. 2023, arXiv 2303.09556, section 3.4), and counted more where
expressions live."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.backbones.ddpm import DDPMBackbone, DDPMConfig, down, up
from emoedit.training.vae import region_weights


class DiffusionTask(nn.Module):
    """Args:
    config: the architecture and the noise.
    gamma: signal-to-noise ratio above which a noise level counts less.
    """

    def __init__(self, config: DDPMConfig, *, gamma: float = 5.0) -> None:
        super().__init__()
        self.backbone = DDPMBackbone(config)
        a = self.backbone.alpha_bar[: (config.t_last or len(self.backbone.alpha_bar) - 1) + 1]
        snr = a / (1 - a)
        self.register_buffer("alphas", a.float(), persistent=False)
        self.register_buffer("counts", (snr.clamp_max(gamma) / snr).float(), persistent=False)
        self.register_buffer("weight", region_weights(self.backbone.crop.resolution), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``x`` ``[N, C, R, R]`` in [-1, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            x = self.backbone.normalise(x)[0].clamp(-2.5, 2.5)
            # A timestep from each N-th of the schedule: all noise levels in every batch.
            share = (torch.arange(len(x), device=x.device) + torch.rand(len(x), device=x.device)) / len(x)
            t = (share * len(self.alphas)).long().clamp_max(len(self.alphas) - 1)
            a = self.alphas[t][:, None, None, None]
            noise = torch.randn_like(x)
            x_t = a.sqrt() * x + (1 - a).sqrt() * noise
        patch = self.backbone.config.patch
        h, skips, temb = down(self.backbone.unet, F.pixel_unshuffle(x_t, patch), t)
        found = F.pixel_shuffle(up(self.backbone.unet, h, skips, temb).float(), patch)
        error = ((found - noise).square() * self.weight).mean((1, 2, 3))
        third = len(x) // 3
        return {
            "loss": (error * self.counts[t]).mean(),
            "low": error[:third].mean().detach(),
            "middle": error[third:-third].mean().detach(),
            "high": error[-third:].mean().detach(),
        }

"""The task of the embedded U-Nets: to find the noise in a noisy crop.

Ho et al. 2020 (arXiv 2006.11239), eq. 14; noise levels are weighted as min-SNR does (Hang et al. 2023, arXiv
2303.09556, section 3.4), and more where expressions are decided.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.models.ddpm.backbone import DDPMBackbone, DDPMConfig, down, up
from emoedit.models.luminance import is_grey
from emoedit.models.planes import to_planes
from emoedit.training.vae import region_weights

LIMIT = 2.5  # what lies further from the mean than this is no face


class DenoisingTask(nn.Module):
    """What all such tasks share: which noise is put on a batch, and what an error in finding it counts.

    Args:
        alpha_bar: ``[T]`` of the schedule of noise.
        weight: what an error counts where, broadcast against ``[N, C, r, r]``; mean 1.
        t_last: nothing is learned about timesteps above it; None for all.
        gamma: signal-to-noise ratio above which a noise level counts less.
    """

    alphas: Tensor
    counts: Tensor
    weight: Tensor

    def __init__(self, alpha_bar: Tensor, weight: Tensor, *, t_last: int | None, gamma: float) -> None:
        super().__init__()
        a = alpha_bar[: (t_last or len(alpha_bar) - 1) + 1]
        snr = a / (1 - a)
        self.register_buffer("alphas", a.float(), persistent=False)
        self.register_buffer("counts", (snr.clamp_max(gamma) / snr).float(), persistent=False)
        self.register_buffer("weight", weight, persistent=False)

    def noisy(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, t ``[N]`` and the noise, of ``x`` ``[N, C, r, r]``; call it outside of autocast."""
        # A timestep from each N-th of the schedule: all noise levels in every batch.
        share = (torch.arange(len(x), device=x.device) + torch.rand(len(x), device=x.device)) / len(x)
        t = (share * len(self.alphas)).long().clamp_max(len(self.alphas) - 1)
        a = self.alphas[t][:, None, None, None]
        noise = torch.randn_like(x)
        return a.sqrt() * x + (1 - a).sqrt() * noise, t, noise

    def losses(self, found: Tensor, noise: Tensor, t: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of what was found; ``low``, ``middle`` and ``high``: the error at thirds of the noise levels.

        Args:
            found: the predicted noise.
            noise: the true noise.
            t: ``[N]`` timesteps.
            known: ``[N, C, 1, 1]``: 0 for channels of pictures that are not compared; default: all are.
        """
        squares = (found - noise).square() * self.weight
        error = (squares if known is None else squares * known).mean((1, 2, 3))
        third = len(error) // 3
        return {
            "loss": (error * self.counts[t]).mean(),
            "low": error[:third].mean().detach(),
            "middle": error[third:-third].mean().detach(),
            "high": error[-third:].mean().detach(),
        }


class DiffusionTask(DenoisingTask):
    """The noise in noisy crops, found by a U-Net.

    Args:
        config: the architecture and the noise.
        gamma: signal-to-noise ratio above which a noise level counts less.
    """

    def __init__(self, config: DDPMConfig, *, gamma: float = 5.0) -> None:
        backbone = DDPMBackbone(config)
        weight = region_weights(backbone.crop.resolution)
        weight = plane_weights(weight, config.patch, colour=config.chroma is not None)
        super().__init__(backbone.alpha_bar, weight, t_last=config.t_last, gamma=gamma)
        self.backbone = backbone

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``x`` ``[N, C, R, R]`` in [-1, 1]; of grey pictures in three channels luminance alone is compared."""
        config = self.backbone.config
        with torch.autocast(x.device.type, enabled=False):
            z = to_planes(self.backbone.normalise(x)[0].clamp(-LIMIT, LIMIT), config.patch, config.chroma)
            z_t, t, noise = self.noisy(z)
        h, skips, temb = down(self.backbone.unet, z_t, t)
        known = None if config.chroma is None else known_planes(x, config.patch)
        return self.losses(up(self.backbone.unet, h, skips, temb).float(), noise, t, known)


def plane_weights(weight: Tensor, patch: int, *, colour: bool) -> Tensor:
    """What an error in a crop's planes counts, ``[1, P, r, r]``.

    Args:
        weight: ``[1, 1, R, R]``, of its pixels.
        patch: side of the squares.
        colour: whether two planes of colour follow.
    """
    squares = F.pixel_unshuffle(weight, patch)
    return squares if not colour else torch.cat([squares, *[F.avg_pool2d(weight, patch)] * 2], 1)


def known_planes(x: Tensor, patch: int) -> Tensor:
    """``[N, P, 1, 1]``: 0 for the planes of colour of grey pictures, whose colours are unknown; else 1.

    Args:
        x: ``[N, 3, R, R]`` in [-1, 1].
        patch: side of the squares.
    """
    colour = (~is_grey(x)).to(x.dtype)
    return torch.cat([torch.ones_like(colour).expand(-1, patch**2, -1, -1), colour.expand(-1, 2, -1, -1)], 1)

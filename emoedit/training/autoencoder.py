"""The small autoencoder between pictures and latents of half the side.

A loss pulls its latent towards the planes of the normalised crop (``emoedit.models.planes``), so that training can
start from the weights of a U-Net that was trained on such planes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from emoedit.faces.masks import face_masks
from emoedit.models.planes import plane_count, to_planes
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.training.data import CropSet
from emoedit.training.diffusion import LIMIT
from emoedit.training.loop import Shared
from emoedit.training.vae import region_weights
from emoedit.types import CheckpointError

START = -10.0  # log variance of the posterior at the start: an encoder that has to grow sure first loses minutes


class AutoencoderTask(nn.Module):
    """Reconstruction, a small Kullback-Leibler term (Kingma & Welling 2014, arXiv 1312.6114), and the pull.

    Args:
        backbone: its ``vae`` is trained.
        beta: weight of the Kullback-Leibler term, in nats a number of the latent.
        pull: weight of the latent's distance from the planes.
        chroma: factor of the planes of colour; None where every channel is unshuffled.

    Raises:
        CheckpointError: a latent that has not as many channels as there are planes.
    """

    weight: Tensor

    def __init__(
        self, backbone: StableDiffusionBackbone, *, beta: float, pull: float, chroma: float | None = None
    ) -> None:
        super().__init__()
        side = backbone.crop.resolution
        self.patch, self.chroma = side // backbone.latent_shape[1], chroma
        planes = plane_count(self.patch, chroma, backbone.channels)
        if backbone.latent_shape[0] != planes or backbone.vae.quant_conv is None:
            raise CheckpointError(
                f"a latent of {backbone.latent_shape} for crops of {backbone.channels} x {side} x {side}: expected "
                f"{planes} channels, one for each plane of the crop"
            )
        self.vae, self.beta, self.pull = backbone.vae, beta, pull
        self._shared = Shared(normalise=backbone.normalise, device=lambda: backbone.device)
        self.register_buffer("weight", region_weights(side), persistent=False)
        with torch.no_grad():  # the second half of the channels: what the posterior's log variance is made of
            half = self.vae.quant_conv.out_channels // 2
            self.vae.quant_conv.weight[half:] *= 0.01
            self.vae.quant_conv.bias[half:] = START

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``x`` ``[N, C, R, R]`` in [-1, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            x = self._shared.normalise(x.to(self._shared.device()))[0].clamp(-LIMIT, LIMIT)
            x = x.contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(x).latent_dist
        mean, log_var = posterior.mean.float(), posterior.logvar.float()
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        difference = self.vae.decode(z).sample.float() - x
        scale = self.vae.config.scaling_factor
        far = (mean * scale - to_planes(x, self.patch, self.chroma)).square().mean()
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
        error = ((difference.abs() + difference.square()) * self.weight).mean()
        return {
            "loss": error + self.pull * far + self.beta * kl,
            "rms": difference.square().mean().sqrt().detach(),
            "far": far.sqrt().detach(),
            "deviation": (0.5 * log_var).exp().mean().detach(),
        }


@torch.no_grad()
def face_psnr(
    backbone: StableDiffusionBackbone, crops: CropSet, positions: np.ndarray, chroma: float | None = None
) -> tuple[float, float]:
    """Mean PSNR of the reconstruction, and of the latent, over crops, in decibel.

    The reconstruction is compared with the crop inside the face (the range of a picture being 2), the latent with the
    planes of the normalised crop.

    Args:
        backbone: the model.
        crops: prepared crops.
        positions: ``[N]``: which of the crops.
        chroma: as for ``AutoencoderTask``.
    """
    face = torch.from_numpy(face_masks(backbone.crop).face)[None, None]
    patch = backbone.crop.resolution // backbone.latent_shape[1]
    shown, latent = [], []
    for part in np.array_split(positions, max(1, len(positions) // 64)):
        x = crops.pixels(part, backbone.crop.resolution, backbone.channels)
        z, mean, gain = (value.cpu() for value in backbone.to_latent(x.to(backbone.device)))
        drawn = backbone.to_picture(*(value.to(backbone.device) for value in (z, mean, gain))).cpu()
        shown += (((drawn - x).square() * face).sum((1, 2, 3)) / face.sum() / backbone.channels).tolist()
        planes = to_planes(backbone.normalise(x.to(backbone.device))[0].cpu(), patch, chroma)
        latent += (z - planes).square().mean((1, 2, 3)).tolist()
    return _psnr(shown), _psnr(latent)


def _psnr(errors: Sequence[float]) -> float:
    """Mean PSNR of pictures whose range is 2, of their mean squared errors, in decibel."""
    return float(np.mean([10 * math.log10(4 / max(error, 1e-12)) for error in errors]))

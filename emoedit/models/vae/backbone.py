"""A convolutional variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114) on aligned crops, grey or in colour.

The encoder ends in one vector, not a map: a direction in it then means the same for every face, wherever its mouth is.
It modulates the decoder at every resolution (a scale and a shift a channel, Perez et al. 2018, arXiv 1709.07871).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.models import luminance as light
from emoedit.models.base import Callback
from emoedit.models.configured import ConfiguredBackbone
from emoedit.nn.layers import ModuleList, zeroed
from emoedit.types import CheckpointError, Control, CropSpec, ImageError, Inversion

NECK = 48  # channels of the smallest map next to the vector


@dataclass(frozen=True)
class VAEConfig:
    """The architecture.

    Args:
        resolution: side of the crop in pixels, a multiple of ``2 ** len(widths)``.
        widths: channels a level, finest first; the finest level works at half the resolution.
        encoder_blocks: residual blocks a level.
        decoder_blocks: as ``encoder_blocks``.
        latent_dim: length of z.
        crop_scale: the alignment (``emoedit.types.CropSpec``).
        crop_down: as ``crop_scale``.
        mean: what every crop is brought to inside the face before it is encoded (undone after decoding), in [-1, 1]: a
            number, or one of each channel.
        std: the same for its contrast.
        channels: 1 for luminance, 3 for RGB.
    """

    resolution: int = 96
    widths: Sequence[int] = (24, 64, 128, 192)
    encoder_blocks: int = 1
    decoder_blocks: int = 2
    latent_dim: int = 192
    crop_scale: float = 0.66
    crop_down: float = 0.074
    mean: light.PerChannel = 0.0
    std: light.PerChannel = 0.45
    channels: int = 1


class _Block(nn.Module):
    """Residual block; with ``style_dim`` its middle is scaled and shifted by the latent."""

    def __init__(self, width: int, style_dim: int = 0) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.style = nn.Linear(style_dim, 2 * width) if style_dim else None

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm(x)))
        if self.style is not None:
            scale, shift = self.style(z)[..., None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


class Encoder(nn.Module):
    """``[N, C, R, R]`` -> mean and log-variance, ``[N, D]`` each."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = list(config.widths)
        self.stem = nn.Conv2d(4 * config.channels, widths[0], 3, padding=1)
        layers: list[nn.Module] = []
        for i, width in enumerate(widths):
            if i:
                layers.append(nn.Conv2d(widths[i - 1], width, 3, stride=2, padding=1))
            layers += [_Block(width) for _ in range(config.encoder_blocks)]
        self.layers = nn.Sequential(*layers)
        side = config.resolution // 2 ** len(widths)
        self.norm = nn.GroupNorm(8, widths[-1])
        # A full layer on all channels would hold more weights than the rest of the model together.
        self.reduce = nn.Conv2d(widths[-1], NECK, 1)
        self.head = nn.Linear(NECK * side * side, 2 * config.latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One pass of the network.

        Args:
            x: ``[N, C, R, R]``.
        """
        h = self.layers(self.stem(F.pixel_unshuffle(x, 2)))
        mean, log_var = self.head(self.reduce(F.silu(self.norm(h))).flatten(1)).float().chunk(2, 1)
        return mean, log_var.clamp(-12, 6)


class Decoder(nn.Module):
    """``[N, D]`` -> ``[N, C, R, R]``."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = list(config.widths)[::-1]
        self.side = config.resolution // 2 ** len(widths)
        self.start = nn.Linear(config.latent_dim, NECK * self.side * self.side)
        self.expand = nn.Conv2d(NECK, widths[0], 1)
        self.levels: ModuleList[ModuleList[_Block]] = ModuleList()
        self.ups = nn.ModuleList()
        for i, width in enumerate(widths):
            self.levels.append(ModuleList(_Block(width, config.latent_dim) for _ in range(config.decoder_blocks)))
            if i + 1 < len(widths):
                self.ups.append(nn.Conv2d(width, widths[i + 1] * 4, 1))
        self.norm = nn.GroupNorm(8, widths[-1])
        self.out = nn.Conv2d(widths[-1], 4 * config.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """One pass of the network.

        Args:
            z: ``[N, D]``.
        """
        h = self.start(z).view(len(z), NECK, self.side, self.side).contiguous(memory_format=torch.channels_last)
        h = self.expand(h)
        for i, blocks in enumerate(self.levels):
            for block in blocks:
                h = block(h, z)
            if i < len(self.ups):
                h = F.pixel_shuffle(self.ups[i](h), 2)
        return F.pixel_shuffle(self.out(F.silu(self.norm(h))), 2)


class VAEBackbone(light.NormalisesLuminance, ConfiguredBackbone[VAEConfig]):
    """The VAE as a backbone: ``invert`` is the encoder's mean, ``decode`` the decoder; both undo and redo lighting.

    With ``channels`` 1 it sees luminance alone: a photograph keeps its own colours, and no edit can change one.

    Crops are brought to one mean and contrast inside the face first (in colour: of each channel), so that no direction
    has to spend itself on light; ``extras`` keeps both numbers of each picture.

    Args:
        config: the architecture and the crop.

    Raises:
        ValueError: a resolution, number of channels, mean or contrast that does not fit.
    """

    config: VAEConfig

    def __init__(self, config: VAEConfig = VAEConfig()) -> None:  # noqa: B008 - frozen
        super().__init__()
        if config.resolution % 2 ** len(config.widths):
            raise ValueError(f"resolution {config.resolution} is no multiple of {2 ** len(config.widths)}")
        if config.channels not in (1, 3):
            raise ValueError(f"channels are 1 or 3, not {config.channels!r}")
        if not light.fits(config.mean, config.std, config.channels):
            raise ValueError(
                f"mean {config.mean!r} and std {config.std!r} are no numbers for {config.channels} channels"
            )
        self.config, self.channels = config, config.channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.crop = CropSpec(config.resolution, "stable", config.crop_scale, config.crop_down)
        self.register_buffer("oval", light.face_oval(config.resolution), persistent=False)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture with fresh weights.

        Raises:
            CheckpointError: an entry is missing or unknown.
        """
        try:
            return cls(VAEConfig(**config))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"not a configuration of this VAE: {error}") from error

    @torch.no_grad()
    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """The latents of crops; see ``Backbone.invert``.

        Raises:
            ImageError: another shape than ``[N, C, R, R]``.
        """
        expected = (self.channels, *[self.config.resolution] * 2)
        if x.shape[1:] != expected:
            kind = "luminance" if self.channels == 1 else "RGB"
            raise ImageError(f"crops are {tuple(x.shape)}, expected {kind}, [N, {', '.join(map(str, expected))}]")
        normal, mean, gain = self.normalise(x)
        z, _ = self.encoder(normal.contiguous(memory_format=torch.channels_last))
        if callback:
            callback(1, 1)
        return Inversion(z, {"mean": mean, "gain": gain})

    @torch.no_grad()
    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The drawing of latents under a control; see ``Backbone.decode``."""
        z = inversion.latent if control.shift is None else inversion.latent + control.shift
        normal = self.decoder(z).float()
        if callback:
            callback(1, 1)
        return self.restore(normal, inversion.extras["mean"], inversion.extras["gain"])

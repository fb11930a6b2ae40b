"""Training tasks of the embedded StyleGAN2 and its encoder.

Training starts as a variational autoencoder: real crops are encoded into a posterior of w and reconstructed, small
ones at first and larger ones later (progressive growing: Karras et al. 2018, arXiv 1710.10196). Then the critic's loss
is added (Larsen et al. 2016, arXiv 1512.09300). Structure is learned in a fraction of the time of a critic alone, and
the encoder is trained along. The posterior is over w, because a fresh mapping network passes on little of z; the
mapping network learns the distribution of w, so random samples lie where real faces do. Then the encoder into w+ is
trained alone (Tov et al. 2021, arXiv 2102.02766).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.models.luminance import in_luminance, is_grey
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone, StyleGAN2Config
from emoedit.models.stylegan2.inversion import Losses
from emoedit.models.stylegan2.network import Encoder
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.perceptual import PerceptualNetwork, layer_distances
from emoedit.training.adversarial import Batch, GeneratorTask
from emoedit.training.data import MixtureBatches
from emoedit.training.diffusion import LIMIT
from emoedit.training.loop import Shared, TrainerConfig
from emoedit.training.vae import pyramid_loss, region_weights
from emoedit.types import DataError


@dataclass(frozen=True)
class Weights:
    """Weights of the parts of the loss.

    Args:
        rebuild: weight of ``emoedit.training.vae.pyramid_loss`` of reconstructed crops.
        perceptual: weight of the embedded perceptual distance of reconstructed crops.
        identity: weight of 1 - cosine of the identity embeddings of reconstructed crops.
        kl: weight of the Kullback-Leibler divergence, in nats, of the posterior of w from a standard normal one.
        prior: weight of ``energy_distance`` between mapped random z and recent pictures' w.
        latent: weight of the squared difference of a sample's w+ and the encoder's.
        spread: weight of the variance of the encoder's w+ over the layers: near W, edits act as they do on samples.
    """

    rebuild: float = 3.0
    perceptual: float = 2.0
    identity: float = 0.0
    kl: float = 1e-4
    prior: float = 1.0
    latent: float = 0.5
    spread: float = 0.1


RECENT = 2048  # pictures' w that mapping learns from
FEW = 256  # of them a step


class TwoMixtures:
    """Two mixtures of data: ``real`` pictures for the critic, and ``shown`` ones for the encoder.

    The second may be softer than the critic's real pictures.

    Args:
        growing: resolution of training -> step until which it is used; afterwards full resolution.
    """

    def __init__(self, real: MixtureBatches, shown: MixtureBatches, growing: Mapping[int, int] | None = None) -> None:
        self.real, self.shown, self.growing = real, shown, dict(growing or {})

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """Both, ``[N, 1, R, R]`` and ``[M, 1, R, R]`` in [-1, 1], and ``side``, a whole number."""
        side = next((side for side, until in sorted(self.growing.items()) if step < until), self.real.resolution)
        return {"real": self.real(step, process), "shown": self.shown(step, process), "side": torch.tensor(side)}


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """Energy distance of two sets of points, ``[N, D]`` and ``[M, D]`` -> scalar, in deviations.

    ``(2 E|x - y| - E|x - x'| - E|y - y'|) / sqrt(D)`` (Szekely & Rizzo 2013, equation 2.5).

    Args:
        x: ``[N, D]``.
        y: ``[M, D]``.
    """
    return (2 * torch.cdist(x, y).mean() - torch.pdist(x).mean() - torch.pdist(y).mean()) / x.shape[1] ** 0.5


class _ReconstructionLosses:
    """Losses of drawn pictures against their originals."""

    def __init__(self, weights: Weights, perceptual: PerceptualNetwork, identity: MeasuringNetwork | None) -> None:
        if weights.identity and identity is None:
            raise DataError("a weight of identity needs an identity network")
        self.weights, self.perceptual = weights, perceptual.requires_grad_(False)
        self.identity = identity if weights.identity else None

    def __call__(
        self, drawn: Tensor, original: Tensor, *, grey: Tensor, half: bool, perceptual: bool = True
    ) -> dict[str, Tensor]:
        """The weighted losses of drawn pictures.

        ``grey`` ``[N, 1, 1, 1]``: which originals have no colour: of those, luminance alone is compared, so that they
        do not teach a model of colour to draw in grey. ``half``: all are compared at half the resolution, so that the
        generator does not learn the softness of the originals. ``perceptual``: whether the perceptual distance is
        included.
        """
        if drawn.shape[1] > 1:
            drawn, original = (torch.where(grey, in_luminance(x), x) for x in (drawn, original))
        if half:
            drawn, original = (F.avg_pool2d(x, 2) for x in (drawn, original))
        found = {"rebuild": pyramid_loss(original, drawn, region_weights(drawn.shape[-1]).to(drawn))}
        if perceptual:
            network = self.perceptual.to(drawn.device)
            seen = [_resized(x, network) for x in (drawn, original)]
            with torch.autocast(drawn.device.type, torch.bfloat16):
                found["perceptual"] = (layer_distances(network, *seen) @ network.layer_weights).mean()
        if self.identity is not None:
            reader = self.identity.to(drawn.device)
            with torch.autocast(drawn.device.type, torch.bfloat16):
                vectors = [reader(_resized(x, reader))["person"] for x in (drawn, original)]
            found["identity"] = 1 - F.cosine_similarity(*vectors).mean()
        return found


def _resized(x: Tensor, network: MeasuringNetwork) -> Tensor:
    side = network.config.resolution
    return F.interpolate(in_luminance(x), (side, side), mode="bilinear", antialias=True, align_corners=False)


def _total(found: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    loss = sum(getattr(weights, name) * value for name, value in found.items())
    return {"loss": loss, **{name: value.detach() for name, value in found.items()}}


def _own_encoder(backbone: StyleGAN2Backbone) -> Encoder:
    """The embedded model's encoder.

    Raises:
        DataError: it has none, or one of others.
    """
    if not isinstance(backbone.encoder, Encoder):
        raise DataError("the embedded StyleGAN2 is trained with an encoder: set encoder_widths")
    return backbone.encoder


class GANTask(GeneratorTask):
    """Mapping, synthesis and encoder together.

    Args:
        config: the architecture, with an encoder.
        perceptual: frozen.
        weights: ``identity`` and ``spread`` are left to the encoder's own stage.
        mixing: share of the samples that have the styles of two (style mixing; Karras et al. 2019, arXiv 1812.04948).
        encoder_rate: learning rates of the encoder and of mapping, ordinary networks with Adam's usual averages.
        mapping_rate: as ``encoder_rate``.

    Raises:
        DataError: a configuration without an encoder.
    """

    recent: Tensor

    def __init__(
        self,
        config: StyleGAN2Config,
        perceptual: PerceptualNetwork,
        weights: Weights = Weights(),  # noqa: B008 - frozen
        *,
        mixing: float = 0.5,
        encoder_rate: float = 1e-3,
        mapping_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.backbone = StyleGAN2Backbone(config)
        # No noise: in as few steps as there are here it only hides the face, and an inversion would have to find it.
        for conv in self.backbone.synthesis.convs:
            conv.noise_strength.requires_grad_(False)
        # A larger picture begins as the smaller one, enlarged.
        for to_image in self.backbone.synthesis.to_images[1:]:
            nn.init.zeros_(to_image.weight)
        self.posterior = nn.Linear(self.encoder.shared.in_features, 2 * config.w_dim)
        nn.init.constant_(self.posterior.bias[config.w_dim :], -4.0)  # sure at first: noise comes when it is priced
        self.register_buffer("recent", torch.randn(RECENT, config.w_dim))
        self.weights, self.mixing = weights, mixing
        self.encoder_rate, self.mapping_rate = encoder_rate, mapping_rate
        self.rebuilding = Shared(losses=_ReconstructionLosses(weights, perceptual, None))

    @property
    def encoder(self) -> Encoder:
        """The backbone's."""
        return _own_encoder(self.backbone)

    def compile(self) -> None:
        """Fuse the synthesis network only: the rest is small, and what the critic needs twice has to stay as it is."""
        self.backbone.synthesis.compile()

    def groups(self, config: TrainerConfig) -> list[dict[str, Any]]:
        """Parameters with their learning rates.

        Args:
            config: config of the trainer.
        """
        drawing = [parameter for parameter in self.backbone.synthesis.parameters() if parameter.requires_grad]
        reading = [*self.encoder.parameters(), *self.posterior.parameters()]
        mapping, usual = [*self.backbone.mapping.parameters()], {"betas": (0.9, 0.99)}
        return [
            {"params": drawing, "lr": config.learning_rate},
            {"params": reading, "lr": self.encoder_rate, **usual},
            {"params": mapping, "lr": self.mapping_rate, **usual},
        ]

    @torch.no_grad()
    def finished(self) -> StyleGAN2Backbone:
        """The backbone, whose encoder gives the posterior's mean.

        Crops are encoded to the w that they were reconstructed from. An encoder trained on samples too gives w nearer
        to the mean, and softer reconstructions.
        """
        encoder, size = self.encoder, self.backbone.config.w_dim
        encoder.shared.weight.copy_(self.posterior.weight[:size])
        encoder.shared.bias.copy_(self.posterior.bias[:size] - self.backbone.mapping.w_avg)
        encoder.own.weight.zero_()
        encoder.own.bias.zero_()
        return self.backbone

    def real(self, batch: Batch) -> Tensor:
        """Real pictures of a batch, as the critic sees them.

        Args:
            batch: batch of a training step.
        """
        return self.backbone.normalise(batch["real"])[0].clamp(-LIMIT, LIMIT)

    def forward(self, batch: Batch, *, alone: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """As many pictures as are ``real``: random samples, then reconstructions of those that are ``shown``.

        Without the critic (``alone``), real crops are reconstructed in place of random samples, at ``side``.
        """
        backbone, dtype, side = self.backbone, self.backbone.dtype, int(batch["side"])
        shown = torch.cat([batch["shown"], batch["real"][len(batch["shown"]) :]]) if alone else batch["shown"]
        original = backbone.normalise(shown)[0].clamp(-LIMIT, LIMIT)
        count, layers = len(batch["real"]) - len(original), backbone.latent_shape[0]
        half = partial(torch.autocast, original.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
        with half():
            seen = self.encoder.trunk(original)
            mean, log_var = self.posterior(seen).float().chunk(2, 1)
        taken = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        backbone.mapping.track(taken)
        self.recent.copy_(torch.cat([taken.detach(), self.recent])[: len(self.recent)])
        among = torch.randperm(len(self.recent), device=original.device)[:FEW]
        random = torch.randn(max(FEW, 2 * count), backbone.config.z_dim, device=original.device)
        possible = backbone.mapping(random)
        w, other = possible[:count], possible[count : 2 * count]
        cut = torch.randint(1, layers, (count, 1), device=w.device)
        cut = torch.where(torch.rand(count, 1, device=w.device) < self.mixing, cut, layers)
        fine = torch.arange(layers, device=w.device) >= cut  # [count, L]
        sampled = torch.where(fine[..., None], other[:, None], w[:, None])
        drawn = backbone.synthesis(torch.cat([sampled, taken[:, None].expand(-1, layers, -1)]), dtype=dtype, side=side)
        target = original if side == original.shape[-1] else F.avg_pool2d(original, original.shape[-1] // side)
        how = {"grey": is_grey(shown), "half": not alone, "perceptual": not alone}
        found = self.rebuilding.losses(drawn[count:], target, **how)
        found["kl"] = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean()
        found["prior"] = energy_distance(possible, self.recent[among])
        # What the encoder into w+ has to find: samples, and the middle of what the posterior says of crops.
        some = -(-count // 2)
        truth = torch.cat([sampled[:some], mean[:, None].expand(-1, layers, -1)]).detach()
        with half():
            if some:
                again = self.encoder.trunk(drawn[:some].detach().clamp(-LIMIT, LIMIT))
                seen = torch.cat([again, seen])
            guess = backbone.mapping.w_avg + self.encoder.read(seen)
        found["latent"] = (guess - truth).square().mean()
        return drawn, _total(found, self.weights)


class EncoderTask(nn.Module):
    """Trains the encoder on samples, whose w is known, and on real crops; the generator is frozen or trained with it.

    Args:
        backbone: its encoder is trained; mapping is frozen.
        perceptual: frozen.
        identity: the same for identity.
        weights: weights of the losses.
        samples: drawn for each batch, at truncations from 0.5 to 1.
        synthesis: whether the generator is trained, too, on the reconstructions.
    """

    def __init__(
        self,
        backbone: StyleGAN2Backbone,
        perceptual: PerceptualNetwork,
        identity: MeasuringNetwork,
        weights: Weights,
        *,
        samples: int,
        synthesis: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = _own_encoder(backbone).requires_grad_(True)
        losses = _ReconstructionLosses(weights, perceptual, identity)
        self.frozen = Shared(backbone=backbone, losses=losses)
        backbone.mapping.requires_grad_(False)
        backbone.synthesis.requires_grad_(synthesis).train(synthesis)  # in training it keeps no prepared weights
        self.synthesis = backbone.synthesis if synthesis else None
        for conv in backbone.synthesis.convs:  # there is none: an inversion would have to find it
            conv.noise_strength.requires_grad_(False)
        self.weights, self.samples = weights, samples

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``x`` ``[N, C, R, R]`` in [-1, 1]."""
        backbone = self.frozen.backbone.to(x.device)
        dtype = backbone.dtype
        with torch.autocast(x.device.type, enabled=False):
            original = backbone.normalise(x)[0].clamp(-LIMIT, LIMIT)
            with torch.no_grad():
                w = backbone.mapping(torch.randn(self.samples, backbone.config.z_dim, device=x.device))
                share = 0.5 + 0.5 * torch.rand(self.samples, 1, device=x.device)
                w = backbone.mapping.w_avg.lerp(w, share)[:, None].expand(-1, *backbone.latent_shape)
                sampled = backbone.synthesis(w, dtype=dtype).clamp(-LIMIT, LIMIT)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                code = self.encoder(torch.cat([sampled, original]))
            again, taken = (backbone.mapping.w_avg + code).split([self.samples, len(original)])
            drawn = backbone.synthesis(taken, dtype=dtype)
            found = self.frozen.losses(drawn, original, grey=is_grey(x), half=True)
            found["latent"] = (again - w).square().mean()
            found["spread"] = taken.var(1, unbiased=False).mean()
        return _total(found, self.weights)


def inversion_losses(
    perceptual: PerceptualNetwork, identity: MeasuringNetwork, weights: tuple[float, float, float] = (1.0, 1.0, 0.5)
) -> Losses:
    """The losses of inversion with the embedded networks.

    Squared difference, perceptual distance, and 1 - cosine of the identity embeddings.

    Args:
        perceptual: the network for perceptual distance.
        identity: the network for identity.
        weights: weights of these three.
    """

    def far(drawn: Tensor, target: Tensor) -> Tensor:
        return (
            layer_distances(perceptual, *(_resized(x, perceptual) for x in (drawn, target))) @ perceptual.layer_weights
        )

    def other(drawn: Tensor, target: Tensor) -> Tensor:
        vectors = [identity(_resized(x, identity))["person"] for x in (drawn, target)]
        return 1 - F.cosine_similarity(*vectors)

    return Losses(far, other, weights)

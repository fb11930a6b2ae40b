"""Stable Diffusion's parts as a predictor of noise: under prompts, guided, and under shifts of h.

The U-Net is ``diffusers.UNet2DConditionModel``, cut behind its mid block, so that shifts of h work here as they do in
``emoedit.models.ddpm.backbone``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit import sampling
from emoedit.faces.masks import face_masks
from emoedit.models import luminance as light
from emoedit.models.devices import choose_precision
from emoedit.models.diffusion import DiffusionBackbone
from emoedit.models.precision import PrecisionCopy, cast_weights, finite_or_float32
from emoedit.models.stable_diffusion import files
from emoedit.models.stable_diffusion.config import (
    SAMPLING,
    StableDiffusionConfig,
    check_parts,
    check_sampling,
)
from emoedit.models.stable_diffusion.inversion import path_residuals
from emoedit.models.stable_diffusion.text import encode
from emoedit.models.stable_diffusion.unet import down, up
from emoedit.types import CheckpointError, CropSpec, HState, ImageError, Inversion

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, PreTrainedTokenizerBase


class NoisePredictor(DiffusionBackbone[StableDiffusionConfig]):
    """A U-Net, a VAE and a text encoder that fit together; without inversion and decoding.

    Args:
        config: see ``StableDiffusionConfig``.
        tokenizer: CLIP's.
        unet: U-Net of this configuration; default: new ones with fresh weights.
        vae: as ``unet``.
        text_encoder: as ``unet``.

    Raises:
        CheckpointError: parts that do not fit together, or that this class does not support.
        EditError: settings of sampling that do not fit the schedule or each other.
    """

    settings = SAMPLING
    unsupported: Mapping[str, str] = {}
    unet: UNet2DConditionModel
    face: Tensor

    def __init__(
        self,
        config: StableDiffusionConfig,
        tokenizer: PreTrainedTokenizerBase,
        *,
        unet: UNet2DConditionModel | None = None,
        vae: AutoencoderKL | None = None,
        text_encoder: CLIPTextModel | None = None,
    ) -> None:
        super().__init__()
        side = check_parts(config)
        self.tokenizer = tokenizer
        self.unet = files.new_unet(config.unet) if unet is None else unet
        self.vae = files.new_vae(config.vae) if vae is None else vae
        self.text_encoder = files.new_text_encoder(config.text_encoder) if text_encoder is None else text_encoder
        words = self.text_encoder.get_input_embeddings().num_embeddings
        if len(tokenizer) > words:
            raise CheckpointError(f"the tokenizer has {len(tokenizer)} tokens, the text encoder {words}")
        resolution = side * 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.crop = CropSpec(resolution, config.crop_style, config.crop_scale, config.crop_down)
        self.channels = self.vae.config.in_channels
        self.unet_side, self.latent_shape = side, (self.unet.config.in_channels, side, side)
        self.alpha_bar = sampling.alpha_bar(files.betas(config.scheduler))
        self.register_buffer("oval", light.face_oval(resolution), persistent=False)
        face = torch.from_numpy(face_masks(self.crop).face)[None, None]
        self.register_buffer("face", F.interpolate(face, size=(side, side), mode="area"), persistent=False)
        self.unet.to(memory_format=torch.channels_last)
        self.vae.to(memory_format=torch.channels_last)
        self._in_precision: PrecisionCopy[UNet2DConditionModel] = PrecisionCopy()
        self._offload_device: torch.device | None = None  # where parts wait that are offloaded
        self._set(config)

    def _set(self, config: StableDiffusionConfig) -> None:
        check_sampling(config, len(self.alpha_bar) - 1)
        self.schedule = sampling.make_schedule(self.alpha_bar, config.steps, config.t_last)
        self.config = config

    @property
    def v_prediction(self) -> bool:
        """Whether the U-Net gives v (Salimans & Ho 2022, arXiv 2202.00512) and not the noise."""
        return self.config.scheduler.get("prediction_type") == "v_prediction"

    # Pictures, latents, prompts

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The scaled mean of the VAE's posterior ``[N, C, r, r]``, and what ``normalise`` took away.

        Args:
            x: ``[N, 1 or 3, R, R]`` in [-1, 1].

        Raises:
            ImageError: pictures of another shape.
        """
        side = self.crop.resolution
        if x.shape[1:] != (self.channels, side, side):
            raise ImageError(f"crops are {tuple(x.shape)}, expected [N, {self.channels}, {side}, {side}]")
        x, mean, gain = self.normalise(x)
        with self._on_device(self.vae):
            posterior = self.vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist
        return posterior.mean * self.vae.config.scaling_factor, mean, gain

    def to_picture(self, z: Tensor, mean: Tensor, gain: Tensor) -> Tensor:
        """What the VAE draws of a latent, ``[N, 1 or 3, R, R]`` in about [-1, 1], with mean and gain put back.

        Args:
            z: ``[N, C, r, r]``.
            mean: ``[N, 1 or C, 1, 1]`` mean of each crop before it was normalised.
            gain: ``[N, 1 or C, 1, 1]`` factor of each crop's contrast.
        """
        with self._on_device(self.vae):
            x = self.vae.decode(z / self.vae.config.scaling_factor).sample
        return self.restore(x, mean, gain)

    def context(self, *prompts: str) -> Tensor:
        """Contexts of prompts, ``[N, T, D]``; without any, of the neutral one.

        Raises:
            EditError: a prompt is too long.
        """
        with self._on_device(self.text_encoder):
            return encode(self.tokenizer, self.text_encoder, prompts or (self.config.prompt,))

    # The U-Net

    def to_device(self, device: str, precision: str = "auto", *, offload: bool = False) -> Self:
        """See ``Backbone.to_device``.

        The U-Net, four fifths of the weights, is held in the chosen type; VAE and text encoder stay in float32, because
        what they lose the photograph loses. The VAE takes pictures one by one.

        Args:
            device: as there.
            precision: as ``device``.
            offload: VAE and text encoder stay on the CPU and visit the device while they work; the VAE works in tiles
                above 512 pixels.
        """
        dtype = choose_precision(precision, device)
        cast_weights(self.unet, dtype)
        self._set(replace(self.config, precision=cast("Any", str(dtype).removeprefix("torch."))))
        self.vae.enable_slicing()
        self.to(device)
        if offload and torch.device(device).type != "cpu":
            self.vae.enable_tiling()
            self._offload_device = torch.device("cpu")
            for part in (self.vae, self.text_encoder):
                part.to(self._offload_device)
        return self

    @contextmanager
    def _on_device(self, part: nn.Module) -> Iterator[None]:
        """A part that is offloaded, on the device while it works."""
        if self._offload_device is None:
            yield
            return
        part.to(self.device)
        try:
            yield
        finally:
            part.to(self._offload_device)

    @property
    def device(self) -> torch.device:
        """Where it computes: parts that are offloaded come there."""
        return self.face.device

    def _unet_in_precision(self) -> UNet2DConditionModel:
        return self._in_precision.of(self.unet, self.config.precision)

    def _noise(self, found: Tensor, x: Tensor, t: int) -> Tensor:
        """What the U-Net gave as noise."""
        if not self.v_prediction:
            return found
        a_t = float(self.alpha_bar[t])
        return a_t**0.5 * found + (1 - a_t) ** 0.5 * x

    def eps_at(
        self,
        context: Tensor | None = None,
        delta_h: Callable[[HState], Tensor] | None = None,
        *,
        spans: Tensor | None = None,
        null: Tensor | None = None,
    ) -> sampling.ShiftedEpsAt:
        """The function that gives the noise in x_t and the noise under the shifted h, for the samplers.

        The second is None where h is not shifted. Differentiable; see ``emoedit.sampling``.

        Guidance acts on what the context changes, a shift of h is added as it is: eps = e(n) + w (e(c) - e(n)), and
        shifted eps + e(c, h + delta_h) - e(c).

        Args:
            context: ``[N or 1, T, D]``, used at timesteps ``t_text_min`` to ``t_text_max``; None for the neutral one.
            delta_h: ``emoedit.types.Control``'s, used from ``t_edit`` up; sees h under the timestep's context.
            spans: ``[N, 2]`` first and last timestep of each picture's context, in place of these.
            null: ``[N, S, T, D]`` of null-text optimisation, in place of the negative prompt's.
        """
        unet, config, neutral = self._unet_in_precision(), self.config, self.context()
        negative = None if config.negative is None or null is not None else self.context(config.negative)

        def one_pass(unet: UNet2DConditionModel, x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            count = len(x)
            asked, whole = self._context_at(context, spans, t)
            edited = asked is not None
            texts = [(neutral if asked is None else asked).expand(count, -1, -1)]
            if config.guidance != 1 and null is not None:
                texts.append(null[:, self.schedule.timesteps.index(t)])
            elif config.guidance != 1 and (negative is not None or edited):
                texts.append((neutral if negative is None else negative).expand(count, -1, -1))
            times, text, rows = _all(x, t), torch.cat(texts), len(texts)
            h, skips, temb = down(unet, x.repeat(rows, 1, 1, 1), times.repeat(rows), text)

            def h_under(other: Tensor | None) -> Tensor:
                if other is (context if whole else None) and edited is whole:
                    return state.h
                other = neutral if other is None else other
                return down(unet, x, times, other.expand(count, -1, -1))[0].to(temb.dtype)

            state = HState(x, times, h[:count].to(temb.dtype), temb[:count], h_under)
            shift = None if delta_h is None or t < config.t_edit else _checked(delta_h(state), state.h)
            moved = times[:0] if shift is None else shift.flatten(1).any(1).nonzero()[:, 0]  # others: the plain noise
            if shift is not None and len(moved):
                h = torch.cat([h, h[moved] + shift[moved].to(h.dtype)])
                skips = tuple(torch.cat([skip, skip[moved]]) for skip in skips)
                temb, text = torch.cat([temb, temb[moved]]), torch.cat([text, texts[0][moved]])
            found = self._noise(up(unet, h, skips, temb, text), torch.cat([x] * rows + [x[moved]]), t)
            *parts, other = found.tensor_split([count * (k + 1) for k in range(rows)])
            eps = parts[0] if rows == 1 else parts[1] + config.guidance * (parts[0] - parts[1])
            return eps, eps.index_add(0, moved, other - parts[0][moved]) if len(moved) else None

        def eps_at(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            nonlocal unet
            found, unet = finite_or_float32(lambda by: one_pass(by, x, t), unet, self.unet, t)
            return found

        return eps_at

    def _context_at(self, context: Tensor | None, spans: Tensor | None, t: int) -> tuple[Tensor | None, bool]:
        """The context at a timestep, None if all of it is the neutral one; whether it is all that was given."""
        if context is None:
            return None, False
        if spans is None:
            used = self.config.t_text_min <= t <= self.config.t_text_max
            return (context, True) if used else (None, False)
        inside = (spans[:, 0] <= t) & (t <= spans[:, 1])
        if bool(inside.all()):
            return context, True
        return (
            (torch.where(inside[:, None, None], context, self.context()), False)
            if bool(inside.any())
            else (None, False)
        )

    def _state_and_eps(self, x: Tensor, t: int, context: Tensor) -> tuple[HState, Tensor]:
        """What the U-Net makes of x_t under one context, ``[N or 1, T, D]``, and the noise it finds."""
        times, context = _all(x, t), context.expand(len(x), -1, -1)

        def one_pass(unet: UNet2DConditionModel) -> tuple[Tensor, Tensor, Tensor]:
            h, skips, temb = down(unet, x, times, context)
            return h.to(temb.dtype), temb, self._noise(up(unet, h, skips, temb, context), x, t)

        (h, temb, eps), _ = finite_or_float32(one_pass, self._unet_in_precision(), self.unet, t)
        return HState(x, times, h, temb, lambda other: self.state(x, t, other).h), eps

    def split(self, x_t: Tensor, t: int) -> tuple[HState, Callable[[Tensor], Tensor]]:
        """The state at a timestep under the neutral context, and the noise that follows from any h there.

        Differentiable, for fitting shifts.

        Args:
            x_t: ``[N, C, R, R]`` noisy pictures.
            t: timestep.
        """
        unet, times = self._unet_in_precision(), _all(x_t, t)
        context = self.context().detach().expand(len(x_t), -1, -1)
        h, skips, temb = down(unet, x_t, times, context)
        state = HState(x_t, times, h.to(temb.dtype), temb, lambda other: self.state(x_t, t, other).h)
        return state, lambda other: self._noise(up(unet, other.to(h.dtype), skips, temb, context), x_t, t)

    def residuals(self, inversion: Inversion) -> Tensor:
        """The residuals of every step back from x_T to the source's path.

        ``[N, S, C, r, r]`` (``emoedit.sampling.exact_inversion``).

        Args:
            inversion: inversion of N pictures.
        """
        extras = inversion.extras
        return path_residuals(extras["path"], extras["x0"], extras["eps"], self.schedule, stochastic=False)

    @torch.no_grad()
    def state(self, x_t: Tensor, t: int, context: Tensor | None = None) -> HState:
        """What the down path and the mid block make of latents at timestep ``t``: h, without the noise that follows.

        Latents are ``[N, C, r, r]``; the context is the neutral one or ``[N or 1, T, D]``.

        Args:
            x_t: ``[N, C, R, R]`` noisy pictures.
            t: timestep.
            context: ``[N or 1, T, D]``; None for the neutral one.
        """
        context, times = self.context() if context is None else context, _all(x_t, t)
        h, _, temb = down(self._unet_in_precision(), x_t, times, context.expand(len(x_t), -1, -1))
        return HState(x_t, times, h.to(temb.dtype), temb, lambda other: self.state(x_t, t, other).h)

    @torch.no_grad()
    def path(self, x: Tensor) -> Iterator[tuple[HState, Tensor]]:
        """The U-Net's inputs along the inversion of pictures.

        Its state and the noise it finds, at every timestep of the schedule, ascending; by DDIM, under the neutral
        prompt. For fitting shifts of h.

        Args:
            x: ``[N, 1 or 3, R, R]`` in [-1, 1].
        """
        neutral, seen = self.context(), []

        def eps_at(x_t: Tensor, t: int) -> Tensor:
            state, eps = self._state_and_eps(x_t, t, neutral)
            seen.append(state)
            return eps

        for _, eps in sampling.inversion_path(eps_at, self.to_latent(x)[0], self.schedule):
            yield seen.pop(), eps


def _all(x: Tensor, t: int) -> Tensor:
    return torch.full((len(x),), t, device=x.device)


def _checked(shift: Tensor, h: Tensor) -> Tensor:
    if shift.shape != h.shape:
        raise CheckpointError(f"the shift of h is {tuple(shift.shape)}, but h is {tuple(h.shape)}")
    return shift

"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022, arXiv 2112.10752) as a backbone.

A picture's latent is inverted to noise under a neutral prompt and led back under a context that moves towards another
one.

The U-Net is ``diffusers.UNet2DConditionModel``, cut behind its mid block, so that shifts of h work here as they do in
``backbone``. Folders have diffusers' layout; full-size models and small ones that see luminance are
this one class.
"""

from __future__ import annotations

import copy
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit import sampling
from emoedit.faces.masks import face_masks
from emoedit.io import checkpoints
from emoedit.models import luminance as light
from emoedit.models.base import Backbone, Callback, check_settings
from emoedit.models.devices import choose_precision
from emoedit.models.precision import InPrecision, finite_or_float32, hold
from emoedit.models.stable_diffusion import files
from emoedit.models.stable_diffusion.config import (
    INVERSIONS,
    PARTS,
    SAMPLING,
    StableDiffusionConfig,
    check_parts,
    check_sampling,
)
from emoedit.models.stable_diffusion.inversion import lost_steps, noise_maps, noisy_path, null_text
from emoedit.models.stable_diffusion.text import encode
from emoedit.models.stable_diffusion.unet import down, up
from emoedit.types import CheckpointError, Control, CropSpec, EditError, HState, ImageError, Inversion

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, PreTrainedTokenizerBase


class StableDiffusionBackbone(light.EvensLight, Backbone):
    """Inversion and decoding around a latent diffusion model with a text encoder.

    ``latent`` is x_T, ``[N, C, r, r]``. ``extras``: ``mean`` and ``gain`` of each crop; ``kept``, its latent; ``seed``
    of its noise; ``made_for`` (what has to be the same when it is decoded); where there is an inversion, ``path`` and
    ``eps`` ``[N, S, C, r, r]`` (x_t and the noise in it at every step); of null-text optimisation ``null``
    ``[N, S, T, D]``.

    Args:
        config: see ``StableDiffusionConfig``.
        tokenizer: CLIP's.
        unet: of this configuration; default: new ones with fresh weights.
        vae: as ``unet``.
        text_encoder: as ``unet``.

    Raises:
        CheckpointError: parts that do not fit together, or that this class does not know how to use.
        EditError: settings of sampling that do not fit the schedule or each other.
    """

    settings = SAMPLING

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
            raise CheckpointError(f"the tokenizer knows {len(tokenizer)} tokens, the text encoder {words}")
        resolution = side * 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.crop = CropSpec(resolution, config.crop_style, config.crop_scale, config.crop_down)
        self.channels = self.vae.config.in_channels
        self.latent_shape = (self.unet.config.in_channels, side, side)
        self.alpha_bar = sampling.alpha_bar(files.betas(config.scheduler))
        self.register_buffer("oval", light.face_oval(resolution), persistent=False)
        face = torch.from_numpy(face_masks(self.crop).face)[None, None]
        self.register_buffer("face", F.interpolate(face, size=(side, side), mode="area"), persistent=False)
        self.unet.to(memory_format=torch.channels_last)
        self.vae.to(memory_format=torch.channels_last)
        self._in_precision: InPrecision[UNet2DConditionModel] = InPrecision()
        self._away: torch.device | None = None  # where parts wait that are offloaded
        self._set(config)

    def _set(self, config: StableDiffusionConfig) -> None:
        check_sampling(config, len(self.alpha_bar) - 1)
        self.schedule = sampling.make_schedule(self.alpha_bar, config.steps, config.t_last)
        self.config = config

    def with_sampling(self, **settings: Any) -> Self:
        """See ``Backbone.with_sampling``."""
        check_settings(self, settings)
        other = copy.copy(self)
        other._set(replace(self.config, **settings))
        return other

    @property
    def steps(self) -> int:
        """Steps of decoding; a fitted shift of h is scaled by them."""
        return self.config.steps

    @property
    def h_shape(self) -> tuple[int, int, int]:
        """``(Ch, r', r')`` of the mid block's output."""
        widths = self.unet.config.block_out_channels
        side = self.latent_shape[1] // 2 ** (len(widths) - 1)
        return widths[-1], side, side

    @property
    def temb_dim(self) -> int:
        """Length of the timestep embedding."""
        return self.unet.time_embedding.linear_2.out_features

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
            ImageError: of another shape.
        """
        side = self.crop.resolution
        if x.shape[1:] != (self.channels, side, side):
            raise ImageError(f"crops are {tuple(x.shape)}, expected [N, {self.channels}, {side}, {side}]")
        x, mean, gain = self.normalise(x)
        with self._here(self.vae):
            posterior = self.vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist
        return posterior.mean * self.vae.config.scaling_factor, mean, gain

    def to_picture(self, z: Tensor, mean: Tensor, gain: Tensor) -> Tensor:
        """What the VAE draws of a latent, ``[N, 1 or 3, R, R]`` in about [-1, 1], with mean and gain put back."""
        with self._here(self.vae):
            x = self.vae.decode(z / self.vae.config.scaling_factor).sample
        return (x if self.config.std is None else x - self.config.mean) * gain + mean

    def context(self, *prompts: str) -> Tensor:
        """Contexts of prompts, ``[N, T, D]``; without any, of the neutral one.

        Raises:
            EditError: a prompt is too long.
        """
        with self._here(self.text_encoder):
            return encode(self.tokenizer, self.text_encoder, prompts or (self.config.prompt,))

    # The U-Net

    def settle(self, device: str, precision: str = "auto", *, offload: bool = False) -> Self:
        """See ``Backbone.settle``.

        The U-Net, four fifths of the weights, is held in the chosen type; VAE and text encoder stay in float32, because
        what they lose the photograph loses. The VAE takes pictures one by one.

        Args:
            device: as there.
            precision: as ``device``.
            offload: VAE and text encoder stay on the CPU and visit the device while they work; the VAE works in tiles
                above 512 pixels.
        """
        dtype = choose_precision(precision, device)
        hold(self.unet, dtype)
        self._set(replace(self.config, precision=str(dtype).removeprefix("torch.")))
        self.vae.enable_slicing()
        self.to(device)
        if offload and torch.device(device).type != "cpu":
            self.vae.enable_tiling()
            self._away = torch.device("cpu")
            for part in (self.vae, self.text_encoder):
                part.to(self._away)
        return self

    @contextmanager
    def _here(self, part: nn.Module) -> Iterator[None]:
        """A part that is offloaded, on the device while it works."""
        if self._away is None:
            yield
            return
        part.to(self.device)
        try:
            yield
        finally:
            part.to(self._away)

    @property
    def device(self) -> torch.device:
        """Where it computes: parts that are offloaded come there."""
        return self.face.device

    def _working(self) -> UNet2DConditionModel:
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
        unet, config = self._working(), self.config
        neutral = self.context()
        negative = None if config.negative is None or null is not None else self.context(config.negative)

        def one_pass(unet: UNet2DConditionModel, x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            count = len(x)
            asked, whole = self._asked(context, spans, t)
            edited = asked is not None
            texts = [(asked if edited else neutral).expand(count, -1, -1)]
            if null is not None:
                texts.append(null[:, self.schedule.timesteps.index(t)])
            elif negative is not None or edited:
                texts.append((neutral if negative is None else negative).expand(count, -1, -1))
            if config.guidance == 1:
                del texts[1:]
            times = _all(x, t)
            text, rows = torch.cat(texts), len(texts)
            h, skips, temb = down(unet, x.repeat(rows, 1, 1, 1), times.repeat(rows), text)

            def h_under(other: Tensor | None) -> Tensor:
                if other is (context if whole else None) and edited is whole:
                    return state.h
                other = neutral if other is None else other
                return down(unet, x, times, other.expand(count, -1, -1))[0].to(temb.dtype)

            state = HState(x, times, h[:count].to(temb.dtype), temb[:count], h_under)
            moved, seen = torch.empty(0, dtype=torch.long, device=x.device), [x] * rows
            if delta_h is not None and t >= config.t_edit:
                shift = delta_h(state)
                if shift.shape != state.h.shape:
                    raise CheckpointError(f"the shift of h is {tuple(shift.shape)}, but h is {tuple(state.h.shape)}")
                moved = shift.flatten(1).any(1).nonzero()[:, 0]  # the others' noise is the plain one
            if len(moved):
                h = torch.cat([h, h[moved] + shift[moved].to(h.dtype)])
                skips = tuple(torch.cat([skip, skip[moved]]) for skip in skips)
                temb, text = torch.cat([temb, temb[moved]]), torch.cat([text, texts[0][moved]])
                seen.append(x[moved])
            found = self._noise(up(unet, h, skips, temb, text), torch.cat(seen), t)
            *parts, other = found.tensor_split([count * (k + 1) for k in range(rows)])
            eps = parts[0] if rows == 1 else parts[1] + config.guidance * (parts[0] - parts[1])
            return eps, eps.index_add(0, moved, other - parts[0][moved]) if len(moved) else None

        def eps_at(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            nonlocal unet
            found, unet = finite_or_float32(lambda by: one_pass(by, x, t), unet, self.unet, t)
            return found

        return eps_at

    def _asked(self, context: Tensor | None, spans: Tensor | None, t: int) -> tuple[Tensor | None, bool]:
        """The context at a timestep, None if all of it is the neutral one; whether it is all that was given."""
        if context is None:
            return None, False
        if spans is None:
            inside = self.config.t_text_min <= t <= self.config.t_text_max
            return (context, True) if inside else (None, False)
        inside = (spans[:, 0] <= t) & (t <= spans[:, 1])
        if bool(inside.all()):
            return context, True
        return (
            (torch.where(inside[:, None, None], context, self.context()), False)
            if bool(inside.any())
            else (None, False)
        )

    def _see(self, x: Tensor, t: int, context: Tensor) -> tuple[HState, Tensor]:
        """What the U-Net makes of x_t under one context, ``[N or 1, T, D]``, and the noise it finds."""
        times, context = _all(x, t), context.expand(len(x), -1, -1)

        def one_pass(unet: UNet2DConditionModel) -> tuple[Tensor, ...]:
            h, skips, temb = down(unet, x, times, context)
            return h.to(temb.dtype), temb, self._noise(up(unet, h, skips, temb, context), x, t)

        (h, temb, eps), _ = finite_or_float32(one_pass, self._working(), self.unet, t)
        return HState(x, times, h, temb, lambda other: self.state(x, t, other).h), eps

    def split(self, x_t: Tensor, t: int) -> tuple[HState, Callable[[Tensor], Tensor]]:
        """The state at a timestep under the neutral context, and the noise that follows from any h there.

        Differentiable, for fitting shifts.
        """
        unet, times = self._working(), _all(x_t, t)
        context = self.context().detach().expand(len(x_t), -1, -1)
        h, skips, temb = down(unet, x_t, times, context)
        state = HState(x_t, times, h.to(temb.dtype), temb, lambda other: self.state(x_t, t, other).h)
        return state, lambda other: self._noise(up(unet, other.to(h.dtype), skips, temb, context), x_t, t)

    def lost(self, inversion: Inversion) -> Tensor:
        """The residuals of every step back from x_T to the source's path.

        ``[N, S, C, r, r]`` (``emoedit.sampling.exact_inversion``).
        """
        extras = inversion.extras
        return lost_steps(extras["path"], extras["kept"], extras["eps"], self.schedule, stochastic=False)

    @torch.no_grad()
    def state(self, x_t: Tensor, t: int, context: Tensor | None = None) -> HState:
        """What the down path and the mid block make of latents at timestep ``t``: h, without the noise that follows.

        Latents are ``[N, C, r, r]``; the context is the neutral one or ``[N or 1, T, D]``.
        """
        context, times = self.context() if context is None else context, _all(x_t, t)
        h, _, temb = down(self._working(), x_t, times, context.expand(len(x_t), -1, -1))
        return HState(x_t, times, h.to(temb.dtype), temb, lambda other: self.state(x_t, t, other).h)

    @torch.no_grad()
    def path(self, x: Tensor) -> Iterator[tuple[HState, Tensor]]:
        """What the U-Net sees of pictures while they are inverted.

        Its state and the noise it finds, at every timestep of the schedule, ascending; by DDIM, under the neutral
        prompt. For fitting shifts of h.

        Args:
            x: ``[N, 1 or 3, R, R]`` in [-1, 1].
        """
        neutral, seen = self.context(), []

        def eps_at(x_t: Tensor, t: int) -> Tensor:
            state, eps = self._see(x_t, t, neutral)
            seen.append(state)
            return eps

        for _, eps in sampling.inversion_path(eps_at, self.to_latent(x)[0], self.schedule):
            yield seen.pop(), eps

    # The backbone

    @torch.no_grad()
    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """The noise that leads back to pictures under the neutral prompt, as ``inversion`` says.

        Args:
            x: ``[N, 1 or 3, R, R]`` in [-1, 1].
            generator: gives the seed of all noise that is drawn, one number for all pictures, so that each has the
                noise it would have alone; default: seed 0.
            callback: called with (steps done, steps in all).

        Raises:
            ImageError: of another shape.
        """
        z, mean, gain = self.to_latent(x)
        config, schedule, count = self.config, self.schedule, len(x)
        seed = 0
        if generator is not None:
            seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        seeds = torch.full((count,), seed, device=x.device)
        extras = {"mean": mean, "gain": gain, "kept": z, "seed": seeds, "made_for": self._made_for(x)}
        noise = sampling.picture_noise(seeds, z.shape[1:], x.device)
        if config.inversion == "image_to_image":
            if callback is not None:
                callback(1, 1)
            a_last = schedule.alpha_bar[-1]
            return Inversion(a_last**0.5 * z + (1 - a_last) ** 0.5 * noise(), extras)

        walks = (config.inversion != "edit_friendly") + (config.inversion == "null_text")
        again = config.inversion == "edit_friendly" or (config.negative is not None and config.guidance != 1)
        done = 0

        def report(*_: int) -> None:
            nonlocal done
            done += 1
            if callback is not None:
                callback(done, (walks + again) * len(schedule))

        neutral = self.context()

        def eps_under(x_t: Tensor, t: int, context: Tensor = neutral) -> Tensor:
            return self._see(x_t, t, context)[1]

        if config.inversion == "edit_friendly":
            path = noisy_path(z, schedule, noise)
        else:
            steps = []
            for step in sampling.inversion_path(eps_under, z, schedule):
                steps.append(step)
                report()
            path, eps = (torch.stack(part, 1) for part in zip(*steps, strict=True))
        if config.inversion == "null_text":
            extras["null"] = null_text(
                eps_under,
                path,
                z,
                neutral,
                self.context(config.negative).expand(count, -1, -1),
                schedule,
                guidance=config.guidance,
                iterations=config.null_iterations,
                callback=report,
            )
        if again:  # the way back is guided: what is found on the path is found so
            eps_at, guided = self.eps_at(null=extras.get("null")), []
            for k, t in enumerate(schedule.timesteps):
                guided.append(eps_at(path[:, k], t)[0])
                report()
            eps = torch.stack(guided, 1)
        return Inversion(path[:, -1], {**extras, "path": path, "eps": eps})

    def _made_for(self, like: Tensor) -> Tensor:
        config = self.config
        text = repr((config.prompt, config.negative, config.negative is not None and config.guidance)).encode()
        row = [self.steps, self.schedule.timesteps[-1], INVERSIONS.index(config.inversion), zlib.crc32(text)]
        return torch.tensor([row] * len(like), device=like.device)

    @torch.no_grad()
    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The picture that x_T leads to under ``control.context``, with ``control.delta_h`` added to h.

        Steps before the first that is edited follow the source's path, and are not computed. Without a control that is
        all of them: what the VAE draws of the source's own latent is the reconstruction (except of ``ddim``, which has
        to be led back).

        Raises:
            EditError: a shift of x_T; an inversion made with other settings; limits that leave no timestep to edit; a
                strength so large that the picture is not finite.
            CheckpointError: a context or ``delta_h`` of another shape than the U-Net's.
        """
        if control.shift is not None:
            raise EditError("this backbone edits by text and by h: directions in a latent need another one")
        extras, config = inversion.extras, self.config
        made_for = self._made_for(inversion.latent)
        if not torch.equal(extras["made_for"], made_for):
            found, expected = extras["made_for"][0].tolist(), made_for[0].tolist()
            other = "" if found[3] == expected[3] else " with another prompt, negative prompt or guidance"
            raise EditError(
                f"this inversion was made for {found[0]} steps to timestep {found[1]} ({INVERSIONS[found[2]]}), the "
                f"backbone now takes {expected[0]} to {expected[1]} ({INVERSIONS[expected[2]]}){other}: invert again"
            )
        context = self._edited(control.context, len(inversion))
        spans = None if context is None else control.spans
        first = self._first(context, spans, control.delta_h)
        if config.inversion == "ddim" or (config.inversion == "image_to_image" and first >= 0):
            first = len(self.schedule) - 1
        latent = extras["kept"]
        if first >= 0:
            latent = self._way_back(inversion, first, context, spans, control.delta_h, callback)
        elif callback is not None:
            callback(1, 1)
        return self.to_picture(latent, extras["mean"], extras["gain"])

    def _edited(self, context: Tensor | None, count: int) -> Tensor | None:
        """The context of a control; None if it is the neutral one."""
        if context is None:
            return None
        neutral = self.context()
        if context.ndim != 3 or len(context) not in (1, count) or context.shape[1:] != neutral.shape[1:]:
            raise CheckpointError(
                f"the context is {tuple(context.shape)}, expected [{count}, {neutral.shape[1]}, {neutral.shape[2]}]: "
                "it belongs to another text encoder"
            )
        return None if torch.equal(context, neutral.expand_as(context)) else context

    def _first(self, context: Tensor | None, spans: Tensor | None, delta_h: Callable[[HState], Tensor] | None) -> int:
        """The step that is edited first, counted from the picture; -1 if none is."""
        config, times = self.config, self.schedule.timesteps
        text = (config.t_text_min, config.t_text_max)
        if spans is not None:
            text = int(spans[:, 0].min()), int(spans[:, 1].max())
        edited = [t < config.t_boost and config.boost == "everywhere" for t in times]
        for asked, low, high, names in (
            (context, *text, "t_text_min and t_text_max" if spans is None else "the token's own limits"),
            (delta_h, config.t_edit, len(self.alpha_bar), "t_edit"),
        ):
            if asked is None:
                continue
            inside = [low <= t <= high for t in times]
            if not any(inside):
                raise EditError(f"{names} leave none of the timesteps {times[0]} to {times[-1]} to edit")
            edited = [a or b for a, b in zip(edited, inside, strict=True)]
        return max((k for k, yes in enumerate(edited) if yes), default=-1)

    def _way_back(
        self,
        inversion: Inversion,
        first: int,
        context: Tensor | None,
        spans: Tensor | None,
        delta_h: Callable[[HState], Tensor] | None,
        callback: Callback | None,
    ) -> Tensor:
        """The latent at the end of the steps from ``first`` on."""
        extras, config = inversion.extras, self.config
        eps_at = self.eps_at(context, delta_h, spans=spans, null=extras.get("null"))
        schedule = sampling.Schedule(self.schedule.timesteps[: first + 1], self.schedule.alpha_bar[: first + 1])
        if config.inversion == "image_to_image":
            return sampling.decode(eps_at, inversion.latent, schedule, callback=callback)

        path, source = extras["path"][:, : first + 1], extras["eps"][:, : first + 1]
        own_noise = config.inversion == "edit_friendly"
        lost = lost_steps(path, extras["kept"], source, schedule, stochastic=own_noise)
        mask = self.face if config.masked else torch.ones_like(self.face)

        local = config.boost == "changed"
        drawn = sum(t < config.t_boost for t in schedule.timesteps)
        changed = None
        if local and drawn:
            seen = path[:, drawn - 1], source[:, drawn - 1], schedule.alpha_bar[drawn - 1]

            def changed(predicted: Tensor) -> Tensor:
                return mask * sampling.changed_where(predicted, sampling.predicted_x0(*seen))

        def masked(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            eps, shifted = eps_at(x, t)
            if not config.masked or (t < config.t_boost and not local):
                return eps, shifted
            outside = (1 - mask) * source[:, schedule.timesteps.index(t)]
            return outside + mask * eps, None if shifted is None else outside + mask * shifted

        if own_noise:
            maps = noise_maps(lost, schedule)
            draws = iter(maps.flip(1).unbind(1))
            above = schedule.timesteps[-1] + 1  # every step draws, and what it draws is known
            end = sampling.decode(
                masked, path[:, -1], schedule, t_boost=above, noise=lambda: next(draws), callback=callback
            )
            return end + lost[:, 0]
        if config.inversion == "ddim":
            lost = lost * (1 - mask)
        return sampling.decode(
            masked,
            path[:, -1],
            schedule,
            lost=lost,
            t_boost=config.t_boost,
            changed=changed,
            noise=sampling.picture_noise(extras["seed"], self.latent_shape, path.device),
            callback=callback,
        )

    # Files

    def to_config(self) -> dict[str, Any]:
        """What ``from_config`` needs to build the same, as json."""
        return asdict(self.config)

    def save_pretrained(self, folder: Path) -> None:
        """Write diffusers' layout, which ``StableDiffusionPipeline`` reads, and beside it ``config.json``."""
        config = self.to_config()
        configs = {part: config.pop(part) for part in PARTS}
        files.write_folder(
            folder,
            unet=self.unet,
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            configs=configs,
            settings=config,
        )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **settings: Any) -> Self:
        """Read what ``save_pretrained`` wrote, or a folder of diffusers: Stable Diffusion 1.x or 2.x.

        Args:
            folder: where it is.
            **settings: of ``StableDiffusionConfig``, instead of those in the folder.

        Raises:
            CheckpointError: a file is missing, damaged, or of another shape; another kind of model.
        """
        folder = Path(folder)
        return cls._assembled(files.read_folder(folder), folder, settings)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        tokenizer: str | None = None,
        resolution: int = 512,
        **settings: Any,
    ) -> Self:
        """Stable Diffusion 1.x in one file (``emoedit.models.stable_diffusion.single_file``).

        Args:
            path: ``.safetensors`` or ``.ckpt``.
            tokenizer: a folder with CLIP's tokenizer; default: the one on the hub.
            resolution: side of the pictures it was trained on.
            **settings: of ``StableDiffusionConfig``.

        Raises:
            CheckpointError: missing, damaged, another kind of model, or no tokenizer.
        """
        from emoedit.models.stable_diffusion.single_file import read_single_file

        path = Path(path)
        return cls._assembled(read_single_file(path, tokenizer=tokenizer, resolution=resolution), path, settings)

    @classmethod
    def _assembled(cls, found: files.Folder, where: Path, settings: Mapping[str, Any]) -> Self:
        try:
            config = StableDiffusionConfig(**{**found.settings, **found.configs, **settings})
        except TypeError as error:
            raise CheckpointError(f"not a configuration of this Stable Diffusion: {error}") from error
        check_parts(config)
        text = files.on_meta(files.new_text_encoder, config.text_encoder)
        files.check_shapes(text, found.states["text_encoder"], where / "text_encoder")
        parts: dict[str, Any] = {
            "unet": files.on_meta(files.new_unet, config.unet),
            "vae": files.on_meta(files.new_vae, config.vae),
            "text_encoder": files.new_text_encoder(config.text_encoder),
        }
        for name, part in parts.items():
            files.fill_weights(part, found.states[name], where / name)
        return cls(config, found.tokenizer, **parts).eval()

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], *, revision: str | None = None, **settings: Any) -> Self:
        """A full-size model: a folder of diffusers, or ``owner/name`` on the hub.

        Such as ``stable-diffusion-v1-5/stable-diffusion-v1-5``.

        Raises:
            CheckpointError: none of these, or not a model this class can use.
            UnknownNameError: none of these, or not a model this class can use.
        """
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return cls.from_file(path, **settings)
        return cls.from_pretrained(checkpoints.locate(name_or_path, revision=revision), **settings)


def _all(x: Tensor, t: int) -> Tensor:
    return torch.full((len(x),), t, device=x.device)

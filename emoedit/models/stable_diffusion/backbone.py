"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022, arXiv 2112.10752) as a backbone.

A picture's latent is inverted to noise under a neutral prompt and denoised under a context that moves towards another
one. Folders have diffusers' layout; full-size models and small ones that see luminance are this one class.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from emoedit import sampling
from emoedit.io import checkpoints
from emoedit.models.base import Callback
from emoedit.models.stable_diffusion import files
from emoedit.models.stable_diffusion.config import (
    INVERSIONS,
    PARTS,
    StableDiffusionConfig,
    check_parts,
)
from emoedit.models.stable_diffusion.inversion import EpsUnder, noise_maps, noisy_path, null_text, path_residuals
from emoedit.models.stable_diffusion.predictor import NoisePredictor
from emoedit.types import CheckpointError, Control, EditError, HState, Inversion


class StableDiffusionBackbone(NoisePredictor):
    """Inversion and decoding around a latent diffusion model with a text encoder.

    ``latent`` is x_T, ``[N, C, r, r]``. ``extras``: ``mean`` and ``gain`` of each crop; ``x0``, its latent; ``seed``
    of its noise; ``config_key`` (what has to be the same when it is decoded); where there is an inversion, ``path`` and
    ``eps`` ``[N, S, C, r, r]`` (x_t and the noise in it at every step); of null-text optimisation ``null``
    ``[N, S, T, D]``.

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

    @torch.no_grad()
    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """Invert pictures to noise under the neutral prompt, by the method of ``inversion``.

        Args:
            x: ``[N, 1 or 3, R, R]`` in [-1, 1].
            generator: gives the seed of all noise that is drawn, one number for all pictures, so that each has the
                noise it would have alone; default: seed 0.
            callback: called with (steps done, steps in all).

        Raises:
            ImageError: crops of another shape.
        """
        z, mean, gain = self.to_latent(x)
        config, schedule, count = self.config, self.schedule, len(x)
        seeds = torch.full((count,), _seed(generator), device=x.device)
        extras = {"mean": mean, "gain": gain, "x0": z, "seed": seeds, "config_key": self._config_key(x)}
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

        def eps_under(x_t: Tensor, t: int, context: Tensor | None = None) -> Tensor:
            return self._state_and_eps(x_t, t, neutral if context is None else context)[1]

        if config.inversion == "edit_friendly":
            path = noisy_path(z, schedule, noise)
        else:
            steps = []
            for step in sampling.inversion_path(eps_under, z, schedule):
                steps.append(step)
                report()
            path, eps = (torch.stack(part, 1) for part in zip(*steps, strict=True))
        if config.inversion == "null_text":
            extras["null"] = self._null_text(eps_under, path, z, report)
        if again:  # decoding is guided, so the residuals are found with guidance
            eps_at, guided = self.eps_at(null=extras.get("null")), []
            for k, t in enumerate(schedule.timesteps):
                guided.append(eps_at(path[:, k], t)[0])
                report()
            eps = torch.stack(guided, 1)
        return Inversion(path[:, -1], {**extras, "path": path, "eps": eps})

    def _null_text(self, eps_under: EpsUnder, path: Tensor, z: Tensor, callback: Callback) -> Tensor:
        """Embeddings in place of the negative prompt that reproduce the path, ``[N, S, T, D]``."""
        assert self.config.negative is not None  # check_sampling: this inversion needs a negative prompt
        return null_text(
            eps_under,
            path,
            z,
            self.context(self.config.negative).expand(len(z), -1, -1),
            self.schedule,
            guidance=self.config.guidance,
            iterations=self.config.null_iterations,
            callback=callback,
        )

    def _config_key(self, like: Tensor) -> Tensor:
        config = self.config
        text = repr((config.prompt, config.negative, config.negative is not None and config.guidance)).encode()
        row = [self.steps, self.schedule.timesteps[-1], INVERSIONS.index(config.inversion), zlib.crc32(text)]
        return torch.tensor([row] * len(like), device=like.device)

    @torch.no_grad()
    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The picture sampled from x_T under ``control.context``, with ``control.delta_h`` added to h.

        Steps before the first that is edited follow the source's path, and are not computed. Without a control that is
        all of them: what the VAE draws of the source's own latent is the reconstruction (except of ``ddim``, which has
        to be sampled).

        Raises:
            EditError: a shift of x_T; an inversion made with other settings; limits that leave no timestep to edit; a
                strength so large that the picture is not finite.
            CheckpointError: a context or ``delta_h`` of another shape than the U-Net's.
        """
        if control.shift is not None:
            raise EditError("this backbone edits by text and by h: directions in a latent need another one")
        extras, config = inversion.extras, self.config
        config_key = self._config_key(inversion.latent)
        if not torch.equal(extras["config_key"], config_key):
            found, expected = extras["config_key"][0].tolist(), config_key[0].tolist()
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
        latent = extras["x0"]
        if first >= 0:
            latent = self._decode_from(inversion, first, context, spans, control.delta_h, callback)
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

    def _decode_from(
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
        residuals = path_residuals(path, extras["x0"], source, schedule, stochastic=own_noise)
        mask = self.face if config.masked else torch.ones_like(self.face)

        local = config.boost == "changed"
        drawn = sum(t < config.t_boost for t in schedule.timesteps)
        changed = None
        if local and drawn:
            seen = path[:, drawn - 1], source[:, drawn - 1], schedule.alpha_bar[drawn - 1]

            def changed(predicted: Tensor) -> Tensor:
                return mask * sampling.change_mask(predicted, sampling.predicted_x0(*seen))

        def masked(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            eps, shifted = eps_at(x, t)
            if not config.masked or (t < config.t_boost and not local):
                return eps, shifted
            outside = (1 - mask) * source[:, schedule.timesteps.index(t)]
            return outside + mask * eps, None if shifted is None else outside + mask * shifted

        if own_noise:
            maps = noise_maps(residuals, schedule)
            draws = iter(maps.flip(1).unbind(1))
            above = schedule.timesteps[-1] + 1  # every step draws, and what it draws is known
            end = sampling.decode(
                masked, path[:, -1], schedule, t_boost=above, noise=lambda: next(draws), callback=callback
            )
            return end + residuals[:, 0]
        if config.inversion == "ddim":
            residuals = residuals * (1 - mask)
        return sampling.decode(
            masked,
            path[:, -1],
            schedule,
            residuals=residuals,
            t_boost=config.t_boost,
            changed=changed,
            noise=sampling.picture_noise(extras["seed"], self.latent_shape, path.device),
            callback=callback,
        )

    # Files

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write diffusers' layout, which ``StableDiffusionPipeline`` reads, and beside it ``config.json``."""
        config = self.to_config()
        configs = {part: config.pop(part) for part in PARTS}
        files.write_folder(
            Path(folder),
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
            folder: path of the folder.
            **settings: settings of ``StableDiffusionConfig``, instead of those in the folder.

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
            **settings: settings of ``StableDiffusionConfig``.

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

        Args:
            name_or_path: a folder, a file, or ``owner/name`` on the hub.
            revision: branch, tag or commit on the hub.
            **settings: settings of the configuration, instead of the file's.

        Raises:
            CheckpointError: none of these, or not a model this class can use.
            UnknownNameError: none of these, or not a model this class can use.
        """
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return cls.from_file(path, **settings)
        return cls.from_pretrained(checkpoints.locate(name_or_path, revision=revision), **settings)


def _seed(generator: torch.Generator | None) -> int:
    """One number for all pictures; 0 without a generator."""
    if generator is None:
        return 0
    return int(torch.randint(2**31, (1,), generator=generator, device=generator.device))

"""A DDPM's U-Net (Ho et al. 2020, arXiv 2006.11239) as a backbone.

DDIM inversion, and Asyrp's sampling (Kwon et al. 2023, arXiv 2210.10960).

The U-Net is ``diffusers.UNet2DModel``, cut behind its mid block, where h is: what lies before is computed once a step,
what lies behind once for the plain and the shifted h together. The embedded and the full-size model are this one class;
folders have diffusers' layout, so ``diffusers.DDIMPipeline`` reads them too.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor

from emoedit import sampling
from emoedit.io import checkpoints
from emoedit.models import luminance as light
from emoedit.models.base import Callback
from emoedit.models.ddpm import files as ddpm_files
from emoedit.models.ddpm.config import SAMPLING, DDPMConfig, check_unet, read_config
from emoedit.models.ddpm.unet import down, new_unet, prepare_bfloat16, up
from emoedit.models.devices import choose_precision
from emoedit.models.diffusion import DiffusionBackbone
from emoedit.models.noise import read_betas
from emoedit.models.planes import from_planes, to_planes
from emoedit.models.precision import PrecisionCopy, cast_weights, check_precision, finite_or_float32
from emoedit.types import CheckpointError, Control, CropSpec, EditError, HState, ImageError, Inversion

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class DDPMBackbone(DiffusionBackbone[DDPMConfig]):
    """DDIM inversion and decoding around a U-Net.

    ``latent`` is x_T, ``[N, P, r, r]``: the planes of noisy crops (``emoedit.models.planes``), which are the crop's
    channels where ``patch`` is 1. ``extras``: ``mean`` and ``gain`` of each crop; ``seed`` of its noise; and if the
    inversion is exact ``residuals`` ``[N, steps, P, r, r]`` (``exact_inversion``), ``x_boost`` (x_t at which quality
    boosting begins to draw noise everywhere; without it, the crop), ``config_key`` (the sampling settings that
    decoding has to share), if noise is drawn only where something changes ``source_x0`` (the source's P_t there), and
    of planes of colour ``detail`` ``[N, 3, R, R]`` (what of the normalised crop they do not hold).

    Args:
        config: see ``DDPMConfig``.
        unet: U-Net of this configuration; default: a new one with fresh weights.

    Raises:
        CheckpointError: a U-Net or a schedule of noise that this class does not support.
        EditError: settings of sampling that do not fit the schedule.
    """

    settings = SAMPLING
    unsupported: Mapping[str, str] = {"offload": "its one U-Net is at work in every step, so that nothing could wait"}
    unet: UNet2DModel

    def __init__(self, config: DDPMConfig, unet: UNet2DModel | None = None) -> None:
        super().__init__()
        resolution = check_unet(config.unet, config.patch, config.chroma)
        self.unet = new_unet(config.unet) if unet is None else unet
        self.crop = CropSpec(resolution, config.crop_style, config.crop_scale, config.crop_down)
        self.unet_side = resolution // config.patch
        planes = config.unet.get("in_channels", 3)
        self.channels = 3 if config.chroma is not None else planes // config.patch**2
        self.latent_shape = (planes, self.unet_side, self.unet_side)
        if not light.fits(config.mean, config.std, self.channels):
            raise CheckpointError(
                f"mean {config.mean!r} and std {config.std!r} do not fit {self.channels} channels: expected a "
                "number, or one of each channel"
            )
        self.alpha_bar = sampling.alpha_bar(read_betas(config.scheduler))
        self.register_buffer("oval", light.face_oval(resolution), persistent=False)
        self.unet.to(memory_format=torch.channels_last)
        self._in_precision: PrecisionCopy[UNet2DModel] = PrecisionCopy(prepare_bfloat16)
        self._set(config)

    def _set(self, config: DDPMConfig) -> None:
        for name in ("steps", "t_edit", "t_boost"):
            if not isinstance(getattr(config, name), int):
                raise EditError(f"{name} must be a whole number, not {getattr(config, name)!r}")
        self.schedule = sampling.make_schedule(self.alpha_bar, config.steps, config.t_last)
        last = self.schedule.timesteps[-1]
        for name in ("t_edit", "t_boost"):
            if not 0 <= getattr(config, name) <= last:
                raise EditError(f"{name} is {getattr(config, name)}, outside the schedule's timesteps 0 to {last}")
        check_precision(config.precision)
        if config.boost not in ("everywhere", "changed"):
            raise EditError(f"boost must be everywhere or changed, not {config.boost!r}")
        if config.boost == "changed" and config.t_boost and not config.exact:
            raise EditError("boost='changed' keeps to the source's path where nothing changes, which needs exact=True")
        self.config = config

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The planes ``[N, P, r, r]`` of normalised crops, which noise is added to, and what ``normalise`` took away.

        Args:
            x: ``[N, C, R, R]`` in [-1, 1].

        Raises:
            ImageError: crops of another shape.
        """
        self._check(x)
        x, mean, gain = self.normalise(x)
        return to_planes(x, self.config.patch, self.config.chroma), mean, gain

    def to_picture(self, z: Tensor, mean: Tensor, gain: Tensor) -> Tensor:
        """The inverse of ``to_latent``, ``[N, C, R, R]``, but for the detail that planes of colour do not hold.

        Args:
            z: ``[N, P, r, r]``.
            mean: ``[N, 1 or C, 1, 1]`` mean of each crop before it was normalised.
            gain: ``[N, 1 or C, 1, 1]`` factor of each crop's contrast.
        """
        return self.restore(from_planes(z, self.config.patch, self.config.chroma), mean, gain)

    def to_device(self, device: str, precision: str = "auto", *, offload: bool = False) -> Self:
        """See ``Backbone.to_device``; the U-Net is held in the chosen type."""
        dtype = choose_precision(precision, device)
        cast_weights(self.unet, dtype)
        if dtype is torch.bfloat16:
            prepare_bfloat16(self.unet)
        self._set(replace(self.config, precision=cast("Any", str(dtype).removeprefix("torch."))))
        return self.to(device)

    def _unet_in_precision(self) -> UNet2DModel:
        return self._in_precision.of(self.unet, self.config.precision)

    def eps_at(
        self,
        delta_h: Callable[[HState], Tensor] | None = None,
        on_state: Callable[[HState], None] | None = None,
    ) -> sampling.ShiftedEpsAt:
        """The function that gives the noise in x_t and the noise under the shifted h, for the samplers.

        The second is None where h is not shifted. Differentiable; see ``emoedit.sampling``.

        Args:
            delta_h: ``emoedit.types.Control``'s.
            on_state: called with the U-Net's input of every pass.
        """
        unet = self._unet_in_precision()

        def eps_at(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            nonlocal unet
            found, unet = finite_or_float32(lambda by: self._pass(by, x, t, delta_h, on_state), unet, self.unet, t)
            return found

        return eps_at

    def _pass(
        self,
        unet: UNet2DModel,
        x: Tensor,
        t: int,
        delta_h: Callable[[HState], Tensor] | None,
        on_state: Callable[[HState], None] | None,
    ) -> tuple[Tensor, Tensor | None]:
        times = torch.full((len(x),), t, device=x.device)
        h, skips, temb = down(unet, x, times)
        state = HState(x, times, h.to(temb.dtype), temb)
        if on_state is not None:
            on_state(state)
        if delta_h is None or t < self.config.t_edit:
            return up(unet, h, skips, temb), None
        shift = delta_h(state)
        if shift.shape != h.shape:
            raise CheckpointError(f"the shift of h is {tuple(shift.shape)}, but h is {tuple(h.shape)}")
        if self.config.symmetric:
            k = self.schedule.timesteps.index(t)
            gain = sampling.symmetric_gain(self.schedule.alpha_bar[k], self.schedule.below(k))
            return up(unet, h + (gain * shift).to(h.dtype), skips, temb), None
        rows = shift.flatten(1).any(1).nonzero()[:, 0]  # the others' noise is the plain one
        if not len(rows):
            return up(unet, h, skips, temb), None
        h = torch.cat([h, h[rows] + shift[rows].to(h.dtype)])
        skips = tuple(torch.cat([skip, skip[rows]]) for skip in skips)
        eps, other = up(unet, h, skips, torch.cat([temb, temb[rows]])).tensor_split([len(x)])
        return eps, eps.index_copy(0, rows, other)

    @torch.no_grad()
    def state(self, x_t: Tensor, t: int) -> HState:
        """The h of noisy planes ``x_t`` ``[N, P, r, r]`` at timestep ``t``; the up path is not run."""
        times = torch.full((len(x_t),), t, device=x_t.device)
        h, _, temb = down(self._unet_in_precision(), x_t, times)
        return HState(x_t, times, h.to(temb.dtype), temb)

    def split(self, x_t: Tensor, t: int) -> tuple[HState, Callable[[Tensor], Tensor]]:
        """The state of ``x_t`` at timestep ``t``, and a function from any h there to the noise; differentiable."""
        unet, times = self._unet_in_precision(), torch.full((len(x_t),), t, device=x_t.device)
        h, skips, temb = down(unet, x_t, times)
        state = HState(x_t, times, h.to(temb.dtype), temb)
        return state, lambda other: up(unet, other.to(h.dtype), skips, temb)

    def residuals(self, inversion: Inversion) -> Tensor:
        """``[N, S, P, r, r]``: the residuals of an exact ``inversion`` (``emoedit.sampling.exact_inversion``)."""
        return inversion.extras["residuals"]

    def _check(self, x: Tensor) -> None:
        side = self.crop.resolution
        if x.shape[1:] != (self.channels, side, side):
            raise ImageError(f"crops are {tuple(x.shape)}, expected [N, {self.channels}, {side}, {side}]")

    @torch.no_grad()
    def path(self, x: Tensor) -> Iterator[tuple[HState, Tensor]]:
        """The U-Net's inputs along the inversion of pictures.

        Its state and the noise it finds, at every timestep of the schedule, ascending. For fitting directions.

        Args:
            x: ``[N, C, R, R]`` in [-1, 1].
        """
        start = self.to_latent(x)[0]
        seen: list[HState] = []
        eps_at = self.eps_at(on_state=seen.append)
        found = sampling.inversion_path(lambda x_t, t: eps_at(x_t, t)[0], start, self.schedule)
        for _, eps in found:
            yield seen[-1], eps
            seen.clear()

    @torch.no_grad()
    def distance_curves(
        self, x: Tensor, distance: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[tuple[int, ...], list[float], list[float]]:
        """Timesteps, mean distance of P_t from the pictures, mean distance of x_t from them.

        ``emoedit.sampling.find_t_edit`` and ``emoedit.sampling.find_t_boost`` read them.

        Args:
            x: ``[N, C, R, R]`` in [-1, 1].
            distance: per picture, ``[N]`` from two ``[N, C, R, R]``; LPIPS in the paper.
        """
        picture = self.normalise(x)[0]
        predicted: list[float] = []
        noisy: list[float] = []
        for (state, eps), a_t in zip(self.path(x), self.schedule.alpha_bar, strict=True):
            for found, planes in ((predicted, sampling.predicted_x0(state.x_t, eps, a_t)), (noisy, state.x_t)):
                found.append(
                    float(distance(picture, from_planes(planes, self.config.patch, self.config.chroma)).mean())
                )
        return self.schedule.timesteps, predicted, noisy

    @torch.no_grad()
    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """x_T by DDIM inversion, one pass of the U-Net a step.

        Args:
            x: ``[N, C, R, R]`` in [-1, 1].
            generator: gives the seed of the noise that quality boosting draws, one number for all pictures, so that
                each has the noise it would have alone; default: seed 0.
            callback: called with (steps done, steps in all).

        Raises:
            ImageError: crops of another shape.
        """
        start, mean, gain = self.to_latent(x)
        eps_at = self.eps_at()
        x_boost, source_x0 = start, start
        everywhere, drawn = self._noisy_steps("everywhere"), self._noisy_steps("changed")

        def walk() -> Iterator[tuple[Tensor, Tensor]]:
            nonlocal x_boost, source_x0
            found = sampling.inversion_path(lambda x_t, t: eps_at(x_t, t)[0], start, self.schedule)
            for k, (x_t, eps) in enumerate(found):
                if k == everywhere - 1:
                    x_boost = x_t
                if k == drawn - 1:
                    source_x0 = sampling.predicted_x0(x_t, eps, self.schedule.alpha_bar[k])
                if callback is not None:
                    callback(k + 1, self.steps)
                yield x_t, eps

        seed = 0
        if generator is not None:
            seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        extras = {"mean": mean, "gain": gain, "seed": torch.full((len(x),), seed, device=x.device)}
        if not self.config.exact:
            ((latent, _),) = deque(walk(), maxlen=1)
            return Inversion(latent, extras)
        latent, residuals = sampling.exact_inversion(walk(), self.schedule)
        extras |= {"residuals": residuals, "x_boost": x_boost, "config_key": self._config_key(x)}
        if self.config.chroma is not None:
            extras["detail"] = (x - self.to_picture(start, mean, gain)) / gain
        return Inversion(latent, {**extras, "source_x0": source_x0} if drawn else extras)

    def _noisy_steps(self, boost: str) -> int:
        """How many steps draw noise, if this is the way they do it."""
        return sum(t < self.config.t_boost for t in self.schedule.timesteps) if boost == self.config.boost else 0

    def _config_key(self, like: Tensor) -> Tensor:
        drawn = [self._noisy_steps(boost) for boost in ("everywhere", "changed")]
        config_key = [self.steps, self.schedule.timesteps[-1], *drawn]
        return torch.tensor([config_key] * len(like), device=like.device)

    @torch.no_grad()
    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The picture sampled from x_T, with ``control.delta_h`` added to h down to ``t_edit``.

        Without a control, an exact inversion gives the inverted picture: nothing but the steps that draw noise is
        computed then.

        Raises:
            EditError: a text context, which this backbone has not; an exact inversion by other steps; a strength so
                large that the picture is not finite.
            CheckpointError: a ``delta_h`` of another shape than h.
        """
        if control.context is not None:
            raise EditError("this backbone has no text input: a steering that brings a context needs Stable Diffusion")
        extras = inversion.extras
        residuals = extras.get("residuals")
        if residuals is not None and not torch.equal(extras["config_key"], self._config_key(inversion.latent)):
            raise EditError(
                "this inversion was made for (steps, last timestep, steps of noise everywhere, steps of noise where "
                f"something changes) = {extras['config_key'][0].tolist()}, but the backbone now takes "
                f"{self._config_key(inversion.latent)[0].tolist()}: invert again"
            )
        x, schedule = inversion.latent, self.schedule
        if control.shift is not None:
            x = x + control.shift
        elif control.delta_h is None and residuals is not None:
            boosted = self._noisy_steps("everywhere")
            schedule = sampling.Schedule(schedule.timesteps[:boosted], schedule.alpha_bar[:boosted])
            x, residuals = extras["x_boost"], residuals[:, :boosted]
            if callback is not None and not boosted:
                callback(1, 1)
        x = sampling.decode(
            self.eps_at(control.delta_h),
            x,
            schedule,
            residuals=residuals,
            t_boost=self.config.t_boost,
            changed=(lambda p: sampling.change_mask(p, extras["source_x0"])) if "source_x0" in extras else None,
            noise=sampling.picture_noise(extras["seed"], x.shape[1:], x.device),
            callback=callback,
        )
        picture = self.to_picture(x, extras["mean"], extras["gain"])
        return picture + extras["detail"] * extras["gain"] if "detail" in extras else picture

    @torch.no_grad()
    def sample(self, generator: torch.Generator, count: int, *, spread: float = 1.0) -> Tensor:
        """Random faces, ``[count, C, R, R]``, at the model's mean and contrast.

        Args:
            generator: draws the noise.
            count: how many.
            spread: factor of the noise; a little below 1 gives more ordinary faces.
        """
        x = spread * torch.randn(count, *self.latent_shape, generator=generator, device=generator.device)
        planes = sampling.decode(self.eps_at(), x.to(self.device), self.schedule)
        return from_planes(planes, self.config.patch, self.config.chroma)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture with fresh weights."""
        return cls(read_config(config))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write diffusers' layout (``unet/``, ``scheduler/``, ``model_index.json``) and beside it ``config.json``."""
        folder, config = Path(folder), self.to_config()
        unet, scheduler = config.pop("unet"), config.pop("scheduler")
        checkpoints.write_part(folder / "unet", {"_class_name": "UNet2DModel", **unet}, self.unet.state_dict())
        (folder / "scheduler").mkdir(exist_ok=True)
        # As in the original implementation pictures are not clipped: our crops are brought to a contrast, not a range.
        scheduler = {"_class_name": "DDIMScheduler", "clip_sample": False, **scheduler}
        files = {
            checkpoints.CONFIG: config,
            "model_index.json": ddpm_files.PIPELINE,
            f"scheduler/{ddpm_files.SCHEDULER}": scheduler,
        }
        for name, value in files.items():
            (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **settings: Any) -> Self:
        """Read what ``save_pretrained`` wrote, or a folder of diffusers with a ``UNet2DModel``.

        The folder is a pipeline's, or has its files at the top, as ``google/ddpm-ema-celebahq-256`` has.

        Args:
            folder: path of the folder.
            **settings: settings of ``DDPMConfig``, instead of those in the folder.

        Raises:
            CheckpointError: a file is missing, damaged, or of another shape; another kind of model.
        """
        config, state, part = ddpm_files.read_folder(Path(folder), settings)
        return cls._loaded(config, state, part)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, resolution: int | None = None, **settings: Any) -> Self:
        """The original DDPM's weight file (``.ckpt`` of SDEdit, DiffusionCLIP, Asyrp), converted while it is read.

        Args:
            path: path of the file.
            resolution: side of the pictures; default: derived from the levels with attention.
            **settings: settings of ``DDPMConfig``.

        Raises:
            CheckpointError: missing, damaged, or not of that naming.
        """
        path = Path(path)
        state = ddpm_files.read_tensors(path)
        if not ddpm_files.is_original(state):
            raise CheckpointError(
                f"{path} has names such as {', '.join(sorted(state)[:3])}; expected the original DDPM's "
                "(temb.dense.0.weight, mid.block_1.conv1.weight, ...). A model of diffusers is read from its folder"
            )
        unet = ddpm_files.original_config(state, path, resolution)
        return cls._loaded({**settings, "unet": unet}, ddpm_files.convert_original(state), path)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], *, revision: str | None = None, **settings: Any) -> Self:
        """A full-size model: a folder (``from_pretrained``), a file (``from_file``), ``owner/name`` on the hub.

        Args:
            name_or_path: a folder, a file, or ``owner/name`` on the hub.
            revision: branch, tag or commit on the hub.
            **settings: settings of the configuration, instead of the file's.

        Raises:
            CheckpointError: none of these, or not a model this class can use.
        """
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return cls.from_file(path, **settings)
        return cls.from_pretrained(
            path if path.is_dir() else checkpoints.locate(name_or_path, revision=revision), **settings
        )

    @classmethod
    def _loaded(cls, config: dict[str, Any], state: dict[str, Tensor], path: Path) -> Self:
        checked = read_config(config)
        check_unet(checked.unet, checked.patch, checked.chroma)
        with torch.device("meta"):  # a hundred million random numbers would be drawn for nothing
            unet = new_unet(checked.unet)
        checkpoints.check_state(unet.state_dict(), state, path)
        # Copied: weights in the file's memory layout are summed in another order than those of a fresh model.
        unet.load_state_dict({name: value.to(torch.float32, copy=True) for name, value in state.items()}, assign=True)
        return cls(checked, unet).eval()

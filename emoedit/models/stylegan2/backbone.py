"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958) as a backbone.

A picture becomes w+, one style a layer, and edits are walks there.

The embedded model (luminance, with an encoder) and full-size ones (NVIDIA's ``.pkl``, rosinality's ``.pt``) are this
one class.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from emoedit.io import checkpoints
from emoedit.io.weights import read_torch
from emoedit.models import luminance as light
from emoedit.models.base import Callback
from emoedit.models.configured import ConfiguredBackbone
from emoedit.models.devices import NAMES
from emoedit.models.luminance import PerChannel
from emoedit.models.stylegan2 import files as stylegan2_files
from emoedit.models.stylegan2.encoders import EncoderFile, StyleEncoder, holds_encoder, read_encoder
from emoedit.models.stylegan2.inversion import Losses, optimise
from emoedit.models.stylegan2.network import Encoder, Synthesis, layer_count, sides
from emoedit.models.stylegan2.network import Mapping as MappingNetwork
from emoedit.types import CheckpointError, Control, CropSpec, EditError, ImageError, Inversion

SETTINGS = ("optimise_steps", "precision")  # what may change without other weights
FILE_STEPS = 200  # of optimisation, for models of others, which have no encoder
MEAN_OF = 10_000  # samples whose mean is that of w, where a file does not hold it


@dataclass(frozen=True)
class StyleGAN2Config:
    """The architecture, the crop, and how pictures are inverted.

    Args:
        resolution: side of the crop, a power of two from 16 on.
        channels: 1 (luminance) or 3 (RGB).
        widths: channels at 4, 8, ... ``resolution`` pixels (``emoedit.models.stylegan2.network.widths`` gives those of
            the published models).
        z_dim: lengths of z and w.
        w_dim: as ``z_dim``.
        mapping_layers: between them.
        mapping_rate: their relative learning rate.
        clamp: largest magnitude of a layer's output; published models trained in half precision have 256.
        encoder_widths: channels at ``resolution / 2`` ... 4 pixels; None for a model without an encoder.
        encoder_blocks: residual blocks a resolution.
        encoder_neck: channels of the maps its linear layers read.
        crop_style: the alignment (``emoedit.types.CropSpec``).
        crop_scale: as ``crop_style``.
        crop_down: as ``crop_style``.
        mean: what mean and contrast inside the face every crop is brought to before it is inverted (undone after
            decoding), in [-1, 1], of all channels or of each; ``std`` None leaves crops as they are.
        std: as ``mean``.
        optimise_steps: optimisation steps of w+, from where the encoder starts or, without one, from the mean of w.
        precision: precision of the synthesis network's maps, ``"float32"`` or ``"bfloat16"``.
    """

    resolution: int = 64
    channels: int = 1
    widths: Sequence[int] = (256, 256, 192, 128, 64)
    z_dim: int = 256
    w_dim: int = 256
    mapping_layers: int = 4
    mapping_rate: float = 0.01
    clamp: float | None = None
    encoder_widths: Sequence[int] | None = (64, 128, 192, 256)
    encoder_blocks: int = 1
    encoder_neck: int = 32
    crop_style: Literal["ffhq", "stable"] = "ffhq"
    crop_scale: float = 1.0
    crop_down: float = 0.0
    mean: PerChannel = 0.0
    std: PerChannel | None = None
    optimise_steps: int = 0
    precision: str = "float32"


def mix(coarse: Tensor, fine: Tensor, layer: int) -> Tensor:
    """Style mixing: w+ ``[N, L, D]`` of one picture below ``layer``, of the other from there on.

    Args:
        coarse: ``[N, L, D]``.
        fine: as ``coarse``.
        layer: first one of ``fine``.
    """
    return torch.cat([coarse[:, :layer], fine[:, layer:]], 1)


class StyleGAN2Backbone(light.NormalisesLuminance, ConfiguredBackbone[StyleGAN2Config]):
    """Generator, mapping network and encoder.

    ``latent`` is w+, ``[N, L, w_dim]``. ``extras``: ``mean`` and ``gain`` of each crop, and ``noise`` ``[N, P]`` if it
    was optimised.

    Args:
        config: see ``StyleGAN2Config``.

    Attributes:
        losses: losses that are minimised; the squared difference alone unless ``with_inversion`` sets more.

    Raises:
        CheckpointError: a configuration that makes no network.
        EditError: settings that make no sense.
    """

    settings = SETTINGS
    config: StyleGAN2Config
    unsupported = {
        "offload": "its generator takes .12 GB and is at work in every step",
        "compile": "its layers keep prepared weights from one picture to the next, which a compiled graph cannot",
    }

    def __init__(self, config: StyleGAN2Config = StyleGAN2Config()) -> None:  # noqa: B008 - frozen
        super().__init__()
        _check(config)
        size = config.resolution, config.channels, config.w_dim
        self.mapping = MappingNetwork(
            config.z_dim, config.w_dim, layers=config.mapping_layers, rate=config.mapping_rate
        )
        self.synthesis = Synthesis(*size, config.widths, clamp=config.clamp)
        self.encoder: Encoder | StyleEncoder | None = None
        if config.encoder_widths is not None:
            how = {"blocks": config.encoder_blocks, "neck": config.encoder_neck}
            self.encoder = Encoder(*size, config.encoder_widths, **how)
            self.encoder.to(memory_format=torch.channels_last)
        self.crop = CropSpec(config.resolution, config.crop_style, config.crop_scale, config.crop_down)
        self.channels = config.channels
        self.losses = Losses()
        self.register_buffer("oval", light.face_oval(config.resolution), persistent=False)
        self._set(config)

    def _set(self, config: StyleGAN2Config) -> None:
        if not isinstance(config.optimise_steps, int) or config.optimise_steps < 0:
            raise EditError(f"optimise_steps must be a whole number from 0 on, not {config.optimise_steps!r}")
        if config.precision not in ("float32", "bfloat16"):
            raise EditError(f"precision must be float32 or bfloat16, not {config.precision!r}")
        if self.encoder is None and not config.optimise_steps:
            raise EditError("a model without an encoder needs optimise_steps: 0 of them would find nothing")
        self.config = config

    def with_inversion(self, losses: Losses | None = None, **changes: Any) -> Self:
        """This model with another way of inverting; the weights are shared.

        Args:
            losses: losses that are minimised.
            **changes: settings of ``with_sampling``.

        Raises:
            EditError: changes of other things, or that make no sense.
        """
        other = self.with_sampling(**changes)
        other.losses = self.losses if losses is None else losses
        return other

    def to_device(self, device: str, precision: str = "auto", *, offload: bool = False) -> Self:
        """See ``Backbone.to_device``; the maps are computed in float32 unless bfloat16 is asked for.

        Raises:
            EditError: another precision.
        """
        name = NAMES.get(precision, precision)
        if name != "auto":
            self._set(replace(self.config, precision=name))
        return self.to(device)

    def with_synthesis(self, synthesis: Synthesis) -> Self:
        """This model with another synthesis network of the same shape; the rest is shared.

        Args:
            synthesis: synthesis network of the same shape.
        """
        other = copy.copy(self)
        other._modules = {**self._modules, "synthesis": synthesis}
        return other

    @property
    def latent_shape(self) -> tuple[int, int]:
        """``(L, w_dim)`` of w+."""
        return layer_count(self.config.resolution), self.config.w_dim

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the synthesis network's maps."""
        return torch.bfloat16 if self.config.precision == "bfloat16" else torch.float32

    def checked(self, x: Tensor) -> Tensor:
        """``x``, if it has this model's shape.

        Raises:
            ImageError: it has not.
        """
        side = self.config.resolution
        if x.ndim != 4 or x.shape[1:] != (self.channels, side, side):
            raise ImageError(f"crops are {tuple(x.shape)}, expected [N, {self.channels}, {side}, {side}]")
        return x

    @torch.no_grad()
    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """w+ by the encoder, then by ``optimise_steps`` of optimisation.

        Args:
            x: ``[N, C, R, R]`` in [-1, 1].
            generator: ignored; nothing is random.
            callback: called with (steps done, steps in all).

        Raises:
            ImageError: crops of another shape.
            InversionError: the optimisation did not converge.
        """
        target, mean, gain = self.normalise(self.checked(x))
        w_plus = self.mapping.w_avg.expand(len(x), *self.latent_shape)
        if self.encoder is not None:
            w_plus = w_plus + self.encoder(target)
        extras, steps = {"mean": mean, "gain": gain}, self.config.optimise_steps
        if steps:
            noise = self.synthesis.noise.expand(len(x), -1)
            found = optimise(
                lambda latent, noise: self.synthesis(latent, noise, dtype=self.dtype),
                *(target, w_plus, noise, self.synthesis.sizes, self.losses),
                steps=steps,
                callback=callback,
            )
            w_plus, extras["noise"] = found
        elif callback is not None:
            callback(1, 1)
        return Inversion(w_plus, extras)

    @torch.no_grad()
    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The picture of w+ + ``control.shift``.

        Args:
            inversion: N pictures.
            control: its ``shift`` is ``[N, L, w_dim]``, or ``[N, 1, w_dim]`` for all layers alike.
            callback: called with (steps done, steps in all).

        Raises:
            EditError: a text context or a shift of h, which this backbone has not; a strength so large that the picture
                is not finite.
            CheckpointError: a shift of another shape.
        """
        if control.context is not None or control.delta_h is not None:
            raise EditError("StyleGAN2 has neither a text input nor h: this steering is for a diffusion model")
        w_plus = inversion.latent
        if control.shift is not None:
            shape = tuple(control.shift.shape)
            if shape not in (tuple(w_plus.shape), (len(w_plus), 1, w_plus.shape[2])):
                raise CheckpointError(f"the shift is {shape}, but w+ is {tuple(w_plus.shape)}")
            w_plus = w_plus + control.shift
        picture = self.synthesis(w_plus, inversion.extras.get("noise"), dtype=self.dtype)
        if not bool(picture.isfinite().all()):
            raise EditError("the picture is not finite: the strength is too large, or the weights are damaged")
        if callback is not None:
            callback(1, 1)
        return self.restore(picture, inversion.extras["mean"], inversion.extras["gain"])

    @torch.no_grad()
    def latents(self, generator: torch.Generator, count: int, *, truncation: float = 1.0) -> Tensor:
        """w+ of random people, ``[count, L, w_dim]``, the same w in all layers.

        Args:
            generator: draws the noise; a model that draws none ignores it.
            count: how many.
            truncation: truncation psi; 1 for the full distribution, 0 for its mean.
        """
        z = torch.randn(count, self.config.z_dim, generator=generator, device=generator.device).to(self.device)
        w = self.mapping.w_avg.lerp(self.mapping(z), truncation)
        return w[:, None].repeat(1, self.latent_shape[0], 1)

    @torch.no_grad()
    def sample(self, generator: torch.Generator, count: int, *, truncation: float = 1.0) -> Tensor:
        """Pictures of people who do not exist, ``[count, C, R, R]``, at the model's mean and contrast.

        Args:
            generator: draws the noise.
            count: how many.
            truncation: truncation psi; 1 for the full distribution, 0 for its mean.
        """
        return self.synthesis(self.latents(generator, count, truncation=truncation), dtype=self.dtype)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture with fresh weights.

        Raises:
            CheckpointError: an entry is missing or unknown.
        """
        try:
            return cls(StyleGAN2Config(**config))
        except (TypeError, EditError) as error:
            raise CheckpointError(f"not a configuration of this StyleGAN2: {error}") from error

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, encoder: str | os.PathLike[str] | None = None, **settings: Any
    ) -> Self:
        """A full-size model: NVIDIA's ``.pkl``, rosinality's ``.pt``, or a ``.pt`` of pSp or e4e, which holds both.

        Code in it is never executed. Where the file lacks the mean of w, that of 10,000 samples is taken; where it
        lacks noise maps, maps from a fixed seed.

        Args:
            path: path of the file.
            encoder: a file of pSp or e4e, which finds w+ in one pass; optimisation goes on from there only if
                ``optimise_steps`` is given. Default: that of the file itself, where it holds one.
            **settings: settings of ``StyleGAN2Config``, instead of the file's and the defaults.

        Raises:
            CheckpointError: missing, damaged, unsafe; another network; tensors missing or of another shape.
        """
        path = Path(path)
        contents = None if stylegan2_files.is_pickle(path) else read_torch(path)
        reads = None if encoder is None else read_encoder(Path(encoder).expanduser())
        if encoder is None and holds_encoder(contents):
            reads = read_encoder(path, contents)
        config, state = stylegan2_files.read_generator(path, contents)
        plain = {name: value for name, value in settings.items() if name not in SETTINGS}
        model = cls.from_config({"encoder_widths": None, "optimise_steps": FILE_STEPS, **config, **plain})
        expected = model.state_dict()
        own = {name: expected[name] for name in ("mapping.w_avg", "synthesis.noise") if name not in state}
        checkpoints.check_state(expected, {**own, **state}, path)
        model.load_state_dict({**own, **state})
        if "mapping.w_avg" in own:
            z = torch.randn(MEAN_OF, model.config.z_dim, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                model.mapping.w_avg.copy_(model.mapping(z).mean(0))
        sampled = {name: value for name, value in settings.items() if name in SETTINGS}
        return model._reading_by(reads, sampled).eval()

    def _reading_by(self, found: EncoderFile | None, settings: Mapping[str, Any]) -> Self:
        """This model at other settings, with an encoder in place of its own, if there is one."""
        if found is not None:
            layers, _ = self.latent_shape
            first = self.mapping.layers[0].weight
            self.encoder = found.for_generator(self.mapping.w_avg, layers, first, channels=self.channels)
            settings = {"optimise_steps": 0, **settings}
        return self.with_sampling(**settings)

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        encoder: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> Self:
        """A file (``from_file``), a folder that ``save_pretrained`` wrote, or ``owner/name`` of one on the hub.

        Args:
            name_or_path: a file, a folder or ``owner/name``.
            revision: revision of the repository on the hub.
            encoder: a file of pSp or e4e, as for ``from_file``.
            **settings: settings of ``StyleGAN2Config`` for a file, of ``SETTINGS`` else.

        Raises:
            CheckpointError: none of these, or not a model this class can use.
        """
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return cls.from_file(path, encoder=encoder, **settings)
        folder = path if path.is_dir() else checkpoints.locate(name_or_path, revision=revision)
        found = None if encoder is None else read_encoder(Path(encoder).expanduser())
        return cls.from_pretrained(folder)._reading_by(found, settings).eval()


def _check(config: StyleGAN2Config) -> None:
    """Raises CheckpointError for what makes no network."""
    side, faults = config.resolution, []
    if not isinstance(side, int) or side < 16 or side & (side - 1):
        raise CheckpointError(f"resolution is {side!r}; expected a power of two from 16 on")
    levels = len(sides(side))
    for name, count in (("widths", levels), ("encoder_widths", levels - 1)):
        value = getattr(config, name)
        if value is None and name == "encoder_widths":
            continue
        plain = isinstance(value, list | tuple) and all(isinstance(width, int) and width > 0 for width in value)
        if not plain or len(value) != count:
            faults.append(f"{name} {value!r} (expected {count} whole numbers above 0)")
    if config.channels not in (1, 3):
        faults.append(f"channels {config.channels!r} (expected 1 or 3)")
    for name in ("z_dim", "w_dim", "mapping_layers", "encoder_blocks", "encoder_neck"):
        value = getattr(config, name)
        if not isinstance(value, int) or value < 1:
            faults.append(f"{name} {value!r} (expected a whole number above 0)")
    for name, empty in (("mapping_rate", False), ("clamp", True)):
        value = getattr(config, name)
        if not (isinstance(value, int | float) and value > 0) and not (empty and value is None):
            faults.append(f"{name} {value!r} (expected a number above 0)")
    if not light.fits(config.mean, config.std, config.channels):
        faults.append(f"mean {config.mean!r} and std {config.std!r} (expected numbers, or one of each channel)")
    if faults:
        raise CheckpointError(f"not a configuration of this StyleGAN2: {'; '.join(faults)}")

"""An image-editing pipeline of diffusers as a backbone: the crop goes in beside an instruction, and comes out edited.

Nothing is inverted: the latent is the picture itself, its reconstruction is exact, and what the pipeline changed is its
picture minus the source. It serves as a reference for other editors.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.models.base import Callback
from emoedit.models.configured import ConfiguredBackbone
from emoedit.models.devices import choose_precision
from emoedit.models.identify import INDEX
from emoedit.models.instruct.pipelines import KINDS, LIBRARIES
from emoedit.types import CheckpointError, Control, CropSpec, EditError, ImageError, Inversion, MissingExtraError

SETTINGS = ("steps", "guidance", "image_guidance", "whole", "precision")
MULTIPLE = 16  # pixels, of which sides are a multiple: latents of 8, in patches of 2
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class InstructConfig:
    """How a pipeline is called.

    Args:
        kind: its class in diffusers, one of ``emoedit.models.instruct.pipelines.KINDS``.
        resolution: side of the crop in pixels.
        steps: number of steps of denoising.
        guidance: how strongly the instruction is followed at strength 1.
        image_guidance: how closely the picture is kept; None for pipelines without such an argument.
        whole: whether the whole photograph is given to the pipeline, at about as many pixels as a crop has, and its
            picture taken for the result; else the crop of each face is, and what changed is put back.
        precision: number type of the weights.
        crop_style: the alignment (``emoedit.types.CropSpec``).
        crop_scale: as ``crop_style``.
        crop_down: as ``crop_style``.
    """

    kind: str
    resolution: int
    steps: int
    guidance: float
    image_guidance: float | None = None
    whole: bool = False
    precision: str = "float32"
    crop_style: Literal["ffhq", "stable"] = "ffhq"
    crop_scale: float = 1.0
    crop_down: float = 0.0


class InstructBackbone(ConfiguredBackbone[InstructConfig]):
    """Pictures edited by instruction.

    ``latent`` is the crop, ``[N, 3, R, R]``. ``extras``: ``seed`` ``[N]`` of the noise.

    Args:
        pipeline: pipeline of diffusers; its networks are shared.
        config: see ``InstructConfig``.

    Raises:
        EditError: settings that make no sense.
    """

    channels = 3
    settings = SETTINGS
    unsupported: Mapping[str, str] = {}

    def __init__(self, pipeline: Any, config: InstructConfig) -> None:
        super().__init__()
        self.pipeline = pipeline
        networks = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        self.networks = nn.ModuleDict(networks)
        self.crop = CropSpec(config.resolution, config.crop_style, config.crop_scale, config.crop_down)
        self._offloaded: torch.device | None = None
        self._set(config)

    def _set(self, config: InstructConfig) -> None:
        if isinstance(config.steps, bool) or not isinstance(config.steps, int) or config.steps < 1:
            raise EditError(f"steps must be a whole number above 0, not {config.steps!r}")
        for name in ("guidance", "image_guidance"):
            value = getattr(config, name)
            if value is None and name == "image_guidance":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100:
                raise EditError(f"{name} must be a number above 0, not {value!r}")
        if not isinstance(config.whole, bool):
            raise EditError(f"whole is true or false, not {config.whole!r}")
        if config.image_guidance is not None and KINDS[config.kind].image_guidance is None:
            raise EditError(f"a {config.kind} takes no image_guidance")
        self.config = config

    def to_device(self, device: str, precision: str = "auto", *, offload: bool = False) -> Self:
        """See ``Backbone.to_device``; offloading is diffusers' own, network by network.

        Raises:
            MissingExtraError: offloading needs accelerate, which is not installed.
        """
        dtype = choose_precision(precision, device)
        self.to(dtype)
        self._set(replace(self.config, precision=str(dtype).removeprefix("torch.")))
        if offload and torch.device(device).type != "cpu":
            if find_spec("accelerate") is None:
                raise MissingExtraError("accelerate", "train")
            self.pipeline.enable_model_cpu_offload(device=device)
            self._offloaded = torch.device(device)
            return self
        return self.to(device)

    def compiled_parts(self) -> Sequence[nn.Module]:
        """See ``Backbone.compiled_parts``: what denoises."""
        return [self.networks[name] for name in ("unet", "transformer") if name in self.networks]

    @property
    def device(self) -> torch.device:
        """Where it computes: networks that are offloaded come there."""
        return self._offloaded or next(self.parameters()).device

    @torch.no_grad()
    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """The pictures themselves, and the seed of the noise that is drawn for each.

        Args:
            x: ``[N, 3, R, R]`` in [-1, 1].
            generator: gives the seed, one for all pictures; default: seed 0.
            callback: called with (1, 1).

        Raises:
            ImageError: crops of another shape.
        """
        side = self.crop.resolution
        if x.shape[1:] != (3, side, side):
            raise ImageError(f"crops are {tuple(x.shape)}, expected [N, 3, {side}, {side}]")
        seed = 0
        if generator is not None:
            seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        if callback is not None:
            callback(1, 1)
        return Inversion(x, {"seed": torch.full((len(x),), seed, device=x.device)})

    @torch.no_grad()
    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """The pictures, edited by ``control.prompt``; without one, as they are.

        Each is drawn alone, with noise of its own seed, so that it does not depend on its batch.

        Raises:
            EditError: a shift, a context or a shift of h, which a pipeline does not take; a strength below 0; a picture
                that is not finite.
        """
        if control.shift is not None or control.context is not None or control.delta_h is not None:
            raise EditError("a pipeline that edits by instruction takes a prompt, and no shift and no text context")
        x, pictures = inversion.latent, []
        strengths = self._strengths(control, len(x))
        prompts = control.prompt or ("",) * len(x)
        if len(prompts) != len(x) or len(strengths) != len(x):
            raise EditError(f"{len(prompts)} prompts and {len(strengths)} strengths for {len(x)} pictures")
        for number, (prompt, strength) in enumerate(zip(prompts, strengths, strict=True)):
            seed = int(inversion.extras["seed"][number])
            pictures.append(
                self._edited(x[number], prompt, float(strength), seed) if prompt and strength else x[number]
            )
            if callback is not None:
                callback(number + 1, len(x))
        return torch.stack(pictures)

    @property
    def describes(self) -> bool:
        """Whether its prompt describes the picture that is to come out, and gives no instruction."""
        return KINDS[self.config.kind].describes

    @property
    def edits_whole(self) -> bool:
        """See ``Backbone.edits_whole``."""
        return self.config.whole

    @torch.no_grad()
    def edit_photo(self, photo: np.ndarray, inversion: Inversion, control: Control) -> np.ndarray:
        """See ``Backbone.edit_photo``: at the crop's number of pixels and the photograph's own shape."""
        ((prompt,), (strength,)) = control.prompt or ("",), self._strengths(control, 1)
        height, width = photo.shape[:2]
        scale = self.crop.resolution / (height * width) ** 0.5
        size = [max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in (width, height)]
        small = np.asarray(Image.fromarray(photo).resize((size[0], size[1]), Image.Resampling.LANCZOS), np.float32)
        x = torch.from_numpy(small).permute(2, 0, 1) / 127.5 - 1
        drawn = self._edited(x, prompt, strength, int(inversion.extras["seed"][0]))
        levels = ((drawn.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        return np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.LANCZOS))

    def _strengths(self, control: Control, count: int) -> list[float]:
        return [1.0] * count if control.prompt_strength is None else control.prompt_strength.tolist()

    def _edited(self, x: Tensor, prompt: str, strength: float, seed: int) -> Tensor:
        """One picture ``[3, H, W]``, edited."""
        if strength < 0:
            raise EditError("an instruction cannot be followed less than not at all: give a strength above 0")
        kind, config, (height, width) = KINDS[self.config.kind], self.config, x.shape[1:]
        how: dict[str, Any] = {"num_inference_steps": config.steps, **kind.extra}
        how[kind.guidance_name] = config.guidance
        if kind.strength == "guidance":
            how[kind.guidance_name] = 1 + strength * (config.guidance - 1)
        elif kind.strength == "noise":
            how["strength"] = min(1.0, strength * kind.noise)
        if config.image_guidance is not None:
            how["image_guidance_scale"] = config.image_guidance
        if kind.sized:
            how |= {"height": height, "width": width}
        if config.kind == "FluxKontextPipeline":
            how["max_area"] = height * width
        levels = ((x.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        generator = torch.Generator().manual_seed(seed)
        found = self.pipeline(
            image=Image.fromarray(levels), prompt=prompt, generator=generator, output_type="np", **how
        ).images[0]
        drawn = torch.from_numpy(np.ascontiguousarray(found)).to(x).permute(2, 0, 1) * 2 - 1
        if not bool(drawn.isfinite().all()):
            raise EditError(f"the picture is not finite in {config.precision}: load the model in another precision")
        if drawn.shape != x.shape:
            drawn = F.interpolate(drawn[None], size=x.shape[-2:], mode="bilinear", antialias=True)[0]
        return x + strength * (drawn - x) if kind.strength == "mixing" else drawn

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        resolution: int | None = None,
        **settings: Any,
    ) -> Self:
        """A pipeline, from a folder in the layout of diffusers or ``owner/name`` on the hub.

        Args:
            name_or_path: which.
            revision: revision of a repository on the hub.
            resolution: side of the crop; default: what the model was trained on.
            **settings: settings of ``InstructConfig``.

        Raises:
            CheckpointError: missing, damaged, another kind of pipeline, or one with parts of other libraries.
            EditError: settings that make no sense.
        """
        folder = Path(name_or_path).expanduser()
        if not folder.is_dir():
            folder = download_pipeline(os.fspath(name_or_path), revision)
        index = checkpoints.read_json(folder / INDEX)
        name = str(index.get("_class_name"))
        if name not in KINDS:
            raise CheckpointError(f"{folder} holds a {name}; expected one of {', '.join(KINDS)}")
        pipeline, kind = load_pipeline(folder, name, index), KINDS[name]
        side = resolution or _trained_on(pipeline) or kind.resolution
        if side % MULTIPLE:
            raise EditError(f"resolution must be a multiple of {MULTIPLE}, not {side}")
        values = {"steps": kind.steps, "guidance": kind.guidance, "image_guidance": kind.image_guidance, **settings}
        try:
            config = InstructConfig(name, side, **values)
        except TypeError as error:
            raise CheckpointError(f"not settings of a pipeline: {error}") from error
        return cls(pipeline, config).eval()


def _trained_on(pipeline: Any) -> int | None:
    """Side of the pictures a U-Net was trained on; a transformer's files do not say it."""
    side = getattr(getattr(pipeline, "unet", None), "config", {}).get("sample_size")
    return None if not isinstance(side, int) else side * pipeline.vae_scale_factor


def load_pipeline(folder: Path, name: str, index: Mapping[str, Any]) -> Any:
    """The pipeline. Parts of other libraries than ``LIBRARIES`` are refused, because loading imports them.

    Args:
        folder: path of the folder.
        name: name of the pipeline's class.
        index: contents of ``model_index.json``.

    Raises:
        CheckpointError: a part is missing or of another library.
    """
    import diffusers

    parts = {part: value for part, value in index.items() if isinstance(value, list) and part[0] != "_"}
    if strange := [f"{part} ({value[0]})" for part, value in parts.items() if value[0] not in (None, *LIBRARIES)]:
        raise CheckpointError(f"{folder}: parts of unknown libraries, {', '.join(strange)}; nothing of it was loaded")
    if (kind := getattr(diffusers, name, None)) is None:
        raise CheckpointError(f"diffusers {diffusers.__version__} has no {name}: pip install --upgrade diffusers")
    without: dict[str, Any] = {part: None for part, value in parts.items() if value[0] is None}
    if "safety_checker" in parts:
        without |= {"safety_checker": None, "requires_safety_checker": False}
    bars = diffusers.utils.logging.is_progress_bar_enabled()
    diffusers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch_dtype")  # older versions only have this name
            pipeline = kind.from_pretrained(folder, torch_dtype=_held(folder), local_files_only=True, **without)
    except Exception as error:  # a damaged folder can fail in any way
        raise CheckpointError(f"{folder} cannot be loaded as a {name}: {str(error)[:300]}") from error
    finally:
        if bars:
            diffusers.utils.logging.enable_progress_bar()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _held(folder: Path) -> torch.dtype:
    """The type in which the largest network's file holds its weights.

    Loaded so, a model of 20 billion weights takes its size on the disk and not twice that.
    """
    from safetensors import safe_open

    for part in ("transformer", "unet"):
        for path in sorted((folder / part).glob("*.safetensors")):
            with safe_open(path, "np") as file:
                return DTYPES.get(file.get_slice(next(iter(file.keys()))).get_dtype(), torch.float32)
    return torch.float32


def download_pipeline(name: str, revision: str | None) -> Path:
    """A pipeline's snapshot in the hub's cache.

    Args:
        name: ``owner/name`` on the hub.
        revision: branch, tag or commit on the hub.

    Raises:
        CheckpointError: the hub does not give it.
    """
    told, index = checkpoints.peek(name, revision=revision)
    if told != INDEX:
        raise CheckpointError(f"{name} is no pipeline in the layout of diffusers: it has no {INDEX}")
    parts = [part for part, value in index.items() if isinstance(value, list) and value[0] and part != "safety_checker"]
    suffixes = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
    return checkpoints.fetch_files(name, [INDEX, *(f"{p}/{s}" for p in parts for s in suffixes)], revision=revision)

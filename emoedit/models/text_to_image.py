"""New pictures from words, by any text-to-image pipeline of diffusers: Stable Diffusion, SDXL, FLUX and others."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from emoedit.emotions import parse
from emoedit.io import checkpoints
from emoedit.models.devices import choose_device
from emoedit.models.identify import INDEX
from emoedit.models.instruct.backbone import download_pipeline, load_pipeline
from emoedit.types import CheckpointError, EditError

STYLE = "an abstract oil painting"


class TextToImage:
    """Draws pictures from prompts.

    Args:
        pipeline: pipeline of diffusers, one that draws from a text alone.
        name: name in results.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        self.pipeline, self.name = pipeline, name
        self._known = inspect.signature(pipeline.__call__).parameters

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], *, revision: str | None = None, device: str = "cpu") -> Self:
        """A pipeline, from a folder in the layout of diffusers or ``owner/name`` on the hub.

        Args:
            name_or_path: which.
            revision: revision of a repository on the hub.
            device: where it draws (``emoedit.models.devices.choose_device``).

        Raises:
            CheckpointError: missing, damaged, a pipeline that draws nothing from a text alone, or one with parts of
                libraries that are not known.
            EditError: a device that is not there.
        """
        device, text = choose_device(device), os.fspath(name_or_path)
        folder = Path(text).expanduser()
        if not folder.is_dir():
            if text.count("/") != 1 or text.startswith((".", "/", "~")):
                raise CheckpointError(
                    f"there is no model {text!r}: give a folder of diffusers, or owner/name of the hub"
                )
            folder = download_pipeline(text, revision)
        index = checkpoints.read_json(folder / INDEX)
        kind = str(index.get("_class_name"))
        if not _draws_from_text(kind):
            raise CheckpointError(
                f"{folder} holds a {kind}, which draws no picture from a text alone; expected a text-to-image pipeline "
                "of diffusers, such as StableDiffusionPipeline, StableDiffusionXLPipeline or FluxPipeline"
            )
        return cls(load_pipeline(folder, kind, index).to(device), Path(text).name)

    @torch.no_grad()
    def draw(
        self,
        prompt: str,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
    ) -> Image.Image:
        """A picture.

        Args:
            prompt: text of the prompt.
            seed: seed of the noise; the same one gives the same picture.
            steps: number of steps of denoising; default: the pipeline's own.
            guidance: how strongly the prompt is followed; default: the pipeline's own.
            size: side in pixels; default: what the model was trained on.

        Raises:
            EditError: settings that the pipeline does not take, a prompt that it cannot read, or a picture that is not
                finite.
        """
        asked = {"num_inference_steps": steps, "guidance_scale": guidance, "height": size, "width": size}
        how = {name: value for name, value in asked.items() if value is not None}
        if unknown := sorted(set(how) - set(self._known)):
            raise EditError(f"{type(self.pipeline).__name__} does not take {', '.join(unknown)}")
        if not prompt.strip():
            raise EditError("nothing is drawn from an empty prompt; say what the picture shows")
        generator = torch.Generator().manual_seed(seed)
        try:
            found = self.pipeline(prompt=prompt, generator=generator, output_type="np", **how).images[0]
        except (ValueError, TypeError) as error:  # a pipeline checks its own arguments
            raise EditError(f"{self.name} refuses the prompt or the settings: {str(error)[:300]}") from error
        if not np.isfinite(found).all():
            raise EditError(f"{self.name} drew a picture that is not finite; draw in float32")
        levels = (np.asarray(found) * 255).round().clip(0, 255).astype(np.uint8)
        return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def _draws_from_text(kind: str) -> bool:
    """Whether a class of diffusers is a pipeline that needs a prompt, no picture, and makes no video."""
    import diffusers

    found = getattr(diffusers, kind, None)
    if not isinstance(found, type) or not issubclass(found, diffusers.DiffusionPipeline):
        return False
    takes = inspect.signature(found.__call__).parameters
    return "prompt" in takes and not {"image", "video", "num_frames"} & set(takes)


def emotion_prompt(emotion: str, style: str = STYLE) -> str:
    """What a picture of an emotion in a style is asked for with.

    Args:
        emotion: a name, or algebra on names, whose names are all mentioned.
        style: style of the picture, in words.

    Raises:
        UnknownNameError: no such emotion.
        EditError: an expression that does not parse, or no style.
    """
    if not style.strip():
        raise EditError(f"say in which style, as in {STYLE!r}")
    weights = {name: weight for name, weight in parse(emotion).items() if weight > 0}
    if not weights:
        raise EditError(f"{emotion!r} names no emotion that a picture could show")
    return f"{style.strip()}, {' and '.join(weights)} mood"

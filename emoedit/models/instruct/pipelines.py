"""Which image-editing pipelines of diffusers there are, and which arguments of each set the edit and its strength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class PipelineKind:
    """How one pipeline class is called.

    Args:
        steps: number of steps of denoising, by default.
        guidance: what the pipeline's authors suggest.
        guidance_name: the argument that takes it.
        strength: what an edit's strength scales. ``guidance``: from 1, none, to ``guidance`` at strength 1. ``noise``:
            how much of the picture is noised before it is drawn anew. ``mixing``: how far the result lies between the
            picture and what was drawn; for models whose guidance was distilled into them.
        noise: at strength 1, where the strength scales it.
        image_guidance: how closely the picture is kept, for pipelines with such an argument.
        describes: whether its prompt describes the picture that is to come out, and gives no instruction.
        sized: whether height and width are arguments.
        resolution: side of the crop in pixels, where the model does not say it.
        extra: further arguments.
    """

    steps: int
    guidance: float
    guidance_name: str = "guidance_scale"
    strength: Literal["guidance", "noise", "mixing"] = "guidance"
    noise: float = 0.6
    image_guidance: float | None = None
    describes: bool = False
    sized: bool = True
    resolution: int = 1024
    extra: Mapping[str, Any] = field(default_factory=dict)


_TRUE_GUIDANCE: dict[str, Any] = {"guidance_name": "true_cfg_scale", "extra": {"negative_prompt": " "}}

KINDS: Mapping[str, PipelineKind] = {
    # Brooks et al. 2023, arXiv 2211.09800: 7.5 and 1.5.
    "StableDiffusionInstructPix2PixPipeline": PipelineKind(50, 7.5, image_guidance=1.5, sized=False, resolution=512),
    "StableDiffusionXLInstructPix2PixPipeline": PipelineKind(50, 5.0, image_guidance=1.5),
    "StableDiffusion3Img2ImgPipeline": PipelineKind(50, 7.0, strength="noise", describes=True),
    # Its guidance is an input of the network, not a difference of two passes.
    "FluxKontextPipeline": PipelineKind(28, 2.5, strength="mixing", extra={"_auto_resize": False}),
    "Flux2KleinPipeline": PipelineKind(4, 1.0, strength="mixing"),
    "QwenImageEditPipeline": PipelineKind(50, 4.0, **_TRUE_GUIDANCE),
    "QwenImageEditPlusPipeline": PipelineKind(40, 4.0, **_TRUE_GUIDANCE),
}
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")  # where a pipeline's parts may come from

"""Configuration of a Stable Diffusion: its parts, crop and sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from emoedit.models.luminance import PerChannel, fits
from emoedit.models.precision import check_precision
from emoedit.types import CheckpointError, EditError

InversionKind = Literal["exact", "ddim", "null_text", "edit_friendly", "image_to_image"]
INVERSIONS: tuple[str, ...] = get_args(InversionKind)
SCALED_LINEAR = {
    "prediction_type": "epsilon",
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
PARTS = ("unet", "vae", "text_encoder", "scheduler")


@dataclass(frozen=True)
class StableDiffusionConfig:
    """The parts, the crop, and how it is sampled.

    Args:
        unet: arguments of ``UNet2DConditionModel``, ``AutoencoderKL`` (``in_channels`` 1 for luminance, 3 for RGB) and
            ``CLIPTextConfig``.
        vae: as ``unet``.
        text_encoder: as ``unet``.
        scheduler: which noise it was trained with and what it predicts (``prediction_type``: ``"epsilon"`` or
            ``"v_prediction"``), as in diffusers' ``scheduler_config.json``.
        crop_style: the alignment (``emoedit.types.CropSpec``).
        crop_scale: as ``crop_style``.
        crop_down: as ``crop_style``.
        mean: what mean and contrast inside the face every crop is brought to before it is encoded (undone after
            decoding), in [-1, 1]: of all channels together, or one of each; ``std`` None leaves crops as they are.
        std: as ``mean``.
        prompt: neutral: what the picture is inverted under, and where every edit starts.
        negative: the negative prompt of guidance; None for the neutral one, with which guidance strengthens what an
            edit changes and nothing else.
        steps: number of steps of inversion and of decoding, over the timesteps 0 to ``t_last`` (default: all of the
            model).
        inversion: ``exact``: DDIM, the residual of each step kept (``emoedit.sampling.exact_inversion``). ``ddim``: not
            kept. ``null_text``, ``edit_friendly``: see ``emoedit.models.stable_diffusion.inversion``; what steps lose
            is kept here too. ``image_to_image``: no inversion: noise is added up to ``t_last`` and the picture drawn
            anew (Meng et al. 2022, arXiv 2108.01073), a baseline.
        guidance: scale of classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598); 1 is none.
        masked: outside the face the noise stays what was found in the source (not with ``image_to_image``, which has
            found none, nor below ``t_boost``, where it is drawn).
        t_text_min: the timesteps from and up to which the edited context is used, else the neutral one: high ones
            decide who it is.
        t_text_max: as ``t_text_min``.
        t_edit: h is shifted at timesteps from here up.
        t_boost: noise is drawn at timesteps below this (quality boosting); 0 for none.
        boost: noise is drawn ``"everywhere"``; or only where the edit has ``"changed"`` the picture
            (``emoedit.sampling.change_mask``), which needs a path whose losses are kept (``exact``, ``null_text``)
            and a ``std``, by which its distances are measured.
        null_iterations: iterations of null-text optimisation, a step.
        precision: number type of the U-Net's passes; auto: bfloat16 where the device computes it itself, else float32.
            Where bfloat16 gives NaN a step is repeated in float32, and that is logged.
    """

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    scheduler: dict[str, Any] = field(default_factory=lambda: dict(SCALED_LINEAR))
    crop_style: Literal["ffhq", "stable"] = "ffhq"
    crop_scale: float = 1.0
    crop_down: float = 0.0
    mean: PerChannel = 0.0
    std: PerChannel | None = None
    prompt: str = "a photo of a face"
    negative: str | None = None
    steps: int = 40
    t_last: int | None = None
    inversion: InversionKind = "exact"
    guidance: float = 3.0
    masked: bool = True
    t_text_min: int = 0
    t_text_max: int = 700
    t_edit: int = 500
    t_boost: int = 0
    boost: Literal["everywhere", "changed"] = "everywhere"
    null_iterations: int = 10
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "float32"


SAMPLING = (
    *("prompt", "negative", "steps", "t_last", "inversion", "guidance", "masked"),
    *("t_text_min", "t_text_max", "t_edit", "t_boost", "boost", "null_iterations", "precision"),
)


def check_parts(config: StableDiffusionConfig) -> int:
    """The side of the latent, of parts that fit together.

    ``emoedit.models.stable_diffusion.unet`` runs them as ``UNet2DConditionModel.forward`` does.

    Args:
        config: config of the backbone.

    Raises:
        CheckpointError: others, with all that is wrong.
    """
    unet, faults = config.unet, []
    side, widths = unet.get("sample_size"), unet.get("block_out_channels") or ()
    if not isinstance(side, int) or not widths or side % 2 ** (len(widths) - 1):
        expected = f"a multiple of {2 ** max(len(widths) - 1, 0)}"
        faults.append(f"the U-Net's sample_size {side!r} with {len(widths)} levels (expected {expected})")
    latent = config.vae.get("latent_channels", 4)
    channels = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if channels != (latent, latent):
        kind = " (an inpainting or instruction model)" if channels[0] > channels[1] else ""
        faults.append(f"the U-Net's {channels[0]} channels in and {channels[1]} out{kind} for a latent of {latent}")
    pictures = config.vae.get("in_channels", 3), config.vae.get("out_channels", 3)
    if pictures not in ((1, 1), (3, 3)):
        faults.append(f"the VAE's {pictures[0]} channels in and {pictures[1]} out (expected 1 or 3, as many out as in)")
    if not fits(config.mean, config.std, pictures[0]):
        faults.append(f"mean {config.mean!r} and std {config.std!r} (expected a number, or one of each channel)")
    if any(config.vae.get(name) is not None for name in ("shift_factor", "latents_mean", "latents_std")):
        faults.append("a VAE whose latent is shifted (expected scaled only)")
    width, found = config.text_encoder.get("hidden_size", 512), unet.get("cross_attention_dim", 1280)
    if found != width:
        faults.append(f"the U-Net's cross_attention_dim {found!r} with a text encoder {width} wide")
    if unet.get("mid_block_type", "UNetMidBlock2DCrossAttn") != "UNetMidBlock2DCrossAttn":
        faults.append(
            f"mid_block_type {unet['mid_block_type']!r} (expected 'UNetMidBlock2DCrossAttn': h is its output)"
        )
    if unet.get("time_embedding_type", "positional") != "positional":
        faults.append(f"time_embedding_type {unet['time_embedding_type']!r} (expected 'positional')")
    others = ["class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim", "encoder_hid_dim_type"]
    others += ["time_cond_proj_dim", "time_embedding_act_fn", "timestep_post_act"]
    if more := [name for name in others if unet.get(name) is not None]:
        faults.append(f"{', '.join(more)} (expected none: its inputs are noise, timestep and text)")
    if unet.get("norm_num_groups", 32) is None:
        faults.append("norm_num_groups None")
    if faults:
        raise CheckpointError(f"this model cannot be used: {'; '.join(faults)}")
    assert isinstance(side, int)  # or it was among the faults
    return side


def check_sampling(config: StableDiffusionConfig, last: int) -> None:
    """Whether settings of sampling make sense, for timesteps 0 to ``last``.

    Args:
        config: config of the backbone.
        last: the last timestep that the model was trained on.

    Raises:
        EditError: they do not.
    """
    for name in ("steps", "t_text_min", "t_text_max", "t_edit", "t_boost", "null_iterations"):
        if not isinstance(getattr(config, name), int):
            raise EditError(f"{name} must be a whole number, not {getattr(config, name)!r}")
    for name in ("t_text_min", "t_text_max", "t_edit", "t_boost"):
        if not 0 <= getattr(config, name) <= last:
            raise EditError(f"{name} is {getattr(config, name)}, outside the model's timesteps 0 to {last}")
    if not isinstance(config.prompt, str) or not isinstance(config.negative, str | None):
        raise EditError(f"prompts are text, not {config.prompt!r} and {config.negative!r} (None for no negative one)")
    check_precision(config.precision)
    if config.inversion not in INVERSIONS:
        raise EditError(f"inversion must be one of {', '.join(INVERSIONS)}, not {config.inversion!r}")
    if not (isinstance(config.guidance, int | float) and math.isfinite(config.guidance) and config.guidance > 0):
        raise EditError(f"guidance must be a number above 0, not {config.guidance!r}; 1 is none, 2 to 8 usual")
    if config.inversion == "null_text":
        if config.negative is None or config.guidance == 1:
            raise EditError(
                "null-text optimisation replaces the embeddings of the negative prompt: give "
                "negative (usually '') and a guidance above 1"
            )
        if config.null_iterations < 1:
            raise EditError(f"null_iterations must be above 0, not {config.null_iterations}; 10 is usual")
    if config.t_boost and config.inversion in ("edit_friendly", "image_to_image"):
        raise EditError(f"t_boost is {config.t_boost}, but {config.inversion} brings noise of its own: set it to 0")
    if config.boost not in ("everywhere", "changed"):
        raise EditError(f"boost must be everywhere or changed, not {config.boost!r}")
    if config.t_boost and config.boost == "changed":
        if config.inversion not in ("exact", "null_text"):
            raise EditError(
                f"boost 'changed' goes on along the source's path, of which {config.inversion} keeps nothing"
            )
        if config.std is None:
            raise EditError("boost 'changed' compares pictures at one contrast: give std, or boost everywhere")

"""Configuration of a DDPM: its U-Net, noise schedule, crop and sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from emoedit.models.luminance import PerChannel
from emoedit.models.planes import plane_count
from emoedit.types import CheckpointError

SAMPLING = ("steps", "t_last", "t_edit", "t_boost", "boost", "symmetric", "exact", "precision")
LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}


@dataclass(frozen=True)
class DDPMConfig:
    """The architecture, the crop, and how it is sampled.

    Defaults of the crop and of sampling are those of CelebA-HQ at 256 pixels in Asyrp's paper.

    Args:
        unet: arguments of ``UNet2DModel``; ``sample_size`` is the side of the crop, ``in_channels`` 1 (luminance) or 3
            (see ``patch``).
        scheduler: which noise it was trained with: ``num_train_timesteps`` and ``beta_schedule``, ``beta_start`` and
            ``beta_end`` or ``trained_betas``, as in diffusers' ``scheduler_config.json``.
        patch: side of the squares of pixels that the U-Net sees as channels (pixel unshuffle), so that a small net's
            convolutions reach further: ``sample_size`` is then the crop's side / ``patch``, ``in_channels`` times its
            square.
        chroma: factor of two planes of colour beside the squares of luminance (``emoedit.models.planes``):
            ``in_channels`` is ``patch`` squared + 2, and crops are in RGB. None: squares of every channel.
        crop_style: the alignment (``emoedit.types.CropSpec``).
        crop_scale: as ``crop_style``.
        crop_down: as ``crop_style``.
        mean: what mean and contrast inside the face every crop is brought to before inversion (undone after decoding),
            in [-1, 1]: of all channels together, or one of each; ``std`` None leaves crops as they are.
        std: as ``mean``.
        steps: number of steps of inversion and of decoding, over the timesteps 0 to ``t_last`` (default: all of the
            model).
        t_edit: h is shifted at timesteps from here up.
        t_boost: noise is drawn at timesteps below this (quality boosting); 0 for none.
        boost: noise is drawn ``"everywhere"``, as in the paper; or only where the edit has ``"changed"`` the picture
            (``emoedit.sampling.change_mask``): a new mouth is drawn whole, all else stays the source's.
        symmetric: shift P_t and D_t alike, in one pass of the up path (``emoedit.sampling.symmetric_gain``).
        exact: the reconstruction is the source (``emoedit.sampling.exact_inversion``).
        precision: number type of the U-Net's passes; auto: bfloat16 where the device computes it itself, else float32.
            Where bfloat16 gives NaN a step is repeated in float32, and that is logged.
    """

    unet: dict[str, Any]
    scheduler: dict[str, Any] = field(default_factory=lambda: dict(LINEAR))
    patch: int = 1
    chroma: float | None = None
    crop_style: Literal["ffhq", "stable"] = "ffhq"
    crop_scale: float = 1.0
    crop_down: float = 0.0
    mean: PerChannel = 0.0
    std: PerChannel | None = None
    steps: int = 40
    t_last: int | None = None
    t_edit: int = 513
    t_boost: int = 167
    boost: Literal["everywhere", "changed"] = "everywhere"
    symmetric: bool = False
    exact: bool = True
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "float32"


def read_config(config: dict[str, Any]) -> DDPMConfig:
    """The configuration of a folder.

    Args:
        config: contents of ``config.json``.

    Raises:
        CheckpointError: an entry is missing or unknown.
    """
    try:
        return DDPMConfig(**config)
    except TypeError as error:
        raise CheckpointError(f"not a configuration of this DDPM: {error}") from error


def check_unet(config: dict[str, Any], patch: int = 1, chroma: float | None = None) -> int:
    """The side of the crops, of a U-Net that ``down`` and ``up`` run as ``UNet2DModel.forward`` does.

    Args:
        config: config of the U-Net.
        patch: side of the squares of pixels that are its channels.
        chroma: factor of its planes of colour; None without them.

    Raises:
        CheckpointError: another kind of U-Net.
    """
    side = config.get("sample_size")
    if isinstance(side, list | tuple) and len(set(side)) == 1:
        side = side[0]
    channels = config.get("in_channels", 3), config.get("out_channels", 3)
    widths = config.get("block_out_channels")
    levels = len(widths) if isinstance(widths, list | tuple) else 0
    kinds = [str(kind) for name in ("down_block_types", "up_block_types") for kind in config.get(name) or ()]
    faults = []
    if not isinstance(side, int) or not levels or side % 2 ** (levels - 1):
        faults.append(f"sample_size {side!r} with {levels} levels (expected a multiple of {2 ** max(levels - 1, 0)})")
    if not isinstance(patch, int) or patch < 1:
        raise CheckpointError(f"patch must be a whole number above 0, found {patch!r}")
    if chroma is not None and not (isinstance(chroma, int | float) and 0 < chroma < math.inf):
        raise CheckpointError(f"chroma must be a number above 0, or none, found {chroma!r}")
    usable = [plane_count(patch, chroma, c) for c in ((1, 3) if chroma is None else (3,))]
    if channels not in [(count, count) for count in usable]:
        expected = " or ".join(map(str, usable))
        faults.append(f"{channels[0]} channels in and {channels[1]} out (expected {expected}, as many out as in)")
    if config.get("time_embedding_type", "positional") != "positional":
        faults.append(f"time_embedding_type {config['time_embedding_type']!r} (expected 'positional')")
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        faults.append("class conditioning (expected none)")
    if config.get("mid_block_type", "UNetMidBlock2D") != "UNetMidBlock2D":
        faults.append(f"mid_block_type {config['mid_block_type']!r} (expected 'UNetMidBlock2D': h is its output)")
    if any(kind.startswith(("Skip", "AttnSkip")) for kind in kinds):
        faults.append(f"blocks with a second path for the picture ({', '.join(sorted(set(kinds)))})")
    if faults:
        raise CheckpointError(f"this U-Net cannot be used: {'; '.join(faults)}")
    assert isinstance(side, int)  # or it was among the faults
    return side * patch

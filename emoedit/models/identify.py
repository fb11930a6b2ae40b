"""What a folder or a file of weights holds, by its names alone: no weight is loaded, nothing in it is executed.

Every answer is the name of an entry of ``emoedit.models.pretrained.TABLE``, or an error that says in the user's
words what it is instead and where it belongs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from emoedit.io import checkpoints
from emoedit.io.weights import read_torch
from emoedit.models.instruct.pipelines import KINDS
from emoedit.types import CheckpointError

INDEX = "model_index.json"
HEADER_LIMIT = 100_000_000  # bytes: safetensors' own limit of its header
TEXT_TO_IMAGE = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
FROM_NOISE = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "ScoreSdeVePipeline")
TOKEN = "a learned token: give it to a Stable Diffusion, --editor sd15 --token EMOTION={}"
ENCODER = "--editor stylegan2 --model FILE --encoder {}"
BOUNDARY = "a boundary in W: give it to its generator, --editor stylegan2 --model FILE --boundary EMOTION={}"
SHIFT = "a shift of h (Asyrp): give it to its U-Net, --editor celebahq --shift EMOTION={}"


def folder(path: Path) -> str:
    """The entry that a folder without ``editor.json`` belongs to.

    Args:
        path: path of the folder.

    Raises:
        CheckpointError: it is something else; the message says what, and which flag takes it.
    """
    there = {entry.name for entry in path.iterdir()}
    if INDEX in there:
        return pipeline(checkpoints.read_json(path / INDEX).get("_class_name"), path)
    if {"learned_embeds.safetensors", "learned_embeds.bin"} & there:
        raise CheckpointError(f"{path} is {TOKEN.format(path)}")
    if {"pytorch_lora_weights.safetensors", "adapter_config.json"} & there:
        raise CheckpointError(_lora(path))
    if checkpoints.CONFIG in there:
        config = checkpoints.read_json(path / checkpoints.CONFIG)
        if config.get("_class_name") == "UNet2DModel":
            return "celebahq"
        if {"mapping_layers", "w_dim"} <= set(config):
            return "stylegan2"
        if "shifts" in config:
            raise CheckpointError(f"{path} is {SHIFT.format(path)}")
    shown = ", ".join(sorted(there)[:6]) or "nothing"
    raise CheckpointError(
        f"{path} is no editor and no model: found {shown}; expected {checkpoints.EDITOR}, or {INDEX} of a model in the "
        "layout of diffusers"
    )


def pipeline(kind: Any, where: Path | str) -> str:
    """The entry that a pipeline of diffusers belongs to.

    Args:
        kind: ``_class_name`` of its ``model_index.json``.
        where: for messages.

    Raises:
        CheckpointError: none of them.
    """
    if kind in TEXT_TO_IMAGE:
        return "sd15"
    if kind in FROM_NOISE:
        return "celebahq"
    if kind in KINDS:
        return "instruct"
    others = {"StableDiffusionXL": "SDXL (two text encoders)", "StableDiffusion3": "Stable Diffusion 3", "Flux": "FLUX"}
    what = next((words for name, words in others.items() if str(kind).startswith(name)), "another model")
    raise CheckpointError(
        f"{where} holds a {kind}: {what}, which no editor takes as it is. sd15 takes Stable Diffusion 1.x and 2.x, "
        f"celebahq a DDPM, instruct one of {', '.join(KINDS)}"
    )


def file(path: Path) -> str:
    """The entry that a single file belongs to.

    Args:
        path: path of the file.

    Raises:
        CheckpointError: it is something else; the message says what, and which flag takes it.
    """
    if path.suffix.lower() in (".pkl", ".pickle"):
        return "stylegan2"
    if path.suffix.lower() == ".npy":
        raise CheckpointError(f"{path} is {BOUNDARY.format(path)}")
    return by_names(tensors(path), path)


def tensors(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes in a weight file; of containers in a container, the names alone (shape ``()``).

    Args:
        path: path of the file.

    Raises:
        CheckpointError: damaged, or holding more than tensors.
    """
    if path.suffix.lower() == ".safetensors":
        return _safetensors_names(path)
    import torch

    found = read_torch(path, numbers=False)
    if isinstance(found, torch.Tensor):
        raise CheckpointError(f"{path} is {BOUNDARY.format(path)}" if found.ndim == 2 else f"{path} holds one tensor")
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} holds a {type(found).__name__}; expected names -> tensors")
    return {str(name): tuple(getattr(value, "shape", ())) for name, value in found.items()}


def _safetensors_names(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes from the header, without reading what follows it."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > HEADER_LIMIT:
                raise ValueError("its header is too long")
            header = json.loads(stream.read(length))
        return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error


def by_names(names: Mapping[str, tuple[int, ...]], path: Path) -> str:
    """The entry that a file with these tensors belongs to.

    Args:
        names: name of a tensor -> its shape.
        path: path of the file, for messages.

    Raises:
        CheckpointError: it is something else; the message says what, and which flag takes it.
    """
    if "temb.dense.0.weight" in names or "module.temb.dense.0.weight" in names:
        return "celebahq"
    if "g_ema" in names or "decoder.input.input" in names:
        return "stylegan2"
    if "encoder.input_layer.0.weight" in names:
        raise CheckpointError(f"{path} is an encoder without its generator: give it to one, {ENCODER.format(path)}")
    if _has(names, "model.diffusion_model.input_blocks.") and not _has(names, "conditioner.embedders."):
        if _has(names, "cond_stage_model.model."):  # OpenCLIP's text encoder
            raise CheckpointError(
                f"{path} is a Stable Diffusion 2.x in one file, which does not say whether it predicts noise or v: "
                "make a folder of it (diffusers: StableDiffusionPipeline.from_single_file(FILE), .save_pretrained), "
                "then give that folder"
            )
        return "sd15"
    if any("lora_" in name or ".lora." in name for name in names):
        raise CheckpointError(_lora(path))
    if "string_to_param" in names or set(names) == {"emb_params"} or _one_token(names):
        raise CheckpointError(f"{path} is {TOKEN.format(path)}")
    if set(names) == {"0"}:
        raise CheckpointError(f"{path} is {SHIFT.format(path)}")
    known = (
        ("conditioner.embedders.", "SDXL"),
        ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3"),
        ("joint_blocks.", "Stable Diffusion 3"),
        ("model.diffusion_model.double_blocks.", "FLUX"),
        ("double_blocks.", "FLUX"),
    )
    for start, what in known:
        if _has(names, start):
            raise CheckpointError(
                f"{path} is a file of {what}; as one file only Stable Diffusion 1.x is read. Give the instruct editor "
                "a folder of an editing pipeline in the layout of diffusers"
            )
    shown = ", ".join(sorted(names)[:3]) or "nothing"
    raise CheckpointError(
        f"{path} holds {shown}: expected a Stable Diffusion 1.x (model.diffusion_model.…), a DDPM (temb.dense.0.…) or "
        "a StyleGAN2 (g_ema)"
    )


def _has(names: Collection[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


def _one_token(names: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it is one tensor of some vectors, as wide as a text encoder."""
    shapes = list(names.values())
    return len(shapes) == 1 and 1 <= len(shapes[0]) <= 2 and shapes[0][-1] > 1


def _lora(path: Path) -> str:
    return (
        f"{path} is a LoRA, changes to a model and no model: merge it into its Stable Diffusion first (diffusers: "
        "pipe.load_lora_weights, pipe.fuse_lora, pipe.save_pretrained), then give that folder"
    )

"""Stable Diffusion 1.x in one file, ``.safetensors`` or ``.ckpt``, as web interfaces and model sites pass it on.

Such a file holds the weights under the original implementation's names and neither configuration nor tokenizer: the
widths are read from the tensors, names are changed by diffusers' own converters, and the tokenizer, which all 1.x
models share, comes from a folder or from the hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from emoedit.io import checkpoints
from emoedit.models import identify
from emoedit.models.ddpm.files import read_file
from emoedit.models.pretrained import STABLE_DIFFUSION
from emoedit.models.stable_diffusion.config import SCALED_LINEAR
from emoedit.models.stable_diffusion.files import Folder, read_tokenizer
from emoedit.types import CheckpointError

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
HEAD = 64  # channels an attention head of CLIP's text encoder has
TOKENIZER = ("tokenizer/*.json", "tokenizer/merges.txt")


def read_single_file(path: Path, *, tokenizer: str | None = None, resolution: int = 512) -> Folder:
    """What a folder of diffusers would hold, from one file.

    Args:
        path: ``.safetensors``, or ``.ckpt`` (tensors only: one that would run code is refused).
        tokenizer: a folder with CLIP's tokenizer, or a model's folder with ``tokenizer/``; default: that of Stable
            Diffusion 1.5 on the hub (1.5 MB).
        resolution: side of the pictures it was trained on; weights do not contain it.

    Raises:
        CheckpointError: missing, damaged, another model, or no tokenizer.
    """
    if identify.file(path) != "sd15":
        raise CheckpointError(f"{path} is no Stable Diffusion 1.x in one file")
    words = read_tokenizer(_tokenizer_folder(tokenizer, path))  # first: it is small
    state = _state(path)
    if not any(name.startswith(TEXT) for name in state):
        raise CheckpointError(
            f"{path} holds no text encoder ({TEXT}...): give the model as a folder in the layout of diffusers"
        )
    configs = {
        "unet": _unet_config(state, path, resolution // 8),
        "vae": _vae_config(state, path, resolution),
        "text_encoder": _text_config(state, path),
        "scheduler": dict(SCALED_LINEAR),
    }
    return Folder(configs, _converted(state, configs, path), words, {})


def _tokenizer_folder(tokenizer: str | None, path: Path) -> Path:
    if tokenizer is not None:
        found = Path(tokenizer).expanduser()
        return found / "tokenizer" if (found / "tokenizer").is_dir() else found
    try:
        return checkpoints.fetch_files(STABLE_DIFFUSION, TOKENIZER) / "tokenizer"
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} holds no tokenizer, as no single file does, and the hub did not give one: give the folder of "
            f"CLIP's tokenizer (--set tokenizer=FOLDER). {error}"
        ) from error


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix.lower() == ".safetensors":
        return checkpoints.read_weights(path)
    found = read_file(path)
    found = found.get("state_dict", found)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _shape(state: Mapping[str, Tensor], name: str, path: Path) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"{path} lacks {name}: it is incomplete, or another model")
    return tuple(state[name].shape)


def _unet_config(state: Mapping[str, Tensor], path: Path, side: int) -> dict[str, Any]:
    """Two blocks a level, as every 1.x has: level i begins at input block 1 + 3 i."""
    blocks = {int(m[1]) for name in state if (m := re.match(rf"{re.escape(UNET)}input_blocks\.(\d+)\.", name))}
    levels = (max(blocks, default=0) + 1) // 3
    widths = [_shape(state, f"{UNET}input_blocks.{1 + 3 * i}.0.out_layers.3.weight", path)[0] for i in range(levels)]
    attends = [
        f"{UNET}input_blocks.{1 + 3 * i}.1.transformer_blocks.0.attn2.to_k.weight" in state for i in range(levels)
    ]
    text = next((state[name].shape[1] for name in state if name.endswith("attn2.to_k.weight")), 768)
    return {
        "sample_size": side,
        "in_channels": _shape(state, f"{UNET}input_blocks.0.0.weight", path)[1],
        "out_channels": _shape(state, f"{UNET}out.2.weight", path)[0],
        "block_out_channels": widths,
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": int(text),
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)],
    }


def _vae_config(state: Mapping[str, Tensor], path: Path, side: int) -> dict[str, Any]:
    found = {int(m[1]) for name in state if (m := re.match(rf"{re.escape(VAE)}encoder\.down\.(\d+)\.", name))}
    levels = max(found, default=-1) + 1
    widths = [_shape(state, f"{VAE}encoder.down.{i}.block.0.conv1.weight", path)[0] for i in range(levels)]
    return {
        "in_channels": _shape(state, f"{VAE}encoder.conv_in.weight", path)[1],
        "out_channels": _shape(state, f"{VAE}decoder.conv_out.weight", path)[0],
        "latent_channels": _shape(state, f"{VAE}post_quant_conv.weight", path)[0],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": 2,
        "sample_size": side,
    }


def _text_config(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    model = f"{TEXT}text_model."
    words, width = _shape(state, f"{model}embeddings.token_embedding.weight", path)
    layers = {int(m[1]) for name in state if (m := re.match(rf"{re.escape(model)}encoder\.layers\.(\d+)\.", name))}
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": _shape(state, f"{model}encoder.layers.0.mlp.fc1.weight", path)[0],
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": max(1, width // HEAD),
        "max_position_embeddings": _shape(state, f"{model}embeddings.position_embedding.weight", path)[0],
        "hidden_act": "quick_gelu",
    }


def _converted(state: Mapping[str, Tensor], configs: dict[str, Any], path: Path) -> dict[str, dict[str, Tensor]]:
    """The parts' weights under the names of diffusers and transformers."""
    from diffusers.loaders import single_file_utils as converters

    try:
        unet = converters.convert_ldm_unet_checkpoint(dict(state), configs["unet"])
        vae = converters.convert_ldm_vae_checkpoint(dict(state), configs["vae"])
    except (KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{path} lacks {error}: it is incomplete, or another model") from error
    text = {
        name.removeprefix(TEXT).removeprefix("text_model."): value
        for name, value in state.items()
        if name.startswith(TEXT) and not name.endswith("position_ids")
    }
    return {"unet": unet, "vae": vae, "text_encoder": text}

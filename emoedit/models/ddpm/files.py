"""A DDPM's folders in diffusers' layout, and weight files under other names, read into ``UNet2DModel``'s.

Other names are of two kinds: the original DDPM's (``.ckpt`` of SDEdit, DiffusionCLIP and Asyrp: ``temb.dense.0``,
``mid.block_1``, ...), and diffusers' own from before 2023, whose attention layers have other names
(``google/ddpm-ema-celebahq-256`` is one).
Nothing in a file is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from emoedit.io import checkpoints
from emoedit.io.weights import read_torch
from emoedit.models.noise import known_noise
from emoedit.types import CheckpointError

SCHEDULER = "scheduler_config.json"
PIPELINE = {
    "_class_name": "DDIMPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}
ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
RESNET = {"temb_proj": "time_emb_proj", "nin_shortcut": "conv_shortcut"}
TOP = {
    "temb.dense.0": "time_embedding.linear_1",
    "temb.dense.1": "time_embedding.linear_2",
    "norm_out": "conv_norm_out",
}
ATTENTION_SIDE = 16  # every published model of this family attends at 16 x 16 pixels, and nowhere else


def read_file(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors in plain containers, nothing else.

    Args:
        path: path of the file.

    Raises:
        CheckpointError: missing, damaged, or holding more than that.
    """
    return read_torch(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Names -> tensors of a file that ``torch.save`` wrote; ``module.`` of ``DataParallel`` is taken off.

    Args:
        path: path of the file.

    Raises:
        CheckpointError: missing, damaged, or holding anything else.
    """
    state = read_file(path)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not names -> tensors; save the state dict alone")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def is_original(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are the original DDPM's.

    Args:
        state: names -> tensors.
    """
    return "temb.dense.0.weight" in state and "mid.block_1.conv1.weight" in state


def rename_old_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Attention names of diffusers before 2023 (``query``, ``proj_attn``) as the current ones; other names stay.

    Args:
        state: names -> tensors.
    """
    pattern = re.compile(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)\.")
    return {pattern.sub(lambda m: f"{m[1]}{OLD_ATTENTION[m[2]]}.", name): value for name, value in state.items()}


def _levels(state: Mapping[str, Tensor], side: str) -> int:
    found = map(re.compile(rf"{side}\.(\d{{1,2}})\.").match, state)
    return 1 + max((int(m[1]) for m in found if m), default=-1)


def _shape(state: Mapping[str, Tensor], name: str, path: Path | str) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"{path} has the original DDPM's names but no {name}: it is incomplete")
    return tuple(state[name].shape)


def original_config(state: Mapping[str, Tensor], path: Path | str, resolution: int | None = None) -> dict[str, Any]:
    """The arguments of ``UNet2DModel`` for a state with the original DDPM's names.

    Args:
        state: tensors by name.
        path: path of the file.
        resolution: side of the pictures; not in the weights. Default: what makes the level that attends 16 pixels
            wide, as in every published model.

    Raises:
        CheckpointError: it is incomplete, the levels differ in depth, or the resolution cannot be derived.
    """
    levels = _levels(state, "down")
    depth = {sum(f"down.{i}.block.{j}.conv1.weight" in state for j in range(100)) for i in range(levels)}
    if len(depth) != 1:
        raise CheckpointError(f"{path}: its levels have {sorted(depth)} blocks each; expected the same number in all")
    attends = [f"down.{i}.attn.0.norm.weight" in state for i in range(levels)]
    if resolution is None:
        if sum(attends) != 1:
            raise CheckpointError(
                f"{path} attends at {sum(attends)} levels, so the side of its pictures cannot be told; give resolution"
            )
        resolution = ATTENTION_SIDE * 2 ** attends.index(True)
    return {
        "sample_size": resolution,
        "in_channels": _shape(state, "conv_in.weight", path)[1],
        "out_channels": _shape(state, "conv_out.weight", path)[0],
        "block_out_channels": [_shape(state, f"down.{i}.block.0.conv1.weight", path)[0] for i in range(levels)],
        "layers_per_block": depth.pop(),
        "down_block_types": ["AttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "up_block_types": ["AttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)],
        "attention_head_dim": None,
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "downsample_padding": 0,  # the picture is padded at its right and lower side only
        "freq_shift": 1,
        "flip_sin_to_cos": False,
    }


def convert_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original DDPM's names as ``UNet2DModel``'s; its 1 x 1 convolutions around attention become linear layers.

    Names that are no U-Net's of this family come through unchanged, for the comparison with what is expected to report.

    Args:
        state: names -> tensors.
    """
    levels = _levels(state, "up")
    return {_new_name(name, levels): _linear(name, value) for name, value in state.items()}


def _linear(name: str, value: Tensor) -> Tensor:
    attention = re.search(r"\battn(\.|_1\.).*(q|k|v|proj_out)\.weight$", name)
    return value[:, :, 0, 0] if attention and value.ndim == 4 else value


def _new_name(name: str, levels: int) -> str:
    head, _, kind = name.rpartition(".")  # "mid.block_1.norm1", "weight"
    if head in TOP:
        return f"{TOP[head]}.{kind}"
    if found := re.fullmatch(r"mid\.(block|attn)_(\d)\.(\w+)", head):
        part, number, layer = found.groups()
        if part == "block":
            return f"mid_block.resnets.{int(number) - 1}.{RESNET.get(layer, layer)}.{kind}"
        return f"mid_block.attentions.{int(number) - 1}.{ATTENTION.get(layer, layer)}.{kind}"
    if found := re.fullmatch(r"(down|up)\.(\d+)\.(?:(block|attn)\.(\d+)\.(\w+)|(?:down|up)sample\.conv)", head):
        side, level, part, number, layer = found.groups()
        block = f"{side}_blocks.{int(level) if side == 'down' else levels - 1 - int(level)}"
        if part is None:
            return f"{block}.{side}samplers.0.conv.{kind}"
        if part == "block":
            return f"{block}.resnets.{number}.{RESNET.get(layer, layer)}.{kind}"
        return f"{block}.attentions.{number}.{ATTENTION.get(layer, layer)}.{kind}"
    return name  # conv_in, conv_out


def read_folder(folder: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """A pipeline's folder, or one with its files at the top, as ``google/ddpm-ema-celebahq-256`` has.

    Args:
        folder: path of the folder.
        settings: settings of ``DDPMConfig``, instead of those in the folder.

    Returns:
        The entries of a ``DDPMConfig``, the U-Net's tensors under current names, and the folder they were read from.

    Raises:
        CheckpointError: a file is missing or damaged; another kind of model.
    """
    part = folder / "unet" if (folder / "unet").is_dir() else folder
    unet = checkpoints.read_json(part / checkpoints.CONFIG)
    if unet.get("_class_name") != "UNet2DModel":
        kind = unet.get("_class_name", "a model without a name")
        raise CheckpointError(
            f"{part / checkpoints.CONFIG} describes {kind}; expected a UNet2DModel, which makes pictures from "
            "noise alone"
        )
    below = folder / "scheduler" / SCHEDULER
    config = {
        **(
            checkpoints.read_json(folder / checkpoints.CONFIG)
            if part != folder and (folder / checkpoints.CONFIG).is_file()
            else {}
        ),
        **settings,
        "unet": {name: value for name, value in unet.items() if not name.startswith("_")},
        "scheduler": known_noise(
            checkpoints.read_json(below if below.is_file() else folder / SCHEDULER), folder, ["epsilon"]
        ),
    }
    offered = (part / name for name in checkpoints.PART_WEIGHTS["unet"])
    weights = next((path for path in offered if path.is_file()), part / checkpoints.WEIGHTS)
    safe = weights.suffix == ".safetensors"
    state = checkpoints.read_weights(weights) if safe else read_tensors(weights)
    return config, rename_old_attention(state), part

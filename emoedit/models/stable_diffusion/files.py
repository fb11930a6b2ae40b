"""Stable Diffusion's folder, in diffusers' layout: read without running anything from it, and written.

``tokenizer/``, ``text_encoder/``, ``vae/``, ``unet/``, ``scheduler/`` and ``model_index.json``; beside them
``config.json`` with this package's settings, where it wrote the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.models.ddpm import files as ddpm_files
from emoedit.models.noise import known_noise, read_betas
from emoedit.types import CheckpointError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, PreTrainedTokenizerBase

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
TEXT_WEIGHTS = "model.safetensors"  # transformers' name, where diffusers has checkpoints.WEIGHTS
WEIGHTS = {  # what a part's weights may be called
    part: checkpoints.PART_WEIGHTS[part] for part in ("unet", "vae", "text_encoder")
}
PARTS = ("tokenizer", "text_encoder", "vae", "unet", "scheduler")
PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
TRANSFORMERS = ("architectures", "model_type", "dtype", "torch_dtype")  # its entries that describe no architecture


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Args:
        configs: configs of ``unet``, ``vae``, ``text_encoder`` and ``scheduler``, without diffusers' own entries.
        states: weights of ``unet``, ``vae`` and ``text_encoder``, under current names.
        tokenizer: CLIP's.
        settings: this package's ``config.json``; empty in a folder that another program wrote.
    """

    configs: dict[str, dict[str, Any]]
    states: dict[str, dict[str, Tensor]]
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]


def _weights(part: Path) -> Path | None:
    """The weight file of a part; safetensors first."""
    return next((part / name for name in WEIGHTS[part.name] if (part / name).is_file()), None)


def read_folder(folder: Path) -> Folder:
    """Everything in a folder of diffusers' layout.

    Args:
        folder: path of the folder.

    Raises:
        CheckpointError: not such a folder, another kind of model, or a part that is missing or damaged.
    """
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    missing = [part for part in PARTS if part not in there]
    if missing:
        shown = ", ".join(there[:8]) + (", …" if len(there) > 8 else "") if there else "nothing"
        raise CheckpointError(
            f"{folder} is no Stable Diffusion in diffusers' layout: {', '.join(missing)} missing, found {shown}; "
            f"expected {', '.join(PARTS)}"
        )
    if "text_encoder_2" in there:
        raise CheckpointError(f"{folder} has two text encoders (SDXL); expected Stable Diffusion 1.x or 2.x, with one")
    configs: dict[str, dict[str, Any]] = {}
    for part, expected in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL"), ("text_encoder", "CLIPText")):
        config = checkpoints.read_json(folder / part / checkpoints.CONFIG)
        kind = config.get("_class_name") or ", ".join(config.get("architectures") or []) or "model without a name"
        if not kind.startswith(expected):
            raise CheckpointError(f"{folder / part} holds a {kind}; expected a {expected}")
        configs[part] = {k: v for k, v in config.items() if k[0] != "_" and k not in TRANSFORMERS}
    configs["scheduler"] = _known(checkpoints.read_json(folder / SCHEDULER), folder)
    states = {part: _read_state(folder / part) for part in WEIGHTS}
    settings = checkpoints.read_json(folder / checkpoints.CONFIG) if (folder / checkpoints.CONFIG).is_file() else {}
    return Folder(configs, states, read_tokenizer(folder / "tokenizer"), settings)


def _known(scheduler: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """The entries of a ``scheduler_config.json`` that say which noise a model was trained with, what it predicts."""
    predicts = scheduler.get("prediction_type", "epsilon")
    return {"prediction_type": predicts, **known_noise(scheduler, where, ["epsilon", "v_prediction"])}


def betas(scheduler: Mapping[str, Any]) -> Tensor:
    """The betas of a ``scheduler_config.json``, ``[T]``.

    Raises:
        CheckpointError: not a schedule of noise, or a prediction of something else than noise or v.
    """
    return read_betas(_known(scheduler, "the scheduler"))


def _read_state(part: Path) -> dict[str, Tensor]:
    path = _weights(part) or part / WEIGHTS[part.name][0]  # the error names the file that should be there
    state = checkpoints.read_weights(path) if path.suffix == ".safetensors" else ddpm_files.read_tensors(path)
    if part.name != "text_encoder":
        return ddpm_files.rename_old_attention(state)
    # transformers 5 has dropped this prefix, published files have it; position_ids is a constant of old files.
    bare = {name.removeprefix("text_model."): value for name, value in state.items()}
    return {name: value for name, value in bare.items() if not name.endswith("position_ids")}


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """CLIP's tokenizer.

    Args:
        folder: path of the folder.

    Raises:
        CheckpointError: its files are missing or damaged.
    """
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise CheckpointError(f"{folder} has no vocabulary: expected vocab.json and merges.txt, or tokenizer.json")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a damaged folder can fail in any way
        raise CheckpointError(f"{folder} cannot be read as CLIP's tokenizer: {error}") from error
    if len(tokenizer) < 3 or None in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        raise CheckpointError(f"{folder}: a tokenizer of {len(tokenizer)} tokens, or without start and end of a prompt")
    return tokenizer


def write_folder(
    folder: Path,
    *,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    configs: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Write what ``read_folder`` reads, and ``StableDiffusionPipeline.from_pretrained`` too.

    Args:
        folder: an existing folder.
        unet: part of the model.
        vae: part of the model.
        text_encoder: part of the model.
        tokenizer: CLIP's.
        configs: part -> its configuration.
        settings: contents of ``config.json``.
    """
    checkpoints.write_part(
        folder / "unet", {"_class_name": "UNet2DConditionModel", **configs["unet"]}, unet.state_dict()
    )
    checkpoints.write_part(folder / "vae", {"_class_name": "AutoencoderKL", **configs["vae"]}, vae.state_dict())
    # Stored in half, but computed in single precision, as diffusers does with the other parts.
    text = {**configs["text_encoder"], "architectures": ["CLIPTextModel"], "torch_dtype": "float32"}
    text["model_type"] = "clip_text_model"
    state = {
        f"text_model.{name.removeprefix('text_model.')}": value for name, value in text_encoder.state_dict().items()
    }
    checkpoints.write_part(folder / "text_encoder", text, state, weights=TEXT_WEIGHTS)
    tokenizer.save_pretrained(folder / "tokenizer")
    write_vocabulary(folder / "tokenizer", tokenizer)
    (folder / "scheduler").mkdir(exist_ok=True)
    scheduler = {
        "_class_name": "DDIMScheduler",
        "clip_sample": False,
        "set_alpha_to_one": False,  # these two as every published Stable Diffusion has them
        "steps_offset": 1,
        **configs["scheduler"],
    }
    for name, value in {checkpoints.CONFIG: settings, INDEX: PIPELINE, SCHEDULER: scheduler}.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """``vocab.json`` and ``merges.txt`` beside ``tokenizer.json``: what older versions of transformers read.

    Args:
        folder: path of the folder.
        tokenizer: CLIP's.
    """
    written = folder / "tokenizer.json"
    if (folder / "vocab.json").is_file() or not written.is_file():
        return
    model = checkpoints.read_json(written)["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


# Parts with fresh weights


def new_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """A fresh U-Net of a configuration.

    Args:
        config: contents of the part's ``config.json``.

    Raises:
        CheckpointError: not the arguments of one.
    """
    from diffusers import UNet2DConditionModel

    return _new(UNet2DConditionModel, config)


def new_vae(config: Mapping[str, Any]) -> AutoencoderKL:
    """A fresh VAE of a configuration.

    Args:
        config: contents of the part's ``config.json``.

    Raises:
        CheckpointError: not the arguments of one.
    """
    from diffusers import AutoencoderKL

    return _new(AutoencoderKL, config)


def _new(kind: type, config: Mapping[str, Any]) -> Any:
    try:
        return kind(**config)
    except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"not the arguments of a {kind.__name__}: {error}") from error


def new_text_encoder(config: Mapping[str, Any]) -> CLIPTextModel:
    """A fresh text encoder of a configuration.

    Args:
        config: contents of the part's ``config.json``.

    Raises:
        CheckpointError: not the configuration of one.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    try:
        return CLIPTextModel(CLIPTextConfig.from_dict(dict(config))).float()
    except Exception as error:  # its configuration class checks with errors of its own
        raise CheckpointError(f"not the configuration of a CLIPTextModel: {error}") from error


def check_shapes(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Compare weights of a file with a module on the ``meta`` device, before the real one takes memory.

    Args:
        module: module with the weights.
        state: names -> tensors of the file.
        path: path of the file.

    Raises:
        CheckpointError: names are missing or left over, of another shape, or not finite.
    """
    own = {name.removeprefix("text_model."): value for name, value in module.state_dict().items()}
    checkpoints.check_state(own, {name.removeprefix("text_model."): value for name, value in state.items()}, path)


def fill_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put weights of a file into a module, in float32; one on the ``meta`` device takes the tensors themselves.

    Args:
        module: module with the weights.
        state: names -> tensors of the file.
        path: path of the file.

    Raises:
        CheckpointError: names are missing or left over, of another shape, or not finite.
    """
    own = module.state_dict()
    bare = {name.removeprefix("text_model."): name for name in own}  # older versions of transformers have the prefix
    named = {bare.get(name, name): value.float() for name, value in state.items()}
    checkpoints.check_state(own, named, path)
    module.load_state_dict(named, assign=any(value.is_meta for value in own.values()))


def on_meta(make: Any, config: Mapping[str, Any]) -> Any:
    """A module whose weights take no memory yet: a billion random numbers would be drawn for nothing.

    Args:
        make: one of the functions ``new_...``.
        config: contents of the part's ``config.json``.
    """
    with torch.device("meta"):
        return make(config)

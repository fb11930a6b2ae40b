"""Expressions read by an image classifier of the ``transformers`` library: a folder, or ``owner/name`` on the hub.

Only ``.safetensors`` weights are read, and no code that comes with a model is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from emoedit.emotions import BASIC, canonical
from emoedit.io import checkpoints
from emoedit.types import CheckpointError, ImageError, UnknownNameError

BATCH = 32  # faces through the network at once: memory stays flat however many there are
FILES = ["config.json", "preprocessor_config.json", "processor_config.json", "*.safetensors*"]  # read of a hub model
NAMELESS = re.compile(r"LABEL_\d+")  # what transformers calls a class that its author did not name
OTHER = "other:"


class TransformersExpression(nn.Module):
    """Probabilities of emotions from any image-classification model. Always in inference mode.

    Args:
        name_or_folder: a folder with ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``, or
            ``owner/name`` on the hub (downloaded and cached).

    Attributes:
        emotions: what the columns of ``scores`` are, in the model's order: names of the vocabulary, and
            ``other:<label>`` for labels that it does not have. Labels of one meaning ("joy", "happy") share a column.

    Raises:
        CheckpointError: no such model; no ``.safetensors`` in it; weights missing, of another shape or not finite; code
            of its own; labels without a name or with fewer than two basic emotions; labels that do not exclude each
            other.
    """

    def __init__(self, name_or_folder: str | os.PathLike[str]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

        folder = _locate(name_or_folder)
        if not any(folder.glob("*.safetensors")):
            names = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
            raise CheckpointError(
                f"{folder} holds no .safetensors file (found {names}); other formats can run code when they are read: "
                "load the model where it is trusted and write it with save_pretrained"
            )
        options = {"trust_remote_code": False, "local_files_only": True}
        checkpoints.read_json(folder / checkpoints.CONFIG)  # refuses what is too large to be one
        try:
            config = AutoConfig.from_pretrained(folder, **options)
            self.emotions, columns = _columns(config, folder)
            with torch.device("meta"):
                skeleton = AutoModelForImageClassification.from_config(
                    config, attn_implementation="eager", trust_remote_code=False
                )
            checkpoints.check_size(skeleton, folder)
            # Eager: config.json could otherwise name an attention kernel of the hub, which is code.
            network, info = AutoModelForImageClassification.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
                **options,
            )
            self.processor = AutoImageProcessor.from_pretrained(folder, **options)
        except CheckpointError:
            raise
        except Exception as error:  # a damaged or hostile folder can fail in any way
            reason = " ".join(str(error).split())[:400]
            raise CheckpointError(
                f"{folder} is no image classifier that transformers reads without running its code "
                f"({type(error).__name__}: {reason})"
            ) from error
        wrong = sorted(str(name) for key in ("missing_keys", "mismatched_keys") for name in info[key])
        wrong += [f"{name} (not finite)" for name, v in network.state_dict().items() if not bool(v.isfinite().all())]
        if wrong:  # transformers would go on with random numbers in their place
            raise CheckpointError(f"{folder}: {len(wrong)} weights missing or unusable, first {', '.join(wrong[:4])}")
        self.network = network.requires_grad_(False)
        self.register_buffer("columns", columns, persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in inference mode, whatever is asked for.

        Args:
            mode: ignored.
        """
        return super().train(False)

    @torch.no_grad()
    def scores(self, faces: np.ndarray | Tensor) -> Tensor:
        """Softmax over all labels of the model, which prepares the pictures as its own processor says.

        Args:
            faces: uint8 ``[N, H, W, 3]``, RGB, of any size.

        Returns:
            ``[N, E]`` float32, a column for each of ``emotions``; rows sum to 1. On the network's device.

        Raises:
            ImageError: pictures of another type or shape, or none at all.
        """
        from PIL import Image

        faces = np.asarray(faces.cpu() if isinstance(faces, Tensor) else faces)
        if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[3] != 3 or 0 in faces.shape:
            raise ImageError(f"faces are uint8 [N, H, W, 3], found {faces.dtype} {faces.shape}")
        read = []
        for start in range(0, len(faces), BATCH):
            # As PIL pictures: of arrays, processors guess which side is the channels.
            pictures = [Image.fromarray(face) for face in faces[start : start + BATCH]]
            inputs = self.processor(images=pictures, return_tensors="pt").to(self.columns.device)
            read.append(self.network(**inputs).logits.softmax(-1) @ self.columns)
        return torch.cat(read)


def _locate(name_or_folder: str | os.PathLike[str]) -> Path:
    """The folder of the model; only the files that are read are downloaded."""
    text = os.fspath(name_or_folder)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise CheckpointError(f"no expression classifier {text!r}: it is no folder, and no owner/name of the hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text, allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"there is no folder {text!r} here, and the hub did not give it either ({type(error).__name__})"
        ) from error


def _columns(config: Any, folder: Path) -> tuple[tuple[str, ...], Tensor]:
    """The emotions a model knows, and which of its labels belong to which: ones in ``[labels, emotions]``."""
    names = config.id2label
    if not isinstance(names, Mapping) or sorted(names) != list(range(len(names))):
        raise CheckpointError(f"{folder} names its classes by {names!r}, expected id2label with 0, 1, 2, ...")
    labels = [str(names[i]) for i in range(len(names))]
    meanings = [_meaning(label) for label in labels]
    emotions = tuple(dict.fromkeys(meanings))
    if len(set(BASIC).intersection(emotions)) < 2 or any(NAMELESS.fullmatch(label) for label in labels):
        listed = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
        raise CheckpointError(
            f"{folder} has the labels {listed}; expected names of emotions, at least two of {', '.join(BASIC)}, under "
            "any of their aliases: write them into id2label of its config.json"
        )
    if config.problem_type not in (None, "single_label_classification"):
        raise CheckpointError(
            f"{folder} is made for {config.problem_type}, expected labels that exclude each other "
            "(single_label_classification)"
        )
    columns = torch.zeros(len(labels), len(emotions))
    for row, meaning in enumerate(meanings):
        columns[row, emotions.index(meaning)] = 1
    return emotions, columns


def _meaning(label: str) -> str:
    try:
        return canonical(label)
    except UnknownNameError:
        return OTHER + label

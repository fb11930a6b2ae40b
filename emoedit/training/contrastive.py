"""A CLIP of faces (Radford et al. 2021, arXiv 2103.00020): a tower for pictures and one for texts, trained to agree.

Several pictures of a batch show the same emotion, and a caption that leaves much out is true of many. Every true pair
counts, and none of them as an error (Khosla et al. 2020, arXiv 2004.11362).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.metrics.clip import Clip
from emoedit.models.stable_diffusion import files
from emoedit.training.captions import ADJECTIVES
from emoedit.training.data import CropSet

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTextModel, PreTrainedTokenizerBase

MEAN, STD = 0.5, 0.25  # of the pictures it sees, in [0, 1]


def text_config(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A text encoder's configuration, with what the tokenizer decides.

    Args:
        config: config of ``CLIPTextConfig``.
        tokenizer: CLIP's.
    """
    return {
        **config,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def new_clip(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> CLIPModel:
    """A CLIP with fresh weights.

    Args:
        config: ``text`` and ``vision``, arguments of ``CLIPTextConfig`` and ``CLIPVisionConfig``; ``projection_dim``.
        tokenizer: the model's own.
    """
    from transformers import CLIPConfig, CLIPModel

    text, width = text_config(config["text"], tokenizer), config["projection_dim"]
    vision = {**config["vision"], "projection_dim": width}
    text["projection_dim"] = width
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).float()


class ContrastiveTask(nn.Module):
    """To find which captions are true of which pictures.

    The targets of a picture are all captions of the batch that are true of it, alike, and of a caption all pictures
    that it is true of; the loss is the divergence from them, 0 at best.

    Args:
        clip: trained.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``batch``: see ``emoedit.training.captions.CaptionedBatches``."""
        clip, fits = self.clip, batch["fits"]
        seen = clip.vision_model(pixel_values=(batch["x"] / 2 + 0.5 - MEAN) / STD).pooler_output
        read = clip.text_model(input_ids=batch["ids"]).pooler_output
        image, text = clip.visual_projection(seen), clip.text_projection(read)
        with torch.autocast(image.device.type, enabled=False):
            scale = clip.logit_scale.exp().clamp_max(100)
            logits = scale * F.normalize(image.float(), dim=1) @ F.normalize(text.float(), dim=1).T
            target = fits.float()
            rows = F.kl_div(logits.log_softmax(1), target / target.sum(1, keepdim=True), reduction="batchmean")
            columns = F.kl_div(logits.log_softmax(0), target / target.sum(0, keepdim=True), reduction="sum")
            loss = (rows + columns / len(logits)) / 2
            hit = fits.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        return {"loss": loss, "hit": hit.detach(), "scale": scale.detach()}


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """The text tower alone, as Stable Diffusion has it: a copy.

    Args:
        clip: the model.
    """
    config = {k: v for k, v in clip.config.text_config.to_dict().items() if k != "model_type"}
    tower = files.new_text_encoder(config)
    state = {name: value.detach().cpu().clone() for name, value in clip.text_model.state_dict().items()}
    files.fill_weights(tower, state, Path("text tower"))
    return tower.eval()


def write_clip(folder: Path, clip: CLIPModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write what ``CLIPModel.from_pretrained`` and ``emoedit.metrics.clip.Clip`` read.

    Args:
        folder: an existing folder.
        clip: the model.
        tokenizer: CLIP's.
    """
    from transformers import CLIPImageProcessor

    config = {**clip.config.to_dict(), "architectures": ["CLIPModel"], "torch_dtype": "float32"}
    config.pop("dtype", None)
    checkpoints.write_part(folder, config, clip.state_dict(), weights=files.TEXT_WEIGHTS)
    tokenizer.save_pretrained(folder)
    files.write_vocabulary(folder, tokenizer)
    side = clip.config.vision_config.image_size
    CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size=side, image_mean=[MEAN], image_std=[STD], do_convert_rgb=False
    ).save_pretrained(folder)


@torch.no_grad()
def zero_shot(clip: Clip, crops: CropSet, positions: np.ndarray, emotions: Sequence[str]) -> np.ndarray:
    """Which of the emotions each crop shows, found by its words alone: numbers ``[N]``.

    Args:
        clip: a frozen CLIP.
        crops: prepared crops.
        positions: indices into the crops.
        emotions: emotions of ``emoedit.training.captions.ADJECTIVES``; the words of each are averaged.
    """
    texts = [clip.text_embeddings([f"a {word} face" for word in ADJECTIVES[name]]).mean(0) for name in emotions]
    towards = F.normalize(torch.stack(texts), dim=1)
    parts = [part for part in np.array_split(positions, max(1, len(positions) // 128)) if len(part)]
    read = [(clip.image_embeddings(crops.pixels(part, clip.size)) @ towards.T).argmax(1) for part in parts]
    return torch.cat(read).numpy()

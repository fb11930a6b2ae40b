"""Put the embedded words and shifts of h together on one Stable Diffusion, write ``checkpoints/ti_asyrp``.

    python experiments/train_ti_asyrp.py      # after train_asyrp.py and train_ti.py; seconds, needs no data

Nothing is fitted here: the Stable Diffusion's U-Net was trained from the weights of the DDIM U-Net that the shifts were
fitted on, and h still means the same.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from emoedit.editors import Editor, load_editor
from emoedit.steering.combined import TokenAndShift
from emoedit.steering.hspace import HSpace
from emoedit.steering.tokens import EmotionTokens
from emoedit.training.recipes import LICENCE


def join(config: DictConfig) -> Editor:
    """The words of ``config.words`` and the shifts of ``config.shifts``, on the backbone of the words."""
    words, shifts = load_editor(config.words, device="cpu"), load_editor(config.shifts, device="cpu")
    (tokens,), (fitted,) = words.steerings, shifts.steerings
    names = list(config.gain)
    chosen = HSpace(
        names,
        [fitted.shifts[fitted.emotions.index(name)] for name in names],
        train_steps=fitted.train_steps,
        gain=torch.tensor([config.gain[name].h * float(fitted.gain[fitted.emotions.index(name)]) for name in names]),
    )
    gains = [config.gain[name].token if name in names else 1.0 for name in tokens.emotions]
    said = EmotionTokens(
        dict(zip(tokens.emotions, tokens.vectors, strict=True)),
        tokens=dict(zip(tokens.emotions, tokens.tokens, strict=True)),
        template=tokens.template,
        gain=tokens.gain * torch.tensor(gains),
        spans=tokens.spans,
    )
    backbone = words.backbone.sampled(**OmegaConf.to_container(config.sampling))
    return Editor(backbone, [TokenAndShift(said, chosen.half().float())], name=config.name)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_ti_asyrp")
def main(config: DictConfig) -> None:
    card = (Path(__file__).parent / "cards" / f"{config.name}.md").read_text(encoding="utf-8")
    join(config).save_pretrained(
        config.output,
        card=card,
        backbone_of=config.words,
        role="emotion editor (learned tokens and shifts of h together)",
        licence=LICENCE,
    )


if __name__ == "__main__":
    main()

"""Fit shifts of h on the embedded Stable Diffusion, put words and shifts together, write ``checkpoints/ti_asyrp``.

    python experiments/train_ti_asyrp.py data.root=/path/to/data   # after train_ti.py and train_mouth.py
    python experiments/train_ti_asyrp.py data.root=/path stages=[fit] fit.emotions=[happy]   # one
    python experiments/train_ti_asyrp.py data.root=/path stages=[join]   # other strengths: seconds

The Stable Diffusion's U-Net was trained from the weights of the DDIM U-Net that Asyrp's shifts were fitted on, and h
still means the same: fitting starts from those shifts. Stop it whenever you like; the same command goes on where it
stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from emoedit.editors import Editor, load_editor
from emoedit.io import checkpoints
from emoedit.steering.combined import TokenAndShift
from emoedit.steering.hspace import AdaptedDirections, Directions, HSpace, Shift
from emoedit.steering.tokens import EmotionTokens
from emoedit.training.data import CropSet
from emoedit.training.hspace import Diffusion, fixed, learnable
from emoedit.training.recipes import LICENCE, classifier_guide, finetune_shifts, load_classifier, minutes
from lib.own_data import with_own_data
from lib.running import run


def fitted_folder(config: DictConfig, emotion: str) -> Path:
    """Where the finished shift of an emotion is; the state of its fit is beside it."""
    return Path(config.work) / emotion


def part_of(shifts: HSpace, emotion: str) -> tuple[Shift, float]:
    """The shift of an emotion, and how many of it strength 1 is."""
    k = shifts.emotions.index(emotion)
    return shifts.shifts[k], float(shifts.gain[k])


def fit(config: DictConfig, emotion: str, how: dict[str, Any], backbone: Diffusion, start: Directions) -> None:
    """Directions that start from those of the other U-Net, and a block that adapts them.

    The guidance classifier finetunes them under the neutral prompt: a word in the context exaggerates every P_t
    in the loss, and the shift learns to compensate.
    """
    torch.manual_seed(0)
    width = {"channels": backbone.h_shape[0], "temb_dim": backbone.temb_dim}
    shift = AdaptedDirections.starting_from(learnable(start), **width)
    classifier = load_classifier(
        OmegaConf.to_container(config.classifier.config, resolve=True), config.classifier_weights
    )
    guide = classifier_guide(classifier, [emotion], how)
    folder = fitted_folder(config, emotion)
    state = folder.with_name(f"{emotion}-state")
    crops = CropSet(config.data.crops)
    done, count = finetune_shifts(backbone, guide, {emotion: shift}, crops, with_own_data(crops, how), state)
    fitted = HSpace([emotion], [fixed(done.shifts[0])], train_steps=backbone.steps)
    with checkpoints.new_folder(folder) as new:
        fitted.half().float().save_pretrained(new)
        steps = f"{how['trainer']['steps']} steps of {how['batch_size']} pictures out of {count}"
        (new / "facts.txt").write_text(f"{emotion}: {steps}, {minutes(state):.0f} minutes", encoding="utf-8")


def fit_stage(config: DictConfig) -> None:
    """A shift for each of the emotions, each by itself."""
    how = OmegaConf.to_container(config.fit, resolve=True)
    alone = how.pop("alone")
    backbone = load_editor(config.words, device="cpu").backbone.with_sampling(t_edit=how["t_edit"])
    (shifts,) = load_editor(config.shifts, device="cpu").steerings
    for emotion in how["emotions"]:
        each = OmegaConf.to_container(OmegaConf.merge(how, {"emotions": [emotion]}, alone.get(emotion, {})))
        shift, gain = part_of(shifts, emotion)
        fit(config, emotion, each, backbone, Directions(gain * shift.directions, shift.timesteps))
        print((fitted_folder(config, emotion) / "facts.txt").read_text("utf-8"))


def join(config: DictConfig) -> Editor:
    """The words of ``config.words``, the shifts that were fitted and for other emotions those of ``config.shifts``, on
    the backbone of the words."""
    words, (others,) = load_editor(config.words, device="cpu"), load_editor(config.shifts, device="cpu").steerings
    (tokens,) = words.steerings
    names, steps = list(config.gain), words.backbone.steps
    found, gain = [], []
    for name in names:
        known = HSpace.from_pretrained(fitted_folder(config, name)) if name in config.fit.emotions else others
        shift, once = part_of(known, name)
        found.append(shift)
        gain.append(config.gain[name].h * once * known.train_steps / steps)
    chosen = HSpace(names, found, train_steps=steps, gain=torch.tensor(gain)).half().float()
    gains = [config.gain[name].token if name in names else 1.0 for name in tokens.emotions]
    said = EmotionTokens(
        dict(zip(tokens.emotions, tokens.vectors, strict=True)),
        tokens=dict(zip(tokens.emotions, tokens.tokens, strict=True)),
        template=tokens.template,
        gain=tokens.gain * torch.tensor(gains),
        spans=tokens.spans,
    )
    backbone = words.backbone.with_sampling(**OmegaConf.to_container(config.sampling))
    return Editor(backbone, [TokenAndShift(said, chosen)], name=config.name)


def join_stage(config: DictConfig) -> None:
    """The finished folder."""
    facts = [(fitted_folder(config, name) / "facts.txt").read_text("utf-8") for name in config.fit.emotions]
    numbers = f"- fits, on one thread of a CPU beside another: {'; '.join(facts)}"
    card = (Path(__file__).parent / "cards" / f"{config.name}.md").read_text("utf-8")
    join(config).save_pretrained(
        config.output,
        card=card.replace("{numbers}", numbers),
        backbone_of=config.words,
        role="emotion editor (learned tokens and shifts of h together)",
        licence=LICENCE,
    )
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_ti_asyrp")
def main(config: DictConfig) -> None:
    stages = {"fit": fit_stage, "join": join_stage}
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)

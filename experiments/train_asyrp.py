"""Train the embedded DDIM U-Net, fit its shifts of h, write ``checkpoints/asyrp``.

    python experiments/train_metrics.py network=guidance_labels data.root=/path/to/data stages=[prepare,train]
    python experiments/train_asyrp.py recipe=asyrp_luminance data.root=/path/to/data   # U-Net and shifts to start from
    python experiments/train_asyrp.py data.root=/path/to/data                          # in colour, with these shifts
    python experiments/train_asyrp.py recipe=asyrp_luminance data.root=/path stages=[fit,finish] \
        steering.emotions=[happy] output=/tmp/happy                                    # one emotion
    python experiments/train_asyrp.py recipe=asyrp_luminance data.root=/path stages=[words]   # finetuned with CLIP

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from emoedit.editors import Editor, load_editor
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io import checkpoints
from emoedit.metrics.clip import Clip
from emoedit.models.ddpm.backbone import DDPMBackbone, DDPMConfig
from emoedit.steering.directions import mean_differences
from emoedit.steering.hspace import Directions, HSpace, ShiftBlock
from emoedit.training.colouring import start_unet_in_colour
from emoedit.training.data import CropSet, MixtureBatches, available_weights
from emoedit.training.diffusion import DiffusionTask
from emoedit.training.guides import ClipGuide, Guide
from emoedit.training.hspace import ShiftTask, edited_timesteps, learnable, mean_h
from emoedit.training.loop import train
from emoedit.training.matching import CropReadings, mouth_opening, nearest_matches, read_crops
from emoedit.training.prepare import prepare_config
from emoedit.training.recipes import (
    TRAINED_ON,
    choose,
    classifier_guide,
    finetune_shifts,
    licence_of,
    load_classifier,
    minutes,
    tiles,
    trainer_config,
)
from emoedit.types import Edit
from lib.own_data import with_own_data
from lib.running import run
from lib.starting import luminance_folder


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)


def luminance_work(config: DictConfig) -> Path:
    """The folder of the U-Net of luminance that one in colour starts from, and of its shifts."""
    command = "emoedit train asyrp recipe=asyrp_luminance"
    return luminance_folder(config.luminance, setting="luminance", command=command)


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    report = prepare_config(config.data)
    print("kept", report["kept"], "dropped", report["dropped"])


def train_stage(config: DictConfig) -> None:
    """The U-Net; its averaged weights go to ``work``."""
    trainer = trainer_config(config.trainer)
    torch.manual_seed(trainer.seed)
    task = DiffusionTask(DDPMConfig(**plain(config.backbone)))
    if config.luminance is not None:
        luminance = DDPMBackbone.from_pretrained(luminance_work(config) / "backbone")
        start_unet_in_colour(task.backbone.unet, luminance.unet)
    crops = CropSet(config.data.crops)
    batches = MixtureBatches(
        crops,
        available_weights(crops, config.trainer.shares),
        batch_size=config.trainer.batch_size,
        resolution=task.backbone.crop.resolution,
        split=TRAINED_ON,
        seed=trainer.seed,
        balance=config.trainer.balance,
        balance_groups=config.trainer.get("balance_groups", 1.0),
        channels=task.backbone.channels,
    )

    def preview(averaged: torch.nn.Module) -> torch.Tensor:
        """Faces from noise."""
        return tiles(averaged.backbone.sample(torch.Generator().manual_seed(0), 16).unflatten(0, (2, 8)))

    averaged = train(task, batches, Path(config.work) / "unet", trainer, preview=preview)
    # Rounded here, once: everything fitted and measured later sees the weights that are shipped, in half the space.
    averaged.backbone.half().float().save_pretrained(Path(config.work) / "backbone")


def load_backbone(config: DictConfig) -> DDPMBackbone:
    """The trained U-Net, sampled as the configuration says now, and shifted as far down as shifts are fitted."""
    backbone = DDPMBackbone.from_pretrained(Path(config.work) / "backbone")
    settings = ("steps", "t_last", "t_edit", "t_boost", "boost")
    sampled = {name: config.backbone[name] for name in settings}
    return backbone.with_sampling(**{**sampled, "t_edit": config.steering.t_edit})


def means_stage(config: DictConfig) -> None:
    """Differences of mean h between an emotion and the neutral pictures most like its own, inside every data set."""
    backbone, crops = load_backbone(config).with_sampling(precision="bfloat16"), CropSet(config.data.crops)
    how = OmegaConf.create(with_own_data(crops, plain(config.steering)))
    classifier, landmarks = (
        load_classifier(plain(config.classifier.config), config.classifier_weights),
        EmbeddedNetwork.load("landmarks").network,
    )
    column = {name: number for number, name in enumerate(classifier.config.emotions)}

    def agreed(name: str, emotion: str, limit: int) -> CropReadings:
        """Pictures in which the guidance classifier reads their label too, since labels err; or all that were posed."""
        chosen = choose(crops, name, [emotion], limit, TRAINED_ON)
        if emotion in how.closed and len(chosen):
            chosen = chosen[mouth_opening(landmarks, crops, chosen) <= how.closed[emotion]]
        found = read_crops(classifier, crops, chosen)
        return found if name in how.posed else found[np.flatnonzero(found.scores.argmax(1) == column[emotion])]

    sets: dict[str, Any] = {}
    for name in how.trust:
        neutral = agreed(name, "neutral", how.neutral_pictures)
        counts, differences = {"neutral": len(neutral.positions)}, {"neutral": torch.tensor(0.0)}
        for emotion in how.emotions:
            found = agreed(name, emotion, 4 * how.pictures)[: how.pictures]
            if len(found.positions) >= how.min_count:
                counts[emotion] = len(found.positions)
                pairs = found.positions, neutral.positions[nearest_matches(found, neutral)]
                # The same noise for both of a pair: what it does to h cancels.
                shown, matched = (mean_h(backbone, crops, p, torch.Generator().manual_seed(0)) for p in pairs)
                differences[emotion] = shown - matched
        sets[name] = counts, differences
        print(name, counts, flush=True)
    torch.save({"sets": sets, "timesteps": list(edited_timesteps(backbone))}, Path(config.work) / "means.pt")


def choose_guide(config: DictConfig, how: dict[str, Any], emotions: list[str]) -> Guide:
    """The recogniser; or CLIP, with an editor's learned words."""
    if "words" not in how:
        return classifier_guide(
            load_classifier(plain(config.classifier.config), config.classifier_weights), emotions, how
        )
    (tokens,) = load_editor(how["words"], device="cpu").steerings
    return ClipGuide(Clip.from_pretrained(checkpoints.locate(how["words"]) / "clip"), emotions, tokens=tokens)


def fit(
    config: DictConfig, how: dict[str, Any], backbone: DDPMBackbone, means: dict[str, Any], *, folder: str = "fit"
) -> tuple[HSpace, Path, int]:
    """Shifts that start from the mean differences and are finetuned by a guide.

    Args:
        how: ``config.steering``, or what is other of it where emotions are fitted alone.
        folder: name of the state's folder, before the emotions.

    Returns:
        The steering, the folder of the training state, and the number of edited pictures.
    """
    crops = CropSet(config.data.crops)
    how = with_own_data(crops, how)
    differences = mean_differences(means["sets"], how["emotions"], trust=how["trust"], min_count=how["min_count"])
    emotions, shifts = list(how["emotions"]), []
    for name, direction in zip(emotions, differences, strict=True):
        shifts.append(learnable(Directions(how["start"][name] * direction.float(), means["timesteps"])))
    starts = [shift.directions.detach().clone() for shift in shifts]
    if how["neutral"]:
        # The change to neutral depends on the source's expression: a block reads it, a direction does not.
        emotions.append("neutral")
        shifts.append(ShiftBlock(backbone.h_shape[0], backbone.temb_dim))
        torch.nn.init.normal_(shifts[-1].conv2.weight, std=1e-3)
    held_out = [choose(crops, name, ["neutral"], n, ("test", "valid")) for name, n in how["shown"].items()]
    x = crops.pixels(np.concatenate(held_out), backbone.crop.resolution, backbone.channels)

    def steering(task: ShiftTask) -> HSpace:
        """Interpolates between start and end of fitting (as Wortsman et al. 2022, arXiv 2109.01903, do with weights).

        The end has the higher recogniser score, the middle the better picture.
        """
        parts: list[Directions | ShiftBlock] = list(task.shifts)
        for number, (name, start) in enumerate(zip(how["emotions"], starts, strict=True)):
            fitted = start.lerp(parts[number].directions.detach(), how["kept"][name])
            fitted[torch.tensor(means["timesteps"]) < how["until"].get(name, 0)] = 0
            parts[number] = Directions(fitted, means["timesteps"])
        gain = torch.tensor([how["gain"].get(name, 1.0) for name in emotions])
        return HSpace(emotions, parts, train_steps=backbone.steps, gain=gain)

    def preview(averaged: ShiftTask) -> torch.Tensor:
        """Held-out faces, and under them every emotion."""
        editor, inversion = steering(averaged), backbone.invert(x)
        rows = [backbone.decode(inversion, editor.control(backbone, inversion, [Edit(e)] * len(x))) for e in emotions]
        return tiles(torch.stack([x, *rows]))

    work = Path(config.work) / "_".join([folder, *emotions])
    guide, parts = choose_guide(config, how, emotions), dict(zip(emotions, shifts, strict=True))
    averaged, count = finetune_shifts(backbone, guide, parts, crops, how, work, preview=preview)
    return steering(averaged), work, count


def words_stage(config: DictConfig) -> None:
    """Shifts finetuned by CLIP towards the learned words, for ``ti_asyrp_study.py`` to compare; to ``work``."""
    how = {**plain(config.steering), **plain(config.words)}
    means = torch.load(Path(config.work) / "means.pt", weights_only=True)
    found, work, _ = fit(config, how, load_backbone(config), means, folder="words")
    with checkpoints.new_folder(Path(config.work) / "words") as new:
        found.half().float().save_pretrained(new)
    print(f"{', '.join(found.emotions)}: {minutes(work):.1f} minutes")


def fit_stage(config: DictConfig) -> None:
    """Every emotion, then those that need a fit of their own; the shifts and their facts go to ``work``."""
    how = plain(config.steering)
    backbone = load_backbone(config)
    means = torch.load(Path(config.work) / "means.pt", weights_only=True)
    alone = {name: other for name, other in how.pop("alone").items() if name in how["emotions"]}
    # They take part in the joint fit too, as classes that the others' shifts are separated from.
    fits = [how] if how["neutral"] or set(how["emotions"]) > set(alone) else []
    fits += [
        OmegaConf.to_container(OmegaConf.merge(how, {"emotions": [name], "neutral": False}, other))
        for name, other in alone.items()
    ]
    done = [fit(config, each, backbone, means) for each in fits]
    emotions = [name for name in (*how["emotions"], "neutral") if any(name in d[0].emotions for d in done)]
    shift, gain = {}, {}
    for found, _, _ in done:
        shift |= dict(zip(found.emotions, found.shifts, strict=True))
        gain |= dict(zip(found.emotions, found.gain.tolist(), strict=True))
    fitted = HSpace(
        emotions,
        [shift[name] for name in emotions],
        train_steps=backbone.steps,
        gain=torch.tensor([gain[name] for name in emotions]),
    )
    with checkpoints.new_folder(Path(config.work) / "shifts") as new:
        fitted.half().float().save_pretrained(new)
    facts = {
        "fits": "; ".join(
            f"{', '.join(found.emotions)}: {each['trainer']['steps']} steps of {each['batch_size']} pictures out of "
            f"{count}, {minutes(work):.0f} minutes"
            for each, (found, work, count) in zip(fits, done, strict=True)
        ),
        "pictures of the class means": {name: counts for name, (counts, _) in means["sets"].items()},
    }
    numbers = "".join(f"- {title}: {value}\n" for title, value in facts.items())
    (Path(config.work) / "fit.md").write_text(numbers, encoding="utf-8")
    print(numbers, end="")


def finish_stage(config: DictConfig) -> None:
    """The finished folder; a model in colour has the shifts of the one of luminance: h means the same in both."""
    work = Path(config.work)
    fitted = work if config.luminance is None else luminance_work(config)
    shifts = HSpace.from_pretrained(fitted / "shifts")
    if config.luminance is not None:
        shifts.gain *= torch.tensor([config.gain_in_colour.get(name, 1.0) for name in shifts.emotions])
    backbone = load_backbone(config).with_sampling(t_edit=config.backbone.t_edit)
    editor = Editor(backbone, [shifts], name=config.name)
    steps = f"{config.trainer.steps:,} of {config.trainer.batch_size} pictures, {minutes(work / 'unet'):.0f} minutes"
    numbers = f"- steps of the U-Net's training: {steps} on one CPU core beside another\n"
    numbers += (fitted / "fit.md").read_text("utf-8")
    card = (Path(__file__).parent / "cards" / f"{config.name}.md").read_text("utf-8").replace("{numbers}\n", numbers)
    editor.save_pretrained(
        config.output, card=card, role="emotion editor (Asyrp: shifts of h)", licence=licence_of(backbone)
    )


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_asyrp")
def main(config: DictConfig) -> None:
    stages = {
        "prepare": prepare_stage,
        "train": train_stage,
        "means": means_stage,
        "fit": fit_stage,
        "finish": finish_stage,
        "words": words_stage,
    }
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)

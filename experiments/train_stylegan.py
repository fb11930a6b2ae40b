"""Train the embedded StyleGAN2 and its encoder, fit its directions, write ``checkpoints/stylegan``.

    python experiments/train_metrics.py network=guidance data=agreed data.root=/path stages=[prepare,train]  # guidance
    python experiments/train_stylegan.py data.root=/path/to/data
    python experiments/train_stylegan.py data.root=/path stages=[directions] steering.trust='{samples: 1}'  # no labels
    python experiments/train_stylegan.py data.root=/path stages=[finetune] 'steering.finetune.emotions=[happy]'   # one

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
from emoedit.io import checkpoints
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone, StyleGAN2Config
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.steering.directions import class_statistics, fit_directions
from emoedit.steering.wspace import WDirections
from emoedit.training import wspace
from emoedit.training.adversarial import AdversarialConfig, train_adversarial
from emoedit.training.colouring import start_stylegan_in_colour
from emoedit.training.critic import Critic
from emoedit.training.data import CropSet, MixtureBatches, available_weights
from emoedit.training.hspace import ShiftLoss
from emoedit.training.loop import train
from emoedit.training.prepare import prepare_config
from emoedit.training.recipes import (
    HELD_OUT,
    TRAINED_ON,
    choose,
    classifier_guide,
    licence_of,
    load_classifier,
    minutes,
    plain_pictures,
    read_as,
    tiles,
    trainer_config,
)
from emoedit.training.stylegan import EncoderTask, GANTask, TwoMixtures, Weights
from emoedit.types import Edit, Inversion
from lib.own_data import pictures_of, with_own_data
from lib.running import run
from lib.starting import luminance_folder


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)


def shown_people(crops: CropSet, config: DictConfig, count: int) -> torch.Tensor:
    """Crops of held-out people, spread evenly over the data sets, ``[count, C, R, R]``."""
    split, data = crops.column("split"), crops.column("data")
    people = available_weights(crops, config.trainer.real, "trainer.real")
    pools = [np.flatnonzero(np.isin(split, HELD_OUT) & (data == name)) for name in people]
    rng = np.random.default_rng(1)
    chosen = np.concatenate([rng.permutation(pool)[: -(-count // len(pools))] for pool in pools])[:count]
    backbone = StyleGAN2Config(**plain(config.backbone))
    return crops.pixels(chosen, backbone.resolution, backbone.channels)


def reconstruction_grid(model: StyleGAN2Backbone, x: torch.Tensor) -> torch.Tensor:
    """Pictures above their reconstructions."""
    x = x.to(model.device)
    return torch.stack([x, model.decode(model.invert(x))])


def embedded(kind: type[MeasuringNetwork], name: str) -> MeasuringNetwork:
    return kind.from_pretrained(checkpoints.embedded_root() / name)


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    for data in (config.data, config.agreed):
        report = prepare_config(data)
        print("kept", report["kept"], "dropped", report["dropped"])


def gan_stage(config: DictConfig) -> None:
    """Adversarial training of generator and encoder; their averaged weights go to ``work``."""
    crops, how = CropSet(config.data.crops), plain(config.trainer)
    trainer = trainer_config(how)
    torch.manual_seed(trainer.seed)
    backbone = StyleGAN2Config(**plain(config.backbone))
    task = GANTask(
        backbone,
        embedded(PerceptualNetwork, "perceptual"),
        Weights(**how["weights"]),
        mixing=how["mixing"],
        encoder_rate=how["encoder_rate"],
        mapping_rate=how["mapping_rate"],
    )
    critic = Critic(backbone.channels, how["critic_widths"])
    common = {"resolution": backbone.resolution, "split": TRAINED_ON, "balance": how["balance"]}
    common |= {"balance_groups": how.get("balance_groups", 1.0), "channels": backbone.channels}
    batches = TwoMixtures(
        MixtureBatches(
            crops,
            available_weights(crops, how["real"], "trainer.real"),
            batch_size=how["batch_size"],
            seed=trainer.seed,
            **common,
        ),
        MixtureBatches(
            crops,
            available_weights(crops, how["rebuilt"], "trainer.rebuilt"),
            batch_size=how["shown"],
            seed=trainer.seed + 1,
            **common,
        ),
        how["growing"],
    )
    x = shown_people(crops, config, 8)

    def preview(averaged: GANTask) -> torch.Tensor:
        """People who do not exist (near the mean, and as they come), held-out people, and these drawn again."""
        model = averaged.backbone
        drawn = [
            model.sample(torch.Generator().manual_seed(0), len(x), truncation=truncation) for truncation in (0.6, 1.0)
        ]
        return tiles(torch.cat([torch.stack(drawn), reconstruction_grid(model, x)]))

    folder, against = Path(config.work) / "gan", AdversarialConfig(**how["adversarial"])
    averaged = train_adversarial(task, critic, batches, folder, trainer, against, preview=preview)
    averaged.finished().half().float().save_pretrained(Path(config.work) / "gan_backbone")


def encoder_stage(config: DictConfig) -> None:
    """The encoder alone, for the averaged generator; the whole backbone goes to ``work``.

    From ``start``, a model of luminance, both are trained, and then draw in colour.
    """
    crops, how = CropSet(config.data.crops), plain(config.encoder)
    trainer = trainer_config(how)
    if config.start is None:
        backbone = StyleGAN2Backbone.from_pretrained(Path(config.work) / "gan_backbone")
    else:
        torch.manual_seed(trainer.seed)
        backbone = StyleGAN2Backbone(StyleGAN2Config(**plain(config.backbone))).eval()
        start = luminance_folder(config.start, setting="start", command="emoedit train stylegan")
        start_stylegan_in_colour(backbone, StyleGAN2Backbone.from_pretrained(start))
    networks = embedded(PerceptualNetwork, "perceptual"), embedded(MeasuringNetwork, "identity")
    task = EncoderTask(
        backbone,
        *networks,
        Weights(**how["weights"]),
        samples=how["samples"],
        synthesis=config.start is not None,
    )
    batches = MixtureBatches(
        crops,
        available_weights(crops, how["shares"], "encoder.shares"),
        batch_size=how["batch_size"],
        resolution=backbone.crop.resolution,
        split=TRAINED_ON,
        seed=trainer.seed,
        balance=how["balance"],
        balance_groups=how.get("balance_groups", 1.0),
        channels=backbone.channels,
    )
    x = shown_people(crops, config, 12)

    def with_encoder(averaged: EncoderTask) -> StyleGAN2Backbone:
        model = StyleGAN2Backbone.from_config(backbone.to_config())
        state = backbone.state_dict()
        for part in ("encoder", "synthesis"):
            trained = getattr(averaged, part)
            if trained is not None:
                state |= {f"{part}.{name}": value for name, value in trained.state_dict().items()}
        model.load_state_dict(state)
        return model.eval()

    averaged = train(
        task,
        batches,
        Path(config.work) / "encoder",
        trainer,
        preview=lambda averaged: tiles(reconstruction_grid(with_encoder(averaged), x)),
    )
    # Rounded here, once: everything fitted and measured later sees the weights that are shipped, in a quarter of the
    # space.
    finished = with_encoder(averaged)
    checkpoints.round_weights(finished)
    finished.save_pretrained(Path(config.work) / "backbone")


def load_backbone(config: DictConfig) -> StyleGAN2Backbone:
    return StyleGAN2Backbone.from_pretrained(Path(config.work) / "backbone").requires_grad_(False)


def neutral_people(
    config: DictConfig, crops: CropSet, backbone: StyleGAN2Backbone, splits: tuple[str, ...]
) -> Inversion:
    """Neutral pictures, inverted."""
    wanted = pictures_of(crops, config.steering.neutral, "steering.neutral")
    chosen = [choose(crops, name, ["neutral"], n, splits) for name, n in wanted.items()]
    return backbone.invert(crops.pixels(np.concatenate(chosen), backbone.crop.resolution, backbone.channels))


def directions_stage(config: DictConfig) -> None:
    """Directions in closed form, and how far strength 1 goes; to ``work``."""
    crops, backbone = CropSet(config.agreed.crops), load_backbone(config)
    how = with_own_data(crops, plain(config.steering))
    names = ["neutral", *how["emotions"]]
    scorer = wspace.recogniser_scores(
        load_classifier(plain(config.classifier.config), config.classifier_weights), names
    )
    landmarks, sets = embedded(MeasuringNetwork, "landmarks"), {}
    for source in how["trust"]:
        if source == "samples":
            generator = torch.Generator().manual_seed(0)
            found = wspace.scored_samples(backbone, scorer, names, generator, **how["samples"])
        else:
            chosen = {name: plain_pictures(crops, source, name, how, landmarks) for name in names}
            positions = np.concatenate([*chosen.values()])
            # With the mirror images beside them no direction prefers a side.
            found = (
                torch.cat([wspace.encoded_crops(backbone, crops, positions, mirror=m) for m in (False, True)]),
                [name for name in names for _ in chosen[name]] * 2,
            )
        sets[source] = class_statistics(*found)
        print(source, sets[source].counts, flush=True)
    fit = {name: how[name] for name in ("trust", "min_count", "ridge", "projection", "shrinkage")}
    steering = wspace.restrict_to_layers(
        fit_directions(sets, how["emotions"], gains={}, **fit), backbone, tuple(how["layers"])
    )
    neutral = neutral_people(config, crops, backbone, TRAINED_ON)
    strengths = how["gains"]["strengths"]
    reached = wspace.emotion_scores(backbone, steering, neutral, scorer, names, strengths)
    gains = wspace.choose_gains(reached, strengths, how["gains"]["score"]) | how["gains"].get("by_eye", {})
    for name, gain in gains.items():
        print(name, [round(value, 2) for value in reached[name]], "gain", gain, flush=True)
    wspace.with_gains(steering, gains).save_pretrained(Path(config.work) / "steering_plain")


def finetune_stage(config: DictConfig) -> None:
    """The same directions, each finetuned by the guidance classifier by itself; to ``work``."""
    crops, backbone = CropSet(config.agreed.crops), load_backbone(config)
    how = with_own_data(crops, plain(config.steering)["finetune"], "steering.finetune")
    classifier = load_classifier(plain(config.classifier.config), config.classifier_weights)
    chosen = [choose(crops, source, ["neutral"], n, TRAINED_ON) for source, n in how["sources"].items()]
    chosen += [read_as(classifier, crops, source, "neutral", n) for source, n in how["unlabelled"].items()]
    sides = [wspace.encoded_crops(backbone, crops, np.concatenate(chosen), mirror=m) for m in (False, True)]
    latents = torch.cat(sides).unflatten(1, backbone.latent_shape)
    x = shown_people(crops, config, 8)
    inversion = backbone.invert(x)
    steering, gains = WDirections.from_pretrained(Path(config.work) / "steering_plain"), {}

    def finetuned(steering: WDirections, emotion: str, how: dict[str, Any]) -> WDirections:
        batches = wspace.LatentBatches(latents, batch_size=how["batch_size"], seed=0)
        guide, start = classifier_guide(classifier, [emotion], how), wspace.full_shift(steering, emotion)
        task = wspace.FinetuneTask(
            backbone, guide, start, ShiftLoss(**how["loss"]), where=tuple(config.steering.layers)
        )

        def changed(averaged: wspace.FinetuneTask) -> WDirections:
            return wspace.with_direction(steering, averaged.mask * averaged.direction, emotion)

        def preview(averaged: wspace.FinetuneTask) -> torch.Tensor:
            """Held-out people, as they are drawn, and under them the emotion."""
            control = changed(averaged).control(backbone, inversion, [Edit(emotion)] * len(x))
            return tiles(torch.stack([x, backbone.decode(inversion), backbone.decode(inversion, control)]))

        work = Path(config.work) / f"finetune_{emotion}"
        return changed(train(task, batches, work, trainer_config(how["trainer"]), preview=preview))

    for emotion in how["emotions"]:
        each = OmegaConf.to_container(OmegaConf.merge(how, how["alone"].get(emotion, {})))
        steering = finetuned(steering, emotion, each)
        gains[emotion] = how["gain"].get(emotion, 1.0) * float(steering.gain[steering.emotions.index(emotion)])
    wspace.with_gains(steering, gains).half().float().save_pretrained(Path(config.work) / "steering_finetuned")


def cost(folder: Path, what: str) -> str:
    """Steps of a training, and its minutes where its state is still there."""
    return f"{what}, {minutes(folder):.0f} minutes on two CPU cores" if (folder / "state.pt").is_file() else what


def kept_directions(config: DictConfig) -> WDirections:
    """The directions of the editor in ``output``, as they were before ``fit_units.py`` took shares of them."""
    (steering,) = load_editor(config.output).steerings
    shares = checkpoints.read_json(Path(config.output) / checkpoints.EDITOR).get("model_shares", {})
    gains = {name: float(gain) for name, gain in zip(steering.emotions, steering.gain, strict=True)}
    return wspace.with_gains(steering, {name: gains[name] / share for name, share in shares.items()})


def finish_stage(config: DictConfig) -> None:
    """The finished folder, with a card."""
    crops, how = CropSet(config.agreed.crops), config.finish
    backbone = load_backbone(config).with_inversion(optimise_steps=how.optimise_steps, precision=how.precision)
    if how.steering == "kept":  # w means the same as in the model of luminance that training started from
        steering = kept_directions(config)
    else:
        steering = WDirections.from_pretrained(Path(config.work) / f"steering_{how.steering}").half().float()
    compositor = OmegaConf.to_container(how.compositor)
    if how.replaced is not None:
        steering = (
            wspace.replace_directions(load_editor(config.output).steerings[0], steering, how.replaced).half().float()
        )
    editor = Editor(backbone, [steering], name=config.name, compositor=compositor)
    names = ["neutral", *config.steering.emotions]
    classifier, quick = (
        load_classifier(plain(config.classifier.config), config.classifier_weights),
        backbone.with_inversion(optimise_steps=0),
    )
    scorer, people = wspace.recogniser_scores(classifier, names), neutral_people(config, crops, quick, HELD_OUT)
    before = scorer(quick.decode(people)).mean(0)
    read = wspace.emotion_scores(quick, steering, people, scorer, names, [1.0])
    work = Path(config.work)
    gan, encoder = config.trainer, config.encoder
    with_it = f"{encoder.steps:,} steps of {encoder.batch_size} crops and {encoder.samples} samples"
    report = {
        "generator": cost(work / "gan", f"{gan.steps:,} steps of {gan.batch_size} pictures"),
        "encoder alone": cost(work / "encoder", with_it),
    }
    if config.start is not None:
        report = {"generator and encoder, from those of luminance": cost(work / "encoder", with_it)}
    report |= {
        "directions": "mean differences of " + ", ".join(config.steering.trust)
        if how.steering != "kept"
        else "those of the model of luminance",
        f"read by the guidance classifier at strength 1 (and before), {len(people)} held-out neutral faces": ", ".join(
            f"{name} {values[0]:.2f} ({before[names.index(name)]:.2f})" for name, values in read.items()
        ),
    }
    if how.steering == "finetuned":
        names = config.steering.finetune.emotions if how.replaced is None else how.replaced
        each = {name: minutes(work / f"finetune_{name}") for name in names}
        report["directions"] += ", finetuned: " + ", ".join(
            f"{name} {spent:.1f} minutes" for name, spent in each.items()
        )
    numbers = "\n".join(f"- {title}: {value}" for title, value in report.items())
    card = (Path(__file__).parent / "cards" / f"{config.name}.md").read_text("utf-8").replace("{numbers}", numbers)
    editor.save_pretrained(
        config.output, card=card, role="emotion editor (StyleGAN2, walks in W+)", licence=licence_of(backbone)
    )
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_stylegan")
def main(config: DictConfig) -> None:
    stages = {
        "prepare": prepare_stage,
        "gan": gan_stage,
        "encoder": encoder_stage,
        "directions": directions_stage,
        "finetune": finetune_stage,
        "finish": finish_stage,
    }
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)

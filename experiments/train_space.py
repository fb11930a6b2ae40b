"""Learn the emotion space and the maps out of it, write ``checkpoints/emotion_space``, ``space`` and ``space_ti``.

    python experiments/train_metrics.py network=guidance data=agreed data.root=/path stages=[prepare,train]  # guidance
    python experiments/train_space.py data.root=/path/to/data
    python experiments/train_space.py data.root=/path stages=[map,finish]   # for a new backbone, in the same space

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from emoedit.editors import Editor, load_editor
from emoedit.emotions import BASIC
from emoedit.faces.space import FaceSpace
from emoedit.io import checkpoints
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.space import EmotionSpace, PointMap, SpaceConfig
from emoedit.steering.space import SpaceDirections, SpaceWords, basic_shares, placed_names
from emoedit.steering.wspace import WDirections
from emoedit.training import space as learning
from emoedit.training import wspace
from emoedit.training.data import CropSet
from emoedit.training.guides import RecogniserGuide
from emoedit.training.loop import train
from emoedit.training.prepare import prepare_config
from emoedit.training.recipes import (
    HELD_OUT,
    LICENCE,
    TRAINED_ON,
    choose,
    licence_of,
    load_classifier,
    minutes,
    read_as,
    trainer_config,
)
from emoedit.training.space_words import WordBatches, WordTask
from emoedit.training.tokens import encode_pictures, start_vectors
from lib.running import run


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)


def embedded(name: str) -> MeasuringNetwork:
    return MeasuringNetwork.from_pretrained(checkpoints.embedded_root() / name)


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    for data in (config.data, config.agreed):
        report = prepare_config(data)
        print("kept", report["kept"], "dropped", report["dropped"])


def trunk() -> MeasuringNetwork:
    """The network that the space is read from."""
    return embedded(SpaceConfig(BASIC).trunk)


def voted(config: DictConfig, splits: tuple[str, ...]) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Voted pictures: their positions, votes ``[N, 7]``, and features ``[2, N, F]``, plain and mirrored."""
    crops, network = CropSet(config.data.crops), trunk()
    positions, votes = learning.voted_pictures(crops, splits)
    sides = [learning.pooled_features(network, crops, positions, mirror=mirror) for mirror in (False, True)]
    return positions, votes, torch.stack(sides)


def space_stage(config: DictConfig) -> None:
    """Encoder, reader and places; to ``work``."""
    how = plain(config.space)
    _, votes, features = voted(config, TRAINED_ON)
    wide = features.flatten(0, 1)
    torch.manual_seed(0)
    shape = SpaceConfig(BASIC, placed_names(BASIC), wide.shape[1], how["dims"], how["hidden"])
    space = EmotionSpace(replace(shape, trunk_fingerprint=trunk().trunk_fingerprint()))
    space.mean.copy_(wide.mean(0))
    space.std.copy_(wide.std(0).clamp_min(1e-3))
    batches = learning.FeatureBatches(
        features, votes, batch_size=how["batch_size"], seed=0, noise=how["noise"], balance=how["balance"]
    )
    task = learning.SpaceTask(space, how["weights"])
    trained = train(task, batches, Path(config.work) / "space", trainer_config(how["trainer"])).space
    learning.fit_places(trained, features[0], votes, count=how["pictures"])
    checkpoints.round_weights(trained)
    report = held_out_numbers(config, trained)
    card = filled_card("emotion_space", report)
    trained.save_pretrained(Path(config.work) / "emotion_space", card=card, role="emotion space", licence=LICENCE)
    print("\n".join(report))


@torch.no_grad()
def held_out_numbers(config: DictConfig, space: EmotionSpace) -> list[str]:
    """Metrics of the space on held-out pictures."""
    _, votes, features = voted(config, HELD_OUT)
    points = space(features[0])
    read = space.votes(points).exp()
    mean = votes.mean(0, keepdim=True).expand_as(votes)
    task = learning.SpaceTask(space, {})
    wanted = votes @ task.circumplex
    r = [float(np.corrcoef(points[:, k], wanted[:, k])[0, 1]) for k in range(2)]
    rng = np.random.default_rng(0)
    one, two = rng.integers(len(votes), size=(2, 4000))
    apart = (points[one] - points[two]).norm(dim=1)
    order = float(np.corrcoef(apart, learning.js_divergence(votes[one], votes[two]).sqrt())[0, 1])
    return [
        f"- held-out pictures of FER-2013: {len(votes)}",
        f"- Jensen-Shannon divergence of the votes and what is read from the point, in bits, mean: "
        f"{float(learning.js_divergence(votes, read).mean()):.3f} (the mean votes for every picture: "
        f"{float(learning.js_divergence(votes, mean).mean()):.3f})",
        f"- correlation of the first coordinates with valence and arousal of the votes: {r[0]:.2f}, {r[1]:.2f}",
        f"- correlation of distances between points and between votes: {order:.2f}",
        f"- most frequent vote read: {float((read.argmax(1) == votes.argmax(1)).float().mean()):.3f}",
    ]


def filled_card(name: str, lines: list[str]) -> str:
    return (Path(__file__).parent / "cards" / f"{name}.md").read_text("utf-8").replace("{numbers}", "\n".join(lines))


def load_space(config: DictConfig) -> EmotionSpace:
    """The space that ``space_stage`` wrote; an error if the embedded trunk is no longer the one it was learned from."""
    return FaceSpace.load(Path(config.work) / "emotion_space").space


def basic_places(space: EmotionSpace, names: tuple[str, ...]) -> torch.Tensor:
    return torch.stack([space.place(name) for name in names])


@torch.no_grad()
def basis_of(config: DictConfig, mixed: WDirections, editor: Editor) -> torch.Tensor:
    """Directions of basic emotions at strength 1, and principal components of the rest in nuanced faces, ``[K, O]``."""
    how, crops = plain(config.map), CropSet(config.data.crops)
    positions, votes = learning.voted_pictures(crops, TRAINED_ON)
    rows = [mixed.emotions.index(name) for name in BASIC[1:]]
    vectors = mixed.gain[rows, None] * mixed.directions[rows]
    means = []
    for name in ("neutral", *how["finetuned"]):
        nearest = learning.nearest_votes(votes, learning.mixture_votes(name), config.space.pictures).numpy()
        means.append(wspace.encoded_crops(editor.backbone, crops, positions[nearest]).mean(0))
    nuanced = torch.stack(means[1:]) - means[0]
    return torch.cat([vectors, learning.residual_directions(vectors, nuanced, how["rank"] - len(vectors))])


def map_stage(config: DictConfig) -> None:
    """From points to directions of the embedded editor, finetuned by the guidance classifier; to ``work``."""
    how, space, crops = plain(config.map), load_space(config), CropSet(config.agreed.crops)
    work = Path(config.work) / "map"
    work.mkdir(parents=True, exist_ok=True)
    editor = load_editor(how["editor"], device="cpu")
    mixed, backbone = editor.steerings[0], editor.backbone
    classifier, basis = (
        load_classifier(plain(config.classifier.config), config.classifier_weights),
        basis_of(config, mixed, editor),
    )
    chosen = [choose(crops, source, ["neutral"], n, TRAINED_ON) for source, n in how["sources"].items()]
    chosen += [read_as(classifier, crops, source, "neutral", n) for source, n in how["unlabelled"].items()]
    sides = [wspace.encoded_crops(backbone, crops, np.concatenate(chosen), mirror=m) for m in (False, True)]
    latents = torch.cat(sides).unflatten(1, backbone.latent_shape)
    _, votes = learning.voted_pictures(CropSet(config.data.crops), TRAINED_ON)
    names = [*BASIC[1:], *(name for name in space.config.names if name not in BASIC)]
    targets = [votes[learning.nearest_votes(votes, learning.mixture_votes(name), config.space.pictures)].mean(0)
               for name in names]  # fmt: skip
    inner = RecogniserGuide(classifier, classifier.config.emotions, **how["guide"])
    guide = learning.VotesGuide(inner, embedded("landmarks"), torch.stack(targets), classifier.config.emotions).eval()
    start = torch.zeros(len(names), len(basis))
    start[:, : len(BASIC) - 1] = basic_shares(names, BASIC)[:, 1:]
    coordinates = start.clone()
    for row, name in enumerate(names):
        if name not in how["finetuned"]:
            continue
        done = work / f"{name.replace(' ', '-')}.json"
        if not done.is_file():
            begun = time.monotonic()
            found = learning.finetune_coordinates(
                backbone,
                guide,
                latents,
                basis,
                start[row],
                row,
                how["loss"],
                learning.Descent(seed=row, **how["steps"]),
            )
            seconds = time.monotonic() - begun
            done.write_text(json.dumps({"coordinates": found.tolist(), "seconds": seconds}), encoding="utf-8")
        there = torch.tensor(json.loads(done.read_text("utf-8"))["coordinates"])
        coordinates[row] = start[row] + how["share"] * (there - start[row])
        print(name, [round(value, 2) for value in coordinates[row].tolist()], flush=True)
    places = basic_places(space, tuple(names))
    directions = PointMap.through(places, coordinates, basis, straight=len(BASIC) - 1, width=how["width"],
                                  ridge=how["ridge"])  # fmt: skip
    missed = (directions.coordinates(places) - coordinates).abs().max(1).values
    print("missed by at most", round(float(missed.max()), 3), "at", names[int(missed.argmax())], flush=True)
    steering = finished(space, mixed, directions)
    steering.directions.half().float()
    steering.save_pretrained(Path(config.work) / "steering")


def finished(space: EmotionSpace, mixed: WDirections, directions: PointMap) -> SpaceDirections:
    """The steering of a map, its weights rounded to what is written."""
    shares = basic_shares(space.config.names, mixed.emotions)
    steering = SpaceDirections(space.config.names, space.places, shares, directions, mixed)
    return steering.eval()


def words_stage(config: DictConfig) -> None:
    """From points to pseudo-words of the embedded Stable Diffusion; to ``work``."""
    how, space, crops = plain(config.words), load_space(config), CropSet(config.data.crops)
    editor = load_editor(how["editor"], device="cpu")
    classifier, (tokens,) = (
        load_classifier(plain(config.classifier.config), config.classifier_weights),
        editor.steerings,
    )
    backbone = editor.backbone
    steering = first_words(how, space, tokens, backbone)
    positions, votes, features = voted(config, TRAINED_ON)
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(positions), min(how["pictures"], len(positions)), replace=False, p=rarity(votes)))
    side, channels = backbone.crop.resolution, backbone.channels
    latents = encode_pictures(backbone, crops.pixels(positions[chosen], side, channels))[0]
    with torch.no_grad():
        own = space(features[0][chosen])
    agreed = CropSet(config.agreed.crops)
    plain_ones = [choose(agreed, source, ["neutral"], n, TRAINED_ON) for source, n in how["sources"].items()]
    neutral = encode_pictures(backbone, agreed.pixels(np.concatenate(plain_ones), side, channels)).flatten(0, 1)
    at, targets, chances = aims(config, space, own, votes[chosen], how["named"])
    inner = RecogniserGuide(classifier, classifier.config.emotions, **how["guide"])
    guide = learning.VotesGuide(inner, embedded("landmarks"), targets, classifier.config.emotions)
    task = WordTask(backbone, steering, guide, how["loss"], templates=how["templates"], batch_size=how["batch_size"])
    batches = WordBatches(
        latents, own, neutral, at, chances,
        templates=len(how["templates"]), batch_size=how["batch_size"], seed=0,
    )  # fmt: skip
    averaged = train(task, batches, Path(config.work) / "words", trainer_config(how["trainer"]))
    trained = SpaceWords(space.config.names, space.places, averaged.words, averaged.start.detach(), gain=steering.gain)
    checkpoints.round_weights(trained)
    trained.eval().save_pretrained(Path(config.work) / "steering_words")


def rarity(votes: torch.Tensor) -> np.ndarray:
    """Chances by which every emotion is drawn about as often, ``[N]``."""
    _, member, count = np.unique(votes.argmax(1).numpy(), return_inverse=True, return_counts=True)
    return (1 / count[member]) / (1 / count[member]).sum()


def first_words(how: dict[str, Any], space: EmotionSpace, tokens: Any, backbone: Any) -> SpaceWords:
    """The map through the learned words, and through plain ones for emotions that none was learned for."""
    start, _ = start_vectors(backbone, "neutral", 1)
    basic = [name for name in BASIC if name != "neutral"]
    known = dict(zip(tokens.emotions, tokens.vectors, strict=True))
    rows = [known[name].detach() if name in known else start_vectors(backbone, name, 1)[0] for name in basic]
    vectors = torch.stack([(row.mean(0) - start[0]) for row in rows])
    torch.manual_seed(0)
    free = torch.randn(how["rank"] - len(basic), vectors.shape[1])
    free = free * (vectors.norm(dim=1).mean() / free.norm(dim=1, keepdim=True))
    names = [*basic, *(name for name in space.config.names if name not in BASIC)]
    coordinates = torch.zeros(len(names), how["rank"])
    coordinates[:, : len(basic)] = basic_shares(names, BASIC)[:, 1:]
    places = basic_places(space, tuple(names))
    words = PointMap.through(places, coordinates, torch.cat([vectors, free]), straight=len(basic), width=how["width"],
                             ridge=how["ridge"])  # fmt: skip
    gain = torch.full((len(space.config.names),), float(how["gain"]))
    return SpaceWords(space.config.names, space.places, words, start, gain=gain)


def aims(
    config: DictConfig, space: EmotionSpace, points: torch.Tensor, votes: torch.Tensor, named: float
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Targets of the map: points, the votes expected there, and how often each is drawn.

    First the places of the names but neutral, with the mean votes of their pictures; then the pictures' points, with
    what the space reads there: a single picture's votes differ from those of its neighbours by chance.
    """
    names = [n for n, name in enumerate(space.config.names) if name != "neutral"]
    means = [
        votes[learning.nearest_votes(votes, learning.mixture_votes(space.config.names[n]), config.space.pictures)].mean(
            0
        )
        for n in names
    ]
    chances = [np.full(len(names), named / len(names)), (1 - named) * rarity(votes)]
    with torch.no_grad():
        smooth = space.votes(points).exp()
    return torch.cat([space.places[names], points]), torch.cat([torch.stack(means), smooth]), np.concatenate(chances)


def finish_stage(config: DictConfig) -> None:
    """The finished folders, with cards."""
    work, output = Path(config.work), Path(config.output)
    space = load_space(config)
    card = (work / "emotion_space" / "README.md").read_text("utf-8")
    space.save_pretrained(output / "emotion_space", card=card, role="emotion space", licence=LICENCE)
    for name, kind, folder, of in (
        ("space", SpaceDirections, "steering", config.map.editor),
        ("space_ti", SpaceWords, "steering_words", config.words.editor),
    ):
        if not (work / folder).is_dir():
            print(f"{name}: not trained, left as it is")
            continue
        base = load_editor(of, device="cpu")
        steering = kind.from_pretrained(work / folder)
        units = mixed_units({} if base.units is None else base.units.sums, steering.emotions)
        editor = Editor(base.backbone, [steering], name=name, compositor=base.compositor, units=units)
        steps = work / ("map" if name == "space" else "words")  # of training
        lines = [cost(name, steps)]
        role = "emotion editor (points of the emotion space)"
        editor.save_pretrained(
            output / name, card=filled_card(name, lines), backbone_of=of, role=role, licence=licence_of(base.backbone)
        )


def mixed_units(sums: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Action units of every name: those of the basic emotions that it is a mixture of, by their shares."""
    found = {}
    for name, shares in zip(names, basic_shares(names, BASIC).tolist(), strict=True):
        total: Counter[str] = Counter()
        for basic, share in zip(BASIC, shares, strict=True):
            total.update({unit: share * amount for unit, amount in sums.get(basic, {}).items()})
        if units := {unit: round(amount, 3) for unit, amount in total.items() if abs(amount) >= 0.001}:
            found[name] = units
    return found


def cost(name: str, folder: Path) -> str:
    """What a map took, a line of its card."""
    if name == "space_ti":
        return f"- the map: {minutes(folder):.0f} minutes on one CPU core beside other work"
    each = {
        path.stem.replace("-", " "): json.loads(path.read_text("utf-8"))["seconds"] for path in folder.glob("*.json")
    }
    names = ", ".join(sorted(each))
    return f"- finetuned, {sum(each.values()) / 60:.0f} minutes on one CPU core beside other work: {names}"


STAGES = {
    "prepare": prepare_stage,
    "space": space_stage,
    "map": map_stage,
    "words": words_stage,
    "finish": finish_stage,
}


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_space")
def main(config: DictConfig) -> None:
    for name in config.stages:
        STAGES[name](config)


if __name__ == "__main__":
    run(main)

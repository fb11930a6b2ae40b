"""Functions that the recipes of ``experiments/`` share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.nn.mouth import MouthNetwork
from emoedit.steering.hspace import Shift
from emoedit.training.data import CropSet
from emoedit.training.guides import Guide, OpeningGuide, RecogniserGuide, TeethGuide
from emoedit.training.hspace import Diffusion, ShiftLoss, ShiftTask, SourceBatches, invert_crops
from emoedit.training.loop import TrainerConfig, train
from emoedit.training.matching import mouth_opening, read_crops
from emoedit.training.votes import agreement

TRAINED_ON, HELD_OUT = ("train", "fit"), ("valid", "test")  # splits
LICENCE = "Apache-2.0; trained with FER-2013: research use"
LICENCE_IN_COLOUR = "Apache-2.0; trained with FER-2013 and UTKFace: non-commercial research"


def licence_of(backbone: Backbone) -> str:
    """The licence of an embedded editor: models of colour learn from UTKFace, too.

    Args:
        backbone: the editor's.
    """
    return LICENCE if backbone.channels == 1 else LICENCE_IN_COLOUR


def trainer_config(config: Mapping[str, Any]) -> TrainerConfig:
    """The settings of ``TrainerConfig`` in a configuration; the others are about batches.

    Args:
        config: config of a training.
    """
    known = {field.name for field in fields(TrainerConfig)}
    return TrainerConfig(**{key: value for key, value in config.items() if key in known})


def load_classifier(config: Mapping[str, Any], weights: str | os.PathLike[str]) -> MeasuringNetwork:
    """A guidance classifier, frozen: a recogniser that finetunes edits and measures none.

    Args:
        config: config of [NetworkConfig][emoedit.nn.measuring.NetworkConfig].
        weights: its ``network.pt`` (``train_metrics.py network=guidance``, or ``network=guidance_labels``).
    """
    network = MeasuringNetwork(NetworkConfig(**config))
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval().requires_grad_(False)


def classifier_guide(classifier: MeasuringNetwork, emotions: Sequence[str], how: Mapping[str, Any]) -> Guide:
    """A guide of the guidance classifier, with penalties on missing teeth, open lips or closed eyes where configured.

    Args:
        classifier: network with heads ``emotion`` and ``person``.
        emotions: names of those that are finetuned.
        how: ``guide``, the arguments of [RecogniserGuide][emoedit.training.guides.RecogniserGuide]; ``loss``, whose
            ``guide`` has the weights.
    """
    guide: Guide = RecogniserGuide(classifier, emotions, **how["guide"])
    priced = how["loss"]["guide"]
    if "teeth" in priced:
        guide = TeethGuide(guide, MouthNetwork.from_pretrained(checkpoints.embedded_root() / "mouth"))
    if "opened" in priced or "shut" in priced:
        guide = OpeningGuide(guide, EmbeddedNetwork.load("landmarks").network)
    return guide


def minutes(folder: Path) -> float:
    """How long a training took, by its ``state.pt``.

    Args:
        folder: folder of the training.
    """
    return float(torch.load(folder / "state.pt", weights_only=True, mmap=True)["seconds"]) / 60


def tiles(rows: Tensor) -> Tensor:
    """Rows of pictures ``[H, W, C, R, R]`` in [-1, 1] as one ``[C, H R, W R]`` in [0, 1]."""
    return (rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2) / 2 + 0.5).clamp(0, 1)


def choose(crops: CropSet, data: str, emotions: Sequence[str], limit: int, splits: Sequence[str]) -> np.ndarray:
    """Positions of at most ``limit`` crops, the same on every machine.

    Args:
        crops: prepared crops.
        data: name of a data set.
        emotions: names of emotions.
        limit: the most crops.
        splits: names of splits.
    """
    wanted = (crops.column("data") == data) & np.isin(crops.column("emotion"), emotions)
    chosen = np.flatnonzero(wanted & np.isin(crops.column("split"), splits))
    return np.sort(np.random.default_rng(0).permutation(chosen)[:limit])


def plain_pictures(
    crops: CropSet, data: str, emotion: str, how: Mapping[str, Any], landmarks: MeasuringNetwork
) -> np.ndarray:
    """Positions of the training pictures of a data set that show an emotion plainly, the same on every machine.

    Args:
        crops: the crops.
        data: the data set.
        emotion: its canonical name.
        how: ``pictures`` (at most so many); ``agreed`` (smallest share of the votes for the emotion, by emotion,
            with ``default``); ``voted`` (emotions of which only pictures with votes are used, because labels of one
            person are mostly wrong there); ``closed`` (emotion -> largest mouth opening, in eye distances, which
            leaves out shouts and crying).
        landmarks: a network with the head ``points``.
    """
    found = []
    for position in choose(crops, data, [emotion], len(crops.rows), TRAINED_ON):
        votes = [int(value) for value in (crops.rows[position].get("votes") or "").split()]
        least = how["agreed"].get(emotion, how["agreed"]["default"])
        if agreement(votes) >= least - 1e-9 if votes else emotion not in how["voted"]:
            found.append(position)
    positions = np.array(found, int)
    if emotion in how["closed"] and len(positions):
        positions = positions[mouth_opening(landmarks, crops, positions) < how["closed"][emotion]]
    return np.sort(np.random.default_rng(0).permutation(positions)[: how["pictures"]])


def read_as(
    classifier: MeasuringNetwork, crops: CropSet, data: str, emotion: str, limit: int, *, least: float = 0.5
) -> np.ndarray:
    """Positions of training pictures without labels that the guidance classifier reads as an emotion.

    Args:
        classifier: classifier of ``load_classifier``.
        crops: the crops.
        data: the data set.
        emotion: the emotion that is read.
        limit: largest number of pictures.
        least: probability of the emotion, 0 to 1.
    """
    found = choose(crops, data, [""], 4 * limit, TRAINED_ON)
    if not len(found):
        return found
    scores = read_crops(classifier, crops, found).scores[:, classifier.config.emotions.index(emotion)]
    return found[(scores >= least).numpy()][:limit]


def finetune_shifts(
    backbone: Diffusion,
    guide: Guide,
    shifts: Mapping[str, Shift],
    crops: CropSet,
    how: Mapping[str, Any],
    work: Path,
    *,
    preview: Callable[[ShiftTask], Tensor] | None = None,
) -> tuple[ShiftTask, int]:
    """Finetune shifts of h with a guide's losses.

    Args:
        backbone: frozen diffusion model.
        guide: guide of the emotions, in the order of ``shifts``.
        shifts: emotion -> its learnable shift, the starting point.
        crops: prepared crops.
        how: ``sources`` (data set -> how many neutral pictures are edited, and a quarter as many of ``emotions``),
            ``emotions``, ``mirrored``, ``batch_size``, ``loss``, ``judged``, ``trainer``.
        work: folder of the training state; an interrupted training resumes from it.
        preview: averaged task -> picture that is logged.

    Returns:
        The task with the averaged weights, and the number of edited pictures.
    """
    chosen = np.concatenate(
        [
            part
            for name, limit in how["sources"].items()
            for part in (
                choose(crops, name, ["neutral"], limit, TRAINED_ON),
                choose(crops, name, how["emotions"], limit // 4, TRAINED_ON),
            )
        ]
    )
    number = {name: k for k, name in enumerate(shifts)}
    sources = invert_crops(backbone.with_sampling(precision="bfloat16"), crops, chosen, mirrored=how["mirrored"])
    shown = np.resize([number.get(name, -1) for name in crops.column("emotion")[chosen]], len(sources))
    batches = SourceBatches(sources, len(shifts), shown, batch_size=how["batch_size"], seed=0)
    task = ShiftTask(backbone, guide, list(shifts.values()), ShiftLoss(**how["loss"]), judged=how["judged"])
    return train(task, batches, work, TrainerConfig(**how["trainer"]), preview=preview), len(sources)

"""What the recipes of ``experiments/`` have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emoedit.metrics.networks import MeasuringNetwork, NetworkConfig
from emoedit.training.loop import TrainerConfig

TRAINED_ON, HELD_OUT = ("train", "fit"), ("valid", "test")  # splits
LICENCE = "Apache-2.0; trained with FER-2013: research use"


def trainer_config(config: Mapping[str, Any]) -> TrainerConfig:
    """What of a configuration is the trainer's; the rest is about batches."""
    known = {field.name for field in fields(TrainerConfig)}
    return TrainerConfig(**{key: value for key, value in config.items() if key in known})


def load_coach(config: Mapping[str, Any], weights: str | os.PathLike[str]) -> MeasuringNetwork:
    """The recogniser that fits are led by, frozen: ``train_metrics.py network=coach``.

    Args:
        config: of :class:`NetworkConfig`.  weights: its ``network.pt``.
    """
    network = MeasuringNetwork(NetworkConfig(**config))
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval().requires_grad_(False)


def minutes(folder: Path) -> float:
    """How long a training took, by its ``state.pt``."""
    return float(torch.load(folder / "state.pt", weights_only=True, mmap=True)["seconds"]) / 60


def tiles(rows: Tensor) -> Tensor:
    """Rows of pictures ``[H, W, 1, R, R]`` in [-1, 1] as one ``[1, H R, W R]`` in [0, 1]."""
    return (rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2) / 2 + 0.5).clamp(0, 1)

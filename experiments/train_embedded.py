"""Train an embedded backbone, fit its directions, write it to ``checkpoints/``.

    python experiments/train_embedded.py data.root=/path/to/data            # everything, about two hours on two cores
    python experiments/train_embedded.py data.root=/path stages=[fit]       # the directions only, minutes

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from emoedit.backbones.vae import VAEConfig
from emoedit.faces.align import CropSpec
from emoedit.training.data import CropSet, MixtureBatches
from emoedit.training.loop import TrainerConfig, train
from emoedit.training.prepare import Filter, prepare
from emoedit.training.readers import read
from emoedit.training.vae import VAETask


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    data = config.data
    sets = {name: read(how.reader, Path(data.root) / how.path) for name, how in data.sets.items()}
    spec = CropSpec(data.resolution, "stable", data.scale, data.down)
    report = prepare(sets, data.crops, spec, keep=Filter(**data.filter))
    print("kept", report["kept"], "dropped", report["dropped"])


def train_stage(config: DictConfig) -> None:
    """The backbone; its averaged weights go to ``work``."""
    backbone = VAEConfig(**OmegaConf.to_container(config.backbone, resolve=True))
    known = {field.name for field in fields(TrainerConfig)}
    trainer = TrainerConfig(**{k: v for k, v in config.trainer.items() if k in known})
    crops = CropSet(config.data.crops)
    task = VAETask(backbone, beta=config.trainer.beta)
    batches = MixtureBatches(
        crops,
        config.trainer.shares,
        batch_size=config.trainer.batch_size,
        resolution=backbone.resolution,
        split="train",
        seed=trainer.seed,
    )
    valid = MixtureBatches(
        crops, config.trainer.shares, batch_size=12, resolution=backbone.resolution, split="valid", seed=1
    )(0)

    def preview(averaged: torch.nn.Module) -> torch.Tensor:
        """Sources over their reconstructions."""
        inversion = averaged.backbone.invert(valid)
        rows = torch.stack([valid, averaged.backbone.decode(inversion)])  # [2, N, 1, R, R]
        return (rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2) / 2 + 0.5).clamp(0, 1)

    averaged = train(task, batches, config.work, trainer, preview=preview)
    torch.save(averaged.backbone.state_dict(), Path(config.work) / "backbone.pt")


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_embedded")
def main(config: DictConfig) -> None:
    stages = {"prepare": prepare_stage, "train": train_stage}
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    main()

"""Train an embedded backbone, fit its directions, write it to ``checkpoints/``.

    python experiments/train_embedded.py data.root=/path/to/data            # everything, about two hours on two cores
    python experiments/train_embedded.py data.root=/path stages=[fit]       # the directions only, minutes

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

import time
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from emoedit.editors import Editor
from emoedit.io import checkpoints
from emoedit.models.vae.backbone import VAEBackbone, VAEConfig
from emoedit.steering.directions import class_statistics, fit_directions
from emoedit.training.data import CropSet, MixtureBatches, available_weights
from emoedit.training.loop import train
from emoedit.training.prepare import prepare_config
from emoedit.training.recipes import LICENCE, tiles, trainer_config
from emoedit.training.vae import VAETask
from lib.running import run


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    report = prepare_config(config.data)
    print("kept", report["kept"], "dropped", report["dropped"])


def train_stage(config: DictConfig) -> None:
    """The backbone; its averaged weights go to ``work``."""
    backbone = VAEConfig(**OmegaConf.to_container(config.backbone, resolve=True))
    trainer = trainer_config(config.trainer)
    crops = CropSet(config.data.crops)
    task = VAETask(backbone, beta=config.trainer.beta)
    shares = available_weights(crops, config.trainer.shares)
    batches = MixtureBatches(
        crops,
        shares,
        batch_size=config.trainer.batch_size,
        resolution=backbone.resolution,
        split="train",
        seed=trainer.seed,
    )
    valid = MixtureBatches(crops, shares, batch_size=12, resolution=backbone.resolution, split="valid", seed=1)(0)

    def preview(averaged: torch.nn.Module) -> torch.Tensor:
        """Sources over their reconstructions."""
        inversion = averaged.backbone.invert(valid)
        return tiles(torch.stack([valid, averaged.backbone.decode(inversion)]))

    start = time.monotonic()
    averaged = train(task, batches, config.work, trainer, preview=preview)
    # Rounded here, once: all that is fitted and measured later sees the weights that are shipped, in a quarter of the
    # space.
    checkpoints.round_weights(averaged.backbone)
    averaged.backbone.save_pretrained(Path(config.work) / "backbone")
    print(f"trained in {(time.monotonic() - start) / 60:.0f} min (this run)")


def encode(backbone: VAEBackbone, crops: CropSet, positions: np.ndarray, *, mirror: bool = False) -> torch.Tensor:
    """Latents of crops ``[N, D]``, or of their mirror images."""
    rows = []
    for part in tqdm(np.array_split(positions, max(1, len(positions) // 128)), desc="encode", leave=False):
        x = crops.pixels(part, backbone.config.resolution)
        rows.append(backbone.invert(x.flip(-1) if mirror else x).latent)
    return torch.cat(rows)


def fit_stage(config: DictConfig) -> None:
    """Directions in closed form from the training split; accuracy of the readout on the others; the finished folder."""
    crops = CropSet(config.data.crops)
    backbone = VAEBackbone.from_pretrained(Path(config.work) / "backbone")
    how = OmegaConf.to_container(config.steering, resolve=True)
    how["trust"] = available_weights(crops, how["trust"], "steering.trust")
    emotions, data, split = crops.column("emotion"), crops.column("data"), crops.column("split")
    wanted = np.isin(emotions, ["neutral", *how["emotions"]])
    sets, counts = {}, {}
    for name in how["trust"]:
        chosen = np.flatnonzero(wanted & (data == name) & np.isin(split, ["train", "fit"]))
        # With the mirror images beside them no direction prefers a side.
        z = torch.cat([encode(backbone, crops, chosen, mirror=mirror) for mirror in (False, True)])
        sets[name] = class_statistics(z, emotions[chosen].tolist() * 2)
        counts[name] = {emotion: count // 2 for emotion, count in sets[name].counts.items()}
    steering = fit_directions(sets, **how)
    report: dict[str, object] = {f"pictures the directions come from, {name}": count for name, count in counts.items()}
    for name in how["trust"]:
        chosen = np.flatnonzero(wanted & (data == name) & np.isin(split, ["valid", "test"]))
        if not len(chosen):
            report[f"held-out faces, {name}"] = "none with one of these emotions"
            continue
        z = encode(backbone, crops, chosen)
        read = (z @ steering.readout.T + steering.offset).argmax(1).numpy()
        truth = np.array([steering.emotions.index(e) for e in emotions[chosen]])
        recall = [float((read[truth == k] == k).mean()) for k in np.unique(truth)]
        report[f"readout, balanced accuracy on held-out faces, {name}"] = round(float(np.mean(recall)), 3)
        x = crops.pixels(chosen[:256], backbone.config.resolution)
        error = (backbone.decode(backbone.invert(x)) - x).mul(backbone.oval).square().sum((1, 2, 3))
        psnr = -10 * torch.log10(error / backbone.oval.sum() / 4)
        report[f"reconstruction inside the face, held-out faces, {name}, dB"] = round(float(psnr.mean()), 2)
    numbers = "\n".join(f"- {title}: {value}" for title, value in report.items())
    card = (Path(__file__).parent / "cards" / f"{config.name}.md").read_text("utf-8").replace("{numbers}", numbers)
    editor = Editor(backbone, [steering], name=config.name)
    editor.save_pretrained(config.output, card=card, role="emotion editor (VAE directions)", licence=LICENCE)
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_embedded")
def main(config: DictConfig) -> None:
    stages = {"prepare": prepare_stage, "train": train_stage, "fit": fit_stage}
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)

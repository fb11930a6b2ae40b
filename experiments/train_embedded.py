"""Train an embedded backbone, fit its directions, write it to ``checkpoints/``.

    python experiments/train_embedded.py recipe=vae_luminance data.root=/path/to/data   # of luminance, to start from
    python experiments/train_embedded.py data.root=/path/to/data            # in colour: two hours on two cores in all
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
from emoedit.models.luminance import in_luminance, is_grey
from emoedit.models.vae.backbone import VAEBackbone, VAEConfig
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.steering.directions import class_statistics, fit_directions
from emoedit.training.colouring import start_vae_in_colour
from emoedit.training.data import CropSet, MixtureBatches, available_weights
from emoedit.training.loop import train
from emoedit.training.prepare import prepare_config
from emoedit.training.recipes import HELD_OUT, TRAINED_ON, licence_of, plain_pictures, tiles, trainer_config
from emoedit.training.vae import VAETask
from lib.running import run
from lib.starting import luminance_folder


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    report = prepare_config(config.data)
    print("kept", report["kept"], "dropped", report["dropped"])


def train_stage(config: DictConfig) -> None:
    """The backbone; its averaged weights go to ``work``."""
    backbone = VAEConfig(**OmegaConf.to_container(config.backbone, resolve=True))
    trainer = trainer_config(config.trainer)
    crops = CropSet(config.data.crops)
    torch.manual_seed(trainer.seed)
    task = VAETask(backbone, beta=config.trainer.beta)
    if config.start is not None:
        start = luminance_folder(config.start, setting="start", command="emoedit train embedded recipe=vae_luminance")
        start_vae_in_colour(task.backbone, VAEBackbone.from_pretrained(start))
    shares = available_weights(crops, config.trainer.shares)
    common = {"resolution": backbone.resolution, "channels": backbone.channels}
    batches = MixtureBatches(
        crops,
        shares,
        batch_size=config.trainer.batch_size,
        split=TRAINED_ON,
        seed=trainer.seed,
        balance=config.trainer.get("balance", 1.0),
        balance_groups=config.trainer.get("balance_groups", 1.0),
        **common,
    )
    valid = MixtureBatches(crops, shares, batch_size=12, split=HELD_OUT, seed=1, **common)(0)

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
        x = crops.pixels(part, backbone.config.resolution, backbone.channels)
        rows.append(backbone.invert(x.flip(-1) if mirror else x).latent)
    return torch.cat(rows)


def reconstruction(backbone: VAEBackbone, x: torch.Tensor) -> str:
    """How near drawn crops ``[N, C, R, R]`` are to their originals inside the face, in dB."""
    error = (backbone.decode(backbone.invert(x)) - x).mul(backbone.oval)

    def psnr(error: torch.Tensor) -> float:
        mean = error.square().sum((1, 2, 3)) / (backbone.oval.sum() * error.shape[1])
        return float((-10 * torch.log10(mean / 4)).mean())

    luminance = f"{psnr(in_luminance(error)):.1f} in luminance"
    return luminance if backbone.channels == 1 or bool(is_grey(x).all()) else f"{luminance}, {psnr(error):.1f} in RGB"


def fit_stage(config: DictConfig) -> None:
    """Directions in closed form from the training split; accuracy of the readout on the others; the finished folder."""
    crops = CropSet(config.data.crops)
    backbone = VAEBackbone.from_pretrained(Path(config.work) / "backbone")
    how = OmegaConf.to_container(config.steering, resolve=True)
    how["trust"] = available_weights(crops, how["trust"], "steering.trust")
    plainly = {name: how.pop(name) for name in ("pictures", "agreed", "voted", "closed")}
    landmarks = MeasuringNetwork.from_pretrained(checkpoints.embedded_root() / "landmarks")
    emotions, data, split = crops.column("emotion"), crops.column("data"), crops.column("split")
    names = ["neutral", *how["emotions"]]
    sets, counts = {}, {}
    for name in how["trust"]:
        chosen = np.concatenate([plain_pictures(crops, name, emotion, plainly, landmarks) for emotion in names])
        # With the mirror images beside them no direction prefers a side.
        z = torch.cat([encode(backbone, crops, chosen, mirror=mirror) for mirror in (False, True)])
        sets[name] = class_statistics(z, emotions[chosen].tolist() * 2)
        counts[name] = {emotion: count // 2 for emotion, count in sets[name].counts.items()}
    steering = fit_directions(sets, **how)
    report: dict[str, object] = {f"pictures the directions come from, {name}": count for name, count in counts.items()}
    held_out = np.isin(split, HELD_OUT)
    for name in np.unique(data[held_out]):
        chosen = np.flatnonzero(held_out & (data == name))
        x = crops.pixels(chosen[:256], backbone.config.resolution, backbone.channels)
        report[f"reconstruction inside the face, held-out faces, {name}, dB"] = reconstruction(backbone, x)
        chosen = chosen[np.isin(emotions[chosen], names)]
        if len(chosen):
            read = (encode(backbone, crops, chosen) @ steering.readout.T + steering.offset).argmax(1).numpy()
            truth = np.array([steering.emotions.index(e) for e in emotions[chosen]])
            recall = [float((read[truth == k] == k).mean()) for k in np.unique(truth)]
            report[f"readout, balanced accuracy on held-out faces, {name}"] = round(float(np.mean(recall)), 3)
    numbers = "\n".join(f"- {title}: {value}" for title, value in report.items())
    card = (Path(__file__).parent / "cards" / f"{config.name}.md").read_text("utf-8").replace("{numbers}", numbers)
    editor = Editor(backbone, [steering], name=config.name)
    editor.save_pretrained(
        config.output, card=card, role="emotion editor (VAE directions)", licence=licence_of(backbone)
    )
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_embedded")
def main(config: DictConfig) -> None:
    stages = {"prepare": prepare_stage, "train": train_stage, "fit": fit_stage}
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)

"""Fit the two reference editors that need no model, from training pictures alone.

    python experiments/fit_references.py data.root=/path/to/data

*pixel mean*: the difference of two class means, added to the aligned face. *mean warp*: the median optical flow from
neutral to smiling faces of the same people, and the mean light that it leaves to be explained.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from emoedit.compositing.movement import Movement
from emoedit.editors import Editor
from emoedit.faces.masks import face_masks
from emoedit.faces.warp import unfold
from emoedit.models.pixels.backbone import PLANES, PixelBackbone, PixelsConfig
from emoedit.steering.directions import LatentDirections, mean_differences
from emoedit.training.data import CropSet, available_weights
from emoedit.training.prepare import prepare_config
from emoedit.types import Control
from lib.running import run

LICENCE = "Apache-2.0; statistics of research data"
CARDS = Path(__file__).parent / "cards"
STD = 57.0  # grey levels: the deviation every crop is brought to, so that light and contrast do not count


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    report = prepare_config(config.data)
    print("kept", report["kept"])


def normalised(crops: CropSet, positions: np.ndarray, side: int) -> np.ndarray:
    """Crops with mean 0 and deviation :data:`STD`, float32 ``[N, R, R]``."""
    x = crops.pixels(positions, side)[:, 0]
    x = x - x.mean((1, 2), keepdim=True)
    return (x * (STD / x.square().mean((1, 2), keepdim=True).sqrt())).numpy()


def finish(name: str, config: DictConfig, emotions: list[str], planes: np.ndarray, gain: float, card: str) -> None:
    """An editor from planes ``[E, 4, R, R]``, movement and light."""
    backbone = PixelBackbone(PixelsConfig(config.resolution, config.data.scale, config.data.down))
    directions = torch.from_numpy(np.concatenate([np.zeros_like(planes[:1]), planes])).flatten(1).float()
    gains = torch.tensor([1.0] + [gain] * len(emotions))
    steering = LatentDirections(["neutral", *emotions], directions.half().float(), gains)
    editor = Editor(backbone, [steering], name=name)
    folder = Path(config.output) / name
    editor.save_pretrained(folder, card=card, role="reference to compare with", licence=LICENCE, reference=True)
    print("wrote", folder)


def pixel_mean_stage(config: DictConfig) -> None:
    how = OmegaConf.to_container(config.pixel_mean)
    crops = CropSet(config.data.crops)
    emotion, data, split = crops.column("emotion"), crops.column("data"), crops.column("split")
    how["trust"] = available_weights(crops, how["trust"], "pixel_mean.trust")
    sets = {}
    for name in how["trust"]:
        counts, means = {}, {}
        for wanted in ("neutral", *how["emotions"]):
            chosen = np.flatnonzero((data == name) & (emotion == wanted) & np.isin(split, ["train", "fit"]))
            if not len(chosen):
                continue
            total = sum(normalised(crops, part, config.resolution).sum(0) for part in np.array_split(chosen, 16))
            mean = total / len(chosen)
            # With the mirror images beside them no difference prefers a side.
            counts[wanted], means[wanted] = len(chosen), torch.from_numpy((mean + mean[:, ::-1]) / 2).double()
        sets[name] = counts, means
    light = mean_differences(sets, how["emotions"], trust=how["trust"]).numpy()
    planes = np.zeros((len(light), PLANES, config.resolution, config.resolution))
    where = face_masks(PixelBackbone(PixelsConfig(config.resolution, config.data.scale, config.data.down)).crop)
    planes[:, 3] = light * where.face / 127.5
    finish("pixel_mean", config, how["emotions"], planes, how["gain"], (CARDS / "pixel_mean.md").read_text())


def mean_warp_stage(config: DictConfig) -> None:
    crops = CropSet(config.data.crops)
    side, wanted = config.resolution, config.mean_warp.emotion
    where = face_masks(PixelBackbone(PixelsConfig(side, config.data.scale, config.data.down)).crop)
    rows = {(row["person"], row["emotion"]): n for n, row in enumerate(crops.rows) if row["split"] == "fit"}
    people = sorted(person for person, emotion in rows if emotion == "neutral" and (person, wanted) in rows)
    befores, afters = (normalised(crops, np.array([rows[p, e] for p in people]), side) for e in ("neutral", wanted))
    befores, afters = (np.concatenate([x, x[:, :, ::-1]]) + 127.5 for x in (befores, afters))  # and their mirror images
    flows, lights = [], []
    for before, after in zip(tqdm(befores, desc="flow"), afters, strict=True):
        flows.append(Movement().find(before, after, where.face))
    flow = unfold(np.median(flows, 0).astype(np.float32))
    backbone = PixelBackbone(PixelsConfig(side, config.data.scale, config.data.down))
    planes = np.zeros((1, PLANES, side, side), np.float32)
    planes[0, 1:3] = flow.transpose(2, 0, 1) / side
    shift = torch.from_numpy(planes).flatten(1)
    for before, after in zip(befores, afters, strict=True):
        x = torch.from_numpy(before[None, None] / 127.5 - 1).float()
        moved = backbone.decode(backbone.invert(x), Control(shift))[0, 0].numpy()
        lights.append(after / 127.5 - 1 - moved)
    planes[0, 3] = np.mean(lights, 0) * where.face
    card = (CARDS / "mean_warp.md").read_text().replace("{people}", str(len(people)))
    finish("mean_warp", config, [wanted], planes, 1.0, card)


@hydra.main(version_base="1.3", config_path="../configs", config_name="fit_references")
def main(config: DictConfig) -> None:
    stages = {"prepare": prepare_stage, "pixel_mean": pixel_mean_stage, "mean_warp": mean_warp_stage}
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)

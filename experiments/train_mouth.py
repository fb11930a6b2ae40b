"""Train the network of sharp mouths and write ``checkpoints/mouth``.

    python experiments/train_mouth.py data.root=/path/to/data
    python experiments/train_mouth.py data.root=/path stages=[finish]       # test it again, card

Stop it whenever you like; the same command goes on where it stopped. Two of the embedded editors' models
draw what it learns from.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm
from train_metrics import wild_points

from emoedit.editors import load_editor
from emoedit.io import checkpoints
from emoedit.models.luminance import in_luminance
from emoedit.nn.mouth import MouthConfig, MouthNetwork, standardise
from emoedit.training.data import CropSet
from emoedit.training.loop import train
from emoedit.training.mouths import MouthBatches, MouthTask, find_teeth, sample_crops
from emoedit.training.prepare import prepare_config
from emoedit.training.recipes import HELD_OUT, TRAINED_ON, minutes, tiles, trainer_config
from lib.running import run

BATCH = 16


def mouth_config(config: DictConfig) -> MouthConfig:
    return MouthConfig(**OmegaConf.to_container(config.config, resolve=True))


def patches(x: torch.Tensor, config: MouthConfig) -> np.ndarray:
    """Mouths of pictures ``[N, 1, R, R]`` in [-1, 1]: uint8 ``[N, S, S]``."""
    if x.shape[-1] != config.resolution:
        x = F.interpolate(x, size=(config.resolution,) * 2, mode="bicubic", align_corners=False)
    return config.patch(((x[:, 0] + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)).numpy()


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    report = prepare_config(config.data)
    print("kept", report["kept"], "dropped", report["dropped"])


def labelled(config: DictConfig, crops: CropSet, splits: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of real mouths, and where teeth are in their crops: uint8 ``[N, R, R]``."""
    points = wild_points(crops, config) * config.data.resolution - 0.5
    usable = np.isfinite(points).all((1, 2)) & (crops.column("data") == config.real.data)
    usable &= np.isin(crops.column("split"), splits)
    chosen = sample_crops(crops.column("emotion"), usable, config.real.counts)
    teeth = [find_teeth(crops.luminance(n), points[n]) for n in tqdm(chosen, desc="teeth")]
    return chosen, (np.stack(teeth) * 255).astype(np.uint8)


@torch.no_grad()
def sources_stage(config: DictConfig) -> None:
    """Real mouths, and the same as small models draw them; to ``work``."""
    crops, mouth, work = CropSet(config.data.crops), mouth_config(config), Path(config.work)
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    chosen, teeth = labelled(config, crops, TRAINED_ON)
    model = load_editor(config.denoised.editor).backbone.with_sampling(precision="bfloat16")
    rebuilding = load_editor(config.rebuilt.editor).backbone
    noise_in, generator = model.eps_at(), torch.Generator().manual_seed(0)
    denoised, rebuilt = [], []
    for number, part in enumerate(tqdm(np.array_split(chosen, -(-len(chosen) // BATCH)), desc="pairs")):
        t = config.denoised.timesteps[number % len(config.denoised.timesteps)]
        a = model.alpha_bar[t].float()
        z, *light = model.to_latent(crops.pixels(part, model.crop.resolution, model.channels))
        x = a.sqrt() * z + (1 - a).sqrt() * torch.randn(z.shape, generator=generator)
        found = (x - (1 - a).sqrt() * noise_in(x, t)[0].float()) / a.sqrt()
        denoised.append(patches(in_luminance(model.to_picture(found, *light)), mouth))
        inversion = rebuilding.invert(crops.pixels(part, rebuilding.crop.resolution, rebuilding.channels))
        rebuilt.append(patches(in_luminance(rebuilding.decode(inversion)), mouth))
    real = np.stack([mouth.patch(torch.from_numpy(crops.luminance(n))).numpy() for n in chosen])
    pairs = {"real": real, "teeth": mouth.patch(torch.from_numpy(teeth)).numpy()}
    pairs |= {"denoised": np.concatenate(denoised), "rebuilt": np.concatenate(rebuilt)}
    np.savez(work / "sources.npz", **pairs)


def train_stage(config: DictConfig) -> None:
    how = OmegaConf.to_container(config, resolve=True)
    torch.set_num_threads(how["threads"])
    work, trainer = Path(config.work), trainer_config(how["trainer"])
    with np.load(work / "sources.npz") as found:
        batches = MouthBatches(dict(found), batch_size=how["batch_size"], seed=trainer.seed)
    torch.manual_seed(trainer.seed)
    task = MouthTask(mouth_config(config), **how["loss"]).to(memory_format=torch.channels_last)
    x = batches(10**6)["unsure"][:12]

    def preview(averaged: MouthTask) -> torch.Tensor:
        """Inputs, outputs and teeth masks."""
        z, mean, deviation = standardise(x)
        sharp, teeth = averaged.network(z)
        return tiles(torch.stack([x, sharp * deviation + mean, 2 * teeth.sigmoid() - 1]))

    averaged = train(task, batches, work, trainer, preview=preview)
    # Rounded here, once: what is measured later sees the weights that are shipped, in a quarter of the space.
    checkpoints.round_weights(averaged.network)
    torch.save(averaged.network.state_dict(), work / "network.pt")


@torch.no_grad()
def finish_stage(config: DictConfig) -> None:
    """Metrics on held-out people, the card and the finished folder."""
    crops, mouth, work = CropSet(config.data.crops), mouth_config(config), Path(config.work)
    network = MouthNetwork(mouth)
    network.load_state_dict(torch.load(work / "network.pt", weights_only=True))
    network.eval().requires_grad_(False)
    chosen, teeth = labelled(config, crops, HELD_OUT)
    model = load_editor(config.rebuilt.editor).backbone
    truth = mouth.patch(torch.from_numpy(teeth)) > 127
    shown = {"as they are": [], "as StyleGAN2 draws them": []}
    for part in np.array_split(chosen, -(-len(chosen) // BATCH)):
        x = crops.pixels(part, model.crop.resolution, model.channels)
        for name, pictures in zip(shown, (x, model.decode(model.invert(x))), strict=True):
            shown[name].append(patches(in_luminance(pictures), mouth))
    report = {"held-out mouths, of these with teeth": f"{len(truth)}, {truth.flatten(1).any(1).float().mean():.0%}"}
    for name, pictures in shown.items():
        z, _, _ = standardise(torch.from_numpy(np.concatenate(pictures))[:, None] / 127.5 - 1)
        found = torch.cat([network(part)[1] for part in z.split(BATCH)])[:, 0] > 0
        both, either = (found & truth).sum(), (found | truth).sum()
        right = (found.flatten(1).any(1) == truth.flatten(1).any(1)).float().mean()
        report[f"teeth, {name}: intersection over union; mouths where it is right about whether there are any"] = (
            f"{both / either:.2f}; {right:.0%}"
        )
    numbers = "\n".join(f"- {title}: {value}" for title, value in report.items())
    with np.load(work / "sources.npz") as found:
        mouths = len(found["real"])
    cost = f"{config.trainer.steps:,} steps of {config.batch_size} pairs out of {mouths:,}, "
    cost += f"{minutes(work):.0f} minutes on two CPU cores"
    card = (Path(__file__).parent / "cards" / "mouth.md").read_text().replace("{numbers}", numbers)
    network.save_pretrained(
        Path(config.output), card=card.replace("{cost}", cost), role="sharp mouths", licence="Apache-2.0"
    )
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_mouth")
def main(config: DictConfig) -> None:
    stages = {"prepare": prepare_stage, "sources": sources_stage, "train": train_stage, "finish": finish_stage}
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)

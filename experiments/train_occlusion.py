"""Train the network that finds what is in front of a face and write ``checkpoints/occlusion``.

    python experiments/train_occlusion.py data.root=/path/to/data

Crops are those that the other recipes prepare, in colour. About a quarter of an hour on one core.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from emoedit.nn.occlusion import OcclusionNetwork
from emoedit.nn.unet import UNetConfig
from emoedit.training.occlusion import OcclusionBatches, fit_occlusion
from emoedit.training.prepare import prepare_config
from lib.running import run


@torch.no_grad()
def report(network: OcclusionNetwork, batches: OcclusionBatches, count: int) -> str:
    """Metrics on held-out faces, as Markdown."""
    both = either = bare = kept = 0.0
    for step in range(count):
        x, hidden = batches(step)
        found, true = network(x).sigmoid() > 0.5, hidden > 0.5
        both, either = both + float((found & true).sum()), either + float((found | true).sum())
        nothing = ~true.flatten(1).any(1)
        bare, kept = bare + float(nothing.sum()), kept + float(found[nothing].float().mean((1, 2, 3)).sum())
    return (
        f"- held-out faces with things drawn in front of them: intersection over union {both / either:.2f}\n"
        f"- held-out faces with nothing in front of them: {kept / max(bare, 1):.1%} of the crop is taken for something"
    )


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_occlusion")
def main(config: DictConfig) -> None:
    """Prepare, fit, report, write."""
    if config.prepare:
        print(prepare_config(config.data)["kept"])
    crops = np.load(Path(config.data.crops) / "crops.npy", mmap_mode="r")
    torch.manual_seed(config.seed)
    network = OcclusionNetwork(UNetConfig(config.resolution, config.data.scale, config.data.down))
    seen = int(len(crops) * (1 - config.held_out))
    how = {"resolution": config.resolution, "batch_size": config.batch_size}
    fit_occlusion(network, OcclusionBatches(crops[:seen], seed=config.seed, **how), steps=config.steps)
    numbers = report(network, OcclusionBatches(crops[seen:], seed=config.seed + 99, **how), count=20)
    card = (Path(__file__).parent / "cards" / "occlusion.md").read_text(encoding="utf-8")
    licence = "Apache-2.0; trained with UTKFace: non-commercial research"
    network.save_pretrained(
        Path(config.output), card=card.replace("{numbers}", numbers), role="things in front of faces", licence=licence
    )
    print(numbers)


if __name__ == "__main__":
    run(main)

"""Train the network that tells how a smile has moved a face's landmarks, and write ``checkpoints/relaxation``.

    python experiments/train_relaxation.py data.root=/path/to/data

Some minutes on one core. Expected: of held-out people most of a smile's width goes, and lips of neutral faces move by
less than a hundredth of the crop.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from emoedit.io import checkpoints
from emoedit.nn.relaxation import RelaxationConfig, RelaxationNetwork
from emoedit.training.data import CropSet, available_weights
from emoedit.training.prepare import prepare_config
from emoedit.training.relaxation import find_pairs, find_points, fit_relaxation, landmark_moves, people_in_pairs
from emoedit.types import CropSpec
from lib.running import run

TRAINED_ON, HELD_OUT = ["train", "fit"], ["valid", "test"]
LIPS, CORNERS = slice(48, 68), (48, 54)
LICENCE = "Apache-2.0"


def drawn(crops: CropSet, rows: np.ndarray, config: DictConfig) -> torch.Tensor:
    """How often each of these rows is drawn, ``[len(rows)]``."""
    shares = available_weights(crops, dict(config.drawn), "drawn")
    return torch.tensor([shares.get(crops.rows[row]["data"], 0.0) for row in rows])


def landmark_report(network: RelaxationNetwork, faces: np.ndarray, moves: np.ndarray) -> str:
    """Metrics on held-out people, as Markdown."""
    x, y = torch.from_numpy(faces).float(), torch.from_numpy(moves).float()
    with torch.no_grad():
        found = network(x)
    smiling = y.abs().amax((1, 2)) > 0
    wide, down = (
        [(m[smiling][:, CORNERS[0], k] + sign * m[smiling][:, CORNERS[1], k]).mean().item() for m in (found, y)]
        for k, sign in ((0, -1), (1, 1))
    )
    error = (found[smiling] - y[smiling])[:, LIPS].abs().mean().item()
    size, still = y[smiling][:, LIPS].abs().mean().item(), found[~smiling][:, LIPS].abs().mean().item()
    return "\n".join(
        [
            f"- held-out people: {int(smiling.sum())} pairs, {int((~smiling).sum())} neutral faces",
            f"- share of a smile's width that goes: {wide[0] / wide[1]:.2f}; of its height: {down[0] / down[1]:.2f}",
            f"- lips of smiling faces: mean error {error:.4f} of a movement of {size:.4f}, of the crop's side",
            f"- lips of neutral faces move by {still:.4f}",
        ]
    )


def landmarks_stage(config: DictConfig, crops: CropSet, spec: CropSpec) -> None:
    """Fit, report and write the network that moves landmarks."""
    people = {name: people_in_pairs(crops, splits) for name, splits in (("fit", TRAINED_ON), ("test", HELD_OUT))}
    rows = [row for half in people.values() for found in half for each in found.values() for row in each]
    points = find_points(crops, np.array(rows), spec)
    fit, test = (landmark_moves(points, find_pairs(points, half), half) for half in people.values())
    how = config.landmarks
    network = RelaxationNetwork(RelaxationConfig(how.width, config.data.scale, config.data.down))
    faces, moves = (torch.from_numpy(values).float() for values in fit[:2])
    settings = {"steps": how.steps, "batch_size": how.batch_size, "seed": config.seed}
    fit_relaxation(network, faces, moves, drawn(crops, fit[2], config), **settings)
    checkpoints.round_weights(network)
    numbers = landmark_report(network, *test[:2])
    card = (Path(__file__).parent / "cards" / "relaxation.md").read_text(encoding="utf-8")
    network.save_pretrained(
        Path(config.output), card=card.replace("{numbers}", numbers), role="landmarks of neutral faces", licence=LICENCE
    )
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_relaxation")
def main(config: DictConfig) -> None:
    """The stages, in order."""
    if "prepare" in config.stages:
        print("kept", prepare_config(config.data)["kept"])
    crops = CropSet(config.data.crops)
    if "landmarks" in config.stages:
        spec = CropSpec(config.data.resolution, "stable", config.data.scale, config.data.down)
        landmarks_stage(config, crops, spec)


if __name__ == "__main__":
    run(main)

"""Train the networks that take smiles out of photographs; write ``checkpoints/relaxation`` and ``.../relighting``.

    python experiments/train_relaxation.py data.root=/path/to/data
    python experiments/train_relaxation.py data.root=/path/to/data stages=[light]

A quarter of an hour on one core. Expected: of held-out people most of a smile's width goes, and lips of neutral faces
move by less than a hundredth of the crop; the light of a smile is nearer to that of the neutral photograph than it was.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from emoedit.faces.masks import face_masks
from emoedit.io import checkpoints
from emoedit.nn.relaxation import RelaxationConfig, RelaxationNetwork
from emoedit.nn.relighting import RelightingNetwork
from emoedit.nn.unet import UNetConfig
from emoedit.training.data import CropSet, available_weights
from emoedit.training.prepare import prepare_config
from emoedit.training.relaxation import find_pairs, find_points, fit_relaxation, landmark_moves, people_in_pairs
from emoedit.training.relighting import fit_relighting, ratio_images
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


@torch.no_grad()
def light_report(network: RelightingNetwork, x: np.ndarray, y: np.ndarray) -> str:
    """How much nearer the light of people it has never seen comes to that of their neutral photograph, as Markdown."""
    mask = face_masks(network.crop).face > 0.5
    left = np.abs(network(torch.from_numpy(x)).numpy() - y)[..., mask].mean()
    return (
        f"- held-out people: {len(x)} pairs\n"
        f"- mean error of the ratio's logarithm: {left:.4f}; {np.abs(y)[..., mask].mean():.4f} if nothing changes"
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
    save(network, Path(config.output), "relaxation", landmark_report(network, *test[:2]), "landmarks of neutral faces")


def light_stage(config: DictConfig, crops: CropSet, spec: CropSpec) -> None:
    """Fit, report and write the network that takes a smile's light off a face."""
    relaxation = RelaxationNetwork.from_pretrained(Path(config.output))
    how = config.light
    network = RelightingNetwork(UNetConfig(how.resolution, config.data.scale, config.data.down))
    halves = []
    for splits in (TRAINED_ON, HELD_OUT):
        people = people_in_pairs(crops, splits)
        rows = [row for found in people for each in found.values() for row in each]
        points = find_points(crops, np.array(rows), spec)
        halves.append(ratio_images(crops, points, find_pairs(points, people), relaxation, network.crop))
    (x, y, rows), test = halves
    settings = {"steps": how.steps, "batch_size": how.batch_size, "seed": config.seed}
    fit_relighting(network, torch.from_numpy(x), torch.from_numpy(y), drawn(crops, rows, config), **settings)
    checkpoints.round_weights(network)
    save(network, Path(config.light_output), "relighting", light_report(network, *test[:2]), "light of neutral faces")


def save(network: RelaxationNetwork | RelightingNetwork, folder: Path, name: str, numbers: str, role: str) -> None:
    """Write a network with its card and print its numbers."""
    card = (Path(__file__).parent / "cards" / f"{name}.md").read_text(encoding="utf-8")
    network.save_pretrained(folder, card=card.replace("{numbers}", numbers), role=role, licence=LICENCE)
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_relaxation")
def main(config: DictConfig) -> None:
    """The stages, in order."""
    if "prepare" in config.stages:
        print("kept", prepare_config(config.data)["kept"])
    crops = CropSet(config.data.crops)
    spec = CropSpec(config.data.resolution, "stable", config.data.scale, config.data.down)
    for name, stage in (("landmarks", landmarks_stage), ("light", light_stage)):
        if name in config.stages:
            stage(config, crops, spec)


if __name__ == "__main__":
    run(main)

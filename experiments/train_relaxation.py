"""Train the network that takes smiles out of landmarks and write ``checkpoints/relaxation``: half a minute on one core.

    python experiments/train_relaxation.py data.root=/path/to/data

Expected: about four fifths of a smile's width go, and lips of neutral faces move by less than a thousandth of the crop.
"""

from __future__ import annotations

from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig

from emoedit.nn.relaxation import RelaxationConfig, RelaxationNetwork
from emoedit.training.relaxation import fit_relaxation, read_pairs
from lib.running import run

LIPS, CORNERS = slice(48, 68), (48, 54)


def report(network: RelaxationNetwork, faces: torch.Tensor, moves: torch.Tensor) -> str:
    """What the network does to people it has never seen, as Markdown."""
    with torch.no_grad():
        found = network(faces)
    smiling = moves.abs().amax((1, 2)) > 0
    wide = [(m[smiling][:, CORNERS[0], 0] - m[smiling][:, CORNERS[1], 0]).mean().item() for m in (found, moves)]
    error = (found[smiling] - moves[smiling])[:, LIPS].abs().mean().item()
    size, still = moves[smiling][:, LIPS].abs().mean().item(), found[~smiling][:, LIPS].abs().mean().item()
    return "\n".join(
        [
            f"- held-out people: {int(smiling.sum())} pairs, {int((~smiling).sum())} neutral faces",
            f"- share of a smile's width that goes: {wide[0] / wide[1]:.2f}",
            f"- lips of smiling faces: mean error {error:.4f} of a movement of {size:.4f}, of the crop's side",
            f"- lips of neutral faces move by {still:.4f}",
        ]
    )


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_relaxation")
def main(config: DictConfig) -> None:
    """Read, fit, report, write."""
    network = RelaxationNetwork(RelaxationConfig(config.width, config.data.scale, config.data.down))
    faces, moves, people = read_pairs(Path(config.data.root) / config.pairs, network.config)
    held_out = torch.from_numpy(people % config.held_out == 0)
    x, y = torch.from_numpy(faces).float(), torch.from_numpy(moves).float()
    fit_relaxation(
        network, x[~held_out], y[~held_out], steps=config.steps, batch_size=config.batch_size, seed=config.seed
    )
    numbers = report(network, x[held_out], y[held_out])
    card = (Path(__file__).parent / "cards" / "relaxation.md").read_text(encoding="utf-8")
    network.save_pretrained(
        Path(config.output),
        card=card.replace("{numbers}", numbers),
        role="landmarks of neutral faces",
        licence="Apache-2.0",
    )
    print(numbers)


if __name__ == "__main__":
    run(main)

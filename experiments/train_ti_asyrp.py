"""Fit shifts of h for the embedded Stable Diffusion, put its learned words beside them, write ``checkpoints/ti_asyrp``.

    python experiments/train_ti_asyrp.py data.root=/path/to/data      # after train_ti.py

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig
from train_asyrp import run


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_ti_asyrp")
def main(config: DictConfig) -> None:
    run(config)


if __name__ == "__main__":
    main()

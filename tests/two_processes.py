"""Not a test: what tests/test_launch.py runs under ``accelerate launch``.

    accelerate launch ... tests/two_processes.py FOLDER STEPS ACCUMULATE

A batch of eight pictures with their noise, drawn from the step alone, is dealt out: to the processes there are, and to
the parts that a process accumulates. Every process writes what it was given back.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from emoedit.training.loop import TrainerConfig, train

PICTURES = 8


class Task(nn.Module):
    """Denoises, without chance: what is random comes with the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 1, 3, padding=1))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (self.layers(batch["x"] + batch["noise"]) - batch["x"]).square().mean()}


def main(folder: str, steps: str, accumulate: str) -> None:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    parts = int(accumulate)

    def batches(part: int, process: int) -> dict[str, Tensor]:
        step, turn = divmod(part, parts)
        draw = torch.Generator().manual_seed(step)
        whole = {"x": torch.rand(PICTURES, 1, 8, 8, generator=draw)}
        whole["noise"] = torch.randn(PICTURES, 1, 8, 8, generator=draw)
        share = turn * processes + process
        return {name: value[share :: processes * parts] for name, value in whole.items()}

    torch.manual_seed(0)
    task = Task()
    rank = os.environ.get("RANK", "0")
    if rank != "0":  # starts elsewhere: what counts are the first one's weights
        for parameter in task.parameters():
            nn.init.ones_(parameter)
    how = TrainerConfig(int(steps), 1e-2, warmup=2, decay=1e-9, ema=0.9, precision="no", accumulate=parts, save_every=3)
    averaged = train(task, batches, Path(folder) / "work", how)
    torch.save({"weights": averaged.state_dict(), "processes": processes}, Path(folder) / f"{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])

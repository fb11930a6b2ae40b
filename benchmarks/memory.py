"""How much memory Stable Diffusion 1.5 takes at its real widths: one edit, and eight.

    python -m benchmarks.memory --precision bfloat16 --steps 2

Random weights of the published shapes; the number of steps changes the time and hardly the memory. On a CPU what is
counted is the process's resident memory above what it has before the model is made; on CUDA what PyTorch allocates.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from emoedit.editors import Editor
from emoedit.full_size import batch_size_of
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.config import StableDiffusionConfig
from emoedit.models.stable_diffusion.files import read_tokenizer
from emoedit.steering.words import Words
from emoedit.types import Edit
from tests.fixtures.stable_diffusion import SCHEDULER, TEXT, UNET, VAE, write_tokenizer

EMOTIONS = ("happy", "sad", "angry", "surprised", "fearful", "disgusted", "content", "amused")


def bare(config: dict) -> dict:
    return {name: value for name, value in config.items() if name[0] != "_"}


def make(steps: int, precision: str, device: str) -> Editor:
    """The editor; the U-Net is made in the precision it is held in, so that making it needs no more than holding it."""
    with TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        tokenizer = read_tokenizer(Path(folder))
    known = ("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
    scheduler = {"prediction_type": "epsilon", **{name: SCHEDULER[name] for name in known if name in SCHEDULER}}
    config = StableDiffusionConfig(bare(UNET), bare(VAE), TEXT, scheduler, steps=steps)
    from emoedit.models.stable_diffusion import files

    torch.set_default_dtype(getattr(torch, precision))
    unet = files.new_unet(config.unet)
    torch.set_default_dtype(torch.float32)
    unet.time_embedding.float()
    backbone = StableDiffusionBackbone(config, tokenizer, unet=unet)
    backbone.batch_size = batch_size_of(backbone.crop.resolution)
    backbone.to_device(device, precision)
    return Editor(backbone, [Words()], name="sd15")


class Peak:
    """The most memory that is taken, in GB."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def reset(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def value(self) -> float:
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 1e9
        return self._status("VmHWM")

    def now(self) -> float:
        return torch.cuda.memory_allocated() / 1e9 if self.cuda else self._status("VmRSS")

    def _status(self, name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--edits", type=int, nargs="+", default=[1, 8], help="how many, at most 8 each; default: 1 8")
    args = parser.parse_args()
    peak = Peak(args.device)
    before = peak.now()
    editor = make(args.steps, args.precision, args.device)
    gc.collect()
    print(f"weights: {peak.now() - before:.2f} GB", flush=True)
    x = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for count in args.edits:
        peak.reset()
        start = time.perf_counter()
        inversion = editor.invert(x)
        for _ in editor.edit(inversion, [Edit(name) for name in EMOTIONS[:count]]):
            pass
        seconds = time.perf_counter() - start
        print(f"{count} edits: peak {peak.value() - before:.2f} GB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()

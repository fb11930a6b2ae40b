"""What a StyleGAN2 picture costs here and by a plain implementation of the paper (weights of each picture's own in one
grouped convolution, resampling by inserted zeros), on equal random weights, taking turns in one run.

python -m benchmarks.stylegan [--resolution 256] [--base 16384] [--batch 1 4] [--clock wall]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.editors import load_editor
from emoedit.io import checkpoints
from emoedit.models.stylegan2.inversion import Losses
from emoedit.models.stylegan2.network import FIR, ModulatedConv, Synthesis, layer_count, widths
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.training.stylegan import inversion_losses

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def plain_filter(x: Tensor, *, up: int = 1, padding: tuple[int, int]) -> Tensor:
    """Zeros between pixels if ``up`` is 2, padding, then the FIR filter on every map."""
    count, channels, height, width = x.shape
    if up == 2:
        x = F.pad(x.view(count, channels, height, 1, width, 1), (0, 1, 0, 0, 0, 1))
        x = x.reshape(count, channels, 2 * height, 2 * width)
    taps = torch.tensor(FIR)
    kernel = torch.outer(taps, taps) * (4 / 64)
    return F.conv2d(F.pad(x, (*padding, *padding)), kernel.expand(channels, 1, 4, 4), groups=channels)


def plain_conv(layer: ModulatedConv, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """Karras et al. 2020, equations 1 to 3, as written there."""
    count, inputs = x.shape[:2]
    outputs = layer.weight.shape[0]
    weight = layer.weight * layer.affine(w)[:, None, :, None, None]
    weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, count * inputs, *x.shape[2:])
    if layer.up:
        weight = weight.transpose(1, 2).reshape(count * inputs, outputs, 3, 3)
        x = F.conv_transpose2d(x, weight, stride=2, groups=count)
        x = plain_filter(x.view(count, outputs, *x.shape[2:]), padding=(1, 1))
    else:
        x = F.conv2d(x, weight.reshape(count * outputs, inputs, 3, 3), padding=1, groups=count)
        x = x.view(count, outputs, *x.shape[2:])
    x = x + noise * layer.noise_strength
    return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * math.sqrt(2)


def plain_synthesis(model: Synthesis, w_plus: Tensor) -> Tensor:
    """What :class:`Synthesis` draws, in float32 without clamps."""
    x, image = model.const.repeat(len(w_plus), 1, 1, 1), None
    for k, (layer, flat) in enumerate(zip(model.convs, model.noise[0].split(model.sizes), strict=True)):
        side = math.isqrt(len(flat))
        x = plain_conv(layer, x, w_plus[:, k], flat.view(side, side))
        if k % 2 == 0:
            to = model.to_images[k // 2]
            count, inputs, height, width = x.shape
            weight = to.weight * (to.affine(w_plus[:, k + 1]) / math.sqrt(inputs))[:, None]
            shown = F.conv2d(x.reshape(1, -1, height, width), weight.flatten(0, 1)[..., None, None], groups=count)
            shown = shown.view(count, -1, height, width) + to.bias[:, None, None]
            image = shown if image is None else plain_filter(image, up=2, padding=(2, 1)) + shown
    return image


def taking_turns(
    runs: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each run, after one that warms up."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def compare_synthesis(options: argparse.Namespace) -> None:
    side, clock = options.resolution, CLOCKS[options.clock]
    model = Synthesis(side, 3, 512, widths(side, base=options.base)).eval()
    for layer in model.convs:
        torch.nn.init.constant_(layer.noise_strength, 0.1)
    for count in options.batch:
        w_plus = torch.randn(count, layer_count(side), 512)
        runs = {
            "plain, float32": lambda w=w_plus: plain_synthesis(model, w),
            "here, float32": lambda w=w_plus: model(w),
            "here, bfloat16": lambda w=w_plus: model(w, dtype=torch.bfloat16),
        }
        seconds = taking_turns(runs, options.repeats, clock)
        truth = runs["plain, float32"]()
        for name, run in runs.items():
            picture = run()
            share = float((picture - truth).square().mean().sqrt() / truth.std())
            print(
                f"{side} px, batch of {count}, {name}: {seconds[name] / count:.3f} s a picture, "
                f"{seconds['plain, float32'] / seconds[name]:.2f} times as fast as plain; differs by {share:.2g} of "
                "the picture's standard deviation"
            )


def time_embedded(options: argparse.Namespace) -> None:
    """The embedded editor on a crop of its own drawing."""
    clock, root = CLOCKS[options.clock], checkpoints.embedded_root()
    model = load_editor("stylegan").backbone.eval().requires_grad_(False).with_inversion(optimise_steps=0)
    perceptual = PerceptualNetwork.from_pretrained(root / "perceptual")
    losses = inversion_losses(perceptual, MeasuringNetwork.from_pretrained(root / "identity"))
    target = model.sample(torch.Generator().manual_seed(0), 1, truncation=0.7)
    found = model.invert(target)

    runs = {"encoder": lambda: model.invert(target), "decoding": lambda: model.decode(found)}
    seconds = taking_turns(runs, options.repeats, clock)
    for title, what in {"squared difference alone": Losses(), "and perceptual and identity": losses}.items():
        start = clock()
        model.with_inversion(what, optimise_steps=options.steps).invert(target)
        seconds[title] = clock() - start
    print(
        f"the embedded editor, {model.config.resolution} px: "
        + ", ".join(f"{name} {value:.3f} s" for name, value in list(seconds.items())[:2])
        + f"; encoder and {options.steps} steps: "
        + ", ".join(f"{value:.2f} s ({name})" for name, value in list(seconds.items())[2:])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=256, help="side of the picture in pixels")
    parser.add_argument("--base", type=int, default=16384, help="channels x pixels; 32768 in the 1024-pixel model")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4], help="pictures at once")
    parser.add_argument("--repeats", type=int, default=3, help="how often each is timed")
    parser.add_argument("--steps", type=int, default=100, help="of optimisation")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu where other programs are running")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        compare_synthesis(options)
        time_embedded(options)


if __name__ == "__main__":
    main()

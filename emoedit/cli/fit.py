"""``emoedit fit``: one emotion, fitted to a model from a folder of photographs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoedit.cli.common import CommandParser, UsageError, add_device, add_seed, check_free, say
from emoedit.cli.model_options import add_settings

if TYPE_CHECKING:
    from emoedit.models.base import Backbone

_EXAMPLES = """\
examples:
  emoedit fit token --emotion smirk --like happy --pictures smirk/ --model sd15 --output smirk-token
  emoedit fit shift --emotion smirk --pictures smirk/ --neutral neutral/ --model celebahq --output smirk-shift
  emoedit fit direction --emotion happy --model ffhq.pkl --output smile          from the generator's own samples
  emoedit edit me.jpg --editor smirk-shift --emotion smirk                       what was fitted is an editor

A folder of pictures holds photographs of one emotion, a face each. 10 of a class are enough to begin with.
"""


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "fit",
        help="fit an emotion to a model, from your own photographs",
        description="A learned word (token), a shift of h (shift) or a direction in a latent (direction), for one "
        "emotion. The model itself is not changed and not copied: the output names it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("token", "shift", "direction"))
    parser.add_argument("--emotion", required=True, metavar="NAME", help="what it is called; any name")
    parser.add_argument(
        "--model", required=True, metavar="ID|FOLDER|FILE", help="an editor's name, a folder, a file, or OWNER/NAME"
    )
    parser.add_argument("--pictures", metavar="FOLDER", help="photographs of faces that show the emotion")
    parser.add_argument("--neutral", metavar="FOLDER", help="photographs of neutral faces, for shift and direction")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where it is written")
    parser.add_argument(
        "--like", metavar="WORD", help="a word the model knows, where a token starts; default: the name"
    )
    parser.add_argument(
        "--steps", type=_above_0, metavar="N", help="of learning a token; default: 200, 3000 from 256 px"
    )
    parser.add_argument("--vectors", type=_above_0, default=1, metavar="N", help="of a token; default: 1")
    parser.add_argument("--samples", type=_above_0, default=2000, metavar="N", help="of a generator; default: 2000")
    parser.add_argument(
        "--gain",
        type=float,
        metavar="X",
        help="mean differences that strength 1 is; default: 4 for a shift, 1 for a direction",
    )
    add_settings(parser)
    add_seed(parser)
    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    parser.set_defaults(run=run)


def _above_0(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {text!r}")


def run(args: argparse.Namespace) -> int:
    """Runs the command with the parsed ``args``; returns the exit status."""
    _check(args)
    if args.kind != "token":  # a token's folder is a working folder, in which the same command goes on
        check_free(args.output, args.overwrite)
    from emoedit.full_size import backbone_of
    from emoedit.models.devices import choose_device

    device = _training_device(args.device) if args.kind == "token" else choose_device(args.device)
    backbone, owner = backbone_of(args.model, dict(args.set))
    backbone = backbone.to(device).eval().requires_grad_(False)
    if args.kind == "token":
        return _token(args, backbone)
    steering = _steering(args, backbone)
    from emoedit.editors import Editor

    editor = Editor(backbone, [steering], name=Path(args.output).name)
    editor.save_pretrained(args.output, backbone_of=owner, role=f"fitted {args.kind} for {args.emotion}")
    say(f"wrote {args.output}: emoedit edit PHOTO --editor {args.output} --emotion {args.emotion!r}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError for options that do not go together."""
    if args.kind == "token" and args.pictures is None:
        raise UsageError("a token is learned from pictures: --pictures FOLDER")
    if args.kind == "shift" and None in (args.pictures, args.neutral):
        raise UsageError("a shift is a difference of two classes: --pictures FOLDER --neutral FOLDER")
    if args.kind == "direction" and (args.pictures is None) != (args.neutral is None):
        raise UsageError(
            "a direction is a difference of two classes: --pictures FOLDER --neutral FOLDER; or, of a StyleGAN2, "
            "neither: then it is fitted to the generator's own samples"
        )
    if args.kind != "token" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"a {args.kind} is computed by one process, not trained: run emoedit fit without a launcher")


def _training_device(asked: str) -> str:
    """Where accelerate trains: on CUDA, each process on its own card, or else on the CPU.

    Raises:
        UsageError: another device is asked for.
    """
    import torch

    from emoedit.models.devices import choose_device

    trains_on = "cuda" if torch.cuda.is_available() else "cpu"
    device = choose_device(trains_on if asked == "auto" else asked)
    if torch.device(device).type != trains_on:
        raise UsageError(f"tokens are trained on {trains_on} on this machine, not on {device}: leave out --device")
    return device


def _token(args: argparse.Namespace, backbone: Backbone) -> int:
    from emoedit.faces.detect import FaceDetector
    from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
    from emoedit.steering.tokens import EMBEDDINGS
    from emoedit.training.loop import TrainerConfig
    from emoedit.training.tokens import TokenConfig, learn_token, read_faces

    if not isinstance(backbone, StableDiffusionBackbone):
        raise UsageError(
            f"{args.model} is a {type(backbone).__name__}, which has no text input: give a Stable Diffusion"
        )
    small = backbone.crop.resolution < 256
    steps = args.steps or (200 if small else 3000)
    # Of the embedded model as configs/trainer/token.yaml has it; of full-size ones as diffusers' script has it.
    rate, weight_decay = (5e-3, 0.0) if small else (5e-4, 1e-2)
    trainer = TrainerConfig(
        steps=steps,
        learning_rate=rate,
        weight_decay=weight_decay,
        ema=0.98,
        warmup=min(20, steps),
        decay=0.5,
        save_every=50,
        precision=_training_precision(backbone),
        seed=args.seed,
    )
    about = TokenConfig(args.emotion, args.like or args.emotion, vectors=args.vectors)
    crops = read_faces(args.pictures, backbone, detector=FaceDetector(str(backbone.device)))
    learn_token(backbone, crops, about, args.output, trainer)
    file = Path(args.output) / EMBEDDINGS
    if int(os.environ.get("RANK", "0")):  # the first process of a launch says it
        return 0
    say(f"wrote {file}: emoedit edit PHOTO --editor sd15 --model {args.model} --token {args.emotion}={file}")
    return 0


def _training_precision(backbone: Backbone) -> str:
    """Accelerate's name of the precision that the device multiplies in."""
    from emoedit.models.devices import choose_precision

    names = {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "no"}
    return names[str(choose_precision("auto", str(backbone.device)))]


def _steering(args: argparse.Namespace, backbone: Backbone) -> Any:
    from tqdm import tqdm

    from emoedit.faces.detect import FaceDetector
    from emoedit.training.fit import GAIN, fit_direction, fit_direction_of_samples, fit_shift
    from emoedit.training.tokens import read_faces

    if args.pictures is not None:
        detector = FaceDetector(str(backbone.device))
        shown, neutral = (read_faces(one, backbone, detector=detector) for one in (args.pictures, args.neutral))
        if args.kind == "shift":
            gain = GAIN if args.gain is None else args.gain
            return fit_shift(backbone, args.emotion, shown, neutral, gain=gain, seed=args.seed)
        with tqdm(total=len(shown) + len(neutral), unit="picture", disable=None) as bar:
            gain = 1.0 if args.gain is None else args.gain
            return fit_direction(backbone, args.emotion, shown, neutral, gain=gain, callback=_showing(bar))
    from emoedit.faces.networks import EmbeddedNetwork
    from emoedit.steering.wspace import write_boundary

    network = EmbeddedNetwork.load("expression", device=str(backbone.device)).network
    with tqdm(total=args.samples, unit="sample", disable=None) as bar:
        steering, normal, gain = fit_direction_of_samples(
            *(backbone, args.emotion, network),
            count=args.samples,
            seed=args.seed,
            callback=_showing(bar),
        )
    file = Path(f"{args.output}.npy")
    write_boundary(file, normal, overwrite=args.overwrite)
    say(f"wrote {file}: --boundary {args.emotion}={file}:{gain:.3g}")
    return steering


def _showing(bar: Any) -> Callable[[int, int], None]:
    """A callback that moves a progress bar."""

    def moved(done: int, _: int) -> None:
        bar.update(done - bar.n)

    return moved

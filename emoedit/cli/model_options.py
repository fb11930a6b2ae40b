"""Options of several commands for an editor's parts and its computation."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emoedit.full_size import Request

PRECISIONS = ("auto", "float32", "float16", "bfloat16", "fp32", "fp16", "bf16")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what a full-size editor is made of to ``parser``."""
    group = parser.add_argument_group("full-size models (docs/full-size.md; emoedit models lists them)")
    group.add_argument("--model", metavar="ID|FOLDER|FILE", help="weights in place of the editor's usual ones")
    for name, what, metavar in (
        ("token", "a learned token", "EMOTION=FILE"),
        ("shift", "a shift of h (Asyrp)", "EMOTION=FILE"),
        ("boundary", "a boundary in W, and how far strength 1 goes (default: 3)", "EMOTION=FILE[:GAIN]"),
    ):
        group.add_argument(
            f"--{name}",
            nargs="+",
            action="extend",
            metavar=metavar,
            help=f"{what}; or a folder of files under their published names",
        )
    group.add_argument("--layers", type=_layers, metavar="A-B", help="of W+ that boundaries may change: A to before B")
    group.add_argument(
        "--encoder", metavar="FILE", help="of e4e or pSp, for a StyleGAN2: finds a face's w+ in one pass, in seconds"
    )
    add_settings(group)


def add_compute_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how an editor computes, beside ``--device`` to ``parser``."""
    parser.add_argument(
        "--precision", choices=PRECISIONS, metavar="P", help="auto, float32, float16 or bfloat16; default: auto"
    )
    parser.add_argument(
        "--batch", type=_batch, metavar="auto|N", help="pictures drawn at once; default: auto, what suits the model"
    )
    parser.add_argument("--offload", action="store_true", help="parts of the model not at work wait on the CPU")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile: the first edit takes minutes more, each later step less time",
    )


def device(text: str) -> str:
    """The type of ``--device``.

    Args:
        text: as it was given.
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        return text
    raise argparse.ArgumentTypeError(f"expected auto, cpu, mps, cuda or cuda:N, not {text!r}")


def _layers(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected two numbers, the second larger, as in 4-8, not {text!r}")
    return int(found[1]), int(found[2])


def add_settings(group: argparse._ActionsContainer) -> None:
    """``--set``.

    Args:
        group: a parser, or a group of its options.
    """
    group.add_argument(
        "--set",
        nargs="+",
        action="extend",
        type=setting,
        default=[],
        metavar="NAME=VALUE",
        help="settings of the model: steps=20 guidance=5",
    )


def setting(text: str) -> tuple[str, Any]:
    """The type of ``--set``.

    Args:
        text: ``NAME=VALUE``.
    """
    name, found, value = text.partition("=")
    if not found or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, as in steps=20, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, {"True": True, "False": False, "None": None}.get(value, value)


def _batch(text: str) -> int | None:
    if text == "auto":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected auto or a whole number from 1 on, not {text!r}")


def editor_request(editor: str, args: argparse.Namespace | None = None) -> Request:
    """The editor that a command asks for.

    Args:
        editor: editor of ``--editor``.
        args: with the options of ``add_model_options``; None: of a command without them.

    Raises:
        UsageError: an option that is garbled.
    """
    from emoedit.full_size import Request

    if args is None or not hasattr(args, "model"):
        return Request(editor)
    return Request(
        editor,
        model=args.model,
        tokens=_parts("--token", args.token, str),
        shifts=_parts("--shift", args.shift, str),
        boundaries=_parts("--boundary", args.boundary, _with_gain),
        layers=args.layers,
        settings={**dict(args.set), **({} if args.encoder is None else {"encoder": args.encoder})},
    )


def _parts(flag: str, given: Sequence[str] | None, read: Callable[[str], Any]) -> Any:
    """Emotion -> file; or the folder, where one is given alone."""
    from emoedit.cli.common import UsageError

    if given is None:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (emotion, found, path) in zip(given, pairs, strict=True) if not (emotion and path)]:
        raise UsageError(f"{flag} takes EMOTION=FILE, or one folder; not {', '.join(wrong)}")
    return {emotion: read(path) for emotion, _, path in pairs}


def _with_gain(text: str) -> str | tuple[str, float]:
    found = re.fullmatch(r"(.+):(-?\d+(?:\.\d+)?)", text)
    return text if found is None else (found[1], float(found[2]))

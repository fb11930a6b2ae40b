"""``emoedit walk``: a face from one strength to another, as an animation or a strip."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from emoedit.cli.common import (
    CommandParser,
    UsageError,
    add_editor,
    add_overwrite,
    add_photo,
    add_seed,
    check_free,
    describe,
    load,
    say,
    usage,
)
from emoedit.types import Edit

if TYPE_CHECKING:
    from emoedit.full_size import Request

_EXAMPLES = """\
examples:
  emoedit walk me.jpg                                            writes me_happy.gif
  emoedit walk me.jpg --emotion happy --from -1 --to 1.5 --frames 16 -o walk.gif
  emoedit walk me.jpg --emotion sad -o sad.gif sad.png           an animation and a strip; the photo is analysed once
"""


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "walk",
        help="a face from one strength to another, as an animation or a strip",
        usage="emoedit walk PHOTO [--emotion NAME] [--from S] [--to S] [-o FILE ...] [options]",
        description="Edit a photo at many strengths and write an animation (.gif, .mp4) or all of them side by side "
        "(.png and other pictures).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        editors=True,
    )
    add_photo(parser, "largest", "all")
    parser.add_argument(
        "--from", type=float, default=0.0, dest="first", metavar="S", help="the first strength; default: 0, the photo"
    )
    parser.add_argument("--to", type=float, default=1.5, dest="last", metavar="S", help="the last one; default: 1.5")
    parser.add_argument("--frames", type=int, default=16, metavar="N", help="how many, both ends too; default: 16")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="T", help="from first to last; default: 2")
    parser.add_argument("--one-way", action="store_true", help="do not return; default: there and back")
    parser.add_argument(
        "--size",
        type=int,
        default=640,
        metavar="PIXELS",
        help="longest side of a frame; 0 for the photo's; default: 640",
    )
    parser.add_argument(
        "-o", "--output", nargs="+", action="extend", metavar="FILE", help="default: PHOTO_EMOTION.gif here"
    )
    add_seed(parser)
    add_editor(parser)
    add_overwrite(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command with the parsed ``args``; returns the exit status."""
    with usage():
        request, strengths, outputs = _plan(args)
    from emoedit.report.walk import check_encoder

    for output in outputs:
        check_free(output, args.overwrite)
        check_encoder(Path(output).suffix.lower())

    from tqdm import tqdm

    from emoedit.io.images import load_picture
    from emoedit.report.walk import walk

    picture = load_picture(args.photo)
    photos = load(request, args)
    opened = photos.open(picture, args.face, seed=args.seed)
    with tqdm(total=len(strengths), unit="frame", disable=None) as bar:

        def shown(_done: int, _total: int) -> None:
            bar.update()

        found = walk(
            photos,
            opened,
            args.emotion,
            strengths,
            longest=args.size or None,
            seed=args.seed,
            callback=shown,
        )
    for output in outputs:
        found.save(output, seconds=args.seconds, back=not args.one_way, overwrite=args.overwrite)
        say(f"wrote {output}")
    return 0


def _plan(args: argparse.Namespace) -> tuple[Request, list[float], list[str]]:
    """The editor, the strengths and the files, from names and numbers alone.

    Raises:
        EmoEditError: what is wrong with the command.
    """
    from emoedit.emotions import resolve
    from emoedit.io.images import output_path
    from emoedit.report.walk import check_suffix, even_strengths

    request, _, known = describe(args.editor, args)
    resolve(args.emotion, known)
    for strength in (args.first, args.last):
        Edit(args.emotion, strength)
    strengths = even_strengths(args.first, args.last, args.frames)
    if not (math.isfinite(args.seconds) and args.seconds > 0):
        raise UsageError(f"--seconds must be above 0, not {args.seconds:g}")
    if args.size != 0 and args.size < 16:
        raise UsageError(f"--size must be 0 or at least 16 pixels, not {args.size}")
    stem = Path(args.photo).stem
    face = args.face if isinstance(args.face, int) else None
    default = output_path(stem, args.emotion, many=False, face=face, suffix=".gif")
    outputs = list(dict.fromkeys(args.output or [str(default)]))
    source = os.path.realpath(os.path.expanduser(args.photo))
    taken = set()
    for output in outputs:
        check_suffix(output)
        real = os.path.realpath(os.path.expanduser(output))
        if real == source:
            raise UsageError(f"{output} is the photo; name another file")
        if real in taken:
            raise UsageError(f"{output} is named twice")
        taken.add(real)
    return request, strengths, outputs

"""``emoedit mirror``: edited pictures in response to the expression in a camera or a video."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from emoedit.cli.best import add_restore, save_best
from emoedit.cli.common import (
    CommandParser,
    UsageError,
    add_candidates,
    add_device,
    add_overwrite,
    add_seed,
    check_free,
    describe,
    say,
    usage,
)

if TYPE_CHECKING:
    from emoedit.evaluation.mirror import Reading

_EXAMPLES = """\
examples:
  emoedit mirror                              the first camera; writes mirror/: frame.png, the three best, sheet.png
  emoedit mirror --video talk.mp4 --opposite  the first 50 frames of a video, answered with the opposite emotion
  emoedit mirror --camera 1 --emotion surprised --frames 100
  emoedit mirror --draw stable-diffusion-v1-5/stable-diffusion-v1-5 --style "an abstract oil painting" \\
      --clip openai/clip-vit-large-patch14    new pictures for the emotion in place of edits of the face
"""


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "mirror",
        help="read the expression in front of a camera and answer it with pictures",
        usage="emoedit mirror [--camera N | --video FILE] [--opposite | --emotion NAME] [options]",
        description="Find the face in every frame of a camera or a video, read its expression, and write the best "
        "pictures of that face with the same emotion, the opposite one, or a named one.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--camera", type=int, default=0, metavar="N", help="which camera; default: 0")
    source.add_argument("--video", metavar="FILE", help="a video in place of a camera")
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--opposite", action="store_true", help="answer with the opposite emotion")
    answer.add_argument("--emotion", metavar="NAME", help="answer with this emotion")
    parser.add_argument("--frames", type=int, default=50, metavar="N", help="how many are read; default: 50")
    add_candidates(parser)
    drawing = parser.add_argument_group("new pictures in place of edits")
    drawing.add_argument("--draw", metavar="MODEL", help="a text-to-image model: a folder of diffusers, or owner/name")
    drawing.add_argument("--style", metavar="TEXT", help="in which style; default: an abstract oil painting")
    drawing.add_argument("--clip", metavar="MODEL", help="a CLIP that ranks them; without one the first are kept")
    drawing.add_argument("--steps", type=int, metavar="N", help="of denoising; default: the model's own")
    parser.add_argument("--output", default="mirror", metavar="FOLDER", help="default: %(default)s")
    add_restore(parser)
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status: 0 when a picture was kept, 1 when none was or something failed.

    Args:
        args: the parsed options.

    Raises:
        UsageError: options that make no sense.
    """
    from emoedit.evaluation.naming import editors_in_turn

    folder = Path(os.path.expanduser(args.output))
    with usage():
        if args.frames < 1 or args.candidates < 1 or args.keep < 1:
            raise UsageError("--frames, --candidates and --keep are at least 1")
        if args.draw is None and (args.style, args.clip, args.steps) != (None, None, None):
            raise UsageError("--style, --clip and --steps are for pictures of a text-to-image model: give --draw MODEL")
        if args.draw is not None and args.editors:
            raise UsageError("--draw draws new pictures and uses no editor: leave --editors out")
        if args.steps is not None and args.steps < 1:
            raise UsageError("--steps is at least 1")
        for name in dict.fromkeys(part for editor in args.editors or () for part in editors_in_turn(editor)):
            describe(name)
        check_free(folder, args.overwrite)

    from emoedit.evaluation.mirror import mirror
    from emoedit.io.images import load_picture, save_picture
    from emoedit.models.devices import choose_device

    device, restorer = choose_device(args.device), None
    if args.restore is not None:
        from emoedit.models.restoration import Restorer

        restorer = Restorer(args.restore, device=device)
    if args.draw is not None:
        return _draw(args, folder, device)
    options = {"editors": args.editors} if args.editors else {}
    found = mirror(
        args.camera if args.video is None else args.video,
        opposite=args.opposite,
        emotion=args.emotion,
        limit=args.frames,
        callback=_print_readings(),
        device=device,
        candidates=args.candidates,
        keep=args.keep,
        seed=args.seed,
        **options,
    )
    say(f"{found.frames} frames, {found.faceless} without a face: {found.shown}, answered with {found.answered}")
    save_picture(load_picture(found.reading.rgb).to_pil(), folder / "frame.png", overwrite=args.overwrite)
    say(f"wrote {folder / 'frame.png'}")
    save_best(found.best, folder, restorer, device=device, overwrite=args.overwrite)
    return 0 if found.best.kept else 1


def _draw(args: argparse.Namespace, folder: Path, device: str) -> int:
    """Answer with new pictures of a text-to-image model."""
    from emoedit.evaluation.generated import generate_best
    from emoedit.evaluation.mirror import observe
    from emoedit.io.images import load_picture, save_picture
    from emoedit.metrics.clip import Clip
    from emoedit.models.text_to_image import STYLE, TextToImage

    model = TextToImage.load(args.draw, device=device)  # fails before the camera starts
    clip = None if args.clip is None else Clip.from_pretrained(args.clip)
    found = observe(
        args.camera if args.video is None else args.video, limit=args.frames, callback=_print_readings(), device=device
    )
    answered = found.answer(opposite=args.opposite, emotion=args.emotion)
    say(f"{found.frames} frames, {found.faceless} without a face: {found.shown}, answered with {answered}")
    save_picture(load_picture(found.reading.rgb).to_pil(), folder / "frame.png", overwrite=args.overwrite)
    drawn = generate_best(
        model,
        answered,
        style=args.style or STYLE,
        candidates=args.candidates,
        keep=args.keep,
        seed=args.seed,
        clip=clip,
        steps=args.steps,
    )
    say(drawn.explanation)
    for path in (folder / "frame.png", *drawn.save(folder, overwrite=args.overwrite)):
        say(f"wrote {path}")
    return 0


def _print_readings() -> Callable[[Reading], None]:
    """Prints the emotion whenever it changes."""
    last: list[str] = []

    def tell(reading: Reading) -> None:
        now = "no face" if reading.face is None else f"{reading.emotion}"
        if last[-1:] != [now]:
            last.append(now)
            say(f"frame {reading.frame}: {now}")

    return tell

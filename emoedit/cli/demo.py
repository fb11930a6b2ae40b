"""``emoedit demo``: one face with every emotion, in one labelled picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from emoedit.cli.common import (
    CommandParser,
    add_editor_options,
    check_format,
    check_free,
    describe,
    edit_label,
    load,
    say,
    strengths_of,
    usage,
)
from emoedit.steering.unit_names import is_unit
from emoedit.types import Edit

if TYPE_CHECKING:
    from PIL import Image

HEAD = 2.0  # side of the demo's square in sides of the detector's box, which leaves out hair, ears and neck
COLUMNS = 4


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "demo",
        help="one face with every emotion, in one labelled picture",
        description="Edit a portrait of the astronaut Eileen Collins (NASA, public domain, from scikit-image), or a "
        "photo of yours, with every emotion the editor has, and write one labelled picture.",
        editors=True,
    )
    parser.add_argument("--photo", help="default: the astronaut")
    add_editor_options(parser)
    parser.add_argument("--output", default="demo.png", metavar="FILE", help="default: demo.png")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command with the parsed ``args``; returns the exit status."""
    with usage():
        check_format(Path(args.output))
        strengths = strengths_of(args)
        request, _, known = describe(args.editor, args)
        emotions = [name for name in known if not is_unit(name)]
        edits = [Edit(name, strength) for strength in strengths for name in emotions]
    check_free(args.output, args.overwrite)

    from tqdm import tqdm

    from emoedit.io.images import load_picture, save_picture
    from emoedit.report.grid import labelled_grid

    if args.photo is None:
        from skimage.data import astronaut

        picture = load_picture(astronaut())
    else:
        picture = load_picture(args.photo)
    photo_editor = load(request, args)
    opened = photo_editor.open(picture)
    x0, y0, x1, y1 = opened.faces[0].box
    height, width = picture.rgb.shape[:2]
    side = round(min(HEAD * max(x1 - x0, y1 - y0), width, height))
    left = round(min(max((x0 + x1 - side) / 2, 0), width - side))
    top = round(min(max((y0 + y1 - side) / 2, 0), height - side))
    head = (left, top, left + side, top + side)

    source = picture.to_pil().crop(head)
    images: list[Image.Image] = []
    labels: list[str] = []
    for result in tqdm(photo_editor.edit(opened, edits), total=len(edits), unit="edit", disable=None):
        if len(strengths) > 1 and len(images) % (len(emotions) + 1) == 0 or not images:
            images.append(source)
            labels.append("source")
        images.append(result.image.crop(head))
        labels.append(edit_label(result.edit))
    columns = COLUMNS if len(strengths) == 1 else len(emotions) + 1  # a row a strength
    save_picture(labelled_grid(images, labels, columns=columns), args.output, overwrite=args.overwrite)
    say(f"wrote {args.output}")
    return 0

"""``emoedit inspect``: metadata of pictures: size, depth, the mark of an edit, content credentials."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from emoedit.cli.common import CommandParser, add_input_options, printable, say, write
from emoedit.types import EmoEditError, MissingExtraError


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "inspect",
        help="what pictures say of how they were made",
        description="Size, depth, IPTC digital source type and content credentials (C2PA) of pictures. Credentials are "
        "checked: 'Valid' means that the file is as it was signed, not that the signer is to be trusted.",
    )
    parser.add_argument("photos", nargs="+", metavar="FILE", help="pictures")
    parser.add_argument("--json", action="store_true", help="one JSON object a picture")
    add_input_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command with the parsed ``args``; returns the exit status."""
    failed = False
    for photo in args.photos:
        try:
            found = inspect(Path(photo).expanduser(), args.max_pixels, args.frame)
        except EmoEditError as error:
            say(f"emoedit: error: {error}")
            failed = True
            continue
        write(json.dumps(found) if args.json else "\n".join(_lines(found)))
    return 1 if failed else 0


def inspect(path: Path, max_pixels: int, frame: int | None = None) -> dict[str, Any]:
    """The metadata of a picture.

    Args:
        path: path of the picture.
        max_pixels: see ``load_picture``.
        frame: see ``load_picture``.

    Raises:
        ImageError: it cannot be read.
    """
    from emoedit.io.images import load_picture
    from emoedit.io.metadata import read_source_type
    from emoedit.io.provenance import read_credentials

    picture = load_picture(path, max_pixels=max_pixels, frame=frame)
    height, width = picture.rgb.shape[:2]
    found: dict[str, Any] = {
        "photo": printable(str(path)),
        "width": width,
        "height": height,
        "depth": "8 bits" if picture.deep is None else "16 bits" if picture.deep.values.itemsize == 2 else "floats",
        "source_type": read_source_type(picture.metadata.xmp),
    }
    try:
        found["credentials"] = read_credentials(path)
    except MissingExtraError as error:
        found["credentials"] = str(error)
    return found


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['photo']}: {found['width']} x {found['height']}, {found['depth']}"]
    lines.append(f"  digital source type  {found['source_type'] or 'not stated'}")
    credentials = found["credentials"]
    if not isinstance(credentials, dict):
        return [*lines, f"  content credentials  {printable(credentials) if credentials else 'none'}"]
    problems = f" ({', '.join(credentials['problems'])})" if credentials["problems"] else ""
    lines.append(f"  content credentials  {credentials['state']}{problems}, signed by {credentials['issuer']}")
    lines += [f"    {each['action']}  {each['source'] or ''}".rstrip() for each in credentials["actions"]]
    for each in credentials["ingredients"]:
        own = "with credentials of its own" if each["credentials"] else "without credentials"
        lines.append(f"    made from {each['title']}, {own}")
    return [printable(line) for line in lines]

"""``emoedit recognise``: the expressions of faces in photographs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from emoedit.cli.common import CommandParser, printable, say, write
from emoedit.cli.lists import table
from emoedit.types import EmoEditError


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "recognise",
        aliases=["recognize"],
        help="what the faces of photographs show",
        description="The probability of each basic emotion for every face, by the embedded recogniser, and valence and "
        "arousal (-1 to 1, the emotions' own values weighted by their probabilities). What a face shows is not what a "
        "person feels.",
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="pictures")
    parser.add_argument("--json", action="store_true", help="as JSON, one object a face")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status: 1 where a photograph cannot be read or shows no face.

    Args:
        args: the parsed options.
    """
    from emoedit.faces.detect import FaceDetector
    from emoedit.faces.networks import EmbeddedNetwork
    from emoedit.io.images import load_picture

    detector, recogniser = FaceDetector(), EmbeddedNetwork.load("expression")
    rows: list[dict[str, Any]] = []
    failed = False
    for photo in dict.fromkeys(args.photos):
        try:
            rgb = load_picture(photo).rgb
            faces = detector.choose(rgb, "all")
        except EmoEditError as error:
            text = str(error)
            say(f"emoedit: error: {text if photo in text else f'{photo}: {text}'}")
            failed = True
            continue
        for number, face in enumerate(faces):
            scores = recogniser.scores(recogniser.faces(rgb, face)[None])[0].tolist()
            rows.append(_row(printable(photo), number, face.box, dict(zip(recogniser.emotions, scores, strict=True))))
    if args.json:
        write(json.dumps(rows, indent=2))
    elif rows:
        write(
            table(("photo", "face", "shows", *rows[0]["scores"], "valence", "arousal"), [_cells(row) for row in rows])
        )
    return int(failed)


def _row(photo: str, number: int, box: tuple[float, ...], scores: dict[str, float]) -> dict[str, Any]:
    from emoedit.emotions import place

    named = {name: score for name, score in scores.items() if not name.startswith("other:")}
    valence, arousal = place(named)
    return {
        "photo": photo,
        "face": number,
        "box": [round(float(value), 1) for value in box],
        "shows": max(scores, key=scores.__getitem__).removeprefix("other:"),
        "scores": {name.removeprefix("other:"): round(score, 4) for name, score in scores.items()},
        "valence": round(valence, 3),
        "arousal": round(arousal, 3),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    numbers = (f"{score:.2f}" for score in row["scores"].values())
    return (row["photo"], str(row["face"]), row["shows"], *numbers, f"{row['valence']:+.2f}", f"{row['arousal']:+.2f}")

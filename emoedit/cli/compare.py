"""``emoedit compare`` and ``emoedit evaluate``: editors measured beside each other, on one photograph and on many."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from emoedit.cli.common import (
    CommandParser,
    UsageError,
    add_device,
    add_face,
    add_seed,
    check_free,
    describe,
    say,
    usage,
)
from emoedit.types import Edit

if TYPE_CHECKING:
    from emoedit.metrics.suite import Suite

COMPARISON = ("results.jsonl", "grid.png", "report.html")  # what emoedit.compare writes, whose import takes torch


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the commands and their options to ``commands``."""
    compare = commands.add_parser(
        "compare",
        help="editors side by side on one photograph, measured",
        description="Every emotion with every editor at every strength, beside reference rows, with numbers under each "
        "picture: results.jsonl, grid.png and report.html in the output folder.",
        editors=True,
    )
    compare.add_argument("photo", metavar="PHOTO")
    _add_comparison_options(compare, strengths="0.5,1")
    compare.add_argument(
        "--truth",
        nargs="+",
        action="extend",
        default=[],
        metavar="EMOTION=PHOTO",
        help="photographs of the same person really showing an emotion",
    )
    add_face(compare, "largest")
    compare.add_argument("--overwrite", action="store_true", help="replace results that exist")
    compare.set_defaults(run=_compare)

    evaluate = commands.add_parser(
        "evaluate",
        help="editors on a data set, with intervals over people",
        description="Every photograph with every editor, emotion and strength; summary.csv, pareto.svg and report.html "
        "in the output folder. A run that was stopped goes on when the same command is given again.",
        editors=True,
    )
    evaluate.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="pictures; or neutral/ and smiling/ with the same names; or labels.csv (image, emotion, person)",
    )
    _add_comparison_options(evaluate, strengths="0.5,1,1.5")
    evaluate.add_argument("--split", metavar="NAME", help="only rows of this split, where a csv says so")
    evaluate.add_argument("--retry", action="store_true", help="try again what failed in an earlier run")
    evaluate.add_argument("--limit", type=_count, metavar="N", help="only the first N photographs")
    evaluate.add_argument("--reader", metavar="NAME", help="a registered data reader that reads --data")
    evaluate.set_defaults(run=_evaluate)


def _add_comparison_options(parser: argparse.ArgumentParser, *, strengths: str) -> None:
    parser.add_argument(
        "--emotions",
        type=_words_of,
        default=["happy", "sad", "angry", "surprised"],
        metavar="A,B",
        help="names or algebra on names; default: happy,sad,angry,surprised",
    )
    parser.add_argument(
        "--editors",
        type=_words_of,
        default=["all"],
        metavar="A,B",
        help="embedded editors (listed below) or folders, or all, the default: every embedded one",
    )
    parser.add_argument(
        "--strengths", type=_numbers_of, default=_numbers_of(strengths), metavar="S,T", help=f"default: {strengths}"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--stage",
        choices=("photo", "crop"),
        default="photo",
        help="photo, the default: edits as they are put into photographs; crop: what the models themselves change",
    )
    parser.add_argument("--no-references", dest="references", action="store_false", help="only the editors")
    add_seed(parser)
    parser.add_argument(
        "--identity",
        choices=("auto", "embedded", "vggface2"),
        default="auto",
        help="network for identity; default: auto, VGGFace2 where its weights are on disk",
    )
    parser.add_argument(
        "--perceptual",
        choices=("auto", "embedded", "lpips-alex", "lpips-vgg", "lpips-squeeze"),
        default="auto",
        help="perceptual distance; default: auto, LPIPS where its trunk is on disk",
    )
    parser.add_argument(
        "--expression", default="embedded", metavar="NAME", help="embedded, or a transformers image classifier"
    )
    add_device(parser)


def _words_of(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, not {text!r}")
    return words


def _numbers_of(text: str) -> list[float]:
    try:
        return [float(word) + 0.0 for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between them, not {text!r}") from None


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {text!r}")


def _checked_editors(args: argparse.Namespace) -> list[str]:
    """The editors, every name checked without loading a weight.

    Raises:
        UnknownNameError: an editor, emotion or strength that makes no sense.
        EditError: an editor, emotion or strength that makes no sense.
        CheckpointError: an editor, emotion or strength that makes no sense.
    """
    from emoedit.emotions import resolve
    from emoedit.io import checkpoints

    editors = list(checkpoints.editor_names() if args.editors == ["all"] else dict.fromkeys(args.editors))
    edits = [Edit(name, strength) for name in args.emotions for strength in args.strengths]
    for editor in editors:
        _, _, known = describe(editor)
        for edit in edits:
            resolve(edit.emotion, known)
    return editors


def _suite(args: argparse.Namespace) -> Suite:
    from emoedit.editors import choose_device
    from emoedit.metrics.suite import Suite

    how = {"identity": args.identity, "perceptual": args.perceptual, "expression": args.expression}
    return Suite(**how, device=choose_device(args.device))


def _compare(args: argparse.Namespace) -> int:
    with usage():
        editors = _checked_editors(args)
        truth = {}
        for pair in args.truth:
            emotion, found, photo = pair.partition("=")
            if not found or emotion not in args.emotions:
                raise UsageError(f"--truth takes EMOTION=PHOTO with one of the --emotions, not {pair!r}")
            truth[emotion] = photo
    for name in COMPARISON:
        check_free(Path(args.output, name), args.overwrite)
    from emoedit.evaluation.compare import compare

    result = compare(
        args.photo,
        args.emotions,
        editors=editors,
        strengths=args.strengths,
        truth=truth,
        references=args.references,
        face=args.face,
        seed=args.seed,
        suite=_suite(args),
        device=args.device,
        stage=args.stage,
    )
    folder = result.save(args.output, overwrite=args.overwrite)
    failures = [row for row in result.rows if row["error"] is not None]
    for row in failures:
        say(f"emoedit: error: {row['editor']} {row['emotion']} {row['strength']:g}: {row['error']}")
    say(f"wrote {folder / 'report.html'}")
    return 1 if failures else 0


def _evaluate(args: argparse.Namespace) -> int:
    with usage():
        editors = _checked_editors(args)
    from emoedit.evaluation.cases import read_cases
    from emoedit.evaluation.evaluate import evaluate

    result = evaluate(
        read_cases(args.data, split=args.split, reader=args.reader)[: args.limit],
        args.emotions,
        editors=editors,
        strengths=args.strengths,
        output=args.output,
        references=args.references,
        seed=args.seed,
        retry=args.retry,
        suite=_suite(args),
        device=args.device,
        stage=args.stage,
    )
    for photo, error in {row["photo"]: row["error"] for row in result.errors}.items():
        say(f"emoedit: error: {photo}: {error}")
    say(f"wrote {Path(args.output) / 'report.html'}")
    return 1 if result.errors else 0

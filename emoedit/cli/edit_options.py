"""Options of ``emoedit edit`` beside names of emotions: units, points, the expression of another photo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emoedit.cli.common import UsageError, say
from emoedit.registry import DEFAULT_EDITOR

if TYPE_CHECKING:
    from emoedit.photo import OpenPhoto, PhotoEdit, PhotoEditor


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--au``, ``--valence``, ``--arousal``, ``--like``, ``--only`` and ``--neutral-first`` to ``parser``."""
    parser.add_argument(
        "--au",
        nargs="+",
        action="extend",
        metavar="UNIT=X",
        help="action units (12=.8 is AU12 at 0.8; -1 to 1.5), by the editor facs where --editor names no other; given "
        "with --emotion, they are added to each",
    )
    parser.add_argument("--valence", type=float, metavar="V", help="unpleasant to pleasant, -1 to 1, with --arousal")
    parser.add_argument("--arousal", type=float, metavar="A", help="sleepy to activated, -1 to 1, with --valence")
    parser.add_argument("--like", metavar="PICTURE", help="the expression of another photo, read as emotions or units")
    parser.add_argument("--like-face", type=int, metavar="N", help="which face of that photo, where it shows several")
    parser.add_argument(
        "--only", nargs="+", choices=("brows", "eyes", "mouth"), help="edit these parts of the face and leave the rest"
    )
    parser.add_argument("--neutral-first", action="store_true", help="make the face neutral, and edit that")
    parser.set_defaults(units=None)


def editor_name(args: argparse.Namespace) -> str:
    """The requested editor; action units have their own.

    Args:
        args: the parsed options.
    """
    return str(args.editor or ("facs" if args.au else DEFAULT_EDITOR))


def requested_emotions(args: argparse.Namespace, known: Sequence[str]) -> dict[str, str]:
    """Every emotion that is asked for, each once, and what files call it.

    Args:
        args: with the options of [add_edit_options][emoedit.cli.edit_options.add_edit_options] and ``--emotion``.
        known: the names that the editor knows.

    Raises:
        UsageError: one of valence and arousal without the other.
        EmoEditError: units that do not exist or contradict each other; another photo that cannot be read.
    """
    names = list(args.emotion or [])
    if (args.valence is None) != (args.arousal is None):
        raise UsageError("--valence and --arousal are given together: they are the two sides of one point")
    if args.valence is not None:
        names.append(f"va({args.valence:g}, {args.arousal:g})")
    labels = {name: name for name in names}
    if args.like is not None:
        from emoedit.evaluation.reference import expression_of

        found = expression_of(args.like, known, face=args.like_face)
        say(f"{args.like} shows {found}")
        labels[found] = f"like_{Path(args.like).stem}"
    if args.au:
        from emoedit.steering.unit_names import unit_algebra

        units = unit_algebra(args.au)
        added = units if units.startswith("-") else f"+ {units}"
        if "AU12" in known:
            labels = {f"{name} {added}": f"{label}{added}" for name, label in labels.items()} or {units: units}
        elif labels:  # the model draws the emotion, and its picture's landmarks move
            labels = {name: f"{label}{added}" for name, label in labels.items()}
            args.units = units
        else:
            raise UsageError(
                f"{args.editor} supports no action units: name the --emotion that it draws before them, or no --editor"
            )
    return labels or {"happy": "happy"}


def prepare_photo(photo_editor: PhotoEditor, opened: OpenPhoto, args: argparse.Namespace) -> OpenPhoto:
    """The photo to edit: with its faces made neutral, where that is asked for.

    Args:
        photo_editor: that opened it.
        opened: the photo.
        args: the parsed options.
    """
    if not args.neutral_first:
        return opened
    from emoedit.parts import neutral_first

    return neutral_first(photo_editor, opened, seed=args.seed)


def finish_edit(result: PhotoEdit, opened: OpenPhoto, args: argparse.Namespace) -> PhotoEdit:
    """The result: with units added to it and of some parts of the face alone, where that is asked for.

    Args:
        result: result of the editor.
        opened: the photo before the edit.
        args: the parsed options.
    """
    from emoedit.parts import add_units, keep_only

    if args.units:
        result = add_units(result, args.units, device=str(args.device), seed=args.seed)
    return keep_only(result, opened, args.only) if args.only else result

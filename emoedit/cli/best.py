"""``emoedit best``: many edits of one photo, ranked."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from emoedit.cli.common import (
    CommandParser,
    UsageError,
    add_candidates,
    add_device,
    add_overwrite,
    add_photo,
    add_seed,
    check_free,
    describe,
    say,
    usage,
    write,
)

if TYPE_CHECKING:
    from emoedit.evaluation.best import Best
    from emoedit.models.restoration import Restorer

_EXAMPLES = """\
examples:
  emoedit best me.jpg --emotion sad                  writes me_sad_best/: the three best, sheet.png, candidates.json
  emoedit best me.jpg --candidates 24 --keep 1 --editors stylegan asyrp facs asyrp+facs
  emoedit best me.jpg --emotion angry --min-identity 0.8 --json -

exit status: 0 when a candidate was kept, 1 when none reached the floors (candidates.json says why) or something failed
"""


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "best",
        help="try many edits of a photo and keep the best",
        usage="emoedit best PHOTO [--emotion NAME] [--candidates N] [--keep K] [--editors NAME ...] [options]",
        description="Edit a photo with several editors, each as strongly as a floor of the identity allows, "
        "rank the results by target score x identity x realism, and keep the best.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        editors=True,
    )
    add_photo(parser, "largest")
    add_candidates(parser)
    parser.add_argument(
        "--strength", nargs="+", type=float, metavar="S", help="for every editor; default: found by the identity"
    )
    parser.add_argument(
        "--min-identity",
        type=float,
        metavar="X",
        help="floor of the identity; default: what one edit of the default editor keeps",
    )
    parser.add_argument("--min-target", type=float, metavar="X", help="floor of the target score; default: 0.15")
    parser.add_argument("--min-realism", type=float, metavar="X", help="floor of the realism; default: 0.5")
    parser.add_argument("--output", metavar="FOLDER", help="default: PHOTO_EMOTION_best here")
    parser.add_argument("--json", metavar="FILE", help="write the report there too; - for standard output")
    add_restore(parser)
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)
    parser.set_defaults(run=run)


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Adds ``--restore`` to ``parser``."""
    parser.add_argument(
        "--restore",
        metavar="FILE",
        help="also write what is kept restored or enlarged by this model (Real-ESRGAN, say); it alters people, and how "
        "much is printed",
    )


def save_best(found: Best, folder: Path, restorer: Restorer | None, *, device: str, overwrite: bool) -> None:
    """Write and report the result, and the identity before and after restoration.

    Args:
        found: result of the search.
        folder: the folder to write.
        restorer: None where nothing is restored.
        device: device of the networks.
        overwrite: whether files that exist are replaced.
    """
    for path in found.save(folder, overwrite=overwrite):
        say(f"wrote {path}")
    for rank, candidate in enumerate(found.kept, 1):
        if restorer is None or candidate.image is None:
            continue
        from emoedit.io.images import save_picture
        from emoedit.models.restoration import identity_kept

        restored = restorer(candidate.image)
        path = folder / f"{rank}_{candidate.editor}_{candidate.strength:.2f}_restored.png"
        save_picture(restored, path, overwrite=overwrite)
        before, after = identity_kept(found.source, [candidate.image, restored], found.face, device=device)
        say(f"wrote {path}; identity before {before:.3f}, after {after:.3f}")
    say(found.explanation)


def _plan(args: argparse.Namespace) -> tuple[list[str], Path]:
    """Editors and folder, from names alone."""
    from emoedit.emotions import resolve
    from emoedit.evaluation.naming import QUICK_EDITORS, editors_in_turn
    from emoedit.io.output import output_path

    if args.candidates < 1 or args.keep < 1:
        raise UsageError("--candidates and --keep are at least 1")
    editors = list(dict.fromkeys(args.editors or QUICK_EDITORS))
    for name in dict.fromkeys(part for editor in editors for part in editors_in_turn(editor)):
        resolve(args.emotion, describe(name)[2])
    if args.output:
        return editors, Path(os.path.expanduser(args.output))
    return editors, output_path(Path(args.photo).stem, args.emotion, many=False, suffix="_best")


def run(args: argparse.Namespace) -> int:
    """Runs the command with the parsed ``args``; returns the exit status."""
    with usage():
        editors, folder = _plan(args)
    if args.json not in (None, "-"):
        check_free(args.json, args.overwrite)
    check_free(folder, args.overwrite)

    from tqdm import tqdm

    from emoedit.evaluation.best import Floors, best
    from emoedit.io.images import write_json
    from emoedit.models.devices import choose_device

    device, restorer = choose_device(args.device), None
    if args.restore is not None:
        from emoedit.models.restoration import Restorer

        restorer = Restorer(args.restore, device=device)
    given = {"identity": args.min_identity, "target_score": args.min_target, "realism": args.min_realism}
    with tqdm(total=args.candidates, unit="candidate", disable=None) as bar:

        def moved(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        found = best(
            args.photo,
            args.emotion,
            candidates=args.candidates,
            keep=args.keep,
            editors=editors,
            strengths=args.strength,
            face=args.face,
            seed=args.seed,
            device=device,
            progress=moved,
            floors=Floors(**{name: value for name, value in given.items() if value is not None}),
        )
    save_best(found, folder, restorer, device=device, overwrite=args.overwrite)
    if args.json == "-":
        write(json.dumps(found.to_dict(), indent=2))
    elif args.json is not None:
        write_json(args.json, found.to_dict(), overwrite=args.overwrite)
    return 0 if found.kept else 1

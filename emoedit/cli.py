"""The command line: ``emoedit edit me.jpg --emotion happy sad``.

A thin layer over :mod:`emoedit.photo`. What can be refused without a model (a name, a strength, a file that is in the
way) is refused before torch is imported. Standard output carries what was asked for (a table, ``--json -``) and nothing
else; messages go to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoedit import __version__
from emoedit.types import CheckpointError, Edit, EditError, EmoEditError, OutputError, UnknownNameError

if TYPE_CHECKING:
    from emoedit.faces.detect import Face
    from emoedit.metrics.suite import Suite
    from emoedit.photo import PhotoEditor

HEAD = 2.0  # side of the demo's square in sides of the detector's box, which leaves out hair, ears and neck
DEMO_COLUMNS = 4
COMPARISON = ("results.jsonl", "grid.png", "report.html")  # what emoedit.compare writes, whose import takes torch

_EXAMPLES = """\
examples:
  emoedit edit me.jpg                                       writes me_happy.png
  emoedit edit me.jpg --emotion happy sad --strength 0.5 1  writes four pictures; the photo is analysed once
  emoedit edit *.jpg --emotion "happy - 0.4*surprised" --output edited/
  emoedit edit me.jpg --emotion=-sad                        what starts with a minus and a letter needs the =

exit status: 0 when every edit was written, 1 when something failed, 2 when the command makes no sense, 130 after Ctrl-C
"""


class _UsageError(EmoEditError):
    """The command makes no sense; found before any work was done."""


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except (UnknownNameError, EditError, OutputError) as error:
        raise _UsageError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0 all done, 1 something failed, 2 a command that makes no sense, 130 interrupted.

    Raises:
        SystemExit: from argparse, after ``--help`` and ``--version`` (0) and on arguments that do not parse (2); and
            when standard output was closed by its reader (1).
    """
    args = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return args.run(args)
    except EmoEditError as error:
        _say(f"emoedit: error: {error}")
        return 2 if isinstance(error, _UsageError) else 1
    except KeyboardInterrupt:
        _say("emoedit: interrupted")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emoedit", description="Change the emotion a face shows in a photograph.")
    parser.add_argument("--version", action="version", version=f"emoedit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    edit = commands.add_parser(
        "edit",
        help="edit photographs",
        usage="emoedit edit PHOTO [PHOTO ...] [--emotion NAME ...] [--strength S ...] [options]",
        description="Every emotion at every strength, for every photo.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    edit.add_argument("photos", nargs="*", metavar="PHOTO", help="pictures; they come before --emotion and --strength")
    edit.add_argument(
        "--emotion",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="names (see: emoedit emotions) or algebra on names, such as 'happy - 0.4*surprised'; default: happy",
    )
    _add_common(edit)
    edit.add_argument(
        "--face",
        type=_face,
        default="largest",
        metavar="largest|all|N",
        help="which to edit; N counts by size, 0 is the largest; default: largest",
    )
    edit.add_argument(
        "--output",
        metavar="PATH",
        help="a folder, or the file of a single result, whose suffix names the format; default: PHOTO_EMOTION.png here",
    )
    edit.add_argument("--json", metavar="FILE", help="write a report, one object an edit; - for standard output")
    edit.add_argument("--seed", type=_seed, default=0, metavar="N", help="for editors that draw noise; default: 0")
    edit.add_argument(
        "--mode",
        choices=("warp", "residual", "replace"),  # emoedit.faces.paste.MODES, whose import takes OpenCV with it
        default="warp",
        help="put the change back by moving the photo's own pixels (warp), as light added to them (residual), or as "
        "the model's picture in their place (replace); default: warp",
    )
    edit.set_defaults(run=_edit)

    compare = commands.add_parser(
        "compare",
        help="editors side by side on one photograph, measured",
        description="Every emotion with every editor at every strength, beside reference rows, with numbers under each "
        "picture: results.jsonl, grid.png and report.html in the output folder.",
    )
    compare.add_argument("photo", metavar="PHOTO")
    _add_contest(compare, strengths="0.5,1")
    compare.add_argument(
        "--truth",
        nargs="+",
        action="extend",
        default=[],
        metavar="EMOTION=PHOTO",
        help="photographs of the same person really showing an emotion",
    )
    compare.add_argument("--face", type=_index, default="largest", metavar="largest|N", help="which; default: largest")
    compare.add_argument("--overwrite", action="store_true", help="replace results that exist")
    compare.set_defaults(run=_compare)

    evaluate = commands.add_parser(
        "evaluate",
        help="editors on a data set, with intervals over people",
        description="Every photograph with every editor, emotion and strength; summary.csv, pareto.svg and report.html "
        "in the output folder. A run that was stopped goes on when the same command is given again.",
    )
    evaluate.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="pictures; or neutral/ and smiling/ with the same names; or labels.csv (image, emotion, person)",
    )
    _add_contest(evaluate, strengths="0.5,1,1.5")
    evaluate.add_argument("--split", metavar="NAME", help="only rows of this split, where a csv says so")
    evaluate.add_argument("--limit", type=_count, metavar="N", help="only the first N photographs")
    evaluate.set_defaults(run=_evaluate)

    demo = commands.add_parser(
        "demo",
        help="one face with every emotion, in one labelled picture",
        description="Edit a portrait of the astronaut Eileen Collins (NASA, public domain, from scikit-image), or a "
        "photo of yours, with every emotion the editor has, and write one labelled picture.",
    )
    demo.add_argument("--photo", help="default: the astronaut")
    _add_common(demo)
    demo.add_argument("--output", default="demo.png", metavar="FILE", help="default: demo.png")
    demo.set_defaults(run=_demo)

    models = commands.add_parser("models", help="the models there are")
    models.add_argument("--json", action="store_true", help="as JSON, sizes in bytes")
    models.set_defaults(run=_models)

    emotions = commands.add_parser("emotions", help="the names of emotions, and what each is mixed from")
    emotions.set_defaults(run=_emotions)
    return parser


def _add_contest(parser: argparse.ArgumentParser, *, strengths: str) -> None:
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
        help="names (see: emoedit models) or folders, or all, the default",
    )
    parser.add_argument(
        "--strengths", type=_numbers_of, default=_numbers_of(strengths), metavar="S,T", help=f"default: {strengths}"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--no-references", dest="references", action="store_false", help="only the editors")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="for editors that draw noise; default: 0")
    parser.add_argument(
        "--identity",
        choices=("auto", "embedded", "vggface2"),
        default="auto",
        help="who judges identity; default: auto, VGGFace2 where its weights are on disk",
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
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")


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


def _index(text: str) -> str | int:
    if text == "largest" or text.isdecimal():
        return int(text) if text.isdecimal() else text
    raise argparse.ArgumentTypeError(f"expected 'largest' or a number from 0 on, not {text!r}")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strength",
        nargs="+",
        action="extend",
        type=float,
        metavar="S",
        help="0 is the photo itself, 1 the fitted effect; more, less and negative are allowed; default: 1",
    )
    parser.add_argument(
        "--editor",
        default="vae",
        metavar="NAME",
        help="a name (see: emoedit models), a folder, or OWNER/NAME on the hub; default: vae",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _face(text: str) -> str | int:
    if text in ("largest", "all"):
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"expected 'largest', 'all' or a number from 0 on, not {text!r}")


def _seed(text: str) -> int:
    if text.isdecimal() and int(text) < 2**63:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^63 - 1, not {text!r}")


# --- edit -----------------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One edit of one photo, and what became of it: an error, or what the report says of the result."""

    photo: str
    edit: Edit
    output: Path
    error: str | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.photo} ({_words(self.edit)})"


@contextmanager
def _failing(jobs: Sequence[_Job], about: object = None) -> Iterator[None]:
    """An expected error inside is the failure of these edits and of no other: it is told once, and kept."""
    try:
        yield
    except EmoEditError as error:
        _say(f"emoedit: error: {error}" if about is None else f"emoedit: error: {about}: {error}")
        for job in jobs:
            job.error = str(error)


def _alive(jobs: Sequence[_Job]) -> list[_Job]:
    return [job for job in jobs if job.error is None]


def _edit(args: argparse.Namespace) -> int:
    with _usage():
        folder, editor, jobs = _plan(args)
    if args.json not in (None, "-"):
        _check_free(args.json, args.overwrite)
    for job in jobs:
        with _failing([job]):
            _check_free(job.output, args.overwrite)
    _edit_photos(jobs, folder, args)
    report = [_record(job, editor, args) for job in jobs]
    if args.json == "-":
        _print(json.dumps(report, indent=2))  # in ASCII: standard output need not be UTF-8
    elif args.json is not None:
        from emoedit.pictures import write_json

        write_json(args.json, report, overwrite=args.overwrite)
    return 0 if len(_alive(jobs)) == len(jobs) else 1


def _plan(args: argparse.Namespace) -> tuple[Path, str, list[_Job]]:
    """The editor's folder and name, and every edit with its file, from names alone.

    Raises:
        EmoEditError: what is wrong with the command as a whole.
    """
    from emoedit.emotions import resolve
    from emoedit.pictures import output_path

    order = "photos come before --emotion and --strength, which take all that follows them"
    photos = list(dict.fromkeys(args.photos))
    if not photos:
        raise _UsageError(f"no photo given; {order}")
    edits = [Edit(name, s) for name in dict.fromkeys(args.emotion or ["happy"]) for s in _strengths(args)]
    folder, editor, known = _describe(args.editor)
    for edit in edits:
        try:
            resolve(edit.emotion, known)
        except EmoEditError as error:
            if os.path.isfile(edit.emotion):
                raise _UsageError(f"{edit.emotion!r} is a file, not an emotion; {order}") from error
            raise

    face = args.face if isinstance(args.face, int) else None
    many = len(photos) * len(edits) > 1
    sources = {_real(photo): photo for photo in photos}
    taken: dict[str, str] = {}
    if args.json not in (None, "-"):
        if _real(args.json) in sources:
            raise _UsageError(f"the report {args.json} is one of the photos; name another file")
        taken[_real(args.json)] = "the report"
    jobs = []
    for photo in photos:
        for edit in edits:
            stem, strength = Path(photo).stem, edit.strength
            path = output_path(stem, edit.emotion, strength=strength, output=args.output, many=many, face=face)
            _check_format(path)
            job, real = _Job(photo, edit, path), _real(path)
            if real in taken:
                raise _UsageError(f"{path} would be both {taken[real]} and {job}; run one command for each")
            if sources.get(real, photo) != photo:  # a photo may give way to its own result, but not before it is read
                raise _UsageError(f"{path}, for {job}, is another of the photos; name another --output")
            taken[real] = str(job)
            jobs.append(job)
    return folder, editor, jobs


def _edit_photos(jobs: Sequence[_Job], folder: Path, args: argparse.Namespace) -> None:
    """Do every edit that has not failed yet: one inversion a photo, one file an edit."""
    from tqdm import tqdm

    from emoedit.pictures import load_picture

    groups: dict[str, list[_Job]] = {}
    for job in _alive(jobs):
        groups.setdefault(job.photo, []).append(job)
    for photo, group in groups.items():
        path = os.path.expanduser(photo)
        if not os.path.exists(path) or os.path.isdir(path):
            with _failing(group):
                load_picture(photo)  # says why, before a model is loaded for nothing
    if not _alive(jobs):
        return
    with _failing(_alive(jobs)):
        photo_editor = _load(folder, args.device, mode=args.mode)

    with tqdm(total=len(_alive(jobs)), unit="edit", disable=None) as bar:
        for photo, group in groups.items():
            if not _alive(group):
                continue
            with _failing(group):
                picture = load_picture(photo)
            if _alive(group):
                with _failing(group, photo):
                    opened = photo_editor.open(picture, args.face, seed=args.seed)
            if not _alive(group):
                bar.update(len(group))
                continue
            results = photo_editor.attempt(opened, [job.edit for job in group], seed=args.seed)
            for job, result in zip(group, results, strict=True):
                with _failing([job], job if isinstance(result, EmoEditError) else None):
                    if isinstance(result, EmoEditError):
                        raise result
                    result.save(job.output, overwrite=args.overwrite)
                    job.report = {"seconds": round(result.seconds, 3), "face": list(map(_found, result.faces))}
                    _say(f"wrote {job.output}")
                bar.update()


def _record(job: _Job, editor: str, args: argparse.Namespace) -> dict[str, Any]:
    """What the report says of an edit; ``output`` is null where nothing was written."""
    record = {
        "photo": job.photo,
        "emotion": job.edit.emotion,
        "strength": job.edit.strength,
        "editor": editor,
        "model": args.editor,
        "seed": args.seed,
        "seconds": None,
        "face": [],
        **job.report,
        "output": None if job.error else str(job.output),
        "error": job.error,
    }
    return {key: _unicode(value) if isinstance(value, str) else value for key, value in record.items()}


def _found(face: Face) -> dict[str, Any]:
    """A face in pixels of the photo, to the hundredth."""
    return {
        "box": [round(float(v), 2) for v in face.box],
        "landmarks": [[round(float(v), 2) for v in point] for point in face.landmarks],
        "confidence": round(float(face.confidence), 6),
    }


# --- compare, evaluate ----------------------------------------------------------------------------------------------


def _contest(args: argparse.Namespace) -> list[str]:
    """The editors, every name checked without loading a weight.

    Raises:
        UnknownNameError, EditError, CheckpointError: an editor, emotion or strength that makes no sense.
    """
    from emoedit import hub
    from emoedit.emotions import resolve

    references = hub.reference_names()
    embedded = [name for name in hub.embedded_names() if name not in references]  # list_editors, without torch
    editors = embedded if args.editors == ["all"] else list(dict.fromkeys(args.editors))
    edits = [Edit(name, strength) for name in args.emotions for strength in args.strengths]
    for editor in editors:
        _, _, known = _describe(editor)
        for edit in edits:
            resolve(edit.emotion, known)
    return editors


def _suite(args: argparse.Namespace) -> Suite:
    from emoedit.editors import choose_device
    from emoedit.metrics.suite import Suite

    how = {"identity": args.identity, "perceptual": args.perceptual, "expression": args.expression}
    return Suite(**how, device=choose_device(args.device))


def _compare(args: argparse.Namespace) -> int:
    with _usage():
        editors = _contest(args)
        truth = {}
        for pair in args.truth:
            emotion, found, photo = pair.partition("=")
            if not found or emotion not in args.emotions:
                raise _UsageError(f"--truth takes EMOTION=PHOTO with one of the --emotions, not {pair!r}")
            truth[emotion] = photo
    for name in COMPARISON:
        _check_free(Path(args.output, name), args.overwrite)
    from emoedit.comparison import compare

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
        progress=True,
    )
    folder = result.save(args.output, overwrite=args.overwrite)
    failures = [row for row in result.rows if row["error"] is not None]
    for row in failures:
        _say(f"emoedit: error: {row['editor']} {row['emotion']} {row['strength']:g}: {row['error']}")
    _say(f"wrote {folder / 'report.html'}")
    return 1 if failures else 0


def _evaluate(args: argparse.Namespace) -> int:
    with _usage():
        editors = _contest(args)
    from emoedit.evaluation import evaluate

    result = evaluate(
        args.data,
        args.emotions,
        editors=editors,
        strengths=args.strengths,
        output=args.output,
        split=args.split,
        limit=args.limit,
        references=args.references,
        seed=args.seed,
        suite=_suite(args),
        device=args.device,
    )
    for photo, error in dict((row["photo"], row["error"]) for row in result.errors).items():
        _say(f"emoedit: error: {photo}: {error}")
    _say(f"wrote {Path(args.output) / 'report.html'}")
    return 1 if result.errors else 0


# --- demo -----------------------------------------------------------------------------------------------------------


def _demo(args: argparse.Namespace) -> int:
    with _usage():
        _check_format(Path(args.output))
        strengths = _strengths(args)
        folder, _, emotions = _describe(args.editor)
        edits = [Edit(name, strength) for strength in strengths for name in emotions]
    _check_free(args.output, args.overwrite)

    from tqdm import tqdm

    from emoedit.pictures import load_picture, save_picture
    from emoedit.report.grid import labelled_grid

    if args.photo is None:
        from skimage.data import astronaut

        picture = load_picture(astronaut())
    else:
        picture = load_picture(args.photo)
    photo_editor = _load(folder, args.device)
    opened = photo_editor.open(picture)
    x0, y0, x1, y1 = opened.faces[0].box
    height, width = picture.rgb.shape[:2]
    side = round(min(HEAD * max(x1 - x0, y1 - y0), width, height))
    left = round(min(max((x0 + x1 - side) / 2, 0), width - side))
    top = round(min(max((y0 + y1 - side) / 2, 0), height - side))
    head = (left, top, left + side, top + side)

    source = picture.to_pil().crop(head)
    images, labels = [], []
    for result in tqdm(photo_editor.edit(opened, edits), total=len(edits), unit="edit", disable=None):
        if len(strengths) > 1 and len(images) % (len(emotions) + 1) == 0 or not images:
            images.append(source)
            labels.append("source")
        images.append(result.image.crop(head))
        labels.append(_words(result.edit))
    columns = DEMO_COLUMNS if len(strengths) == 1 else len(emotions) + 1  # a row a strength
    save_picture(labelled_grid(images, labels, columns=columns), args.output, overwrite=args.overwrite)
    _say(f"wrote {args.output}")
    return 0


# --- models, emotions -----------------------------------------------------------------------------------------------


def _models(args: argparse.Namespace) -> int:
    from emoedit.hub import list_models

    models = list_models()
    if args.json:
        _print(json.dumps([asdict(model) for model in models], indent=2))
    else:
        rows = [(m.name, m.role, _size(m.size), m.licence, "yes" if m.here else "no", m.source) for m in models]
        _print(_table(("name", "role", "size", "licence", "here", "source"), rows))
    return 0


def _emotions(args: argparse.Namespace) -> int:
    from emoedit.emotions import get, list_emotions

    rows = [(name, _sum(get(name).mixture), ", ".join(get(name).aliases)) for name in list_emotions()]
    _print(_table(("name", "mixture", "also called"), rows))
    return 0


# --- what several commands need -------------------------------------------------------------------------------------


def _strengths(args: argparse.Namespace) -> list[float]:
    return list(dict.fromkeys(strength + 0.0 for strength in args.strength or [1.0]))  # adding 0 makes -0 a plain 0


def _describe(editor: str) -> tuple[Path, str, list[str]]:
    """Folder, name and emotions of an editor, without its weights.

    Raises:
        UnknownNameError, CheckpointError: no such editor; a folder that is none.
    """
    from emoedit import hub
    from emoedit.registry import EDITORS

    if "/" not in editor and editor not in (*hub.embedded_names(), *EDITORS.names()) and not os.path.isdir(editor):
        EDITORS.get(editor)  # raises with the nearest names
    folder = hub.locate(editor)
    description = hub.read_json(folder / hub.EDITOR)
    try:
        return folder, str(description["name"]), [str(name) for name in description["emotions"]]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / hub.EDITOR} lacks or garbles an entry: {error}") from error


def _load(folder: Path, device: str, **options: Any) -> PhotoEditor:
    from emoedit.editors import load_editor
    from emoedit.photo import PhotoEditor

    return PhotoEditor(load_editor(folder, device=device), **options)


def _real(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(os.path.expanduser(path))


def _check_format(path: Path) -> None:
    from emoedit.pictures import SUFFIXES

    if path.suffix.lower() not in SUFFIXES:
        endings = ", ".join(SUFFIXES)
        raise OutputError(f"{path}: the name of a picture ends in one of {endings}; that of a new folder, in /")


def _check_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    if os.path.lexists(os.path.expanduser(path)) and not overwrite:
        raise OutputError(f"{path} exists already; --overwrite replaces it")


def _unicode(text: str) -> str:
    """File names may hold bytes that are not UTF-8, for which Python has characters that cannot be written."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _words(edit: Edit) -> str:
    return edit.emotion if edit.strength == 1 else f"{edit.emotion} {edit.strength:g}"


def _sum(weights: Mapping[str, float]) -> str:
    terms = (f"{'-' if weight < 0 else '+'} {abs(weight):.3g} {name}" for name, weight in weights.items())
    return " ".join(terms).removeprefix("+ ") or "basic"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(map(str.rstrip, padded))


def _print(text: str) -> None:
    """To standard output, all of it, now."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails again when it exits
        if isinstance(error, BrokenPipeError):  # the reader has enough, as `head` does
            raise SystemExit(1) from None
        raise OutputError(f"standard output cannot be written: {error.strerror or error}") from error


def _say(text: str) -> None:
    """To standard error, above a progress bar where there is one."""
    from tqdm import tqdm

    tqdm.write(_unicode(text), file=sys.stderr)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    _say(f"emoedit: warning: {message}")

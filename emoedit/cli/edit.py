"""``emoedit edit``: photographs, every emotion at every strength."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoedit.cli.common import (
    CommandParser,
    UsageError,
    add_editor_options,
    add_face,
    add_input_options,
    add_seed,
    check_format,
    check_free,
    describe,
    edit_label,
    load,
    printable,
    say,
    strengths_of,
    usage,
    write,
)
from emoedit.cli.edit_options import add_edit_options, editor_name, finish_edit, prepare_photo, requested_emotions
from emoedit.registry import COMPOSITORS
from emoedit.types import Edit, EmoEditError

if TYPE_CHECKING:
    from emoedit.faces.detect import Face
    from emoedit.full_size import Request

_EXAMPLES = """\
examples:
  emoedit edit me.jpg                                       writes me_happy.jpg
  emoedit edit me.jpg --emotion happy sad --strength 0.5 1  writes four pictures; the photo is analysed once
  emoedit edit photos/ --emotion "happy - 0.4*surprised" --output edited/ --format png
  emoedit edit me.jpg --au 12=.8 6=.5                       action units; 12L is the person's own left half
  emoedit edit me.jpg --valence .7 --arousal .4             any shade between the named emotions
  emoedit edit me.jpg --like friend.jpg --only mouth        the mouth of another photo
  emoedit edit me.jpg --emotion=-sad                        what starts with a minus and a letter needs the =

exit status: 0 when every edit was written, 1 when something failed, 2 when the command makes no sense, 130 after Ctrl-C
"""


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "edit",
        help="edit photographs",
        usage="emoedit edit PHOTO [PHOTO ...] [--emotion NAME ...] [--strength S ...] [options]",
        description="Every emotion at every strength, for every photo.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        editors=True,
    )
    parser.add_argument(
        "photos", nargs="*", metavar="PHOTO", help="pictures, or folders of them; before --emotion and --strength"
    )
    parser.add_argument(
        "--emotion",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="names (see: emoedit emotions) or algebra on names, such as 'happy - 0.4*surprised'; default: happy",
    )
    add_edit_options(parser)
    add_editor_options(parser)
    add_face(parser, "largest", "all")
    _add_results(parser)
    add_seed(parser)
    parser.add_argument(
        "--min-identity",
        type=_floor,
        metavar="X",
        help="weaken each edit until this much of the person is kept, 0 to 1 (0.8, say)",
    )
    parser.add_argument(
        "--compositor",
        choices=COMPOSITORS.names(),
        help="how changes are put into the photo: with mouths drawn between the photo's own lips (drawn), as the "
        "model's change in colour (rgb), as a reference moves pixels (moved), or as the model's picture in its place "
        "(replace); default: what suits the editor",
    )
    add_input_options(parser)
    _add_marks(parser)
    parser.set_defaults(run=run, editor=None)


def _add_results(parser: argparse.ArgumentParser) -> None:
    """Where results go, and in which form."""
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="a folder, in which results lie as photos lie in a folder that was named; or the file of a single result, "
        "whose suffix names the format; default: PHOTO_EMOTION here, in the photo's own format",
    )
    parser.add_argument(
        "--format",
        type=_format,
        metavar="png|jpg|webp|tif",
        help="of the results; default: each photo's own, JPEG where it is none of these",
    )
    parser.add_argument(
        "--quality", type=_quality, default=95, metavar="N", help="of JPEG and WebP, 1 to 100; default: 95"
    )
    parser.add_argument("--json", metavar="FILE", help="write a report, one object an edit; - for standard output")


def _add_marks(parser: argparse.ArgumentParser) -> None:
    """Options for marks in the results."""
    parser.add_argument(
        "--no-mark",
        dest="mark",
        action="store_false",
        help="do not say in the picture's XMP that a model drew parts of it (IPTC DigitalSourceType)",
    )
    parser.add_argument(
        "--credentials",
        nargs=2,
        metavar=("CERT", "KEY"),
        help="sign content credentials (C2PA) into each picture: a certificate chain and a key, both PEM",
    )


def _format(text: str) -> str:
    suffix = f".{text.lower().removeprefix('.')}"
    if suffix in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"):  # emoedit.io.output.SUFFIXES, which needs Pillow
        return suffix
    raise argparse.ArgumentTypeError(f"expected png, jpg, webp or tif, not {text!r}")


def _quality(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 100:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 100, not {text!r}")


def _floor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, not {text!r}")
    return value


@dataclass
class _Job:
    """One edit of one photo, and its outcome: an error, or the result's entry in the report."""

    photo: str
    edit: Edit
    output: Path
    error: str | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.photo} ({edit_label(self.edit)})"


@contextmanager
def _failing(jobs: Sequence[_Job], about: object = None) -> Iterator[None]:
    """Record an expected error inside as the failure of these edits alone; report it once."""
    try:
        yield
    except EmoEditError as error:
        say(f"emoedit: error: {error}" if about is None else f"emoedit: error: {about}: {error}")
        for job in jobs:
            job.error = str(error)


def _alive(jobs: Sequence[_Job]) -> list[_Job]:
    return [job for job in jobs if job.error is None]


def run(args: argparse.Namespace) -> int:
    """Runs the command with the parsed ``args``; returns the exit status."""
    args.editor = editor_name(args)
    with usage():
        request, editor, jobs = _plan(args)
        if args.credentials is not None:
            from emoedit.io.provenance import Signer

            Signer(*map(Path, args.credentials)).check()
    if args.json not in (None, "-"):
        check_free(args.json, args.overwrite)
    for job in jobs:
        with _failing([job]):
            check_free(job.output, args.overwrite)
    _edit_photos(jobs, request, args)
    report = [_record(job, editor, args) for job in jobs]
    if args.json == "-":
        write(json.dumps(report, indent=2))  # in ASCII: standard output need not be UTF-8
    elif args.json is not None:
        from emoedit.io.images import write_json

        write_json(args.json, report, overwrite=args.overwrite)
    return 0 if len(_alive(jobs)) == len(jobs) else 1


def _plan(args: argparse.Namespace) -> tuple[Request, str, list[_Job]]:
    """The editor and its name, and every edit with its file, from names alone.

    Raises:
        EmoEditError: what is wrong with the command as a whole.
    """
    from emoedit.emotions import resolve
    from emoedit.io.output import output_path

    order = "photos come before --emotion and --strength, which take all that follows them"
    found = _find_photos(args.photos, args.output)
    photos = [photo.path for photo in found]
    if not photos:
        raise UsageError(f"no photo given; {order}")
    request, editor, known = describe(args.editor, args)
    _refuse_emotions(photos, known)
    labels = requested_emotions(args, known)
    edits = [Edit(name, s) for name in labels for s in strengths_of(args)]
    for edit in edits:
        try:
            resolve(edit.emotion, known)
        except EmoEditError as error:
            if os.path.isfile(edit.emotion):
                raise UsageError(f"{edit.emotion!r} is a file, not an emotion; {order}") from error
            raise UsageError(f"editor {editor}: {error}") from error

    face = args.face if isinstance(args.face, int) else None
    many = len(photos) * len(edits) > 1 or any(os.path.isdir(os.path.expanduser(named)) for named in args.photos)
    sources = {_real(photo): photo for photo in photos}
    taken: dict[str, str] = {}
    if args.json not in (None, "-"):
        if _real(args.json) in sources:
            raise UsageError(f"the report {args.json} is one of the photos; name another file")
        taken[_real(args.json)] = "the report"
    jobs = []
    for where in found:
        photo = where.path
        for edit in edits:
            how = {"strength": edit.strength, "output": args.output, "many": many, "face": face}
            path = output_path(where.stem, labels[edit.emotion], suffix=_suffix(photo, args.format), **how)
            path = path.parent / where.under / path.name
            check_format(path)
            if args.format is not None and path.suffix.lower() != args.format:
                raise UsageError(f"{path} is no {args.format} file; leave out --format, or name a folder with --output")
            job, real = _Job(photo, edit, path), _real(path)
            if real in taken:
                raise UsageError(f"{path} would be both {taken[real]} and {job}; run one command for each")
            if sources.get(real, photo) != photo:  # a photo may give way to its own result, but not before it is read
                raise UsageError(f"{path}, for {job}, is another of the photos; name another --output")
            taken[real] = str(job)
            jobs.append(job)
    return request, editor, jobs


def _signing(job: _Job, args: argparse.Namespace) -> Callable[[bytes | memoryview, str], bytes] | None:
    """What signs the file of an edit, where credentials are asked for."""
    if args.credentials is None:
        return None
    from emoedit.io.provenance import Signer, sign

    signer, source = Signer(*map(Path, args.credentials)), Path(job.photo).expanduser().read_bytes()
    return lambda data, kind: sign(
        data, kind, signer, source, job.output.name, f"emotion edited: {edit_label(job.edit)}"
    )


@dataclass(frozen=True)
class _Found:
    """A photo of the command line, named itself or by its folder.

    Args:
        path: path of the photo.
        stem: what its results are named after.
        under: folders of the results, below the one of all results: those that the photo has below the named one.
    """

    path: str
    stem: str
    under: Path = Path()


def _find_photos(named: Sequence[str], output: str | None) -> list[_Found]:
    """Each photo once: those that were named, and those in folders that were, but not in the folder for results."""
    from emoedit.io.output import distinct_stems

    named = list(dict.fromkeys(named))
    folders = [name for name in named if os.path.isdir(os.path.expanduser(name))]
    alone = [name for name in named if name not in folders]
    found = [_Found(path, stem) for path, stem in zip(alone, distinct_stems(alone), strict=True)]
    seen = {_real(path) for path in alone}
    for folder in folders:
        top = Path(folder).expanduser()
        for path in _pictures(folder, output):
            under = Path(path).parent.relative_to(top) if path != folder else Path()
            if len(named) > 1:
                under = Path(top.resolve().name) / under
            if _real(path) not in seen:
                seen.add(_real(path))
                found.append(_Found(path, Path(path).stem, under))
    return found


def _suffix(photo: str, chosen: str | None) -> str:
    """The format of a result: the one that was asked for, else the photo's own where it can be written, else JPEG."""
    from emoedit.io.output import SUFFIXES

    own = Path(photo).suffix.lower()
    return chosen or (own if own in SUFFIXES else ".jpg")


def _pictures(named: str, output: str | None) -> list[str]:
    """A photo, or those in a folder of that name but not in the folder for results."""
    from emoedit.io.folders import find_pictures

    if not os.path.isdir(os.path.expanduser(named)):
        return [named]
    results = None if output is None else Path(_real(output))
    found = [path for path in find_pictures(named) if results not in Path(_real(path)).parents]
    return [str(path) for path in found] or [named]  # reading a folder says what is wrong with it


def _refuse_emotions(photos: Sequence[str], known: Sequence[str]) -> None:
    """Explain the mistake where an emotion stands among the photos, as in ``emoedit edit me.jpg happy``.

    Raises:
        UsageError: a photo that is not there has the name of an emotion that the editor knows.
    """
    from emoedit.emotions import resolve

    meant = []
    for photo in photos:
        if not os.path.lexists(os.path.expanduser(photo)):
            with suppress(EmoEditError):
                resolve(photo, known)
                meant.append(photo)
    if meant:
        others = [shlex.quote(photo) for photo in photos if photo not in meant] or ["PHOTO"]
        words = " ".join(map(shlex.quote, meant))
        raise UsageError(
            f"{words} is an emotion, not a photo; write: emoedit edit {' '.join(others)} --emotion {words}"
        )


def _edit_photos(jobs: Sequence[_Job], request: Request, args: argparse.Namespace) -> None:
    """Do every edit that has not failed yet: one inversion a photo, one file an edit."""
    from tqdm import tqdm

    from emoedit.io.images import load_picture, save_picture

    groups: dict[str, list[_Job]] = {}
    for job in _alive(jobs):
        groups.setdefault(job.photo, []).append(job)
    for photo, group in groups.items():
        path = os.path.expanduser(photo)
        if not os.path.exists(path) or os.path.isdir(path):
            with _failing(group):
                load_picture(photo)  # fails before a model is loaded
    if not _alive(jobs):
        return
    with _failing(_alive(jobs)):
        photo_editor = load(request, args, compositor=args.compositor)
        if args.min_identity is not None:
            from emoedit.guard import IdentityGuard

            guard = IdentityGuard(photo_editor, args.min_identity)

    with tqdm(total=len(_alive(jobs)), unit="edit", disable=None) as bar:
        for photo, group in groups.items():
            if not _alive(group):
                continue
            with _failing(group):
                picture = load_picture(photo, max_pixels=args.max_pixels, frame=args.frame)
            if _alive(group):
                with _failing(group, photo):
                    opened = photo_editor.open(picture, args.face, seed=args.seed)
                    opened = prepare_photo(photo_editor, opened, args)
                    edits = [job.edit for job in group]
                    if args.min_identity is not None:
                        edits = guard.limit(opened, edits, seed=args.seed)
            if not _alive(group):
                bar.update(len(group))
                continue
            results = photo_editor.attempt(opened, edits, seed=args.seed)
            for job, used, result in zip(group, edits, results, strict=True):
                with _failing([job], job if isinstance(result, EmoEditError) else None):
                    if isinstance(result, EmoEditError):
                        raise result
                    result = finish_edit(result, opened, args)
                    signed = _signing(job, args)
                    how = {"overwrite": args.overwrite, "quality": args.quality, "mark": args.mark, "signed": signed}
                    save_picture(result.image, job.output, **how)
                    if used.strength != job.edit.strength:
                        say(f"{job}: strength {used.strength:g} keeps {args.min_identity:g} of the person")
                    job.report = {"strength": used.strength}
                    job.report |= {"seconds": round(result.seconds, 3), "face": list(map(_found, result.faces))}
                    say(f"wrote {job.output}")
                bar.update()


def _record(job: _Job, editor: str, args: argparse.Namespace) -> dict[str, Any]:
    """The report's entry of an edit; ``output`` is null where nothing was written."""
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
    return {key: printable(value) if isinstance(value, str) else value for key, value in record.items()}


def _found(face: Face) -> dict[str, Any]:
    """A face in pixels of the photo, to the hundredth."""
    return {
        "box": [round(float(v), 2) for v in face.box],
        "landmarks": [[round(float(v), 2) for v in point] for point in face.landmarks],
        "confidence": round(float(face.confidence), 6),
    }


def _real(path: str | os.PathLike[str]) -> str:
    try:
        return os.path.realpath(os.path.expanduser(path))
    except ValueError as error:  # a NUL in it
        raise UsageError(f"{os.fspath(path)!r} is no path: {error}") from error

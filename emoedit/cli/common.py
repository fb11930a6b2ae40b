"""What several commands share: options, refusals, an editor's description without its weights, messages."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from emoedit.cli.model_options import add_compute_options, add_model_options, device, editor_request
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import DataError, Edit, EditError, EmoEditError, OutputError, UnknownNameError

if TYPE_CHECKING:
    from emoedit.full_size import Request
    from emoedit.photo import PhotoEditor


class UsageError(EmoEditError):
    """The command is invalid; raised before any work is done."""


@contextmanager
def usage() -> Iterator[None]:
    """Turn errors about names, numbers and paths inside into usage errors.

    Raises:
        UsageError: one of these errors was raised inside.
    """
    try:
        yield
    except (UnknownNameError, EditError, OutputError, DataError) as error:
        raise UsageError(str(error)) from error


# --- arguments ------------------------------------------------------------------------------------------------------


class CommandParser(argparse.ArgumentParser):
    """A command's parser.

    Args:
        editors: whether its help ends with the embedded editors, which are read only when help is asked for.
    """

    def __init__(self, *args: Any, editors: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._editors = editors

    def format_help(self) -> str:
        """See ``argparse.ArgumentParser``.

        Raises:
            CheckpointError: the description of an embedded editor is damaged.
        """
        text = super().format_help()
        if not self._editors:
            return text
        from emoedit.io import checkpoints

        roles = {
            name: str(
                checkpoints.read_json(checkpoints.embedded_root() / name / checkpoints.EDITOR).get("role", "editor")
            )
            for name in checkpoints.editor_names()
        }
        width = max(map(len, roles), default=0)
        lines = [f"  {name:{width}}  {role}\n" for name, role in roles.items()] or ["  none\n"]
        from emoedit.registry import EDITORS

        registered = "".join(f"  {name}\n" for name in EDITORS.names())
        return f"{text}\nembedded editors:\n{''.join(lines)}\nregistered editors:\n{registered}"


def add_editor_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of commands that edit with one editor to ``parser``."""
    parser.add_argument(
        "--strength",
        nargs="+",
        action="extend",
        type=float,
        metavar="S",
        help="0 is the photo itself, 1 the fitted effect; more, less and negative are allowed; default: 1",
    )
    add_editor(parser)
    add_overwrite(parser)


def add_editor(parser: argparse.ArgumentParser) -> None:
    """``--editor``, and what it is made of and computes on.

    Args:
        parser: parser of a command, to which the options are added.
    """
    parser.add_argument(
        "--editor",
        default=DEFAULT_EDITOR,
        metavar="NAME",
        help="an embedded or registered editor (see below), a full-size one (sd15, celebahq, ...), a folder or file of "
        f"a model, or OWNER/NAME on the hub; default: {DEFAULT_EDITOR}",
    )
    add_model_options(parser)
    add_device(parser)
    add_compute_options(parser)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """``--overwrite``.

    Args:
        parser: parser of a command, to which the options are added.
    """
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def add_photo(parser: argparse.ArgumentParser, *faces: str) -> None:
    """One photograph, one emotion, and which face.

    Args:
        parser: parser of the command.
        *faces: words for ``--face``; the first is the default.
    """
    parser.add_argument("photo", metavar="PHOTO", help="a picture")
    parser.add_argument("--emotion", default="happy", metavar="NAME", help="a name or algebra on names; default: happy")
    add_face(parser, *faces)


def add_face(parser: argparse.ArgumentParser, *faces: str) -> None:
    """``--face``: one of some words, of which the first is the default, or a number.

    Args:
        parser: parser of a command, to which the options are added.
        *faces: words for ``--face``; the first is the default.
    """
    parser.add_argument(
        "--face",
        type=face_type(*faces),
        default=faces[0],
        metavar="|".join([*faces, "N"]),
        help=f"which; N counts by size, 0 is the largest; default: {faces[0]}",
    )


def add_candidates(parser: argparse.ArgumentParser) -> None:
    """How many candidates are tried and kept, and by which editors.

    Args:
        parser: parser of a command, to which the options are added.
    """
    parser.add_argument("--candidates", type=int, default=12, metavar="N", help="how many are tried; default: 12")
    parser.add_argument("--keep", type=int, default=3, metavar="K", help="how many are kept, at most; default: 3")
    parser.add_argument(
        "--editors",
        nargs="+",
        metavar="NAME",
        help="A+B: B edits the result of A; default: the quick ones: stylegan facs vae stylegan+facs",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device`` to ``parser``."""
    parser.add_argument(
        "--device",
        type=device,
        default="auto",
        metavar="auto|cpu|mps|cuda[:N]",
        help="default: auto, CUDA where there is one, else MPS, else the CPU",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Adds ``--seed`` to ``parser``."""
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="for editors that draw noise; default: 0")


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--max-pixels`` and ``--frame`` to ``parser``."""
    parser.add_argument(
        "--max-pixels",
        type=_count,
        default=250_000_000,  # emoedit.io.images.MAX_PIXELS, whose import takes NumPy with it
        metavar="N",
        help="refuse larger pictures before they are decoded; default: 250,000,000",
    )
    parser.add_argument(
        "--frame", type=_index, metavar="N", help="of an animation or a TIFF of several pages: which, from 0 on"
    )


def _count(text: str) -> int:
    digits = text.replace(",", "").replace("_", "")
    if digits.isdecimal() and 0 < int(digits) < 2**40:
        return int(digits)
    raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")


def _index(text: str) -> int:
    if text.isdecimal() and int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, not {text!r}")


def _seed(text: str) -> int:
    if text.isdecimal() and int(text) < 2**63:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^63 - 1, not {text!r}")


def face_type(*words: str) -> Callable[[str], str | int]:
    """The type of ``--face``: one of the words, or a number."""

    def face(text: str) -> str | int:
        if text in words:
            return text
        if text.isdecimal():
            return int(text)
        raise argparse.ArgumentTypeError(f"expected {', '.join(map(repr, words))} or a number from 0 on, not {text!r}")

    return face


def strengths_of(args: argparse.Namespace) -> list[float]:
    """What ``--strength`` asks for, each once.

    Args:
        args: the parsed options.
    """
    return list(dict.fromkeys(strength + 0.0 for strength in args.strength or [1.0]))  # adding 0 makes -0 a plain 0


# --- editors --------------------------------------------------------------------------------------------------------


def describe(editor: str, args: argparse.Namespace | None = None) -> tuple[Request, str, list[str]]:
    """An editor, its name and its emotions, without its weights.

    Args:
        editor: a name, a folder, a file, or ``owner/name`` on the hub.
        args: with the options that say what it is made of.

    Raises:
        UnknownNameError: no such editor.
        CheckpointError: a folder that is none.
        EditError: parts or settings that it does not take.
    """
    request = editor_request(editor, args)
    found = request.resolved()
    return request, found.name, list(found.emotions)


def load(request: Request, args: argparse.Namespace, **options: Any) -> PhotoEditor:
    """The photo editor that a command asks for; options are its own.

    Args:
        request: the editor.
        args: the parsed options, with ``--device``, ``--precision``, ``--batch``, ``--offload`` and ``--compile``.
        **options: options of ``PhotoEditor``.
    """
    from emoedit.models.devices import choose_device
    from emoedit.models.devices import describe as described
    from emoedit.photo import PhotoEditor

    how = {"precision": args.precision, "offload": args.offload, "compile": args.compile}
    editor = request.load(choose_device(args.device), **how)
    editor.batch = args.batch
    if editor.backbone.source is not None:
        say(f"{editor.name} computes on {described(editor.device)}")
    return PhotoEditor(editor, **options)


# --- files ----------------------------------------------------------------------------------------------------------


def check_format(path: Path) -> None:
    """Check that a path names a picture.

    Args:
        path: path of a result.

    Raises:
        OutputError: the suffix is not that of a picture format.
    """
    from emoedit.io.images import SUFFIXES

    if path.suffix.lower() not in SUFFIXES:
        endings = ", ".join(SUFFIXES)
        raise OutputError(f"{path}: the name of a picture ends in one of {endings}; that of a new folder, in /")


def check_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Check that a path can be written.

    Args:
        path: path of a result.
        overwrite: whether a file that exists is replaced.

    Raises:
        OutputError: it exists, and ``overwrite`` is not set.
    """
    if os.path.lexists(os.path.expanduser(path)) and not overwrite:
        raise OutputError(f"{path} exists already; --overwrite replaces it")


# --- messages -------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """File names may hold bytes that are not UTF-8, for which Python has characters that cannot be written.

    Args:
        text: for a terminal.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def edit_label(edit: Edit) -> str:
    """An edit in a few words.

    Args:
        edit: the edit.
    """
    return edit.emotion if edit.strength == 1 else f"{edit.emotion} {edit.strength:g}"


def write(text: str) -> None:
    """To standard output, all of it, now.

    Args:
        text: one line or more.

    Raises:
        OutputError: standard output cannot be written.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails again when it exits
        if isinstance(error, BrokenPipeError):  # the reader closed the pipe, as `head` does
            raise SystemExit(1) from None
        raise OutputError(f"standard output cannot be written: {error.strerror or error}") from error


def say(text: str) -> None:
    """To standard error, above a progress bar where there is one.

    Args:
        text: one line or more.
    """
    from tqdm import tqdm

    tqdm.write(printable(text), file=sys.stderr)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """For ``warnings.showwarning``; where the warning comes from is not shown.

    Args:
        message: the warning.
        category: ignored, as all below.
        filename: ignored.
        lineno: ignored.
        file: ignored.
        line: ignored.
    """
    say(f"emoedit: warning: {message}")

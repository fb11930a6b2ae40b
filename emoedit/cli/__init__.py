"""The command line: ``emoedit edit me.jpg --emotion happy sad``.

A thin layer over :mod:`emoedit.photo`. What can be refused without a model (a name, a strength, a file that is in the
way) is refused before torch is imported. Standard output carries what was asked for (a table, ``--json -``) and nothing
else; messages go to standard error. One module a command; :mod:`emoedit.cli.common` is what they share.
"""

from __future__ import annotations

import argparse
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from emoedit import __version__
from emoedit.cli import app, best, compare, demo, edit, experiments, fit, inspect, lists, mirror, recognise, walk
from emoedit.cli.common import CommandParser, UsageError, say, show_warning
from emoedit.types import EmoEditError


class _Terminated(BaseException):
    """SIGTERM was received; commands do not handle this error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0 all done, 1 something failed, 2 a command that makes no sense, 130 interrupted, 143 ended by
        SIGTERM.

    Raises:
        SystemExit: from argparse, after ``--help`` and ``--version`` (0) and on arguments that do not parse (2); and
            when standard output was closed by its reader (1).
    """
    try:
        args = make_parser().parse_args(argv)
        with warnings.catch_warnings(), _sigterm_as_exception():
            warnings.showwarning = show_warning
            return args.run(args)
    except EmoEditError as error:
        say(f"emoedit: error: {error}")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        say("emoedit: interrupted")
        return 130
    except _Terminated:
        say("emoedit: terminated")
        return 128 + signal.SIGTERM


@contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that temporary files are removed; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def make_parser() -> argparse.ArgumentParser:
    """All commands; what :func:`main` runs is the parsed ``run``."""
    parser = argparse.ArgumentParser(prog="emoedit", description="Change the emotion a face shows in a photograph.")
    parser.add_argument("--version", action="version", version=f"emoedit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=CommandParser)
    for module in (edit, best, mirror, walk, recognise, compare, app, inspect, demo, fit, lists, experiments):
        module.add(commands)
    return parser

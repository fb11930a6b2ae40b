"""``emoedit sweep``, ``report``, ``reproduce`` and ``train``: the experiments, from an installation as from a checkout.

Each is a script of the folder ``experiments``, which the wheel holds as it holds ``configs``; the script reads its own
arguments, Hydra's. The process becomes the script's, so that signals, ``torchrun`` and schedulers reach it, and
launchers find it as a file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from emoedit.cli.common import CommandParser, UsageError
from emoedit.types import CheckpointError, MissingExtraError

NOT_AN_OPTION = "\0"  # a prefix that no argument has, so that all of them are handed on


def folder() -> Path:
    """The folder of the scripts: inside the installed package, or beside it in a checkout.

    Raises:
        CheckpointError: it is not there.
    """
    package = Path(__file__).resolve().parents[1]
    found = next((path for path in (package / "experiments", package.parent / "experiments") if path.is_dir()), None)
    if found is None:
        raise CheckpointError(f"the experiments are not in {package}: install the package again")
    return found


def scripts(kind: str) -> dict[str, Path]:
    """What can be reproduced or trained: name -> script.

    Args:
        kind: ``"train"``, which is fitting, too; or ``"reproduce"``, which is every other study.
    """
    found = {}
    for path in sorted(folder().glob("*.py")):
        first, _, rest = path.stem.partition("_")
        trains = first in ("train", "fit")
        if trains == (kind == "train") and path.stem not in ("sweep", "report", "example"):
            found[rest if trains or first == "reproduce" else path.stem] = path
    return found


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """The commands; what stands after their names is the scripts' own.

    Args:
        commands: subparsers of ``emoedit``.
    """
    told = "arguments are Hydra's: NAME=VALUE, -m, --config-dir DIR for configs of your own, --help for what there is"
    for name, text in (
        ("sweep", "editors, emotions and strengths over a data set, on one machine or many"),
        ("report", "the jobs of a sweep as tables, plots and a page"),
    ):
        parser = commands.add_parser(name, help=text, add_help=False, prefix_chars=NOT_AN_OPTION)
        parser.add_argument("arguments", nargs="*", help=told)
        parser.set_defaults(run=run, script=name)
    for kind, text in (("reproduce", "a published study again"), ("train", "a model of this package again")):
        parser = commands.add_parser(kind, help=text, add_help=False, prefix_chars=NOT_AN_OPTION)
        parser.add_argument("arguments", nargs="*", metavar="NAME", help=f"which, and then: {told}")
        parser.set_defaults(run=run, script=kind)


def run(args: argparse.Namespace) -> int:
    """Replace this process by the script where the system can; else return the script's exit status.

    Args:
        args: the parsed options.

    Raises:
        UsageError: no such experiment.
        MissingExtraError: Hydra is not installed.
    """
    script, arguments = args.script, list(args.arguments)
    path = folder() / f"{script}.py"
    if script in ("reproduce", "train"):
        known = scripts(script)
        if not arguments or arguments[0].replace("-", "_") not in known:
            what = (
                f"not {arguments[0]!r}" if arguments and not arguments[0].startswith("-") else "and then its arguments"
            )
            raise UsageError(f"emoedit {script} takes one of {', '.join(sorted(known))}, {what}")
        path = known[arguments.pop(0).replace("-", "_")]
    if script != "report":
        _need_hydra()
    package = Path(__file__).resolve().parents[2]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return start([sys.executable, str(path), *arguments], environment)


def start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Replace this process by a program; on Windows, run it as a child process.

    Args:
        command: the program's path and its arguments.
        environment: its variables.

    Returns:
        The exit status, on Windows; elsewhere this function does not return.
    """
    if os.name == "nt":
        return subprocess.call(list(command), env=dict(environment))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], list(command), dict(environment))


def _need_hydra() -> None:
    from importlib.util import find_spec

    if find_spec("hydra") is None:
        raise MissingExtraError("hydra-core", "sweeps")

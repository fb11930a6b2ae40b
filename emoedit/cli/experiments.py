"""``emoedit sweep``, ``report``, ``reproduce`` and ``train``: the experiments, from an installation as from a checkout.

Each is a script of the folder ``experiments``, which the wheel holds as it holds ``configs``; the script reads its own
arguments, Hydra's. It runs in a process of its own, so that launchers and ``accelerate`` find it as a file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
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


def names(kind: str) -> list[str]:
    """What can be reproduced or trained.

    Args:
        kind: ``"reproduce"`` or ``"train"``.
    """
    return sorted(path.stem.removeprefix(f"{kind}_") for path in folder().glob(f"{kind}_*.py"))


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """The commands; what stands after their names is the scripts' own."""
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
    """The exit status of the script.

    Raises:
        UsageError: no such experiment.
        MissingExtraError: Hydra is not installed.
    """
    script, arguments = args.script, list(args.arguments)
    if script in ("reproduce", "train"):
        known = names(script)
        if not arguments or arguments[0].replace("-", "_") not in known:
            what = (
                f"not {arguments[0]!r}" if arguments and not arguments[0].startswith("-") else "and then its arguments"
            )
            raise UsageError(f"emoedit {script} takes one of {', '.join(known)}, {what}")
        script = f"{script}_{arguments.pop(0).replace('-', '_')}"
    if script != "report":
        _need_hydra()
    package = Path(__file__).resolve().parents[2]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.call([sys.executable, str(folder() / f"{script}.py"), *arguments], env=environment)


def _need_hydra() -> None:
    from importlib.util import find_spec

    if find_spec("hydra") is None:
        raise MissingExtraError("hydra-core", "sweeps")

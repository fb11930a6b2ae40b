"""``emoedit models``, ``emoedit emotions`` and ``emoedit metrics``: tables of what is available."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from emoedit.cli.common import CommandParser, describe, usage, write
from emoedit.types import UnknownNameError


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the commands and their options to ``commands``."""
    models = commands.add_parser("models", help="the models there are")
    models.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="of names: 'sd*'; default: all")
    models.add_argument("--json", action="store_true", help="as JSON, sizes in bytes")
    models.set_defaults(run=_models)

    emotions = commands.add_parser("emotions", help="the names of emotions, and what each is mixed from")
    emotions.add_argument(
        "--editor", metavar="NAME", help="only those that this editor can show, and how: what it has learned, or a sum"
    )
    emotions.set_defaults(run=_emotions)

    metrics = commands.add_parser("metrics", help="what is measured of an edit: units, direction, meaning")
    metrics.set_defaults(run=_metrics)


def _models(args: argparse.Namespace) -> int:
    from emoedit.emotions import fold_name, unknown_name
    from emoedit.full_size import list_models

    models = list_models(args.pattern)
    if not models:
        with usage():
            raise unknown_name("model", args.pattern, {fold_name(model.name): model.name for model in list_models()})
    if args.json:
        write(json.dumps([asdict(model) for model in models], indent=2))
    else:
        rows = [
            (
                *(m.name, m.role, _size(m.size), "" if m.memory is None else f"{m.memory:.2g} GB", m.needs, m.licence),
                *("yes" if m.here else "no", m.source),
            )
            for m in models
        ]
        write(table(("name", "role", "size", "GPU", "needs", "licence", "here", "source"), rows))
    return 0


def _emotions(args: argparse.Namespace) -> int:
    from emoedit.emotions import get, list_emotions

    if args.editor is not None:
        return _emotions_of(args.editor)
    rows = [(name, _sum(get(name).mixture), ", ".join(get(name).aliases)) for name in list_emotions()]
    write(table(("name", "mixture", "also called"), rows))
    return 0


def _emotions_of(editor: str) -> int:
    """What one editor can show: its own words first, then all of the vocabulary that is mixed from them."""
    from emoedit.emotions import list_emotions, resolve
    from emoedit.steering.unit_names import is_unit, unit_of

    with usage():
        _, _, known = describe(editor)
    rows = [(name, unit_of(name) if is_unit(name) else "learned") for name in known]
    for name in list_emotions():
        try:
            weights = resolve(name, known)
        except UnknownNameError:
            continue
        if name not in known:
            rows.append((name, _sum(weights)))
    write(table(("name", "how"), rows))
    return 0


def _metrics(args: argparse.Namespace) -> int:
    from emoedit.metrics.measure import measures

    better = {True: "higher", False: "lower", None: ""}
    rows = [(m.key, m.units, better[m.higher_is_better], m.help) for m in measures()]
    write(table(("metric", "units", "better", "meaning"), rows))
    return 0


def _sum(weights: Mapping[str, float]) -> str:
    terms = (f"{'-' if weight < 0 else '+'} {abs(weight):.3g} {name}" for name, weight in weights.items())
    return " ".join(terms).removeprefix("+ ") or "basic"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width under a header, two blanks apart.

    Args:
        header: titles of the columns.
        rows: cells of each row.
    """
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(map(str.rstrip, padded))

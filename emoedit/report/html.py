"""One page that shows every edit beside its source, with its numbers: a single file that needs nothing else."""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image, ImageOps

from emoedit.io.images import load_picture, write_atomic
from emoedit.types import DataError

_SIDE = 512  # pixels: the longest side of a picture on the page; sixty edits then take about 5 MB
_QUALITY = 88  # of the JPEGs; chroma is not subsampled, because that blurs lips
_MISSING = "–"
_FITTED = 1.0  # the strength a page opens at


@dataclass(frozen=True)
class Column:
    """One number of a row.

    Args:
        key: key in ``ReportEntry.row``.
        title: title on the page.
        digits: after the point.
        higher_is_better: None where neither end is good in itself; then no value is marked as the best.
        help: units, range and source, in one line.
    """

    key: str
    title: str
    digits: int = 2
    higher_is_better: bool | None = None
    help: str = ""


@dataclass(frozen=True, eq=False)
class ReportEntry:
    """One edited picture.

    Args:
        row: ``editor`` and ``emotion`` (names), ``strength`` (a number, or None where the editor has no strengths),
            ``seconds``, ``error`` (None or what went wrong), ``reference`` (True for what editors are held against: the
            unchanged source, a baseline, a true photograph), and the keys of the columns. A number that is not there,
            None or NaN is shown as a dash.
        image: image of any size and mode; None where there is an error.
    """

    row: Mapping[str, Any]
    image: Image.Image | None


@dataclass(frozen=True, eq=False)
class Sheet:
    """One photograph and its edits, in the order of their cards."""

    name: str
    source: Image.Image
    entries: Sequence[ReportEntry]


@dataclass(frozen=True)
class Table:
    """A summary: text and numbers. Floats are shown with three digits after the point."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    help: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing. ``svg`` goes into the page as it is: only what this package drew belongs here."""

    title: str
    svg: str


_SECONDS = Column("seconds", "seconds", 2, False, "wall-clock time of the edit")


def comparison_html(
    sheets: Sequence[Sheet],
    columns: Sequence[Column],
    *,
    title: str,
    notes: Sequence[str] = (),
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
) -> str:
    """A page in itself: pictures (JPEG, at most 512 pixels), style and script are in it, and it may not load anything.

    For each photograph and emotion there is a card an editor: source and edit side by side, the numbers under them. A
    slider goes through the strengths; a card shows the nearest that it has. Held down, an edit gives way to the source.
    Where values are compared, they are those of one photograph and emotion at all strengths, as shown (rounded), and
    references do not compete. At the end every number stands in a table that sorts by any column. Light and dark, wide
    and narrow, mouse and keyboard; without scripts all strengths are shown.

    Args:
        sheets: one a photograph.
        columns: which numbers of the rows to show, in this order. ``seconds`` comes last unless it is among them.
        title: title of the page.
        notes: sentences under the title: how the numbers were made.
        tables: tables of a summary, between the notes and the photographs.
        figures: as ``tables``.

    Returns:
        The text of an HTML file, to be written as UTF-8. The same arguments give the same text.

    Raises:
        DataError: a row without editor or emotion, what is no number where one belongs, a table with uneven rows.
        ImageError: a picture that cannot be read.
    """
    if not any(column.key == "seconds" for column in columns) and any(
        entry.row.get("seconds") is not None for sheet in sheets for entry in sheet.entries
    ):
        columns = [*columns, _SECONDS]
    emotions = list(dict.fromkeys(_name(entry, "emotion") for sheet in sheets for entry in sheet.entries))
    views = [_sheet(number, sheet, columns, emotions) for number, sheet in enumerate(sheets, 1)]
    strengths = sorted({s for sheet in views for group in sheet["groups"] for s in group["strengths"]})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text("utf-8"))
    page = template.render(
        title=title,
        notes=notes,
        columns=columns,
        tables=[_table(table) for table in tables],
        figures=figures,
        sheets=views,
        emotions=emotions,
        strengths=strengths,
        start=strengths.index(_nearest(strengths, _FITTED)) if strengths else 0,
        several=any(len(group["strengths"]) > 1 for sheet in views for group in sheet["groups"]),
        errors=any(entry.row.get("error") for sheet in sheets for entry in sheet.entries),
        compared=any(cell["best"] for sheet in views for state in _states(sheet) for cell in state["cells"]),
    )
    return printable(page)


def write_comparison(
    path: str | os.PathLike[str],
    sheets: Sequence[Sheet],
    columns: Sequence[Column],
    *,
    title: str,
    notes: Sequence[str] = (),
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
    overwrite: bool = False,
) -> None:
    """Writes ``comparison_html`` to a file that is either complete or not there.

    Args:
        path: path of the page.
        sheets: as there.
        columns: as there.
        title: as there.
        notes: as there.
        tables: as there.
        figures: as there.
        overwrite: whether a file that exists is replaced.

    Raises:
        OutputError: whatever ``emoedit.io.images.write_atomic`` meets.
        DataError: as ``comparison_html``.
        ImageError: as ``comparison_html``.
    """
    page = comparison_html(sheets, columns, title=title, notes=notes, tables=tables, figures=figures).encode()
    write_atomic(path, lambda file: file.write(page), overwrite=overwrite)


def printable(text: str) -> str:
    r"""The text with what neither UTF-8 nor XML can hold written out, as in ``\x00`` or ``\udcff``.

    Such are control characters, and bytes of a file name that are no text.

    Args:
        text: any text.
    """
    return re.sub(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]",
        lambda found: found[0].encode("unicode_escape").decode(),
        text,
    )


def _sheet(number: int, sheet: Sheet, columns: Sequence[Column], emotions: Sequence[str]) -> dict[str, Any]:
    """What the template needs of a photograph: its groups (an emotion each) of cards (an editor each) of states."""
    uri, size = _jpeg(sheet.source)
    groups: list[dict[str, Any]] = []
    for name, entries in _by(sheet.entries, "emotion").items():
        best = {column.key: _best(entries, column) for column in columns}
        strengths = sorted({s for entry in entries if (s := _number(entry, "strength")) is not None})
        shown = _nearest(strengths, _FITTED)
        cards = [
            {
                "editor": editor,
                "reference": any(entry.row.get("reference") for entry in own),
                "states": _card(own, shown, columns, best),
            }
            for editor, own in _by(entries, "editor").items()
        ]
        groups.append(
            {
                "id": f"photo-{number}-{len(groups) + 1}",
                "emotion": name,
                "emotion_number": emotions.index(name),
                "strengths": strengths,
                "start": 0 if shown is None else strengths.index(shown),
                "cards": cards,
            }
        )
    return {
        "number": number,
        "name": sheet.name,
        "uri": uri,
        "size": size,
        "ratio": f"{size[0]} / {size[1]}",
        "groups": groups,
    }


def _card(
    entries: Sequence[ReportEntry], shown: float | None, columns: Sequence[Column], best: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """The states of a card by rising strength; what has no strength comes first, and is shown at all of them."""
    strengths = sorted({s for entry in entries if (s := _number(entry, "strength")) is not None})
    nearest = _nearest(strengths, shown)
    states = []
    for entry in sorted(entries, key=lambda entry: -math.inf if (s := _number(entry, "strength")) is None else s):
        strength = _number(entry, "strength")
        cells = []
        for column in columns:
            value = _number(entry, column.key)
            rival = not entry.row.get("reference") and best[column.key] is not None
            cells.append(
                {
                    "value": value,
                    "text": _text(value, column.digits),
                    "best": rival and value is not None and round(value, column.digits) == best[column.key],
                }
            )
        states.append(
            {
                "strength": strength,
                "shown": strength in (None, nearest),
                "uri": None if entry.image is None else _jpeg(entry.image)[0],
                "error": entry.row.get("error"),
                "cells": cells,
            }
        )
    return states


def _states(sheet: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    return (state for group in sheet["groups"] for card in group["cards"] for state in card["states"])


def _best(entries: Sequence[ReportEntry], column: Column) -> float | None:
    """The best value as it is shown; None where nothing competes or all are alike."""
    if column.higher_is_better is None:
        return None
    values = [_number(entry, column.key) for entry in entries if not entry.row.get("reference")]
    rounded = {round(value, column.digits) for value in values if value is not None}
    if len(rounded) < 2:
        return None
    return max(rounded) if column.higher_is_better else min(rounded)


def _table(table: Table) -> dict[str, Any]:
    for row in table.rows:
        if len(row) != len(table.header):
            raise DataError(f"table {table.title!r} has {len(table.header)} columns and a row of {len(row)}: {row!r}")
    return {
        "title": table.title,
        "help": table.help,
        "header": table.header,
        "numeric": [all(not isinstance(row[i], str) for row in table.rows) for i in range(len(table.header))],
        "rows": [
            [{"value": None, "text": cell} if isinstance(cell, str) else _summary(cell) for cell in row]
            for row in table.rows
        ],
    }


def _summary(number: float | None) -> dict[str, Any]:
    if number is None or math.isnan(number):
        return {"value": None, "text": _MISSING}
    return {"value": float(number), "text": str(number) if isinstance(number, Integral) else _text(float(number), 3)}


def _by(entries: Sequence[ReportEntry], key: str) -> dict[str, list[ReportEntry]]:
    groups: dict[str, list[ReportEntry]] = {}
    for entry in entries:
        groups.setdefault(_name(entry, key), []).append(entry)
    return groups


def _name(entry: ReportEntry, key: str) -> str:
    if not isinstance(name := entry.row.get(key), str):
        raise DataError(f"a row needs {key!r}, a name; found {name!r} in {dict(entry.row)!r}")
    return name


def _number(entry: ReportEntry, key: str) -> float | None:
    """A number of a row; None where there is none."""
    value = entry.row.get(key)
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{key!r} is {value!r}; a number or None is expected") from error
    return None if math.isnan(number) else number


def _text(number: float | None, digits: int) -> str:
    if number is None:
        return _MISSING
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    return f"{round(number, digits) + 0.0:.{digits}f}"  # + 0.0: never -0.00


def _nearest(strengths: Sequence[float], wanted: float | None) -> float | None:
    """None where there are no strengths; the lower of two that are equally near."""
    if wanted is None:
        return None
    return min(strengths, key=lambda strength: abs(strength - wanted), default=None)


def _jpeg(image: Image.Image) -> tuple[str, tuple[int, int]]:
    """A picture as a data URI, with its colour profile and without its EXIF (which may say where somebody lives)."""
    image = load_picture(image).to_pil()
    profile = image.info.get("icc_profile")
    if max(image.size) > _SIDE:
        image = ImageOps.contain(image, (_SIDE, _SIDE), Image.Resampling.LANCZOS)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0, optimize=True, icc_profile=profile)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), image.size

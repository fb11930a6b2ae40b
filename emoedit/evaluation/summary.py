"""Rows of results as summaries: means with intervals over people, control, curves, tables and the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emoedit.evaluation.compare import columns, notes, to_pandas
from emoedit.io.images import write_atomic
from emoedit.metrics.control import accuracy, cls, confusion, mscr
from emoedit.metrics.measure import measures
from emoedit.metrics.statistics import Interval, bootstrap
from emoedit.report.html import Figure, Sheet, Table, write_comparison
from emoedit.report.plots import Curve, pareto_grid

SUMMARY, PARETO, REPORT = "summary.csv", "pareto.svg", "report.html"


def mean_columns() -> list[str]:
    """Columns of rows whose means are in ``summary.csv``: of registered metrics, ``hit`` and ``seconds``."""
    keys = [measure.key for measure in measures() if measure.shown_in != "rows"]
    place = keys.index("target_score") + 1 if "target_score" in keys else 0
    return [*keys[:place], "hit", *keys[place:], "seconds"]


def summary_columns() -> tuple[str, ...]:
    """Columns of rows that summaries are made from."""
    return ("photo", "person", "editor", "emotion", "strength", "reference", "top1", *mean_columns())


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` found.

    Args:
        rows: a dict a cell (photograph, editor, emotion, strength), flat and ready for a data frame. Read from the file
            each time they are gone through, so that a million of them need no memory; ``list(rows)`` to keep them.
        emotions: names of the edited emotions.
    """

    rows: Collection[dict[str, Any]]
    emotions: tuple[str, ...]

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame`` (extra ``metrics``)."""
        return to_pandas(self.rows)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Rows of edits that could not be made."""
        return [row for row in self.rows if row["error"] is not None]

    def groups(self) -> dict[tuple[str, str, float | None], list[dict[str, Any]]]:
        """Rows without an error by (editor, emotion, strength), in the order they were first met.

        Each row keeps only what summaries need (``summary_columns``).
        """
        groups: dict[tuple[str, str, float | None], list[dict[str, Any]]] = {}
        keys = summary_columns()
        for row in self.rows:
            if row["error"] is None:
                slim = {key: row[key] for key in keys if key in row}
                groups.setdefault((row["editor"], row["emotion"], row["strength"]), []).append(slim)
        return groups

    def summary(self) -> list[dict[str, Any]]:
        """Means with 95 % intervals over people, a row for each editor, emotion and strength.

        Columns are ``KEY``, ``KEY_low`` and ``KEY_high``, and how many pictures of how many people there are.
        """
        table = []
        keys = mean_columns()
        for (editor, emotion, strength), rows in self.groups().items():
            line: dict[str, Any] = {
                "editor": editor,
                "reference": rows[0]["reference"],
                "emotion": emotion,
                "strength": strength,
                "pictures": len(rows),
                "people": len({row["person"] for row in rows}),
            }
            for key in keys:
                found = people_interval(rows, key)
                line |= {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}
            table.append(line)
        return table

    def control(self) -> list[dict[str, Any]]:
        """Control measures as FFE-Bench defines them (PixelSmile, arXiv 2603.25728), a row an editor.

        Acc and mSCR are taken at the strength nearest to 1, CLS over strengths; target score and HES stand beside them.
        """
        table = []
        groups = self.groups()
        for editor in dict.fromkeys(editor for editor, _, _ in groups):
            rows = [row for (name, _, _), group in groups.items() if name == editor for row in group]
            strengths = {row["strength"] for row in rows if row["strength"] is not None}
            nearest = min(strengths, key=lambda s: abs(s - 1), default=None)
            fitted = [row for row in rows if row["strength"] == nearest and row.get("hit") is not None]
            if not fitted:
                continue
            met = {row["emotion"] for row in fitted} | {row["top1"] for row in fitted}
            named = sorted(name for name in met if not name.startswith("other:"))  # a class outside the vocabulary
            names = [*named, *sorted(met.difference(named))]
            intended = [names.index(row["emotion"]) for row in fitted]
            read = [names.index(row["top1"]) for row in fitted]
            sweeps: dict[Hashable, tuple[list[float], list[float]]] = {}
            for row in rows:
                if row["strength"] is not None and row.get("target_score") is not None:
                    of_strength, scores = sweeps.setdefault((row["photo"], row["emotion"]), ([], []))
                    of_strength.append(row["strength"])
                    scores.append(row["target_score"])
            linear = cls(sweeps)
            table.append(
                {
                    "editor": editor,
                    "reference": rows[0]["reference"],
                    "emotions": len({row["emotion"] for row in fitted}),
                    "strength": nearest,
                    "target_score": float(np.mean([row["target_score"] for row in fitted])),
                    "hes": float(np.mean([row["hes"] for row in fitted])),
                    "identity": float(np.mean([row["identity"] for row in fitted])),
                    "acc": accuracy(intended, read),
                    "mscr": mscr(confusion(intended, read, len(names))[: len(named), : len(named)], named),
                    "cls": linear.value,
                    "cls_undefined": linear.undefined,
                }
            )
        return table

    def curves(self) -> dict[str, list[Curve]]:
        """Target score against identity, a curve an editor, for each emotion."""
        summary = self.summary()
        panels: dict[str, list[Curve]] = {}
        for emotion in self.emotions:
            for editor in dict.fromkeys(line["editor"] for line in summary):
                lines = [line for line in summary if (line["editor"], line["emotion"]) == (editor, emotion)]
                lines.sort(key=lambda line: line["strength"] or 0.0)
                if lines:
                    panels.setdefault(emotion, []).append(_curve(editor, lines))
        return panels


def _curve(editor: str, lines: Sequence[Mapping[str, Any]]) -> Curve:
    def column(key: str) -> list[Any]:
        return [line[key] for line in lines]

    return Curve(
        editor,
        column("strength"),
        x=column("identity"),
        y=column("target_score"),
        x_low=column("identity_low"),
        x_high=column("identity_high"),
        y_low=column("target_score_low"),
        y_high=column("target_score_high"),
        reference=bool(lines[0]["reference"]),
    )


def people_interval(rows: Sequence[Mapping[str, Any]], key: str) -> Interval:
    """Mean of a column and its 95 % interval over people; NaN where no row has it.

    Args:
        rows: rows of results.
        key: name of the column.
    """
    values = [np.nan if row.get(key) is None else float(row[key]) for row in rows]
    return bootstrap(values, [row["person"] for row in rows])


def write_reports(
    found: Evaluation,
    folder: Path,
    *,
    title: str = "Editors compared",
    tables: Sequence[Table] = (),
    sheets: Sequence[Sheet] = (),
) -> None:
    """``summary.csv``, ``pareto.svg`` and ``report.html`` from the rows.

    Args:
        found: rows to report.
        folder: path of the folder they are written to.
        title: title of the page.
        tables: more of them, after those that the rows give.
        sheets: photographs with their edits, to be looked at.

    Raises:
        OutputError: one of them cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    summary = found.summary()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(summary[0]) if summary else ["editor"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if _nan(v) else v for k, v in line.items()} for line in summary)
    data = text.getvalue().encode()
    write_atomic(folder / SUMMARY, lambda file: file.write(data), overwrite=True)
    panels = found.curves()
    figures = []
    if panels:
        svg = pareto_grid(panels, title="")
        write_atomic(folder / PARETO, lambda file: file.write(svg.encode()), overwrite=True)
        figures.append(Figure("Target score against identity", svg))
    people = len({row["person"] for row in found.rows})
    told = [f"{len(found.rows)} cells of {people} people; intervals are 95 %, over people (bootstrap)."]
    if found.errors:
        first = found.errors[0]
        told.append(f"{len(found.errors)} cells failed; the first: {first['photo']}: {first['error']}")
    write_comparison(
        folder / REPORT,
        sheets,
        columns(entry.row for sheet in sheets for entry in sheet.entries),
        title=title,
        notes=told + notes(found.rows),
        tables=[summary_table(summary), control_table(found.control()), *tables],
        figures=figures,
        overwrite=True,
    )


def _nan(value: Any) -> bool:
    return value is None or isinstance(value, float) and np.isnan(value)


def format_interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """``.72 [.65, .79]``, or a dash.

    Args:
        value: the mean; NaN gives a dash.
        low: end of the interval; NaN for none.
        high: end of the interval.
        digits: after the point.
    """
    if _nan(value):
        return "–"
    if _nan(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def summary_table(summary: Sequence[Mapping[str, Any]]) -> Table:
    """For a report: one line an editor, emotion and strength.

    Args:
        summary: rows of ``Evaluation.summary``.
    """
    shown = [(m.key, m.title, m.digits) for m in measures() if m.shown_in == "table"]
    place = 1 + next((n for n, (key, _, _) in enumerate(shown) if key == "target_score"), -1)
    shown.insert(place, ("hit", "read as it", 2))
    rows = []
    for line in summary:
        numbers = [
            format_interval(line[key], line[f"{key}_low"], line[f"{key}_high"], digits) for key, _, digits in shown
        ]
        strength = "" if line["strength"] is None else f"{line['strength']:g}"
        rows.append([line["editor"], line["emotion"], strength, str(line["people"]), *numbers])
    titles = [title for _, title, _ in shown]
    return Table("Means over people", ["editor", "emotion", "strength", "people", *titles], rows)


def control_table(control: Sequence[Mapping[str, Any]]) -> Table:
    """For a report: one line an editor.

    Args:
        control: rows of ``Evaluation.control``.
    """
    keys = ("target_score", "identity", "hes", "acc", "mscr", "cls")
    rows = [
        [line["editor"], str(line["emotions"]), *(None if _nan(line[key]) else float(line[key]) for key in keys)]
        for line in control
    ]
    header = ["editor", "emotions", "target", "identity", "HES", "Acc", "mSCR", "CLS"]
    return Table("Control (FFE-Bench)", header, rows, "Acc and mSCR at the strength nearest to 1; CLS over strengths")

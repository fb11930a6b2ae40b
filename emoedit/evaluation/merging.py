"""The jobs of a sweep put together: one evaluation a data set, and how far each job is."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from emoedit.evaluation.evaluate import JOB, RESULTS, SETTINGS
from emoedit.evaluation.naming import naming_hint
from emoedit.evaluation.shards import open_cases
from emoedit.evaluation.summary import Evaluation, control_table, summary_table, write_reports
from emoedit.io import checkpoints
from emoedit.io.images import load_picture, write_atomic
from emoedit.io.results import key_of, last_rows, renamed
from emoedit.report.html import ReportEntry, Sheet, Table
from emoedit.report.tables import markdown
from emoedit.types import CheckpointError, DataError

TABLES = "tables.md"
SIDE = 512  # of a picture on the page
FAILURES = 20  # that a page lists


@dataclass(frozen=True)
class Part:
    """One job's folder of results.

    Args:
        folder: path of their folder.
        about: its ``job.json``.
        settings: its ``settings.json``.
    """

    folder: Path
    about: dict[str, Any]
    settings: dict[str, Any]

    @property
    def data(self) -> str:
        """Which photographs."""
        return str(self.about["data"])


class Merged(Collection[dict[str, Any]]):
    """The rows of several jobs, each cell of each seed once, read anew each time they are gone through.

    Args:
        parts: the jobs.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[dict[str, Any]]:
        seen: set[int] = set()
        for part in self._parts:
            for row in last_rows(part.folder / RESULTS):
                key = hash((key_of(row), row.get("seed")))
                if key not in seen:
                    seen.add(key)
                    yield row

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, row: object) -> bool:
        return any(row == other for other in self)


def find_parts(folder: Path) -> list[Part]:
    """The jobs whose folders lie in ``folder``, in the order of their names.

    Raises:
        DataError: there is none, or what describes one is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    parts = []
    for path in sorted(folder.glob(f"*/{RESULTS}")):
        try:
            part = Part(
                path.parent,
                checkpoints.read_json(path.parent / JOB),
                renamed(checkpoints.read_json(path.parent / SETTINGS)),
            )
            part.data, part.about["emotions"], part.about["cells"], part.settings["editors"].items()
        except (CheckpointError, KeyError, AttributeError) as error:
            raise DataError(f"{path.parent} is no folder of a sweep's job: {error}") from error
        parts.append(part)
    if not parts:
        raise DataError(f"{folder} holds no results of a sweep (NAME/{RESULTS})")
    return parts


def merge(parts: Sequence[Part]) -> dict[str, Evaluation]:
    """Data set -> the evaluation of all its jobs.

    Args:
        parts: the jobs.

    Raises:
        DataError: jobs of one data set that other networks measured, or in which one name stands for two editors.
    """
    found = {}
    for data in dict.fromkeys(part.data for part in parts):
        own = [part for part in parts if part.data == data]
        editors: dict[str, str] = {}
        for part in own:
            for name in ("identity_backend", "perceptual_backend", "expression_backend", "networks"):
                if part.settings.get(name) != own[0].settings.get(name):
                    raise DataError(
                        f"{part.folder} and {own[0].folder} were measured by another {name}: not comparable"
                    )
            for name, digest in part.settings["editors"].items():
                if editors.setdefault(name, digest) != digest:
                    raise DataError(
                        f"{part.folder}: {name} is another editor than the {name} of an earlier job; run one of them "
                        f"again under a name of its own ({naming_hint(part.about.get('editor', name))}), and remove "
                        "its folder"
                    )
        emotions = tuple(dict.fromkeys(name for part in own for name in part.about["emotions"]))
        found[data] = Evaluation(Merged(own), emotions)
    return found


def job_states(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Progress of each job.

    Each entry has ``job``, ``cells`` it has, ``done`` of them, ``failed``, ``rate`` (cells a second since it was last
    started; None before anything was done) and ``left`` (seconds, by that rate).

    Args:
        parts: the jobs.
    """
    table = []
    for part in parts:
        emotions, strengths = set(part.about["emotions"]), {*part.about["strengths"], None}
        done = failed = rows = 0
        for row in last_rows(part.folder / RESULTS):
            rows += 1
            if row["emotion"] in emotions and row["strength"] in strengths:
                done += 1
                failed += row["error"] is not None
        spent = (part.folder / RESULTS).stat().st_mtime - part.about["started"]
        new = rows - part.about["rows"]
        rate = new / spent if new > 0 and spent > 0 else None
        missing = max(0, part.about["cells"] - done)
        left = 0.0 if not missing else None if rate is None else missing / rate
        state = {"cells": part.about["cells"], "done": done, "failed": failed, "rate": rate, "left": left}
        table.append({"job": part.folder.name, **state})
    return table


def states_table(found: Sequence[dict[str, Any]]) -> Table:
    """For a report.

    Args:
        found: result of ``job_states``.
    """
    rows = [
        [s["job"], s["cells"], s["done"], s["failed"], s["rate"], None if s["left"] is None else s["left"] / 60]
        for s in found
    ]
    return Table("Jobs", ["job", "cells", "done", "failed", "cells a second", "minutes left"], rows)


def failures_table(found: Evaluation) -> Table:
    """For a report: what could not be edited, a line a photograph and error.

    Args:
        found: the evaluation of all jobs.
    """
    told: dict[tuple[str, str, str], int] = {}
    for row in found.errors:
        key = row["photo"], row["editor"], row["error"]
        told[key] = told.get(key, 0) + 1
    rows: list[list[str | float | None]] = [
        [photo, editor, count, error] for (photo, editor, error), count in list(told.items())[:FAILURES]
    ]
    rest = f"and {len(told) - FAILURES} more" if len(told) > FAILURES else ""
    return Table("What could not be edited", ["photo", "editor", "cells", "error"], rows, rest)


def sheets(parts: Sequence[Part], count: int) -> list[Sheet]:
    """The first photographs whose edits were kept, beside them; those whose source is no longer there are left out.

    Args:
        parts: folders of results.
        count: at most so many photographs.
    """
    entries: dict[str, list[ReportEntry]] = {}
    for part in parts:
        for row in last_rows(part.folder / RESULTS):
            if "picture" in row and (row["photo"] in entries or len(entries) < count):
                entries.setdefault(row["photo"], []).append(ReportEntry(row, _small(part.folder / row["picture"])))
    sources: dict[str, Path] = {}
    for folder in {str(part.about["path"]) for part in parts} if entries else ():
        if Path(folder).is_dir():
            sources |= {case.name: case.photo for case in open_cases(folder) if case.name in entries}
    return [Sheet(name, _small(sources[name]), own) for name, own in entries.items() if name in sources]


def _small(path: Path) -> Image.Image:
    image = load_picture(path).to_pil()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def _put(page: bytes, file: BinaryIO) -> None:
    file.write(page)


def write_merged(folder: Path, output: Path, *, photographs: int = 6) -> list[Path]:
    """Write a folder with tables and reports for each data set.

    Each holds ``results.jsonl`` (all rows), ``summary.csv``, ``tables.md``, ``pareto.svg`` and ``report.html``.

    Args:
        folder: folder of a sweep.
        output: folder that they are written to.
        photographs: number of photographs whose edits the page shows, where they were kept.

    Returns:
        The folders.

    Raises:
        DataError: whatever ``find_parts`` and ``merge`` meet.
        ImageError: a kept picture that cannot be read.
        OutputError: they cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    parts = find_parts(folder)
    written = []
    for data, found in merge(parts).items():
        own = [part for part in parts if part.data == data]
        place = output / data
        rows = found.rows

        def write(file: BinaryIO, rows: Collection[dict[str, Any]] = rows) -> None:
            for row in rows:
                file.write(json.dumps(row).encode() + b"\n")

        write_atomic(place / RESULTS, write, overwrite=True)
        tables = [states_table(job_states(own))]
        if found.errors:
            tables.append(failures_table(found))
        write_reports(found, place, title=f"Editors compared: {data}", tables=tables, sheets=sheets(own, photographs))
        text = "\n".join(markdown(t) for t in (summary_table(found.summary()), control_table(found.control()), *tables))
        page = f"# {data}\n\n{text}".encode()
        write_atomic(place / TABLES, partial(_put, page), overwrite=True)
        written.append(place)
    return written

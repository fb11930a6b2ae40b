"""Editors on a data set: every photograph, emotion and strength, measured, with intervals over people.

Results are appended as they are made. A run that was killed, at any moment, goes on where it stopped: nothing is lost
and nothing is done twice.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emoedit import hub
from emoedit.cases import Case, read_cases
from emoedit.comparison import (
    NOTHING,
    PHOTOGRAPH,
    Contestant,
    canonical_names,
    check_known,
    contestants,
    edited,
    failed,
    notes,
    nothing,
    photograph,
    to_pandas,
)
from emoedit.editors import Editor
from emoedit.metrics.control import accuracy, cls, confusion, mscr
from emoedit.metrics.statistics import Interval, bootstrap
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.pictures import load_picture, write_atomic, write_json
from emoedit.report.html import Figure, Table, write_comparison
from emoedit.report.plots import Curve, pareto_grid
from emoedit.types import DataError, Edit, EmoEditError, MissingExtraError, OutputError

RESULTS, SETTINGS, SUMMARY, PARETO, REPORT = (
    "results.jsonl",
    "settings.json",
    "summary.csv",
    "pareto.svg",
    "report.html",
)
AVERAGED = (
    "target_score", "hit", "identity", "hes", "perceptual", "paired_perceptual", "paired_identity", "paired_landmarks",
    "confidence", "fold_free", "sharpness_kept", "background_change", "landmark_drift", "pose_drift", "seconds",
)  # fmt: skip
KEPT = ("photo", "person", "editor", "emotion", "strength", "reference", "top1", *AVERAGED)
Key = tuple[str, str, str, float | None]  # photo, editor, emotion, strength


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Args:
        rows: a dict a cell (photograph, editor, emotion, strength), flat and ready for a data frame. Read from the
            file each time they are gone through, so that a million of them need no memory; ``list(rows)`` to keep them.
        emotions: what was edited.
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
        """Rows without an error by (editor, emotion, strength), in the order they were first met; of each row only what
        summaries need (:data:`KEPT`)."""
        groups: dict[tuple[str, str, float | None], list[dict[str, Any]]] = {}
        for row in self.rows:
            if row["error"] is None:
                slim = {key: row[key] for key in KEPT}
                groups.setdefault((row["editor"], row["emotion"], row["strength"]), []).append(slim)
        return groups

    def summary(self) -> list[dict[str, Any]]:
        """A row for each editor, emotion and strength: means with 95 % intervals over people (``KEY``, ``KEY_low``,
        ``KEY_high``), and how many pictures of how many people."""
        table = []
        for (editor, emotion, strength), rows in self.groups().items():
            line: dict[str, Any] = {
                "editor": editor,
                "reference": rows[0]["reference"],
                "emotion": emotion,
                "strength": strength,
                "pictures": len(rows),
                "people": len({row["person"] for row in rows}),
            }
            for key in AVERAGED:
                found = interval(rows, key)
                line |= {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}
            table.append(line)
        return table

    def control(self) -> list[dict[str, Any]]:
        """A row an editor, as FFE-Bench defines them (PixelSmile, arXiv 2603.25728): Acc and mSCR at the strength
        nearest to 1, CLS over strengths; target score and HES beside them."""
        table = []
        groups = self.groups()
        for editor in dict.fromkeys(editor for editor, _, _ in groups):
            rows = [row for (name, _, _), group in groups.items() if name == editor for row in group]
            strengths = {row["strength"] for row in rows if row["strength"] is not None}
            nearest = min(strengths, key=lambda s: abs(s - 1), default=None)
            fitted = [row for row in rows if row["strength"] == nearest and row["hit"] is not None]
            if not fitted:
                continue
            met = {row["emotion"] for row in fitted} | {row["top1"] for row in fitted}
            named = sorted(name for name in met if not name.startswith("other:"))  # a class of no emotion we know
            names = [*named, *sorted(met.difference(named))]
            intended = [names.index(row["emotion"]) for row in fitted]
            read = [names.index(row["top1"]) for row in fitted]
            sweeps: dict[tuple[str, str], list[tuple[float, float]]] = {}
            for row in rows:
                if row["strength"] is not None:
                    sweep = sweeps.setdefault((row["photo"], row["emotion"]), [])
                    sweep.append((row["strength"], row["target_score"]))
            linear = cls({key: tuple(zip(*sweep, strict=True)) for key, sweep in sweeps.items()})
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
    columns = ("identity", "target_score", "identity_low", "identity_high", "target_score_low", "target_score_high")
    numbers = [[line[key] for line in lines] for key in columns]
    return Curve(editor, [line["strength"] for line in lines], *numbers, bool(lines[0]["reference"]))


def interval(rows: Sequence[Mapping[str, Any]], key: str) -> Interval:
    """Mean of a column and its 95 % interval over people; NaN where no row has it."""
    values = [np.nan if row.get(key) is None else float(row[key]) for row in rows]
    return bootstrap(values, [row["person"] for row in rows])


def evaluate(
    data: str | os.PathLike[str] | Sequence[Case],
    emotions: Sequence[str] = ("happy", "sad", "angry", "surprised"),
    *,
    editors: str | Sequence[str | Editor | PhotoEditor] = "all",
    strengths: Sequence[float] = (0.5, 1.0, 1.5),
    output: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = None,
    references: bool = True,
    seed: int = 0,
    suite: Suite | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Evaluation:
    """Edit a data set with several editors and measure every edit.

    Written to ``output``: ``results.jsonl`` (a row a cell, as they are made), ``settings.json``, and at the end
    ``summary.csv``, ``pareto.svg`` and ``report.html``. Called again with the same folder, only what is missing is
    done.

    Args:
        data: a folder (:func:`emoedit.cases.read_cases`), or cases.
        emotions: names or algebra on names; rows hold the canonical form of a name.
        editors: ``"all"`` embedded ones, or names, folders, editors.
        split: only pictures of this split, where the folder says so.
        limit: only the first so many photographs.
        references: whether the reference rows stand beside the editors.
        suite: what measures; default: a new one with its defaults.

    Raises:
        DataError: a data set that cannot be read; a folder whose results were made with other editors or networks.
        UnknownNameError: an emotion that an editor or the recogniser does not know; no such editor.
        MissingExtraError: matplotlib is not installed; found before any work is done.
        OutputError: the folder cannot be written.
    """
    from tqdm import tqdm

    try:
        import matplotlib.figure  # noqa: F401 - better to fail now than after an hour
    except ImportError as error:
        raise MissingExtraError("matplotlib", "metrics") from error
    names = tuple(canonical_names([emotions] if isinstance(emotions, str) else emotions))
    edits = [Edit(name, float(s)) for name in names for s in dict.fromkeys(strengths)]
    cases = read_cases(data, split=split) if isinstance(data, str | os.PathLike) else list(data)
    cases = cases[:limit]
    if not cases:
        raise DataError("no photograph to edit")
    if twice := [name for name, count in Counter(case.name for case in cases).items() if count > 1]:
        raise DataError(f"two photographs are both called {twice[0]!r}; a row would not say which it is about")
    field = contestants(editors, references=references, device=device)
    check_known(field, names)
    suite = suite or Suite()
    suite.check_emotions(names)
    folder = Path(output).expanduser()
    _settle(folder, {"seed": seed, **suite.who, "networks": _networks(), "editors": {}}, field)
    results = Results(folder / RESULTS)
    cells = [_cells(case, field, edits, names, references) for case in cases]
    left = sum(key not in results.done for keys in cells for key in keys)
    with results, tqdm(total=sum(map(len, cells)), unit="edit", disable=None if progress else True) as bar:
        bar.update(sum(map(len, cells)) - left)
        for case, keys in zip(cases, cells, strict=True):
            content = _content(case)
            missing = {key for key in keys if key not in results.done}
            if any(results.done[key] != content for key in keys if key not in missing):
                raise DataError(
                    f"{folder} holds results of another picture {case.name!r}, or of another true photograph of that "
                    "person; choose another folder"
                )
            if missing:
                for rows in _one(case, missing, suite, field, edits, names, seed):
                    facts = {**case.info, "photo": case.name, "person": case.person, "content": content}
                    results.append([{**facts, **row} for row in rows])
                    bar.update(len(rows))
    wanted = {key for keys in cells for key in keys}
    found = Evaluation(Rows(folder / RESULTS, wanted), names)
    write_reports(found, folder)
    return found


def _content(case: Case) -> str:
    """Of a case's files: what has one name need not be one picture."""
    digest = hashlib.sha256()
    for path in (case.photo, *(case.truth[name] for name in sorted(case.truth))):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


def key_of(row: Mapping[str, Any]) -> Key:
    """Which cell a row fills."""
    return row["photo"], row["editor"], row["emotion"], row["strength"]


def _cells(
    case: Case, field: Sequence[Contestant], edits: Sequence[Edit], names: Sequence[str], references: bool
) -> list[Key]:
    keys: list[Key] = [
        (case.name, c.name, e.emotion, e.strength)
        for c in field
        for e in edits
        if c.knows(e.emotion) or not c.reference
    ]
    if references:
        keys += [(case.name, NOTHING, name, None) for name in names]
        keys += [(case.name, PHOTOGRAPH, name, None) for name in names if name in case.truth]
    return keys


def _one(
    case: Case,
    missing: set[Key],
    suite: Suite,
    field: Sequence[Contestant],
    edits: Sequence[Edit],
    names: Sequence[str],
    seed: int,
) -> Iterator[list[dict[str, Any]]]:
    """The missing rows of one photograph, an editor at a time."""
    jobs = [(c, [e for e in edits if (case.name, c.name, e.emotion, e.strength) in missing]) for c in field]
    detector = field[0].photo_editor.detector
    try:
        picture = load_picture(case.photo)
        face = detector.choose(picture.rgb)[0]
        truths = {}
        for name in names:
            if name in case.truth:
                pixels = load_picture(case.truth[name]).rgb
                truths[name] = pixels, detector.choose(pixels)[0]
        plain = suite.subject(picture.rgb, face)
        subjects = {name: suite.subject(picture.rgb, face, truths[name]) if name in truths else plain for name in names}
    except EmoEditError as error:  # the photograph's fault: a row that says so in every cell, and the next photograph
        yield [failed(contestant, edit, error, seed=seed) for contestant, own in jobs for edit in own] + [
            {"editor": editor, "reference": True, "emotion": emotion, "strength": strength, "error": str(error)}
            for _, editor, emotion, strength in sorted(missing, key=str)
            if strength is None
        ]
        return
    for contestant, own in jobs:
        if not own:
            continue
        rows: list[dict[str, Any]] = []
        try:
            rows.extend(row for row, _ in edited(suite, contestant, picture, subjects, face, own, seed=seed))
        except EmoEditError as error:
            made = {(row["emotion"], row["strength"]) for row in rows}
            rows += [failed(contestant, e, error, seed=seed) for e in own if (e.emotion, e.strength) not in made]
        yield rows
    rows = []
    for name in names:
        if (case.name, NOTHING, name, None) in missing:
            rows.append(nothing(suite, picture, subjects[name], name)[0])
        if (case.name, PHOTOGRAPH, name, None) in missing:
            rows.append(photograph(suite, subjects[name], *truths[name], name)[0])
    if rows:
        yield rows


class Rows(Collection[dict[str, Any]]):
    """The wanted rows of a file of results, read anew each time they are gone through.

    Args:
        path: of the json lines.  wanted: the cells.
    """

    def __init__(self, path: Path, wanted: set[Key]) -> None:
        self._path, self._wanted = path, wanted

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (row for row in read_rows(self._path) if key_of(row) in self._wanted)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, row: object) -> bool:
        return any(row == other for other in self)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Every row of a file of results, one at a time.

    Raises:
        DataError: a line that is not a row of results.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                key_of(row), row["content"]
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"{path}: line {number} is no row of results ({error!r}); move the file away to start anew"
                ) from error
            yield row


class Results:
    """A file of json lines that only grows. What a killed run left half-written at its end is cut off.

    Args:
        path: created if need be.

    Attributes:
        done: the cells that have a row -> the ``content`` of the files it was made from.

    Raises:
        DataError: a line that is not a row of results.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            whole = 0
            with path.open("rb") as file:
                for line in file:
                    whole += len(line) if line.endswith(b"\n") else 0
            self._file.truncate(whole)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        self.done = {key_of(row): row["content"] for row in read_rows(path)}

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows to the end of the file and to the disk.

        Raises:
            OutputError: they could not be written.
        """
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        try:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from error
        self.done.update({key_of(row): row["content"] for row in rows})


def _fingerprint(photo_editor: PhotoEditor) -> str:
    """Of everything an editor computes with."""
    editor = photo_editor.editor
    backbone = editor.backbone
    emotions = [steering.emotions for steering in editor.steerings]
    shape = (photo_editor.mode, type(backbone).__name__, backbone.crop, backbone.path_steps, emotions)
    digest = hashlib.sha256(repr(shape).encode())
    for part in (backbone, *editor.steerings):
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _networks() -> dict[str, str]:
    """Checksums of the embedded measuring networks: a retrained one is another judge."""
    from emoedit.metrics.embedded import NAMES
    from emoedit.metrics.networks import WEIGHTS

    return {name: hub.sha256(hub.embedded_root() / name / WEIGHTS)[:16] for name in NAMES}


def _settle(folder: Path, settings: dict[str, Any], field: Sequence[Contestant]) -> None:
    """Write down what the results are made with, or make sure that it is what earlier ones were made with."""
    settings["editors"] = {c.name: _fingerprint(c.photo_editor) for c in field}
    path = folder / SETTINGS
    if not path.is_file():
        if (folder / RESULTS).is_file() and (folder / RESULTS).stat().st_size:
            raise DataError(f"{folder} holds {RESULTS} but no {SETTINGS}: it is not known what made them")
        write_json(path, settings)
        return
    before = hub.read_json(path)
    editors = before.pop("editors", {})
    now = dict(settings["editors"])
    changed = [name for name in now if editors.get(name, now[name]) != now[name]]
    other = [name for name, value in settings.items() if name != "editors" and before.get(name) != value]
    if changed or other:
        raise DataError(
            f"{folder} holds results made with another {', '.join([*other, *changed])}; choose another folder"
        )
    write_json(path, {**settings, "editors": {**editors, **now}}, overwrite=True)


def write_reports(found: Evaluation, folder: Path) -> None:
    """``summary.csv``, ``pareto.svg`` and ``report.html`` from the rows.

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
        [],
        [],
        title="Editors compared",
        notes=told + notes(found.rows),
        tables=[summary_table(summary), control_table(found.control())],
        figures=figures,
        overwrite=True,
    )


def _nan(value: Any) -> bool:
    return value is None or isinstance(value, float) and np.isnan(value)


def in_words(value: float, low: float, high: float, digits: int = 2) -> str:
    """``.72 [.65, .79]``, or a dash."""
    if _nan(value):
        return "–"
    if _nan(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def summary_table(summary: Sequence[Mapping[str, Any]]) -> Table:
    """For a report: one line an editor, emotion and strength."""
    shown = ("target_score", "hit", "identity", "hes", "perceptual", "paired_perceptual", "paired_landmarks")
    titles = ("target", "read as it", "identity", "HES", "perceptual", "to truth", "to truth, points")
    rows = []
    for line in summary:
        numbers = [in_words(line[key], line[f"{key}_low"], line[f"{key}_high"]) for key in shown]
        strength = "" if line["strength"] is None else f"{line['strength']:g}"
        rows.append([line["editor"], line["emotion"], strength, str(line["people"]), *numbers])
    return Table("Means over people", ["editor", "emotion", "strength", "people", *titles], rows)


def control_table(control: Sequence[Mapping[str, Any]]) -> Table:
    """For a report: one line an editor."""
    keys = ("target_score", "identity", "hes", "acc", "mscr", "cls")
    rows = [
        [line["editor"], str(line["emotions"]), *(None if _nan(line[key]) else float(line[key]) for key in keys)]
        for line in control
    ]
    header = ["editor", "emotions", "target", "identity", "HES", "Acc", "mSCR", "CLS"]
    return Table("Control (FFE-Bench)", header, rows, "Acc and mSCR at the strength nearest to 1; CLS over strengths")

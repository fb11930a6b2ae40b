"""Editors on a data set: every photograph, emotion and strength, measured, with intervals over people.

Results are appended as they are made. A run that was killed, at any moment, goes on where it stopped: nothing is lost
and nothing is done twice.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emoedit.editors import Editor
from emoedit.evaluation.cases import Case, read_cases
from emoedit.evaluation.entries import (
    NOTHING,
    PHOTOGRAPH,
    canonical_names,
    edited_rows,
    failed_row,
    load_entries,
    photograph_row,
    unedited_row,
)
from emoedit.evaluation.plan import Plan
from emoedit.evaluation.summary import Evaluation, write_reports
from emoedit.faces.detect import Face, FaceDetector
from emoedit.io import checkpoints
from emoedit.io.images import Picture, load_picture, output_path, save_picture, write_json
from emoedit.io.locks import exclusive
from emoedit.io.results import Key, Results, Rows, renamed
from emoedit.metrics.null_suite import NullSuite
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.types import DataError, Edit, EmoEditError, MissingExtraError, OutputError

RESULTS, SETTINGS, LOCK, PICTURES, JOB = "results.jsonl", "settings.json", "lock", "pictures", "job.json"
BLOCK = 512  # photographs whose rows are looked up together: memory stays flat however many there are


def evaluate(
    data: str | os.PathLike[str] | Sequence[Case],
    emotions: Sequence[str] = ("happy", "sad", "angry", "surprised"),
    *,
    editors: str | Sequence[str | Editor | PhotoEditor] = "all",
    strengths: Sequence[float] = (0.5, 1.0, 1.5),
    output: str | os.PathLike[str],
    references: bool = True,
    seed: int = 0,
    suite: Suite | None = None,
    device: str = "auto",
    stage: str = "photo",
    retry: bool = False,
) -> Evaluation:
    """Edit a data set with several editors and measure every edit.

    Written to ``output``: ``results.jsonl`` (a row a cell, as they are made), ``settings.json``, and at the end
    ``summary.csv``, ``pareto.svg`` and ``report.html``. Called again with the same folder, only what is missing is
    done. One process at a time writes a folder (``lock``).

    Args:
        data: a folder, or cases (``emoedit.evaluation.cases.read_cases`` reads some of a folder).
        emotions: names or algebra on names; rows hold the canonical form of a name.
        editors: ``"all"`` embedded ones, or names, folders, editors.
        strengths: 0 is the source, 1 the fitted effect.
        output: folder of the results.
        references: whether the reference rows stand beside the editors.
        seed: seed of the noise that an editor draws.
        suite: the metric networks; default: a new one with its defaults.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        stage: ``"photo"``: edits as they are put into photographs; ``"crop"``: what the models themselves change.
        retry: whether what failed in an earlier run is tried again.

    Raises:
        DataError: a data set that cannot be read; a folder whose results were made with other editors or networks.
        UnknownNameError: an emotion that an editor or the recogniser does not know; no such editor.
        MissingExtraError: matplotlib is not installed; found before any work is done.
        OutputError: the folder cannot be written, or another process is writing it.
    """
    _need_matplotlib()
    names = tuple(canonical_names([emotions] if isinstance(emotions, str) else emotions))
    edits = [Edit(name, float(s)) for name in names for s in dict.fromkeys(strengths)]
    cases = _check_unique_names(read_cases(data) if isinstance(data, str | os.PathLike) else list(data))
    entries = load_entries(editors, references=references, device=device, stage=stage)
    plan = Plan(entries, edits, suite or Suite(), references, seed)
    folder = Path(output).expanduser()
    complete_results(folder, cases, plan, retry=retry)
    found = Evaluation(Rows(folder / RESULTS, {key for case in cases for key in plan.cells(case)}), names)
    with exclusive(folder / LOCK):
        write_reports(found, folder)
    return found


def _need_matplotlib() -> None:
    """Fail before any work is done where the report cannot be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "metrics") from error


def _check_unique_names(cases: list[Case]) -> list[Case]:
    """The cases, if there are any and no two have one name.

    Raises:
        DataError: otherwise.
    """
    if not cases:
        raise DataError("no photograph to edit")
    if twice := [name for name, count in Counter(case.name for case in cases).items() if count > 1]:
        raise DataError(f"two photographs are both called {twice[0]!r}, so their rows would be ambiguous")
    return cases


def complete_results(
    folder: Path,
    cases: Sequence[Case],
    plan: Plan,
    *,
    retry: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: bool | Callable[..., Any] = True,
) -> None:
    """Compute the missing cells of a folder of results.

    Memory does not grow with the number of photographs: neither pictures nor inversions nor rows are kept, and cases
    are asked for one after the other, so that ``cases`` may make them when they are asked for.

    Args:
        folder: ``results.jsonl`` and ``settings.json`` are written there.
        cases: names that differ.
        plan: what is done with each.
        retry: whether what failed in an earlier run is tried again.
        about: written to ``job.json`` with the progress: ``cells`` (of this call), ``rows``
            that were there before, and when it was ``started`` (seconds since 1970).
        progress: whether to show a bar on standard error where that is a terminal; or what makes the bar, called like
            ``tqdm.tqdm``.

    Raises:
        DataError: no photograph; results made with other editors or networks, or of other pictures of the same names.
        UnknownNameError: an emotion that an editor or the recogniser does not know.
        OutputError: the folder cannot be written, or another process is writing it.
    """
    if not cases:
        raise DataError("no photograph to edit")
    plan.check()
    total = sum(plan.count(case) for case in cases)
    with exclusive(folder / LOCK):
        _check_or_write_settings(folder, plan)
        with Results(folder / RESULTS) as results, _bar(progress, total) as bar:
            _write_job(folder, about, total, results.rows)
            for case, done in _with_done(cases, results, retry):
                content = _content(case)
                keys = plan.cells(case)
                missing = _missing(case, keys, content, done, folder)
                _skip(bar, len(keys) - len(missing))
                if not missing:
                    continue
                facts = {**case.info, "photo": case.name, "person": case.person, "content": content}
                for rows in _missing_rows(case, missing, plan, folder):
                    results.append([{**facts, **row} for row in rows])
                    bar.update(len(rows))


def _write_job(folder: Path, about: Mapping[str, Any] | None, cells: int, rows: int) -> None:
    """Write ``job.json``, which shows the progress of a run, if ``about`` is given."""
    if about is None:
        return
    state = {"cells": cells, "rows": rows, "started": time.time()}
    write_json(folder / JOB, {**about, **state}, overwrite=True)


def _with_done(cases: Sequence[Case], results: Results, retry: bool) -> Iterator[tuple[Case, dict[Key, str]]]:
    """Each case, with what earlier runs did of it and of its neighbours; looked up a block of cases at a time."""
    for start in range(0, len(cases), BLOCK):
        block = cases[start : start + BLOCK]
        done = results.found({case.name for case in block}, retry=retry)
        yield from ((case, done) for case in block)


def _missing(case: Case, keys: Sequence[Key], content: str, done: Mapping[Key, str], folder: Path) -> set[Key]:
    """The keys of a case that have no row yet.

    Raises:
        DataError: a row that was made of other pictures.
    """
    if any(done.get(key, content) != content for key in keys):
        raise DataError(
            f"{folder} holds results of another picture {case.name!r}, or of another true photograph of that person; "
            "choose another folder"
        )
    return {key for key in keys if key not in done}


def _bar(progress: bool | Callable[..., Any], total: int) -> Any:
    from tqdm import tqdm

    if callable(progress):
        return progress(total=total, unit="edit")
    return tqdm(total=total, unit="edit", disable=None if progress else True)


def _skip(bar: Any, count: int) -> None:
    """Advance a bar over the cells of an earlier run, without counting them in the rate."""
    if not bar.disable:
        bar.n += count
        bar.initial += count
        bar.last_print_n += count


def _content(case: Case) -> str:
    """A checksum of a case's files, since different pictures can have one name."""
    digest = hashlib.sha256()
    for path in (case.photo, *(case.truth[name] for name in sorted(case.truth))):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


def _subjects(
    case: Case, suite: Suite | NullSuite, detector: FaceDetector, names: Sequence[str]
) -> tuple[Picture, Face, dict[str, tuple[np.ndarray, Face]], dict[str, Any]]:
    """A photograph, its face, true photographs of the same person, and for each emotion what is compared with."""
    picture = load_picture(case.photo)
    face = detector.choose(picture.rgb)[0]
    truths = {}
    for name in names:
        if name in case.truth:
            pixels = load_picture(case.truth[name]).rgb
            truths[name] = pixels, detector.choose(pixels)[0]
    plain = suite.subject(picture.rgb, face)
    subjects = {name: suite.subject(picture.rgb, face, truths[name]) if name in truths else plain for name in names}
    return picture, face, truths, subjects


def _missing_rows(case: Case, missing: set[Key], plan: Plan, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """The missing rows of one photograph, an editor at a time."""
    suite, seed = plan.suite, plan.seed
    jobs = [(c, [e for e in plan.edits if (case.name, c.name, e.emotion, e.strength) in missing]) for c in plan.entries]
    try:
        detector = plan.entries[0].photo_editor.detector
        picture, face, truths, subjects = _subjects(case, suite, detector, plan.emotions)
    except EmoEditError as error:  # an error of the photograph: every cell gets a row with it, then the next photograph
        yield [failed_row(entry, edit, error, seed=seed) for entry, own in jobs for edit in own] + [
            {"editor": editor, "reference": True, "emotion": emotion, "strength": strength, "error": str(error)}
            for _, editor, emotion, strength in sorted(missing, key=str)
            if strength is None
        ]
        return
    for entry, own in jobs:
        if not own:
            continue
        rows: list[dict[str, Any]] = []
        try:
            for row, image in edited_rows(suite, entry, picture, subjects, face, own, seed=seed):
                if plan.pictures is not None and image is not None:
                    try:
                        row["picture"] = _save(image, case, row, folder, plan.pictures)
                    except OutputError as error:
                        number = getattr(error.__cause__, "errno", None)
                        if number not in (None, errno.ENAMETOOLONG, errno.EILSEQ):
                            raise  # not an error of this picture: no other one can be written either
                        row = failed_row(entry, Edit(row["emotion"], row["strength"]), error, seed=seed)
                rows.append(row)
                del image  # not kept while the next edits are made
        except OutputError:
            raise
        except EmoEditError as error:
            made = {(row["emotion"], row["strength"]) for row in rows}
            rows += [failed_row(entry, e, error, seed=seed) for e in own if (e.emotion, e.strength) not in made]
        yield rows
    rows = []
    for name in plan.emotions:
        if (case.name, NOTHING, name, None) in missing:
            rows.append(unedited_row(suite, picture, subjects[name], name)[0])
        if (case.name, PHOTOGRAPH, name, None) in missing:
            rows.append(photograph_row(suite, subjects[name], *truths[name], name)[0])
    if rows:
        yield rows


def _save(image: Any, case: Case, row: Mapping[str, Any], folder: Path, suffix: str) -> str:
    """Write an edited photograph; where it is, seen from the folder of results.

    Before its row is written: what has a row has a picture, whenever a run is killed.
    """
    name = re.sub(r"[%/\\:]", lambda found: f"%{ord(found[0]):02X}", case.name)  # a name, wherever it says it lies
    output = f"{folder / PICTURES}{os.sep}"
    path = output_path(name, row["emotion"], strength=row["strength"], output=output, many=True, suffix=suffix)
    save_picture(image, path, overwrite=True)
    return path.relative_to(folder).as_posix()


def fingerprint(photo_editor: PhotoEditor) -> str:
    """A fingerprint of everything an editor computes with.

    Args:
        photo_editor: the editor with its compositor.
    """
    editor = photo_editor.editor
    backbone = editor.backbone
    emotions = [steering.emotions for steering in editor.steerings]
    shape = (repr(photo_editor.compositor), type(backbone).__name__, backbone.crop, emotions)
    digest = hashlib.sha256(repr(shape).encode())
    if backbone.settings:  # how many steps it takes, and from where, is not in the weights
        digest.update(json.dumps(backbone.to_config(), sort_keys=True).encode())
    for part in (backbone, *editor.steerings):
        for content in checkpoints.tensor_bytes(part.state_dict()):
            digest.update(content)
    return digest.hexdigest()[:16]


def _check_or_write_settings(folder: Path, plan: Plan) -> None:
    """Write down what the results are made with, or make sure that it is what earlier ones were made with."""
    now = {entry.name: fingerprint(entry.photo_editor) for entry in plan.entries}
    settings = {**plan.settings(), "editors": now}
    path = folder / SETTINGS
    if not path.is_file():
        if (folder / RESULTS).is_file() and (folder / RESULTS).stat().st_size:
            raise DataError(f"{folder} holds {RESULTS} but no {SETTINGS}: it is not known what made them")
        write_json(path, settings)
        return
    before = renamed(checkpoints.read_json(path))
    editors = before.pop("editors", {})
    changed = [name for name in now if editors.get(name, now[name]) != now[name]]
    other = [name for name, value in settings.items() if name != "editors" and before.get(name) != value]
    if changed or other:
        raise DataError(
            f"{folder} holds results made with another {', '.join([*other, *changed])}; choose another folder"
        )
    write_json(path, {**settings, "editors": {**editors, **now}}, overwrite=True)

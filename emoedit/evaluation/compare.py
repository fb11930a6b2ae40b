"""Editors side by side on one photograph: every emotion at every strength, measured."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emoedit.editors import Editor
from emoedit.evaluation.entries import NOTHING as NOTHING
from emoedit.evaluation.entries import PHOTOGRAPH as PHOTOGRAPH
from emoedit.evaluation.entries import Entry as Entry
from emoedit.evaluation.entries import canonical_names as canonical_names
from emoedit.evaluation.entries import check_known as check_known
from emoedit.evaluation.entries import edited_rows as edited_rows
from emoedit.evaluation.entries import failed_row as failed_row
from emoedit.evaluation.entries import load_entries as load_entries
from emoedit.evaluation.entries import photograph_row as photograph_row
from emoedit.evaluation.entries import unedited_row as unedited_row
from emoedit.faces.detect import Face, FaceDetector
from emoedit.io.images import Picture, load_picture, save_picture, write_atomic
from emoedit.metrics.measure import measures
from emoedit.metrics.suite import Subject, Suite
from emoedit.photo import PhotoEditor
from emoedit.report.grid import labelled_grid
from emoedit.report.html import Column, ReportEntry, Sheet, write_comparison
from emoedit.types import Edit, EditError, EmoEditError, MissingExtraError, OutputError

HEAD = 1.6  # side of a picture in a report, in sides of the detector's box
RESULTS, GRID, REPORT = "results.jsonl", "grid.png", "report.html"


def columns(rows: Iterable[Mapping[str, Any]]) -> list[Column]:
    """What a report shows of rows: every registered metric that some row has a number for.

    Args:
        rows: rows of results.
    """
    found = list(rows)
    return [
        Column(m.key, m.title, m.digits, m.higher_is_better, m.help)
        for m in measures()
        if any(row.get(m.key) is not None for row in found)
    ]


def head_of(image: Image.Image, face: Face) -> Image.Image:
    """The square around a face that a report shows.

    Args:
        image: the photograph.
        face: found in it.
    """
    x0, y0, x1, y1 = face.box
    half = HEAD / 2 * max(x1 - x0, y1 - y0)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    box = max(0, cx - half), max(0, cy - half), min(image.width, cx + half), min(image.height, cy + half)
    left, top, right, bottom = (round(v) for v in box)
    return image.crop((left, top, right, bottom))


def to_pandas(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Rows as a ``pandas.DataFrame``.

    Args:
        rows: rows of results.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("pandas", "metrics") from error
    return pandas.DataFrame.from_records(list(rows))


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found.

    Args:
        photo: the photograph's name.
        rows: a dict an edit (``emoedit.metrics.measure.measures`` and more), flat and ready for a data frame.
        images: one a row, cut to the head; None where a row has an error.
        source: the unedited head.
    """

    photo: str
    rows: list[dict[str, Any]]
    images: list[Image.Image | None]
    source: Image.Image

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame`` (extra ``metrics``)."""
        return to_pandas(self.rows)

    def _repr_html_(self) -> str:
        from emoedit.report.display import comparison_html

        return comparison_html(self)

    def sheet(self) -> Sheet:
        """For a report."""
        entries = [ReportEntry(row, image) for row, image in zip(self.rows, self.images, strict=True)]
        return Sheet(self.photo, self.source, entries)

    def grid(self) -> Image.Image:
        """A row of pictures for every emotion and editor: the source and each strength."""
        groups: dict[tuple[str, str], list[tuple[str, Image.Image]]] = {}
        for row, image in zip(self.rows, self.images, strict=True):
            if image is not None and row["editor"] != NOTHING:
                words = "" if row["strength"] is None else f" {row['strength']:g}"
                label = f"{row['editor']} {row['emotion']}{words}"
                groups.setdefault((row["emotion"], row["editor"]), []).append((label, image))
        columns = 1 + max((len(group) for group in groups.values()), default=0)
        order = list(dict.fromkeys(emotion for emotion, _ in groups))
        cells = []
        for _, group in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
            blank = Image.new("RGB", (1, 1), "white")
            cells += [("source", self.source), *group, *[("", blank)] * (columns - 1 - len(group))]
        cells = cells or [("source", self.source)]
        return labelled_grid([image for _, image in cells], [label for label, _ in cells], columns=columns, cell=256)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write ``results.jsonl``, ``grid.png`` and ``report.html``.

        Args:
            folder: made if need be.
            overwrite: whether files that exist are replaced.

        Raises:
            OutputError: one of them exists and ``overwrite`` is not set, or cannot be written.
        """
        folder = Path(folder).expanduser()
        check_free(folder, overwrite)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        data = lines.encode("utf-8", "backslashreplace")
        write_atomic(folder / RESULTS, lambda file: file.write(data), overwrite=overwrite)
        save_picture(self.grid(), folder / GRID, overwrite=overwrite)
        write_comparison(
            folder / REPORT,
            [self.sheet()],
            columns(self.rows),
            title=f"Emotion edits of {self.photo}",
            notes=notes(self.rows),
            overwrite=overwrite,
        )
        return folder


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds results.

    Args:
        folder: folder of results.
        overwrite: whether results that exist may be replaced.

    Raises:
        OutputError: a result is there already.
    """
    taken = [name for name in (RESULTS, GRID, REPORT) if (folder / name).exists()]
    if taken and not overwrite:
        raise OutputError(f"{folder} holds {', '.join(taken)} already; choose another folder, or overwrite")


def notes(rows: Collection[Mapping[str, Any]]) -> list[str]:
    """Sentences on the metric networks and the reference rows.

    Args:
        rows: rows of results.
    """
    measured = next((row for row in rows if row.get("identity_backend")), None)
    if measured is None:
        return []
    told = [
        f"Metric networks: identity {measured['identity_backend']}, perceptual distance "
        f"{measured['perceptual_backend']}, expressions {measured['expression_backend']}."
    ]
    if any(row["reference"] for row in rows):
        told.append(
            "References: nothing (the source itself; its HES is not 0 either), pixel_mean (a class-mean difference, "
            "added), mean_warp (one smile for everybody), and, where it is known, the true photograph."
        )
    told.append(
        "A recogniser can be fooled by a torn face: read the target score beside folds, sharpness and the detector's "
        "confidence."
    )
    return told


def compare(
    photo: Any,
    emotions: str | Sequence[str] = "happy",
    *,
    editors: str | Sequence[str | Editor | PhotoEditor] = "all",
    strengths: Sequence[float] = (0.5, 1.0),
    truth: Mapping[str, Any] | None = None,
    references: bool = True,
    face: str | int = "largest",
    seed: int = 0,
    suite: Suite | None = None,
    device: str = "auto",
    stage: str = "photo",
) -> Comparison:
    """Edit one photograph with several editors and measure every edit.

    Args:
        photo: a path, bytes, PIL picture, array or tensor.
        emotions: names or algebra on names; rows hold the canonical form of a name.
        editors: ``"all"`` embedded ones, or names, folders, editors.
        strengths: 0 is the source, 1 the fitted effect.
        truth: emotion -> a photograph of the same person really showing it, where there is one.
        references: whether the reference rows stand beside the editors.
        face: ``"largest"`` or an index by size.
        seed: seed of the noise that an editor draws.
        suite: the metric networks; default: a new one with its defaults.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        stage: ``"photo"``: edits as they are put into photographs; ``"crop"``: what the models themselves change.

    Returns:
        Rows and pictures. An edit that fails is a row with its ``error``; other edits go on.

    Raises:
        ImageError: the photograph or a truth cannot be read.
        NoFaceError: the photograph or a truth shows no face.
        UnknownNameError: an emotion that an editor, or the recogniser, does not know; an editor that does not exist.
        EditError: a strength or a choice of editors that makes no sense; a truth of an emotion that is not edited.
        CheckpointError: damaged weights.
    """
    names = canonical_names([emotions] if isinstance(emotions, str) else emotions)
    edits = [Edit(name, s) for name, s in product(names, dict.fromkeys(float(s) for s in strengths))]
    if face == "all":
        raise EditError("a comparison is about one face: 'largest', or an index by size")
    truth = _truths_of(names, truth or {})
    entries = load_entries(editors, references=references, device=device, stage=stage)
    check_known(entries, names)
    suite = suite or Suite()
    suite.check_emotions(names)
    picture = load_picture(photo)
    detector = entries[0].photo_editor.detector
    found = detector.choose(picture.rgb, face)[0]
    truths = _with_faces(truth, detector)
    subjects = {name: suite.subject(picture.rgb, found, truths.get(name)) for name in names}
    made = _rows_of(entries, edits, suite, picture, subjects, found, seed=seed)
    others = _references(suite, picture, subjects, truths, found) if references else ()
    shown = [(row, None if image is None else head_of(image, where)) for row, image, where in chain(made, others)]
    rows, images = [{"photo": picture.name, **row} for row, _ in shown], [image for _, image in shown]
    return Comparison(picture.name, rows, images, head_of(picture.to_pil(), found))


def _truths_of(names: Sequence[str], truth: Mapping[str, Any]) -> dict[str, Any]:
    """True photographs by the canonical name of their emotion.

    Raises:
        EditError: one of an emotion that is not edited.
    """
    truth = {canonical_names([name])[0]: other for name, other in truth.items()}
    if apart := [name for name in truth if name not in names]:
        raise EditError(f"a truth for {', '.join(apart)}, which is not among the emotions {', '.join(names)}")
    return truth


def _with_faces(truth: Mapping[str, Any], detector: FaceDetector) -> dict[str, tuple[np.ndarray, Face]]:
    """Pixels and face of each true photograph."""
    found = {}
    for emotion, other in truth.items():
        pixels = load_picture(other).rgb
        found[emotion] = pixels, detector.choose(pixels)[0]
    return found


def _references(
    suite: Suite,
    picture: Picture,
    subjects: Mapping[str, Subject],
    truths: Mapping[str, tuple[np.ndarray, Face]],
    face: Face,
) -> Iterator[tuple[dict[str, Any], Image.Image, Face]]:
    """For each emotion doing nothing and, where it is known, the true photograph; with the face that is meant."""
    for name, subject in subjects.items():
        yield (*unedited_row(suite, picture, subject, name), face)
        if name in truths:
            yield (*photograph_row(suite, subject, *truths[name], name), truths[name][1])


def _rows_of(
    entries: Sequence[Entry],
    edits: Sequence[Edit],
    suite: Suite,
    picture: Picture,
    subjects: Mapping[str, Subject],
    face: Face,
    *,
    seed: int,
) -> Iterator[tuple[dict[str, Any], Image.Image | None, Face]]:
    """Every editor's edits of one photograph with their numbers; references only edit the emotions they support."""
    from tqdm import tqdm

    jobs = [(c, [e for e in edits if c.supports(e.emotion) or not c.reference]) for c in entries]
    with tqdm(total=sum(len(own) for _, own in jobs), unit="edit", disable=None) as bar:
        for entry, own in jobs:
            done = 0
            try:
                for made in edited_rows(suite, entry, picture, subjects, face, own, seed=seed):
                    yield (*made, face)
                    done += 1
                    bar.update()
            except EmoEditError as error:
                for edit in own[done:]:
                    yield failed_row(entry, edit, error, seed=seed), None, face
                    bar.update()

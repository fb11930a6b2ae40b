"""Editors side by side on one photograph: every emotion at every strength, measured."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emoedit.editors import Editor, list_editors, load_editor
from emoedit.emotions import canonical, resolve
from emoedit.faces.detect import Face, FaceDetector
from emoedit.io import checkpoints
from emoedit.io.images import Picture, load_picture, save_picture, write_atomic
from emoedit.metrics.measure import measures
from emoedit.metrics.null_suite import NullSuite
from emoedit.metrics.suite import Subject, Suite
from emoedit.photo import PhotoEdit, PhotoEditor
from emoedit.report.grid import labelled_grid
from emoedit.report.html import Column, ReportEntry, Sheet, write_comparison
from emoedit.types import Edit, EditError, EmoEditError, MissingExtraError, OutputError, UnknownNameError

NOTHING, PHOTOGRAPH = "nothing", "photograph"  # reference rows that no editor makes
BATCH = 8  # edits that are measured at once: memory stays flat however many there are
HEAD = 1.6  # side of a picture in a report, in sides of the detector's box
RESULTS, GRID, REPORT = "results.jsonl", "grid.png", "report.html"


@dataclass(frozen=True)
class Entry:
    """An editor in a comparison.

    Args:
        name: in rows.
        photo_editor: what edits.
        reference: whether it is what others are held against.
    """

    name: str
    photo_editor: PhotoEditor
    reference: bool = False

    def knows(self, emotion: str) -> bool:
        """Whether every steering of it can show this emotion."""
        try:
            for steering in self.photo_editor.editor.steerings:
                resolve(emotion, steering.emotions)
        except EmoEditError:
            return False
        return True


def columns(rows: Iterable[Mapping[str, Any]]) -> list[Column]:
    """What a report shows of rows: every registered metric that some row has a number for."""
    found = list(rows)
    return [
        Column(m.key, m.title, m.digits, m.higher_is_better, m.help)
        for m in measures()
        if any(row.get(m.key) is not None for row in found)
    ]


def load_entries(
    editors: str | Sequence[str | Editor | PhotoEditor] = "all", *, references: bool = True, device: str = "auto"
) -> list[Entry]:
    """The editors to compare, each loaded once, and the reference editors of this package after them.

    Args:
        editors: ``"all"`` for every embedded one, or names, folders, editors.
        references: whether the reference editors of this package stand after them.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.

    Raises:
        EditError: none, or two of one name.
        UnknownNameError: no such editor.
        CheckpointError: damaged weights.
    """
    wanted = list_editors() if editors == "all" else [editors] if isinstance(editors, str) else editors
    detector = FaceDetector()
    chosen = []
    for one in wanted:
        if isinstance(one, PhotoEditor):
            editor = one
        else:
            loaded = load_editor(one, device=device) if isinstance(one, str | os.PathLike) else one
            editor = PhotoEditor(loaded, detector=detector)
        chosen.append(Entry(editor.editor.name, editor))
    if not chosen:
        raise EditError("no editor to compare; name one, or 'all'")
    if references:
        here = {entry.name for entry in chosen}
        for name in checkpoints.reference_names():
            if name not in here:
                chosen.append(Entry(name, PhotoEditor(load_editor(name, device=device), detector=detector), True))
    names = [entry.name for entry in chosen]
    if len(set(names)) < len(names) or {NOTHING, PHOTOGRAPH} & set(names):
        raise EditError(f"editors in a comparison have names of their own, found {', '.join(names)}")
    return chosen


def edited(
    suite: Suite | NullSuite,
    entry: Entry,
    picture: Picture,
    subjects: Mapping[str, Subject],
    face: Face,
    edits: Sequence[Edit],
    *,
    seed: int = 0,
) -> Iterator[tuple[dict[str, Any], Image.Image | None]]:
    """One editor's edits of one photograph with their numbers, in their order; inverted once.

    An edit that fails is a row with its error and no picture.

    Args:
        suite: what measures.
        entry: what edits.
        picture: the photograph.
        subjects: emotion -> the source as ``emoedit.metrics.suite.Suite.subject`` saw it (with the truth of that
            emotion, where there is one).
        face: which face of the photograph.
        edits: emotions and strengths.
        seed: of the noise that an editor draws.

    Raises:
        EmoEditError: whatever the editor meets when it opens the photograph.
    """
    opened = entry.photo_editor.open(picture, face, seed=seed)
    waiting: list[tuple[Edit, PhotoEdit | EmoEditError]] = []

    def measured() -> Iterator[tuple[dict[str, Any], Image.Image | None]]:
        for emotion, pairs in groupby(waiting, key=lambda pair: pair[0].emotion):
            group = list(pairs)
            pixels = [np.asarray(made.image.convert("RGB")) for _, made in group if isinstance(made, PhotoEdit)]
            rows = iter(suite.measure(subjects[emotion], pixels, [emotion] * len(pixels)))
            for edit, made in group:
                if isinstance(made, PhotoEdit):
                    head = {
                        "editor": entry.name,
                        "reference": entry.reference,
                        "emotion": emotion,
                        "strength": edit.strength,
                        "seed": seed,
                        "seconds": round(made.seconds, 4),
                        "error": None,
                    }
                    yield head | next(rows), made.image
                else:
                    yield failed(entry, edit, made, seed=seed), None

    for pair in zip(edits, entry.photo_editor.attempt(opened, edits, seed=seed), strict=True):
        waiting.append(pair)
        if len(waiting) == BATCH:
            yield from measured()
            waiting = []
    yield from measured()


def nothing(
    suite: Suite | NullSuite, picture: Picture, subject: Subject, emotion: str
) -> tuple[dict[str, Any], Image.Image]:
    """The reference row of an editor that does nothing."""
    row = suite.measure(subject, [subject.photo], [emotion])[0]
    head = {"editor": NOTHING, "reference": True, "emotion": emotion, "strength": None, "seconds": None, "error": None}
    return head | row, picture.to_pil()


def photograph(
    suite: Suite | NullSuite, subject: Subject, truth: np.ndarray, face: Face, emotion: str
) -> tuple[dict[str, Any], Image.Image]:
    """The reference row of the same person really showing the emotion."""
    row = suite.measure_other(subject, truth, face, emotion)
    head = {"editor": PHOTOGRAPH, "reference": True, "emotion": emotion, "strength": None, "seconds": None}
    return head | {"error": None} | row, Image.fromarray(truth)


def failed(entry: Entry, edit: Edit, error: EmoEditError, *, seed: int = 0) -> dict[str, Any]:
    """The row of an edit that could not be made."""
    return {
        "editor": entry.name,
        "reference": entry.reference,
        "emotion": edit.emotion,
        "strength": edit.strength,
        "seed": seed,
        "seconds": None,
        "error": str(error),
    }


def head_of(image: Image.Image, face: Face) -> Image.Image:
    """The square around a face that a report shows."""
    x0, y0, x1, y1 = face.box
    half = HEAD / 2 * max(x1 - x0, y1 - y0)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    box = max(0, cx - half), max(0, cy - half), min(image.width, cx + half), min(image.height, cy + half)
    left, top, right, bottom = (round(v) for v in box)
    return image.crop((left, top, right, bottom))


def to_pandas(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Rows as a ``pandas.DataFrame``.

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

    Raises:
        OutputError: a result is there already.
    """
    taken = [name for name in (RESULTS, GRID, REPORT) if (folder / name).exists()]
    if taken and not overwrite:
        raise OutputError(f"{folder} holds {', '.join(taken)} already; choose another folder, or overwrite")


def notes(rows: Collection[Mapping[str, Any]]) -> list[str]:
    """Which networks measured, in words, and what the reference rows are."""
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
    progress: bool = False,
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
        seed: of the noise that an editor draws.
        suite: what measures; default: a new one with its defaults.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        progress: whether to show a bar on standard error.

    Returns:
        Rows and pictures. An edit that fails is a row with its ``error``; other edits go on.

    Raises:
        ImageError: of the photograph or a truth.
        NoFaceError: of the photograph or a truth.
        UnknownNameError: an emotion that an editor, or the recogniser, does not know; an editor that does not exist.
        EditError: a strength or a choice of editors that makes no sense; a truth of an emotion that is not edited.
        CheckpointError: damaged weights.
    """
    names = canonical_names([emotions] if isinstance(emotions, str) else emotions)
    strengths = list(dict.fromkeys(float(s) for s in strengths))
    edits = [Edit(name, s) for name in names for s in strengths]
    if face == "all":
        raise EditError("a comparison is about one face: 'largest', or an index by size")
    truth = {canonical_names([name])[0]: other for name, other in (truth or {}).items()}
    if apart := [name for name in truth if name not in names]:
        raise EditError(f"a truth for {', '.join(apart)}, which is not among the emotions {', '.join(names)}")
    entries = load_entries(editors, references=references, device=device)
    check_known(entries, names)
    suite = suite or Suite()
    suite.check_emotions(names)
    picture = load_picture(photo)
    found = entries[0].photo_editor.detector.choose(picture.rgb, face)[0]
    truths = {}
    for emotion, other in truth.items():
        pixels = load_picture(other).rgb
        truths[emotion] = pixels, entries[0].photo_editor.detector.choose(pixels)[0]
    subjects = {name: suite.subject(picture.rgb, found, truths.get(name)) for name in names}
    rows: list[dict[str, Any]] = []
    images: list[Image.Image | None] = []
    for row, image in _rows_of(entries, edits, suite, picture, subjects, found, seed=seed, progress=progress):
        rows.append({"photo": picture.name, **row})
        images.append(None if image is None else head_of(image, found))
    for name in names if references else ():
        references_of = [(*nothing(suite, picture, subjects[name], name), found)]
        if name in truths:
            references_of.append((*photograph(suite, subjects[name], *truths[name], name), truths[name][1]))
        for row, image, where in references_of:
            rows.append({"photo": picture.name, **row})
            images.append(head_of(image, where))
    return Comparison(picture.name, rows, images, head_of(picture.to_pil(), found))


def _rows_of(
    entries: Sequence[Entry],
    edits: Sequence[Edit],
    suite: Suite,
    picture: Picture,
    subjects: Mapping[str, Subject],
    face: Face,
    *,
    seed: int,
    progress: bool,
) -> Iterator[tuple[dict[str, Any], Image.Image | None]]:
    """Every editor's edits of one photograph with their numbers; references are asked only for what they know."""
    from tqdm import tqdm

    jobs = [(c, [e for e in edits if c.knows(e.emotion) or not c.reference]) for c in entries]
    with tqdm(total=sum(len(own) for _, own in jobs), unit="edit", disable=None if progress else True) as bar:
        for entry, own in jobs:
            done = 0
            try:
                for made in edited(suite, entry, picture, subjects, face, own, seed=seed):
                    yield made
                    done += 1
                    bar.update()
            except EmoEditError as error:
                for edit in own[done:]:
                    yield failed(entry, edit, error, seed=seed), None
                    bar.update()


def canonical_names(emotions: Iterable[str]) -> list[str]:
    """Each emotion once, names in the canonical form that recognisers and true photographs go by, algebra as it is."""
    found = []
    for emotion in emotions:
        try:
            found.append(canonical(emotion))
        except UnknownNameError:
            found.append(emotion)
    return list(dict.fromkeys(found))


def check_known(entries: Sequence[Entry], emotions: Sequence[str]) -> None:
    """Refuse emotions that an editor in the comparison cannot show.

    References need not know them.

    Raises:
        UnknownNameError: an emotion that an editor in the comparison cannot show (references need not know it).
    """
    for entry in entries:
        if not entry.reference:
            for emotion in emotions:
                for steering in entry.photo_editor.editor.steerings:
                    resolve(emotion, steering.emotions)

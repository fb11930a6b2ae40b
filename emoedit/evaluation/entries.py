"""The editors of a comparison, and the rows that one of them, or a reference, makes of one photograph."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image

from emoedit.editors import Editor, list_editors, load_editor
from emoedit.emotions import canonical, resolve
from emoedit.faces.detect import Face
from emoedit.io import checkpoints
from emoedit.io.images import Picture
from emoedit.metrics.null_suite import NullSuite
from emoedit.metrics.suite import Subject, Suite
from emoedit.photo import PhotoEdit, PhotoEditor
from emoedit.types import Edit, EditError, EmoEditError, UnknownNameError

NOTHING, PHOTOGRAPH = "nothing", "photograph"  # reference rows that no editor makes
# Where edits are measured: as they are put into photographs, or the model's own change, without what puts it there.
STAGES = {"photo": None, "crop": "added"}  # -> compositor, None for the editor's own
BATCH = 8  # edits that are measured at once: memory stays flat however many there are


@dataclass(frozen=True)
class Entry:
    """An editor in a comparison.

    Args:
        name: name in rows.
        photo_editor: the editor.
        reference: whether others are compared with it.
    """

    name: str
    photo_editor: PhotoEditor
    reference: bool = False

    def supports(self, emotion: str) -> bool:
        """Whether every steering of it can show this emotion.

        Args:
            emotion: a name, or algebra on names.
        """
        try:
            for steering in self.photo_editor.editor.steerings:
                resolve(emotion, steering.emotions)
        except EmoEditError:
            return False
        return True


def load_entries(
    editors: str | Sequence[str | Editor | PhotoEditor] = "all",
    *,
    references: bool = True,
    device: str = "auto",
    stage: str = "photo",
) -> list[Entry]:
    """The editors to compare, each loaded once, and the reference editors of this package after them.

    Args:
        editors: ``"all"`` for every embedded one, or names, folders, editors.
        references: whether the reference editors of this package stand after them.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        stage: ``"photo"`` for edits as the editors' compositors put them into photographs; ``"crop"`` for what the
            models themselves change, added to the photographs as it is.

    Raises:
        EditError: none, or two of one name; no such stage.
        UnknownNameError: no such editor.
        CheckpointError: damaged weights.
    """
    wanted = list_editors() if editors == "all" else [editors] if isinstance(editors, str) else editors
    if stage not in STAGES:
        raise EditError(f"edits are measured at stage {' or '.join(STAGES)}, not {stage!r}")
    compositor = STAGES[stage]
    chosen = []
    for one in wanted:
        if isinstance(one, PhotoEditor):
            editor = (
                one if compositor is None else PhotoEditor(one.editor, detector=one.detector, compositor=compositor)
            )
        else:
            loaded = load_editor(one, device=device) if isinstance(one, str | os.PathLike) else one
            editor = PhotoEditor(loaded, compositor=compositor)
        chosen.append(Entry(editor.editor.name, editor))
    if not chosen:
        raise EditError("no editor to compare; name one, or 'all'")
    if references:
        here = {entry.name for entry in chosen}
        for name in checkpoints.reference_names():
            if name not in here:
                loaded = load_editor(name, device=device)
                chosen.append(Entry(name, PhotoEditor(loaded, compositor=compositor), True))
    names = [entry.name for entry in chosen]
    if len(set(names)) < len(names) or {NOTHING, PHOTOGRAPH} & set(names):
        raise EditError(f"editors in a comparison have names of their own, found {', '.join(names)}")
    return chosen


def edited_rows(
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
        suite: the metric networks.
        entry: the editor.
        picture: the photograph.
        subjects: emotion -> the source as ``emoedit.metrics.suite.Suite.subject`` saw it (with the truth of that
            emotion, where there is one).
        face: the face in the photograph.
        edits: emotions and strengths.
        seed: seed of the noise that an editor draws.

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
                    yield failed_row(entry, edit, made, seed=seed), None

    for pair in zip(edits, entry.photo_editor.attempt(opened, edits, seed=seed), strict=True):
        waiting.append(pair)
        if len(waiting) == BATCH:
            yield from measured()
            waiting = []
    yield from measured()


def unedited_row(
    suite: Suite | NullSuite, picture: Picture, subject: Subject, emotion: str
) -> tuple[dict[str, Any], Image.Image]:
    """The reference row of an editor that does nothing.

    Args:
        suite: suite of metric networks.
        picture: the photograph.
        subject: the source as the suite sees it.
        emotion: the measured emotion.
    """
    row = suite.measure(subject, [subject.photo], [emotion])[0]
    head = {"editor": NOTHING, "reference": True, "emotion": emotion, "strength": None, "seconds": None, "error": None}
    return head | row, picture.to_pil()


def photograph_row(
    suite: Suite | NullSuite, subject: Subject, truth: np.ndarray, face: Face, emotion: str
) -> tuple[dict[str, Any], Image.Image]:
    """The reference row of the same person really showing the emotion.

    Args:
        suite: suite of metric networks.
        subject: the source as the suite sees it.
        truth: uint8 ``[H, W, 3]``, of the same person.
        face: found in it.
        emotion: the emotion it shows.
    """
    row = suite.measure_other(subject, truth, face, emotion)
    head = {"editor": PHOTOGRAPH, "reference": True, "emotion": emotion, "strength": None, "seconds": None}
    return head | {"error": None} | row, Image.fromarray(truth)


def failed_row(entry: Entry, edit: Edit, error: EmoEditError, *, seed: int = 0) -> dict[str, Any]:
    """The row of an edit that could not be made.

    Args:
        entry: the editor.
        edit: the failed edit.
        error: why.
        seed: seed of the noise that an editor draws.
    """
    return {
        "editor": entry.name,
        "reference": entry.reference,
        "emotion": edit.emotion,
        "strength": edit.strength,
        "seed": seed,
        "seconds": None,
        "error": str(error),
    }


def canonical_names(emotions: Iterable[str]) -> list[str]:
    """Each emotion once, names in the canonical form that recognisers and true photographs go by, algebra as it is.

    Args:
        emotions: names, or algebra on names.
    """
    found = []
    for emotion in emotions:
        try:
            found.append(canonical(emotion))
        except UnknownNameError:
            found.append(emotion)
    return list(dict.fromkeys(found))


def check_known(entries: Sequence[Entry], emotions: Sequence[str]) -> None:
    """Refuse emotions that an editor in the comparison cannot show.

    References need not support them.

    Args:
        entries: the editors.
        emotions: names, or algebra on names.

    Raises:
        UnknownNameError: an emotion that an editor in the comparison cannot show (references need not support it).
    """
    for entry in entries:
        if not entry.reference:
            for emotion in emotions:
                for steering in entry.photo_editor.editor.steerings:
                    resolve(emotion, steering.emotions)

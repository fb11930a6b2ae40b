"""The Compare tab's callbacks: editors beside each other on one photograph, measured."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from emoedit.app.session import Session, SessionError
from emoedit.app.studio import Studio
from emoedit.report.grid import labelled_grid

if TYPE_CHECKING:
    from emoedit.evaluation.compare import Comparison

MAX_CELLS = 60  # edits of one comparison: with five editors that is twelve emotions and strengths


@dataclass(frozen=True)
class Compared:
    """What the tab shows.

    Args:
        grid: a row for each emotion and strength, a column for each editor, with their numbers.
        report: markup of the frame that holds the report.
        file: file of the report, to download.
        failures: failures of edits that could not be made, in words.
    """

    grid: Image.Image
    report: str
    file: Path
    failures: tuple[str, ...]


def compare_editors(
    studio: Studio,
    session: Session,
    face: int | None,
    editors: Sequence[str],
    emotions: Sequence[str],
    strengths: Sequence[float],
    callback: Callable[[int, int], None] | None = None,
) -> Compared:
    """Edit the open photograph with every editor and measure every edit.

    Args:
        studio: models and sessions.
        session: session with the photograph, as it was opened in the Edit tab.
        face: its number; None, which is all faces there, is the largest here.
        editors: names.
        emotions: names or algebra on names.
        strengths: strengths of each.
        callback: called with (editors done, editors in all).

    Raises:
        SessionError: no photograph is open; nothing, or too much, is to be compared.
        UnknownNameError: an editor or the recogniser does not support an emotion.
    """
    from emoedit.evaluation.compare import compare

    photo = session.need_photo()
    if not (editors and emotions and strengths):
        raise SessionError("choose at least one editor, one emotion and one strength")
    count = len(editors) * len(emotions) * len(strengths)
    if count > MAX_CELLS:
        raise SessionError(
            f"that is {count} edits; at most {MAX_CELLS} at once: choose fewer, or use `emoedit compare`"
        )
    results = []
    with studio.comparing:  # its models are not those of the Edit tab, which stays usable
        for number, editor in enumerate(editors):
            if callback is not None:
                callback(number, len(editors))
            results.append(
                compare(
                    photo.shown,
                    list(emotions),
                    editors=[studio.compared_editor(editor)],
                    strengths=list(strengths),
                    references=False,
                    face=face or 0,
                    suite=studio.suite,
                )
            )
    joined = _joined(results)
    path = session.file("report.html")
    joined.save(path.parent)
    failures = tuple(f"{r['editor']}, {r['emotion']}: {r['error']}" for r in joined.rows if r["error"])
    return Compared(grid(joined, strengths), frame(path.read_text("utf-8")), path, failures)


def _joined(results: Sequence[Comparison]) -> Comparison:
    """Join comparisons of one photograph."""
    first = results[0]
    rows = [row for result in results for row in result.rows]
    return type(first)(first.photo, rows, [image for result in results for image in result.images], first.source)


def grid(found: Comparison, strengths: Sequence[float]) -> Image.Image:
    """The photograph and each editor's edit in a row, with target score and identity under each edit.

    Args:
        found: the comparison, editor by editor.
        strengths: the requested strengths; they are named where there are several.
    """
    rows: dict[tuple[str, float], list[tuple[Image.Image, str]]] = {}
    blank = Image.new("RGB", (1, 1), "white")
    for row, image in zip(found.rows, found.images, strict=True):
        numbers = "failed" if image is None else f"target {row['target_score']:.2f}, identity {row['identity']:.2f}"
        cell = (image or blank, f"{row['editor']}: {numbers}")
        rows.setdefault((row["emotion"], row["strength"]), []).append(cell)
    cells = []
    for (emotion, strength), edits in rows.items():
        label = f"{emotion} at {strength:g}" if len(strengths) > 1 else emotion
        cells += [(found.source, label), *edits]
    columns = 1 + max(map(len, rows.values()))
    return labelled_grid([image for image, _ in cells], [label for _, label in cells], columns=columns, cell=300)


def frame(page: str) -> str:
    """A frame that shows a page apart from this one: its scripts run, but reach neither this page nor the server.

    Args:
        page: markup of all of it.
    """
    return (
        '<iframe class="report" title="Report of the comparison" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(page, quote=True)}"></iframe>'
    )

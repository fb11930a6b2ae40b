"""The Candidates tab's callbacks: many edits of the open photograph, ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from emoedit.app.session import Session, SessionError
from emoedit.app.settings import Settings
from emoedit.app.studio import Studio
from emoedit.app.uploads import pack

if TYPE_CHECKING:
    from emoedit.evaluation.best import Best

MAX_CANDIDATES = 40  # candidates of one search
HEADERS = ("candidate", "kept", "reason")


@dataclass(frozen=True)
class SearchResult:
    """What the tab shows.

    Args:
        explanation: one sentence on the result.
        kept: the best ones with their labels; empty where none reaches the floors.
        sheet: the photograph and all candidates, best first.
        rows: every candidate, its numbers and why it is kept or not, as `HEADERS` has them.
        zip: zip of the kept pictures, the sheet and the numbers.
    """

    explanation: str
    kept: list[tuple[Image.Image, str]]
    sheet: Image.Image
    rows: list[list[str]]
    zip: Path


@dataclass(frozen=True)
class Search:
    """What the controls of the tab say.

    Args:
        face: its number; None, which is all faces in the Edit tab, is the largest here.
        emotion: a name or algebra on names.
        editors: names.
        candidates: how many edits are tried, `MAX_CANDIDATES` at most.
        keep: how many are kept, at most.
        strengths: the weakest and the strongest.
        min_identity: floor of the identity; 0: what one edit of the default editor keeps.
        seed: seed of the noise an editor draws.
    """

    face: int | None
    emotion: str
    editors: Sequence[str]
    candidates: int
    keep: int
    strengths: tuple[float, float]
    min_identity: float
    seed: int


def search(
    studio: Studio, session: Session, asked: Search, callback: Callable[[int, int], None] | None = None
) -> SearchResult:
    """Try many edits of the open photograph, and rank them ([emoedit.evaluation.best][]).

    Args:
        studio: models and sessions.
        session: session with the photograph, as it was opened in the Edit tab.
        asked: what is tried and kept.
        callback: called with (candidates done, candidates in all).

    Raises:
        SessionError: no photograph is open; no emotion or editor; more candidates than `MAX_CANDIDATES`.
        UnknownNameError: no such editor or emotion; an emotion that the recogniser has no class for.
        EditError: numbers that make no sense.
    """
    from emoedit.evaluation.best import Floors, best
    from emoedit.evaluation.naming import editors_in_turn

    photo = session.need_photo()
    if not (asked.emotion and asked.editors):
        raise SessionError("choose an emotion and at least one editor")
    if asked.candidates > MAX_CANDIDATES:
        raise SessionError(f"at most {MAX_CANDIDATES} candidates at once; `emoedit best` takes more")
    share = -(-asked.candidates // len(asked.editors))  # of each editor, rounded up
    with studio.comparing:  # its models are not those of the Edit tab, which stays usable
        found = best(
            photo.shown,
            asked.emotion,
            candidates=asked.candidates,
            keep=asked.keep,
            editors=[[studio.compared_editor(part) for part in editors_in_turn(name)] for name in asked.editors],
            strengths=_spread(*asked.strengths, share),
            face=photo.faces[asked.face or 0],
            seed=asked.seed,
            floors=Floors(identity=asked.min_identity or None),
            suite=studio.suite,
            progress=callback,
        )
    session.best, session.best_face = found, asked.face or 0
    return SearchResult(found.explanation, _labelled(found), found.sheet(), _rows(found), _zip(session, found))


def _spread(weakest: float, strongest: float, count: int) -> list[float]:
    """``count`` strengths, evenly; the middle where it is one."""
    if count == 1:
        return [round((weakest + strongest) / 2, 3)]
    return [round(weakest + (strongest - weakest) * n / (count - 1), 3) for n in range(count)]


def _labelled(found: Best) -> list[tuple[Image.Image, str]]:
    from emoedit.report.display import to_srgb

    return [
        (to_srgb(candidate.image), f"#{rank} {candidate.editor} at {candidate.strength:g}")
        for rank, candidate in enumerate(found.kept, 1)
        if candidate.image is not None
    ]


def _rows(found: Best) -> list[list[str]]:
    told = ((f"{each.editor} at {each.strength:g}", "yes" if each.kept else "no", each) for each in found.candidates)
    return [[name, kept, candidate.reason] for name, kept, candidate in told]


def _zip(session: Session, found: Best) -> Path:
    """The files of ``emoedit best`` as one zip."""
    path = session.file("candidates.zip")
    return pack(path, found.save(path.parent / "files"))


def chosen(session: Session, number: int) -> Settings:
    """The settings of the Edit tab that make a kept candidate.

    Args:
        session: session of the page.
        number: number of the candidate, 0 the best.

    Returns:
        Settings with the candidate's editor, strength and face, and no weights yet.

    Raises:
        SessionError: there is no such candidate, or several editors made it.
    """
    from emoedit.evaluation.naming import IN_TURN

    kept = session.best.kept if session.best is not None else ()
    if not 0 <= number < len(kept):
        raise SessionError("search first, then press one of the candidates that are kept")
    if IN_TURN in kept[number].editor:
        raise SessionError(
            f"{kept[number].editor} is several editors in turn, the Edit tab has one: the zip file holds this picture"
        )
    return Settings((), kept[number].strength, kept[number].editor, 0.0, session.best_face)

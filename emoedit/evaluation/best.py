"""Many edits of one photograph, ranked: the ones that show the emotion best, on the same person, without damage.

Candidates differ in editor and strength. Each is measured, and ranked by *target score x identity x realism*: the
probability with which a recogniser reads the emotion, how much of the person is kept, and how far the picture is free
of damage. Floors come first: a candidate below one of them is never kept, however well it scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from emoedit.emotions import resolve
from emoedit.evaluation.ranking import CELL, Ranking
from emoedit.faces.detect import Face
from emoedit.io.images import Picture, load_picture
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.registry import DEFAULT_EDITOR
from emoedit.report.grid import labelled_grid
from emoedit.types import Edit, EditError, EmoEditError

EDITORS = (DEFAULT_EDITOR, "facs", "vae")  # the fast ones: a tenth to a third of a second an edit
WEAKEST, STRONGEST = 0.7, 1.6  # the strengths between which an editor's candidates are spread
MARGIN = 0.35  # of a face's side: what is shown around it there


@dataclass(frozen=True)
class Candidate:
    """One edit, its measures, and whether it is kept.

    Args:
        editor: name of the editor.
        emotion: as it was asked for.
        strength: strength of the edit.
        seed: seed of the noise an editor draws.
        image: the photograph with the edit; None where the edit failed.
        target_score: probability with which the recogniser reads the emotion, in [0, 1].
        identity: cosine to the source's face, in [-1, 1].
        realism: detector's confidence x share of the face without folds x sharpness kept (at most 1), in [0, 1].
        kept: whether it is among the results.
        reason: why it is kept, or why not.
    """

    editor: str
    emotion: str
    strength: float
    seed: int
    image: Image.Image | None
    target_score: float = 0.0
    identity: float = 0.0
    realism: float = 0.0
    kept: bool = False
    reason: str = ""

    @property
    def score(self) -> float:
        """By which candidates are ranked, in [0, 1]."""
        return self.target_score * max(self.identity, 0.0) * self.realism

    def to_dict(self) -> dict[str, Any]:
        """All but the picture, for JSON."""
        numbers = {
            name: round(float(getattr(self, name)), 4) for name in ("score", "target_score", "identity", "realism")
        }
        return {
            "editor": self.editor,
            "emotion": self.emotion,
            "strength": round(self.strength, 4),
            "seed": self.seed,
            **numbers,
            "kept": self.kept,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Floors:
    """What a candidate has to reach to be kept.

    Args:
        identity: cosine to the source's face, in [-1, 1].
        target_score: probability of the emotion, in [0, 1].
        realism: in [0, 1].
    """

    identity: float = 0.6
    target_score: float = 0.15
    realism: float = 0.5

    def missed(self, candidate: Candidate) -> dict[str, tuple[float, float]]:
        """Name -> number and floor, of the numbers of a candidate that are below their floor.

        Args:
            candidate: a measured edit.
        """
        pairs = {name: (float(getattr(candidate, name)), floor) for name, floor in asdict(self).items()}
        return {name: pair for name, pair in pairs.items() if pair[0] < pair[1]}


FLOORS = Floors()


@dataclass(frozen=True)
class Best(Ranking[Candidate]):
    """The result of a search.

    Args:
        source: the photograph.
        face: the face that was edited.
        emotion: as it was asked for.
        candidates: all, best first; those below a floor and those that failed come last.
        explanation: one sentence on the result.
        floors: what a candidate had to reach.
        backends: names of the metric networks.
    """

    source: Image.Image
    face: Face
    emotion: str
    candidates: tuple[Candidate, ...]
    explanation: str
    floors: Floors
    backends: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every candidate with its numbers and the reason."""
        rows = [candidate.to_dict() for candidate in self.candidates]
        what = {"emotion": self.emotion, "explanation": self.explanation, "floors": asdict(self.floors)}
        return {**what, "backends": self.backends, "candidates": rows}

    def sheet(self, columns: int = 4) -> Image.Image:
        """The source and all candidates that were drawn, best first; what is kept is marked with its rank.

        Args:
            columns: pictures in a row.
        """
        shown = [candidate for candidate in self.candidates if candidate.image is not None]
        labels = ["source"]
        for rank, candidate in enumerate(shown, 1):
            mark = f"#{rank} " if candidate.kept else ""
            labels.append(f"{mark}{candidate.editor} {candidate.strength:.2g}: {candidate.score:.2f}")
        pictures = [_crop_face(picture, self.face) for picture in (self.source, *(c.image for c in shown if c.image))]
        return labelled_grid(pictures, labels, columns=columns, cell=CELL)

    def stem(self, candidate: Candidate) -> str:
        """Editor and strength.

        Args:
            candidate: a candidate that is kept.
        """
        return f"{candidate.editor}_{candidate.strength:.2f}"


def plan_candidates(
    editors: Sequence[str], candidates: int, strengths: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Which editor tries which strength: every editor about as often, its strengths spread evenly.

    Args:
        editors: names; of more than there are candidates, the first.
        candidates: how many.
        strengths: strengths to use in turn; None for evenly spread ones.

    Raises:
        EditError: no editor, or fewer than one candidate.
    """
    if not editors or candidates < 1:
        raise EditError(f"{candidates} candidates of {len(editors)} editors: at least one of each is needed")
    editors = list(dict.fromkeys(editors))[:candidates]
    shares = [candidates // len(editors) + (n < candidates % len(editors)) for n in range(len(editors))]
    planned = []
    for editor, share in zip(editors, shares, strict=True):
        spread = [1.0] if share == 1 else np.linspace(WEAKEST, STRONGEST, share).round(3).tolist()
        chosen = spread if strengths is None else list(strengths)[:share]
        planned += [(editor, float(strength)) for strength in chosen]
    return planned


def best(
    photo: Any,
    emotion: str = "happy",
    *,
    candidates: int = 12,
    keep: int = 3,
    editors: Sequence[str | PhotoEditor] = EDITORS,
    strengths: Sequence[float] | None = None,
    face: str | int | Face = "largest",
    seed: int = 0,
    floors: Floors = FLOORS,
    suite: Suite | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Best:
    """Try many edits and keep the best.

    Args:
        photo: a path, bytes, PIL picture, array or tensor.
        emotion: a name, or algebra on names, that the recogniser has a class for.
        candidates: how many edits are tried.
        keep: how many are kept, at most.
        editors: names, or photo editors that are loaded already.
        strengths: strengths of every editor; None spreads them from 0.7 to 1.6.
        face: the face to edit: ``"largest"``, an index by size, or a face that was found before.
        seed: seed of the noise an editor draws.
        floors: what a candidate has to reach.
        suite: suite of metric networks that are loaded already.
        device: device of the editors and networks.
        progress: called with (candidates done, candidates in all).

    Raises:
        ImageError: the photograph cannot be read.
        NoFaceError: it shows no face, or not that one.
        UnknownNameError: no such editor or emotion; an emotion that the recogniser has no class for.
        EditError: numbers that make no sense.
    """
    _check_choice(keep, face)
    suite = suite or Suite(device=device)
    suite.check_emotions([emotion])
    loaded = {e.editor.name if isinstance(e, PhotoEditor) else str(e): e for e in editors}
    planned = plan_candidates(list(loaded), candidates, strengths)
    picture = load_picture(photo)
    made: list[tuple[Face, Candidate]] = []
    for one in _edit_candidates(loaded, planned, picture, emotion, face, seed, device):
        made.append(one)
        if progress is not None:
            progress(len(made), len(planned))
    if not made:
        raise EditError("no editor was given")
    chosen, tried = made[-1][0], [candidate for _, candidate in made]
    ranked = _ranked(_measured(suite, picture, chosen, tried), floors, keep)
    source, said = picture.to_pil(), _explained(ranked, floors)
    return Best(source, chosen, emotion, tuple(ranked), said, floors, suite.backends)


def _check_choice(keep: int, face: str | int | Face) -> None:
    if keep < 1:
        raise EditError(f"at least one candidate has to be kept, not {keep}")
    if face == "all":
        raise EditError("candidates are ranked by one face; name it by its number")


def _edit_candidates(
    loaded: Mapping[str, str | PhotoEditor],
    planned: Sequence[tuple[str, float]],
    picture: Picture,
    emotion: str,
    face: str | int | Face,
    seed: int,
    device: str,
) -> Iterator[tuple[Face, Candidate]]:
    """Each planned edit, made or failed, with the face it is of: the one that the first editor chooses."""
    for name in dict.fromkeys(editor for editor, _ in planned):
        photo_editor = _load(loaded[name], device)
        resolve(emotion, photo_editor.editor.emotions)
        edits = [Edit(emotion, strength) for editor, strength in planned if editor == name]
        opened = photo_editor.open(picture, face, seed=seed, edits=edits)
        face = chosen = opened.faces[0]
        for edit, result in zip(edits, photo_editor.attempt(opened, edits, seed=seed), strict=True):
            if isinstance(result, EmoEditError):
                yield chosen, Candidate(name, emotion, edit.strength, seed, None, reason=f"failed: {result}")
            else:
                yield chosen, Candidate(name, emotion, edit.strength, seed, result.image)


def _load(editor: str | PhotoEditor, device: str) -> PhotoEditor:
    if isinstance(editor, PhotoEditor):
        return editor
    from emoedit.editors import load_editor

    return PhotoEditor(load_editor(editor, device=device))


def _measured(suite: Suite, picture: Picture, face: Face, tried: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with their numbers."""
    subject = suite.subject(picture.rgb, face)
    photos = [load_picture(candidate.image).rgb for candidate in tried if candidate.image is not None]
    rows = iter(suite.measure(subject, photos, [c.emotion for c in tried if c.image is not None]))
    return [candidate if candidate.image is None else _with_numbers(candidate, next(rows)) for candidate in tried]


def _with_numbers(candidate: Candidate, row: dict[str, Any]) -> Candidate:
    realism = float(row["confidence"]) * float(row["fold_free"]) * min(float(row["sharpness_kept"]), 1.0)
    identity = float(row["identity"])
    return replace(candidate, target_score=float(row["target_score"]), identity=identity, realism=realism)


def _ranked(tried: Sequence[Candidate], floors: Floors, keep: int) -> list[Candidate]:
    """Best first, with reasons; what is below a floor or failed comes last."""

    def below(candidate: Candidate) -> list[str]:
        if candidate.image is None:
            return [candidate.reason]
        missed = floors.missed(candidate).items()
        return [f"{name} {value:.2f} is below {floor:.2f}" for name, (value, floor) in missed]

    rated = [(candidate, below(candidate)) for candidate in tried]
    rated.sort(key=lambda pair: (bool(pair[1]), -pair[0].score))
    ranked = []
    for rank, (candidate, faults) in enumerate(rated, 1):
        kept = not faults and rank <= keep
        numbers = f"target {candidate.target_score:.2f} x identity {candidate.identity:.2f}"
        numbers += f" x realism {candidate.realism:.2f} = {candidate.score:.2f}"
        why = "; ".join(faults) if faults else f"rank {rank}: {numbers}" + ("" if kept else f"; {keep} are kept")
        ranked.append(replace(candidate, kept=kept, reason=why))
    return ranked


def _explained(ranked: Sequence[Candidate], floors: Floors) -> str:
    kept = sum(candidate.kept for candidate in ranked)
    if kept:
        first = ranked[0]
        return (
            f"{kept} of {len(ranked)} candidates are kept; the best is {first.editor} at strength {first.strength:g} "
            f"with target {first.target_score:.2f}, identity {first.identity:.2f}, realism {first.realism:.2f}"
        )
    failed = sum(candidate.image is None for candidate in ranked)
    short = Counter(name for candidate in ranked if candidate.image for name in floors.missed(candidate))
    told = {name: f"{short[name]} below {floor:g} in {name}" for name, floor in asdict(floors).items()}
    faults = [text for name, text in told.items() if short[name]]
    faults += [f"{failed} failed"] if failed else []
    return (
        f"none of {len(ranked)} candidates is kept: {', '.join(faults)}. Lower the floor, give other editors or "
        "strengths, or take another photograph"
    )


def _crop_face(picture: Image.Image, face: Face) -> Image.Image:
    """The face and a little around it."""
    x0, y0, x1, y1 = face.box
    side = MARGIN * max(x1 - x0, y1 - y0)
    box = (max(0, x0 - side), max(0, y0 - side), min(picture.width, x1 + side), min(picture.height, y1 + side))
    return picture.crop(tuple(round(v) for v in box))  # type: ignore[arg-type]

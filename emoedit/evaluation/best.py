"""Many edits of one photograph, ranked: the ones that show the emotion best, on the same person, without damage.

Candidates differ in editor and strength. Each is measured, and ranked by *target score x identity x realism*: the
probability with which two recognisers read the emotion, how much of the person is kept, and how far the picture is free
of damage. Floors come first: a candidate below one of them is never kept, however well it scores.

One recogniser alone prefers the candidates that fool it. The second one, trained with other data, another size and
another seed, is fooled by others: the geometric mean of both is high where they agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image

from emoedit.evaluation.naming import QUICK_EDITORS
from emoedit.evaluation.ranking import CELL, Ranking
from emoedit.evaluation.trials import Editors, LoadedEditors, Trials, next_strength, plan_candidates
from emoedit.faces.detect import Face
from emoedit.faces.networks import GUIDANCE, EmbeddedNetwork
from emoedit.io.images import Picture, load_picture
from emoedit.metrics.expression import target_score
from emoedit.metrics.suite import Subject, Suite
from emoedit.registry import DEFAULT_EDITOR
from emoedit.report.grid import labelled_grid
from emoedit.types import EditError, EmoEditError

MEASURED = ("target_score", "identity", "confidence", "fold_free", "sharpness_kept")  # metrics of a candidate
MARGIN = 0.35  # of a face's side: what is shown around it there


@dataclass(frozen=True)
class Candidate:
    """One edit, its measures, and whether it is kept.

    Args:
        editor: name of the editor; names joined by ``+`` of several in turn.
        emotion: as it was asked for.
        strength: strength of the edit.
        seed: seed of the noise an editor draws.
        image: the photograph with the edit; None where the edit failed.
        target_score: probability with which the recogniser reads the emotion, in [0, 1].
        second_score: the same by a second recogniser, in [0, 1].
        identity: cosine to the source's face, in [-1, 1].
        realism: detector's confidence x share of the face without folds x sharpness kept (at most 1), in [0, 1].
        identity_cap: identity above which more does not count, in [-1, 1].
        kept: whether it is among the results.
        reason: why it is kept, or why not.
    """

    editor: str
    emotion: str
    strength: float
    seed: int
    image: Image.Image | None
    target_score: float = 0.0
    second_score: float = 0.0
    identity: float = 0.0
    realism: float = 0.0
    identity_cap: float = 1.0
    kept: bool = False
    reason: str = ""

    @property
    def score(self) -> float:
        """By which candidates are ranked, in [0, 1].

        Identity counts up to the floor: if more counted, the weakest edits, which keep most, would win.
        """
        read = (self.target_score * self.second_score) ** 0.5
        return read * max(min(self.identity, self.identity_cap), 0.0) * self.realism

    def to_dict(self) -> dict[str, Any]:
        """All but the picture, for JSON."""
        names = ("score", "target_score", "second_score", "identity", "realism")
        numbers = {name: round(float(getattr(self, name)), 4) for name in names}
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
        identity: cosine to the source's face, in [-1, 1]; None: what one edit of the default editor keeps.
        target_score: probability of the emotion, in [0, 1].
        realism: in [0, 1].
    """

    identity: float | None = None
    target_score: float = 0.15
    realism: float = 0.5

    def missed(self, candidate: Candidate) -> dict[str, tuple[float, float]]:
        """Name -> number and floor, of the numbers of a candidate that are below their floor.

        Args:
            candidate: a measured edit.
        """
        floors = {name: floor for name, floor in asdict(self).items() if floor is not None}
        pairs = {name: (float(getattr(candidate, name)), floor) for name, floor in floors.items()}
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


def best(
    photo: Any,
    emotion: str = "happy",
    *,
    candidates: int = 12,
    keep: int = 3,
    editors: Editors = QUICK_EDITORS,
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
        candidates: how many edits are tried. Where no floor of the identity is given, the default editor's edit at
            strength 1 is one of them, or one more if it is not among the editors.
        keep: how many are kept, at most.
        editors: names, names joined by ``+`` (each edits the result of the one before), photo editors that are loaded
            already, or several of these in turn.
        strengths: strengths of every editor; None finds those at which an edit keeps just the floor of the identity.
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
    second = EmbeddedNetwork.load(GUIDANCE, device=device)
    search = _Search(load_picture(photo), emotion, face, seed, suite, second, LoadedEditors(editors, device))
    planned = plan_candidates(search.load.names, candidates)
    if floors.identity is None:
        reference = search.reference()
        floors = replace(floors, identity=reference.identity)
        planned[DEFAULT_EDITOR] = max(planned.get(DEFAULT_EDITOR, 0) - 1, 0)
    total = len(search.tried) + sum(planned.values())
    for done in (len(search.tried), *search.try_all(planned, strengths, float(floors.identity or 0.0))):
        if progress is not None and done:
            progress(done, total)
    ranked = _ranked(search.tried, floors, keep)
    source, said = search.picture.to_pil(), _explained(ranked, floors)
    backends = {**suite.backends, "second_backend": GUIDANCE}
    return Best(source, search.chosen, emotion, tuple(ranked), said, floors, backends)


def _check_choice(keep: int, face: str | int | Face) -> None:
    if keep < 1:
        raise EditError(f"at least one candidate has to be kept, not {keep}")
    if face == "all":
        raise EditError("candidates are ranked by one face; name it by its number")


class _Search:
    """Candidates of one photograph, each measured as soon as it is made.

    The face is the one that the first editor finds; all others edit the same.
    """

    def __init__(
        self,
        picture: Picture,
        emotion: str,
        face: str | int | Face,
        seed: int,
        suite: Suite,
        second: EmbeddedNetwork,
        load: LoadedEditors,
    ) -> None:
        self.picture, self.emotion, self.face, self.seed = picture, emotion, face, seed
        self.suite, self.second, self.load = suite, second, load
        self.subject: Subject | None = None
        self.tried: list[Candidate] = []

    @property
    def chosen(self) -> Face:
        """The face that is edited."""
        if not isinstance(self.face, Face):
            raise EditError("nothing was tried")
        return self.face

    def reference(self) -> Candidate:
        """The default editor's edit at strength 1.

        Raises:
            EditError: it fails.
        """
        made = self._try(self._trials(DEFAULT_EDITOR), 1.0)
        if made.image is None:
            raise EditError(f"the default editor's edit, which the others are compared with, {made.reason}")
        return made

    def try_all(self, planned: Mapping[str, int], strengths: Sequence[float] | None, wanted: float) -> Iterator[int]:
        """Try each planned candidate in turn; yields how many were tried in all.

        Args:
            planned: how many candidates each editor makes.
            strengths: strengths of every editor; None finds those at which an edit keeps what is wanted.
            wanted: identity that an edit has to keep.
        """
        for name, count in planned.items():
            if not count:
                continue
            trials = self._trials(name)
            for number in range(count if strengths is None else min(count, len(strengths))):
                own = {c.strength: c.identity for c in self.tried if c.editor == name}
                self._try(trials, next_strength(own, wanted) if strengths is None else float(strengths[number]))
                yield len(self.tried)

    def _trials(self, name: str) -> Trials:
        trials = Trials(name, self.load(name), self.picture, self.face, self.emotion, self.seed)
        self.face = trials.face
        return trials

    def _try(self, trials: Trials, strength: float) -> Candidate:
        """One edit, measured; a failed one keeps nothing of the person, so that a weaker one follows."""
        made, about = trials.edit(strength), (trials.name, self.emotion, strength, self.seed)
        if isinstance(made, EmoEditError):
            self.tried.append(Candidate(*about, None, reason=f"failed: {made}"))
            return self.tried[-1]
        rgb = load_picture(made).rgb
        self.subject = self.subject or self.suite.subject(self.picture.rgb, self.chosen)
        row = self.suite.measure(self.subject, [rgb], [self.emotion], only=MEASURED)[0]
        read = self.second.scores(self.second.faces(rgb, self.chosen)[None])
        self.tried.append(
            Candidate(
                *about,
                made,
                target_score=float(row["target_score"]),
                second_score=float(target_score(read, [self.emotion], self.second.emotions)[0]),
                identity=float(row["identity"]),
                realism=float(row["confidence"]) * float(row["fold_free"]) * min(float(row["sharpness_kept"]), 1.0),
            )
        )
        return self.tried[-1]


def _ranked(tried: Sequence[Candidate], floors: Floors, keep: int) -> list[Candidate]:
    """Best first, with reasons; what is below a floor or failed comes last."""

    def below(candidate: Candidate) -> list[str]:
        if candidate.image is None:
            return [candidate.reason]
        missed = floors.missed(candidate).items()
        return [f"{name} {value:.2f} is below {floor:.2f}" for name, (value, floor) in missed]

    cap = 1.0 if floors.identity is None else floors.identity
    rated = [(replace(candidate, identity_cap=cap), below(candidate)) for candidate in tried]
    rated.sort(key=lambda pair: (bool(pair[1]), -pair[0].score))
    ranked = []
    for rank, (candidate, faults) in enumerate(rated, 1):
        kept = not faults and rank <= keep
        numbers = f"target {candidate.target_score:.2f} and {candidate.second_score:.2f}, identity "
        numbers += f"{candidate.identity:.2f}, realism {candidate.realism:.2f}: score {candidate.score:.2f}"
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
    faults = [f"{short[name]} below {floor:g} in {name}" for name, floor in asdict(floors).items() if short[name]]
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

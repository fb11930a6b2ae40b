"""Many candidates of many people, made and measured once, for studies of ranking."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emoedit.editors import load_editor
from emoedit.evaluation.best import Best, Floors, best
from emoedit.evaluation.cases import Case
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io.images import load_picture
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import DataError

Row = dict[str, Any]
NOT_INDEPENDENT = (
    "The guidance classifier finetuned the default editor's sadness and favours it: with it, other editors score "
    "lower than with a recogniser that finetuned none."
)


class SecondReader:
    """An optional second recogniser, which is not used for ranking.

    Args:
        folder: folder of an expression network of this project's own; None for none.

    Raises:
        CheckpointError: no such network.
    """

    def __init__(self, folder: str | None) -> None:
        self.network = None if folder is None else EmbeddedNetwork.load(folder)
        self.name = "" if folder is None else Path(folder).name

    def read(self, image: Image.Image, found: Best) -> dict[str, float | str]:
        """Probability of the target, and what is read first; nothing without a network."""
        if self.network is None:
            return {}
        face = self.network.faces(load_picture(image).rgb, found.face)
        scores = self.network.scores(face[None])[0].cpu()
        names = list(self.network.emotions)
        return {"second": float(scores[names.index(found.emotion)]), "second_top": names[int(scores.argmax())]}


def candidate_rows(
    cases: Sequence[Case], emotions: Sequence[str], how: Mapping[str, Any], path: Path, second: SecondReader
) -> list[Row]:
    """A row for every candidate, and for the single edit of the default editor at strength 1 (``single``).

    Args:
        cases: people.
        emotions: names among the vocabulary's basic ones.
        how: ``editors``, ``candidates``, ``keep``.
        path: results, a row a line; people that are there already are not edited again.
        second: the recogniser that is not used for ranking.

    Returns:
        Rows with ``person``, ``emotion``, ``rank`` (from 1; 0 for the single edit), ``order`` (in which it was made),
        ``top`` (what the ranking recogniser reads first), ``kept``, and the numbers of a candidate.

    Raises:
        DataError: no people.
    """
    if not cases:
        raise DataError("no people to edit")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {row["person"] for row in rows}
    suite, editors = Suite(), [PhotoEditor(load_editor(name, device="cpu")) for name in how["editors"]]
    ranker = EmbeddedNetwork.load("expression")
    for case in cases:
        person, fresh = str(case.photo), []
        if person in done:
            continue
        for emotion in emotions:
            found = best(case.photo, emotion, candidates=how["candidates"], keep=how["keep"], editors=editors,
                         suite=suite)  # fmt: skip
            single = best(case.photo, emotion, candidates=1, keep=1, editors=[DEFAULT_EDITOR], suite=suite,
                          floors=Floors(-1.0, 0.0, 0.0))  # fmt: skip
            names = [each.editor.name for each in editors]
            for rank, candidate in [(0, single.candidates[0]), *enumerate(found.candidates, 1)]:
                if candidate.image is None:
                    continue
                face = ranker.faces(load_picture(candidate.image).rgb, found.face)
                top = ranker.emotions[int(ranker.scores(face[None])[0].argmax())]
                # Editors work in turn, each from its weakest to its strongest edit.
                order = names.index(candidate.editor) + candidate.strength / 100 if rank else -1
                row = candidate.to_dict() | {"person": person, "rank": rank, "top": top, "order": order}
                fresh.append(row | second.read(candidate.image, found))
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in fresh)
        rows += fresh
        print(person, flush=True)
    return rows


def bootstrapped(values: Sequence[float], *, draws: int = 2000) -> tuple[float, float, float]:
    """The mean over people and its 95 % interval."""
    found = np.array(values, float)
    means = found[np.random.default_rng(0).integers(len(found), size=(draws, len(found)))].mean(1)
    return float(found.mean()), float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))

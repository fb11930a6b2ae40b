"""Many candidates of many people, made and measured once, for studies of ranking."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from emoedit.evaluation.best import best
from emoedit.evaluation.cases import Case, read_cases
from emoedit.evaluation.trials import LoadedEditors
from emoedit.faces.align import align
from emoedit.faces.detect import Face
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io.images import load_picture, write_atomic
from emoedit.metrics.suite import Suite
from emoedit.registry import DEFAULT_EDITOR
from emoedit.training.data import CropSet
from emoedit.types import CropSpec, DataError
from lib.gradients import GradientRecogniser

CROP = CropSpec(128, "stable", 0.66, 0.074)  # of the faces to which the recogniser is fitted (configs/data/agreed.yaml)
Row = dict[str, Any]
FITTED = "gradients.pt"  # in the work folder: the recogniser, fitted once
NOT_RANKING = (
    "The same pictures, as a recogniser reads them that took no part in ranking and is no network: softmax regression "
    "on histograms of oriented gradients, fitted to what people agree on in FER-2013 (FER+)."
)


class IndependentRecogniser:
    """A recogniser that takes no part in ranking, [GradientRecogniser][lib.gradients.GradientRecogniser].

    Args:
        how: ``crops``, a folder of prepared crops with votes, and what [GradientRecogniser.fitted][] takes; None or no
            ``crops``: nothing is read.
        work: folder in which the fitted recogniser is kept.
    """

    def __init__(self, how: Mapping[str, Any] | None, work: Path) -> None:
        self.network: GradientRecogniser | None = None
        if how is None or how["crops"] is None:
            return
        if not (work / FITTED).is_file():
            work.mkdir(parents=True, exist_ok=True)
            fitted = GradientRecogniser.fitted(CropSet(how["crops"]), how).state_dict()
            write_atomic(work / FITTED, lambda file: torch.save(fitted, file))
        state = torch.load(work / FITTED, weights_only=True)
        self.network = GradientRecogniser(**state)

    def read(self, image: Image.Image, face: Face, emotion: str) -> dict[str, float | str]:
        """Probability of the target (``independent_score``), and what is read first (``independent_top``).

        Args:
            image: the photograph.
            face: the face in it.
            emotion: the target, a basic emotion.

        Returns:
            Both; nothing where no crops were given.
        """
        if self.network is None:
            return {}
        crop = cv2.cvtColor(align(face.landmarks, CROP).crop(load_picture(image).rgb), cv2.COLOR_RGB2GRAY)
        scores = self.network.scores(torch.from_numpy(crop)[None, None].float() / 127.5 - 1)[0]
        names = list(self.network.emotions)
        return {
            "independent_score": float(scores[names.index(emotion)]),
            "independent_top": names[int(scores.argmax())],
        }


def people(root: Path, chosen: Mapping[str, Sequence[int]]) -> list[Case]:
    """People to edit.

    Args:
        root: folder of the data sets.
        chosen: data set, or folder -> from which and up to which of its people (of those marked test, where a csv says
            so).

    Raises:
        DataError: no such folder, or nobody in it.
    """
    cases: list[Case] = []
    for name, (first, end) in chosen.items():
        try:
            found = read_cases(root / name, split="test")
        except DataError:  # no csv that says so: all are meant
            found = read_cases(root / name)
        cases += found[first:end]
    return cases


def stored_rows(path: Path, independent: IndependentRecogniser) -> list[Row]:
    """Rows of an earlier run; those that lack what the independent recogniser reads are left out, and made again.

    Args:
        path: results, a row a line; there need be none.
        independent: the recogniser that takes no part in ranking.
    """
    rows: list[Row] = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return rows if independent.network is None else [row for row in rows if "independent_score" in row]


def candidate_rows(
    cases: Sequence[Case],
    emotions: Sequence[str],
    how: Mapping[str, Any],
    path: Path,
    independent: IndependentRecogniser,
) -> list[Row]:
    """A row for every candidate, and for the single edit of the default editor at strength 1 (``single``).

    Args:
        cases: people.
        emotions: names among the vocabulary's basic ones.
        how: ``editors``, ``candidates``, ``keep``.
        path: results, a row a line; people that are there already are not edited again.
        independent: the recogniser that takes no part in ranking.

    Returns:
        Rows with ``person``, ``emotion``, ``rank`` (from 1; 0 for the single edit), ``order`` (in which it was made),
        ``top`` (what the ranking recogniser reads first), ``kept``, and the numbers of a candidate.

    Raises:
        DataError: no people.
    """
    if not cases:
        raise DataError("no people to edit")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = stored_rows(path, independent)
    done = {row["person"] for row in rows}
    suite, ranker = Suite(), EmbeddedNetwork.load("expression")
    load = LoadedEditors(how["editors"], "cpu")
    editors = [load(name) for name in how["editors"]]
    for case in cases:
        person, fresh = str(case.photo), []
        if person in done:
            continue
        for emotion in emotions:
            found = best(case.photo, emotion, candidates=how["candidates"], keep=how["keep"], editors=editors,
                         suite=suite)  # fmt: skip
            # Without a floor of its own, every search tries it.
            single = next(c for c in found.candidates if c.editor == DEFAULT_EDITOR and c.strength == 1.0)
            for rank, candidate in [(0, single), *enumerate(found.candidates, 1)]:
                if candidate.image is None:
                    continue
                face = ranker.faces(load_picture(candidate.image).rgb, found.face)
                top = ranker.emotions[int(ranker.scores(face[None])[0].argmax())]
                # The default editor's single edit is made first, then editors work in turn.
                made = [DEFAULT_EDITOR, *how["editors"]].index(candidate.editor)
                order = made + abs(candidate.strength - 1) / 100 if rank else -1
                row = candidate.to_dict() | {"person": person, "rank": rank, "top": top, "order": order}
                fresh.append(row | independent.read(candidate.image, found.face, emotion))
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

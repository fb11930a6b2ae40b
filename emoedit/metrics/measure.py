"""The description of a metric and its inputs.

A metric is one registered ``Measure``. Rows, summaries, tables and reports read ``measures`` and nothing else,
so that a metric which is registered appears in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from emoedit.faces.detect import Face
from emoedit.registry import METRICS
from emoedit.types import CropSpec, DataError


@dataclass(frozen=True)
class View:
    """Outputs of every network for one photograph of a face.

    Args:
        surroundings: the surroundings of the face, uint8 ``[h, w, 3]``.
        identity: embedding ``[D]``.
        scores: probabilities of the recogniser's emotions ``[E]``.
        points: landmarks ``[68, 2]`` in pixels of the landmark network's crop.
        perceptual: what the perceptual network compares.
        luminance: luminance of the face crop, ``[1, 256, 256]`` in [-1, 1].
        confidence: the detector's probability that this is a face.
    """

    surroundings: np.ndarray
    identity: Tensor
    scores: Tensor
    points: Tensor
    perceptual: Any
    luminance: Tensor
    confidence: float


@dataclass(frozen=True)
class EditViews:
    """Outputs of the networks for a source and N edits of it: the input of every metric.

    Args:
        source: the source photograph.
        edits: the edited photographs, one for each of N edits.
        emotions: target emotion of each edit.
        classes: the emotions that the recogniser scores.
        distance: perceptual distance ``[N]`` of two lists of N views.
        inside: the face mask of ``luminance``, ``[256, 256]`` in [0, 1].
        crop: the landmark network's.
        truth: the same person really showing the emotion, where there is a photograph.
        photo: the source photograph, uint8 ``[H, W, 3]``.
        face: the edited face.
        photos: the edited photographs, uint8 ``[H, W, 3]`` each; None where they were taken from another place.
    """

    source: View
    edits: Sequence[View]
    emotions: Sequence[str]
    classes: Sequence[str]
    distance: Callable[[Sequence[View], Sequence[View]], Tensor]
    inside: Tensor
    crop: CropSpec
    truth: View | None
    photo: np.ndarray
    face: Face
    photos: Sequence[np.ndarray] | None
    _shared: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.edits)

    def shared(self, name: str, compute: Callable[[EditViews], Any]) -> Any:
        """A value that several metrics need, computed once.

        Args:
            name: name of the value.
            compute: gives it.
        """
        if name not in self._shared:
            self._shared[name] = compute(self)
        return self._shared[name]

    def repeated(self, value: Tensor) -> Tensor:
        """A tensor of one view, once for each edit: ``[N, ...]``."""
        return value[None].expand(len(self), *value.shape)

    @cached_property
    def luminance(self) -> Tensor:
        """Luminance of the edited face crops, ``[N, 1, 256, 256]`` in [-1, 1]."""
        return torch.stack([view.luminance for view in self.edits])

    @cached_property
    def luminance_before(self) -> Tensor:
        """Luminance of the source's face crop for each edit, ``[N, 1, 256, 256]`` in [-1, 1]."""
        return self.repeated(self.source.luminance)

    @cached_property
    def points(self) -> Tensor:
        """Landmarks of the edits, ``[N, 68, 2]`` in pixels of the landmark network's crop."""
        return torch.stack([view.points for view in self.edits])

    @cached_property
    def points_before(self) -> Tensor:
        """Landmarks of the source for each edit, ``[N, 68, 2]``."""
        return self.repeated(self.source.points)

    @cached_property
    def scores(self) -> Tensor:
        """Probabilities of the recogniser's emotions in the edits, ``[N, E]``."""
        return torch.stack([view.scores for view in self.edits])

    @cached_property
    def identity(self) -> Tensor:
        """Identity embeddings of the edits, ``[N, D]``."""
        return torch.stack([view.identity for view in self.edits])


@dataclass(frozen=True)
class Measure:
    """One number of an edit.

    Args:
        key: key in rows and summaries.
        title: title in tables and on the page.
        digits: worth printing, after the point.
        higher_is_better: None where neither end is good in itself; then no value is marked as the best.
        units: units of a value; ``"1"`` for a ratio or a probability.
        help: range and source, in one line.
        compute: one value an edit, ``[N]``, NaN where it is not defined; None where it does not apply to these edits.
        same_place: whether it compares pixels place by place, so that it does not apply to a photograph that was taken
            from another place.
        shown_in: ``"rows"``: results and the numbers under each picture; ``"summary"``: also its mean and interval over
            people in ``summary.csv``; ``"table"``: also the summary table of reports.
    """

    key: str
    title: str
    digits: int
    higher_is_better: bool | None
    units: str
    help: str
    compute: Callable[[EditViews], Tensor | Sequence[float] | None] = field(repr=False)
    same_place: bool = False
    shown_in: Literal["rows", "summary", "table"] = "table"

    def __call__(self, views: EditViews) -> list[float | None]:
        """The value of each edit with six digits after the point; None where there is none (json has no NaN).

        Raises:
            DataError: the metric does not give one value an edit.
        """
        values = None if self.same_place and views.photos is None else self.compute(views)
        if values is None:
            return [None] * len(views)
        numbers = [float(value) for value in values]
        if len(numbers) != len(views):
            raise DataError(f"the metric {self.key!r} gives {len(numbers)} values for {len(views)} edits")
        return [round(number, 6) if np.isfinite(number) else None for number in numbers]


def measures() -> list[Measure]:
    """Every registered metric: those of this package first, then those of plugins, in the order of registration."""
    return [METRICS.get(name) for name in METRICS.names(alphabetical=False)]

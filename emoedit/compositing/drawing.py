"""A backbone's drawings of a face before and after an edit, with the landmarks and teeth found in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from emoedit.faces.align import Alignment
from emoedit.faces.analysis import Finders
from emoedit.faces.detect import Face
from emoedit.faces.teeth import MouthGrid
from emoedit.faces.tone import LUMA
from emoedit.types import Change


@dataclass(frozen=True)
class Drawing:
    """A reconstruction and an edit of one face.

    Args:
        before: the reconstruction, float32 ``[R, R]`` luminance or ``[R, R, 3]`` RGB, 0 to 255.
        after: the edit, of the same shape.
        points: ``[2, 68, 2]`` landmarks of both, in pixels of the crop.
        teeth: probability that the edit shows teeth, float32 ``[h, w]`` on the crop's mouth grid.
        known: the backbone's own movement and light; None for a backbone that only draws pictures.
    """

    before: np.ndarray
    after: np.ndarray
    points: np.ndarray
    teeth: np.ndarray
    known: Change | None = None

    @cached_property
    def luma(self) -> tuple[np.ndarray, np.ndarray]:
        """Both in grey levels, float32 ``[R, R]`` each."""
        first, last = (p if p.ndim == 2 else p @ LUMA for p in (self.before, self.after))
        return first, last


def known_drawings(
    before: np.ndarray,
    edits: Sequence[np.ndarray],
    face: Face,
    alignment: Alignment,
    *,
    known: Sequence[Change | None],
) -> Iterator[Drawing]:
    """Drawings of a backbone that moves landmarks, for a compositor that reads no drawing.

    Args:
        before: the reconstruction.
        edits: pictures in place of the edits; nothing reads them.
        face: where the face was found in the photograph.
        alignment: alignment of the crop.
        known: for every edit, the backbone's movement and light, with landmarks.
    """
    nothing = np.zeros(MouthGrid(alignment.resolution).size[::-1], np.float32)
    for after, change in zip(edits, known, strict=True):
        assert change is not None and change.points is not None
        yield Drawing(before, after, change.points, nothing, change)


def read_drawings(
    before: np.ndarray,
    edits: Sequence[np.ndarray],
    face: Face,
    alignment: Alignment,
    *,
    finders: Finders,
    known: Sequence[Change | None],
) -> Iterator[Drawing]:
    """Find landmarks and teeth in several edits of one face at once.

    Args:
        before: the reconstruction, as [Drawing][emoedit.compositing.drawing.Drawing] has it.
        edits: the edits.
        face: where the face was found in the photograph.
        alignment: alignment of the crop.
        finders: networks that find landmarks and teeth.
        known: for every edit, the backbone's own movement and light, or None.
    """
    points, teeth = finders.landmarks([before, *edits], alignment, face), finders.teeth(edits, alignment, face)
    for after, there, shown, change in zip(edits, points[1:], teeth, known, strict=True):
        yield Drawing(before, after, np.stack([points[0], there]), shown, change)

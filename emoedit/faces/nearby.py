"""The part of a large photograph around the faces to edit, which bounds the memory of an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from emoedit.faces.align import Alignment
from emoedit.faces.analysis import brightest_level
from emoedit.faces.detect import Face

LARGE = 12_000_000  # pixels; smaller photographs are edited whole
SPARED = 2  # least ratio of the photograph's size to the part's
AROUND = 0.5  # margin on each side, in crop sides: the networks' own crops reach beyond, and pixels move in


@dataclass(frozen=True)
class Nearby:
    """A part of a photograph, and faces in it.

    Args:
        rgb: uint8 ``[h, w, 3]``.
        faces: faces in pixels of the part.
        alignments: alignments of the faces' crops, in pixels of the part.
        brightest: grey level of the brightest places of the whole photograph.
        corner: row and column of the photograph where the part begins.
    """

    rgb: np.ndarray
    faces: tuple[Face, ...]
    alignments: tuple[Alignment, ...]
    brightest: float
    corner: tuple[int, int] = (0, 0)

    @classmethod
    def of(
        cls, rgb: np.ndarray, faces: Sequence[Face], alignments: Sequence[Alignment], *, whole: bool = False
    ) -> Nearby:
        """The part around all faces; the whole photograph where it is no larger than ``LARGE`` or hardly larger.

        Args:
            rgb: the photograph, uint8 ``[H, W, 3]``.
            faces: in its pixels.
            alignments: alignments of their crops.
            whole: whether the whole photograph is kept, whatever its size.
        """
        everything = cls(rgb, tuple(faces), tuple(alignments), brightest_level(rgb))
        height, width = rgb.shape[:2]
        if whole or height * width <= LARGE:
            return everything
        corners = np.concatenate([_reach(*each) for each in zip(faces, alignments, strict=True)])
        x0, y0 = np.maximum(np.floor(corners.min(0)), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(corners.max(0)) + 1, (width, height)).astype(int)
        if x1 <= x0 or y1 <= y0 or SPARED * (x1 - x0) * (y1 - y0) > height * width:
            return everything
        part = np.ascontiguousarray(rgb[y0:y1, x0:x1])
        part.setflags(write=False)
        corner = int(y0), int(x0)
        moved = tuple(_moved(face, corner) for face in faces)
        return cls(part, moved, tuple(a.shifted(*corner) for a in alignments), everything.brightest, corner)

    def with_pixels(self, rgb: np.ndarray) -> Nearby:
        """The same part of an edited photograph.

        Args:
            rgb: uint8 ``[H, W, 3]``, the edited photograph.
        """
        return replace(self, rgb=rgb)


def _reach(face: Face, alignment: Alignment) -> np.ndarray:
    """Corners ``[K, 2]`` of the region that an edit of a face reads, in pixels of the photograph."""
    low, high = -AROUND * alignment.resolution, (1 + AROUND) * alignment.resolution
    square = np.array([[low, low], [high, low], [low, high], [high, high]])
    return np.concatenate([alignment.to_photo(square), np.array(face.box).reshape(2, 2)])


def _moved(face: Face, corner: tuple[int, int]) -> Face:
    y, x = corner
    x0, y0, x1, y1 = face.box
    return replace(face, box=(x0 - x, y0 - y, x1 - x, y1 - y), landmarks=face.landmarks - (x, y))

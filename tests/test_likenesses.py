"""Paintings, cartoons, statues, animals, mirrors, faces that overlap: edited or refused, and never torn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import emoedit
from emoedit.faces.align import Alignment
from emoedit.faces.masks import FaceMasks, face_masks
from emoedit.types import Edit, NoFaceError
from tests.fixtures.likenesses import LIKENESSES

EDITS = [Edit("sad"), Edit("surprised")]
TORN = 0.012  # share of the face with a new hard edge; edits have .006 at most, and faces cut in two .02 at least
SEVERAL = ("mirror", "overlapping")


@pytest.fixture(scope="module")
def photos() -> emoedit.PhotoEditor:
    return emoedit.PhotoEditor()


def gradient(crop: np.ndarray) -> np.ndarray:
    """Levels a pixel."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 4


def new_edges(before: np.ndarray, after: np.ndarray, alignment: Alignment, masks: FaceMasks) -> float:
    """Share of a face, its mouth left out, with edges that nothing near by had in the picture it was made from.

    Features move by some pixels, and so do their edges; a face that is cut has edges where none were.
    """
    face = (masks.face > 0.5) & (masks.mouth < 0.2)
    first, last = (gradient(alignment.crop(picture)) for picture in (before, after))
    side = round(0.05 * len(first)) | 1
    excess = last - cv2.dilate(first, np.ones((side, side)))
    return float((excess[face] > 0.25 * np.quantile(first[face], 0.95)).mean())


def cut(picture: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    """The lower half of a face, moved aside."""
    x0, y0, x1, y1 = (int(v) for v in box)
    middle, aside, torn = (y0 + y1) // 2, (x1 - x0) // 10, picture.copy()
    torn[middle:y1, x0 + aside : x1] = picture[middle:y1, x0 : x1 - aside]
    return torn


@pytest.mark.parametrize("name", ["painting", "cartoon", "sketch", "statue", "mirror", "overlapping"])
def test_likenesses_are_edited_and_not_torn(photos, astronaut, name):
    picture = LIKENESSES[name](astronaut)
    opened = photos.open(picture, "all" if name in SEVERAL else "largest", edits=EDITS)
    assert len(opened.faces) == (2 if name in SEVERAL else 1)
    masks = face_masks(photos.editor.backbone.crop)
    for result in photos.edit(opened, EDITS):
        edited = np.asarray(result.image)
        assert edited.shape == picture.shape
        for alignment in opened.alignments:
            assert not np.array_equal(alignment.crop(edited), alignment.crop(picture))
            assert new_edges(picture, edited, alignment, masks) < TORN
    for face, alignment in zip(opened.faces, opened.alignments, strict=True):
        assert new_edges(picture, cut(picture, face.box), alignment, masks) > TORN  # the measure finds what it is for


@pytest.mark.parametrize("name", ["smiley", "negative", "poster", "cat"])
def test_what_no_face_is_seen_in_is_refused_with_advice(photos, astronaut, name):
    picture = LIKENESSES[name](astronaut)
    with pytest.raises(NoFaceError, match="no face found, in any of four rotations: use a photograph with a face"):
        photos.open(picture)
    assert set(LIKENESSES) == {
        "painting",
        "cartoon",
        "sketch",
        "statue",
        *SEVERAL,
        "smiley",
        "negative",
        "poster",
        "cat",
    }

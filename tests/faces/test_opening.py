"""The opening of a mouth that shows teeth: where it is, how far it reaches, and what is none."""

from __future__ import annotations

import numpy as np
import pytest

from emoedit.faces.align import Alignment, align
from emoedit.faces.detect import FaceDetector
from emoedit.faces.landmarks import landmark_finder
from emoedit.faces.masks import face_masks
from emoedit.faces.opening import find_opening
from emoedit.faces.teeth import teeth_finder
from emoedit.faces.tone import Tone
from tests.fixtures.faces import SPEC, likely_teeth, points_of

ITSELF, MASKS = Alignment(np.eye(2, 3), np.eye(2, 3), 96), face_masks(SPEC)
SKIN = np.full((96, 96, 3), (200, 160, 140), np.uint8)  # teeth no paler than the skin around them


def test_an_open_smile_has_one(astronaut):
    face = FaceDetector()(astronaut)[0]
    alignment = align(face.landmarks, SPEC)
    crop = alignment.crop(astronaut).astype(np.float32)
    teeth, points = teeth_finder("cpu")([crop], alignment, face)[0], landmark_finder("cpu")([crop], alignment, face)[0]
    opening = find_opening(astronaut, alignment, MASKS, teeth, points)
    assert 0.02 < (opening.bottom - opening.top).max() < 0.15
    assert 0.6 < opening.top.min() < opening.bottom.max() < 0.9
    assert (np.diff(opening.x) > 0).all()
    # It begins and ends at the corners, with no height there.
    assert opening.bottom[[0, -1]] - opening.top[[0, -1]] == pytest.approx([0, 0], abs=0.005)


def test_a_narrow_row_that_only_the_network_sees_is_an_opening():
    points = points_of(52, 60, half=15, apart=5)
    opening = find_opening(SKIN, ITSELF, MASKS, likely_teeth((38, 58, 66, 63), 0.9), points)
    assert opening is not None
    middle = np.abs(opening.x - 0.54) < 0.05
    np.testing.assert_allclose(opening.x[[1, -2]] * 96, (38, 66), atol=2)
    np.testing.assert_allclose(opening.top[middle] * 96, 58, atol=2)
    np.testing.assert_allclose(opening.bottom[middle] * 96, 63, atol=2)
    for where, sure in (((38, 58, 66, 63), 0.45), ((46, 58, 51, 63), 0.9), (None, 0.0)):
        closed = points_of(52, 60, half=4 if where == (46, 58, 51, 63) else 15)
        assert find_opening(SKIN, ITSELF, MASKS, likely_teeth(where, sure), closed) is None


def test_an_opening_ends_where_lips_meet():
    """The last teeth of a smile are in shadow: neither their colour nor the network says where it ends."""
    teeth, points = likely_teeth((42, 58, 62, 62)), points_of(52, 60, half=22, apart=8)
    found = find_opening(SKIN, ITSELF, MASKS, teeth, points)
    corners = points[[60, 64], 0] + 0.5
    np.testing.assert_allclose(found.x[[0, -1]] * 96, corners, atol=3)
    # Between the last teeth and the corners it is as high as the lips are apart, and nearly so over the teeth.
    x = np.array([38.0, 52.0, 66.0])
    height = np.interp(x / 96, found.x, found.bottom - found.top) * 96
    assert height[0] == pytest.approx(height[2], abs=1.5) and 4 < height[0] < 10 and 6 < height[1] < 12
    # Landmarks that are far off move the edges of the teeth that are seen by a little only.
    wrong = find_opening(SKIN, ITSELF, MASKS, teeth, points_of(52, 60, half=22, apart=40))
    middle = np.abs(wrong.x - 0.54) < 0.05
    assert (wrong.bottom - wrong.top)[middle].max() * 96 < 12
    # Those of a laugh are believed: a tongue and the dark below it lie between the teeth and the lower lip.
    laugh = find_opening(SKIN, ITSELF, MASKS, teeth, points_of(52, 60, half=22, apart=14))
    assert 12 < (laugh.bottom - laugh.top)[middle].max() * 96 < 19


def test_a_gleam_on_a_lip_is_no_teeth(astronaut):
    """Full lips shine as pale as teeth do: where the network is not sure, there is nothing to be closed."""
    alignment = align(FaceDetector()(astronaut)[0].landmarks, SPEC)
    points = points_of(48, 71, half=15, apart=6)
    found = [
        find_opening(astronaut, alignment, MASKS, likely_teeth((38, 66, 58, 71), sure), points) for sure in (0.9, 0.5)
    ]
    assert found[0] is not None and found[1] is None


def test_pale_lips_of_a_dark_face_are_no_teeth():
    photo = np.tile(np.array([70, 45, 35], np.uint8), (96, 96, 1))
    photo[68:76, 34:62] = (80, 62, 62)
    points = points_of(48, 72, half=15, apart=2)
    for picture in (photo, Tone(0.35).lifted(photo)):
        assert find_opening(picture, ITSELF, MASKS, likely_teeth(), points) is None


def test_a_lower_lip_that_shines_below_the_teeth_is_a_lip():
    """Its light has the colour of teeth; the network alone says where they end, and the edge has one bend."""
    points, teeth = points_of(52, 60, half=20, apart=6), likely_teeth((40, 58, 65, 63), 0.9)
    plain, shining = SKIN.copy(), SKIN.copy()
    for photo in (plain, shining):
        photo[58:63, 40:65] = 230
    shining[63:70, 49:56] = 230
    found = [find_opening(photo, ITSELF, MASKS, teeth, points) for photo in (plain, shining)]
    np.testing.assert_allclose(found[1].x, found[0].x)
    assert np.abs(found[1].bottom - found[0].bottom).max() * 96 < 1.0
    for opening in found:
        line = np.interp(np.linspace(opening.x[1], opening.x[-2], 40), opening.x, opening.bottom)
        assert (np.diff(line, 2) < 1e-4).all()

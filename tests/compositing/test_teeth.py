"""Upper teeth, in millimetres, and as bright as the light they are in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emoedit.compositing.mouth import SMILE, SURPRISE, LipAperture
from emoedit.compositing.teeth import PUPILS, UpperTeeth, teeth_level
from emoedit.faces.teeth import MOUTH_UPSCALE, MouthGrid
from emoedit.faces.tone import LUMA
from tests.fixtures.faces import analysis_of, face_of, lips, photo_of, points_of

APART = 36.0  # pixels of the crop between the pupils
MM = PUPILS / APART
GRID = MouthGrid(96)
FACE = replace(
    analysis_of(photo_of(lips(48, 72)), face_of()),
    skin=np.full(3, 140.0),
    white=np.full(3, 200.0),
    brightest=250.0,
)


def teeth_of(apart: float, visible=SMILE, skin: float = 140.0, face=FACE):
    aperture = LipAperture.between(points_of(48, 72, half=17, apart=apart), GRID, 1.2)
    light, behind = np.full_like(aperture.mask, skin), np.full_like(aperture.mask, 0.2 * skin)
    levels, teeth = UpperTeeth()(aperture, APART * MOUTH_UPSCALE, light, face, visible, behind)
    assert levels.dtype == teeth.dtype == np.float32 and np.isfinite(levels).all()
    assert teeth.min() >= 0 and teeth.max() <= 1
    return aperture, levels, teeth * (aperture.mask > 0.5)


def column(mm: float) -> int:
    """The column of the grid so far from the middle of the mouth."""
    return round(GRID.points(np.array([48 + mm / MM, 0.0]))[0])


def test_a_smile_shows_rounded_teeth_that_recede():
    aperture, levels, teeth = teeth_of(7)
    inside = (aperture.mask > 0.99) & (teeth > 0.99)
    x = np.abs(np.arange(len(aperture.height)) - aperture.middle) / MOUTH_UPSCALE * MM  # mm from the middle
    white = teeth_level(np.float64(140.0))
    front, back = (np.median(levels[inside & (x >= a)[None] & (x < b)[None]]) for a, b in ((1, 8), (20, 26)))
    assert 1.0 < front / white < 1.4 and back < 0.85 * front
    # Lines stand where teeth end: at 0, 8.5, 15 and 20.5 mm, on both sides.
    row = levels[round(GRID.points(np.array([0.0, 71.5]))[1])]
    dark = [n for n in range(2, len(row) - 2) if row[n] == row[n - 2 : n + 3].min()]
    for end in (-15.0, -8.5, 8.5, 15.0):
        assert min(abs(n - column(end)) for n in dark) / MOUTH_UPSCALE * MM < 0.7
    # Edges are lower in the middle of a tooth than at its sides.
    length = (teeth > 0.5).sum(0) / np.maximum(aperture.height, 1)
    assert length[column(4.2)] > length[column(8.5)] < length[column(11.7)]


def test_no_tooth_is_longer_than_teeth_are_and_none_stands_in_closed_lips():
    wide, narrow = teeth_of(16)[2], teeth_of(3)[2]
    assert (wide[:, column(4.2)] > 0.5).sum() / MOUTH_UPSCALE * MM == pytest.approx(11, abs=1)
    assert 2 < (narrow[:, column(4.2)] > 0.5).sum() / MOUTH_UPSCALE * MM < 3 * MM
    assert (teeth_of(0)[2] > 0.5).sum() < 0.15 * (narrow > 0.5).sum()


def test_a_surprised_mouth_shows_their_edges_above_the_dark():
    aperture, levels, teeth = teeth_of(9, SURPRISE)
    middle = column(4.2)
    assert 1.5 < (teeth[:, middle] > 0.5).sum() / MOUTH_UPSCALE * MM < 4
    rows = np.nonzero(aperture.mask[:, middle] > 0.99)[0]
    light = levels[rows, middle]
    assert light[: len(light) // 4].max() > 2 * light[len(light) // 2 :].min()
    assert not (teeth[:, : column(-20)] > 0.5).any()


def test_what_is_seen_of_teeth_changes_by_degrees():
    half = SURPRISE.towards(SMILE, 0.5)
    assert half.share == pytest.approx((SURPRISE.share + SMILE.share) / 2)
    assert half.wide == pytest.approx(tuple(np.mean([SURPRISE.wide, SMILE.wide], 0)))
    assert SURPRISE.towards(SMILE, 0.0) == SURPRISE
    heights = [(teeth_of(9, SURPRISE.towards(SMILE, s))[2] > 0.5).sum() for s in np.linspace(0, 1, 6)]
    assert (np.diff(heights) > 0).all()


def test_teeth_beside_dark_skin_are_relatively_brighter():
    ratio = {skin: np.percentile(teeth_of(7, skin=skin)[1], 98) / skin for skin in (60.0, 180.0)}
    assert ratio[60.0] > 1.4 * ratio[180.0]


@pytest.mark.parametrize("level", [40.0, 60.0, 75.0])
def test_in_dim_light_teeth_are_no_brighter_than_eyes_and_of_their_colour(level: float):
    warm = np.array([1.25, 0.95, 0.65])
    warm = warm / (warm @ LUMA)
    dim = replace(FACE, skin=level * warm, white=1.2 * level * warm, brightest=150.0)
    _, levels, teeth = teeth_of(7, skin=level, face=dim)
    assert levels[teeth > 0.9].max() <= 1.15 * 1.2 * level + 1
    colour = UpperTeeth().colour(dim)
    np.testing.assert_allclose(colour, warm - 1, atol=0.02)
    bright = UpperTeeth().colour(replace(FACE, skin=180 * warm, white=np.full(3, 220.0)))
    assert np.abs(bright).max() < 0.5 * np.abs(colour).max()


def test_light_falls_off_without_a_step():
    """From a dim picture to a bright one, teeth become brighter by degrees."""
    levels = []
    for share in np.linspace(0.3, 1.0, 36):
        face = replace(FACE, skin=share * FACE.skin, white=share * FACE.white, brightest=share * 250)
        levels.append(np.percentile(teeth_of(7, skin=140 * share, face=face)[1], 98))
    assert max(np.abs(np.diff(levels))) < 0.12 * max(levels)


def test_the_far_side_of_a_turned_head_is_foreshortened():
    points = points_of(48, 72, half=17, apart=7)
    points[[51, 62], 0] += 6.0  # the middle of the face is to the right: it looks there
    aperture = LipAperture.between(points, GRID, 1.2)
    along = UpperTeeth()._along_arch(aperture)
    middle = round(aperture.middle)
    near, far = along[middle] - along[middle - 20], along[middle + 20] - along[middle]
    assert far > 1.2 * near > 0
    assert (np.diff(along) > 0).all()

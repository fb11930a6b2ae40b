"""The network that finds teeth, in crops of any alignment, and the grid of mouths."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.faces.align import FFHQ_POINTS, Alignment, align
from emoedit.faces.teeth import MOUTH_UPSCALE, MouthGrid, TeethFinder, teeth_finder
from emoedit.types import CropSpec
from tests.fixtures.faces import SPEC, face_at, lips, smiling


@pytest.fixture(scope="module")
def finder() -> TeethFinder:
    return teeth_finder("cpu")


def test_the_grid_is_a_finer_part_of_the_crop():
    grid = MouthGrid(96)
    x, y = np.meshgrid(np.arange(96, dtype=np.float32), np.arange(96, dtype=np.float32))
    both = grid.enlarge(np.dstack([x, y]))
    width, height = grid.size
    assert both.shape == (height, width, 2) and grid.enlarge(x).shape == (height, width)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    expected = np.stack([columns, rows], -1) @ grid.to_crop[:, :2].T + grid.to_crop[:, 2]
    inner = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(both[inner], expected[inner], atol=1e-3)
    np.testing.assert_allclose(grid.points(expected[5, 7]), [7, 5], atol=1e-9)
    back = grid.shrink(both[..., 0])
    assert back.shape == (96, 96) and back[:40].max() == 0 and back[60, 48] == pytest.approx(48, abs=0.01)


def test_teeth_are_found_where_they_are_drawn_whatever_the_crop(finder):
    """A smile of 96 px, and the same face in a crop of 128 px that is wider and lower."""
    points = FFHQ_POINTS * 150 + [150, 140]
    first, other = align(points, SPEC), align(points, CropSpec(128, "stable", 0.8, 0.09))
    crop = smiling()
    onto = other.matrix @ np.vstack([first.inverse, [0, 0, 1]])
    wider = cv2.warpAffine(crop, onto, (128, 128), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    (teeth,) = finder([crop], first, face_at(points))
    assert teeth.shape == MouthGrid(96).size[::-1] and teeth.dtype == np.float32
    assert 0 <= teeth.min() and teeth.max() <= 1

    def middle(found: np.ndarray, side: int) -> np.ndarray:
        y, x = np.nonzero(found > 0.5)
        grid = MouthGrid(side)
        assert 14 < np.ptp(x) / MOUTH_UPSCALE < 40
        return np.array([x.mean(), y.mean(), 1]) @ np.vstack([grid.to_crop, [0, 0, 1]]).T

    here = middle(teeth, 96)
    assert np.abs(here[:2] - [48, 72]).max() < 1.5
    (again,) = finder([np.repeat(wider[..., None], 3, -1)], other, face_at(points))
    assert np.abs(onto @ here - middle(again, 128)[:2]).max() < 1.0


def test_no_teeth_in_closed_lips_nor_in_a_flat_picture(finder):
    points = FFHQ_POINTS * 150 + [150, 140]
    for teeth in finder([lips(48, 72), np.full((96, 96), 90.0, np.float32)], align(points, SPEC), face_at(points)):
        assert teeth.max() < 0.5


def test_mirrored_drawings_have_mirrored_mouths(finder):
    """Whatever training left in the network: nothing is made up on one side only."""
    crop = smiling() + np.linspace(-20, 20, 96, dtype=np.float32)
    unit = Alignment(np.eye(2, 3), np.eye(2, 3), 128)
    points = align(FFHQ_POINTS, finder.network.crop).matrix @ np.c_[FFHQ_POINTS, np.ones(5)].T  # one that fills it
    crop = cv2.resize(crop, (128, 128), interpolation=cv2.INTER_CUBIC)
    one, other = finder([crop, np.ascontiguousarray(crop[:, ::-1])], unit, face_at(points.T))
    assert one.max() > 0.5
    grid = MouthGrid(128)
    left, right = grid.origin[0], 128 - grid.origin[0] - grid.size[0] // MOUTH_UPSCALE
    shift = (right - left) * MOUTH_UPSCALE  # the grid is not quite in the middle
    mirrored = np.roll(one[:, ::-1], -shift, 1)
    np.testing.assert_allclose(mirrored[:, 8:-8], other[:, 8:-8], atol=0.02)

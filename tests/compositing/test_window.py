"""A composite in the photograph's own pixels: where it lands, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates, maximum_filter

from emoedit.compositing import window
from emoedit.compositing.composite import Composite, Layer
from emoedit.compositing.window import CropWindow, render
from emoedit.faces.align import Alignment, align
from emoedit.faces.masks import face_masks
from emoedit.types import CropSpec
from tests.fixtures.faces import five_points

SPEC = CropSpec(48, "stable", 0.66, 0.074)
MASKS = face_masks(SPEC)
CROP = np.array([[1.0, 0, 0], [0, 1, 0]])


def placed(angle: float, zoom: float, centre: tuple[float, float]) -> Alignment:
    """A crop of :data:`SPEC` around ``centre``, turned by ``angle`` degrees, ``zoom`` photograph pixels a pixel."""
    turn = np.deg2rad(angle)
    inverse = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    inverse = np.column_stack([inverse, np.array(centre) - inverse @ [23.5, 23.5]])
    return Alignment(np.linalg.inv(np.vstack([inverse, [0, 0, 1]]))[:2], inverse, 48)


def changed(flow: tuple[float, float] = (0, 0), light: float = 0) -> Composite:
    flows = np.broadcast_to(np.array(flow, np.float32), (48, 48, 2)).copy()
    return Composite(flows, np.full((48, 48), light, np.float32))


def mask_in(photo: np.ndarray, alignment: Alignment, mask: np.ndarray, order: int = 1) -> np.ndarray:
    """A crop's mask in the photograph's pixels, by scipy."""
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    points = alignment.to_crop(np.stack([x, y], -1).reshape(-1, 2).astype(float))
    return map_coordinates(mask, points[:, ::-1].T, order=order).reshape(photo.shape[:2])


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (150, 130, 3), dtype=np.uint8)


@pytest.mark.parametrize("angle", [0, 33, 180])
@pytest.mark.parametrize("centre", [(64, 80), (5, 140)])
def test_outside_the_mask_not_one_bit_changes(noise, angle, centre):
    """Neither by movement, nor by light, nor by a layer that covers the whole crop."""
    alignment, before = placed(angle, 1.7, centre), noise.copy()
    red = Layer(np.full((48, 48, 3), (250.0, 0, 0), np.float32), np.ones((48, 48), np.float32), CROP)
    outside = mask_in(noise, alignment, maximum_filter((MASKS.face > 0).astype(np.uint8), 3), order=0) == 0
    inside = mask_in(noise, alignment, MASKS.face) > 0.9
    for composite in (changed((5, -4), 40), changed().with_layer(red)):
        out = render(noise, alignment, MASKS, composite)
        assert np.array_equal(noise, before)
        assert outside.any() and np.array_equal(out[outside], noise[outside])
        assert (out[inside] != noise[inside]).any(-1).mean() > 0.9


@pytest.mark.parametrize("angle", [0, 33])
def test_a_change_of_nothing_leaves_the_photo_alone(noise, angle):
    assert np.array_equal(render(noise, placed(angle, 1.7, (64, 80)), MASKS, Composite.empty(48)), noise)


def test_what_lands_here_comes_from_where_the_flow_points(noise):
    """On whole pixels, where nothing is interpolated: ``out[p] == photo[p + flow[p]]``."""
    alignment = placed(0, 1, (63.5, 80.5))
    out = render(noise, alignment, MASKS, changed((3, -2)))
    inside = mask_in(noise, alignment, MASKS.face) > 0.3  # blended in fully
    assert inside.sum() > 300
    expected = np.roll(noise, (2, -3), (0, 1))
    assert np.abs(out[inside].astype(int) - expected[inside]).max() <= 1


@pytest.mark.parametrize(("angle", "zoom"), [(0, 1.0), (90, 1.5), (200, 2.5), (-35, 0.8)])
def test_a_shift_of_the_crop_is_turned_and_scaled_with_it(angle, zoom):
    alignment = placed(angle, zoom, (90, 80))
    start = np.array([24.0, 30.0])  # of a dot, in the crop
    x0, y0 = alignment.to_photo(start[None])[0]
    y, x = np.mgrid[:170, :180]
    dot = 60 + 150 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * (2.2 * zoom) ** 2))
    photo = np.repeat(np.rint(dot).astype(np.uint8)[..., None], 3, -1)
    out = render(photo, alignment, MASKS, changed((2.0, -3.0)))
    weight = out[..., 0] - 60.0
    found = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    np.testing.assert_allclose(alignment.to_crop(found[None])[0], start - [2, -3], atol=0.15)


def test_light_is_added_in_grey_levels_or_in_colour(noise):
    photo = (noise // 4 + 90).astype(np.uint8)
    alignment = placed(20, 1.4, (64, 80))
    inside = mask_in(photo, alignment, MASKS.face) > 0.5
    grey = render(photo, alignment, MASKS, changed(light=20))
    assert np.abs(grey[inside].astype(int) - photo[inside] - 20).max() <= 1
    red = replace(changed(), change=np.full((48, 48, 3), (20, -10, 0), np.float32))
    assert np.abs(render(photo, alignment, MASKS, red)[inside].astype(int) - photo[inside] - (20, -10, 0)).max() <= 1


def test_layers_are_laid_in_order_as_far_as_they_cover(noise):
    """On a grid of their own, twice as fine as the crop, over a part of it."""
    alignment, to_crop = placed(10, 2.0, (64, 80)), np.array([[0.5, 0, 18], [0, 0.5, 20]])
    layers = [
        Layer(np.full((20, 24, 3), level, np.float32), np.full((20, 24), alpha, np.float32), to_crop)
        for level, alpha in ((200, 1.0), (40, 0.25))
    ]
    out = render(noise, alignment, MASKS, replace(changed(), layers=tuple(layers)))
    x, y = alignment.to_photo(np.array([[24.0, 25.0]]))[0].round().astype(int)
    assert (out[y - 2 : y + 3, x - 2 : x + 3] == 160).all()
    x, y = alignment.to_photo(np.array([[24.0, 12.0]]))[0].round().astype(int)
    assert np.array_equal(out[y - 2 : y + 3, x - 2 : x + 3], noise[y - 2 : y + 3, x - 2 : x + 3])


@pytest.mark.parametrize("angle", [0, 27])
def test_strips_give_what_one_piece_gives(noise, angle, monkeypatch):
    alignment = placed(angle, 2.2, (60, 85))
    rough = np.random.default_rng(1).normal(0, 1, (48, 48, 5)).astype(np.float32)
    layer = Layer(np.full((30, 30, 3), 230, np.float32), np.full((30, 30), 0.5, np.float32), CROP + [[0, 0, 9]] * 2)
    composite = Composite(rough[..., :2], 20 * rough[..., 2:], (layer,))
    whole = render(noise, alignment, MASKS, composite)
    monkeypatch.setattr(window, "STRIP", 700)  # six rows or so
    assert len(list(CropWindow.of(alignment, 150, 130).strips())) > 5
    parts = render(noise, alignment, MASKS, composite)
    assert np.abs(parts.astype(int) - whole).max() <= 1 and (parts != whole).mean() < 0.01


@pytest.mark.parametrize(
    ("height", "width", "points"),
    [
        (200, 200, five_points(300, 0, 0, 0)),
        (20, 20, five_points(12, 0, 10, 10)),
        (300, 300, five_points(100, 0, 5000, 100)),
    ],
    ids=["at the corner", "tiny", "outside"],
)
def test_faces_half_outside_the_frame_and_tiny_photos_are_handled(height, width, points):
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = render(photo, align(points, SPEC), MASKS, changed((2, 1), 30))
    assert out.shape == photo.shape and out.dtype == np.uint8
    assert np.array_equal(out, photo) == (points[0, 0] > 4000)

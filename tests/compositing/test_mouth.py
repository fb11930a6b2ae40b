"""Mouths that an edit opens: the photograph's own lips, and what is seen between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.compositing.composite import Composite, Layer
from emoedit.compositing.mouth import LipAperture, Mouth
from emoedit.faces.teeth import MouthGrid
from emoedit.faces.tone import LUMA
from tests.fixtures.faces import (
    LEVEL,
    analysis_of,
    face_of,
    likely_teeth,
    lips,
    near,
    photo_of,
    placed,
    points_of,
    scene_of,
    shown,
)

GRID = MouthGrid(96)
HUE = np.array([1.3, 0.9, 0.75])
ROW = (36, 68, 60, 75)


def opened(inside: float) -> np.ndarray:
    """What a small model draws of an open mouth: one blur, whose middle has this level."""
    crop = np.full((96, 96), LEVEL, np.float32)
    cv2.ellipse(crop, (48, 72), (14, 10), 0, 0, 360, LEVEL - 50, -1)
    cv2.ellipse(crop, (48, 72), (11, 5), 0, 0, 360, inside, -1)
    return cv2.GaussianBlur(crop, (0, 0), 2.5)


def parted(apart: float = 9.0) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of closed lips, and of the same face whose lips are so far apart."""
    points = face_of()
    points[48:68] = points_of(48, 72, apart=apart)[48:68]
    return face_of(), points


def portrait(hue: np.ndarray | None = None, grain: float = 0.0) -> np.ndarray:
    """A photograph of closed lips with pupils as dark as photographs are somewhere in a face."""
    photo = photo_of(lips(48, 72), hue, grain)
    for eye in placed().to_photo(np.array([[34.0, 40], [62, 40]])):
        cv2.circle(photo, eye.round().astype(int).tolist(), 3, (10, 10, 10), -1)
    return photo


def layer_of(photo: np.ndarray, after: np.ndarray, teeth: np.ndarray | None = None, apart: float = 9.0) -> Layer:
    points = parted(apart)
    scene = scene_of(analysis_of(photo, points[0]), lips(48, 72), after, points, teeth=teeth)
    composite = Mouth()(scene, Composite.empty(96))
    assert len(composite.layers) == 1
    return composite.layers[0]


def at(layer: Layer, x: float, y: float) -> tuple[float, float]:
    """Level and cover of a layer at a place of the crop."""
    column, row = GRID.points(np.array([x, y])).round().astype(int)
    return float(layer.rgb[row, column] @ LUMA), float(layer.alpha[row, column])


def test_the_aperture_is_what_lies_between_lips():
    aperture = LipAperture.between(points_of(48, 72, apart=9), GRID, 1.2)
    column, top = GRID.points(np.array([48.0, 67.5])).round().astype(int)
    bottom = round(GRID.points(np.array([48.0, 76.5]))[1])
    mask = aperture.mask
    assert mask.dtype == np.float32 and mask.shape == GRID.size[::-1]
    assert mask[(top + bottom) // 2, column] > 0.99 and mask[top - 4, column] == 0 == mask[bottom + 4, column]
    assert aperture.height[column] == pytest.approx(bottom - top, abs=2.5)
    assert aperture.below[top, column] == pytest.approx(0, abs=2)
    assert aperture.middle == pytest.approx(GRID.points(np.array([48.0, 0]))[0], abs=0.1)
    # Blurred, its edges are softer; and it grows with the distance of the lips, smoothly.
    soft = LipAperture.between(points_of(48, 72, apart=9), GRID, 6.0).mask
    assert np.abs(np.diff(soft[:, column])).max() < 0.6 * np.abs(np.diff(mask[:, column])).max()
    areas = [LipAperture.between(points_of(48, 72, apart=a), GRID, 1.2).mask.sum() for a in (2, 4, 6, 8, 10)]
    assert (np.diff(areas) > 0).all() and np.diff(areas).max() < 1.5 * np.diff(areas).min()


def test_an_open_mouth_is_dark_above_a_tongue_and_ends_at_the_lips():
    layer = layer_of(portrait(), opened(0.3 * LEVEL))
    dark, tongue = at(layer, 48, 71)[0], at(layer, 48, 75.5)[0]
    assert dark < 0.35 * LEVEL and tongue > 1.3 * dark and tongue < 0.75 * LEVEL
    assert at(layer, 48, 72)[1] > 0.95 and at(layer, 48, 62)[1] == 0 == at(layer, 48, 84)[1]
    # At its corners it is dark all the way down.
    assert at(layer, 41, 74)[0] < tongue


def test_a_smile_shows_teeth_and_closed_lips_nothing():
    layer = layer_of(portrait(), opened(LEVEL), likely_teeth(ROW), apart=6)
    level, cover = at(layer, 50, 71)
    assert cover > 0.9 and level > 0.8 * LEVEL > 1.5 * at(layer_of(portrait(), opened(0.3 * LEVEL)), 50, 71)[0]
    assert np.ptp(layer.rgb[GRID.size[1] // 2, GRID.size[0] // 2]) < 10  # in white light they are white
    points = face_of(), face_of()
    scene = scene_of(analysis_of(portrait(), points[0]), lips(48, 72), lips(48, 72, light=10), points)
    assert not Mouth()(scene, Composite.empty(96)).layers


def test_what_is_drawn_comes_by_degrees():
    """How much a layer covers follows how surely the mouth opens: no frame of a walk pops."""
    photo = portrait()
    covers = []
    for apart in np.linspace(0, 1.5, 61):
        points = parted(apart)
        scene = scene_of(analysis_of(photo, points[0]), lips(48, 72), opened(0.3 * LEVEL), points)
        layers = Mouth()(scene, Composite.empty(96)).layers
        covers.append(sum(float(layer.alpha.sum()) for layer in layers))
    assert covers[0] == 0 and covers[-1] > 0 and max(np.abs(np.diff(covers))) < 0.2 * max(covers)


def test_lips_keep_their_light_and_lips_that_close_take_the_drawings():
    photo, before = portrait(), lips(48, 72)
    after = before + 30
    changes = {}
    for name, points in (("still", (face_of(), face_of())), ("closing", parted(12)[::-1])):
        scene = scene_of(analysis_of(photo, points[0]), before, after, points)
        composite = Mouth()(scene, Composite(np.zeros((96, 96, 2), np.float32), (after - before).astype(np.float32)))
        changes[name] = composite.change
    assert changes["still"][72, 48] < 6 and changes["closing"][72, 48] > 20
    assert all(change[30, 48] == pytest.approx(30, abs=0.1) for change in changes.values())


def test_it_is_drawn_in_the_light_the_blur_and_the_black_of_the_photograph():
    plain = portrait()
    crisp, soft = (
        layer_of(plain, opened(0.3 * LEVEL)),
        layer_of(cv2.GaussianBlur(plain, (0, 0), 3), opened(0.3 * LEVEL)),
    )

    def slope(layer: Layer) -> float:
        return float(np.abs(np.diff(layer.rgb @ LUMA * layer.alpha, axis=0)).max())

    assert slope(soft) < 0.8 * slope(crisp)
    # Fog: nothing of it is black, so the inside of a mouth is not either.
    foggy = layer_of((plain / 4 + 110).astype(np.uint8), opened(0.3 * LEVEL))
    assert at(foggy, 48, 71)[0] > 70 > 1.3 * at(crisp, 48, 71)[0]
    # Half of the face in shadow: its teeth are, too.
    shade = np.linspace(0.6, 1.3, 300)[None, :, None]
    lit = layer_of((plain * shade).clip(0, 255).astype(np.uint8), opened(LEVEL), likely_teeth(ROW), apart=6)
    assert at(lit, 53, 71)[0] > 1.04 * at(lit, 43, 71)[0]


def test_an_opened_mouth_shows_its_inside_between_the_photographs_own_lips():
    """By the whole compositor, in the photograph's pixels."""
    photo, before, after = portrait(HUE, grain=8.0), lips(48, 72), opened(0.3 * LEVEL)
    results = {}
    for name, points in (("open", parted()), ("shut", (face_of(), face_of()))):
        results[name] = shown(photo, scene_of(analysis_of(photo, points[0]), before, after, points))
    inside = near(results["open"], 48, 71)
    assert (inside @ LUMA).mean() < 0.45 * LEVEL < (near(results["shut"], 48, 71) @ LUMA).mean()
    red, green, blue = inside.mean((0, 1))
    assert red / blue > 1.1 * HUE[0] / HUE[2] and red > green >= blue - 1  # redder than skin
    # The upper lip has gone up by half the opening, with its own grain in it and about its own light.
    was, now = near(photo, 48, 69.3, 3) @ LUMA, near(results["open"], 48, 64.8, 3) @ LUMA
    assert now.std() > 0.5 * was.std() and abs(now.mean() - was.mean()) < 30
    # Nothing changes far from the mouth but by what the model drew there.
    assert np.abs(near(photo, 48, 30, 6) - near(results["open"], 48, 30, 6)).mean() < 2


def test_a_grey_photograph_stays_grey():
    photo = portrait()
    points = parted()
    for after, teeth in ((opened(0.3 * LEVEL), None), (opened(LEVEL), likely_teeth(ROW))):
        scene = scene_of(analysis_of(photo, points[0]), lips(48, 72), after, points, teeth=teeth)
        assert np.ptp(shown(photo, scene).astype(int), axis=-1).max() <= 1

"""Alignment: exact where it can be, and steady under a moving mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.faces.align import align
from emoedit.types import CropSpec
from tests.fixtures.faces import SPEC, five_points


@pytest.mark.parametrize("style", ["ffhq", "stable"])
def test_matrix_and_inverse_undo_each_other(style):
    alignment = align(five_points(), CropSpec(96, style, 0.8, 0.05))
    points = np.random.default_rng(0).uniform(0, 800, (20, 2))
    np.testing.assert_allclose(alignment.to_photo(alignment.to_crop(points)), points, atol=1e-9)


@pytest.mark.parametrize("style", ["ffhq", "stable"])
def test_a_turned_moved_and_enlarged_face_gives_the_same_crop_coordinates(style):
    spec = CropSpec(128, style, 0.7, 0.1)
    first = align(five_points(), spec).to_crop(five_points())
    again = align(five_points(120, -1.2, 90, 80), spec).to_crop(five_points(120, -1.2, 90, 80))
    np.testing.assert_allclose(first, again, atol=1e-6)


def test_ffhq_square_follows_its_published_formula():
    # Karras et al. 2019: side 2 * max(2 * eye distance, 1.8 * eye-to-mouth), centre a tenth of the way to the mouth.
    points = np.array([[100.0, 100], [160, 100], [130, 130], [110, 170], [150, 170]])
    alignment = align(points, CropSpec(256, "ffhq"))
    side = 2 * max(2 * 60, 1.8 * 70)
    corner = np.array([130, 107]) - side / 2
    np.testing.assert_allclose(alignment.to_crop(corner[None])[0], [-0.5, -0.5], atol=1e-9)
    np.testing.assert_allclose(alignment.zoom, side / 256)


def test_an_opening_mouth_does_not_move_the_eyes_of_the_stable_crop():
    closed, opened = five_points(angle=0), five_points(angle=0)
    opened[3:, 1] += 12  # a sixth of the distance from eyes to mouth: a mouth that falls open
    moved = {}
    for style in ("stable", "ffhq"):
        spec = CropSpec(96, style, 0.66, 0.074)
        moved[style] = np.abs(align(opened, spec).to_crop(opened)[:2] - align(closed, spec).to_crop(closed)[:2]).max()
    assert moved["stable"] < 0.8 and moved["ffhq"] > 1.5 * moved["stable"]


def test_crops_have_their_size_and_coverage_counts():
    photo = np.zeros((700, 800, 3), np.uint8)
    alignment = align(five_points(), SPEC)
    assert alignment.crop(photo).shape == (96, 96, 3) and alignment.scaled(2).crop(photo).shape == (192, 192, 3)
    assert alignment.coverage(700, 800) == 1.0
    assert 0.2 < align(five_points(x=0), SPEC).coverage(700, 800) < 0.8


def test_a_scaled_crop_shows_the_same_part_of_the_photograph():
    rough = np.random.default_rng(0).uniform(0, 255, (20, 20, 3)).astype(np.float32)
    photo = cv2.resize(rough, (800, 700), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    alignment = align(five_points(), SPEC)
    half = cv2.resize(alignment.scaled(2).crop(photo), (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(half - alignment.crop(photo)).mean() < 2

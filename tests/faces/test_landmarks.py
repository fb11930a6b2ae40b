"""Landmarks of drawings are those of the face, in whatever crop it was drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.faces.align import align
from emoedit.faces.detect import FaceDetector
from emoedit.faces.landmarks import landmark_finder, luminance_patches
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.types import CropSpec
from tests.fixtures.faces import SPEC


@pytest.mark.parametrize("spec", [SPEC, CropSpec(128, "stable", 0.66, 0.074), CropSpec(256, "ffhq")])
def test_landmarks_of_a_drawing_are_those_of_the_face(astronaut, spec):
    """They lie where the network that measures finds them in the photograph."""
    face = FaceDetector()(astronaut)[0]
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    network = EmbeddedNetwork.load("landmarks")
    own = align(face.landmarks, network.network.crop)
    expected = own.to_photo(network.points(own.crop(grey)[None])[0].numpy())
    alignment = align(face.landmarks, spec)
    drawing = alignment.crop(astronaut if spec.style == "ffhq" else grey).astype(np.float32)
    found = landmark_finder("cpu")([drawing, drawing], alignment, face)
    assert found.shape == (2, 68, 2)
    np.testing.assert_array_equal(found[0], found[1])
    error = np.linalg.norm(alignment.to_photo(found[0]) - expected, axis=-1)
    assert error.max() < 0.04 * own.zoom * own.resolution and error.mean() < 0.01 * own.zoom * own.resolution


def test_a_finder_is_shared():
    assert landmark_finder("cpu") is landmark_finder("cpu")


def test_patches_are_luminance_within_levels():
    crop = np.full((20, 20, 3), (300.0, -50.0, 90.0), np.float32)
    patches = luminance_patches([crop, crop[..., 0]], np.eye(2, 3), 24)
    assert patches.shape == (2, 24, 24) and patches.dtype == np.float32
    np.testing.assert_allclose(patches[0], 0.299 * 300 - 0.587 * 50 + 0.114 * 90, rtol=1e-5)
    assert (patches[1] == 255).all()

"""Dark faces are lifted to the tones that models know, edited there, and put back; all others are left alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from emoedit.compositing.closing import find_opening
from emoedit.compositing.paste import MODES, paste

from emoedit.faces.align import Alignment, align
from emoedit.faces.masks import LUMA, regions
from emoedit.faces.tone import LEAN, LIGHT, Tone, find_tone, skewness
from emoedit.models.base import Backbone
from emoedit.photo import PhotoEditor, see
from emoedit.types import CropSpec, Edit
from tests.fixtures.editors import from_neutral, tiny_vae

SPEC = CropSpec(96, "stable", 0.66, 0.074)
FACE = regions(SPEC).face
LEVELS = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)


def darkened(picture: np.ndarray, power: float = 7.0) -> np.ndarray:
    """What lifting undoes: the same face with dark skin, its gleams as bright as they were."""
    return np.rint(255 * (picture / 255) ** power).astype(np.uint8)


@pytest.fixture(scope="module")
def photos() -> PhotoEditor:
    return PhotoEditor(from_neutral(tiny_vae()))


def crop_of(photos: PhotoEditor, picture: np.ndarray) -> np.ndarray:
    face = photos.detector.choose(picture)[0]
    return align(face.landmarks, SPEC).crop(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))


def test_a_light_face_is_left_alone_however_dim_its_photograph(photos, astronaut):
    grey = crop_of(photos, astronaut)
    assert find_tone(grey, FACE) == Tone(1.0)
    # Exposure scales tones: it makes none lean, and a model that evens light needs no more.
    assert find_tone((grey * 0.3).astype(np.float32), FACE) == Tone(1.0)


def test_lifting_takes_the_lean_of_dark_skin_and_stops_where_skin_is_light(photos, astronaut):
    grey = crop_of(photos, darkened(astronaut))
    inside = FACE > 0.5
    assert skewness(grey[inside] / 255) > LEAN
    tone = find_tone(grey, FACE)
    assert tone.power < 0.8
    lifted = tone.lifted(grey)[inside] / 255
    assert skewness(lifted) < LEAN + 0.1  # of which a hundredth is not counted
    assert np.median(lifted) < LIGHT + 0.01
    # A mid-grey face with one glaring side leans, but cannot be straightened: it does not end up white.
    glaring = np.full((96, 96), 120.0)
    glaring[:, 70:] = 250
    assert np.median(find_tone(glaring, FACE).lifted(glaring.astype(np.uint8))[inside]) <= 255 * LIGHT + 1


@pytest.mark.parametrize("level", [0, 3, 128, 255])
def test_a_picture_without_tones_is_left_alone(level):
    assert find_tone(np.full((96, 96), level, np.uint8), FACE) == Tone(1.0)


def test_a_tone_is_undone_and_what_did_not_change_keeps_every_bit():
    for tone in (Tone(0.3), Tone(0.7)):
        lifted = tone.lifted(LEVELS)
        assert (np.diff(lifted[..., 0].ravel().astype(int)) >= 0).all()
        assert np.array_equal(tone.restored(LEVELS, lifted, lifted), LEVELS)
        # An edit that makes one level another gives the photograph's own level of it, as finely as 8 bits hold it.
        edited = tone.lifted(LEVELS[::-1, ::-1].copy())
        close = np.abs(tone.restored(LEVELS, lifted, edited).astype(int) - LEVELS[::-1, ::-1])
        assert close.max() <= np.ceil(1 / tone.power)
    assert Tone().lifted(LEVELS) is LEVELS


def test_models_of_luminance_see_the_lifted_face_and_models_of_colour_the_photograph(photos, astronaut):
    dark = darkened(astronaut)
    face = photos.detector.choose(dark)[0]
    where = align(face.landmarks, SPEC)

    class OfColour(Backbone):
        crop, channels = SPEC, 3
        invert = decode = None

    backbone = photos.editor.backbone
    alignment = align(face.landmarks, backbone.crop)
    x, (tone,) = see(dark, [alignment], backbone)
    assert tone.power < 1
    grey = cv2.cvtColor(tone.lifted(dark), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(x[0, 0], torch.from_numpy(alignment.crop(grey)).float() / 127.5 - 1)
    x, tones = see(dark, [where], OfColour())
    assert tones == (Tone(1.0),)
    np.testing.assert_array_equal(x[0].permute(1, 2, 0), torch.from_numpy(where.crop(dark)).float() / 127.5 - 1)


@pytest.mark.parametrize(("mode", "alike"), [("warp", 0.6), ("mouth", 0.5)])
def test_an_edit_of_a_dark_face_is_that_of_the_lifted_one_at_its_own_tones(photos, astronaut, mode, alike):
    photos = PhotoEditor(photos.editor, detector=photos.detector, mode=mode)
    dark = darkened(astronaut)
    opened = photos.open(dark)
    (tone,) = opened.tones
    assert tone.power < 1
    zero, one = photos.edit(opened, [Edit("happy", 0), Edit("happy", 1.5)])
    assert np.array_equal(np.asarray(zero.image), dark)
    result, lifted = np.asarray(one.image), tone.lifted(dark)
    (reference,) = photos.edit(photos.open(astronaut, opened.faces[0]), [Edit("happy", 1.5)])
    change = np.asarray(reference.image).astype(int) - astronaut
    own = tone.lifted(result).astype(int) - lifted
    assert np.abs(own).max() > 5
    moved = (np.abs(change) > 8).any(-1)
    assert np.corrcoef(change[moved].ravel(), own[moved].ravel())[0, 1] > alike
    unchanged = ~cv2.dilate((np.abs(change).max(-1) > 0).astype(np.uint8), np.ones((25, 25))).astype(bool)
    assert np.array_equal(result[unchanged], dark[unchanged])


@pytest.mark.parametrize("mode", MODES)
def test_pale_lips_that_lifting_brightens_are_no_teeth(mode):
    photo = np.tile(np.array([70, 45, 35], np.uint8), (96, 96, 1))
    photo[68:76, 34:62] = (80, 62, 62)
    tone, where = Tone(0.35), regions(SPEC)
    itself = Alignment(np.eye(2, 3), np.eye(2, 3), 96)
    assert find_opening(photo, itself, where) is None
    assert find_opening(tone.lifted(photo), itself, where) is not None  # or this would test nothing
    before = (tone.lifted(photo) @ LUMA).astype(np.float32)
    after = before.copy()
    after[68:76, 34:62] -= 40
    result = paste(photo, itself, [before, after], where, mode=mode, tone=tone)
    assert (result[72, 48] <= photo[72, 48]).all() and (mode == "warp" or (result[72, 48] < photo[72, 48]).any())
    assert np.array_equal(result[0], photo[0])

"""Smiles taken out of photographs: lips meet, corners come down, lines go, and everything else stays."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from emoedit.compositing import relaxing
from emoedit.compositing.relaxing import FOLD_SIDE, Smile, find_smile, relax
from emoedit.faces.align import FFHQ_POINTS, align
from emoedit.faces.layout import CORNERS, PAIRS
from emoedit.faces.masks import face_masks
from emoedit.faces.opening import Opening
from emoedit.faces.tone import LUMA
from emoedit.nn.relaxation import RelaxationConfig, RelaxationNetwork
from emoedit.photo import PhotoEditor
from tests.fixtures.editors import from_neutral, tiny_vae
from tests.fixtures.faces import (
    SPEC,
    analysis_of,
    face_of,
    likely_teeth,
    lips,
    near,
    photo_of,
    points_of,
    smiling,
)

HUE = np.array([1.3, 0.9, 0.75])


@pytest.fixture(scope="module")
def astronauts(_astronaut):
    """A portrait, what is known of its face, and its smile."""
    photos = PhotoEditor(from_neutral(tiny_vae()))
    opened = photos.open(_astronaut, edits=[])
    return photos, opened.source.faces[0], opened.smiles[0]


def toothy() -> tuple[np.ndarray, object]:
    """A drawn face that shows its teeth, and what is known of it."""
    points = face_of()
    points[48:68] = points_of(48, 72, half=16, height=6, apart=7)[48:68]
    photo = photo_of(smiling(50.0), HUE)
    return photo, analysis_of(photo, points, teeth=likely_teeth((38, 69, 58, 75)))


def test_a_portraits_smile_is_found_and_taken_out(astronauts, _astronaut):
    photos, face, smile = astronauts
    assert smile is not None and smile.opening is not None and smile.amount == 1
    before, after = (points[list(CORNERS)] for points in (smile.before, smile.after))
    assert np.ptp(after[:, 0]) < np.ptp(before[:, 0])  # narrower
    assert after[:, 1].mean() > before[:, 1].mean()  # and down
    for upper, lower in PAIRS:
        assert abs(smile.after[upper, 1] - smile.after[lower, 1]) < 1e-3
    kept = _astronaut.copy()
    neutral = relax(_astronaut, face, smile)
    assert np.array_equal(_astronaut, kept)
    again = photos.open(neutral, face.face, edits=[]).source.faces[0]
    assert again.opening is None
    mouth = [np.ptp(f.landmarks[list(CORNERS), 0]) for f in (face, again)]
    assert mouth[1] < mouth[0]


@pytest.mark.parametrize("amount", [0.3, 1.0])
def test_outside_the_mask_not_one_bit_changes(astronauts, _astronaut, amount):
    _, face, smile = astronauts
    result = relax(_astronaut, face, smile, amount)
    reach = cv2.warpAffine((face.masks.face > 0).astype(np.float32), face.alignment.inverse, (512, 512))
    outside = cv2.dilate(reach, np.ones((7, 7))) == 0
    assert np.array_equal(result[outside], _astronaut[outside]) and not np.array_equal(result, _astronaut)
    assert np.array_equal(relax(_astronaut, face, smile, 0.0), _astronaut)


def test_a_smile_goes_by_degrees(astronauts, _astronaut):
    _, face, smile = astronauts
    frames = [relax(_astronaut, face, smile, amount).astype(float) for amount in np.linspace(0, 1, 11)]
    steps = [np.abs(b - a).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert max(steps) < 2 * np.median(steps)


def test_teeth_are_covered_by_the_photographs_own_lips():
    photo, face = toothy()
    assert face.opening is not None
    neutral = RelaxationNetwork(RelaxationConfig(width=8)).eval()  # takes every face for neutral
    smile = find_smile(face, neutral)
    assert smile.opening is face.opening and smile.amount == 1
    was, now = (near(p, 48, 72, 3) @ LUMA for p in (photo, relax(photo, face, smile)))
    assert was.max() > 1.2 * 150 > 1.1 * now.max()
    # No colour is made up but that of the line between the lips: skin stays skin.
    cheek = [near(p, 28, 55, 3) for p in (photo, relax(photo, face, smile))]
    assert np.abs(cheek[0] - cheek[1]).max() <= 6


def test_a_lower_lip_is_as_full_as_in_the_photograph():
    """Where landmarks of both its edges are too high, both are moved to the edge of the opening."""
    x = np.linspace(0.4, 0.7, 40)
    points = points_of(52, 72, half=16, height=6, apart=6) / 96
    lower = np.interp(x, *points[[60, 67, 66, 65, 64]].T)
    for off in (0.02, 0.08, -0.02):
        opening = Opening(x, np.full(40, 0.73), lower + off)
        moved = relaxing._lowered(points, opening) - points
        limit = relaxing.CORRECTED * np.clip(off, 0, relaxing.LOW)
        assert moved[56:59, 1] == pytest.approx([limit] * 3, abs=0.004)
        assert not moved[:55].any() and not moved[60:].any() and not moved[:, 0].any()


def test_a_neutral_face_has_no_smile_to_lose():
    photo = photo_of(lips(48, 72), HUE)
    neutral = RelaxationNetwork(RelaxationConfig(width=8)).eval()
    assert find_smile(analysis_of(photo, face_of()), neutral) is None


@pytest.mark.data
def test_neutral_people_hardly_smile_and_smiling_people_do(data_root):
    from emoedit.io.images import load_picture
    from emoedit.training.readers import read_pairs

    photos = PhotoEditor(from_neutral(tiny_vae()))
    amounts: dict[str, list[float]] = {"neutral": [], "happy": []}
    pairs = read_pairs(data_root / "london-pairs")
    people = {name: [s for s in pairs if s.split == "test" and s.emotion == name][:6] for name in amounts}
    for sample in [*people["neutral"], *people["happy"]]:
        smile = photos.open(load_picture(sample.picture).rgb, edits=[]).smiles[0]
        amounts[sample.emotion].append(0.0 if smile is None else smile.amount)
    assert np.mean(amounts["neutral"]) < 0.15 and np.mean(amounts["happy"]) > 0.35, amounts


def test_lines_go_and_pores_and_light_stay():
    """What two passes along lines take of a crease on a cheek."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:FOLD_SIDE, :FOLD_SIDE].astype(np.float32)
    pores = rng.normal(0, 6, (FOLD_SIDE, FOLD_SIDE)).astype(np.float32)
    light = 30 * np.sin(x / FOLD_SIDE * 3)
    curve = 75 - 0.0025 * (y - 150) ** 2
    crease = -30 * np.exp(-(((x - curve) / 1.3) ** 2)) * ((y > 110) & (y < 200))
    five = FFHQ_POINTS * 400 + [400, 380]
    alignment = align(five, replace(SPEC, resolution=FOLD_SIDE))
    masks = replace(face_masks(SPEC), cheeks=np.ones((96, 96), np.float32))
    photo = cv2.warpAffine(150 + pores + light + crease, alignment.inverse, (800, 800), borderMode=cv2.BORDER_REPLICATE)
    photo = np.repeat(photo[..., None], 3, -1).clip(0, 255).round().astype(np.uint8)
    face = replace(analysis_of(photo, face_of(), align(five, SPEC)), masks=masks)
    found = relaxing._smile_lines(photo, face)
    on = (np.abs(x - curve) < 1) & (y > 125) & (y < 185)
    away = (np.abs(x - curve) > 25) & (y > 40) & (y < 140) & (x > 40) & (x < 220)
    assert found[on].mean() < 0.25 * crease[on].mean() < 0
    assert np.abs(found[away]).mean() < 2.5
    nowhere = replace(face, masks=replace(masks, cheeks=0 * masks.cheeks))
    assert not relaxing._smile_lines(photo, nowhere).any()


@pytest.mark.parametrize("slant", [0, 40, 140])
def test_a_kernel_averages_along_a_line(slant):
    kernel = relaxing._along(slant)
    assert kernel.sum() == pytest.approx(1, abs=1e-5) and kernel.shape[0] == kernel.shape[1]
    side = len(kernel) // 2
    y, x = np.mgrid[-side : side + 1, -side : side + 1]
    c, s = np.cos(np.radians(slant)), np.sin(np.radians(slant))
    spread = [(kernel * (x * a + y * b) ** 2).sum() for a, b in ((c, -s), (s, c))]
    assert spread[1] > 8 * spread[0]


def test_a_small_face_and_a_face_outside_are_left_whole():
    points = np.array([[-500.0, -500], [-480, -500], [-490, -490], [-498, -480], [-482, -480]])
    photo, face = toothy()
    smile = Smile(face.landmarks / 96, face.landmarks / 96, None, 1.0)
    away = replace(face, alignment=align(points, SPEC))
    assert np.array_equal(relax(photo, away, smile), photo)

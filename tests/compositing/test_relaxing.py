"""Smiles taken out of photographs: lips meet, corners come down, and everything else stays."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from emoedit.compositing import relaxing
from emoedit.compositing.relaxing import (
    NeutralFace,
    SmileFinder,
    close_lips,
    neutral_movement,
    relax,
    smile_amount,
    towards_neutral,
)
from emoedit.faces.align import Alignment, align
from emoedit.faces.layout import CORNERS
from emoedit.faces.tone import LUMA
from emoedit.nn.relaxation import RelaxationConfig, RelaxationNetwork
from emoedit.nn.smile_removal import Layers, SmileRemovalConfig, SmileRemovalNetwork
from emoedit.photo import PhotoEditor
from tests.fixtures.editors import from_neutral, tiny_vae
from tests.fixtures.faces import SPEC, analysis_of, face_of, likely_teeth, lips, near, photo_of, points_of, smiling

HUE = np.array([1.3, 0.9, 0.75])
STILL = RelaxationNetwork(RelaxationConfig(width=8)).eval()  # takes every face for neutral


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


def changed(photo: np.ndarray, face: object, amount: float = 1.0, **how: np.ndarray) -> np.ndarray:
    """A photograph on the way to a neutral face that is made as given, with lips left as they are."""
    return towards_neutral(photo, face, None, replace(NeutralFace.unmoved(96), **how), amount)


def test_a_portraits_smile_is_found_and_taken_out(astronauts, _astronaut):
    photos, face, smile = astronauts
    assert smile is not None and smile.opening is face.opening is not None and smile.amount == 1
    kept = _astronaut.copy()
    neutral = relax(_astronaut, face, smile)
    assert np.array_equal(_astronaut, kept)
    again = photos.open(neutral, face.face, edits=[]).source.faces[0]
    assert again.opening is None
    mouth = [np.ptp(f.landmarks[list(CORNERS), 0]) for f in (face, again)]
    assert mouth[1] < 0.95 * mouth[0]  # narrower
    heights = [f.landmarks[list(CORNERS), 1].mean() - f.landmarks[33, 1] for f in (face, again)]
    assert heights[1] > heights[0]  # and further below the nose


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


def test_what_is_in_front_of_a_face_stays(astronauts, _astronaut):
    _, face, smile = astronauts
    hidden = replace(face, hidden=np.ones_like(face.hidden))
    assert np.array_equal(relax(_astronaut, hidden, smile), _astronaut)


def test_teeth_are_covered_by_the_photographs_own_lips():
    photo, face = toothy()
    assert face.opening is not None
    was, now = (near(p, 48, 72, 3) @ LUMA for p in (photo, close_lips(photo, face)))
    assert was.max() > 1.2 * 150 > 1.1 * now.max()
    # No colour is made up but that of the line between the lips: skin stays skin.
    cheek = [near(p, 28, 55, 3) for p in (photo, close_lips(photo, face))]
    assert np.abs(cheek[0] - cheek[1]).max() <= 6


def test_a_flow_says_where_pixels_come_from():
    photo, face = toothy()
    flow = np.zeros((96, 96, 2), np.float32)
    flow[..., 1] = -4  # from above
    moved = changed(photo, face, flow=flow)
    assert near(moved, 30, 76, 1).astype(float) == pytest.approx(near(photo, 30, 72, 1).astype(float), abs=4)
    assert np.abs(near(moved, 48, 66, 1).astype(float) - near(photo, 48, 66, 1)).max() > 20  # the lip's edge went down


def test_light_is_a_ratio_and_paint_covers():
    photo, face = toothy()
    lit = changed(photo, face, light=np.full((96, 96), np.log(0.8), np.float32))
    assert near(lit, 48, 55, 2) == pytest.approx(0.8 * near(photo, 48, 55, 2).astype(float), abs=1.5)
    paint, drawn = np.full((96, 96, 3), (10.0, 20.0, 30.0), np.float32), np.zeros((96, 96), np.float32)
    drawn[40:70] = 1
    covered = changed(photo, face, paint=paint, drawn=drawn)
    assert near(covered, 48, 55, 2) == pytest.approx(np.broadcast_to([10, 20, 30], near(photo, 48, 55, 2).shape), abs=1)
    half = changed(photo, face, 0.5, paint=paint, drawn=drawn)
    assert near(half, 48, 55, 2) == pytest.approx((near(photo, 48, 55, 2) + [10.0, 20, 30]) / 2, abs=1.5)


def test_a_neutral_face_has_no_smile_to_lose():
    photo = photo_of(lips(48, 72), HUE)
    face = analysis_of(photo, face_of())
    removal = SmileRemovalNetwork(SmileRemovalConfig(resolution=32, widths=(8, 8, 16, 16))).eval()
    assert smile_amount(face, STILL) == 0 and SmileFinder(STILL, removal)(photo, face) is None
    assert np.abs(neutral_movement(face, STILL)).max() < 1e-6
    assert smile_amount(toothy()[1], STILL) == 1


def test_a_crop_and_its_mirror_image_lose_the_same_smile():
    """The network sees both, so that neither side of a mouth is preferred."""
    torch.manual_seed(0)
    removal = SmileRemovalNetwork(SmileRemovalConfig(resolution=32, widths=(8, 8, 16, 16))).eval()
    for layer in (removal.coarse, removal.fine):
        torch.nn.init.normal_(layer.weight, std=0.1)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        one, other = relaxing._symmetric(removal, x), relaxing._symmetric(removal, x.flip(-1))
    back = Layers(*(layer.flip(-1) for layer in other))
    for name in ("light", "paint", "drawn"):
        assert torch.allclose(getattr(one, name), getattr(back, name), atol=1e-5)
    assert torch.allclose(one.flow[:, 0], -back.flow[:, 0], atol=1e-5) and one.flow.any()
    assert torch.allclose(one.flow[:, 1], back.flow[:, 1], atol=1e-5)


def test_layers_are_the_same_on_a_crop_that_is_turned_and_larger():
    points = np.array([[40.0, 40], [80, 40], [60, 60], [45, 80], [75, 80]])
    seen = align(points, replace(SPEC, resolution=64))
    turn = np.array([[0.0, -1], [1, 0]])  # a quarter
    other = align(points @ turn.T, replace(SPEC, resolution=128))
    there = Alignment(other.matrix @ np.vstack([np.c_[turn, [0, 0]], [0, 0, 1]]), other.inverse, 128)
    flow = torch.zeros(1, 2, 64, 64)
    flow[:, 0] = 3 / 64  # three pixels of the small crop to the right
    light, paint = torch.full((1, 1, 64, 64), 0.5), torch.zeros(1, 3, 64, 64)
    found = relaxing._on_crop(Layers(flow, light, paint, light), seen, there)
    middle = (slice(40, 88), slice(40, 88))
    expected = 3 * (there.matrix @ np.vstack([seen.inverse, [0, 0, 1]]))[:, 0]
    assert np.hypot(*expected) == pytest.approx(6, rel=1e-3)
    assert found.flow[middle] == pytest.approx(np.broadcast_to(expected, (48, 48, 2)), abs=1e-3)
    assert found.light[middle] == pytest.approx(np.full((48, 48), 0.5)) and np.array_equal(found.light, found.drawn)
    assert found.paint[middle] == pytest.approx(np.full((48, 48, 3), 127.5))


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


@pytest.mark.data
def test_without_their_smiles_people_are_nearer_to_their_neutral_photographs(data_root):
    from emoedit.faces.masks import face_masks
    from emoedit.io.images import load_picture
    from emoedit.training.readers import read_pairs

    photos, spec = PhotoEditor(from_neutral(tiny_vae())), replace(SPEC, resolution=64)
    inside, errors = face_masks(spec).face > 0.5, []
    pairs = [s for s in read_pairs(data_root / "london-pairs") if s.split == "test"]
    for happy in [s for s in pairs if s.emotion == "happy"][:12]:
        (neutral,) = [s for s in pairs if s.person == happy.person and s.emotion == "neutral"]
        truth = load_picture(neutral.picture).rgb
        target = align(photos.detector.choose(truth, "largest")[0].landmarks, spec).crop(truth)
        opened = photos.open(load_picture(happy.picture).rgb, edits=[])
        face, smile, rgb = opened.source.faces[0], opened.smiles[0], opened.source.rgb
        if smile is None:
            continue
        crops = [align(face.face.landmarks, spec).crop(picture) for picture in (rgb, relax(rgb, face, smile))]
        errors.append([np.abs(crop.astype(float) - target)[inside].mean() for crop in crops])
    before, after = np.mean(errors, 0)
    assert len(errors) > 5 and after < 0.95 * before, errors


def test_what_is_below_a_smile_is_found_once_and_only_when_asked_for(astronauts, _astronaut, monkeypatch):
    photos, face, _ = astronauts
    calls, symmetric = [], relaxing._symmetric

    def counted(*given: object) -> Layers:
        calls.append(given)
        return symmetric(*given)

    monkeypatch.setattr(relaxing, "_symmetric", counted)
    opened = photos.open(_astronaut, edits=[])
    assert opened.smiles[0].amount == 1 and not calls
    for amount in (0.5, 1.0):
        relax(_astronaut, face, opened.smiles[0], amount)
    assert len(calls) == 1


def test_a_face_outside_the_photograph_is_left_whole():
    points = np.array([[-500.0, -500], [-480, -500], [-490, -490], [-498, -480], [-482, -480]])
    photo, face = toothy()
    away, light = replace(face, alignment=align(points, SPEC)), np.ones((96, 96), np.float32)
    assert np.array_equal(changed(photo, away, light=light), photo)
    assert not np.array_equal(changed(photo, face, light=light), photo)

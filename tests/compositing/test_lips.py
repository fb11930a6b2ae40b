"""Lips that landmarks lead: where they go, what they take along, and what comes to be seen between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from emoedit.compositing.cavity import opens_mouth
from emoedit.compositing.closing import Opening
from emoedit.compositing.curves import arc, outline
from emoedit.compositing.flow import FLOW_SIDE, estimate_flow, sample
from emoedit.compositing.paste import paste

from emoedit.compositing.lips import inside_lips, lip_flow, parting
from emoedit.faces.align import FFHQ_POINTS, align
from emoedit.faces.detect import FaceDetector
from emoedit.faces.landmarks import DrawingLandmarks
from emoedit.faces.masks import LUMA, regions
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.types import CropSpec
from tests.fixtures.faces import LEVEL, SPEC, lips, points_of


def test_lips_move_as_their_landmarks_and_nothing_far_from_them():
    before, after = points_of(48, 72), points_of(51, 66)
    flow, near = lip_flow(before, after, 96, 96)
    np.testing.assert_allclose(flow[66, 40:62], np.tile([-3.0, 6.0], (22, 1)), atol=0.3)
    assert np.abs(flow[:20]).max() < 1e-3 and near[:20].max() < 1e-3 and near[66, 40:62].min() > 0.8
    # The same movement, in the pixels of a larger picture.
    large, _ = lip_flow(before, after, 96, 192)
    np.testing.assert_allclose(cv2.resize(large, (96, 96), interpolation=cv2.INTER_AREA), 2 * flow, atol=0.05)


def test_a_landmark_that_errs_is_corrected_by_the_others():
    before, after = points_of(48, 72), points_of(48, 68)
    after[57] += [0.0, 3.0]
    assert np.abs(lip_flow(before, after, 96, 96)[0][63:74, 36:60, 1] - 4).max() < 1.5


def test_flow_finds_the_rest_of_what_is_known():
    """Lips that rise by more than their height, in other light: flow alone loses them, and with landmarks that are a
    pixel off it finds the true movement."""
    before, after = lips(48, 74), lips(48, 65, light=25)
    mask = regions(SPEC).face
    start = lip_flow(points_of(48, 74), points_of(49, 66), 96, FLOW_SIDE)
    error = {}
    for name, known in (("alone", None), ("led", start)):
        flow = estimate_flow(before, after, mask, known)
        error[name] = float(np.abs(flow[62:69, 38:59] - [0.0, 9.0]).mean())
    assert error["led"] < 1.2 and error["alone"] > 2 * error["led"]


def test_lips_take_their_colour_along():
    alignment = align(FFHQ_POINTS * 150 + [150, 140], SPEC)
    where = regions(SPEC)
    before, after = lips(48, 74), lips(48, 65, light=25)
    large = np.clip(cv2.warpAffine(before, alignment.inverse, (300, 300), borderValue=LEVEL), 0, 255)
    # Skin everywhere, of the crop's light; lips redder than it.
    skin, red = np.array([1.3, 0.9, 0.75]), np.array([1.55, 0.8, 0.8])
    skin, red = skin / (skin @ LUMA), red / (red @ LUMA)
    share = np.clip((LEVEL - large) / 40, 0, 1)[..., None]
    photo = (large[..., None] * (skin + (red - skin) * share)).clip(0, 255).round().astype(np.uint8)
    points = [points_of(48, 74), points_of(48, 65)]
    height = np.arange(62.0, 69.0)
    x, y = alignment.to_photo(np.stack([np.full_like(height, 48), height], -1)).round().astype(int).T
    shown = paste(photo, alignment, [before, after], where, mode="mouth", points=points)[y, x].astype(float)
    hue = (shown[:, 1] - shown[:, 2]) / (
        shown[:, 0] - shown[:, 2]
    )  # whatever the light: 0 of these lips, .27 of the skin
    assert hue.max() < 0.06


def test_what_is_between_lips_and_whether_they_parted():
    closed, opened = points_of(48, 70), points_of(48, 70, apart=8)
    inside = inside_lips(opened, 96)
    assert inside[70, 48] > 0.99 and inside[60, 48] == 0 and inside[70, 20] == 0
    assert inside_lips(closed, 96)[65:69].max() < 0.05
    assert parting(closed, points_of(48, 70, apart=12), 96) == (1, 1, 0)
    assert parting(points_of(48, 70, apart=12), closed, 96) == (0, 0, 1)
    assert parting(closed, closed, 96) == parting(points_of(48, 70, apart=4), closed, 96) == (0, 0, 0)
    assert 0 < parting(closed, points_of(48, 70, apart=1.6), 96)[0] < 1
    assert parting(closed, points_of(48, 70, apart=4), 96) == (1, 0, 0)  # a smile


def test_curves_go_through_their_points_smoothly():
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    points = np.stack([20 * np.cos(turn), 9 * np.sin(turn)], -1)
    curve, line = outline(points), arc(points[:5])
    assert len(curve) == 8 * 16 and len(line) == 4 * 16 + 1
    np.testing.assert_allclose(curve[::16], points, atol=1e-9)
    np.testing.assert_allclose(line[::16], points[:5], atol=1e-9)
    # An ellipse comes back as one, from whichever of its points it begins.
    np.testing.assert_allclose((curve / [20, 9]) ** 2 @ np.ones(2), 1, atol=0.05)
    np.testing.assert_allclose(np.roll(outline(np.roll(points, 3, 0)), -48, 0), curve, atol=1e-9)
    np.testing.assert_allclose(arc(np.outer(np.arange(5.0), [1, 2]))[:, 1], np.linspace(0, 8, 65), atol=1e-9)


def test_teeth_are_drawn_between_the_lips_only():
    """A bright row in lips: pale where landmarks say that it is between them, and lip-coloured where they stay shut."""
    photo = np.tile(np.array([205, 145, 125], np.uint8), (300, 300, 1))
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    level = float(photo[0, 0] @ LUMA)
    y, x = (int(v) for v in np.argwhere(where.mouth > 0.99).mean(0))
    before = np.full((96, 96), level, np.float32)
    before[y - 4 : y + 5, x - 14 : x + 15] = level - 60
    after = before.copy()
    after[y - 2 : y + 3, x - 12 : x + 13] = 1.15 * level
    # The photograph shows the lips that the reconstruction does, in the skin's hue.
    shade = cv2.warpAffine(before / level, alignment.inverse, (300, 300), borderValue=1.0)
    photo = (photo * shade[..., None]).clip(0, 255).round().astype(np.uint8)
    (px, py) = alignment.to_photo(np.array([[x, y]], float))[0].round().astype(int)
    colour = {}
    for name, apart in (("open", 7.0), ("shut", 0.0)):
        points = [points_of(x, y), points_of(x, y, apart=apart)]
        shown = paste(photo, alignment, [before, after], where, mode="mouth", points=points)[py, px].astype(float)
        colour[name] = (shown[0] - shown[2]) / shown.mean()
    skin = (205 - 125) / np.mean([205, 145, 125])
    assert colour["open"] < 0.25 * skin and colour["shut"] > 0.55 * skin


def test_between_lips_that_are_far_apart_there_is_no_tongue():
    """Whatever grey is drawn there: in a smile it may still be lips, in a wide mouth it is not."""
    photo = np.tile(np.array([205, 145, 125], np.uint8), (300, 300, 1))
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    level = float(photo[0, 0] @ LUMA)
    y, x = (int(v) for v in np.argwhere(where.mouth > 0.99).mean(0))
    before = np.full((96, 96), level, np.float32)
    after = before.copy()
    after[y - 1 : y + 2, x - 4 : x + 5] = 0.85 * level  # too little of it for the dark inside of a mouth
    (px, py) = alignment.to_photo(np.array([[x, y]], float))[0].round().astype(int)
    shown = {}
    for apart in (4.0, 20.0):
        points = [points_of(x, y), points_of(x, y, apart=apart)]
        assert not opens_mouth(points, before, after)
        how = {"mode": "mouth", "points": points}
        shown[apart] = paste(photo, alignment, [before, after], where, **how)[py, px].astype(float)
    chroma = {apart: np.ptp(colour) for apart, colour in shown.items()}
    assert chroma[20.0] < 0.75 * chroma[4.0]


@pytest.mark.parametrize("spec", [SPEC, CropSpec(128, "stable", 0.66, 0.074), CropSpec(256, "ffhq")])
def test_landmarks_of_a_drawing_are_those_of_the_face(astronaut, spec):
    """In whatever crop it was drawn they lie where the network that measures finds them in the photograph."""
    face = FaceDetector()(astronaut)[0]
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    network = EmbeddedNetwork.load("landmarks")
    own = align(face.landmarks, network.network.crop)
    expected = own.to_photo(network.points(own.crop(grey)[None])[0].numpy())
    alignment = align(face.landmarks, spec)
    drawing = alignment.crop(astronaut if spec.style == "ffhq" else grey).astype(np.float32)
    found = DrawingLandmarks()([drawing, drawing], alignment, face)
    assert found.shape == (2, 68, 2)
    np.testing.assert_array_equal(found[0], found[1])
    error = np.linalg.norm(alignment.to_photo(found[0]) - expected, axis=-1)
    assert error.max() < 0.04 * own.zoom * own.resolution and error.mean() < 0.01 * own.zoom * own.resolution


def test_a_start_outside_the_mask_moves_nothing():
    before = lips(48, 74)
    mask = regions(SPEC).face
    start = np.full((FLOW_SIDE, FLOW_SIDE, 2), 5.0, np.float32)
    flow = estimate_flow(before, before, mask, (start, np.zeros((FLOW_SIDE, FLOW_SIDE), np.float32)))
    assert np.abs(flow[mask == 0]).max() < 0.3
    assert np.abs(sample(before, flow) - before)[mask > 0.9].mean() < 1.0


def test_flow_goes_no_further_than_landmarks_may_be_off():
    """What looks like the lip, but is elsewhere: where lips are sure to have stayed, it is not followed."""
    before, after = lips(48, 74), lips(48, 65)
    mask = regions(SPEC).face
    flow, near = lip_flow(points_of(48, 74), points_of(48, 74), 96, FLOW_SIDE)
    led = estimate_flow(before, after, mask, (flow, near))[68:74, 38:59, 1]
    free = estimate_flow(before, after, mask, (flow, np.zeros_like(near)))[68:74, 38:59, 1]
    assert np.abs(led).mean() < 2.5 and np.abs(free).mean() > 1.5 * np.abs(led).mean()


def test_lips_that_stay_together_keep_their_own_detail():
    """An edge that was drawn where there was none: it replaces the detail of lips that part or were open, and not of
    others."""
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    grain = np.random.default_rng(0).normal(0, 12, (300, 300, 1))
    photo = (np.array([205, 145, 125]) + grain).clip(0, 255).astype(np.uint8)
    y, x = (int(v) for v in np.argwhere(where.mouth > 0.99).mean(0))
    before = alignment.crop(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    before = np.full_like(before, before.mean())
    after = before.copy()
    after[y - 3 : y + 4 : 2, x - 9 : x + 10] *= 0.7
    corner = alignment.to_photo(np.array([[x - 4, y - 2], [x + 4, y + 2]], float)).round().astype(int)
    (left, top), (right, bottom) = corner
    kept = {}
    opening = Opening(np.array([0.4, 0.6]), np.array([0.7, 0.7]), np.array([0.72, 0.72]))
    for case, apart, found in (("shut", 0.0, None), ("parted", 12.0, None), ("was open", 0.0, opening)):
        points = [points_of(x, y), points_of(x, y, apart=apart)]
        how = {"mode": "mouth", "points": points, "opening": found}
        shown = paste(photo, alignment, [before, after], where, **how).astype(float)
        luma = [p[top:bottom, left:right] @ LUMA for p in (shown, photo.astype(float))]
        fine = [p - cv2.GaussianBlur(p, (0, 0), 1.0) for p in luma]
        kept[case] = np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1]
    assert kept["shut"] > 0.65 and kept["parted"] < 0.3 and kept["was open"] < 0.3

"""Alignment, flow and paste-back: exact where they can be, on pictures whose right answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from emoedit.compositing.closing import find_opening, gone, opens
from emoedit.compositing.flow import estimate_change, jacobian, sample, unfold
from emoedit.compositing.paste import MODES, _relight, close_mouth, loses_teeth, paste
from emoedit.compositing.redraw import _hold

from emoedit.compositing.mouth import draw_mouth, steepen
from emoedit.faces.align import FFHQ_POINTS, Alignment, align
from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.masks import LUMA, regions
from emoedit.types import CropSpec, NoFaceError

SPEC = CropSpec(96, "stable", 0.66, 0.074)


def face_points(scale: float = 300.0, angle: float = 0.3, x: float = 400.0, y: float = 350.0) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return FFHQ_POINTS * scale @ turn.T + [x, y]


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((12, 12, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = rng.normal(0, 6, (height, width, 1))
    return (coarse * 150 + 50 + fine).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("style", ["ffhq", "stable"])
def test_matrix_and_inverse_undo_each_other(style):
    alignment = align(face_points(), CropSpec(96, style, 0.8, 0.05))
    points = np.random.default_rng(0).uniform(0, 800, (20, 2))
    np.testing.assert_allclose(alignment.to_photo(alignment.to_crop(points)), points, atol=1e-9)


@pytest.mark.parametrize("style", ["ffhq", "stable"])
def test_a_turned_moved_and_enlarged_face_gives_the_same_crop_coordinates(style):
    spec = CropSpec(128, style, 0.7, 0.1)
    first = align(face_points(), spec).to_crop(face_points())
    again = align(face_points(120, -1.2, 90, 80), spec).to_crop(face_points(120, -1.2, 90, 80))
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
    closed, opened = face_points(angle=0), face_points(angle=0)
    opened[3:, 1] += 12  # a sixth of the distance from eyes to mouth: a mouth that falls open
    for style, bound in (("stable", 0.8), ("ffhq", np.inf)):
        spec = CropSpec(96, style, 0.66, 0.074)
        moved = align(opened, spec).to_crop(opened)[:2] - align(closed, spec).to_crop(closed)[:2]
        if style == "stable":
            kept = np.abs(moved).max()
            assert kept < bound
        else:
            assert np.abs(moved).max() > 1.5 * kept


def test_crop_of_a_crop_is_a_crop_and_coverage_counts():
    photo = textured(700, 800)
    alignment = align(face_points(), SPEC)
    assert alignment.crop(photo).shape == (96, 96, 3)
    assert alignment.coverage(700, 800) == 1.0
    assert 0.2 < align(face_points(x=0), SPEC).coverage(700, 800) < 0.8


def test_masks_end_before_the_border():
    for scale, down in ((0.66, 0.074), (1.0, 0.0)):
        where = regions(CropSpec(96, "stable", scale, down))
        border = np.concatenate([where.face[0], where.face[-1], where.face[:, 0], where.face[:, -1]])
        assert border.max() == 0
        assert where.face.max() == 1
        assert (where.moving <= where.face).all()
        assert where.nose.max() == 1 and where.nose[where.mouth > 0.9].max() < 0.5
        assert (where.mouth[where.face == 0] < 0.5).all()


def blob(shift: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:96, :96].astype(np.float32)
    waves = 30 * np.sin(x / 5) * np.cos(y / 6) + 20 * np.sin((x + y) / 9)
    return (120 + waves + 60 * np.exp(-((x - 48 - shift) ** 2 + (y - 60) ** 2) / 60)).astype(np.float32)


def test_flow_finds_a_known_movement():
    mask = regions(SPEC).face
    y, x = np.mgrid[:96, :96].astype(np.float32)
    true = np.stack([2.0 * np.exp(-((x - 48) ** 2 + (y - 55) ** 2) / 300), np.zeros_like(x)], -1).astype(np.float32)
    before = blob()
    after = cv2.remap(before, x + true[..., 0], y + true[..., 1], cv2.INTER_CUBIC)
    change = estimate_change([before, after], mask, regions(SPEC).mouth)
    centre = np.s_[45:65, 38:58]
    assert np.abs(change.flow - true)[centre].mean() < 0.35
    assert np.abs(change.remainder[centre]).mean() < 0.35 * np.abs(after - before)[centre].mean()


def test_flow_never_folds_and_is_still_outside_the_mask():
    mask = regions(SPEC).face
    rng = np.random.default_rng(0)
    for _ in range(5):  # two unrelated pictures: the worst a flow can be asked for
        a, b = (cv2.GaussianBlur(rng.random((96, 96)).astype(np.float32) * 255, (0, 0), 2) for _ in range(2))
        flow = estimate_change([a, b], mask, regions(SPEC).mouth).flow
        assert jacobian(flow).min() > 0
        assert np.abs(flow[mask == 0]).max() < 0.7  # reduced from twice the side, which bleeds half a pixel
    wild = cv2.GaussianBlur(rng.normal(0, 40, (96, 96, 2)).astype(np.float32), (0, 0), 2)
    assert jacobian(wild).min() < 0
    assert jacobian(unfold(wild)).min() > 0


def test_steepening_sharpens_an_edge_where_it_is_and_adds_no_level():
    x = np.arange(48, dtype=np.float32)
    edge = np.repeat((40 + 160 / (1 + np.exp(-(x - 23.5) / 2)))[None], 48, 0).astype(np.float32)
    result = steepen(edge, 4)
    plain = cv2.resize(edge, (192, 192), interpolation=cv2.INTER_CUBIC)
    assert result.shape == (192, 192)
    assert np.diff(result[96]).max() > 1.5 * np.diff(plain[96]).max()
    assert result.min() > plain.min() - 1 and result.max() < plain.max() + 1
    assert abs(int(np.argmax(np.diff(result[96]))) - 95) <= 3
    flat = np.full((24, 24), 77, np.float32)
    np.testing.assert_allclose(steepen(flat, 2), 77, atol=1e-3)


def painted(lips: float, inside: float | None = None) -> np.ndarray:
    """A face of level 170 with eyes and lips, float32 ``[96, 96]``; ``inside`` is the level of an open mouth."""
    y, x = np.mgrid[:96, :96].astype(np.float32)
    face = np.full((96, 96), 170, np.float32)
    for cx in (30, 66):
        face -= 110 * np.exp(-(((x - cx) / 6) ** 2 + ((y - 33) / 3) ** 2))
    face -= (170 - lips) * (np.hypot((x - 48) / 15, (y - 70) / 6) < 1)
    face -= 50 * np.exp(-(((x - 48) / 13) ** 4 + ((y - 70) / 1.2) ** 2))
    if inside is not None:
        face[np.hypot((x - 48) / 11, (y - 71) / 4.5) < 1] = inside
    return cv2.GaussianBlur(face, (0, 0), 1.2)


def resolved(share: float, inside: float) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn in the middle of the mouth, and how surely, for a mean of lips and something else."""
    where = regions(SPEC)
    before = painted(120)
    after = before + share * (painted(120, inside) - before)
    change = estimate_change([before, after], where.moving, where.mouth)
    drawn, new, *_ = draw_mouth(change, after, where.face, where.mouth)
    middle = np.s_[4 * 70 : 4 * 72, 4 * 44 : 4 * 52]
    return drawn[middle].mean(), new[middle].mean()


@pytest.mark.parametrize("inside", [20.0, 205.0])
def test_a_mean_of_lips_and_something_else_is_resolved_to_the_likelier(inside):
    _, unsure = resolved(0.25, inside)
    assert unsure < 0.1
    level, sure = resolved(1.0, inside)
    assert sure > 0.5
    assert abs(level - inside) < 40


def test_lips_part_around_a_gap_and_stay_closed_without_one():
    where = regions(SPEC)
    closed, opened = painted(120), painted(120, 15.0)
    still = estimate_change([closed, closed], where.moving, where.mouth).flow
    assert np.abs(still).max() < 0.1
    flow = estimate_change([closed, opened], where.moving, where.mouth).flow
    none = estimate_change([closed, opened], where.moving, np.zeros_like(where.mouth)).flow
    # Backward flow: above the gap pixels come from below, beneath it from above; the lips have moved apart.
    assert flow[64, 48, 1] - none[64, 48, 1] > 0.5
    assert flow[77, 48, 1] - none[77, 48, 1] < -0.5
    assert jacobian(flow).min() > 0


def test_an_open_smile_is_closed_and_a_closed_mouth_left_alone(astronaut):
    where = regions(SPEC)
    alignment = align(FaceDetector()(astronaut)[0].landmarks, SPEC)
    opening = find_opening(astronaut, alignment, where)
    assert opening is not None
    assert 0.02 < (opening.bottom - opening.top).max() < 0.15
    assert 0.6 < opening.top.min() < opening.bottom.max() < 0.9
    before = alignment.crop(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    dark = before.copy()
    dark[60:80, 30:66] = np.minimum(dark[60:80, 30:66], 110)
    assert gone(opening, before, dark, where)
    assert not gone(opening, before, before, where)
    assert loses_teeth(opening, [before, dark], where) and not loses_teeth(opening, [before, before], where)
    shut = close_mouth(astronaut, alignment, opening)
    assert find_opening(shut, alignment, where) is None
    closed = np.repeat(painted(120)[..., None], 3, -1) * [1.0, 0.75, 0.65]
    itself = Alignment(np.eye(2, 3), np.eye(2, 3), 96)
    assert find_opening(closed.astype(np.uint8), itself, where) is None


@pytest.mark.parametrize("mode", MODES)
def test_nothing_outside_the_mask_changes_and_the_photo_is_not_modified(mode):
    photo = textured(700, 800)
    kept = photo.copy()
    alignment = align(face_points(), SPEC)
    where = regions(SPEC)
    mask = where.face
    before = alignment.crop(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    after = before + 40 * np.exp(-((np.mgrid[:96, :96][1] - 48) ** 2 + (np.mgrid[:96, :96][0] - 60) ** 2) / 80)
    result = paste(photo, alignment, [before, after.astype(np.float32)], where, mode=mode)
    assert np.array_equal(photo, kept)
    reach = cv2.warpAffine((mask > 0).astype(np.float32), alignment.inverse, (800, 700), flags=cv2.INTER_LINEAR)
    outside = cv2.dilate(reach, np.ones((15, 15))) == 0
    assert outside.mean() > 0.3
    assert np.array_equal(result[outside], photo[outside])
    assert not np.array_equal(result, photo)


@pytest.mark.parametrize("mode", MODES)
def test_no_change_gives_the_photo_bit_for_bit(mode):
    photo = textured(300, 300)
    alignment = align(face_points(150, 0, 150, 140), SPEC)
    crop = blob()
    assert np.array_equal(paste(photo, alignment, [crop, crop.copy()], regions(SPEC), mode=mode), photo)


def test_a_redrawn_face_is_the_drawing_with_the_photos_own_detail(astronaut):
    """What the crop can show comes from the drawing, what is too fine for it from the photograph, as far as it is still
    the same thing; where nothing was drawn anew the photograph stays as it is."""
    face = FaceDetector()(astronaut)[0]
    alignment, where = align(face.landmarks, SPEC), regions(SPEC)
    before = alignment.crop(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    y, x = np.mgrid[:96, :96].astype(np.float32)
    dropped = cv2.remap(before, x, y - 3 * np.exp(-(((x - 48) / 22) ** 2) - ((y - 72) / 10) ** 2), cv2.INTER_LINEAR)
    result = paste(astronaut, alignment, [before, dropped], where, mode="redraw")
    shown = alignment.crop(cv2.cvtColor(result, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    inside = where.face > 0.9
    wanted = np.abs(dropped - before)[inside].mean()
    assert np.abs(shown - dropped)[inside].mean() < 0.35 * wanted
    sharp = [np.abs(cv2.Laplacian(p.astype(np.float32), cv2.CV_32F)).mean() for p in (result, astronaut)]
    assert 0.97 < sharp[0] / sharp[1] < 1.03
    eyes = alignment.to_photo(np.array([[20.0, 20.0], [75.0, 40.0]])).round().astype(int)
    (x0, y0), (x1, y1) = eyes.min(0), eyes.max(0)
    assert np.abs(result[y0:y1, x0:x1].astype(int) - astronaut[y0:y1, x0:x1]).mean() < 1.5


def test_the_nose_stays_the_photographs(astronaut):
    """A drawing that moves the whole face down by two pixels moves cheeks so far and the tip of the nose hardly, and
    shows nothing twice in between: the nose's nostrils are as dark as they were."""
    alignment, where = align(FaceDetector()(astronaut)[0].landmarks, SPEC), regions(SPEC)
    before = alignment.crop(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    y, x = np.mgrid[:96, :96].astype(np.float32)
    dropped = cv2.remap(before, x, y - 2, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    for mode in ("redraw", "mouth"):
        result = paste(astronaut, alignment, [before, dropped], where, mode=mode)
        shown = alignment.crop(cv2.cvtColor(result, cv2.COLOR_RGB2GRAY)).astype(np.float32)
        nose, cheeks = where.nose > 0.95, (where.face > 0.9) & (where.nose < 0.02) & (where.mouth < 0.02)
        moved = np.abs(dropped - before)
        assert np.abs(shown - before)[nose].mean() < 0.65 * moved[nose].mean()
        assert np.abs(shown - dropped)[cheeks].mean() < 0.5 * moved[cheeks].mean()
        between = (where.nose > 0.1) & (where.nose < 0.9) & (where.mouth < 0.02)
        assert shown[between].min() < before[between].min() + 8


def test_a_row_of_teeth_is_pale_and_a_gleam_on_a_lip_is_not():
    photo = np.tile(np.array([205, 145, 125], np.uint8), (300, 300, 1))
    alignment, where = align(face_points(150, 0, 150, 140), SPEC), regions(SPEC)
    level = float(photo[0, 0] @ LUMA)
    y, x = (int(v) for v in np.argwhere(where.mouth > 0.99).mean(0))
    (px, py) = alignment.to_photo(np.array([[x, y]], float))[0].round().astype(int)
    colour = {}
    for name, half in (("teeth", 12), ("gleam", 4)):
        before = np.full((96, 96), level, np.float32)
        before[y - 3 : y + 4, x - 14 : x + 15] = level - 60  # lips
        after = before.copy()
        after[y - 2 : y + 3, x - half : x + half + 1] = 1.15 * level
        shown = paste(photo, alignment, [before, after], where, mode="mouth")[py, px].astype(float)
        colour[name] = (shown[0] - shown[2]) / shown.mean()
    skin = (205 - 125) / photo[0, 0].mean()
    assert colour["teeth"] < 0.5 * skin and colour["gleam"] > 0.8 * skin


def test_what_is_held_moves_and_lights_in_proportion():
    before = blob()
    y, x = np.mgrid[:96, :96].astype(np.float32)
    flow = np.stack([np.full_like(x, 2.0), np.zeros_like(x)], -1)
    after = sample(before, flow) + 9
    for share in (0.0, 0.5, 1.0):
        less, edited = _hold(before, after, flow, np.full((96, 96), share, np.float32))
        np.testing.assert_allclose(less[..., 0], 2 * (1 - share), atol=1e-5)
        expected = sample(before, (1 - share) * flow) + 9 * (1 - share)
        np.testing.assert_allclose(edited[5:-5, 5:-5], expected[5:-5, 5:-5], atol=1e-3)


def test_only_mouths_are_drawn_where_the_photo_keeps_its_detail_elsewhere():
    """A dark patch that comes, once over an eye and once over the mouth, on fine noise: what is drawn hides noise."""
    rng = np.random.default_rng(0)
    photo = np.repeat(rng.normal(150, 12, (300, 300, 1)), 3, 2).clip(0, 255).astype(np.uint8)
    alignment, where = align(face_points(150, 0, 150, 140), SPEC), regions(SPEC)
    before = np.full((96, 96), 150, np.float32)
    kept = {}
    for place, mask in (("mouth", where.mouth), ("eye", where.moving * (1 - where.mouth))):
        y, x = np.unravel_index(np.argmax(cv2.GaussianBlur(mask * where.face, (0, 0), 4)), mask.shape)
        after = before.copy()
        after[y - 3 : y + 4, x - 5 : x + 6] = 40
        (px, py) = alignment.to_photo(np.array([[x, y]], float))[0].round().astype(int)
        for mode in ("redraw", "mouth"):
            result = paste(photo, alignment, [before, after], where, mode=mode)
            patch = [p[py - 4 : py + 5, px - 4 : px + 5, 0].astype(np.float32) for p in (result, photo)]
            fine, noise = (cv2.Laplacian(p, cv2.CV_32F) for p in patch)
            kept[place, mode] = float((fine * noise).sum() / (noise * noise).sum())
    assert kept["mouth", "mouth"] == pytest.approx(kept["mouth", "redraw"], rel=0.05) and kept["mouth", "mouth"] < 0.5
    assert kept["eye", "redraw"] < 0.5 and kept["eye", "mouth"] > 0.8


def test_a_redrawn_smile_is_closed_where_its_teeth_go(astronaut):
    alignment, where = align(FaceDetector()(astronaut)[0].landmarks, SPEC), regions(SPEC)
    before = alignment.crop(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    closed = before.copy()
    closed[60:80, 30:66] = np.minimum(closed[60:80, 30:66], 110)
    opening = find_opening(astronaut, alignment, where)
    assert loses_teeth(opening, [before, closed], where)
    # What was drawn for the closed mouth is put into the photograph with its mouth closed, even if it is nothing.
    shut = alignment.crop(cv2.cvtColor(close_mouth(astronaut, alignment, opening), cv2.COLOR_RGB2GRAY))
    for frames in ([shut, shut], [shut, shut + 1.0]):
        frames = [f.astype(np.float32) for f in frames]
        result = paste(astronaut, alignment, frames, where, mode="redraw", opening=opening, closed=True)
        assert find_opening(result, alignment, where) is None
        assert np.array_equal(result[:40], astronaut[:40])
    shown = paste(astronaut, alignment, [before, before + 1], where, mode="redraw", opening=opening)
    assert find_opening(shown, alignment, where)
    still, down = np.zeros((96, 96, 2), np.float32), np.zeros((96, 96, 2), np.float32)
    down[70:, :, 1] = -1.5
    assert not opens(opening, still) and not opens(opening, -down) and opens(opening, down)
    # Teeth that moved have not gone; teeth that a drawn opening took have, wherever they had moved.
    y, x = np.mgrid[:96, :96].astype(np.float32)
    flow = np.stack([np.zeros_like(x), np.full_like(x, -4)], -1)
    moved = cv2.remap(before, x, y - 4, cv2.INTER_LINEAR)
    assert gone(opening, before, moved, where) and not gone(opening, before, moved, where, flow)
    dark = moved.copy()
    dark[60:84, 30:66] = np.minimum(dark[60:84, 30:66], 60)
    assert gone(opening, before, dark, where, flow)


def test_a_crease_that_goes_leaves_no_glow_and_a_shadow_is_warm():
    skin, crease = np.array([200.0, 160.0, 140.0]), np.array([150.0, 95.0, 70.0])
    rgb = np.tile(skin, (40, 40, 1)).astype(np.float32)
    rgb[:, 20] = crease
    level, nothing = float(skin @ LUMA), np.zeros((40, 40), np.float32)
    lit = _relight(rgb, level - rgb @ LUMA, nothing, nothing, spread=6.0)
    assert np.allclose(lit[:, 20], skin, atol=0.1 * np.ptp(skin))  # nor is it warmer than what it becomes
    gleam = rgb.copy()
    gleam[:, 20] = 235.0
    dulled = _relight(gleam, level - gleam @ LUMA, nothing, nothing, spread=6.0)
    assert np.ptp(dulled[:, 20], axis=-1).min() > 0.7 * np.ptp(skin)  # and no grey line
    shaded = _relight(np.tile(skin, (40, 40, 1)).astype(np.float32), nothing - 60, nothing, nothing, spread=6.0)[0, 0]
    assert np.ptp(shaded) / (shaded @ LUMA) > 1.05 * np.ptp(skin) / (skin @ LUMA)


def test_faces_half_outside_the_frame_and_tiny_photos_are_pasted_without_error():
    for height, width, points in ((200, 200, face_points(300, 0, 0, 0)), (20, 20, face_points(12, 0, 10, 10))):
        photo = textured(height, width)
        alignment = align(points, SPEC)
        for mode in MODES:
            result = paste(photo, alignment, [blob(), blob(3)], regions(SPEC), mode=mode)
            assert result.shape == photo.shape
            assert result.dtype == np.uint8


def test_full_size_backbones_bring_colour():
    photo = textured(300, 300)
    alignment = align(face_points(150, 0, 150, 140), SPEC)
    where = regions(SPEC)
    red = np.zeros((96, 96, 3), np.float32)
    red[..., 0] = 255
    result = paste(photo, alignment, [blob()[..., None].repeat(3, -1), red], where, mode="replace")
    x, y = alignment.to_photo(np.array([[48.0, 52.0]]))[0].round().astype(int)
    assert result[y, x].tolist() == [255, 0, 0]


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


def test_detection_finds_the_portrait_in_any_size_and_place(detector, astronaut):
    (face,) = detector(astronaut)[:1]
    assert face.confidence > 0.99
    x0, y0, x1, y1 = face.box
    assert 160 < x0 < x1 < 290
    assert 40 < y0 < y1 < 220
    assert abs(face.yaw) < 0.35
    eyes, mouth = face.landmarks[:2], face.landmarks[3:]
    assert eyes[0, 0] < eyes[1, 0]
    assert eyes[:, 1].max() < mouth[:, 1].min()
    large = cv2.resize(astronaut, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(detector(large)[0].landmarks / 4, face.landmarks, atol=4)


def test_ten_faces_are_ordered_by_size_and_chosen_by_index(detector, astronaut):
    head = astronaut[0:260, 90:350]
    canvas = np.full((620, 1400, 3), 128, np.uint8)
    for n in range(10):
        side = 250 - 12 * n
        small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
        top, left = (n // 5) * 300 + 10, (n % 5) * 275 + 10
        canvas[top : top + side, left : left + side] = small
    faces = detector.choose(canvas, "all")
    assert len(faces) == 10
    assert all(a.area >= b.area for a, b in zip(faces, faces[1:], strict=False))
    assert detector.choose(canvas, "3")[0].box == faces[3].box
    assert len(detector.choose(canvas)) == 1
    for bad in (10, -1, "biggest"):
        with pytest.raises(NoFaceError):
            detector.choose(canvas, bad)


@pytest.mark.parametrize("shape", [(1, 1), (15, 400), (40, 40), (300, 300)])
def test_no_face_is_a_typed_error(detector, shape):
    with pytest.raises(NoFaceError, match="no face"):
        detector.choose(np.full((*shape, 3), 90, np.uint8))


def test_yaw_is_zero_from_the_front_and_does_not_turn_with_the_picture():
    points = np.array([[-1.0, 0], [1, 0], [0, 1], [-0.8, 2], [0.8, 2]])
    assert Face((0, 0, 1, 1), points, 1.0).yaw == pytest.approx(0, abs=1e-9)
    points[2, 0] = 0.6
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    assert Face((0, 0, 1, 1), points, 1.0).yaw == pytest.approx(0.3)
    assert Face((0, 0, 1, 1), points @ turn.T * 7 + 3, 1.0).yaw == pytest.approx(0.3)

"""Mouths that an edit opens: which do, the photograph's own lips around them, and what is seen between these."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from emoedit.compositing.cavity import Between, beside_own_lips, cavity, dark_patch, opens_mouth
from emoedit.compositing.dentition import SURPRISE
from emoedit.compositing.paste import paste
from emoedit.compositing.redraw import find_movement

from emoedit.compositing.lips import around, lip_flow
from emoedit.compositing.mouth import LARGER
from emoedit.faces.align import FFHQ_POINTS, align
from emoedit.faces.masks import LUMA, regions
from tests.fixtures.faces import LEVEL, SPEC, lips, points_of

CLOSED, OPEN = points_of(48, 72), points_of(48, 72, apart=9)


def opened(inside: float) -> np.ndarray:
    """What a small model draws of an open mouth: one blur, whose middle has this level."""
    crop = np.full((96, 96), LEVEL, np.float32)
    cv2.ellipse(crop, (48, 72), (14, 10), 0, 0, 360, LEVEL - 50, -1)
    cv2.ellipse(crop, (48, 72), (11, 5), 0, 0, 360, inside, -1)
    return cv2.GaussianBlur(crop, (0, 0), 2.5)


def test_a_mouth_opens_where_lips_part_and_it_darkens_between_them():
    before = lips(48, 72)
    assert opens_mouth((CLOSED, OPEN), before, opened(0.3 * LEVEL))
    assert not opens_mouth((CLOSED, OPEN), before, opened(1.2 * LEVEL))  # teeth: a smile
    assert not opens_mouth((CLOSED, points_of(48, 72, apart=0.6)), before, opened(0.3 * LEVEL))
    assert not opens_mouth((OPEN, OPEN), before, opened(0.3 * LEVEL))  # it was open before
    assert not opens_mouth((OPEN, CLOSED), before, opened(0.3 * LEVEL))
    # What a large drawing shows between lips is better than anything made up.
    large = [cv2.resize(p, (256, 256)) for p in (before, opened(0.3 * LEVEL))]
    assert not opens_mouth(tuple((p + 0.5) * 256 / 96 - 0.5 for p in (CLOSED, OPEN)), *large)


@pytest.mark.parametrize("skin", [60.0, 200.0])
def test_the_inside_is_dark_above_a_tongue_and_ends_at_the_lips(skin: float):
    between = Between.lips(OPEN, 96, 4.0, 0.0)
    where, levels = between.mask, cavity(between, skin)
    assert where.shape == levels.shape == (96 * LARGER,) * 2 and where.dtype == levels.dtype == np.float32
    x, top, bottom = (round((v + 0.5) * LARGER) for v in (48, 72 - 4.5, 72 + 4.5))
    assert where[(top + bottom) // 2, x] > 0.99 and where[top - LARGER, x] == 0 == where[bottom + LARGER, x]
    assert where[top + LARGER : bottom - LARGER, x].min() > 0.99
    assert between.height[x] == pytest.approx(bottom - top, abs=2) and between.below[top, x] == pytest.approx(0, abs=2)
    column = levels[top:bottom, x] / skin
    dark, tongue = column[: len(column) // 2].min(), column[round(0.85 * len(column))]
    assert dark < 0.2 and 0.3 < tongue < 0.6
    assert cavity(between, skin, tongue=0)[top:bottom, x].max() < 0.32 * skin
    # Beside the tongue it is dark all the way down.
    side = round((48 + 0.7 * 11) * LARGER)
    rows = np.nonzero(where[:, side] > 0.99)[0]
    assert levels[rows, side].max() < 0.35 * skin
    # In a small photograph, or a blurred one, its edges are no crisper than others are there.
    for zoom, blur in ((1.0, 0.0), (4.0, 4.0)):
        blurred = Between.lips(OPEN, 96, zoom, blur).mask[:, x]
        assert np.abs(np.diff(blurred)).max() < 0.6 * np.abs(np.diff(where[:, x])).max()
    # Mouths grow with the distance of their lips, smoothly.
    masks = [Between.lips(points_of(48, 72, apart=apart), 96, 4.0, 0.0).mask for apart in (2, 4, 6, 8, 10)]
    steps = np.diff([mask.sum() / LARGER**2 for mask in masks])
    assert (steps > 0).all() and steps.max() < 1.5 * steps.min()


def test_lips_go_half_way_to_the_dark_that_is_drawn_between_them():
    """Landmarks of a blur say too little; what is dark and hangs together with what lies between them, says more."""
    wide, mouth = opened(0.3 * LEVEL), regions(SPEC).mouth
    wide[85:87, 30:66] = 0.3 * LEVEL  # the shadow below a lip
    patch = dark_patch(points_of(48, 72, apart=5), wide, LEVEL, mouth)
    rows = np.nonzero(patch[:, 48 * LARGER + 1])[0] / LARGER
    assert rows[0] == pytest.approx(64.5, abs=1) and rows[-1] == pytest.approx(79.5, abs=1)
    led = around(points_of(48, 72, apart=5), patch)
    assert led[62, 1] == pytest.approx((69.5 + rows[0]) / 2, abs=0.8) and led[66, 1] > 76
    assert led[62, 1] - led[51, 1] == pytest.approx(np.subtract(*points_of(48, 72, apart=5)[[62, 51], 1]))
    np.testing.assert_array_equal(led[[48, 54, 60, 64]], points_of(48, 72, apart=5)[[48, 54, 60, 64]])
    whole = around(points_of(48, 72, apart=5), patch, outwards=1.0)
    assert whole[62, 1] == pytest.approx(rows[0], abs=1.5) and whole[62, 1] < led[62, 1] - 1
    np.testing.assert_array_equal(around(OPEN, np.zeros_like(patch)), OPEN)


def test_lips_that_part_go_their_own_ways():
    """Led together they would be averaged; apart, each goes the whole way, and the jaw goes with the lower one."""
    together, _ = lip_flow(CLOSED, OPEN, 96, 96)
    apart, near = lip_flow(CLOSED, OPEN, 96, 96, parted=True)
    upper, lower = (slice(64, 67), 48, 1), (slice(78, 81), 48, 1)
    assert apart[upper].mean() == pytest.approx(4.5, abs=0.7) and apart[lower].mean() == pytest.approx(-4.5, abs=0.7)
    assert abs(together[upper].mean()) < abs(apart[upper].mean())
    assert abs(apart[90, 48, 1]) > 1.5 * abs(apart[54, 48, 1])
    assert near.min() >= 0 and near.max() <= 1 and np.abs(apart[:25]).max() < 0.05
    # Lips that stay together go the same way whoever leads them.
    same = [lip_flow(CLOSED, points_of(50, 70), 96, 96, parted=p)[0] for p in (False, True)]
    assert np.abs(same[0] - same[1])[66:75, 36:65].max() < 0.4


def test_lips_keep_the_light_that_blur_would_take():
    share = beside_own_lips(OPEN, 96)
    assert share.dtype == np.float32 and share[72 - 7, 48] < 0.15 and share[30, 48] == 1 == share[72, 10]


def test_an_opened_mouth_shows_its_inside_between_the_photographs_own_lips():
    grain = np.random.default_rng(0).normal(0, 10, (300, 300))
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    before, after = lips(48, 72), opened(0.5 * LEVEL)
    large = cv2.warpAffine(before, alignment.inverse, (300, 300), borderValue=LEVEL) + grain
    for eye in alignment.to_photo(np.array([[34.0, 36], [62, 36]])):  # as dark as photographs are somewhere in a face
        cv2.circle(large, eye.round().astype(int).tolist(), 3, 10.0, -1)
    hue = np.array([1.3, 0.9, 0.75])
    photo = (large[..., None] * hue / (hue @ LUMA)).clip(0, 255).round().astype(np.uint8)
    assert find_movement(before, after, where, (CLOSED, OPEN)).shows is SURPRISE
    shown = {
        name: paste(photo, alignment, [before, after], where, mode="redraw", points=points)
        for name, points in (("open", (CLOSED, OPEN)), ("shut", (CLOSED, CLOSED)))
    }

    def near(picture: np.ndarray, x: float, y: float, radius: int = 2) -> np.ndarray:
        px, py = alignment.to_photo(np.array([[x, y]]))[0].round().astype(int)
        return (picture[py - radius : py + radius + 1, px - 2 * radius : px + 2 * radius + 1] @ LUMA).astype(float)

    assert near(shown["open"], 48, 72).mean() < 0.3 * LEVEL < near(shown["shut"], 48, 72).mean()
    # The upper lip has gone up by half the opening, with its own grain in it and about its own light.
    was, now = near(photo, 48, 69.3, 3), near(shown["open"], 48, 65.0, 3)
    assert now.std() > 0.5 * was.std() and abs(now.mean() - was.mean()) < 25
    # Nothing changes far from the mouth but by what the model drew there.
    far = [near(p, 48, 30, 6) for p in (photo, shown["open"])]
    assert np.abs(far[0] - far[1]).max() < 3


def test_the_inside_is_redder_than_skin_and_a_grey_photograph_stays_grey():
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    before, after = lips(48, 72), opened(0.5 * LEVEL)
    large = cv2.warpAffine(before, alignment.inverse, (300, 300), borderValue=LEVEL)[..., None]
    (x, y) = alignment.to_photo(np.array([[48.0, 72.0]]))[0].round().astype(int)
    for hue in (np.array([1.3, 0.9, 0.75]), np.ones(3)):
        photo = (large * hue / (hue @ LUMA)).clip(0, 255).round().astype(np.uint8)
        shown = paste(photo, alignment, [before, after], where, mode="redraw", points=(CLOSED, OPEN))
        inside = shown[y - 2 : y + 3, x - 4 : x + 5].mean((0, 1))
        if hue[0] > 1:
            assert inside[0] / inside[2] > 1.2 * hue[0] / hue[2] and inside[0] > inside[1] >= inside[2]
        else:
            assert np.ptp(shown, axis=-1).max() == 0

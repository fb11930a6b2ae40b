"""Masks of a crop: soft, zero at its border, and the same parts of the face whatever the crop."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.faces.align import FFHQ_POINTS, align
from emoedit.faces.masks import face_masks
from emoedit.types import CropSpec


@pytest.mark.parametrize(("scale", "down"), [(0.66, 0.074), (1.0, 0.0)])
def test_masks_end_before_the_border(scale, down):
    masks = face_masks(CropSpec(96, "stable", scale, down))
    for part in (masks.face, masks.nose, masks.mouth, masks.cheeks):
        assert part.shape == (96, 96) and part.dtype == np.float32 and part.min() == 0 and part.max() == 1
    border = np.concatenate([masks.face[0], masks.face[-1], masks.face[:, 0], masks.face[:, -1]])
    assert border.max() == 0
    assert masks.nose[masks.mouth > 0.9].max() < 0.5 and (masks.mouth[masks.face == 0] < 0.5).all()


def test_they_are_the_same_parts_of_the_face_in_every_crop():
    first, other = CropSpec(96, "stable", 0.66, 0.074), CropSpec(256, "stable", 1.0, 0.0)
    points = FFHQ_POINTS * 300 + [300, 300]
    onto = align(points, first).matrix @ np.vstack([align(points, other).inverse, [0, 0, 1]])
    for name in ("nose", "mouth", "cheeks"):
        found = cv2.warpAffine(getattr(face_masks(other), name), onto, (96, 96), flags=cv2.INTER_AREA)
        assert np.abs(found - getattr(face_masks(first), name)).max() < 0.1


def test_mouth_and_nose_are_where_a_face_has_them():
    spec = CropSpec(128, "stable", 0.66, 0.074)
    masks, points = face_masks(spec), FFHQ_POINTS * 300 + [300, 300]
    left, right, nose, *corners = align(points, spec).to_crop(points).round().astype(int)
    assert masks.nose[nose[1], nose[0]] > 0.5 and all(masks.mouth[y, x] > 0.9 for x, y in corners)
    assert all(masks.face[y, x] > 0.9 and masks.mouth[y, x] == 0 for x, y in (left, right))

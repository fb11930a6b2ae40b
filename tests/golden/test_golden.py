"""Edited faces look as they did. What changes on purpose is made anew with ``python tests/golden/make.py``."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from emoedit.io import checkpoints
from tests.golden.cases import CASES, FOLDER, NEUTRAL, SMILING, Case, Difference, golden, path, pictures, source


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source}-{case.editor}")
def test_edits_look_as_they_did(case: Case):
    if case.editor != "perfect" and not (checkpoints.embedded_root() / case.editor).is_dir():
        pytest.skip(f"no embedded {case.editor} in this checkout")
    found = {name: Difference.between(golden(name), picture) for name, picture in pictures(case)}
    changed = {name: difference for name, difference in found.items() if not difference.small}
    assert not changed, f"look at what changed, then renew it with python tests/golden/make.py: {changed}"


def test_every_case_has_its_picture_and_all_are_small():
    names = {name for case in CASES for name in case.names}
    assert {file.stem for file in (FOLDER / "pictures").glob("*.webp")} == names
    assert all(Image.open(path(name)).size == (192, 192) for name in names)
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 6_000_000


def test_people_are_shown_as_they_agreed_to():
    """At most 12 people, at no more than 384 pixels, with the attribution beside them."""
    files = list((FOLDER / "sources").glob("*.jpg"))
    assert all(max(Image.open(file).size) <= 384 for file in files)
    assert len({file.stem[:3] for file in files}) == 8
    assert {*NEUTRAL, *SMILING} <= {file.stem for file in files}
    assert "CC BY 4.0" in (FOLDER / "sources" / "ATTRIBUTION.md").read_text()


def test_rounding_is_small_and_a_small_change_is_not():
    """Rounding is one level here and there; a change is a tint of a mouth, or lips that are half a pixel higher."""
    picture = golden(CASES[0].names[0])
    rng = np.random.default_rng(0)
    noise = (rng.random(picture.shape) < 0.002) * rng.choice([-1, 1], picture.shape)
    assert Difference.between(picture, (picture + noise).clip(0, 255).astype(np.uint8)).small
    tinted, moved = picture.copy(), picture.copy()
    tinted[120:150, 75:120, 2] = (tinted[120:150, 75:120, 2] * 0.96).astype(np.uint8)
    assert not Difference.between(picture, tinted).small
    up = np.array([[1.0, 0, 0], [0, 1, -0.5]])
    moved[110:160, 60:130] = cv2.warpAffine(picture, up, (192, 192))[110:160, 60:130]
    assert not Difference.between(picture, moved).small
    assert source("drawn-lips").shape == (300, 300, 3)

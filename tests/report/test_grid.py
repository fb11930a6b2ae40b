"""The labelled grid: sizes, places, and labels that fit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emoedit.report.grid import labelled_grid
from emoedit.types import EmoEditError

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def tiles(*colours, size=(40, 40)):
    return [Image.new("RGB", size, colour) for colour in colours]


def box(sheet: np.ndarray, colour) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((sheet == colour).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_pictures_stand_in_reading_order_on_white_without_touching() -> None:
    sheet = labelled_grid(tiles(RED, GREEN, BLUE), ["a", "b", "c"], columns=2, cell=64)
    pixels = np.asarray(sheet)
    red, green, blue = (box(pixels, colour) for colour in (RED, GREEN, BLUE))
    assert sheet.mode == "RGB"
    assert all((x1 - x0, y1 - y0) == (64, 64) for x0, y0, x1, y1 in (red, green, blue))
    assert red[1] == green[1] and red[2] < green[0]
    assert blue[0] == red[0] and blue[1] > red[3]
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == 255).all()
    assert (pixels[red[3] :, green[0] : green[2]][green[3] :] == 255).all()  # the place of a fourth picture stays white


def test_labels_are_centred_under_their_pictures() -> None:
    pixels = np.asarray(labelled_grid(tiles(RED, GREEN), ["wide label", ""], columns=2, cell=160))
    x0, _, x1, y1 = box(pixels, RED)
    ink = np.nonzero((pixels[y1:] < 128).all(-1))
    assert abs((ink[1].min() + ink[1].max()) / 2 - (x0 + x1 - 1) / 2) <= 2
    assert ink[1].max() < x1 and ink[0].min() > 0 and ink[0].max() < pixels.shape[0] - y1 - 1


def test_a_long_label_is_set_smaller_until_it_fits() -> None:
    pixels = np.asarray(labelled_grid(tiles(RED), ["happy - 0.4*surprised + sad"], columns=1, cell=160))
    _, _, _, y1 = box(pixels, RED)
    columns = np.nonzero((pixels[y1:] < 128).all(-1))[1]
    assert 0 < columns.min() and columns.max() < pixels.shape[1] - 1
    assert np.ptp(columns) > 100


@pytest.mark.parametrize(("size", "expected"), [((80, 40), (64, 32)), ((20, 40), (32, 64)), ((1000, 1000), (64, 64))])
def test_shapes_are_kept(size, expected) -> None:
    pixels = np.asarray(labelled_grid(tiles(RED, size=size), ["x"], columns=1, cell=64))
    x0, y0, x1, y1 = box(pixels, RED)
    assert (x1 - x0, y1 - y0) == expected


def test_other_modes_and_transparency() -> None:
    clear = Image.new("RGBA", (20, 20), (*RED, 0))
    sheet = labelled_grid([clear, Image.new("L", (20, 20), 90)], ["", ""], columns=5, cell=20)
    pixels = np.asarray(sheet)
    assert not (pixels == RED).all(-1).any()
    assert box(pixels, (90, 90, 90))[2] <= sheet.width < 3 * 30  # no wider than the two pictures there are


@pytest.mark.parametrize(
    ("images", "labels", "options"), [([], [], {}), ([1], ["a", "b"], {}), ([1], ["a"], {"columns": 0})]
)
def test_what_makes_no_grid_is_refused(images, labels, options) -> None:
    with pytest.raises(EmoEditError):
        labelled_grid(tiles(*([RED] * len(images))), labels, **{"columns": 2, **options})

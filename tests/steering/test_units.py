"""Action units on a photograph: each moves what it should and leaves the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoedit.editors import Editor, load_editor
from emoedit.faces.layout import BROWS, EYES, LIPS
from emoedit.photo import OpenPhoto, PhotoEditor
from emoedit.steering.unit_names import SIDED, UNITS
from emoedit.steering.units import ActionUnits
from emoedit.types import CheckpointError, Edit, EditError, UnknownNameError
from tests.fixtures.editors import tiny_vae

UPPER = [*range(BROWS[0].start, BROWS[1].stop), *range(EYES[0].start, EYES[1].stop)]
MOUTH = list(range(LIPS.start, LIPS.stop))
# unit -> landmarks of one half, and where they go: x outwards (for the half that lies left in the picture), y down
WAYS = {
    1: ([20, 21], (0, -1)), 2: ([17, 18], (0, -1)), 4: ([20, 21], (1, 1)), 5: ([37, 38], (0, -1)),
    6: ([40, 41], (0, -1)), 7: ([40, 41], (0, -1)), 9: ([31], (0, -1)), 10: ([50], (0, -1)), 12: ([48], (-1, -1)),
    14: ([48], (-1, 0)), 15: ([48], (0, 1)), 16: ([57, 58], (0, 1)), 17: ([57, 58], (0, -1)), 20: ([48], (-1, 0)),
    23: ([48], (1, 0)), 24: ([50, 51], (0, 1)), 25: ([66, 67], (0, 1)), 26: ([57, 66], (0, 1)), 27: ([57, 66], (0, 1)),
    43: ([37, 38], (0, 1)),
}  # fmt: skip


@pytest.fixture(scope="module")
def photos() -> PhotoEditor:
    return PhotoEditor(load_editor("facs", device="cpu"))


@pytest.fixture(scope="module")
def opened(photos, _astronaut) -> OpenPhoto:
    return photos.open(_astronaut, edits=[Edit("AU12")])


def moves(photos: PhotoEditor, opened: OpenPhoto, emotion: str, strength: float = 1.0) -> np.ndarray:
    """Displacements ``[68, 2]`` in fractions of the crop's side, as the face can make them."""
    (change,) = photos.editor.changes(opened.inversion, Edit(emotion, strength))
    return (change.points[1] - change.points[0]) / photos.editor.backbone.crop.resolution


def test_every_unit_is_there(photos):
    for number in UNITS:
        assert f"AU{number}" in photos.editor.emotions
        assert (f"AU{number}L" in photos.editor.emotions) == (number in SIDED)
    assert set(WAYS) == set(UNITS)


@pytest.mark.parametrize("number", UNITS)
def test_each_unit_moves_what_it_should(photos, opened, number):
    landmarks, way = WAYS[number]
    found = moves(photos, opened, f"AU{number}")[landmarks].mean(0)
    for axis in (0, 1):
        if way[axis]:
            assert found[axis] * way[axis] > 0.002, f"AU{number} {found}"
    weaker = moves(photos, opened, f"AU{number}", 0.5)[landmarks].mean(0)
    assert 0 < np.linalg.norm(weaker) < np.linalg.norm(found)


@pytest.mark.parametrize("number", UNITS)
def test_each_unit_leaves_the_rest(photos, opened, number):
    found = moves(photos, opened, f"AU{number}")
    upper = number in (1, 2, 4, 5, 6, 7, 43)
    if number != 9:  # which wrinkles a nose between brows and lip
        assert not found[MOUTH if upper else UPPER].any()


@pytest.mark.parametrize("number", SIDED)
def test_halves_move_alone_and_add(photos, opened, number):
    left, right, both = (moves(photos, opened, f"AU{number}{half}") for half in ("L", "R", ""))
    outer_right, outer_left = [0, 17, 36, 48], [16, 26, 45, 54]  # the person's right lies left in the picture
    assert not left[outer_right].any() and not right[outer_left].any()
    assert left.any() and right.any()
    if number != 43:  # lids that meet stop
        np.testing.assert_allclose(left + right, both, atol=2e-3)


def test_strength_zero_gives_the_photograph(photos, opened, _astronaut):
    (result,) = photos.edit(opened, [Edit("AU12 + 0.5*AU6", 0.0)])
    np.testing.assert_array_equal(np.asarray(result.image), _astronaut)


def test_a_unit_changes_its_part_of_the_photograph(photos, opened, _astronaut):
    results = [np.asarray(r.image, int) for r in photos.edit(opened, [Edit("AU4"), Edit("AU12 + 0.5*AU25")])]
    brows, mouth = (np.abs(r - _astronaut).max(-1) for r in results)
    middle = round(float(opened.faces[0].landmarks[2, 1]))  # tip of the nose
    assert brows[:middle].max() > 40 and brows[middle + 5 :].max() <= 2
    lids = round(float(opened.faces[0].landmarks[:2, 1].min()))
    assert mouth[middle:].max() > 40 and mouth[: lids - 8].max() <= 15


def test_emotions_are_sums_of_units(photos, opened):
    steering = photos.editor.steerings[0]
    for emotion in ("happy", "sad", "angry"):
        terms = " + ".join(f"{w}*{unit}" for unit, w in steering.sums[emotion].items())
        np.testing.assert_allclose(moves(photos, opened, emotion, 0.5), moves(photos, opened, terms, 0.5), atol=1e-6)
    assert not moves(photos, opened, "neutral").any()


def test_units_go_no_further_than_faces(photos, opened):
    np.testing.assert_array_equal(moves(photos, opened, "AU12", 1.5), moves(photos, opened, "AU12", 9.0))


def test_contradictions_and_unknown_units_are_refused(photos, opened):
    with pytest.raises(EditError, match="contradict"):
        list(photos.edit(opened, [Edit("AU43 + AU5")]))
    with pytest.raises(UnknownNameError):
        list(photos.edit(opened, [Edit("AU3")]))


def test_other_backbones_are_refused(photos):
    with pytest.raises(EditError, match="facs"):
        vae = tiny_vae().backbone
        editor = Editor(vae, [photos.editor.steerings[0]])
        side = vae.crop.resolution
        list(editor.decode(editor.invert(torch.zeros(1, vae.channels, side, side)), [Edit("AU12")]))


def test_damaged_units_are_refused(photos, tmp_path):
    steering = photos.editor.steerings[0]
    with pytest.raises(CheckpointError, match="do not exist"):
        ActionUnits({"happy": {"AU99": 1.0}}, steering.displacements, steering.left)
    with pytest.raises(CheckpointError, match="68"):
        ActionUnits({}, steering.displacements[:, :5], steering.left)
    steering.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"sums": [1]}')
    with pytest.raises(CheckpointError, match="sums"):
        ActionUnits.from_pretrained(tmp_path)

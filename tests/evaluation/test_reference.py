"""The expression of another photograph, parts of a face alone, and the neutral face first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emoedit.cli import main
from emoedit.compositing.relaxing import neutral_movement, smile_finder
from emoedit.emotions import BASIC, resolve
from emoedit.evaluation.reference import expression_of
from emoedit.faces.layout import CORNERS
from emoedit.parts import PARTS, add_units, keep_only, neutral_first, part_weights
from emoedit.photo import OpenPhoto, PhotoEditor
from emoedit.steering.units import face_shape
from emoedit.types import Edit, EditError, NoFaceError
from tests.fixtures.editors import tiny_vae


@pytest.fixture(scope="module")
def photos() -> PhotoEditor:
    return PhotoEditor("facs")


@pytest.fixture(scope="module")
def opened(photos, _astronaut) -> OpenPhoto:
    return photos.open(_astronaut)


def test_a_smile_is_read_as_an_emotion_and_as_units(photos, _astronaut):
    assert expression_of(_astronaut, BASIC).startswith("0.9") and "happy" in expression_of(_astronaut, BASIC)
    units = resolve(expression_of(_astronaut, photos.editor.emotions), photos.editor.emotions)
    assert units["AU12"] > 0.3 and units["AU6"] > 0.3
    assert not set(units) & {"AU15", "AU4", "AU24"}


def test_units_that_were_put_in_are_read_again(photos):
    """From landmarks that move as the units say, of the mean neutral face."""
    steering = photos.editor.steerings[0]
    neutral = steering.neutral.double().numpy()
    assert steering.read(neutral) == {}
    for name, weight in (("AU12", 1.0), ("AU26", 0.8), ("AU15", 0.9)):
        moved = neutral + weight * steering.displacements[steering.units.index(name)].numpy()
        found = steering.read(moved * 40 + 7)  # in any unit
        assert max(found, key=found.__getitem__).rstrip("LR") == name and 0.5 * weight < found[name] <= 1.1 * weight
    np.testing.assert_allclose(face_shape(neutral * 3 + 1), face_shape(neutral), atol=1e-9)


def test_references_that_show_nothing_to_take_are_refused(_astronaut):
    with pytest.raises(NoFaceError):
        expression_of(Image.new("RGB", (128, 128)), BASIC)
    two = np.concatenate([_astronaut[:256, 96:352]] * 2, 1)
    with pytest.raises(EditError, match="2 faces"):
        expression_of(two, BASIC)
    assert "happy" in expression_of(two, BASIC, face=1)
    with pytest.raises(NoFaceError):
        expression_of(two, BASIC, face=5)


def test_parts_share_the_face_among_them(opened):
    face = opened.source.faces[0]
    weights = [part_weights(face, [part]) for part in PARTS]
    np.testing.assert_allclose(np.sum(weights, 0), 1, atol=1e-5)
    for weight, groups in zip(weights, PARTS.values(), strict=True):
        points = np.concatenate([face.landmarks[group] for group in groups]).round().astype(int)
        assert weight[points[:, 1], points[:, 0]].mean() > 0.9
    for parts in ([], ["nose"]):
        with pytest.raises(EditError, match="brows, eyes, mouth"):
            part_weights(face, parts)


def test_only_a_part_is_edited(photos, opened, _astronaut):
    (whole,) = photos.edit(opened, [Edit("AU4 + AU15")])
    found = {part: np.asarray(keep_only(whole, opened, [part]).image, int) for part in ("brows", "mouth")}
    middle = round(float(opened.faces[0].landmarks[2, 1]))
    changed = {part: np.abs(picture - _astronaut).max(-1) for part, picture in found.items()}
    assert changed["brows"][: middle - 20].max() > 30 and changed["brows"][middle + 10 :].max() <= 3
    assert changed["mouth"][middle:].max() > 30 and changed["mouth"][: middle - 30].max() <= 3
    everything = keep_only(whole, opened, list(PARTS))
    np.testing.assert_array_equal(np.asarray(everything.image), np.asarray(whole.image))


def test_units_are_added_to_what_a_model_drew(_astronaut):
    """The model's edit stays, and the brows of its picture move."""
    photos = PhotoEditor(tiny_vae())
    (drawn,) = photos.edit(photos.open(_astronaut), [Edit("sad")])
    moved = add_units(drawn, "AU4", device="cpu")
    middle = round(float(drawn.face.landmarks[2, 1]))
    changed = np.abs(np.asarray(moved.image, int) - np.asarray(drawn.image)).max(-1)
    assert changed[:middle].max() > 30 and changed[middle + 10 :].max() <= 3
    assert moved.edit == drawn.edit and moved.image.size == drawn.image.size


def test_the_neutral_face_first(photos, opened):
    neutral = neutral_first(photos, opened)
    assert np.abs(neutral.picture.rgb.astype(int) - opened.picture.rgb).max() > 20  # she smiled
    assert len(neutral.faces) == 1
    left, was = (far_from_neutral(photo) for photo in (neutral, opened))
    assert left < 0.6 * was


def far_from_neutral(photo: OpenPhoto) -> float:
    """How far the corners of the mouth are from where the network expects them in the neutral face, in crop sides."""
    if photo.smiles[0] is None:
        return 0.0
    moves = photo.smiles[0].amount * neutral_movement(photo.source.faces[0], smile_finder("cpu").relaxation)
    return float(np.linalg.norm(moves[list(CORNERS)], axis=-1).mean())


def test_the_commands(tmp_path, monkeypatch, capsys, _astronaut):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(_astronaut).save("me.png")
    assert main(["edit", "me.png", "--like", "me.png", "--only", "mouth", "--editor", "facs"]) == 0
    assert (tmp_path / "me_like_me.png").is_file() and "AU12" in capsys.readouterr().err
    assert main(["edit", "me.png", "--au", "15=.5", "--neutral-first"]) == 0
    assert (tmp_path / "me_0.5AU15.png").is_file()
    assert main(["edit", "me.png", "--emotion", "sad", "--au", "4=.5", "--editor", "vae", "--output", "both.png"]) == 0
    assert main(["edit", "me.png", "--au", "4=.5", "--editor", "vae"]) == 2  # which draws no units
    assert main(["edit", "me.png", "--au", "99"]) == 2
    assert main(["edit", "me.png", "--valence", "1"]) == 2
    Image.new("RGB", (64, 64)).save("wall.png")
    assert main(["edit", "me.png", "--like", "wall.png", "--editor", "facs"]) == 1

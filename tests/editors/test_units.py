"""Action units that an editor adds to what its model draws."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emoedit.editors import Editor, load_editor
from emoedit.editors.units import AddedUnits
from emoedit.faces.layout import BROWS
from emoedit.models.landmarks.backbone import LandmarkBackbone, LandmarksConfig
from emoedit.models.luminance import in_luminance
from emoedit.photo import PhotoEditor, crop_and_normalise
from emoedit.types import CheckpointError, CropSpec, Edit

SUMS = {"angry": {"AU4": 1.0}, "surprised": {"AU1": 0.5, "AU2": 0.5}}
INNER = [BROWS[0].stop - 1, BROWS[1].start]


@pytest.fixture(scope="module")
def plain() -> Editor:
    editor = load_editor("stylegan", device="cpu")
    return Editor(editor.backbone, editor.steerings, name="plain", compositor=editor.compositor)


@pytest.fixture(scope="module")
def raised(plain) -> Editor:
    return Editor(plain.backbone, plain.steerings, name="raised", compositor=plain.compositor, units=SUMS)


@pytest.fixture
def inversion(plain, astronaut):
    opened = PhotoEditor(plain).open(astronaut)
    return plain.invert(crop_and_normalise(astronaut, opened.alignments, plain.backbone)[0])


def brows(drawn: torch.Tensor, editor: Editor) -> float:
    """How far down the inner ends of the brows lie, in crop sides."""
    crop = editor.backbone.crop
    seen = LandmarkBackbone(LandmarksConfig(crop.resolution, crop.scale, crop.down)).invert(drawn)
    return float(seen.extras["landmarks"][0, INNER, 1].mean())


def test_units_move_what_the_model_draws_by_degrees(plain, raised, inversion):
    edits = [Edit("angry", strength) for strength in (0.0, 0.4, 0.8)]
    without, with_units = (list(editor.decode(inversion, edits)) for editor in (plain, raised))
    assert torch.equal(with_units[0], without[0])  # strength 0
    moved = [brows(b, plain) - brows(a, plain) for a, b in zip(without, with_units, strict=True)]
    assert 0.002 < moved[1] < moved[2] < 0.05
    (up,) = raised.decode(inversion, [Edit("surprised")])
    assert brows(up, plain) < brows(next(plain.decode(inversion, [Edit("surprised")])), plain) - 0.002


def test_emotions_without_units_are_drawn_as_before(plain, raised, inversion):
    edits = [Edit("happy"), Edit("sad", 0.5), Edit("happy - 0.4*sad")]
    for one, other in zip(plain.decode(inversion, edits), raised.decode(inversion, edits), strict=True):
        assert torch.equal(one, other)


def test_mixtures_have_their_share_of_the_units(raised, inversion):
    half, weak = raised.decode(inversion, [Edit("0.5*angry"), Edit("angry", 0.5)])
    torch.testing.assert_close(half, weak, atol=1e-5, rtol=0)


def test_pictures_are_moved_one_by_one(raised, inversion):
    drawn = raised.backbone.decode(inversion)
    batch = raised.units(torch.cat([drawn, drawn.flip(-1)]), Edit("angry"))
    torch.testing.assert_close(batch[:1], raised.units(drawn, Edit("angry")), atol=1e-4, rtol=0)


def test_colour_moves_as_grey_does(raised, inversion):
    grey = in_luminance(raised.backbone.decode(inversion))
    found = raised.units(grey.repeat(1, 3, 1, 1), Edit("angry"))
    torch.testing.assert_close(found, raised.units(grey, Edit("angry")).repeat(1, 3, 1, 1), atol=2e-3, rtol=0)


def test_the_photograph_gets_them_too(plain, raised, astronaut):
    results = []
    for editor in (plain, raised):
        photo_editor = PhotoEditor(editor)
        results.append(np.asarray(next(photo_editor.edit(photo_editor.open(astronaut), [Edit("angry")])).image, int))
    changed = np.abs(results[0] - results[1]).max(-1) > 6
    rows = np.flatnonzero(changed.any(1))
    assert 200 < changed.sum() < 8000 and rows.min() > 60 and rows.max() < 220  # inside the face


def test_a_saved_editor_keeps_its_units(raised, tmp_path, inversion):
    folder = raised.save_pretrained(tmp_path / "raised")
    assert json.loads((folder / "editor.json").read_text())["units"] == SUMS
    loaded = load_editor(folder, device="cpu")
    for one, other in zip(*(e.decode(inversion, [Edit("angry")]) for e in (raised, loaded)), strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=0)  # weights are rounded to 8 bits


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        ({"grumpy": {"AU4": 1.0}}, "grumpy"),
        ({"angry": {"AU99": 1.0}}, "AU99"),
        ({"angry": {"AU4": float("nan")}}, "finite"),
        ({"angry": {"AU4": "much"}}, "number"),
        ({"angry": 0.5}, "number"),
        (["angry"], "number"),
    ],
)
def test_sums_that_make_no_sense_are_refused(plain, sums, said):
    with pytest.raises(CheckpointError, match=said):
        Editor(plain.backbone, plain.steerings, units=sums)


def test_backbones_whose_faces_lie_elsewhere_or_that_move_them_are_refused(plain):
    facs = load_editor("facs", device="cpu")
    with pytest.raises(CheckpointError, match="LandmarkBackbone"):
        Editor(facs.backbone, facs.steerings, units={"angry": {"AU4": 1.0}})
    other = SimpleNamespace(crop=CropSpec(128, "ffhq"))
    with pytest.raises(CheckpointError, match="style 'ffhq'"):
        AddedUnits({"angry": {"AU4": 1.0}}, plain.emotions, other)


def test_an_editor_json_with_garbled_units_is_refused(raised, tmp_path):
    folder = raised.save_pretrained(tmp_path / "raised")
    description = json.loads((folder / "editor.json").read_text())
    (folder / "editor.json").write_text(json.dumps({**description, "units": {"angry": {"AU4": None}}}))
    with pytest.raises(CheckpointError, match="units are emotion"):
        load_editor(folder, device="cpu")

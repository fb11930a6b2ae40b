"""Models of colour: the photograph plus what the model changed, measured with an oracle editor."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoedit.compositing.compositors import compositor
from emoedit.evaluation.oracle import composite_errors, oracle_scene
from emoedit.faces.masks import face_masks
from emoedit.faces.tone import LUMA
from emoedit.models.pretrained import TABLE
from emoedit.photo import edit
from emoedit.types import CropSpec
from tests.fixtures.faces import SPEC, analysis_of, face_of, lips, photo_of, placed, points_of, scene_of, smiling

HUE = np.array([1.3, 0.9, 0.75]) / (np.array([1.3, 0.9, 0.75]) @ LUMA)
LARGE = CropSpec(256, SPEC.style, SPEC.scale, SPEC.down)


def painted(mouth: np.ndarray, white: float = 0.0) -> np.ndarray:
    """A crop of warm skin in colour with this mouth, whose brightest places are white, ``[256, 256, 3]``."""
    large = cv2.resize(mouth, (256, 256), interpolation=cv2.INTER_CUBIC)
    teeth = np.clip((large - 155) / 30, 0, 1)[..., None] * white
    pores = np.random.default_rng(0).normal(0, 5, (256, 256, 1))
    return (large[..., None] * (HUE + teeth * (1 - HUE)) + pores).clip(0, 255).astype(np.float32)


def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two photographs of one drawn person, 300 px, neutral and with teeth, and a mask of the mouth in them."""
    alignment = placed(LARGE)
    photos = []
    for crop in (painted(lips(48, 72)), painted(smiling(50.0), 1.0)):
        photo = cv2.warpAffine(crop, alignment.inverse, (300, 300), borderMode=cv2.BORDER_REPLICATE)
        photos.append(photo.clip(0, 255).round().astype(np.uint8))
    return photos[0], photos[1], alignment


def test_a_perfect_editor_gives_the_true_colours_of_a_drawn_face():
    neutral, smile, alignment = pair()
    large = 256 / 96
    points = [(p + 0.5) * large - 0.5 for p in (face_of(), points_of(48, 72, half=16, height=8, apart=7))]
    points[1][:48] = points[0][:48]
    face = analysis_of(neutral, points[0], alignment, spec=LARGE)
    scene = scene_of(face, alignment.crop(neutral), alignment.crop(smile), tuple(points))
    result, _ = compositor("rgb")(neutral, scene)
    found = composite_errors(result, neutral, smile, alignment, face.masks)
    nothing = composite_errors(neutral, neutral, smile, alignment, face.masks)
    assert found.colour_error <= 0.5 < 0.2 * nothing.colour_error
    assert found.sharpness >= 0.95 and found.outside == 0 == nothing.outside


def test_what_a_model_loses_of_every_picture_is_not_the_edits():
    """A model whose drawings are blurred, darker and greener: only what it changed comes into the photograph."""
    neutral, _, alignment = pair()
    before = cv2.GaussianBlur(alignment.crop(neutral).astype(np.float32), (0, 0), 2) * (0.9, 0.95, 0.9)
    y, x = np.mgrid[:256, :256]
    blush = np.exp(-((x - 80) ** 2 + (y - 160) ** 2) / (2 * 14**2))[..., None] * (14.0, -6.0, 0.0)
    points = (face_of() + 0.5) * 256 / 96 - 0.5
    scene = scene_of(analysis_of(neutral, points, alignment, spec=LARGE), before, before + blush)
    result, _ = compositor("rgb")(neutral, scene)
    change = alignment.crop(result).astype(float) - alignment.crop(neutral)
    inside = face_masks(LARGE).face > 0.9
    assert np.abs(change - blush)[inside].mean() < 1.0
    assert change[156:165, 76:85].mean((0, 1)) == pytest.approx([14, -6, 0], abs=2)


def test_the_photographs_finer_detail_stays_where_nothing_new_is_drawn_and_goes_where_it_is():
    """Pores that the model draws none of stay on a forehead that is lit; a mouth that opens is shown as it is drawn."""
    neutral, smile, alignment = pair()
    before, after = (cv2.GaussianBlur(alignment.crop(p).astype(np.float32), (0, 0), 2) for p in (neutral, smile))
    points = [(p + 0.5) * 256 / 96 - 0.5 for p in (face_of(), points_of(48, 72, half=16, height=8, apart=7))]
    points[1][:48] = points[0][:48]
    scene = scene_of(analysis_of(neutral, points[0], alignment, spec=LARGE), before, after + 6, tuple(points))
    composite = compositor("rgb").compose(scene)
    alpha = composite.layers[-1].alpha
    middle = np.s_[185:198, 118:138]
    assert alpha[middle].mean() > 0.8 > 0.05 > alpha[45:70, 100:150].mean()
    result, _ = compositor("rgb")(neutral, scene)
    fine = [p @ LUMA - cv2.GaussianBlur(p @ LUMA, (0, 0), 1.5) for p in (alignment.crop(q) for q in (result, neutral))]
    brow = np.s_[45:70, 100:150]
    assert np.corrcoef(fine[0][brow].ravel(), fine[1][brow].ravel())[0, 1] > 0.95


def test_a_finished_picture_stands_in_the_photographs_place():
    """Its colours inside the face, the photograph's outside; of a grey one the light, in the photograph's colour."""
    photo = photo_of(lips(48, 72), HUE)
    face = analysis_of(photo, face_of())
    red = np.zeros((96, 96, 3), np.float32)
    red[..., 0] = 255
    result, _ = compositor("replace")(photo, scene_of(face, face.crop, red))
    x, y = placed().to_photo(np.array([[48.0, 52.0]]))[0].round().astype(int)
    assert result[y, x].tolist() == [255, 0, 0] and np.array_equal(result[:20], photo[:20])
    grey = face.crop @ LUMA
    result, _ = compositor("replace")(photo, scene_of(face, grey, grey - 30))
    assert (result[y, x].astype(int) - photo[y, x]).tolist() == pytest.approx([-30] * 3, abs=2)


SIZES = {(entry.resolution, entry.crop): entry for entry in TABLE.values()}  # of every published model of colour


@pytest.fixture(scope="module")
def opened_mouth(_astronaut) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, and the same with a mouth that opens, as an embedded editor drew it."""
    photo = np.ascontiguousarray(_astronaut)
    made = edit(photo, "surprised", device="cpu").image
    return photo, np.asarray(made.convert("RGB"))


@pytest.mark.parametrize("entry", SIZES.values(), ids=lambda entry: f"{entry.name}-{entry.resolution}")
def test_a_perfect_editor_of_every_published_models_size_gives_true_colours(opened_mouth, entry):
    photo, truth = opened_mouth
    scene, true = oracle_scene(photo, truth, CropSpec(entry.resolution, entry.crop), channels=entry.channels)
    result, _ = compositor(entry.compositor)(photo, scene)
    found, nothing = (composite_errors(r, photo, true, scene.face.alignment, scene.face.masks) for r in (result, photo))
    assert found.colour_error <= 0.2 and nothing.colour_error > 1.5
    assert found.error < 0.2 * nothing.error and found.sharpness > 0.8 and found.outside == 0


@pytest.mark.data
@pytest.mark.parametrize(("resolution", "error"), [(128, 0.45), (256, 0.3), (512, 0.3), (1024, 0.3)])
def test_a_perfect_editor_on_real_people(data_root, resolution, error):
    """London's true smiles, aligned onto the neutral photographs (people marked ``fit``)."""
    from emoedit.io.images import load_picture
    from emoedit.training.readers import read_pairs

    people: dict[str, dict[str, object]] = {}
    for sample in read_pairs(data_root / "london-pairs"):
        if sample.split == "fit":
            people.setdefault(str(sample.person), {})[sample.emotion] = sample.picture
    found = []
    for pair in list(people.values())[:6]:
        photos = [load_picture(pair[name]).rgb for name in ("neutral", "happy")]
        scene, true = oracle_scene(*photos, CropSpec(resolution, "ffhq"))
        result, _ = compositor("rgb")(photos[0], scene)
        found.append(composite_errors(result, photos[0], true, scene.face.alignment, scene.face.masks))
        assert found[-1].outside == 0
    assert np.mean([f.colour_error for f in found]) <= error
    assert np.mean([f.sharpness for f in found]) >= 0.91, found

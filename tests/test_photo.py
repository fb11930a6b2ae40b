"""Whole photographs: every kind of picture gives the right picture or a typed error; strength 0 gives the photo."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from emoedit.compositing.closing import find_opening
from emoedit.compositing.paste import MODES
from PIL import Image

import emoedit
from emoedit.editors import Editor, list_editors
from emoedit.faces.masks import regions
from emoedit.io import checkpoints
from emoedit.models.faceflex.backbone import FaceFlexVAE
from emoedit.photo import PhotoEditor
from emoedit.steering.directions import LatentDirections
from emoedit.types import Edit, EditError, ImageError, NoFaceError, OutputError, UnknownNameError
from tests.fixtures.editors import TINY, from_neutral, tiny_vae


@pytest.fixture(scope="module")
def photos() -> PhotoEditor:
    return PhotoEditor(from_neutral(tiny_vae()))


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a.convert("RGB"), int) - np.asarray(b.convert("RGB"), int)).max())


@pytest.mark.parametrize("kind", list(TINY))
def test_strength_zero_is_the_photo_bit_for_bit(astronaut, kind):
    photos = PhotoEditor(TINY[kind]())
    opened = photos.open(astronaut)
    zero, one = photos.edit(opened, [Edit("happy", 0), Edit("happy")])
    assert np.array_equal(np.asarray(zero.image), astronaut)
    assert zero.edit == Edit("happy", 0)
    assert one.image.size == zero.image.size and not np.array_equal(np.asarray(one.image), astronaut)


@pytest.mark.parametrize("form", ["path", "bytes", "pil", "array", "tensor", "float"])
def test_every_form_of_a_photo_gives_the_same_edit(photos, astronaut, tmp_path, form):
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    given = {
        "path": tmp_path / "a.png",
        "bytes": (tmp_path / "a.png").read_bytes(),
        "pil": Image.fromarray(astronaut),
        "array": astronaut,
        "tensor": torch.from_numpy(astronaut).permute(2, 0, 1),
        "float": astronaut.astype(np.float32) / 255,
    }[form]
    kept = astronaut.copy()
    result = emoedit.edit(given, "surprised", editor=photos)
    assert result.image.size == (512, 512)
    assert difference(result.image, emoedit.edit(astronaut, "surprised", editor=photos).image) == 0
    assert difference(result.image, Image.fromarray(astronaut)) > 0
    assert np.array_equal(astronaut, kept)
    assert result.seconds > 0
    assert 160 < result.face.box[0] < 290


def test_a_turned_photo_is_edited_upright(photos, astronaut, tmp_path):
    picture = Image.fromarray(astronaut)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees to the right
    picture.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    upright = emoedit.edit(picture, "happy", editor=photos).image
    assert difference(emoedit.edit(tmp_path / "turned.png", "happy", editor=photos).image, upright) == 0


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "CMYK", "1", "I;16"])
def test_every_kind_of_picture_is_edited(photos, astronaut, tmp_path, mode):
    picture = Image.fromarray(astronaut)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    picture.save(path)
    try:
        result = emoedit.edit(path, "happy", editor=photos)
    except NoFaceError:
        assert mode == "1"  # dithered to black and white: the detector may give up, and says so
        return
    assert result.image.size == (512, 512)
    assert result.image.mode == ("RGBA" if mode == "RGBA" else "RGB")
    result.save(tmp_path / "out.png")
    assert Image.open(tmp_path / "out.png").size == (512, 512)


def test_all_faces_of_a_group_are_edited(photos, astronaut):
    head = astronaut[0:260, 90:350]
    group = np.full((300, 820, 3), 127, np.uint8)
    for n in range(3):
        group[20:280, 10 + 270 * n : 270 + 270 * n] = head
    every = emoedit.edit(group, "angry", editor=photos, face="all")
    one = emoedit.edit(group, "angry", editor=photos)
    assert len(every.faces) == 3
    assert len(one.faces) == 1

    def changed(result: emoedit.PhotoEdit, n: int) -> bool:
        part = np.s_[:, 270 * n : 270 * (n + 1)]
        return not np.array_equal(np.asarray(result.image)[part], group[part])

    assert [changed(every, n) for n in range(3)] == [True] * 3
    assert sum(changed(one, n) for n in range(3)) == 1


def test_one_inversion_serves_every_edit(photos, astronaut, monkeypatch):
    """And one more, of her with her mouth closed, those that end her smile."""
    opened = photos.open(astronaut)
    inversions, invert = [], photos.editor.backbone.invert
    monkeypatch.setattr(photos.editor.backbone, "invert", lambda *a, **k: inversions.append(a) or invert(*a, **k))
    edits = [Edit(name, s) for name in ("happy", "sad", "shame") for s in (-0.5, 0.5, 1)]
    results = list(photos.edit(opened, edits))
    assert [r.edit for r in results] == edits
    alone = next(photos.edit(opened, [edits[4]]))
    assert difference(alone.image, results[4].image) <= 1
    assert len(inversions) == 1


def test_what_cannot_be_edited_is_a_typed_error(photos, astronaut, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for bad, error in (
        (tmp_path / "gone.png", ImageError),
        (tmp_path / "text.png", ImageError),
        (np.zeros((1, 1, 3), np.uint8), NoFaceError),
        (np.full((400, 400, 3), 99, np.uint8), NoFaceError),
        (np.zeros((5, 5, 7), np.uint8), ImageError),
    ):
        with pytest.raises(error):
            emoedit.edit(bad, editor=photos)
    with pytest.raises(UnknownNameError, match="happy"):
        emoedit.edit(astronaut, "hapy", editor=photos)
    with pytest.raises(EditError, match="mode"):
        PhotoEditor(photos.editor, mode="paint")
    result = emoedit.edit(astronaut, editor=photos)
    result.save(tmp_path / "r.png")
    with pytest.raises(OutputError):
        result.save(tmp_path / "r.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.png", "text.png"]


def test_face_flex_edits_a_photo_in_colour_and_round_trips(astronaut, tmp_path):
    torch.manual_seed(0)
    backbone = FaceFlexVAE(width=4, latent=12)
    editor = Editor(backbone, [LatentDirections(("happy",), torch.randn(1, 12) * 3)], name="face-flex")
    folder = editor.save_pretrained(tmp_path / "ff")
    again = Editor.from_pretrained(folder)
    first, second = (emoedit.edit(astronaut, "happy", editor=e).image for e in (editor, again))
    assert difference(first, second) == 0
    replaced = next(PhotoEditor(again, mode="replace").edit(PhotoEditor(again).open(astronaut), [Edit("happy")]))
    assert difference(replaced.image, first) > 0


def test_the_seed_decides_the_noise_of_a_photo(astronaut):
    photos = PhotoEditor(TINY["tiny-asyrp-noise"](), mode="replace")

    def edited(seed: int) -> np.ndarray:
        result = emoedit.edit(astronaut, "happy", editor=photos, seed=seed)
        assert result.seed == seed
        return np.asarray(result.image)

    assert np.array_equal(edited(1), edited(1))
    assert not np.array_equal(edited(1), edited(2))


@pytest.mark.parametrize("mode", MODES)
def test_a_diffusion_editors_photo_does_not_depend_on_what_else_is_edited(astronaut, mode):
    """Several edits are drawn in one batch; the picture between two others is the picture alone."""
    photos = PhotoEditor(TINY["tiny-asyrp"](), mode=mode)
    opened = photos.open(astronaut)
    names = ("sad", "happy - 0.5 sad", "angry")
    together = [result.image for result in photos.edit(opened, [Edit(name) for name in names])]
    alone = next(photos.edit(opened, [Edit(names[1])])).image
    assert difference(together[1], alone) <= 2
    assert difference(together[1], together[0]) > 5


@pytest.mark.parametrize("name", list_editors())
def test_an_embedded_editor_changes_the_face_and_only_the_face(name, astronaut):
    photos = PhotoEditor(name)
    opened = photos.open(astronaut)
    x0, y0, x1, y1 = opened.faces[0].box
    edits = [Edit(name) for name in photos.editor.emotions if name != "happy"]  # which the portrait is already
    for result in photos.edit(opened, edits):
        changed = np.abs(np.asarray(result.image, int) - astronaut).max(-1)
        rows, columns = np.nonzero(changed > 8)
        assert len(rows) > 100, result.edit
        margin = 0.35 * (x1 - x0)
        assert columns.min() > x0 - margin and columns.max() < x1 + margin
        assert rows.min() > y0 - margin and rows.max() < y1 + margin


@pytest.mark.skipif("vae" not in checkpoints.embedded_names(), reason="no embedded VAE in this checkout")
def test_emotions_are_read_back_from_the_edited_photo(astronaut):
    """The edited photograph, opened again, reads more as the target than the source did (in the editor's own latent: a
    check that the change survives pasting, not a judgement of the picture)."""
    photos = PhotoEditor("vae")
    steering = photos.editor.steerings[0]

    def scores(photo) -> torch.Tensor:
        return photos.open(photo).inversion.latent[0] @ steering.readout.T + steering.offset

    before = scores(astronaut)
    for name in ("sad", "angry", "surprised", "neutral"):
        after = scores(emoedit.edit(astronaut, name, editor=photos).image)
        k = steering.emotions.index(name)
        assert after[k] - after.logsumexp(0) > before[k] - before.logsumexp(0), name


@pytest.mark.data
@pytest.mark.skipif("vae" not in checkpoints.embedded_names(), reason="no embedded VAE in this checkout")
def test_neutral_people_never_seen_are_made_to_smile(data_root):
    """Mouth corners go up and apart, as in the true smile, on people the directions were not fitted on."""
    from emoedit.training.readers import read_pairs

    photos = PhotoEditor("vae")
    people = [s for s in read_pairs(data_root / "london-pairs") if s.split == "test" and s.emotion == "neutral"][:12]
    wider = []
    for person in people:
        opened = photos.open(person.picture)
        edited = next(photos.edit(opened, [Edit("happy")]))
        before, after = (photos.detector.choose(p)[0].landmarks for p in (opened.picture.rgb, np.asarray(edited.image)))
        scale = np.hypot(*(before[1] - before[0]))
        wider.append((np.hypot(*(after[4] - after[3])) - np.hypot(*(before[4] - before[3]))) / scale)
    assert np.mean(wider) > 0.03
    assert np.mean(np.array(wider) > 0) > 0.8


def test_a_photo_is_edited_in_a_fresh_process(tmp_path, astronaut):
    folder = tiny_vae().save_pretrained(tmp_path / "tiny")
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    code = f"import emoedit; emoedit.edit('a.png', 'happy', editor={str(folder)!r}).save('b.png')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=_environment())
    assert Image.open(tmp_path / "b.png").size == (512, 512)


def _environment() -> dict[str, str]:
    import os
    from pathlib import Path

    return {**os.environ, "PYTHONPATH": str(Path(emoedit.__file__).parent.parent)}


def test_a_smile_is_closed_before_what_takes_it_away_is_drawn(astronaut, monkeypatch):
    """Once for all edits that end a smile, however weakly they are drawn, and not for those that keep the teeth."""
    photos = PhotoEditor()
    opened = photos.open(astronaut)
    (alignment,), where = opened.alignments, regions(photos.editor.backbone.crop)
    inverted, invert = [], photos.editor.invert
    monkeypatch.setattr(photos.editor, "invert", lambda *a, **k: inverted.append(1) or invert(*a, **k))
    (happy,) = photos.edit(opened, [Edit("happy")])
    assert not opened.closed and not inverted
    assert find_opening(np.asarray(happy.image), alignment, where) is not None
    drawn, decode = [], photos.editor.decode
    monkeypatch.setattr(photos.editor, "decode", lambda x, edits: drawn.append(list(edits)) or decode(x, edits))
    edits = [Edit("sad"), Edit("neutral"), Edit("angry")]
    both = list(photos.edit(opened, edits))
    assert list(opened.closed) == [0] and len(inverted) == 1
    assert [edit for part in drawn for edit in part] == edits  # in one batch, and nothing for the open mouth
    for result in both:
        assert find_opening(np.asarray(result.image), alignment, where) is None
    (alone,) = photos.edit(photos.open(astronaut), [Edit("neutral")])
    assert difference(alone.image, both[1].image) <= 1

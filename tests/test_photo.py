"""Whole photographs: every kind of picture gives the right picture or a typed error; strength 0 gives the photo."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import emoedit
from emoedit.compositing.compositors import compositor
from emoedit.editors import Editor, list_editors
from emoedit.emotions import BASIC
from emoedit.faces.detect import Face
from emoedit.io import checkpoints
from emoedit.models.faceflex.backbone import FaceFlexVAE
from emoedit.photo import PhotoEditor
from emoedit.steering.directions import LatentDirections
from emoedit.types import CheckpointError, Edit, EditError, ImageError, NoFaceError, OutputError, UnknownNameError
from tests.fixtures.editors import TINY, from_neutral, tiny_asyrp, tiny_vae
from tests.fixtures.faces import five_points


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


def test_device_and_compositor_are_for_editors_that_have_none_yet(photos, astronaut, tmp_path, monkeypatch):
    folder = photos.editor.save_pretrained(tmp_path / "tiny")
    own = emoedit.edit(astronaut, "happy", editor=folder, device="cpu")
    assert difference(own.image, emoedit.edit(astronaut, "happy", editor=photos).image) == 0
    other = {"parts": ["light"]}
    named = emoedit.edit(astronaut, "happy", editor=folder, device="cpu", compositor=other).image
    loaded = emoedit.edit(astronaut, "happy", editor=photos.editor, compositor=other).image
    assert difference(named, loaded) == 0 and difference(named, own.image) > 0

    monkeypatch.setattr(PhotoEditor, "open", lambda *_, **__: pytest.fail("opened the photograph first"))
    for editor in (photos, photos.editor):
        with pytest.raises(EditError, match=r"is loaded and computes on cpu: .*load_editor\(NAME, device='cpu'\)"):
            emoedit.edit(astronaut, "happy", editor=editor, device="cpu")
    with pytest.raises(EditError, match=r"PhotoEditor\(editor, compositor=...\)"):
        emoedit.edit(astronaut, "happy", editor=photos, compositor="rgb")
    with pytest.raises(EditError, match="device"):
        emoedit.edit(astronaut, "happy", editor=folder, device="gpu")
    with pytest.raises(UnknownNameError, match="rbg"):
        emoedit.edit(astronaut, "happy", editor=folder, device="cpu", compositor="rbg")


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
    """And one more, of her without her smile, those that end it: both are made when she is opened."""
    opened = photos.open(astronaut)
    inversions, invert = [], photos.editor.backbone.invert
    monkeypatch.setattr(photos.editor.backbone, "invert", lambda *a, **k: inversions.append(a) or invert(*a, **k))
    edits = [Edit(name, s) for name in ("happy", "sad", "shame") for s in (-0.5, 0.5, 1)]
    results = list(photos.edit(opened, edits))
    assert [r.edit for r in results] == edits
    alone = next(photos.edit(opened, [edits[4]]))
    assert difference(alone.image, results[4].image) <= 1
    assert not inversions
    again = next(photos.edit(photos.open(astronaut), [edits[4]]))
    assert difference(alone.image, again.image) == 0 and len(inversions) == 1 + (opened.relaxed is not None)


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
    with pytest.raises(UnknownNameError, match="drawn"):
        PhotoEditor(photos.editor, compositor="drown")
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
    replaced = next(PhotoEditor(again, compositor="replace").edit(PhotoEditor(again).open(astronaut), [Edit("happy")]))
    assert difference(replaced.image, first) > 0


def test_the_seed_decides_the_noise_of_a_photo(astronaut):
    photos = PhotoEditor(TINY["tiny-asyrp-noise"](), compositor="replace")

    def edited(seed: int) -> np.ndarray:
        result = emoedit.edit(astronaut, "happy", editor=photos, seed=seed)
        assert result.seed == seed
        return np.asarray(result.image)

    assert np.array_equal(edited(1), edited(1))
    assert not np.array_equal(edited(1), edited(2))


@pytest.mark.parametrize("name", ["drawn", "replace"])
def test_a_diffusion_editors_photo_does_not_depend_on_what_else_is_edited(astronaut, name):
    """Several edits are drawn in one batch; the picture between two others is the picture alone."""
    photos = PhotoEditor(TINY["tiny-asyrp"](), compositor=name)
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
    # Happy is what the portrait is already; a single action unit may move a lid alone.
    names = [name for name in photos.editor.emotions if name != "happy" and not name.startswith("AU")]
    basic, nuanced = ([Edit(name) for name in names if (name in BASIC) == wanted] for wanted in (True, False))
    if "steps" in photos.editor.backbone.settings:  # what dozens of nuances move does not depend on how many steps
        brief = PhotoEditor(photos.editor.with_sampling(steps=4))
        results = [*photos.edit(opened, basic), *brief.edit(brief.open(astronaut), nuanced)]
    else:
        results = list(photos.edit(opened, [*basic, *nuanced]))
    assert len(results) == len(names)
    for result in results:
        changed = np.abs(np.asarray(result.image, int) - astronaut).max(-1)
        rows, columns = np.nonzero(changed > 8)
        assert len(rows) > 100, result.edit
        margin = 0.35 * (x1 - x0)
        assert columns.min() > x0 - margin and columns.max() < x1 + margin
        assert rows.min() > y0 - margin and rows.max() < y1 + margin


@pytest.mark.skipif("vae" not in checkpoints.embedded_names(), reason="no embedded VAE in this checkout")
def test_emotions_are_read_back_from_the_edited_photo(astronaut):
    """The edited photograph, opened again, reads more as the target than the source did (in the editor's own latent: a
    check that the change survives compositing, not a judgement of the picture)."""
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


def test_a_smile_is_taken_out_before_what_ends_it_is_drawn(astronaut, monkeypatch):
    """Once for all edits that end a smile, and not for those that keep it."""
    photos = PhotoEditor()
    inverted, invert = [], photos.editor.invert
    monkeypatch.setattr(photos.editor, "invert", lambda *a, **k: inverted.append(1) or invert(*a, **k))
    opened = photos.open(astronaut, edits=[Edit("happy")])
    assert opened.smiles[0] is not None and opened.relaxed is None and len(inverted) == 1
    (happy,) = photos.edit(opened, [Edit("happy")])
    assert len(inverted) == 1
    drawn, decode = [], photos.editor.decode
    monkeypatch.setattr(photos.editor, "decode", lambda x, e, **how: drawn.append(list(e)) or decode(x, e, **how))
    edits = [Edit("sad"), Edit("neutral"), Edit("angry")]
    both = list(photos.edit(opened, edits))
    assert len(inverted) == 2  # what was opened for other edits is relaxed when it is needed
    assert drawn == [edits]  # in one batch, and nothing for the smile
    assert opening_of(photos, happy) is not None
    for result in both:
        assert opening_of(photos, result) is None, result.edit
    whole = photos.open(astronaut)
    assert whole.relaxed is not None
    assert whole.relaxed.faces[0].hidden is whole.source.faces[0].hidden  # nothing came before the face
    (alone,) = photos.edit(whole, [Edit("neutral")])
    assert difference(alone.image, both[1].image) <= 1


def opening_of(photos: PhotoEditor, result: emoedit.PhotoEdit):
    return photos.open(np.asarray(result.image), result.faces[0], edits=[]).source.faces[0].opening


@pytest.mark.parametrize("kind", ["tiny-vae", "tiny-pixels"])
def test_what_is_opened_and_given_is_not_modified(astronaut, kind):
    photos, kept = PhotoEditor(TINY[kind]()), astronaut.copy()
    opened = photos.open(astronaut)
    latent, seen = opened.inversion.latent.clone(), opened.source.rgb.copy()
    list(photos.edit(opened, [Edit("happy"), Edit("sad", 0.7), Edit("neutral")]))
    assert np.array_equal(astronaut, kept) and np.array_equal(opened.source.rgb, seen)
    assert torch.equal(opened.inversion.latent, latent)


def test_seconds_of_a_batch_are_shared(photos, astronaut):
    """No edit of a batch carries the time in which all of it was drawn."""
    opened = photos.open(astronaut)
    edits = [Edit("happy", strength) for strength in (0.4, 0.6, 0.8, 1.0)]
    list(photos.edit(opened, edits))  # what is loaded once is loaded
    decode = photos.editor.backbone.decode

    def slow(*given, **named):
        time.sleep(0.4)
        return decode(*given, **named)

    photos.editor.backbone.decode = slow
    try:
        start = time.perf_counter()
        seconds = [result.seconds for result in photos.edit(opened, edits)]
        whole = time.perf_counter() - start
    finally:
        del photos.editor.backbone.decode
    assert min(seconds) >= 0.1 and sum(seconds) <= whole
    assert max(seconds) < 0.4


def test_a_compositor_is_chosen_by_the_backbone_the_editor_or_the_caller(photos, tmp_path):
    small, full_size = TINY["tiny-asyrp-noise"](), tiny_asyrp(1, channels=3, std=None)
    assert photos.compositor.name == "drawn" and PhotoEditor(small).compositor.name == "coloured"
    assert PhotoEditor(full_size).compositor.name == "rgb"
    settings = {"name": "drawn", "settings": {"skin": {"restored": 0.25}}}
    saved = Editor(photos.editor.backbone, photos.editor.steerings, name="set", compositor=settings)
    loaded = Editor.from_pretrained(saved.save_pretrained(tmp_path / "set"))
    assert loaded.compositor == settings
    skin = dict(PhotoEditor(loaded, detector=photos.detector).compositor.parts)["skin"]
    assert skin.restored == 0.25
    own = compositor("drawn").without("eyes")
    assert PhotoEditor(loaded, detector=photos.detector, compositor=own).compositor is own


@pytest.mark.parametrize(
    ("entry", "error", "says"),
    [
        ("drown", UnknownNameError, "drawn"),
        ({"parts": ["movement", "skim"]}, UnknownNameError, "skin"),
        ({"name": "drawn", "settings": {"skim": {}}}, CheckpointError, "skin"),
        ({"name": "drawn", "settings": {"skin": {"restore": 1}}}, CheckpointError, "restored"),
        ({"name": "drawn", "settings": {"skin": {"restored": "much"}}}, CheckpointError, "skin.restored"),
        ({"settings": {}}, CheckpointError, "described"),
        (["drawn"], CheckpointError, "described"),
    ],
)
def test_a_folder_whose_compositor_makes_no_sense_is_refused(photos, tmp_path, entry, error, says):
    folder = photos.editor.save_pretrained(tmp_path / "bad")
    description = json.loads((folder / "editor.json").read_text())
    (folder / "editor.json").write_text(json.dumps({**description, "compositor": entry}))
    with pytest.raises(error, match=says):
        PhotoEditor(folder, detector=photos.detector)


def test_tiny_faces_faces_at_the_edge_and_overlapping_faces(photos, astronaut):
    """Each is edited, or refused by a typed error; never anything else, and never outside its mask."""
    head = astronaut[0:260, 90:350]
    small = np.full((120, 160, 3), 127, np.uint8)
    small[30:70, 50:90] = cv2.resize(head, (40, 40), interpolation=cv2.INTER_AREA)  # a face of some 20 pixels
    cut = astronaut[:, 200:420]  # half of the face is outside
    two = np.full((300, 420, 3), 127, np.uint8)
    two[20:280, 150:410] = head
    two[20:280, 10:160] = head[:, :150]  # its cheek is covered by the other
    seen = 0
    for picture in (small, cut, two):
        try:
            result = emoedit.edit(picture, "surprised", editor=photos, face="all")
        except NoFaceError:
            continue
        seen += 1
        image = np.asarray(result.image)
        assert image.shape == picture.shape and not np.array_equal(image, picture)
    assert seen >= 2
    given = Face((60, 40, 80, 60), five_points(30, 0, 70, 50), 1.0)  # even one that no detector would find
    opened = photos.open(small, given)
    assert next(photos.edit(opened, [Edit("sad")])).image.size == (160, 120)


@pytest.mark.slow
def test_a_face_of_4000_pixels_needs_little_memory(astronaut):
    """Less than 600 MB above what is loaded, by the peak of the process that edits it."""
    code = """
import resource, sys
import cv2, numpy as np
from skimage.data import astronaut
import emoedit
from emoedit.types import Edit
photos = emoedit.PhotoEditor()
small = astronaut()
list(photos.edit(photos.open(small), [Edit("happy"), Edit("sad")]))
large = cv2.resize(small[20:215, 145:295], None, fx=35, fy=35, interpolation=cv2.INTER_CUBIC)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
opened = photos.open(large, edits=[Edit("happy"), Edit("sad")])
(x0, y0, x1, y1) = opened.faces[0].box
assert y1 - y0 > 3900, opened.faces[0].box
for edit in ("happy", "sad"):
    assert next(photos.edit(opened, [Edit(edit)])).image.size == (5250, 6825)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 600

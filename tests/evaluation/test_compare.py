"""One photograph, several editors, every edit measured: on tiny editors that move pixels without rhyme or reason."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

import emoedit
from emoedit.editors import Editor
from emoedit.evaluation.compare import (
    NOTHING,
    PHOTOGRAPH,
    Comparison,
    Entry,
    canonical_names,
    compare,
    head_of,
    load_entries,
)
from emoedit.faces.detect import Face
from emoedit.faces.networks import NAMES as NETWORKS
from emoedit.io import checkpoints
from emoedit.io.images import load_picture
from emoedit.metrics.measure import measures
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.steering.directions import LatentDirections
from emoedit.types import (
    CheckpointError,
    EditError,
    ImageError,
    MissingExtraError,
    NoFaceError,
    OutputError,
    UnknownNameError,
)
from tests.fixtures.editors import tiny_pixels, tiny_vae

REFERENCES = checkpoints.reference_names()
pytestmark = pytest.mark.skipif(
    not all((checkpoints.embedded_root() / name).is_dir() for name in (*NETWORKS, "mean_warp", "pixel_mean")),
    reason="no embedded measuring networks or references in this checkout",
)


@pytest.fixture(scope="module")
def head(_astronaut) -> np.ndarray:
    """The head of the portrait, uint8 ``[160, 160, 3]``: small pictures, fast tests."""
    return _astronaut[20:180, 144:304].copy()


@pytest.fixture(scope="module")
def truth(head) -> np.ndarray:
    """The same person "really" happy: the portrait with the mean smile, from a little further away."""
    smiling = emoedit.edit(head, "happy", editor="mean_warp", strength=1.5).image
    return np.asarray(smiling.resize((150, 150), Image.Resampling.LANCZOS))


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite(identity="embedded", perceptual="embedded")


@pytest.fixture(scope="module")
def editors() -> list[PhotoEditor]:
    return [PhotoEditor(tiny_pixels("one")), PhotoEditor(tiny_pixels("two", seed=7))]


@pytest.fixture(scope="module")
def found(head, truth, suite, editors) -> Comparison:
    """Two editors and the references, with a truth for one of two emotions."""
    before = head.copy()
    result = compare(
        head, ["happy", "sad"], editors=editors, strengths=(0, 1), truth={"happy": truth}, suite=suite, seed=3
    )
    assert np.array_equal(head, before)
    return result


def rows_of(found: Comparison, **wanted) -> list[dict]:
    return [row for row in found.rows if all(row[key] == value for key, value in wanted.items())]


def without_seconds(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


# --- stages ---------------------------------------------------------------------------------------------------------


def test_at_the_stage_of_the_crop_the_models_own_change_is_measured(head, suite):
    editor = tiny_vae()
    options = {"editors": [editor], "strengths": (1,), "references": False, "suite": suite}
    photo, crop = (compare(head, "happy", stage=stage, **options) for stage in ("photo", "crop"))
    direct = compare(head, "happy", **{**options, "editors": [PhotoEditor(editor, compositor="added")]})
    assert without_seconds(crop.rows) == without_seconds(direct.rows) != without_seconds(photo.rows)
    assert np.array_equal(np.asarray(crop.images[0]), np.asarray(direct.images[0]))


def test_at_the_stage_of_the_crop_an_editor_with_another_compositor_is_measured_without_it(editors):
    (entry,) = load_entries([editors[0]], references=False, stage="crop")
    assert entry.photo_editor.compositor.name == "added" and entry.photo_editor.editor is editors[0].editor
    assert {e.photo_editor.compositor.name for e in load_entries([tiny_vae()], stage="crop")} == {"added"}


def test_other_stages_do_not_exist():
    with pytest.raises(EditError, match="stage photo or crop, not 'canvas'"):
        load_entries([tiny_vae()], stage="canvas")


# --- rows -----------------------------------------------------------------------------------------------------------


def test_every_editor_has_a_row_for_every_emotion_and_strength(found):
    cells = [(row["editor"], row["emotion"], row["strength"]) for row in found.rows]
    every = [(emotion, strength) for emotion in ("happy", "sad") for strength in (0.0, 1.0)]
    assert cells == [
        *(("one", *cell) for cell in every),
        *(("two", *cell) for cell in every),
        *(("mean_warp", *cell) for cell in every if cell[0] == "happy"),  # the only emotion it knows
        *(("pixel_mean", *cell) for cell in every),
        (NOTHING, "happy", None),
        (PHOTOGRAPH, "happy", None),
        (NOTHING, "sad", None),
    ]
    assert {row["editor"] for row in found.rows if not row["reference"]} == {"one", "two"}
    assert len(found.images) == len(found.rows)


def test_every_row_has_every_number_and_says_who_spoke(found, suite):
    wanted = {m.key for m in measures()} | {f"score_{name}" for name in suite.emotions} | set(suite.backends)
    wanted |= {"photo", "editor", "reference", "emotion", "strength", "seconds", "error", "top1", "hit"}
    for row in found.rows:
        assert wanted <= set(row) <= wanted | {"seed"}
        assert row["photo"] == found.photo == "photo" and row["error"] is None
        assert all(value is None or isinstance(value, str | int | float) for value in row.values())
        assert sum(row[f"score_{name}"] for name in suite.emotions) == pytest.approx(1, abs=1e-3)
        assert row["hit"] == int(row["top1"] == row["emotion"])
        assert row["target_score"] == pytest.approx(row[f"score_{row['emotion']}"], abs=1e-6)
        assert row["identity_backend"] == row["perceptual_backend"] == row["expression_backend"] == "embedded"
    made = [row for row in found.rows if row["editor"] not in (NOTHING, PHOTOGRAPH)]
    assert all(row["seed"] == 3 and row["seconds"] >= 0 for row in made)
    assert all(row["seconds"] is None for row in found.rows if row not in made)


def test_strength_0_and_nothing_are_the_source_itself(found):
    same = [*rows_of(found, strength=0.0), *rows_of(found, editor=NOTHING)]
    assert len(same) == 9
    for row in same:
        for key, value in (("identity", 1), ("perceptual", 0), ("ssim", 1), ("background_change", 0), ("psnr", 100)):
            assert row[key] == pytest.approx(value, abs=1e-4), (row["editor"], key)
        assert row["expression_change"] == pytest.approx(0, abs=1e-4)


def test_full_strength_is_another_picture(found):
    for row in rows_of(found, strength=1.0):
        assert row["identity"] < 1 and row["perceptual"] > 0 and row["ssim"] < 1 and row["psnr"] < 60


def test_the_true_photograph_is_at_distance_0_from_the_truth_and_the_source_at_1(found):
    paired = [m.key for m in measures() if m.key.startswith("paired_")]
    assert len(paired) == 3
    (photograph,) = rows_of(found, editor=PHOTOGRAPH)
    (nothing,) = rows_of(found, editor=NOTHING, emotion="happy")
    for key in paired:
        assert photograph[key] == pytest.approx(0, abs=1e-4), key
        assert nothing[key] == pytest.approx(1, abs=1e-4), key
    assert photograph["ssim"] is photograph["background_change"] is photograph["fold_free"] is None
    for row in rows_of(found, emotion="sad"):
        assert all(row[key] is None for key in paired)
    for row in rows_of(found, emotion="happy"):
        assert all(row[key] is not None for key in paired)


def test_pictures_show_the_head(found, head, editors):
    box = editors[0].detector.choose(head)[0].box
    for row, image in zip(found.rows, found.images, strict=True):
        assert image.mode == "RGB"
        if row["editor"] != PHOTOGRAPH:
            assert image.size == found.source.size
        if row["strength"] == 0 or row["editor"] == NOTHING:
            assert np.array_equal(np.asarray(image), np.asarray(found.source))
    assert found.source.width >= box[2] - box[0] and found.source.height >= box[3] - box[1]


def test_the_head_of_a_report_stays_inside_the_photograph():
    image = Image.new("RGB", (100, 80))
    points = np.zeros((5, 2))
    assert head_of(image, Face((40, 30, 60, 50), points, 1.0)).size == (32, 32)
    assert head_of(image, Face((-10, -10, 30, 30), points, 1.0)).size == (42, 42)
    assert head_of(image, Face((0, 0, 100, 80), points, 1.0)).size == (100, 80)


def test_the_same_seed_gives_the_same_rows(found, head, truth, suite, editors):
    options = {"strengths": (0, 1), "truth": {"happy": truth}, "suite": suite, "seed": 3, "references": False}
    again = compare(head, ["happy", "sad"], editors=editors[:1], **options)
    assert without_seconds(again.rows) == without_seconds(found.rows[:4])
    for one, other in zip(again.images, found.images[:4], strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_what_is_said_twice_is_done_once_and_aliases_are_one_emotion(head, suite, editors):
    found = compare(
        head,
        ["happy", "smiling", "happy"],
        editors=editors[:1],
        strengths=(1, 1.0),
        truth={"Joy": head[:, ::-1]},
        references=False,
        suite=suite,
    )
    (row,) = found.rows
    assert row["emotion"] == "happy" and row["hit"] is not None and row["paired_perceptual"] is not None


def test_canonical_names_leave_algebra_alone():
    emotions = ["Joy", "happy - 0.4*surprised", "happy", "nonsense", "shame"]
    assert canonical_names(emotions) == ["happy", "happy - 0.4*surprised", "nonsense", "shame"]


def test_algebra_aims_at_what_it_adds_up(head, suite, editors):
    found = compare(head, "happy - 0.4*surprised", editors=editors[:1], references=False, suite=suite, strengths=[1])
    (row,) = found.rows
    assert row["emotion"] == "happy - 0.4*surprised" and row["hit"] is None
    assert row["target_score"] == pytest.approx(row["score_happy"], abs=1e-6)


def test_one_face_of_several_is_compared(head, suite, editors):
    pair = np.concatenate([np.pad(head[::2, ::2], ((40, 40), (40, 40), (0, 0)), "edge"), head], 1)
    found = compare(pair, "happy", editors=editors[:1], strengths=[1], face=1, references=False, suite=suite)
    changed = np.asarray(found.images[0], int) - np.asarray(found.source, int)
    assert found.source.width < 110 and np.abs(changed).max() > 8
    with pytest.raises(NoFaceError, match="face 5 was asked for, but 2 found"):
        compare(pair, "happy", editors=editors[:1], face=5, suite=suite)


def test_data_frames(found, monkeypatch):
    pandas = pytest.importorskip("pandas")
    table = found.to_pandas()
    assert isinstance(table, pandas.DataFrame) and len(table) == len(found.rows)
    assert list(table["editor"]) == [row["editor"] for row in found.rows]
    assert table["identity"].dtype == float and table["paired_perceptual"].isna().sum() == 7
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"\[metrics\]"):
        found.to_pandas()


# --- edits that fail ------------------------------------------------------------------------------------------------


class Moody(LatentDirections):
    """Refuses to be sad."""

    def control(self, backbone, inversion, edits):
        if any(edit.emotion == "sad" and edit.strength for edit in edits):
            raise CheckpointError("this one is never sad")
        return super().control(backbone, inversion, edits)


def moody() -> Editor:
    plain = tiny_pixels()
    (steering,) = plain.steerings
    return Editor(plain.backbone, [Moody(steering.emotions, steering.directions, steering.gain)], name="moody")


def test_an_emotion_that_fails_is_an_error_in_its_rows_and_the_rest_goes_on(head, suite):
    emotions = ["happy", "sad", "angry"]
    found = compare(head, emotions, editors=[moody()], strengths=(0.5, 1), references=False, suite=suite)
    assert [(row["emotion"], row["strength"]) for row in found.rows] == [
        (emotion, strength) for emotion in emotions for strength in (0.5, 1.0)
    ]
    for row, image in zip(found.rows, found.images, strict=True):
        broken = row["emotion"] == "sad"
        assert row["error"] == ("this one is never sad" if broken else None)
        assert (image is None) == broken
        assert broken or row["identity"] is not None
        assert set(row) >= {"photo", "editor", "reference", "emotion", "strength", "seed", "seconds", "error"}
    assert found.grid().width > 0 and len(found.sheet().entries) == len(found.rows)


def test_an_editor_that_cannot_open_the_photograph_fails_alone(head, suite, editors, monkeypatch):
    broken = PhotoEditor(tiny_pixels("broken"))
    monkeypatch.setattr(broken.editor.backbone, "invert", lambda *_, **__: (_ for _ in ()).throw(ImageError("cannot")))
    found = compare(head, "happy", editors=[broken, editors[0]], strengths=[1], references=False, suite=suite)
    assert [(row["editor"], row["error"]) for row in found.rows] == [("broken", "cannot"), ("one", None)]


def test_a_bug_is_not_taken_for_a_failed_edit(head, suite, monkeypatch):
    broken = PhotoEditor(tiny_pixels("broken"))
    monkeypatch.setattr(broken.editor.backbone, "decode", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare(head, "happy", editors=[broken], references=False, suite=suite)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.fixture
def idle(suite, monkeypatch) -> Suite:
    """A suite that must not be asked."""
    monkeypatch.setattr(Suite, "subject", lambda *_: pytest.fail("measured before the names were checked"))
    return suite


def test_unknown_names_are_refused_before_any_work(head, idle, editors, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'happy'"):
        compare(head, "hapy", editors=editors, suite=idle)
    with pytest.raises((UnknownNameError, CheckpointError), match="vea"):
        compare(head, editors=["vea"], suite=idle)
    with pytest.raises(CheckpointError):
        compare(head, editors=[tmp_path], suite=idle)
    narrow = Editor(editors[0].editor.backbone, [LatentDirections(("happy",), np_directions())], name="narrow")
    with pytest.raises(UnknownNameError, match="cannot do 'sad'"):
        compare(head, ["happy", "sad"], editors=[narrow], suite=idle)
    with pytest.raises(UnknownNameError, match="cannot do 'sad'"):
        compare(head, "sad", editors=["mean_warp"], suite=idle)  # asked for by name, it is no reference


def np_directions():
    return tiny_pixels().steerings[0].directions[1:2]


def test_an_emotion_that_the_recogniser_has_no_class_for_is_refused(head, idle, editors, monkeypatch):
    monkeypatch.setattr(type(idle.expression), "emotions", ("neutral", "happy"))
    with pytest.raises(UnknownNameError, match="sad"):
        compare(head, "sad", editors=editors, suite=idle)


def test_choices_that_make_no_sense(head, idle, editors):
    for options, message in (
        ({"editors": []}, "no editor to compare"),
        ({"editors": [editors[0], tiny_pixels("one")]}, "names of their own, found one, one"),
        ({"editors": [tiny_pixels(NOTHING)]}, "names of their own"),
        ({"editors": editors, "strengths": [float("nan")]}, "strength must be within"),
        ({"editors": editors, "strengths": [1e4]}, "strength must be within"),
        ({"editors": editors, "face": "all"}, "one face"),
        ({"editors": editors, "truth": {"sad": head}}, "a truth for sad, which is not among the emotions happy"),
    ):
        with pytest.raises(EditError, match=message):
            compare(head, "happy", suite=idle, **options)


def test_photographs_that_cannot_be_used(head, idle, editors, tmp_path):
    grey = np.full((120, 120, 3), 128, np.uint8)
    with pytest.raises(NoFaceError):
        compare(grey, "happy", editors=editors, suite=idle)
    with pytest.raises(ImageError, match="no such file"):
        compare(tmp_path / "gone.png", "happy", editors=editors, suite=idle)
    with pytest.raises(NoFaceError):
        compare(head, "happy", editors=editors, truth={"happy": grey}, suite=idle)
    with pytest.raises(ImageError, match="no such file"):
        compare(head, "happy", editors=editors, truth={"happy": tmp_path / "gone.png"}, suite=idle)


def test_contestants_are_editors_of_any_form_and_the_references(editors, tmp_path):
    folder = tiny_vae().save_pretrained(tmp_path / "tiny")
    chosen = load_entries([folder, str(folder / ".." / "tiny"), editors[0]][1:])
    assert [(c.name, c.reference) for c in chosen] == [("tiny", False), ("one", False)] + [
        (name, True) for name in REFERENCES
    ]
    assert chosen[1].photo_editor is editors[0]
    assert len({id(c.photo_editor.detector) for c in chosen if c.name != "one"}) == 1  # loaded once for all of them
    assert [c.name for c in load_entries(str(folder), references=False)] == ["tiny"]
    named = load_entries(["mean_warp"])
    assert [(c.name, c.reference) for c in named] == [("mean_warp", False), ("pixel_mean", True)]
    by_name = {c.name: c for c in chosen}
    assert by_name["mean_warp"].supports("happy") and not by_name["mean_warp"].supports("sad")
    assert by_name["pixel_mean"].supports("shame") and not by_name["pixel_mean"].supports("nonsense")


@pytest.mark.skipif("vae" not in checkpoints.embedded_names(), reason="no embedded VAE in this checkout")
def test_all_are_the_embedded_editors():
    assert tuple(c.name for c in load_entries("all", references=False)) == emoedit.list_editors()
    assert isinstance(load_entries("all")[0], Entry)


# --- files ----------------------------------------------------------------------------------------------------------


def test_results_are_written_and_never_over_others(found, tmp_path):
    folder = found.save(tmp_path / "new" / "folder")
    assert folder == tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["grid.png", "report.html", "results.jsonl"]
    assert [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()] == found.rows
    with Image.open(folder / "grid.png") as grid:
        assert grid.size == found.grid().size
    page = (folder / "report.html").read_text("utf-8")
    assert all(name in page for name in ("one", "two", "mean_warp", "pixel_mean", NOTHING, PHOTOGRAPH))
    assert page.count("data:image/jpeg;base64,") >= len(found.rows)
    assert "Metric networks: identity embedded" in page

    (folder / "grid.png").unlink()
    (folder / "results.jsonl").unlink()
    before = (folder / "report.html").read_bytes()
    with pytest.raises(OutputError, match="holds report.html already"):
        found.save(folder)
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    assert (folder / "report.html").read_bytes() == before
    found.save(folder, overwrite=True)
    assert len(list(folder.iterdir())) == 3


def test_a_folder_that_cannot_be(found, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError):
        found.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_grid_has_a_row_an_editor_and_emotion(found):
    """Source and two strengths in each of seven rows, the photograph's among them; nothing is the source again."""
    grid = found.grid()
    cells = 8  # one and two and pixel_mean twice, mean_warp and the photograph once
    assert 3 * 256 < grid.width < 3.3 * 256
    assert cells * 256 < grid.height < (cells + 1.5) * 256


HOSTILE = ['</script><script>alert("x")</script>', "'\"&amp;\n\t", "ünï 写真 \u202e", "x" * 180]
if sys.platform == "linux":
    HOSTILE.append(os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_photographs_are_data(found, tmp_path, name):
    """A hostile file name goes to the rows as it is, and to the page as text."""
    rows = [{**row, "photo": name} for row in found.rows[:2]]
    named = Comparison(name, rows, found.images[:2], found.source)
    folder = named.save(tmp_path)
    assert [json.loads(line)["photo"] for line in (folder / "results.jsonl").read_text("utf-8").splitlines()] == [
        name,
        name,
    ]
    page = (folder / "report.html").read_text("utf-8")
    assert "<script>alert" not in page


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_with_a_hostile_name_is_compared(head, suite, editors, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"<b>\xe9\n.png")
    Image.fromarray(head).save(os.fsdecode(path))
    found = compare(os.fsdecode(path), "happy", editors=editors[:1], strengths=[1], references=False, suite=suite)
    assert found.photo == found.rows[0]["photo"] == os.fsdecode(b"<b>\xe9\n")
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.jsonl").read_text("utf-8"))["photo"] == found.photo
    assert "<b>\n" not in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_photograph_with_alpha_is_measured_as_it_looks_without(head, suite, editors):
    alpha = np.dstack([head, np.full(head.shape[:2], 200, np.uint8)])
    picture = load_picture(Image.fromarray(alpha))
    options = {"editors": editors[:1], "strengths": [1], "references": False, "suite": suite}
    found, plain = compare(picture, "happy", **options), compare(head, "happy", **options)
    assert found.images[0].mode == "RGBA" and found.grid().mode == "RGB"
    assert without_seconds(found.rows) == without_seconds(plain.rows)

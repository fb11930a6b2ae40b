"""The tabs' callbacks without a browser: a photograph with two people, edits, undo, files, refusals."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoedit.app.batch import edit_files
from emoedit.app.candidates import HEADERS, Search, chosen, search
from emoedit.app.compare import compare_editors, frame
from emoedit.app.edit import ALL, UNIT_NAMES, EditTab
from emoedit.app.figures import outlined
from emoedit.app.session import SessionError
from emoedit.app.settings import Settings
from emoedit.app.studio import OwnEditor, Studio
from emoedit.photo import PhotoEditor
from emoedit.types import EditError, ImageError, NoFaceError, UnknownNameError
from tests.fixtures.editors import tiny_vae

HAPPY = Settings((("happy", 1.0),), 1.0)


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Studio:
    return Studio(tmp_path_factory.mktemp("app") / "sessions", device="cpu", max_pixels=4_000_000)


@pytest.fixture
def tab(studio) -> EditTab:
    return EditTab(studio)


@pytest.fixture
def session(studio, request):
    key = request.node.name
    yield studio.session(key)
    studio.end(key)


@pytest.fixture
def upload(tmp_path, astronaut):
    """A file as the browser sends it: a name and content."""

    def make(name: str = "me.jpg", pixels: np.ndarray | None = None, content: bytes | None = None, **how) -> Path:
        path = tmp_path / "uploads" / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            Image.fromarray(astronaut if pixels is None else pixels).save(path, **how)
        else:
            path.write_bytes(content)
        return path

    return make


def changed(a: Image.Image | np.ndarray, b: Image.Image | np.ndarray) -> np.ndarray:
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).max(-1) > 4


def test_a_photograph_is_opened_edited_at_once_and_its_upload_deleted(tab, session, upload) -> None:
    path = upload()
    view = tab.open(session, path, "stylegan")
    assert not path.exists()
    assert dict(view.settings.weights) == {"neutral": 1.0}  # she smiles, so the smile is taken away
    assert view.choices == ("1",) and view.close
    before, after = (Image.open(file) for file in view.pictures)
    assert before.size == after.size and before.width < 512
    assert changed(before, after).mean() > 0.01
    assert view.pad["now"][0] > 0.3 and "happy" in view.bars and "identity kept" in view.numbers


def test_a_larger_photograph_is_shown_smaller_and_downloaded_whole_in_its_format(
    tab, session, upload, astronaut
) -> None:
    large = np.asarray(Image.fromarray(astronaut).resize((1600, 1600)))
    exif = Image.Exif()
    exif[0x010E] = "a day out"
    view = tab.open(session, upload("day out.webp", large, exif=exif, quality=95), "stylegan")
    assert session.photo.shown.rgb.shape[0] == 1280
    path = tab.download(session, view.settings)
    assert path.name == "day_out_neutral.webp"
    with Image.open(path) as image:
        assert image.size == (1600, 1600) and image.getexif()[0x010E] == "a day out"
        moved = changed(image.convert("RGB"), session.photo.full.rgb)
    x0, y0, x1, y1 = (round(v * 1.25) for v in session.photo.faces[0].box)
    assert moved[y0:y1, x0:x1].mean() > 0.03 > moved[y1 + 200 :].mean()


def test_two_faces_one_or_all(tab, session, upload, astronaut) -> None:
    pair = np.concatenate([astronaut[:300, 80:380], astronaut[:300, 80:380][:, ::-1]], 1)
    view = tab.open(session, upload("pair.png", pair), "stylegan")
    assert view.choices == ("1", "2", ALL)
    outlines = outlined(session.photo, 0)
    assert outlines.size == (600, 300) and changed(outlines, pair).any()
    tab.show(session, Settings(HAPPY.weights, 1.0, face=1))
    first = changed(session.last.after, session.last.before)
    assert first[:, :300].any() != first[:, 300:].any()
    tab.show(session, Settings((("sad", 1.0),), 1.0, face=None))
    both = changed(session.last.after, session.last.before)
    assert both[:, :300].any() and both[:, 300:].any()
    with pytest.raises(NoFaceError, match="face 9"):
        tab.show(session, Settings(HAPPY.weights, 1.0, face=8))


def test_sliders_pad_names_and_editors_say_the_same(tab, session, upload) -> None:
    tab.open(session, upload(), "stylegan")
    settings = tab.settings([0, 0.5, 0, 0, 0, 0, 0, 0], 1.2, "stylegan", 0, "1")
    edit, added = settings.parts(tab.emotions("stylegan"))
    assert edit.emotion == "0.5*happy" and edit.strength == 1.2 and added == ()
    assert dict(tab.at_point(settings, 0.2, 0.8).weights)["surprised"] == 1.0
    assert tab.named(settings, "nostalgic").expression == "0.3*happy + 0.4*sad"
    with pytest.raises(UnknownNameError):
        tab.named(settings, "nosuch")
    assert tab.with_editor(settings, "vae").editor == "vae"
    assert tab.with_editor(settings, "vae").expression == settings.expression


def test_undo_goes_back_and_kept_edits_stay(tab, session, upload) -> None:
    view = tab.open(session, upload(), "stylegan")
    with pytest.raises(SessionError, match="nothing to undo"):
        tab.undo(session)
    tab.show(session, HAPPY)
    tab.settle(session, HAPPY)
    tab.settle(session, HAPPY)  # coming to rest twice at one place is one step
    assert [label for _, label in tab.keep(session)] == ["happy"]
    assert tab.undo(session) == view.settings
    tab.show(session, Settings())
    assert not changed(session.last.after, session.last.before).any()
    assert [label for _, label in tab.keep(session)] == ["happy", "the photograph"]


def test_the_person_is_kept_by_a_weaker_edit(tab, session, upload) -> None:
    tab.open(session, upload(), "stylegan")
    strong = Settings((("surprised", 1.0),), 2.0, min_identity=0.85)
    view = tab.show(session, strong)
    assert session.last.strength < 2 and session.last.identity >= 0.85
    assert "to keep 0.85" in view.numbers


def test_a_walk_is_an_animation(studio, tab, session, upload) -> None:
    tab.open(session, upload(), "stylegan")
    seen = []
    path = studio.walk(session, HAPPY, ".gif", frames=3, callback=lambda n, of: seen.append((n, of)))
    with Image.open(path) as image:
        assert image.n_frames == 4  # there and back
    assert seen == [(1, 3), (2, 3), (3, 3)] and path.name == "me_happy.gif"
    with pytest.raises(SessionError, match="nothing is edited"):
        studio.walk(session, Settings(), ".gif")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"<svg onload='alert(1)'></svg>", ImageError),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, ImageError),
        (b"", ImageError),
        (b"GIF89a\xff\xff\xff\xff\x00\x00\x00;", ImageError),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ImageError),
    ],
)
def test_a_hostile_upload_is_refused_deleted_and_forgets_nothing(tab, session, upload, content, error) -> None:
    tab.open(session, upload(), "stylegan")
    before = session.photo
    path = upload("../evil.png".replace("../", ""), content=content)
    with pytest.raises(error):
        tab.open(session, path, "stylegan")
    assert not path.exists() and session.photo is before


def test_too_many_pixels_and_nobody_there_are_refused(tab, session, upload) -> None:
    with pytest.raises(ImageError, match="pixels"):
        tab.open(session, upload("huge.png", np.zeros((2100, 2000, 3), np.uint8)), "stylegan")
    with pytest.raises(NoFaceError):
        tab.open(session, upload("empty.png", np.full((200, 200, 3), 90, np.uint8)), "stylegan")
    with pytest.raises(SessionError, match="open a photograph first"):
        tab.show(session, HAPPY)


def test_sessions_share_nothing_and_leave_nothing(studio, tab, upload, astronaut) -> None:
    mine, other = studio.session("mine"), studio.session("other")
    view = tab.open(mine, upload(), "stylegan")
    assert other.photo is None and mine.folder != other.folder
    tab.open(other, upload("b.png", astronaut[:, ::-1].copy()), "stylegan")
    assert not np.array_equal(mine.photo.full.rgb, other.photo.full.rgb)
    assert Path(view.pictures[0]).is_relative_to(mine.folder)
    studio.end("mine")
    assert not mine.folder.exists() and mine.photo is None and other.folder.exists()
    studio.end("other")
    assert studio.session("mine").photo is None
    studio.end("mine")
    assert not any(studio.root.iterdir()) if studio.root.exists() else True


def test_photographs_of_all_pages_together_do_not_fill_the_memory(tab, session, upload, monkeypatch) -> None:
    studio = tab.studio
    monkeypatch.setattr(studio, "max_held", 300_000)
    tab.open(session, upload(), "stylegan")
    other = studio.session("late")
    with pytest.raises(ImageError, match="1 other pages hold photographs of 0 million pixels"):
        tab.open(other, upload("b.jpg"), "stylegan")
    assert other.photo is None and tab.open(session, upload(), "stylegan")  # its own makes room for itself
    session.close()
    assert tab.open(other, upload("b.jpg"), "stylegan")
    studio.end("late")


def test_idle_sessions_go(studio, tab, upload, monkeypatch) -> None:
    session = studio.session("idle")
    tab.open(session, upload(), "stylegan")
    session.used -= 7200
    studio.session("next")
    assert not session.folder.exists() and session.photo is None
    studio.end("next")


def test_previews_do_not_pile_up(session) -> None:
    from emoedit.app.session import MAX_PREVIEWS

    for _ in range(MAX_PREVIEWS + 5):
        session.preview(Image.new("RGB", (8, 8)))
    assert len(list(session.folder.iterdir())) == MAX_PREVIEWS


def test_a_batch_gives_a_zip_and_says_what_failed(studio, session, upload, astronaut) -> None:
    paths = [upload("a.jpg"), upload("b.png", astronaut[:, ::-1].copy()), upload("c.png", content=b"no picture")]
    path, outcomes = edit_files(studio, session, paths, "sad", 1.0, "stylegan")
    with zipfile.ZipFile(path) as packed:
        assert sorted(packed.namelist()) == ["a_sad.jpg", "b_sad.png"] and packed.testzip() is None
    assert [bool(outcome.error) for outcome in outcomes] == [False, False, True]
    assert outcomes[2].name == "c.png" and not any(p.exists() for p in paths)
    with pytest.raises(SessionError, match="at least one"):
        edit_files(studio, session, [], "sad", 1.0, "stylegan")
    with pytest.raises(UnknownNameError):
        edit_files(studio, session, [upload()], "nosuch", 1.0, "stylegan")


def test_a_comparison_has_pictures_numbers_and_a_report(studio, tab, session, upload) -> None:
    tab.open(session, upload(), "stylegan")
    seen = []
    found = compare_editors(
        studio, session, 0, ["stylegan"], ["happy", "sad"], [1.0], lambda n, of: seen.append((n, of))
    )
    rows = [json.loads(line) for line in (found.file.parent / "results.jsonl").read_text().splitlines()]
    assert [(row["editor"], row["emotion"]) for row in rows] == [("stylegan", "happy"), ("stylegan", "sad")]
    assert not found.failures and found.grid.width > 600 and seen == [(0, 1)]
    assert 'sandbox="allow-scripts"' in found.report and "<script" not in found.report.replace("&lt;script", "")
    with pytest.raises(SessionError, match="at most 60"):
        compare_editors(studio, session, 0, ["stylegan"] * 5, ["happy"] * 13, [1.0])


def test_a_report_cannot_leave_its_frame() -> None:
    assert "allow-same-origin" not in frame("<p>") and '"' not in frame('a"b').split('srcdoc="')[1][:-11]


# --- action units


def units(**weights: float) -> tuple[tuple[str, float], ...]:
    return tuple(weights.items())


def test_action_units_move_a_part_of_the_face_with_every_editor(tab, session, upload) -> None:
    tab.open(session, upload(), "stylegan")
    x0, y0, x1, y1 = (round(v) for v in session.photo.faces[0].box)
    view = tab.show(session, tab.settings([0] * 8, 1, "stylegan", 0, "1", [float(n == "AU4") for n in UNIT_NAMES]))
    assert view.settings.units == units(AU4=1.0) and "none yet" not in view.numbers
    moved = changed(session.last.before, session.last.after)[y0:y1, x0:x1]
    upper, lower = moved[: len(moved) // 2], moved[len(moved) // 2 :]
    assert upper.mean() > 0.02 > lower.mean()  # brows come down, and the mouth stays
    drawn = session.last.after
    tab.show(session, Settings((), 1.0, "facs", units=units(AU4=1.0)))
    assert changed(session.last.after, drawn).mean() < 0.1 * moved.mean()
    tab.show(session, Settings((), 0.0, units=units(AU4=1.0)))  # strength 0 is the photograph
    assert not changed(session.last.before, session.last.after).any()
    with pytest.raises(EditError, match="contradict"):
        tab.show(session, Settings((), 1.0, units=units(AU5=1.0, AU43=1.0)))


def test_emotions_and_units_are_told_apart(tab, session, upload) -> None:
    assert not [name for name in tab.emotions("facs") if name.startswith("AU")] and "contempt" in tab.emotions("facs")
    settings = tab.named(Settings((), 1.0), "sad + 0.5*AU4")
    assert settings.units == units(AU4=0.5) and settings.expression == "sad + 0.5*AU4"
    assert tab.with_editor(settings, "facs").parts(("sad", "AU4"))[1] == ()
    tab.open(session, upload(), "stylegan")
    path = tab.download(session, settings)
    assert "AU4" in path.name
    with Image.open(path) as image:
        assert changed(image.convert("RGB"), session.photo.full.rgb).mean() > 0.005
    found = tab.studio.walk(session, settings, ".gif", frames=3)
    with Image.open(found) as film:
        assert film.n_frames == 4


def test_keeping_the_person_weakens_units_too(tab, session, upload) -> None:
    tab.open(session, upload(), "stylegan")
    wide = Settings((), 1.0, units=units(AU27=1.5, AU5=1.5, AU1=1.5))
    tab.show(session, wide)
    free = session.last.identity
    view = tab.show(session, Settings((), 1.0, min_identity=min(0.95, free + 0.05), units=wide.units))
    assert session.last.units < 1 and session.last.identity > free and "action units" in view.numbers


# --- candidates, and an editor of one's own


def test_candidates_are_ranked_and_one_is_taken_to_the_edit_tab(studio, tab, session, upload) -> None:
    tab.open(session, upload(), "stylegan")
    seen = []
    asked = Search(0, "surprised", ["stylegan", "facs"], 4, 2, (0.8, 1.4), 0.3, 0)
    found = search(studio, session, asked, lambda n, of: seen.append((n, of)))
    assert seen[-1] == (4, 4) and len(found.rows) == 4 and all(len(row) == len(HEADERS) for row in found.rows)
    assert {row[0] for row in found.rows} == {f"{name} at {s}" for name in ("stylegan", "facs") for s in (0.8, 1.4)}
    assert all("target" in row[-1] for row in found.rows) and len(found.kept) >= 1 and found.sheet.width > 600
    with zipfile.ZipFile(found.zip) as packed:
        assert {"sheet.png", "candidates.json"} < set(packed.namelist()) and packed.testzip() is None
    settings = tab.named(chosen(session, 0), "surprised")
    assert f"{settings.editor} at {settings.strength:g}" == found.rows[0][0]
    tab.show(session, settings)
    assert changed(session.last.after, found.kept[0][0]).mean() < 0.01
    with pytest.raises(SessionError, match="press one"):
        chosen(session, 9)
    with pytest.raises(SessionError, match="at least one editor"):
        search(studio, session, replace(asked, editors=[]))


def test_an_editor_of_one_s_own_is_offered_and_loaded_once(tmp_path, upload) -> None:
    loaded = []

    def load() -> PhotoEditor:
        loaded.append(1)
        return PhotoEditor(tiny_vae())

    studio = Studio(tmp_path / "sessions", device="cpu", own=OwnEditor("mine", load))
    assert studio.editors()[0] == ("mine: your own", "mine") and ("vae" in [name for _, name in studio.editors()])
    session = studio.session("a")
    view = EditTab(studio).open(session, upload(), "mine")
    assert view.settings.editor == "mine" and studio.compared_editor("mine") is studio.photo_editor("mine")
    assert loaded == [1]
    studio.end("a")

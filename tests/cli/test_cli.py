"""The command line, with a tiny editor of random weights and a real photograph."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from emoedit import __version__
from emoedit.cli import main
from emoedit.cli.compare import COMPARISON
from emoedit.editors import Editor, list_editors
from emoedit.emotions import BASIC, list_emotions
from emoedit.full_size import list_models
from emoedit.io import checkpoints
from emoedit.models.vae.backbone import VAEBackbone, VAEConfig
from emoedit.registry import COMPOSITORS
from emoedit.steering.directions import LatentDirections
from tests.fixtures.editors import TINY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def editor(tmp_path_factory) -> str:
    """The folder of an editor of all basic emotions; its edits are visible nonsense."""
    torch.manual_seed(0)
    backbone = VAEBackbone(VAEConfig(resolution=32, widths=(8, 16), latent_dim=8))
    directions = torch.randn(len(BASIC), 8) * 5
    directions[BASIC.index("neutral")] = 0
    folder = tmp_path_factory.mktemp("editors") / "tiny"
    Editor(backbone, [LatentDirections(BASIC, directions)], name="tiny").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def face() -> Image.Image:
    return Image.fromarray(astronaut()[:256, 96:352])


@pytest.fixture
def here(tmp_path, monkeypatch, face) -> Path:
    """The current folder, with ``me.png`` in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    face.save("me.png")
    return folder


@pytest.fixture
def run(editor, here):
    """``emoedit ARGUMENTS`` with the tiny editor; the exit status."""

    def call(*arguments: object) -> int:
        words = [str(argument) for argument in arguments]
        if words[0] in ("edit", "demo") and "--editor" not in words:
            words += ["--editor", editor]
        try:
            return main(words)
        except SystemExit as stop:
            return stop.code

    return call


def files(folder: Path | str = ".") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def error_of(capsys) -> str:
    """What went to standard error, where nothing went to standard output and no traceback anywhere."""
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return err


# --- one photo ------------------------------------------------------------------------------------------------------


def test_default_edit(run, capsys) -> None:
    assert run("edit", "me.png") == 0
    assert files() == {"me.png", "me_happy.png"}
    assert error_of(capsys) == "wrote me_happy.png\n"
    assert pixels("me_happy.png").shape == pixels("me.png").shape
    assert (pixels("me_happy.png") != pixels("me.png")).any()


def test_strength_0_gives_the_pixels_of_the_photo(run) -> None:
    assert run("edit", "me.png", "--strength", "0") == 0
    assert np.array_equal(pixels("me_happy_0.png"), pixels("me.png"))
    assert run("edit", "me.png", "--strength", "-0") == 1  # the same file, which is there


def test_emotions_and_strengths_share_one_inversion(run, monkeypatch) -> None:
    calls = []
    invert = Editor.invert
    monkeypatch.setattr(Editor, "invert", lambda *a, **k: calls.append(1) or invert(*a, **k))
    arguments = ("--emotion", "happy", "sad", "--strength", "0.5", "1", "--emotion", "joy - sad", "--strength", "-0.5")
    assert run("edit", "me.png", *arguments) == 0
    names = {
        f"me_{emotion}{strength}.png" for emotion in ("happy", "sad", "joy-sad") for strength in ("_0.5", "", "_-0.5")
    }
    assert files() == {"me.png"} | names
    assert len(calls) == 2  # her smile is inverted with its mouth closed, too, for what ends it
    assert not np.array_equal(pixels("me_happy_0.5.png"), pixels("me_happy_-0.5.png"))


def test_what_is_said_twice_is_done_once(run, capsys) -> None:
    assert run("edit", "me.png", "me.png", "--emotion", "sad", "sad", "--strength", "1", "1.0") == 0
    assert error_of(capsys).count("wrote") == 1


@pytest.mark.parametrize(
    ("output", "expected"),
    [("new/deep/", "new/deep/me_happy.png"), ("out.jpg", "out.jpg"), ("there", "there/me_happy.png")],
)
def test_where_a_single_result_goes(run, output, expected) -> None:
    Path("there").mkdir()
    assert run("edit", "me.png", "--output", output) == 0
    assert files() == {"me.png", expected}


def test_several_results_go_to_a_folder(run, capsys) -> None:
    assert run("edit", "me.png", "--emotion", "sad", "angry", "--output", "new") == 0
    assert files() == {"me.png", "new/me_sad.png", "new/me_angry.png"}
    capsys.readouterr()
    assert run("edit", "me.png", "--emotion", "sad", "angry", "--output", "one.png") == 2
    assert "several results" in error_of(capsys)


@pytest.mark.parametrize("name", ["drawn", "replace"])
def test_compositors(run, name, capsys) -> None:
    assert run("edit", "me.png", "--compositor", name) == 0
    assert run("edit", "me.png", "--compositor", "painted", "--output", "other.png") == 2
    assert "painted" in error_of(capsys) and not Path("other.png").exists()


def test_a_compositor_that_does_not_suit_the_editor_is_refused(run, capsys) -> None:
    for name, advice in (("moved", "leave it out"), ("rgb", "use 'drawn'")):
        assert run("edit", "me.png", "--compositor", name) == 1
        assert advice in error_of(capsys) and files() == {"me.png"}


def test_a_floor_for_the_person_weakens_an_edit_and_says_so(run, capsys) -> None:
    assert run("edit", "me.png", "--min-identity", "0", "--json", "free.json") == 0
    assert "keeps" not in error_of(capsys)
    assert run("edit", "me.png", "--min-identity", "1", "--output", "kept.png", "--json", "kept.json") == 0
    assert "me.png (happy): strength 0 keeps 1 of the person" in error_of(capsys)
    assert np.array_equal(pixels("kept.png"), pixels("me.png"))
    strengths = [json.loads(Path(name).read_text())[0]["strength"] for name in ("free.json", "kept.json")]
    assert strengths == [1.0, 0.0]


@pytest.mark.parametrize("floor", ["-0.1", "1.5", "nan", "much"])
def test_floors_that_make_no_sense(run, capsys, floor) -> None:
    assert run("edit", "me.png", f"--min-identity={floor}") == 2
    assert "from 0 to 1" in error_of(capsys)


def test_compositors_on_offer_are_those_there_are(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["edit", "--help"])
    assert f"{{{','.join(COMPOSITORS.names())}}}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["my holiday (1).png", "ünïcødé 写真.png", "-x.png", "a.b.c.png", ".hidden.png", "me.PNG"]
)
def test_file_names(run, here, name) -> None:
    os.rename("me.png", name)
    assert run("edit", f"./{name}", "--json", "report.json") == 0
    assert files() == {name, "report.json", f"{Path(name).stem}_happy.png"}
    (record,) = json.loads(Path("report.json").read_text("utf-8"))
    assert record["photo"] == f"./{name}" and record["output"] == f"{Path(name).stem}_happy.png"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_name_that_is_not_unicode(run, capsys) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    os.rename("me.png", name)
    assert run("edit", name, "--json", "report.json") == 0
    assert os.path.isfile(b"caf\xe9_happy.png")
    assert json.loads(Path("report.json").read_text("utf-8"))[0]["photo"] == "caf\\xe9.png"


def test_a_photo_may_be_replaced_by_its_result(run) -> None:
    before = pixels("me.png")
    assert run("edit", "me.png", "--output", "me.png") == 1
    assert np.array_equal(pixels("me.png"), before)
    assert run("edit", "me.png", "--output", "me.png", "--overwrite") == 0
    assert not np.array_equal(pixels("me.png"), before)


# --- faces ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(here, face) -> str:
    """Two faces side by side, the right one larger."""
    picture = Image.new("RGB", (2 * face.width, face.height), "grey")
    picture.paste(face.resize((200, 200)), (20, 20))
    picture.paste(face, (face.width, 0))
    picture.save("pair.png")
    return "pair.png"


def test_faces(run, pair, capsys) -> None:
    changed = {}
    for which, name in (("all", "pair_happy"), ("1", "pair_face1_happy"), ("0", "pair_face0_happy")):
        assert run("edit", pair, "--face", which, "--json", f"{which}.json") == 0
        difference = (pixels(f"{name}.png") != pixels(pair)).any((0, 2))
        half = len(difference) // 2
        changed[which] = bool(difference[:half].any()), bool(difference[half:].any())
    assert changed == {"all": (True, True), "1": (True, False), "0": (False, True)}
    first, second = json.loads(Path("all.json").read_text())[0]["face"]
    assert first["box"][0] > second["box"][0]
    assert json.loads(Path("1.json").read_text())[0]["face"] == [second]


def test_a_face_that_is_not_there(run, capsys) -> None:
    assert run("edit", "me.png", "--face", "3") == 1
    assert "emoedit: error: me.png: face 3 was asked for, but 1 found" in error_of(capsys)
    assert files() == {"me.png"}


@pytest.mark.parametrize("which", ["-1", "second", "1.5", ""])
def test_a_face_that_cannot_be(run, which, capsys) -> None:
    assert run("edit", "me.png", "--face", which) == 2
    assert "--face" in error_of(capsys)


def test_no_face(run, capsys) -> None:
    Image.new("RGB", (120, 120), "grey").save("wall.png")
    assert run("edit", "wall.png", "--emotion", "happy", "sad") == 1
    err = error_of(capsys)
    assert err.count("emoedit: error: wall.png: no face found") == 1
    assert files() == {"me.png", "wall.png"}


# --- the report -----------------------------------------------------------------------------------------------------


def test_report(run, editor) -> None:
    assert (
        run("edit", "me.png", "gone.png", "--emotion", "happy", "joy - sad", "--seed", "7", "--json", "r/report.json")
        == 1
    )
    report = json.loads(Path("r/report.json").read_text("utf-8"))
    assert [(r["photo"], r["emotion"]) for r in report] == [
        (photo, emotion) for photo in ("me.png", "gone.png") for emotion in ("happy", "joy - sad")
    ]
    keys = ["photo", "emotion", "strength", "editor", "model", "seed", "seconds", "face", "output", "error"]
    for record in report:
        assert list(record) == keys
        assert (record["strength"], record["editor"], record["model"], record["seed"]) == (1.0, "tiny", editor, 7)
    done, lost = report[1], report[2]
    assert done["output"] == "me_joy-sad.png" and done["error"] is None and done["seconds"] >= 0
    (found,) = done["face"]
    x0, y0, x1, y1 = found["box"]
    assert np.shape(found["landmarks"]) == (5, 2) and 0.9 < found["confidence"] <= 1
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in found["landmarks"])
    assert lost["output"] is None and lost["seconds"] is None and lost["face"] == []
    assert "no such file" in lost["error"]


def test_report_on_standard_output(run, capsys) -> None:
    assert run("edit", "me.png", "--json", "-") == 0
    out, err = capsys.readouterr()
    assert [record["output"] for record in json.loads(out)] == ["me_happy.png"]
    assert err == "wrote me_happy.png\n"


def test_a_report_in_the_way(run, capsys) -> None:
    Path("report.json").write_text("mine")
    assert run("edit", "me.png", "--json", "report.json") == 1
    assert files() == {"me.png", "report.json"} and Path("report.json").read_text() == "mine"
    assert "report.json exists already; --overwrite" in error_of(capsys)
    assert run("edit", "me.png", "--json", "report.json", "--overwrite") == 0
    assert len(json.loads(Path("report.json").read_text())) == 1


def test_a_report_that_cannot_be_written(run, capsys) -> None:
    assert run("edit", "me.png", "--json", "me.png/report.json") == 1
    assert "me.png" in error_of(capsys) and "me_happy.png" in files()


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(run, capsys, monkeypatch) -> None:
    Path("me_happy.png").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(Editor, "from_pretrained", lambda *a, **k: pytest.fail("a model was loaded for nothing"))
        assert run("edit", "me.png") == 1
    assert error_of(capsys) == "emoedit: error: me_happy.png exists already; --overwrite replaces it\n"
    assert run("edit", "me.png", "--emotion", "happy", "sad") == 1
    assert Path("me_happy.png").read_text() == "mine"
    assert "me_sad.png" in files()
    assert run("edit", "me.png", "--overwrite") == 0
    assert pixels("me_happy.png").shape == pixels("me.png").shape


def test_a_bad_photo_among_good_ones(run, face, capsys) -> None:
    face.save("you.png")
    Path("text.png").write_text("no picture")
    Path("folder").mkdir()
    assert run("edit", "me.png", "gone.png", "text.png", "folder", "you.png") == 1
    assert {"me_happy.png", "you_happy.png"} <= files()
    err = error_of(capsys)
    assert err.count("emoedit: error:") == 3
    assert (
        "gone.png: there is no such file" in err and "text.png is not a picture" in err and "folder is a folder" in err
    )


def test_a_missing_photo_loads_no_model(run, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Editor, "from_pretrained", lambda *a, **k: pytest.fail("a model was loaded for nothing"))
    assert run("edit", "gone.png") == 1
    assert "no such file" in error_of(capsys)


def test_an_edit_that_fails_takes_no_other_along(run, capsys) -> None:
    assert run("edit", "me.png", "--emotion", "1e39 happy", "happy", "2e39 sad", "sad", "--json", "report.json") == 1
    assert files() == {"me.png", "me_happy.png", "me_sad.png", "report.json"}
    assert "me.png (1e39 happy): strength times weight is too large" in error_of(capsys)
    report = json.loads(Path("report.json").read_text())
    assert [record["error"] is None for record in report] == [False, True, False, True]


def test_unknown_emotion(run, capsys, monkeypatch) -> None:
    monkeypatch.setattr(Editor, "from_pretrained", lambda *a, **k: pytest.fail("a model was loaded for nothing"))
    assert run("edit", "me.png", "--emotion", "sad", "hapy") == 2
    assert "unknown emotion 'hapy'; did you mean 'happy'" in error_of(capsys)
    assert run("edit", "me.png", "--emotion", "2*") == 2
    assert "cannot read the emotion" in error_of(capsys)
    assert files() == {"me.png"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--emotion", "happy", "me.png"],
        ["me.png", "--emotion", "happy", "me.png"],
        ["--emotion=happy"],
    ],
)
def test_photos_in_the_wrong_place(run, arguments, capsys) -> None:
    assert run("edit", *arguments) == 2
    assert "photos come before --emotion" in error_of(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["edit", "me.png", "--strength", "much"],
        ["edit", "me.png", "--strength", "nan"],
        ["edit", "me.png", "--strength"],
        ["edit", "me.png", "--seed", "-3"],
        ["edit", "me.png", "--device", "tpu"],
        ["edit", "me.png", "--output", "me.gif"],
        ["edit", "me.png", "--output", "folder_that_is_not_there"],
        ["edit", "me.png", "--json", "me.png", "--overwrite"],
        ["edit", "me.png", "--json", "me_happy.png"],
        ["edit", "me.png", "./me.png"],
        ["demo", "--output", "demo"],
    ],
)
def test_commands_that_make_no_sense(run, editor, arguments, capsys) -> None:
    status = run(*arguments) if arguments else subprocess_status([])
    assert status == 2
    assert files() == {"me.png"}
    capsys.readouterr()


def test_a_result_never_goes_over_another_photo(run, face, capsys) -> None:
    face.save("me_happy.png")
    assert run("edit", "me.png", "me_happy.png", "--overwrite") == 2
    assert "another of the photos" in error_of(capsys)


def test_two_results_of_one_name(run, face, capsys) -> None:
    Path("other").mkdir()
    face.save("other/me.png")
    face.save("other/me.webp")
    assert run("edit", "other/me.png", "other/me.webp", "--format", "png") == 2  # no folder tells them apart
    assert "would be both other/me.png (happy) and other/me.webp (happy)" in error_of(capsys)
    assert run("edit", "me.png", "other/me.png", "--output", "edits/") == 0
    assert {"here_me_happy.png", "other_me_happy.png"} == {path.name for path in Path("edits").iterdir()}


def test_a_folder_of_photos(run, face, capsys) -> None:
    Path("set/more").mkdir(parents=True)
    for name in ("a.jpg", "b.jfif", "more/c.bmp"):
        face.save(f"set/{name}")
    Path("set/notes.doc").write_text("no picture")
    assert run("edit", "set", "--output", "set/edits/") == 0
    assert "1 file is no picture by name and skipped: notes.doc" in error_of(capsys)
    assert run("edit", "set", "--output", "set/edits/", "--overwrite") == 0  # results are no photos
    assert files("set/edits") == {"a_happy.jpg", "b_happy.jpg", "more/c_happy.jpg"}


def test_edits_say_so_unless_asked_not_to(run) -> None:
    from emoedit.io.metadata import EDITED, read_source_type

    assert run("edit", "me.png", "--strength", "0", "1") == 0
    assert run("edit", "me.png", "--no-mark", "--output", "unmarked.png") == 0
    marks = {}
    for name in ("me_happy_0.png", "me_happy.png", "unmarked.png"):
        with Image.open(name) as image:
            marks[name] = read_source_type(image.info.get("xmp"))
    assert marks == {"me_happy_0.png": None, "me_happy.png": EDITED, "unmarked.png": None}


def test_large_pictures_and_frames_are_chosen_by_options(run, face, capsys) -> None:
    assert run("edit", "me.png", "--max-pixels", "1,000") == 1
    assert "256 x 256 = 65,536 pixels, and the limit is 1,000" in error_of(capsys)
    face.save("me.gif", save_all=True, append_images=[face.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    assert run("edit", "me.gif") == 1
    assert "holds 2 frames" in error_of(capsys)
    assert run("edit", "me.gif", "--frame", "1", "--output", "one.png") == 0


def test_unknown_editor(run, tmp_path, capsys) -> None:
    assert run("edit", "me.png", "--editor", "vea") == 2
    assert "did you mean 'vae'" in error_of(capsys)
    (tmp_path / "empty").mkdir()
    assert run("edit", "me.png", "--editor", tmp_path / "empty") == 1
    assert "is no editor and no model: found nothing; expected editor.json" in error_of(capsys)


def test_a_damaged_editor_fails_everything_once(run, editor, tmp_path, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(editor, copy)
    (copy / "backbone" / checkpoints.WEIGHTS).write_bytes(b"rubbish")
    assert run("edit", "me.png", "--emotion", "happy", "sad", "--editor", copy, "--json", "report.json") == 1
    err = error_of(capsys)
    assert err.count("emoedit: error:") == 1 and "is damaged" in err
    assert ["is damaged" in record["error"] for record in json.loads(Path("report.json").read_text())] == [True, True]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there(run, capsys) -> None:
    assert run("edit", "me.png", "--device", "cuda") == 1
    assert "no CUDA device" in error_of(capsys)


def test_output_that_cannot_be_written(run, capsys) -> None:
    assert run("edit", "me.png", "--emotion", "happy", "sad", "--output", "me.png/folder/") == 1
    err = error_of(capsys)
    assert err.count("emoedit: error:") == 2 and "Not a directory" in err
    assert files() == {"me.png"}


def test_full_disk(run, capsys, monkeypatch) -> None:
    def fsync(_descriptor: int, first: list[int] = []) -> None:  # noqa: B006 - it remembers the first call
        if not first:
            first.append(1)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    assert run("edit", "me.png", "--emotion", "happy", "sad") == 1
    assert files() == {"me.png", "me_sad.png"}
    assert "me_happy.png cannot be written: No space left on device" in error_of(capsys)


def test_interrupt_leaves_nothing_half_written(run, capsys, monkeypatch) -> None:
    def fsync(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    assert run("edit", "me.png", "--emotion", "happy", "sad") == 130
    assert files() == {"me.png"}
    assert error_of(capsys) == "emoedit: interrupted\n"


def test_a_bug_keeps_its_traceback(run, monkeypatch) -> None:
    def invert(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Editor, "invert", invert)
    with pytest.raises(RuntimeError, match="a bug"):
        run("edit", "me.png")


def test_warnings_read_like_messages(run, capsys, monkeypatch) -> None:
    invert = Editor.invert

    def warn(*arguments: object, **options: object) -> object:
        warnings.warn("look here", stacklevel=1)
        return invert(*arguments, **options)

    monkeypatch.setattr(Editor, "invert", warn)
    shown = warnings.showwarning
    assert run("edit", "me.png") == 0
    assert error_of(capsys) == "emoedit: warning: look here\nwrote me_happy.png\n"
    assert warnings.showwarning is shown


# --- compare, evaluate ----------------------------------------------------------------------------------------------

needs_networks = pytest.mark.skipif(
    not all(
        (checkpoints.embedded_root() / name).is_dir() for name in ("identity", "perceptual", "expression", "landmarks")
    ),
    reason="no embedded measuring networks in this checkout",
)
BACKENDS = ("--identity", "embedded", "--perceptual", "embedded", "--device", "cpu")
CONTESTS = [["compare", "me.png"], ["evaluate", "--data", "."]]


@pytest.fixture
def asked(monkeypatch) -> dict:
    """What the library is asked for by a command, which then stops."""
    given: dict = {}

    def instead(*arguments: object, **options: object) -> None:
        given.update(options, arguments=arguments)
        raise KeyboardInterrupt

    for name, module in {"compare": "emoedit.evaluation.compare", "evaluate": "emoedit.evaluation.evaluate"}.items():
        monkeypatch.setattr(importlib.import_module(module), name, instead)
    cases = importlib.import_module("emoedit.evaluation.cases")
    monkeypatch.setattr(cases, "read_cases", lambda folder, **how: [(folder, how)] * 5)
    monkeypatch.setattr(importlib.import_module("emoedit.metrics.suite"), "Suite", lambda **how: how)
    return given


@pytest.mark.parametrize("command", CONTESTS, ids=["compare", "evaluate"])
def test_lists_have_commas(run, editor, asked, command) -> None:
    words = ("--emotions", "happy, joy - 0.4*sad", "--strengths", " .5,1 ,-2", "--editors", f"{editor}, vae")
    assert run(*command, *words, "--output", "out", *BACKENDS, "--no-references", "--seed", 7) == 130
    everything = [(command[-1], {"split": None, "reader": None})] * 5
    assert asked["arguments"][0] == (everything if command[0] == "evaluate" else command[-1])
    assert asked["arguments"][1] == ["happy", "joy - 0.4*sad"]
    assert asked["strengths"] == [0.5, 1.0, -2.0] and asked["editors"] == [editor, "vae"]
    assert (asked["references"], asked["seed"], asked["device"]) == (False, 7, "cpu")
    how = {"identity": "embedded", "perceptual": "embedded", "expression": "embedded", "device": "cpu"}
    assert asked["suite"] == how
    assert files() == {"me.png"}


@pytest.mark.parametrize(
    ("command", "strengths"), [(CONTESTS[0], [0.5, 1]), (CONTESTS[1], [0.5, 1, 1.5])], ids=["compare", "evaluate"]
)
@pytest.mark.parametrize("editors", [(), ("--editors", "all")])
def test_all_editors_are_those_that_are_no_references(run, asked, command, strengths, editors) -> None:
    assert run(*command, "--output", "out", *editors) == 130
    assert asked["editors"] == list(list_editors()) and not set(asked["editors"]) & set(checkpoints.reference_names())
    assert asked["arguments"][1] == ["happy", "sad", "angry", "surprised"] and asked["strengths"] == strengths
    assert asked["references"] is True and asked["suite"]["identity"] == "auto"


def test_truths_are_pairs(run, editor, asked) -> None:
    words = ["compare", "me.png", "--editors", editor, "--output", "out", "--emotions", "happy,joy - 0.4*sad,sad"]
    pairs = ["--truth", "happy=a b.png", "joy - 0.4*sad=x=1.png", "--truth", "sad=c.png"]
    assert run(*words, *pairs) == 130
    assert asked["truth"] == {"happy": "a b.png", "joy - 0.4*sad": "x=1.png", "sad": "c.png"}
    assert run(*words) == 130 and asked["truth"] == {}


def test_evaluate_passes_on_split_and_limit(run, editor, asked) -> None:
    words = ("evaluate", "--data", "folder", "--editors", editor, "--output", "out", "--split", "test", "--limit", 3)
    assert run(*words) == 130
    assert asked["arguments"][0] == [("folder", {"split": "test", "reader": None})] * 3 and asked["output"] == "out"


@pytest.mark.parametrize("command", ["compare", "evaluate"])
def test_help_of_contests(run, command, capsys) -> None:
    assert run(command, "--help") == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in ("happy,sad,angry,surprised", "or all, the default", "VGGFace2", "LPIPS", "--no-references"):
        assert words in out
    if command == "compare":
        assert "EMOTION=PHOTO" in out and "default: 0.5,1 " in out and "--overwrite" in out
    else:
        assert (
            "neutral/ and smiling/" in out and "default: 0.5,1,1.5 " in out and "goes on when the same command" in out
        )


NONSENSE = [
    *(
        [*command, "--output", "out", *words]
        for command in CONTESTS
        for words in (
            ["--emotions", "happy,,sad"],
            ["--emotions", ""],
            ["--emotions", "hapy"],
            ["--emotions", "happy,2*"],
            ["--strengths", "1,x"],
            ["--strengths", "1,"],
            ["--strengths", "nan"],
            ["--strengths", "1,1000"],
            ["--editors", "vea"],
            ["--editors", "vae,"],
            ["--editors", "mean_warp", "--emotions", "sad"],
            ["--seed", "-1"],
            ["--identity", "arcface"],
            ["--perceptual", "lpips"],
            ["--device", "tpu"],
        )
    ),
    ["compare", "--output", "out"],
    ["compare", "me.png"],
    ["compare", "me.png", "you.png", "--output", "out"],
    *(
        ["compare", "me.png", "--output", "out", "--emotions", "happy", *words]
        for words in (
            ["--truth", "happy"],
            ["--truth", "sad=you.png"],
            ["--truth", "=you.png"],
            ["--truth", "happy=you.png", "you.png"],
            ["--face", "all"],
            ["--face", "-1"],
            ["--face", "second"],
        )
    ),
    ["evaluate", "--output", "out"],
    ["evaluate", "--data", "."],
    *(["evaluate", "--data", ".", "--output", "out", "--limit", limit] for limit in ("0", "-1", "1.5", "few")),
]


@pytest.mark.skipif("mean_warp" not in checkpoints.embedded_names(), reason="no embedded references in this checkout")
def test_contests_that_make_no_sense_are_refused_before_torch_is_imported(here) -> None:
    """One process for all of them; a file that is in the way is not nonsense, but as cheap to find."""
    (here / "there").mkdir()
    (here / "there" / "grid.png").write_text("mine")
    code = (
        "import json, sys; from emoedit.cli import main\n"
        "for words in json.load(sys.stdin):\n"
        "    try: status = main(words)\n"
        "    except SystemExit as stop: status = stop.code\n"
        "    heavy = {'torch', 'cv2', 'skimage', 'facenet_pytorch', 'torchmetrics'} & sys.modules.keys()\n"
        "    print(json.dumps([words, status, sorted(heavy)]))\n"
    )
    words = [*NONSENSE, ["compare", "me.png", "--output", "there"]]
    child = process(["-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.communicate(json.dumps(words))
    assert child.returncode == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert found == [[one, 2, []] for one in NONSENSE] + [[words[-1], 1, []]]
    assert "Traceback" not in err and err.rstrip().endswith(
        "emoedit: error: there/grid.png exists already; --overwrite replaces it"
    )
    assert files() == {"me.png", "there/grid.png"}


def test_files_of_a_comparison_are_those_it_writes() -> None:
    module = importlib.import_module("emoedit.evaluation.compare")
    assert COMPARISON == (module.RESULTS, module.GRID, module.REPORT)


@needs_networks
def test_compare(run, editor, face, capsys, monkeypatch) -> None:
    face.resize((240, 240)).save("you.png")
    words = ("compare", "me.png", "--emotions", "happy", "--strengths", "1", "--editors", editor, "--output", "new/out")
    words += BACKENDS
    assert run(*words, "--truth", "happy=you.png") == 0
    assert error_of(capsys) == f"wrote {Path('new/out/report.html')}\n"
    assert files("new/out") == set(COMPARISON)
    rows = [json.loads(line) for line in Path("new/out/results.jsonl").read_text("utf-8").splitlines()]
    names = ["tiny", *checkpoints.reference_names(), "nothing", "photograph"]
    assert [(row["photo"], row["editor"]) for row in rows] == [("me", name) for name in names]
    before = Path("new/out/report.html").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Editor, "from_pretrained", lambda *a, **k: pytest.fail("a model was loaded for nothing"))
        assert run(*words) == 1
    assert "results.jsonl exists already; --overwrite replaces it" in error_of(capsys)
    assert Path("new/out/report.html").read_bytes() == before
    assert run(*words, "--overwrite", "--no-references") == 0
    assert len(Path("new/out/results.jsonl").read_text("utf-8").splitlines()) == 1


@needs_networks
def test_compare_tells_what_failed(run, editor, capsys) -> None:
    words = ("--editors", editor, "--no-references", "--strengths", "1", *BACKENDS)
    assert run("compare", "me.png", "--emotions", "1e39 happy,sad", "--output", "out", *words) == 1
    err = error_of(capsys)
    assert err.startswith("emoedit: error: tiny 1e39 happy 1: strength times weight is too large")
    assert err.endswith("report.html\n") and err.count("\n") == 2
    rows = [json.loads(line) for line in Path("out/results.jsonl").read_text("utf-8").splitlines()]
    assert [row["error"] is None for row in rows] == [False, True]
    for arguments, message in (
        (("gone.png",), "no such file"),
        (("me.png", "--face", "3"), "face 3 was asked for, but 1 found"),
        (("me.png", "--truth", "happy=gone.png"), "no such file"),
        (("me.png", "--identity", "vggface2"), "vggface2"),
    ):
        assert run("compare", *arguments[:1], "--emotions", "happy", "--output", "no", *words, *arguments[1:]) == 1
        assert message in error_of(capsys)
    assert not Path("no").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@needs_networks
def test_evaluate(run, editor, face, capsys, monkeypatch) -> None:
    """A folder with a picture in it; said again, nothing is done again; what cannot be."""
    Path("data").mkdir()
    face.save("data/a.png")
    words = ("--emotions", "happy", "--strengths", "1", "--editors", editor, *BACKENDS)
    assert run("evaluate", "--data", "data", "--output", "out", *words, "--no-references") == 0
    assert error_of(capsys) == f"wrote {Path('out/report.html')}\n"
    assert files("out") == {"results.jsonl", "settings.json", "summary.csv", "pareto.svg", "report.html", "lock"}
    before = Path("out/results.jsonl").read_bytes()
    assert run("evaluate", "--data", "data", "--output", "out", *words, "--no-references") == 0
    assert Path("out/results.jsonl").read_bytes() == before and before.count(b"\n") == 1
    capsys.readouterr()
    with monkeypatch.context() as patch:  # a terminal sees the progress, a file or pipe only what is said
        patch.setattr(sys, "stderr", Terminal())
        assert run("evaluate", "--data", "data", "--output", "out", *words, "--no-references") == 0
        shown = sys.stderr.getvalue()
    assert "100%" in shown and "1/1" in shown and "wrote" in shown
    assert capsys.readouterr() == ("", "")
    for arguments, message in (
        (("--data", "data", "--output", "out", "--seed", "1"), "made with another seed; choose another folder"),
        (("--data", "gone", "--output", "no"), "gone: no such folder"),
        (("--data", "data", "--output", "no", "--split", "test"), "no csv that says which pictures"),
        (("--data", "data", "--output", "data/a.png"), "data/a.png"),
    ):
        assert run("evaluate", *arguments, *words) == 1
        assert message in error_of(capsys)
    assert not Path("no").exists()


# --- editors --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(editor, tmp_path, monkeypatch) -> Path:
    """The embedded models of another installation: two editors and a reference."""
    shelf = tmp_path / "shelf"
    for name, info in (("vae", {"role": "small and fast"}), ("other", {}), ("base", {"reference": True})):
        shutil.copytree(editor, shelf / name)
        description = json.loads((shelf / name / checkpoints.EDITOR).read_text())
        (shelf / name / checkpoints.EDITOR).write_text(json.dumps({**description, **info}))
    for name in ("landmarks", "mouth"):  # every small editor needs them for mouths
        shutil.copytree(checkpoints.embedded_root() / name, shelf / name)
    monkeypatch.setattr(checkpoints, "embedded_root", lambda: shelf)
    return shelf


@pytest.mark.parametrize("command", ["edit", "demo", "compare", "evaluate"])
def test_help_ends_with_the_embedded_editors(run, shelf, command, capsys) -> None:
    assert run(command, "--help") == 0
    out = capsys.readouterr().out
    assert "\nembedded editors:\n  other  emotion editor\n  vae    small and fast\n\nregistered editors:\n" in out
    (shelf / "other" / checkpoints.EDITOR).write_text("{")
    assert run(command, "--help") == 1
    assert "other/editor.json cannot be read as json" in error_of(capsys)


def test_a_damaged_embedded_editor_harms_nobody_who_does_not_use_it(run, editor, shelf, capsys) -> None:
    for name in ("other", "base"):
        (shelf / name / checkpoints.EDITOR).write_text("{")
    assert run("edit", "me.png", "--editor", editor) == 0
    assert run("edit", "me.png", "--editor", "vae", "--emotion", "sad") == 0
    assert run("emotions") == 0
    capsys.readouterr()
    assert run("edit", "me.png", "--editor", "other", "--emotion", "angry") == 1
    assert "other/editor.json cannot be read as json" in error_of(capsys)


def test_without_embedded_editors_help_says_so(run, shelf, capsys) -> None:
    shutil.rmtree(shelf)
    assert run("edit", "--help") == 0
    assert "\nembedded editors:\n  none\n" in capsys.readouterr().out
    assert run("edit", "me.png", "--editor", "vae") == 2
    assert "unknown model 'vae'; known: sd15" in error_of(capsys)


def test_an_editor_that_diffuses(run, tmp_path, capsys) -> None:
    """In colour, with noise that the seed decides."""
    folder = TINY["tiny-asyrp-noise"]().save_pretrained(tmp_path / "asyrp")
    words = ("edit", "me.png", "--editor", folder, "--json", "-")
    seen = []
    for n, seed in enumerate((5, 5, 6)):
        assert run(*words, "--seed", seed, "--output", f"{n}.png", "--compositor", "replace") == 0
        (record,) = json.loads(capsys.readouterr().out)
        assert (record["editor"], record["seed"]) == ("tiny-asyrp", seed)
        seen.append(pixels(f"{n}.png").tobytes())
    assert seen[0] == seen[1] != seen[2]
    assert run(*words, "--strength", "0", "--output", "same.png") == 0
    assert np.array_equal(pixels("same.png"), pixels("me.png"))
    assert run(*words, "--emotion", "neutral") == 2


# --- demo, models, emotions -----------------------------------------------------------------------------------------


def test_demo(run, capsys) -> None:
    assert run("demo") == 0
    assert error_of(capsys) == "wrote demo.png\n"
    sheet = Image.open("demo.png")
    assert sheet.width > 4 * 320 and sheet.height > 2 * 320  # the source and seven emotions, four in a row
    assert run("demo") == 1
    assert "demo.png exists already; --overwrite" in error_of(capsys)


def test_demo_of_another_photo_at_several_strengths(run) -> None:
    assert run("demo", "--photo", "me.png", "--strength", "0", "0.5", "--output", "grid.jpg") == 0
    sheet = pixels("grid.jpg").astype(int)
    assert sheet.shape[1] > 8 * 320 and 2 * 320 < sheet.shape[0] < 3 * 320  # a row a strength, each after the source
    first, second = sheet[8:328, 8:328], sheet[8:328, 336:656]
    assert np.abs(first - second).mean() < 2  # strength 0


def test_demo_of_a_photo_that_is_not_there(run, capsys) -> None:
    assert run("demo", "--photo", "gone.png") == 1
    assert "no such file" in error_of(capsys) and files() == {"me.png"}


def test_models(run, capsys) -> None:
    assert run("models") == 0
    out, err = capsys.readouterr()
    header, *rows = out.splitlines()
    assert header.split() == ["name", "role", "size", "GPU", "needs", "licence", "here", "source"]
    assert len(rows) == len(list_models()) and err == ""
    assert any(row.startswith("mtcnn ") and "1.99 MB" in row and "yes" in row for row in rows)
    assert run("models", "--json") == 0
    models = json.loads(capsys.readouterr().out)
    roles = {model["name"]: model["role"] for model in models}
    assert all("reference" in roles[name] for name in checkpoints.reference_names())
    assert not any("reference" in roles[name] for name in list_editors())
    assert [model["name"] for model in models] == [model.name for model in list_models()]
    assert set(models[0]) == {"name", "role", "size", "licence", "source", "here", "memory", "needs"}


def test_emotions(run, capsys) -> None:
    assert run("emotions") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 1 + len(list_emotions()) and err == ""
    assert any(line.startswith("shame ") and "0.6 sad + 0.3 fearful" in line and "ashamed" in line for line in lines)
    assert any(line.startswith("serene ") and "0.3 happy - 0.2 surprised" in line for line in lines)


# --- as a process ---------------------------------------------------------------------------------------------------


def process(arguments, **options) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *arguments], env=environment, text=True, **options)


def subprocess_status(arguments) -> int:
    return process(["-m", "emoedit", *arguments], stderr=subprocess.DEVNULL).wait()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["edit", "--help"],
        ["compare", "--help"],
        ["evaluate", "--help"],
        ["edit"],
        ["emotions"],
        ["models"],
    ],
)
def test_light_commands_load_no_heavy_package(arguments) -> None:
    code = (
        "import sys; from emoedit.cli import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'cv2', 'skimage', 'facenet_pytorch'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    child = process(["-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, err = child.communicate()
    assert child.returncode == 0, err


def test_the_module_runs(here, editor) -> None:
    child = process(["-m", "emoedit", "--version"], stdout=subprocess.PIPE)
    assert (child.communicate()[0], child.returncode) == (f"emoedit {__version__}\n", 0)
    arguments = ["-m", "emoedit", "edit", "me.png", "--editor", editor, "--device", "cpu"]
    child = process(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (*child.communicate(), child.returncode) == ("", "wrote me_happy.png\n", 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_standard_output_that_is_full() -> None:
    with open("/dev/full", "w") as full:
        child = process(["-m", "emoedit", "emotions"], stdout=full, stderr=subprocess.PIPE)
        _, err = child.communicate()
    assert child.returncode == 1
    assert err == "emoedit: error: standard output cannot be written: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
def test_a_reader_that_leaves() -> None:
    read, write = os.pipe()
    os.close(read)
    child = process(["-m", "emoedit", "emotions"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (child.communicate()[1], child.returncode) == ("", 1)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c(here, editor) -> None:
    words = ["-m", "emoedit", "edit", "me.png", "--editor", editor, "--strength", *(str(n / 50) for n in range(2000))]

    def restore() -> None:
        """A process started in the background of a script ignores SIGINT, and would hand that on."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    child = process(words, stderr=subprocess.PIPE, preexec_fn=restore)
    end = time.monotonic() + 60
    while len(files()) < 3 and time.monotonic() < end and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    err = child.communicate()[1]
    assert child.returncode == 130 and err.endswith("emoedit: interrupted\n") and "Traceback" not in err
    assert all(name.startswith("me") for name in files())
    for name in files():
        pixels(name)

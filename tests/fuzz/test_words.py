"""What is typed: command lines, emotions, configurations."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emoedit import emotions
from emoedit.cli import main, make_parser
from emoedit.io import checkpoints
from emoedit.io.output import distinct_stems, output_path
from emoedit.types import CheckpointError, Edit, EditError, EmoEditError, OutputError

WORDS = st.one_of(
    st.sampled_from(
        "edit walk compare demo emotions models --emotion --strength --face --output --json --seed --editor --mode - "
        "-- happy sad -sad 0.5 1e999 nan -1 all largest /nowhere/x.jpg '' --overwrite --help --max-pixels --frame "
        "1,000 --no-mark --device cpu vae nobody/nothing".split()
    ),
    st.text(max_size=8),
)


@given(arguments=st.lists(WORDS, max_size=7))
@example(arguments=["edit", "/nowhere/x.jpg", "--max-pixels", "²"])
@example(arguments=["edit", "/nowhere/x.jpg", "--face", "²"])
def test_command_lines_parse_or_say_why(arguments, counted):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            make_parser().parse_args(arguments)
    except SystemExit as error:
        assert error.code in (0, 2) and said.getvalue()
        counted("refused" if error.code else "helped")
    except EmoEditError:
        counted("refused")
    else:
        counted("parsed")


@pytest.mark.filterwarnings("ignore")
@given(
    photos=st.lists(st.sampled_from(["/nowhere/a.jpg", "/nowhere/\udce4.jpg", "", "\0", "~", "."]), max_size=3),
    emotion=st.one_of(st.text(max_size=12), st.sampled_from(["happy", "happy - 0.4*sad", "1e39 happy"])),
    strength=st.floats(),
    output=st.one_of(st.none(), st.text(max_size=6)),
)
@example(photos=["\0"], emotion="happy", strength=0.0, output=None)
@example(photos=["/nowhere/a.jpg"], emotion="happy", strength=0.0, output="\0/")
def test_commands_about_photos_that_are_not_there(photos, emotion, strength, output, counted, tmp_path_factory):
    empty = tmp_path_factory.getbasetemp() / "empty"
    empty.mkdir(exist_ok=True)
    options = [f"--emotion={emotion}", f"--strength={strength}", *([] if output is None else [f"--output={output}"])]
    said = io.StringIO()
    with contextlib.chdir(empty), contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            status = main(["edit", *[photo for photo in photos if photo[:1] != "-"], *options])
        except SystemExit as error:
            status = error.code
    assert status in (1, 2) and "error" in said.getvalue()
    assert not list(empty.iterdir())
    counted("refused")


@given(text=st.one_of(st.text(max_size=40), st.text("happysd 0123456789.*+-()eE", max_size=40)))
def test_emotions_parse_or_say_why(text, counted):
    try:
        Edit(text, 1.0)
        emotions.resolve(text, ["happy", "sad", "angry", "surprised", "neutral", "fearful", "disgusted"])
    except EmoEditError as error:
        assert str(error) and len(str(error)) < 2000
        counted("refused")
    else:
        counted("parsed")


@given(strength=st.one_of(st.floats(), st.integers()))
def test_strengths(strength, counted):
    try:
        Edit("happy", strength)
    except EditError:
        counted("refused")
    else:
        assert abs(strength) <= 100
        counted("parsed")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(list(checkpoints.LARGEST)), st.text(max_size=6)), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(value=JSON)
@example(value={"widths": []})
def test_descriptions(value, counted, tmp_path_factory):
    from emoedit.models.vae.backbone import VAEBackbone

    folder = tmp_path_factory.getbasetemp() / "described"
    folder.mkdir(exist_ok=True)
    (folder / checkpoints.CONFIG).write_text(json.dumps(value), "utf-8")
    with pytest.raises(CheckpointError):  # there are no weights beside it
        VAEBackbone.from_pretrained(folder)
    counted("refused")


@given(
    name=st.text(max_size=20),
    emotion=st.text(max_size=20),
    strength=st.floats(allow_nan=False, allow_infinity=False),
    many=st.booleans(),
)
def test_names_of_results_stay_in_their_folder(name, emotion, strength, many, counted):
    from pathlib import Path

    stem = Path(name).stem or "photo"
    try:
        path = output_path(stem, emotion, strength=strength, output="edits/", many=many)
    except OutputError:
        counted("refused")
        return
    assert path.parent == Path("edits") and path.suffix == ".png"
    counted("named")


@given(
    paths=st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda parts: "/".join(parts) + ".jpg"))
)
def test_photos_of_different_folders_have_different_names(paths, counted):
    names = distinct_stems(paths)
    assert len(names) == len(paths)
    assert len(set(zip(names, paths, strict=True))) == len(set(paths))
    assert len({name.casefold() for name in names}) == len(set(paths))
    counted("named")

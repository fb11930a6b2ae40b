"""Walks from one strength to another: one inversion, animations that play, a strip, the command line."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from emoedit.cli import main
from emoedit.editors import Editor
from emoedit.photo import PhotoEditor
from emoedit.report.walk import Walk, encode_gif, even_strengths, walk
from emoedit.types import Edit, EditError, MissingExtraError, OutputError, UnknownNameError
from tests.fixtures.editors import from_neutral, tiny_vae


@pytest.fixture(scope="module")
def photos() -> PhotoEditor:
    return PhotoEditor(from_neutral(tiny_vae()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos) -> str:
    return str(photos.editor.save_pretrained(tmp_path_factory.mktemp("editors") / "tiny"))


def shades(count: int = 5, size: tuple[int, int] = (33, 24)) -> tuple[Image.Image, ...]:
    """A still, coloured background with a square in it that grows brighter."""
    noise = np.random.default_rng(0).integers(60, 200, (size[1], size[0], 3), np.uint8)
    frames = []
    for k in range(count):
        frame = noise.copy()
        frame[8:16, 8:16] = min(40 * k + 20, 255)
        frames.append(Image.fromarray(frame))
    return tuple(frames)


def grey_walk(count: int = 5) -> Walk:
    return Walk(shades(count), tuple(Edit("happy", k / 2) for k in range(count)))


def pages(image: Image.Image) -> list[np.ndarray]:
    found = []
    for k in range(image.n_frames):
        image.seek(k)
        found.append(np.asarray(image.convert("RGB")).astype(int))
    return found


def test_strengths_are_even_and_meet_zero():
    assert even_strengths(-1, 1.5, 16)[6] == 0 and str(even_strengths(-1, 1.5, 16)[6]) == "0.0"
    assert even_strengths(0, 1, 3) == [0, 0.5, 1]
    for wrong in [(0, 1, 1), (0, 1, 1001), (1, 1, 4)]:
        with pytest.raises(EditError, match="a walk"):
            even_strengths(*wrong)


def test_a_walk_inverts_once_and_passes_through_the_photo(photos, astronaut, monkeypatch):
    calls, told = [], []
    invert = Editor.invert
    monkeypatch.setattr(Editor, "invert", lambda *a, **k: calls.append(1) or invert(*a, **k))
    found = walk(photos, astronaut, "happy", even_strengths(-1, 1, 3), callback=lambda *done: told.append(done))
    assert len(calls) == 2 and told == [(1, 3), (2, 3), (3, 3)]  # her smile, and her mouth closed where it ends
    assert found.edits == (Edit("happy", -1), Edit("happy", 0), Edit("happy", 1))
    assert np.array_equal(np.asarray(found.frames[1]), astronaut)
    (single,) = photos.edit(photos.open(astronaut), [Edit("happy", 1)])
    assert np.array_equal(np.asarray(found.frames[2]), np.asarray(single.image))
    small = walk(photos, photos.open(astronaut), "happy", [0.0], longest=64)
    assert small.frames[0].size == (64, 64)
    with pytest.raises(EditError, match="at least one"):
        walk(photos, astronaut, "happy", [])
    with pytest.raises(UnknownNameError):
        walk(photos, astronaut, "hapy", [1.0])


def test_frames_are_plain_srgb(photos, astronaut, tmp_path):
    alpha = np.full(astronaut.shape[:2], 255, np.uint8)
    alpha[:10] = 0
    Image.fromarray(np.dstack([astronaut, alpha])).save(tmp_path / "a.png")
    frame = walk(photos, tmp_path / "a.png", "happy", [0.0]).frames[0]
    assert frame.mode == "RGB" and (np.asarray(frame)[:10] == 255).all()
    assert np.array_equal(np.asarray(frame)[10:], astronaut[10:])

    # A profile with swapped primaries: what it calls red is blue.
    swapped = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for name, other in ((b"rXYZ", b"bXYZ"),):
        first, second = swapped.index(name), swapped.index(other)
        swapped[first : first + 4], swapped[second : second + 4] = other, name
    Image.fromarray(astronaut).save(tmp_path / "b.png", icc_profile=bytes(swapped))
    frame = np.asarray(walk(photos, tmp_path / "b.png", "happy", [0.0]).frames[0]).astype(int)
    assert np.abs(frame - astronaut[..., ::-1]).mean() < 3 < np.abs(frame - astronaut).mean()


def test_a_gif_plays_there_and_back_and_only_the_change_moves(tmp_path):
    path = grey_walk().save(tmp_path / "a.gif", seconds=2)
    image = Image.open(path)
    assert image.format == "GIF" and image.n_frames == 8 and image.size == (33, 24) and image.info["loop"] == 0
    assert image.info["duration"] == 500
    found = pages(image)
    still = np.ones((24, 33), bool)
    still[8:16, 8:16] = False
    for k, frame in enumerate(found):
        assert np.array_equal(frame[still], found[0][still])
        shade = 40 * (k if k < 5 else 8 - k) + 20
        assert abs(frame[8:16, 8:16].mean() - shade) < 12
    assert np.abs(found[0] - np.asarray(shades()[0]).astype(int)).mean() < 12
    one_way = Image.open(grey_walk().save(tmp_path / "b.gif", back=False, seconds=0.01))
    assert one_way.n_frames == 5 and one_way.info["duration"] == 20


def test_a_gif_of_one_frame_is_a_picture():
    assert Image.open(io.BytesIO(encode_gif(shades(1), 1.0))).size == (33, 24)


def test_an_mp4_plays(tmp_path):
    av = pytest.importorskip("av")
    path = grey_walk().save(tmp_path / "a.mp4", seconds=1)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.codec_context.name) == (34, 24, "h264")
        assert float(stream.average_rate) == pytest.approx(4)
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(found) == 8
    assert [round(float(f[10:14, 10:14].mean())) for f in found] == pytest.approx(
        [20, 60, 100, 140, 180, 140, 100, 60], abs=12
    )


def test_an_mp4_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"\[video\]"):
        grey_walk().save(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_a_strip_shows_every_frame_and_its_strength(tmp_path):
    path = grey_walk(9).save(tmp_path / "a.png")
    strip = np.asarray(Image.open(path).convert("L")).astype(int)
    assert strip.shape[1] > 8 * 33 and strip.shape[0] > 2 * 24  # eight in a row
    assert (strip < 128).any() and (strip == 255).any()


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"\.gif or \.mp4"):
        grey_walk().save(tmp_path / "a.avi")
    with pytest.raises(EditError, match="0 seconds"):
        grey_walk().save(tmp_path / "a.gif", seconds=0)
    (tmp_path / "a.gif").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        grey_walk().save(tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == b"mine"
    grey_walk().save(tmp_path / "a.gif", overwrite=True)
    assert Image.open(tmp_path / "a.gif").n_frames == 8
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


# The command


@pytest.fixture
def here(tmp_path, monkeypatch, astronaut):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(astronaut).save("me.png")
    return tmp_path


def test_the_command_writes_an_animation_and_a_strip(here, folder, capsys, monkeypatch):
    calls = []
    invert = Editor.invert
    monkeypatch.setattr(Editor, "invert", lambda *a, **k: calls.append(1) or invert(*a, **k))
    arguments = ["--emotion", "happy", "--from", "-1", "--to", "1.5", "--frames", "6", "--size", "96"]
    assert main(["walk", "me.png", *arguments, "-o", "walk.gif", "walk.png", "--editor", folder]) == 0
    assert len(calls) == 2  # her smile, and her mouth closed where it ends
    out, err = capsys.readouterr()
    assert out == "" and "wrote walk.gif" in err and "wrote walk.png" in err
    image = Image.open("walk.gif")
    assert image.size == (96, 96) and image.n_frames > 5
    assert main(["walk", "me.png", "--frames", "2", "--one-way", "--editor", folder]) == 0
    assert Image.open("me_happy.gif").size == (512, 512)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--emotion", "hapy"], 2, "happy"),
        (["--frames", "1"], 2, "2 to 1000 frames"),
        (["--from", "1", "--to", "1"], 2, "from one strength to another"),
        (["--to", "nan"], 2, "strength must be"),
        (["--seconds", "0"], 2, "--seconds"),
        (["--size", "-3"], 2, "--size"),
        (["-o", "a.avi"], 2, "ends in"),
        (["-o", "me.png", "--overwrite"], 2, "is the photo"),
        (["-o", "a.gif", "./a.gif"], 2, "twice"),
        (["-o", "taken.gif"], 1, "exists already"),
        (["--face", "7"], 1, "face"),
    ],
)
def test_walks_that_make_no_sense_are_refused(here, folder, capsys, arguments, status, message):
    (here / "taken.gif").write_bytes(b"mine")
    before = sorted(here.iterdir())
    assert main(["walk", "me.png", *arguments, "--editor", folder]) == status
    out, err = capsys.readouterr()
    assert out == "" and message in err and "Traceback" not in err
    assert sorted(here.iterdir()) == before and (here / "taken.gif").read_bytes() == b"mine"


def test_what_makes_no_sense_is_refused_before_torch_is_imported(here, folder):
    script = (
        "import sys\nfrom emoedit.cli import main\n"
        f"status = main(['walk', 'me.png', '-o', 'a.avi', '--editor', {folder!r}])\n"
        "heavy = {'torch', 'cv2', 'skimage', 'facenet_pytorch'} & sys.modules.keys()\n"
        "sys.exit(f'{status} {heavy}' if status != 2 or heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

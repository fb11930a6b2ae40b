"""From a video to pictures: a camera is a file here, written from a portrait and frames without a face."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from emoedit.cli import main
from emoedit.evaluation.best import Floors
from emoedit.evaluation.mirror import OPPOSITES, VideoError, frames, mirror, read_expressions
from emoedit.metrics.suite import Suite
from emoedit.types import NoFaceError


def write(path: Path, pictures: list[np.ndarray]) -> Path:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory, _astronaut) -> Path:
    """A wall, a portrait that sways, a wall, and the portrait again."""
    face, wall = _astronaut[:320, 64:384], np.full((320, 320, 3), 90, np.uint8)
    sways = [np.roll(face, shift, 1) for shift in (0, 2, 4)]
    return write(tmp_path_factory.mktemp("films") / "film.avi", [wall, *sways, wall, face])


def test_frames_are_read_in_order(film):
    found = list(frames(film))
    assert len(found) == 6 and len(list(frames(film, limit=2))) == 2
    assert found[0].shape == (320, 320, 3) and found[0].std() < 3 and found[1].std() > 20


def test_a_frame_without_a_face_keeps_the_last_reading(film):
    readings = list(read_expressions(frames(film)))
    assert [r.face is None for r in readings] == [True, False, False, False, True, False]
    assert readings[0].emotion is None
    assert readings[1].emotion == readings[4].emotion == "happy"
    assert readings[4].scores == readings[3].scores
    for before, after in zip(readings[1:], readings[2:], strict=False):
        assert max(abs(after.scores[name] - before.scores[name]) for name in after.scores) <= 0.3  # smoothed


def test_the_expression_is_answered(film):
    told = []
    how = {"candidates": 2, "editors": ["facs"], "suite": Suite(), "floors": Floors(identity=0.0, target_score=0.0)}
    found = mirror(film, opposite=True, callback=told.append, **how)
    assert (found.frames, found.faceless, len(told)) == (6, 2, 6)
    assert (found.shown, found.answered) == ("happy", OPPOSITES["happy"])
    assert len(found.best.candidates) == 2 and all(c.emotion == "sad" for c in found.best.candidates)
    assert found.best.candidates[0].image.size == (320, 320)


def test_other_people_are_followed(tmp_path):
    """A neutral and a smiling person of the London set (DeBruine & Jones 2017, CC BY 4.0) before the camera."""
    folder = Path(__file__).parents[1] / "golden" / "sources"
    people = [
        cv2.resize(cv2.imread(str(folder / f"{name}.jpg")), (256, 256)) for name in ("001-neutral", "010-smiling")
    ]
    film = write(tmp_path / "people.avi", [person[..., ::-1] for person in people for _ in range(4)])
    readings = list(read_expressions(frames(film)))
    assert all(reading.face is not None for reading in readings)
    assert readings[3].emotion == "neutral" and readings[-1].emotion == "happy"


def test_cameras_and_videos_that_give_nothing_are_refused(tmp_path, film):
    with pytest.raises(VideoError, match="not there"):
        next(frames(tmp_path / "none.avi"))
    with pytest.raises(VideoError, match="camera 97"):
        next(frames(97))
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.avi"):
        next(frames(tmp_path / "text.avi"))
    wall = write(tmp_path / "wall.avi", [np.full((96, 96, 3), 90, np.uint8)] * 3)
    with pytest.raises(NoFaceError, match="none of 3 frames"):
        mirror(wall)


def test_a_camera_that_stops_leaves_what_was_seen(tmp_path, film):
    """A file that was cut off stands for it: the frames before the cut count."""
    data = film.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) * 2 // 3])
    assert 1 <= len(list(frames(cut))) < 6


def test_the_command(film, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = main(["mirror", "--video", str(film), "--emotion", "surprised", "--candidates", "1", "--editors", "facs"])
    said = capsys.readouterr().err
    assert "frame 0: no face" in said and "frame 1: happy" in said and "6 frames, 2 without a face" in said
    assert code == int("none of 1" in said)
    assert (tmp_path / "mirror" / "frame.png").is_file() and (tmp_path / "mirror" / "sheet.png").is_file()
    assert main(["mirror", "--video", str(film)]) == 2  # the folder exists
    assert main(["mirror", "--video", "none.avi", "--output", "other"]) == 1
    assert main(["mirror", "--frames", "0", "--output", "other"]) == 2

"""New pictures for an emotion: how they are drawn, ranked, kept and written, and the command that draws them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from emoedit.cli import main
from emoedit.evaluation.generated import generate_best
from emoedit.models.text_to_image import emotion_prompt
from emoedit.types import EditError, UnknownNameError
from tests.fixtures.stable_diffusion import DRAWS_SMALL, write_model


class Grey:
    """Draws the seed's level of grey."""

    name = "grey"

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def draw(self, prompt, *, seed, steps):
        self.asked.append((prompt, seed, steps))
        return Image.new("RGB", (8, 8), (10 * seed,) * 3)


class Light:
    """Takes light pictures for happy ones."""

    def text_embeddings(self, texts):
        return torch.stack([torch.tensor([1.0, 0]) if "happy" in text else torch.tensor([0, 1.0]) for text in texts])

    def image_embeddings(self, x):
        level = (float(x.mean()) + 1) / 2
        return torch.tensor([[level, 1 - level]])


def test_the_pictures_that_look_most_like_the_emotion_are_kept(tmp_path):
    model = Grey()
    found = generate_best(model, "happy", style="a watercolour", candidates=4, keep=2, seed=3, clip=Light(), steps=5)
    assert model.asked == [(emotion_prompt("happy", "a watercolour"), 3 + n, 5) for n in range(4)]
    assert [c.seed for c in found.candidates] == [6, 5, 4, 3] and [c.seed for c in found.kept] == [6, 5]
    scores = [c.score for c in found.candidates]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]
    files = [path.name for path in found.save(tmp_path / "out")]
    assert files == ["1_grey_6.png", "2_grey_5.png", "sheet.png", "candidates.json"]
    told = json.loads((tmp_path / "out" / "candidates.json").read_text())
    assert told["prompt"] == "a watercolour, happy mood" and len(told["candidates"]) == 4
    assert np.asarray(Image.open(tmp_path / "out" / "1_grey_6.png")).max() == 60


def test_without_a_clip_the_first_are_kept_and_that_is_said():
    found = generate_best(Grey(), "sad", candidates=3, keep=1)
    assert [c.seed for c in found.kept] == [0] and "no CLIP" in found.explanation
    assert all(c.score is None for c in found.candidates)


def test_bad_requests_are_refused():
    for how in ({"keep": 0}, {"candidates": 0}, {"style": " "}):
        with pytest.raises(EditError):
            generate_best(Grey(), "sad", **how)
    with pytest.raises(UnknownNameError):
        generate_best(Grey(), "sadd")


def test_the_command(tmp_path, monkeypatch, _astronaut, capsys):
    import cv2

    monkeypatch.chdir(tmp_path)
    face = np.ascontiguousarray(_astronaut[:320, 64:384, ::-1])
    film = cv2.VideoWriter("film.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (320, 320))
    for _ in range(2):
        film.write(face)
    film.release()
    model = write_model(tmp_path / "model", unet=DRAWS_SMALL)
    command = ["mirror", "--video", "film.avi", "--draw", str(model), "--style", "a happy photo", "--candidates", "2",
               "--keep", "1", "--steps", "1", "--device", "cpu"]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "answered with happy" in said and "no CLIP" in said
    names = {path.name for path in (tmp_path / "mirror").iterdir()}
    assert names == {"frame.png", "1_model_0.png", "sheet.png", "candidates.json"}
    assert main(["mirror", "--style", "a painting", "--output", "other"]) == 2
    assert main(["mirror", "--draw", str(model), "--editors", "facs", "--output", "other"]) == 2
    assert main(["mirror", "--draw", str(tmp_path / "nothing"), "--output", "other"]) == 1

"""Pictures from words by a pipeline of diffusers: what is drawn, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from emoedit.models.text_to_image import TextToImage, emotion_prompt
from emoedit.types import CheckpointError, EditError, UnknownNameError
from tests.fixtures.stable_diffusion import DRAWS_SMALL, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), unet=DRAWS_SMALL)


def test_a_seed_gives_a_picture_again_and_another_another(folder):
    drawer = TextToImage.load(folder)
    one, same, other = (np.asarray(drawer.draw("a happy face", seed=seed, steps=2)) for seed in (1, 1, 2))
    assert one.dtype == np.uint8 and one.shape == (64, 64, 3)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert drawer.draw("a happy face", steps=1, guidance=2.0, size=32).size == (32, 32)


def test_what_cannot_be_drawn_is_refused(folder, tmp_path):
    drawer = TextToImage.load(folder)
    for prompt, how in ((" ", {}), ("a face", {"size": 31})):
        with pytest.raises(EditError):
            drawer.draw(prompt, steps=1, **how)
    with pytest.raises(CheckpointError, match="no model"):
        TextToImage.load("nobody")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionInstructPix2PixPipeline"}))
    with pytest.raises(CheckpointError, match="draws no picture from a text"):
        TextToImage.load(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"unet": ["os", "system"]}))
    with pytest.raises(CheckpointError, match="unknown libraries"):
        TextToImage.load(tmp_path)


def test_the_emotions_are_named_in_the_style():
    assert emotion_prompt("happy", "a watercolour") == "a watercolour, happy mood"
    assert emotion_prompt("sad + 0.5*fearful - happy").endswith(", sad and fearful mood")
    with pytest.raises(UnknownNameError):
        emotion_prompt("hapy")
    for emotion, style in (("happy", "  "), ("-happy", "a painting")):
        with pytest.raises(EditError):
            emotion_prompt(emotion, style)

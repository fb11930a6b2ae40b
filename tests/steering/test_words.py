"""Prompts of the vocabulary as a steering: contexts between neutral and the prompt, encoded once."""

from __future__ import annotations

import json

import pytest
import torch

from emoedit.emotions import get, list_emotions
from emoedit.steering.combined import TokenShift
from emoedit.steering.words import Words
from emoedit.types import CheckpointError, Edit, Inversion
from tests.fixtures.editors import tiny_vae
from tests.fixtures.stable_diffusion import tiny

PROMPTS = {"happy": "a happy face", "sad": "a sad face"}


def inversion(count: int) -> Inversion:
    return Inversion(torch.zeros(count, 2, 8, 8))


@pytest.fixture(scope="module")
def backbone():
    return tiny()


def test_the_context_moves_in_a_straight_line(backbone):
    words = Words(PROMPTS, gain=torch.tensor([1.0, 2.0]), spans={"sad": (0, 200)})
    edits = [Edit("happy", 0.5), Edit("sad"), Edit("happy - sad"), Edit("sad", 0)]
    control = words.control(backbone, inversion(4), edits)
    neutral, happy, sad = (backbone.context(*text) for text in ((), ("a happy face",), ("a sad face",)))
    towards = [0.5 * (happy - neutral), 2 * (sad - neutral), (happy - neutral) - 2 * (sad - neutral), 0 * neutral]
    torch.testing.assert_close(control.context, neutral + torch.cat(towards), atol=1e-5, rtol=0)
    assert control.spans[:3].tolist() == [[0, 450], [0, 200], [0, 450]]


def test_only_what_is_asked_is_encoded_and_once(backbone, monkeypatch):
    words, seen = Words(), []
    assert words.emotions == list_emotions() and words.prompts[1] == get("happy").prompt
    short = Words(PROMPTS)
    encode = type(backbone).context
    monkeypatch.setattr(type(backbone), "context", lambda self, *text: seen.append(text) or encode(self, *text))
    for _ in range(2):
        short.control(backbone, inversion(1), [Edit("happy")])
    assert [text for text in seen if text] == [("a happy face",)]


def test_they_are_saved_and_so_is_what_holds_them(backbone, tmp_path):
    words = Words(PROMPTS, gain=torch.tensor([1.0, 2.0]), spans={"sad": (0, 200)})
    words.save_pretrained(tmp_path / "words")
    TokenShift(words, train_steps=5).save_pretrained(tmp_path / "shift")
    for again in (Words.from_pretrained(tmp_path / "words"), TokenShift.from_pretrained(tmp_path / "shift").tokens):
        assert (again.emotions, again.prompts, again.spans) == (words.emotions, words.prompts, words.spans)
        assert torch.equal(again.gain, words.gain)
    config = json.loads((tmp_path / "words" / "config.json").read_text())
    for name, value in (("prompts", {}), ("prompts", {"happy": 3}), ("gain", [1.0]), ("spans", {"glad": [0, 1]})):
        (tmp_path / "words" / "config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(CheckpointError):
            Words.from_pretrained(tmp_path / "words")


def test_a_model_without_text_is_refused():
    editor = tiny_vae()
    with pytest.raises(CheckpointError, match="VAEBackbone has no text input"):
        Words(PROMPTS).control(editor.backbone, Inversion(torch.zeros(1, 8)), [Edit("happy")])

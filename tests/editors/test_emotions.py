"""Every embedded editor with a model knows the six basic emotions and neutral, and so whatever is mixed from them."""

from __future__ import annotations

import pytest

from emoedit.editors import load_editor
from emoedit.emotions import BASIC, list_emotions, resolve
from emoedit.steering.combined import TokenAndShift

EDITORS = ("stylegan", "vae", "asyrp", "ti", "ti_asyrp")


@pytest.mark.parametrize("name", EDITORS)
def test_all_basic_emotions_are_known_and_every_name_is_a_mixture(name):
    editor = load_editor(name, device="cpu")
    assert set(BASIC) <= set(editor.emotions)
    for emotion in list_emotions():
        assert resolve(emotion, editor.emotions)
    for steering in editor.steerings:
        parts = (steering.tokens, steering.shift) if isinstance(steering, TokenAndShift) else (steering,)
        for part in parts:  # each by itself: what one part cannot do, the other would have to refuse
            assert set(BASIC) <= set(part.emotions)


@pytest.mark.parametrize("name", EDITORS)
def test_brows_and_lids_have_action_units(name):
    units = load_editor(name, device="cpu").units.sums
    assert set(units) | {"happy"} == set(BASIC) - {"neutral"}
    shown = {"sad": "AU1", "angry": "AU4", "surprised": "AU2", "fearful": "AU5", "disgusted": "AU9"}
    assert all(units[emotion][unit] > 0 for emotion, unit in shown.items())

"""Learned tokens and shifts of h together: each part alone to the bit, linear strengths, folders, what does not fit."""

from __future__ import annotations

import json

import pytest
import torch

from emoedit.editors import Editor
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.models.stable_diffusion import predictor as stable_diffusion
from emoedit.steering.combined import TokenAndShift, TokenShift
from emoedit.steering.tokens import EmotionTokens
from emoedit.types import CheckpointError, Edit
from tests.fixtures.stable_diffusion import smooth, tiny
from tests.fixtures.steerings import shifts
from tests.fixtures.steerings import steering as tokens

EDITS = (Edit("happy", 1.0), Edit("sad", -0.5))


@pytest.fixture(scope="module")
def backbone():
    return tiny()


def decoded(backbone, part, *edits: Edit) -> torch.Tensor:
    inversion = backbone.invert(smooth(len(edits)))
    return backbone.decode(inversion, part.control(backbone, inversion, edits))


def test_each_part_alone_is_its_parent_to_the_bit(backbone):
    words, moved = tokens(), shifts(backbone)
    both = TokenAndShift(words, moved, token_strength=0.7, h_strength=0.5).eval()
    assert both.emotions == ("happy", "sad")
    asyrp, ti = both.scaled(token_strength=0.0, h_strength=1.0), both.scaled(token_strength=1.0, h_strength=0.0)
    assert torch.equal(decoded(backbone, asyrp, *EDITS), decoded(backbone, moved, *EDITS))
    assert torch.equal(decoded(backbone, ti, *EDITS), decoded(backbone, words, *EDITS))
    together = decoded(backbone, both, *EDITS)
    for alone in (asyrp, ti):
        assert not torch.equal(together, decoded(backbone, alone, *EDITS))
    scaled = [[Edit(e.emotion, share * e.strength) for e in EDITS] for share in (0.7, 0.5)]
    inversion = backbone.invert(smooth(2))
    control = words.control(backbone, inversion, scaled[0]) + moved.control(backbone, inversion, scaled[1])
    assert torch.equal(together, backbone.decode(inversion, control))
    nothing = both.scaled(token_strength=0.0, h_strength=0.0)
    assert torch.equal(decoded(backbone, nothing, *EDITS), backbone.decode(backbone.invert(smooth(2))))


def test_a_tokens_shift_is_what_it_does_to_h(backbone):
    words = tokens()
    part = TokenShift(words, train_steps=2 * backbone.steps, gain=torch.tensor([1.0, 3.0, 1.0])).eval()
    inversion = backbone.invert(smooth(2))
    control = part.control(backbone, inversion, EDITS)
    assert control.context is None
    x_t = inversion.latent
    neutral, (happy, sad, _) = backbone.context(), words.contexts(backbone)
    state = backbone.state(x_t, 300, happy[None])  # whatever context the state stands under
    found = control.delta_h(state)
    plain, smiling, sadder = (backbone.state(x_t, 300, c).h for c in (neutral, happy[None], 2 * neutral - sad))
    torch.testing.assert_close(found[0], 2 * (smiling - plain)[0], atol=1e-5, rtol=1e-4)
    # A negative strength leads the other way in context, by its size.
    torch.testing.assert_close(found[1], 2 * 1.5 * (sadder - plain)[1], atol=1e-5, rtol=1e-4)
    half = part.control(backbone, inversion, [Edit("happy", 0.5), Edit("sad", -0.25)]).delta_h(state)
    torch.testing.assert_close(half, found / 2)
    mixture = part.control(backbone, inversion, [Edit("0.5 happy + 0.5 smirk")] * 2).delta_h(state)
    between = backbone.state(x_t, 300, (words.contexts(backbone)[0] + words.contexts(backbone)[2])[None] / 2).h
    torch.testing.assert_close(mixture, 2 * (between - plain), atol=1e-5, rtol=1e-4)
    assert part.control(backbone, inversion, [Edit("happy", 0.0)] * 2).delta_h is None


def test_a_tokens_shift_costs_one_more_pass_of_the_down_path(backbone, monkeypatch):
    part, passes = TokenShift(tokens(), train_steps=5).eval(), []
    inversion, down = backbone.invert(smooth(1)), stable_diffusion.down
    monkeypatch.setattr(stable_diffusion, "down", lambda *args: passes.append(len(args[1])) or down(*args))
    control = part.control(backbone, inversion, [Edit("happy + sad")])
    backbone.decode(inversion, control)
    steps = [t for t in backbone.schedule.timesteps if t >= backbone.config.t_edit]
    assert passes == [1, 1] * len(steps) + [1] * (len(backbone.schedule) - len(steps))


@pytest.mark.parametrize("kind", ["fitted", "token"])
def test_a_folder_holds_both_parts(tmp_path, backbone, kind):
    words = tokens()
    shift = shifts(backbone) if kind == "fitted" else TokenShift(words, train_steps=5, gain=torch.tensor([1.0, 2, 3]))
    part = TokenAndShift(words, shift, token_strength=0.25, h_strength=1.5).eval()
    Editor(backbone, [part], name="both").save_pretrained(tmp_path / "editor")
    editor = Editor.from_pretrained(tmp_path / "editor")
    assert editor.emotions == part.emotions
    assert torch.equal(decoded(editor.backbone, editor.steerings[0], *EDITS), decoded(backbone, part, *EDITS))
    config = json.loads((tmp_path / "editor" / "steering_0" / "config.json").read_text())
    path = tmp_path / "editor" / "steering_0" / "config.json"
    for bad in ({}, {**config, "h_strength": "much"}, {**config, "token_strength": float("nan")}):
        path.write_text(json.dumps(bad))
        with pytest.raises(CheckpointError, match="lacks|finite number"):
            TokenAndShift.from_pretrained(path.parent)


def test_parts_and_backbones_that_do_not_fit_are_refused(backbone, tmp_path):
    words = tokens()
    with pytest.raises(CheckpointError, match="no emotion in common.*happy.*angry"):
        TokenAndShift(words, shifts(backbone, ("angry",)))
    for gain, steps, match in ((torch.ones(2), 5, "for 3 emotions"), (None, 0, "above 0"), (None, 2.5, "above 0")):
        with pytest.raises(CheckpointError, match=match):
            TokenShift(words, train_steps=steps, gain=gain)
    small = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
    small |= {"in_channels": 1, "out_channels": 1, "down_block_types": ["DownBlock2D"] * 2}
    other = DDPMBackbone.from_config({"unet": {**small, "up_block_types": ["UpBlock2D"] * 2}, "steps": 4})
    inversion = backbone.invert(smooth(1))
    with pytest.raises(CheckpointError, match="has no text input"):
        TokenShift(words, train_steps=5).control(other, inversion, [Edit("happy")])
    (tmp_path / "config.json").write_text('{"gain": 3}')
    with pytest.raises(CheckpointError, match="garbles"):
        TokenShift.from_pretrained(tmp_path)
    assert isinstance(words, EmotionTokens)

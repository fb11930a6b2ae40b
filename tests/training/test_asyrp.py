"""Asyrp's published training: what is judged, when the optimiser steps, and what is written."""

from __future__ import annotations

import math

import pytest
import torch

from emoedit import sampling
from emoedit.metrics.clip import Clip, directional_similarity
from emoedit.steering.hspace import HSpace, ShiftBlock
from emoedit.training.asyrp import AsyrpTraining, block_name, find_interval, text_cosine, train_block, write_block
from emoedit.types import DataError, Edit, OutputError
from tests.fixtures.clip import write_clip
from tests.fixtures.ddpm import smooth, tiny

COLOUR = {"in_channels": 3, "out_channels": 3}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    return Clip.from_pretrained(write_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture
def backbone():
    return tiny(unet=COLOUR, steps=4)


def test_the_first_batch_is_judged_as_the_paper_says(backbone, clip):
    """Without a step of learning: the losses are those of the block's own edit, timestep by timestep."""
    x, how = smooth(1, 3), AsyrpTraining(learning_rate=0.0)
    block, (found,) = train_block(backbone, clip, "happy", x, how)
    plain = backbone.with_sampling(exact=False)
    latent, cosine = plain.invert(x).latent, text_cosine(clip, "happy")
    texts = clip.text_embeddings(["face", "smiling face"])
    seen: dict[str, list] = {"plain": [], "edited": []}
    for kind, delta in (("plain", None), ("edited", block)):
        x_t, schedule, eps_at = latent, plain.schedule, plain.eps_at(delta)
        with torch.no_grad():
            for k in (3, 2):
                t, a_t = schedule.timesteps[k], schedule.alpha_bar[k]
                assert t >= 300
                eps, shifted = eps_at(x_t, t)
                seen[kind].append(sampling.predicted_x0(x_t, eps if shifted is None else shifted, a_t))
                x_t = sampling.ddim_step(x_t, eps, a_t, schedule.below(k), eps_shifted=shifted)
    near, towards = [], []
    with torch.no_grad():
        for a, b in zip(seen["plain"], seen["edited"], strict=True):
            near.append(float((a - b).abs().mean()))
            images = clip.image_embeddings(x.clamp(-1, 1)), clip.image_embeddings(b.clamp(-1, 1))
            towards.append(-math.log((1 + float(directional_similarity(*images, texts[:1], texts[1:]))) / 2))
    assert found["near"] == pytest.approx(sum(near) / 2, rel=1e-3)
    assert found["clip"] == pytest.approx(sum(towards) / 2, rel=1e-3)
    assert found["loss"] == pytest.approx(found["clip"] + 3 * cosine * found["near"], rel=1e-4)


def test_the_optimiser_steps_at_every_timestep(backbone, clip, monkeypatch):
    steps, rates, plain = [], [], torch.optim.SGD.step

    def counted(self, *arguments, **options):
        steps.append(1)
        rates.append(self.param_groups[0]["lr"])
        return plain(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    told, before = [], {name: value.clone() for name, value in backbone.state_dict().items()}
    how = AsyrpTraining(learning_rate=0.1, epochs=2, batch_size=2, step_size=1, gamma=0.5)
    _, history = train_block(backbone, clip, "sad", smooth(3, 3), how, callback=lambda *n: told.append(n))
    assert len(steps) == 2 * 2 * 2 and len(history) == 4  # epochs x batches x timesteps from t_edit up
    assert rates == [0.1] * 4 + [0.05] * 4 and told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_it_learns(backbone, clip):
    x, how = smooth(2, 3), AsyrpTraining(learning_rate=1.0, near=0.0, epochs=12, batch_size=2, step_size=12)
    block, history = train_block(backbone, clip, "happy", x, how)
    assert history[-1]["clip"] < history[0]["clip"] - 0.05
    assert not any(parameter.requires_grad for parameter in block.parameters())


def test_what_cannot_be_trained(backbone, clip):
    with pytest.raises(DataError, match="no picture"):
        train_block(backbone, clip, "happy", torch.empty(0, 3, 16, 16))
    with pytest.raises(DataError, match="lower learning_rate"):
        train_block(backbone, clip, "happy", smooth(3, 3), AsyrpTraining(learning_rate=1e30))


def test_the_file_is_of_the_authors_layout(backbone, tmp_path):
    block = ShiftBlock(backbone.h_shape[0], backbone.temb_dim)
    path = tmp_path / block_name("happy", backbone, 1)
    assert path.name == "happy_LC_CelebA_HQ_t600_ninv4_ngen4_0.pth"
    write_block(path, block)
    steering = HSpace.from_asyrp({"happy": path})
    assert steering.train_steps == 4
    inversion = backbone.invert(smooth(1, 3))
    drawn = backbone.decode(inversion, steering.control(backbone, inversion, [Edit("happy")]))
    from_memory = HSpace(["happy"], [block], train_steps=4)
    assert torch.equal(drawn, backbone.decode(inversion, from_memory.control(backbone, inversion, [Edit("happy")])))
    with pytest.raises(OutputError):
        write_block(path, block)


def test_editing_ends_where_the_distance_says(backbone):
    """A distance that is the timestep's number itself, over 1000: .33 times the cosine is reached there."""
    times = iter([t / 1000 for t in backbone.schedule.timesteps for _ in range(2)])
    found = find_interval(backbone, smooth(1, 3), lambda a, b: torch.full((len(a),), next(times)), 0.9)
    assert found == min(t for t in backbone.schedule.timesteps if t / 1000 >= 0.33 * 0.9)

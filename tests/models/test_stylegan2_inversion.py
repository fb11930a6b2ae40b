"""Finding a picture with StyleGAN2: optimisation in W+, pivotal tuning of a copy."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.models.stylegan2.inversion import InversionError, Losses, autocorrelation, learning_rate, unexplained
from emoedit.models.stylegan2.tuning import Tuning, tune
from emoedit.types import CheckpointError, ImageError, Inversion, OutputError
from tests.fixtures.stylegan2 import DIM, SIDE, faces, seeded, smooth, tiny


@pytest.fixture(scope="module")
def backbone() -> StyleGAN2Backbone:
    return tiny()


# Optimisation


def without_encoder(**settings) -> StyleGAN2Backbone:
    return tiny(**{"encoder_widths": None, "optimise_steps": 60, **settings})


@pytest.fixture
def anything_goes(monkeypatch):
    """What few steps find is no error."""
    monkeypatch.setattr("emoedit.models.stylegan2.inversion.UNEXPLAINED", 9.0)


def test_optimisation_finds_what_can_be_drawn():
    backbone = without_encoder()
    x, done = faces(backbone), []
    inversion = backbone.invert(x, callback=lambda *step: done.append(step))
    assert done == [(k, 60) for k in range(1, 61)]
    mean = Inversion(backbone.mapping.w_avg.expand(3, 6, DIM), {"mean": torch.zeros(1), "gain": torch.ones(1)})
    left, before = unexplained(backbone.decode(inversion), x), unexplained(backbone.decode(mean), x)
    assert bool((left < 0.35 * before).all()) and bool((left < 0.3).all())
    further = backbone.with_inversion(optimise_steps=120)
    assert float(unexplained(further.decode(further.invert(x)), x).mean()) < float(left.mean())
    assert torch.equal(backbone.invert(x).latent, inversion.latent)  # nothing is random
    alone = backbone.invert(x[1:2])
    torch.testing.assert_close(backbone.decode(alone)[0], backbone.decode(inversion)[1], atol=0.02, rtol=0)


def test_optimisation_goes_on_from_the_encoder(backbone, anything_goes):
    x = faces(backbone)
    once = backbone.with_inversion(optimise_steps=1).invert(x)
    step = (once.latent - backbone.invert(x).latent).abs()
    assert 0 < float(step.max()) < 0.06  # Adam's first step is as long as its rate


def test_noise_stays_noise():
    backbone = without_encoder(optimise_steps=40)
    x = faces(backbone)
    noise = backbone.invert(x).extras["noise"]
    assert noise.shape == (3, sum(backbone.synthesis.sizes))
    for part in noise.split(backbone.synthesis.sizes, 1):
        torch.testing.assert_close(part.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(part.square().mean(1), torch.ones(3), atol=1e-3, rtol=0)
    white = torch.randn(64, 1, 32, 32, generator=seeded())
    picture = F.interpolate(torch.randn(64, 1, 8, 8, generator=seeded()), (32, 32), mode="bilinear")
    picture = picture / picture.square().mean((1, 2, 3), keepdim=True).sqrt()
    assert float(autocorrelation([picture]).mean()) > 10 * float(autocorrelation([white]).mean())
    truth = (white * white.roll(1, 3)).mean((1, 2, 3)) ** 2 + (white * white.roll(1, 2)).mean((1, 2, 3)) ** 2
    for _ in range(2):
        white = F.avg_pool2d(white, 2)
        truth += (white * white.roll(1, 3)).mean((1, 2, 3)) ** 2 + (white * white.roll(1, 2)).mean((1, 2, 3)) ** 2
    white = torch.randn(64, 1, 32, 32, generator=seeded())
    torch.testing.assert_close(autocorrelation([white]), truth)


def test_every_loss_is_heard(anything_goes):
    backbone = without_encoder(optimise_steps=25)
    x, calls = faces(backbone, 2), []

    def corners(drawn: Tensor, target: Tensor) -> Tensor:
        calls.append((drawn.shape, target.shape))
        return (drawn - target)[:, :, :4, :4].square().mean((1, 2, 3))

    def error(losses: Losses) -> Tensor:
        there = backbone.with_inversion(losses)
        return corners(there.decode(there.invert(x)), x)

    plain = error(Losses())
    for losses in (Losses(perceptual=corners, weights=(1, 20, 0)), Losses(identity=corners, weights=(1, 0, 20))):
        calls.clear()
        assert bool((error(losses) < plain).all())
        assert calls[0] == (x.shape, x.shape) and len(calls) == 26
    values = Losses(lambda a, b: torch.full((2,), 3.0), lambda a, b: torch.full((2,), 5.0), (2, 1, 10))(x, x + 1)
    torch.testing.assert_close(values, torch.full((2,), 2.0 + 3 + 50))


def test_nobody_elses_weights_are_touched(anything_goes):
    """Neither values nor gradients, whether or not they were frozen."""
    backbone = without_encoder(optimise_steps=3).requires_grad_(True)
    network = nn.Conv2d(1, 2, 3)
    losses = Losses(perceptual=lambda a, b: (network(a) - network(b)).square().mean((1, 2, 3)))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    x = faces(backbone, 1)
    inversion = backbone.with_inversion(losses).invert(x)
    assert not inversion.latent.requires_grad
    tune(backbone, x, inversion, losses=losses, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in (*backbone.parameters(), *network.parameters()))


def test_pictures_that_cannot_be_found_are_an_error():
    backbone = without_encoder(optimise_steps=20)
    noise = torch.rand(1, 1, SIDE, SIDE, generator=seeded()) * 2 - 1
    x = torch.cat([faces(backbone, 1), noise])
    with pytest.raises(InversionError, match=r"picture 2 of 2 was not found after 20 steps: \d+% of its variance"):
        backbone.invert(x)
    with pytest.raises(InversionError, match="picture 1 of 2: the loss is nan at step 0"):
        backbone.with_inversion(Losses(perceptual=lambda a, b: torch.tensor([float("nan"), 1.0]))).invert(x)


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(step, 100) for step in range(100)]
    assert 0 < rates[0] < 0.3 and rates[10] == rates[70] == 1 and 0 < rates[-1] < 0.01


# Pivotal tuning


@pytest.fixture(scope="module")
def tuned() -> tuple[StyleGAN2Backbone, Tensor, Inversion, Tuning]:
    backbone = without_encoder(optimise_steps=80, std=0.45)
    x = smooth(2)
    inversion = backbone.invert(x)
    return backbone, x, inversion, tune(backbone, x, inversion, steps=40, rate=3e-3)


def test_tuning_draws_the_picture_better_and_changes_a_copy(tuned):
    backbone, x, inversion, tuning = tuned
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    there = tuning.apply(backbone)
    left, was = unexplained(there.decode(inversion), x), unexplained(backbone.decode(inversion), x)
    assert bool((left < 0.6 * was).all())
    assert len(tuning.losses) == 41 and tuning.losses[-1] < 0.5 * tuning.losses[0]
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert there.mapping is backbone.mapping and there.synthesis is not backbone.synthesis
    assert there.config == backbone.config and there.crop == backbone.crop
    assert backbone.synthesis is dict(backbone.named_children())["synthesis"]
    assert not any(p.requires_grad for p in there.parameters())


def test_tuning_can_take_no_step(tuned):
    backbone, x, inversion, _ = tuned
    assert torch.equal(
        tune(backbone, x, inversion, steps=0).apply(backbone).decode(inversion), backbone.decode(inversion)
    )


def test_tuning_that_leads_nowhere_is_an_error(tuned):
    backbone, x, inversion, _ = tuned
    with pytest.raises(InversionError, match="lower learning rate than 1000"):
        tune(backbone, x, inversion, steps=2, rate=1e3)
    with pytest.raises(InversionError, match="nan"):
        tune(backbone, x, inversion, steps=2, losses=Losses(identity=lambda a, b: a.sum((1, 2, 3)) * float("nan")))
    with pytest.raises(ImageError):
        tune(backbone, x[:, :, :8], inversion)


def test_a_saved_tuning_is_the_tuning(tuned, tmp_path):
    backbone, _, inversion, tuning = tuned
    path = tmp_path / "me.safetensors"
    tuning.save(path)
    again = Tuning.load(path)
    assert again.base == tuning.base and again.inversion.fingerprint == inversion.fingerprint
    assert again.inversion.extras.keys() == inversion.extras.keys()
    there = again.apply(backbone)
    assert torch.equal(there.decode(again.inversion), tuning.apply(backbone).decode(inversion))
    there.save_pretrained(tmp_path / "mine")  # a tuned backbone is a backbone
    mine = StyleGAN2Backbone.load(tmp_path / "mine")
    assert torch.equal(mine.decode(inversion), there.decode(inversion))
    with pytest.raises(OutputError):
        tuning.save(path)
    tuning.save(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["me.safetensors"]


def test_tunings_that_do_not_fit_are_refused(tuned, tmp_path):
    backbone, _, _, tuning = tuned
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        other.synthesis.convs[0].weight.mul_(1.01)
    with pytest.raises(CheckpointError, match="tune again"):
        tuning.apply(other)
    with pytest.raises(CheckpointError, match="1 missing"):
        weights = {k: v for k, v in tuning.weights.items() if k != "const"}
        Tuning(weights, tuning.inversion, tuning.base).apply(backbone)
    path = tmp_path / "me.safetensors"
    tuning.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        Tuning.load(path)
    with pytest.raises(CheckpointError, match="missing"):
        Tuning.load(tmp_path / "none.safetensors")
    backbone.save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="this is no tuning"):
        Tuning.load(tmp_path / "model" / checkpoints.WEIGHTS)

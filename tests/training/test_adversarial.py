"""Adversarial training: what each player minimises, changes of pictures, resuming, what the StyleGAN2 here learns."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emoedit.models.stylegan2.backbone import StyleGAN2Config
from emoedit.models.stylegan2.network import upsample
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.training.adversarial import AdversarialConfig, GeneratorTask, gradient_penalty, train_adversarial
from emoedit.training.augment_gan import LIMIT, CriticAugment, adapted, augment_for_critic
from emoedit.training.critic import Critic
from emoedit.training.data import CropSet, MixtureBatches
from emoedit.training.loop import DivergedError, TrainerConfig, train
from emoedit.training.stylegan import EncoderTask, GANTask, TwoMixtures, Weights, energy_distance
from emoedit.types import DataError

SIDE = 16
TINY = StyleGAN2Config(
    resolution=SIDE,
    widths=(12, 12, 8),
    z_dim=8,
    w_dim=8,
    mapping_layers=2,
    encoder_widths=(8, 8),
    encoder_neck=4,
    std=0.45,
)
TRAINER = TrainerConfig(steps=6, betas=(0.0, 0.99), warmup=1, precision="no", save_every=3, preview_every=3, clip=10.0)


def network(kind: type[MeasuringNetwork], **heads: int) -> MeasuringNetwork:
    torch.manual_seed(5)
    return kind(NetworkConfig(heads, resolution=16, widths=(8, 8, 8, 8))).eval()


def task(**changes) -> GANTask:
    torch.manual_seed(1)
    return GANTask(replace(TINY, **changes), network(PerceptualNetwork))


def critic() -> Critic:
    torch.manual_seed(2)
    return Critic(1, (8, 8))


@pytest.fixture
def batches(tmp_path) -> TwoMixtures:
    rng = np.random.default_rng(0)
    ramp = np.linspace(30, 220, SIDE)[None, :, None] * rng.uniform(0.3, 1, (24, 1, SIDE))
    np.save(tmp_path / "crops.npy", ramp.astype(np.uint8))
    with (tmp_path / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["data", "emotion", "split"], *([name, "happy", "train"] for name in "ab" * 12)])
    crops = CropSet(tmp_path)
    how = {"resolution": SIDE, "split": "train"}
    return TwoMixtures(
        MixtureBatches(crops, {"a": 1}, batch_size=8, seed=0, **how),
        MixtureBatches(crops, {"b": 1}, batch_size=4, seed=1, **how),
    )


# The critic


def test_critic_sees_variety_within_neighbouring_groups_only():
    network, x = critic(), torch.randn(12, 1, SIDE, SIDE)
    together = network(x)
    assert together.shape == (12,) and together.dtype == torch.float32
    alone = torch.cat([network(part) for part in x.split(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    changed = x.clone()
    changed[0] = x[1]
    moved = (network(changed) - together).abs() > 1e-6
    assert moved[:4].all() and not moved[4:].any()
    assert torch.isfinite(network(x[:3])).all()  # fewer than a group
    low = network(x.bfloat16())
    assert low.dtype == torch.float32 and (low - together).abs().max() < 0.1


def test_gradient_penalty_is_half_the_squared_slope():
    class Plane(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16))

        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1) * self.weight).sum(1) + 0.5 * x.flatten(1).square().sum(1)

    plane, x = Plane(), torch.randn(5, 1, 4, 4)
    slope = plane.weight + x.flatten(1)
    penalty = gradient_penalty(plane, x)
    torch.testing.assert_close(penalty, 0.5 * slope.square().sum(1).mean())
    penalty.backward()
    torch.testing.assert_close(plane.weight.grad, slope.mean(0).detach())


# Changes


def test_pictures_are_left_alone_at_probability_0_and_changed_at_1():
    x = torch.rand(16, 1, SIDE, SIDE) * 2 - 1
    assert augment_for_critic(x, 0.0, CriticAugment()) is x
    torch.manual_seed(0)
    always = augment_for_critic(x, 1.0, CriticAugment())
    assert always.shape == x.shape and ((always - x).abs().amax((1, 2, 3)) > 0.1).all()
    torch.manual_seed(0)
    assert torch.equal(augment_for_critic(x, 1.0, CriticAugment()), always)
    torch.manual_seed(0)
    some = augment_for_critic(x, 0.2, CriticAugment())
    kept = torch.isclose(some, x, atol=1e-5).all(3).all(2).all(1)
    assert 0 < int(kept.sum()) < len(x)


@pytest.mark.parametrize(
    ("only", "check"),
    [
        ({"bright": 0.5}, lambda x, y: torch.allclose((y - x).std((1, 2, 3)), torch.zeros(8), atol=1e-5)),
        ({"contrast": 0.5}, lambda x, y: torch.allclose((y / x).std((1, 2, 3)), torch.zeros(8), atol=1e-3)),
        ({"hide": 0.5}, lambda x, y: bool(((y == x) | (y == 0)).all()) and 0.05 < float((y == 0).float().mean()) < 0.3),
    ],
)
def test_each_change_does_what_it_says(only, check):
    nothing = {"shift": 0.0, "turn": 0.0, "scale": 0.0, "bright": 0.0, "contrast": 0.0, "hide": 0.0}
    torch.manual_seed(0)
    x = torch.rand(8, 1, SIDE, SIDE) + 0.5
    same = augment_for_critic(x, 1.0, CriticAugment(**nothing))
    torch.testing.assert_close(same, x, atol=1e-5, rtol=1e-5)
    y = augment_for_critic(same, 1.0, CriticAugment(**{**nothing, **only}))
    assert not torch.allclose(y, x, atol=0.05)
    if only == {"hide": 0.5}:
        y = torch.where(torch.isclose(y, x, atol=1e-5), x, y)
    assert check(x, y)


def test_gradients_pass_through_the_changes():
    x = (torch.rand(4, 1, SIDE, SIDE) + 0.5).requires_grad_()
    torch.manual_seed(0)
    augment_for_critic(x, 1.0, CriticAugment(hide=0.0)).sum().backward()
    assert (x.grad != 0).float().mean() > 0.5


def test_changes_become_more_frequent_only_while_the_critic_is_sure():
    sure, guessing = torch.full((10,), 2.0), torch.tensor([1.0, -1] * 5)
    assert adapted(0.2, sure, target=0.6, speed=100) == pytest.approx(0.3)
    assert adapted(0.2, guessing, target=0.6, speed=100) == pytest.approx(0.1)
    assert adapted(0.05, guessing, target=0.6, speed=100) == 0
    assert adapted(0.79, sure, target=0.6, speed=100) == LIMIT


# The loop


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, batches):
    how = AdversarialConfig(start=1, ramp=2, lazy=4, speed=50)

    def run(folder: str, steps: int) -> dict[str, Tensor]:
        # Without decay the first steps do not depend on how many there will be.
        trained = train_adversarial(
            task(), critic(), batches, tmp_path / folder, replace(TRAINER, steps=steps, decay=1e-9), how
        )
        return trained.state_dict()

    whole = run("whole", 6)
    run("parts", 3)
    resumed = run("parts", 6)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    start = task().state_dict()
    moved = [name for name in whole if not torch.equal(whole[name], start[name])]
    assert not any("noise" in name for name in moved)
    assert {name.removeprefix("backbone.").split(".")[0] for name in moved} == {
        *("mapping", "synthesis", "encoder", "posterior", "recent")
    }
    state = torch.load(tmp_path / "parts" / "state.pt", weights_only=True)
    assert state["step"] == 6 and state["probability"] > 0 and state["seconds"] > 0
    assert not list((tmp_path / "parts").glob("*.part"))
    assert list((tmp_path / "parts").glob("events*"))
    # What is averaged lags behind what is trained.
    assert not torch.equal(state["task"]["backbone.synthesis.const"], resumed["backbone.synthesis.const"])


class Dot(GeneratorTask):
    """A flat picture of one learned shade."""

    def __init__(self, shade: float) -> None:
        super().__init__()
        self.shade = nn.Parameter(torch.tensor(shade))

    def groups(self, config):
        return [{"params": [self.shade], "lr": config.learning_rate}]

    def real(self, batch):
        return batch["real"]

    def forward(self, batch, *, alone):
        return self.shade.expand(8, 1, 4, 4), {"loss": 0 * self.shade}


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.float().mean((1, 2, 3))


def flat(step: int, process: int) -> dict[str, Tensor]:
    return {"real": torch.full((8, 1, 4, 4), 0.5)}


def test_players_learn_of_each_other(tmp_path):
    config = replace(TRAINER, steps=200, learning_rate=0.02, decay=0.5, ema=0.9)
    how = AdversarialConfig(learning_rate=0.05, gamma=0.1, target=2.0)  # nothing is changed
    dot = train_adversarial(Dot(-1.0), Slope(), flat, tmp_path, config, how)
    assert float(dot.shade.detach()) == pytest.approx(0.5, abs=0.15)


def test_the_critic_is_silent_at_first_and_then_heard_more_and_more(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(TRAINER, steps=61, learning_rate=0.0, decay=1e-9, betas=(0.0, 0.0))
    network = Slope()
    network.weight.data.fill_(1.0)
    how = AdversarialConfig(learning_rate=0.0, start=20, ramp=41, gamma=0.0, target=2.0)
    train_adversarial(Dot(0.0), network, flat, tmp_path, config, how)
    log = EventAccumulator(str(tmp_path))
    log.Reload()
    gradients = {event.step: event.value for event in log.Scalars("train/gradient")}
    assert gradients[0] == 0
    assert gradients[20] == pytest.approx(0.5 / 41) and gradients[60] == pytest.approx(0.5)
    assert [event.step for event in log.Scalars("train/critic")] == [20, 40, 60]


def test_a_broken_batch_stops_it_with_the_last_state_saved(tmp_path):
    def broken(step: int, process: int) -> dict[str, Tensor]:
        return {"real": flat(step, 0)["real"] * (float("nan") if step == 4 else 1)}

    with pytest.raises(DivergedError, match=r"real nan.*at step 4.*state\.pt"):
        train_adversarial(Dot(0.0), Slope(), broken, tmp_path, TRAINER)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 3 and all(v.isfinite().all() for v in state["task"].values())


# What the embedded StyleGAN2 learns


def test_drawn_pictures_are_samples_and_then_what_was_shown(batches):
    model = task()
    seen, drawn_from = [], []
    model.backbone.encoder.norm.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    model.backbone.synthesis.register_forward_pre_hook(lambda module, inputs: drawn_from.append(inputs[0].detach()))
    model.posterior.weight.data.zero_()
    model.posterior.bias.data[:8] = torch.arange(8.0)  # every crop is the same person, for sure
    model.posterior.bias.data[8:] = -30.0
    torch.manual_seed(0)
    drawn, found = model.train()(batches(0))
    assert drawn.shape == (8, 1, SIDE, SIDE)
    assert seen == [4, 2]  # the crops, then samples to be found again
    (w_plus,) = drawn_from
    who = torch.arange(8.0)
    torch.testing.assert_close(w_plus[4:], who.expand(4, 6, 8), atol=1e-4, rtol=1e-4)
    assert (w_plus[:4] - who).abs().amax((1, 2)).min() > 0.05
    kl = 0.5 * (torch.arange(8.0).square() + np.exp(-30) - 1 + 30).sum()
    torch.testing.assert_close(found["kl"], kl)
    weights = model.weights
    total = sum(getattr(weights, name) * found[name] for name in ("rebuild", "perceptual", "latent", "kl", "prior"))
    torch.testing.assert_close(found["loss"].detach(), total.detach())
    assert not torch.equal(model.backbone.mapping.w_avg, torch.zeros(8))
    assert not any("perceptual" in name for name in model.state_dict())


def test_alone_real_crops_are_rebuilt_in_the_place_of_samples(batches):
    model, batch = task(), batches(0)
    seen, kinds = [], []
    model.backbone.encoder.layers.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    losses = model.rebuilding.losses
    model.rebuilding.losses = lambda *a, half, **how: kinds.append((len(a[0]), half)) or losses(*a, half=half, **how)
    drawn, alone = model(batch, alone=True)
    assert seen == [8] and kinds == [(8, False)] and drawn.shape == (8, 1, SIDE, SIDE)
    _, found = model(batch)
    assert kinds[1] == (4, True)
    assert {"rebuild", "kl", "prior", "latent", "loss"} == alone.keys() == found.keys() - {"perceptual"}
    found["loss"].backward()
    assert all(value.grad is not None for value in model.posterior.parameters())


def test_pictures_grow(batches):
    batches.growing = {8: 3, 4: 1}
    assert [int(batches(step)["side"]) for step in range(5)] == [4, 8, 8, SIDE, SIDE]
    model = task()
    small, found = model(batches(1), alone=True)
    assert small.shape == (8, 1, 8, 8)
    found["loss"].backward()
    last = model.backbone.synthesis.convs[-1]
    assert last.weight.grad is None and model.backbone.synthesis.convs[1].weight.grad is not None
    # A larger picture begins as the smaller one, enlarged.
    w_plus = torch.randn(2, *model.backbone.latent_shape)
    with torch.no_grad():
        small, large = (model.backbone.synthesis(w_plus, side=side) for side in (8, None))
    torch.testing.assert_close(large, upsample(small))


def test_mapping_learns_where_pictures_lie(tmp_path, batches):
    trained = train_adversarial(task(), critic(), batches, tmp_path, replace(TRAINER, steps=2), AdversarialConfig())
    assert (trained.recent[:8] != task().recent[:8]).all()
    model, where = task(mapping_rate=1.0), torch.randn(256, 8) * 0.5 + 3.0
    optimizer = torch.optim.Adam(model.backbone.mapping.parameters(), lr=0.05)
    far = []
    for _ in range(60):
        loss = energy_distance(model.backbone.mapping(torch.randn(256, 8)), where)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        far.append(float(loss.detach()))
    assert far[-1] < 0.1 * far[0]


def test_energy_distance_is_that_of_its_definition():
    x, y = torch.randn(5, 3), torch.randn(7, 3) + 1
    between = np.mean([float((a - b).norm()) for a in x for b in y])
    within = [np.mean([float((a - b).norm()) for i, a in enumerate(z) for b in z[:i]]) for z in (x, y)]
    assert float(energy_distance(x, y)) == pytest.approx((2 * between - sum(within)) / 3**0.5, rel=1e-5)


def test_the_task_is_calm_beside_a_critic(tmp_path, batches):
    how = {"adversarial": AdversarialConfig(start=1, calm=0.0), "quick": AdversarialConfig(start=1)}
    config = replace(TRAINER, steps=2, ema=0.0)
    weights = {
        name: train_adversarial(task(), critic(), batches, tmp_path / name, config, value).state_dict()
        for name, value in how.items()
    }
    one = replace(config, steps=1, decay=0.0)
    alone = train_adversarial(task(), critic(), batches, tmp_path / "one", one, AdversarialConfig(start=1))
    name = "backbone.synthesis.const"
    assert torch.equal(weights["adversarial"][name], alone.state_dict()[name])
    assert not torch.equal(weights["quick"][name], alone.state_dict()[name])


def test_some_samples_have_the_styles_of_two(batches):
    model, drawn_from = task(), []
    model.backbone.synthesis.register_forward_pre_hook(lambda module, inputs: drawn_from.append(inputs[0].detach()))
    for mixing, share in ((0.0, 0.0), (1.0, 1.0)):
        model.mixing = mixing
        drawn_from.clear()
        for step in range(5):
            model(batches(step))
        mixed = [bool((row != row[:1]).any()) for w_plus in drawn_from for row in w_plus[:4]]
        assert np.mean(mixed) == share
        assert all((row == row[:1]).all() for w_plus in drawn_from for row in w_plus[4:])


def test_the_generator_learns_to_draw_what_it_is_shown(tmp_path, batches):
    config = replace(TRAINER, steps=60, learning_rate=1e-2, decay=0.5, ema=0.9)
    x = batches(99)["shown"]

    def error(model: GANTask) -> float:
        found = model.backbone.invert(x)
        return float((model.backbone.decode(found) - x).square().mean())

    before = error(task())
    after = error(train_adversarial(task(), critic(), batches, tmp_path, config, AdversarialConfig(gamma=0.1)))
    assert after < 0.6 * before


def test_an_encoder_is_needed_and_identity_a_network():
    with pytest.raises(DataError, match="encoder_widths"):
        GANTask(replace(TINY, encoder_widths=None, optimise_steps=1), network(PerceptualNetwork))
    with pytest.raises(DataError, match="an identity network"):
        GANTask(TINY, network(PerceptualNetwork), Weights(identity=1.0))


def test_the_encoder_goes_on_alone(tmp_path, batches):
    backbone = task().backbone.eval()
    frozen = {name: value.clone() for name, value in backbone.state_dict().items() if not name.startswith("encoder")}
    first = {name: value.clone() for name, value in backbone.encoder.state_dict().items()}
    nets = network(PerceptualNetwork), network(MeasuringNetwork, person=6)
    own = EncoderTask(backbone, *nets, Weights(identity=0.5), samples=4)
    x = batches.shown(0)
    torch.manual_seed(0)
    before = {name: float(value.detach()) for name, value in own(x).items()}
    config = replace(TRAINER, steps=60, learning_rate=5e-3, ema=0.5, betas=(0.9, 0.99))
    averaged = train(own, batches.shown, tmp_path, config)
    torch.manual_seed(0)
    after = {name: float(value.detach()) for name, value in averaged(x).items()}
    assert before.keys() == {"loss", "rebuild", "perceptual", "identity", "latent", "spread"}
    assert after["latent"] < before["latent"] and after["loss"] < before["loss"]
    assert all(torch.equal(backbone.state_dict()[name], value) for name, value in frozen.items())
    assert any(not torch.equal(averaged.encoder.state_dict()[name], value) for name, value in first.items())
    assert set(own.state_dict()) == {f"encoder.{name}" for name in first}

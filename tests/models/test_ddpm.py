"""The DDPM backbone: the U-Net cut at h, parity with Asyrp's own code, exact inversion, files of several namings."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emoedit import sampling
from emoedit.io import checkpoints
from emoedit.models.ddpm import files as ddpm_files
from emoedit.models.ddpm.backbone import DDPMBackbone, down, up
from emoedit.steering.hspace import HSpace
from emoedit.types import CheckpointError, Control, Edit, EditError, ImageError, Inversion
from tests.fixtures.ddpm import SAMPLING, UNET, smooth, tiny


@pytest.fixture(scope="module")
def backbone() -> DDPMBackbone:
    return tiny()


def push(state) -> Tensor:
    """A delta_h that looks at all it may look at, and differs between pictures only through them."""
    return 2 * torch.tanh(state.h.roll(1, 1)) + state.temb.mean() + state.t[:, None, None, None] / 1000


# The cut


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers_per_block": 2, "attention_head_dim": 4, "center_input_sample": True},
        {"down_block_types": ["AttnDownBlock2D"] * 2, "up_block_types": ["AttnUpBlock2D"] * 2, "downsample_padding": 0},
        {
            "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
            "resnet_time_scale_shift": "scale_shift",
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "add_attention": False,
        },
        {"in_channels": 3, "out_channels": 3, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6},
    ],
)
def test_the_two_halves_are_the_whole(changes):
    backbone = tiny(unet=changes)
    x, t = torch.randn(3, backbone.channels, 16, 16), torch.tensor([999, 400, 0])
    h, skips, temb = down(backbone.unet, x, t)
    assert h.shape[1:] == backbone.h_shape and temb.shape == (3, backbone.temb_dim)
    torch.testing.assert_close(up(backbone.unet, h, skips, temb), backbone.unet(x, t).sample, atol=1e-6, rtol=0)


def test_a_step_computes_nothing_twice(backbone):
    """Down path and mid block once, up path once for plain and shifted h; a single pass below t_edit."""
    seen: dict[str, list[int]] = {"down": [], "up": []}
    parts = {"down": backbone.unet.mid_block, "up": backbone.unet.up_blocks[0]}
    hooks = [
        part.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(len(inputs[0])))
        for name, part in parts.items()
    ]
    try:
        inversion = backbone.invert(smooth())
        assert seen == {"down": [3] * 6, "up": [3] * 6}
        backbone.decode(inversion)
        assert seen == {"down": [3] * 6, "up": [3] * 6}  # an exact inversion leads back without any pass
        for name in seen:
            seen[name].clear()
        edited = backbone.decode(inversion, Control(delta_h=push))
        assert seen == {"down": [3] * 6, "up": [6, 6, 6, 3, 3, 3]}
        seen["up"].clear()
        symmetric = backbone.with_sampling(symmetric=True).decode(inversion, Control(delta_h=push))
        assert seen["up"] == [3] * 6
    finally:
        for hook in hooks:
            hook.remove()
    assert float((edited - symmetric).abs().max()) > 1e-4


def test_the_symmetric_form_does_the_same_for_a_small_shift(backbone):
    inversion = backbone.invert(smooth())
    reconstruction = backbone.decode(inversion)

    def change(model: DDPMBackbone, size: float) -> Tensor:
        return model.decode(inversion, Control(delta_h=lambda s: size * torch.sin(s.h))) - reconstruction

    # Of the first step only: later ones start from what it changed.
    one, other = backbone.with_sampling(t_edit=600), backbone.with_sampling(t_edit=600, symmetric=True)
    truth = change(one, 1e-3)
    assert float(truth.norm()) > 0
    assert float((change(other, 1e-3) - truth).norm()) < 0.05 * float(truth.norm())


# Parity: what the functions of Asyrp's own code give on the same weights. The original names and shapes are spelled out
# here once more, so that the conversion is tested, not repeated.


def original_shapes(width: int, factors: tuple[int, ...], blocks: int, attends: tuple[int, ...], channels: int) -> dict:
    """Names and shapes of the original DDPM's state dict."""
    temb, shapes = 4 * width, {}

    def layer(name, *shape):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def resnet(name, inputs, outputs):
        layer(f"{name}.norm1", inputs)
        layer(f"{name}.conv1", outputs, inputs, 3, 3)
        layer(f"{name}.temb_proj", outputs, temb)
        layer(f"{name}.norm2", outputs)
        layer(f"{name}.conv2", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.nin_shortcut", outputs, inputs, 1, 1)

    def attention(name, size):
        layer(f"{name}.norm", size)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{name}.{part}", size, size, 1, 1)

    layer("temb.dense.0", temb, width)
    layer("temb.dense.1", temb, temb)
    layer("conv_in", width, channels, 3, 3)
    skips, size = [width], width
    for i, factor in enumerate(factors):
        for j in range(blocks):
            resnet(f"down.{i}.block.{j}", size, width * factor)
            size = width * factor
            skips.append(size)
            if i in attends:
                attention(f"down.{i}.attn.{j}", size)
        if i + 1 < len(factors):
            layer(f"down.{i}.downsample.conv", size, size, 3, 3)
            skips.append(size)
    resnet("mid.block_1", size, size)
    attention("mid.attn_1", size)
    resnet("mid.block_2", size, size)
    for i in reversed(range(len(factors))):
        for j in range(blocks + 1):
            resnet(f"up.{i}.block.{j}", size + skips.pop(), width * factors[i])
            size = width * factors[i]
            if i in attends:
                attention(f"up.{i}.attn.{j}", size)
        if i:
            layer(f"up.{i}.upsample.conv", size, size, 3, 3)
    layer("norm_out", size)
    layer("conv_out", channels, size, 3, 3)
    return shapes


def wave(shape: tuple[int, ...], phase: float) -> np.ndarray:
    return np.sin(0.61 * np.arange(int(np.prod(shape))) ** 1.1 + phase).reshape(shape)


def by_formula(shapes: dict) -> dict[str, Tensor]:
    """Weights that need no random number generator."""
    state = {}
    for name, shape in shapes.items():
        value = wave(shape, sum(map(ord, name)))
        if len(shape) > 1:
            value = value * (1.5 / np.prod(shape[1:])) ** 0.5
        else:
            value = 0.1 * value + ("norm" in name and name.endswith("weight"))
        state[name] = torch.from_numpy(value).float()
    return state


BLOCK = {
    "conv1.weight": (64, 64, 1, 1),
    "conv1.bias": (64,),
    "temb_proj.weight": (64, 128),
    "temb_proj.bias": (64,),
    "norm2.weight": (64,),
    "norm2.bias": (64,),
    "conv2.weight": (64, 64, 1, 1),
    "conv2.bias": (64,),
}
EVERY = 96  # th value is compared
EPS = [-0.22505, 0.02027, 0.03801, 0.39376, 0.13488, 0.42116, -0.10847, 0.02318]  # at timestep 400
LATENT = [-0.18558, -0.07091, 0.29135, 0.09459, 0.07395, -0.21453, -0.00029, -0.18529]  # 8 steps up to timestep 500
EDITED = [-1.50658, -0.62282, 1.44113, 0.79677, -0.09294, 1.6151, 1.72786, -0.5686]  # t_edit 250, .3 of the shift
BOOSTED = [-1.51132, -0.87298, 1.33629, 1.04672, -0.25016, 1.74575, 1.66165, -0.44228]  # and noise below 150


def samples(x: Tensor) -> list[float]:
    return x.flatten()[::EVERY].tolist()


@pytest.fixture(scope="module")
def original_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "celeba_hq.ckpt"
    torch.save(by_formula(original_shapes(32, (1, 2), 1, (1,), 3)), path)
    return path


def test_inversion_and_editing_equal_asyrps_own(original_file, tmp_path, monkeypatch):
    settings = {"resolution": 16, "steps": 8, "t_last": 500, "t_edit": 250, "t_boost": 0, "exact": False}
    backbone = DDPMBackbone.from_file(original_file, **settings)
    blocks = tmp_path / "smiling_LC_CelebA_HQ_t500_ninv40_ngen40_0.pth"
    torch.save({"0": by_formula(BLOCK), "optimizer": {"state": {}}}, blocks)
    steering = HSpace.from_asyrp({"happy": blocks})

    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 2, indexing="ij")
    picture = torch.stack([0.8 * torch.sin(3 * x + k) * torch.cos(2 * y - k) for k in range(3)])[None]
    with torch.no_grad():
        assert samples(backbone.unet(picture, 400).sample) == pytest.approx(EPS, abs=1e-4)
    inversion = backbone.invert(picture)
    assert samples(inversion.latent) == pytest.approx(LATENT, abs=1e-4)

    latent = torch.from_numpy(0.5 * wave((1, 3, 16, 16), 5)).float()
    inversion = Inversion(latent, inversion.extras)
    edited = backbone.decode(inversion, steering.control(backbone, inversion, [Edit("happy", 0.3)]))
    assert samples(edited) == pytest.approx(EDITED, abs=1e-4)

    draws = iter([torch.from_numpy(wave((1, 3, 16, 16), k)).float() for k in range(4)])
    monkeypatch.setattr(sampling, "picture_noise", lambda *_: lambda: next(draws))
    boosting = backbone.with_sampling(t_boost=150)
    boosted = boosting.decode(inversion, steering.control(boosting, inversion, [Edit("happy", 0.3)]))
    assert samples(boosted) == pytest.approx(BOOSTED, abs=1e-4)
    assert len(list(draws)) == 1  # three timesteps lie below 150


# Inversion and decoding


def test_an_exact_inversion_is_exact_with_and_without_the_network(backbone):
    x = smooth()
    inversion = backbone.invert(x)
    assert torch.equal(backbone.decode(inversion), x)
    through = backbone.decode(inversion, Control(delta_h=lambda state: torch.zeros_like(state.h)))
    torch.testing.assert_close(through, x, atol=1e-4, rtol=0)
    plain = backbone.with_sampling(exact=False)
    lossy = plain.decode(plain.invert(x))
    assert float((lossy - x).abs().mean()) > 1e-3
    assert torch.equal(plain.invert(x).latent, inversion.latent)


def test_nothing_is_edited_below_t_edit(backbone):
    inversion = backbone.invert(smooth())
    seen = []

    def look(state):
        seen.append(int(state.t[0]))
        return push(state)

    backbone.with_sampling(t_edit=360).decode(inversion, Control(delta_h=look))
    assert seen == [600, 480, 360]  # t_edit itself is edited


def test_a_batch_equals_a_loop(backbone):
    x, control = smooth(), Control(delta_h=push)
    boosting = backbone.with_sampling(t_boost=300)
    for model in (backbone, boosting, boosting.with_sampling(exact=False)):
        together = model.decode(model.invert(x, generator=torch.Generator().manual_seed(7)), control)
        for n in range(len(x)):
            alone = model.invert(x[n : n + 1], generator=torch.Generator().manual_seed(7))
            torch.testing.assert_close(model.decode(alone, control)[0], together[n], atol=2e-4, rtol=1e-4)


def test_boosting_draws_the_same_noise_for_an_edit_and_its_reconstruction(backbone):
    x, boosting = smooth(), backbone.with_sampling(t_boost=300)
    inversion = boosting.invert(x, generator=torch.Generator().manual_seed(7))
    reconstruction = boosting.decode(inversion)
    assert torch.equal(reconstruction, boosting.decode(inversion))
    # Computed from where noise begins, or all the way down: the same.
    none = Control(delta_h=lambda state: torch.zeros_like(state.h))
    torch.testing.assert_close(boosting.decode(inversion, none), reconstruction, atol=1e-4, rtol=0)
    other = boosting.invert(x, generator=torch.Generator().manual_seed(8))
    assert torch.equal(other.latent, inversion.latent)
    assert float((boosting.decode(other) - reconstruction).abs().mean()) > 1e-3


def test_light_is_taken_out_and_put_back():
    backbone, x = tiny(std=0.45), smooth() * 0.5
    dimmed = 0.4 * x - 0.3
    one, other = backbone.invert(x), backbone.invert(dimmed)
    torch.testing.assert_close(one.latent, other.latent, atol=1e-4, rtol=0)
    torch.testing.assert_close(backbone.decode(one), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(backbone.decode(other), dimmed, atol=1e-5, rtol=0)
    control = Control(delta_h=push)
    torch.testing.assert_close(
        0.4 * backbone.decode(one, control) - 0.3, backbone.decode(other, control), atol=1e-3, rtol=0
    )
    flat = backbone.decode(backbone.invert(torch.zeros(1, 1, 16, 16)), control)
    assert bool(flat.isfinite().all()) and float(flat.abs().max()) < 1


def test_progress_is_reported(backbone):
    x, done = smooth(1), []

    def callback(*step):
        done.append(step)

    inversion = backbone.invert(x, callback=callback)
    assert done == [(k, 6) for k in range(1, 7)]
    done.clear()
    backbone.decode(inversion, Control(delta_h=push), callback=callback)
    assert done == [(k, 6) for k in range(1, 7)]
    done.clear()
    backbone.decode(inversion, callback=callback)
    assert done == [(1, 1)]


def test_nothing_stays_behind_when_a_steering_fails(backbone):
    inversion = backbone.invert(smooth(1))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    extras = {name: value.clone() for name, value in inversion.extras.items()}

    def fail(state):
        raise RuntimeError("from a steering")

    with pytest.raises(RuntimeError, match="from a steering"):
        backbone.decode(inversion, Control(delta_h=fail))
    with pytest.raises(CheckpointError, match=r"\(1, 16, 1, 1\).*\(1, 16, 8, 8\)"):
        backbone.decode(inversion, Control(delta_h=lambda state: state.h.mean((2, 3), keepdim=True)))
    backbone.decode(inversion, Control(delta_h=push))
    for module in backbone.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in before.items())
    assert all(torch.equal(value, inversion.extras[name]) for name, value in extras.items())


def test_the_path_shows_what_inversion_passes_through(backbone):
    x = smooth()
    states = list(backbone.path(x))
    assert [int(state.t[0]) for state, _ in states] == list(backbone.schedule.timesteps)
    assert torch.equal(states[0][0].x_t, x) and torch.equal(states[-1][0].x_t, backbone.invert(x).latent)
    assert all(state.h.shape == (3, *backbone.h_shape) for state, _ in states)
    state, eps = states[3]
    torch.testing.assert_close(eps, backbone.unet(state.x_t, state.t).sample, atol=1e-5, rtol=0)


def test_distance_curves_lead_to_the_ends_of_editing(backbone):
    x = smooth()

    def distance(one, other):
        return (one - other).square().mean((1, 2, 3))

    timesteps, predicted, noisy = backbone.distance_curves(x, distance)
    assert timesteps == backbone.schedule.timesteps and len(predicted) == len(noisy) == 6
    state, eps = list(backbone.path(x))[2]
    there = sampling.predicted_x0(state.x_t, eps, backbone.schedule.alpha_bar[2])
    assert predicted[2] == pytest.approx(float(distance(there, x).mean()), rel=1e-4)
    assert noisy[0] == 0 < noisy[3]
    assert sampling.first_reaching(timesteps, noisy, noisy[3]) in timesteps[1:4]


def test_a_picture_whose_h_is_not_shifted_costs_no_second_pass(backbone):
    x = smooth()
    inversion, rows = backbone.invert(x), []
    seen = backbone.unet.conv_out.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    ends = 400  # of the steps that may shift h one shifts none
    mask = torch.tensor([1.0, 0.0, 1.0])[:, None, None, None]

    def some(state):
        return mask * push(state) if state.t[0] >= ends else torch.zeros_like(state.h)

    def all_of_them(state):
        return push(state) if state.t[0] >= ends else torch.zeros_like(state.h)

    try:
        mixed = backbone.decode(inversion, Control(delta_h=some))
    finally:
        seen.remove()
    shifted = sum(t >= ends for t in backbone.schedule.timesteps)
    assert rows == [5] * shifted + [3] * (backbone.steps - shifted) and shifted == 2
    everywhere = backbone.decode(inversion, Control(delta_h=all_of_them))
    torch.testing.assert_close(mixed[[0, 2]], everywhere[[0, 2]], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], x[1], atol=2e-4, rtol=1e-4)


# Precision


def test_bfloat16_draws_nearly_the_same(backbone):
    x, control = smooth(), Control(delta_h=push)
    low = backbone.with_sampling(precision="bfloat16")
    inversion = backbone.invert(x)
    change = backbone.decode(inversion, control) - x
    difference = low.decode(inversion, control) - backbone.decode(inversion, control)
    assert 0 < float(difference.norm()) < 0.2 * float(change.norm())
    assert all(p.dtype == torch.float32 for p in low.parameters())
    assert torch.equal(low.decode(low.invert(x)), x)


def test_bfloat16_follows_the_weights():
    low = tiny(precision="bfloat16")
    before = low.invert(smooth()).latent
    low.load_state_dict({k: v * 1.1 for k, v in low.state_dict().items()})
    assert float((low.invert(smooth()).latent - before).abs().max()) > 1e-3


class BreaksInHalf(nn.Module):
    """Gives NaN in bfloat16."""

    def __init__(self, inner: nn.Module, always: bool = False) -> None:
        super().__init__()
        self.inner, self.always = inner, always

    def forward(self, x):
        out = self.inner(x)
        return out * float("nan") if self.always or x.dtype == torch.bfloat16 else out


def test_nan_of_bfloat16_steps_up_and_is_logged(caplog):
    x = smooth()
    backbone = tiny()
    truth = backbone.invert(x)
    backbone.unet.conv_act = BreaksInHalf(backbone.unet.conv_act)
    with caplog.at_level(logging.WARNING):
        stepped = backbone.with_sampling(precision="bfloat16").invert(x)
    assert torch.equal(stepped.latent, truth.latent)
    assert [record.message for record in caplog.records if record.name.startswith("emoedit")] == [
        "bfloat16 gave values that are not finite at timestep 0; going on in float32"
    ]
    backbone.unet.conv_act.always = True
    with pytest.raises(EditError, match="not finite at timestep 0"):
        backbone.invert(x)


def test_boosting_what_changes_keeps_the_source_and_redraws_the_edit(backbone):
    x, local = smooth(), backbone.with_sampling(t_boost=300, boost="changed")
    inversion = local.invert(x, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(local.decode(inversion), x, atol=1e-5, rtol=0)  # nothing is drawn where nothing changes
    none = Control(delta_h=lambda state: torch.zeros_like(state.h))
    torch.testing.assert_close(local.decode(inversion, none), x, atol=2e-4, rtol=0)
    strong = Control(delta_h=lambda state: 4 * push(state))
    other = local.invert(x, generator=torch.Generator().manual_seed(8))
    plain = backbone.decode(backbone.invert(x), strong)
    assert float((local.decode(inversion, strong) - plain).abs().max()) > 1e-3
    assert float((local.decode(inversion, strong) - local.decode(other, strong)).abs().max()) > 1e-3


def test_a_strength_beyond_numbers_is_an_error(backbone):
    inversion = backbone.invert(smooth(1))
    with pytest.raises(EditError, match="strength"):
        backbone.decode(inversion, Control(delta_h=lambda state: state.h * 1e38 * 1e10))


# What does not fit


def test_settings_outside_the_schedule_are_refused(backbone):
    for settings, match in (
        ({"t_edit": 601}, "t_edit is 601.*0 to 600"),
        ({"t_edit": -1}, "t_edit"),
        ({"t_boost": 501, "t_last": 500}, "t_boost is 501.*0 to 500"),
        ({"steps": 1001}, "1001 steps"),
        ({"steps": 1}, "1 steps"),
        ({"steps": 20, "t_last": 9, "t_edit": 5}, "20 steps"),
        ({"t_last": 1000}, "0 to 999"),
        ({"precision": "float8"}, "bfloat16"),
        ({"boost": "mouth"}, "everywhere or changed"),
        ({"boost": "changed", "t_boost": 300, "exact": False}, "needs exact"),
        ({"steps": "40"}, "whole number"),
    ):
        with pytest.raises(EditError, match=match):
            tiny(**settings)
        with pytest.raises(EditError, match=match):
            backbone.with_sampling(**settings)
    with pytest.raises(EditError, match="unet: no settings of sampling"):
        backbone.with_sampling(unet={})


def test_inversions_of_other_settings_are_refused(backbone):
    inversion = backbone.invert(smooth(1))
    for settings in ({"steps": 5}, {"t_boost": 300}, {"t_last": 500}):
        with pytest.raises(EditError, match="invert again"):
            backbone.with_sampling(**settings).decode(inversion, Control(delta_h=push))
    backbone.with_sampling(t_edit=200).decode(inversion, Control(delta_h=push))  # what does not matter may change
    plain = backbone.with_sampling(exact=False).invert(smooth(1))
    assert backbone.with_sampling(steps=9).decode(plain).shape == (1, 1, 16, 16)


def test_pictures_and_controls_that_do_not_fit_are_refused(backbone):
    for bad in (torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 32, 32), torch.zeros(1, 16, 16)):
        with pytest.raises(ImageError, match=r"expected \[N, 1, 16, 16\]"):
            backbone.invert(bad)
    with pytest.raises(EditError, match="text"):
        backbone.decode(backbone.invert(smooth(1)), Control(context=torch.zeros(1, 2, 3)))


def test_a_shift_of_x_t_is_added(backbone):
    inversion = backbone.invert(smooth(1))
    shift = torch.full_like(inversion.latent, 0.1)
    moved = Inversion(inversion.latent + shift, inversion.extras)
    none = Control(delta_h=lambda state: torch.zeros_like(state.h))
    there = backbone.decode(inversion, Control(shift=shift))
    torch.testing.assert_close(there, backbone.decode(moved, none), atol=1e-4, rtol=0)
    assert float((there - smooth(1)).abs().mean()) > 1e-2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sample_size": None}, "sample_size None"),
        ({"sample_size": 15}, "multiple of 2"),
        ({"out_channels": 2}, "1 channels in and 2 out"),
        ({"in_channels": 4, "out_channels": 4}, "4 channels in"),
        ({"time_embedding_type": "fourier"}, "fourier"),
        ({"num_class_embeds": 10}, "class conditioning"),
        ({"mid_block_type": None}, "mid_block_type None"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "SkipDownBlock2D"),
        ({"down_block_types": ["DownBlock2D"]}, "not the arguments"),
        ({"norm_num_groups": 7}, "not the arguments"),
        ({"colour": True}, "colour"),
    ],
)
def test_unets_of_another_kind_are_refused(changes, match):
    with pytest.raises(CheckpointError, match=match):
        tiny(unet=changes)


def test_schedules_of_noise():
    for schedule in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        backbone = tiny(scheduler={"beta_schedule": schedule, "num_train_timesteps": 100}, t_last=None, t_edit=50)
        assert len(backbone.alpha_bar) == 100 and bool((backbone.alpha_bar.diff() < 0).all())
    for scheduler, match in (
        ({"beta_schedule": "quartic"}, "quartic"),
        ({"beta_end": 2.0}, "between 0 and 1"),
        ({"noise": 1}, "noise"),
    ):
        with pytest.raises(CheckpointError, match=match):
            tiny(scheduler=scheduler)


# Files


def test_save_then_load_is_bit_equal(tmp_path):
    backbone = tiny(std=0.45, crop_style="stable", crop_scale=0.66, symmetric=True)
    backbone.save_pretrained(tmp_path)
    again = DDPMBackbone.from_pretrained(tmp_path)
    assert again.config == backbone.config and again.crop == backbone.crop
    assert again.unet.state_dict().keys() == backbone.unet.state_dict().keys()
    x = smooth()
    one, other = backbone.invert(x), again.invert(x)
    assert torch.equal(one.latent, other.latent)
    control = Control(delta_h=push)
    assert torch.equal(backbone.decode(one, control), again.decode(other, control))
    assert DDPMBackbone.from_pretrained(tmp_path, steps=9).steps == 9
    copied = DDPMBackbone.from_config(json.loads(json.dumps(backbone.to_config())))
    assert copied.config == backbone.config


def test_diffusers_reads_what_is_saved(tmp_path, backbone):
    from diffusers import DDIMPipeline

    backbone.save_pretrained(tmp_path)
    pipeline = DDIMPipeline.from_pretrained(tmp_path)
    x = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(pipeline.unet(x, 400).sample, backbone.unet(x, 400).sample)
    torch.testing.assert_close(pipeline.scheduler.alphas_cumprod.double(), backbone.alpha_bar, atol=1e-6, rtol=1e-5)


def test_folders_with_files_at_the_top_and_old_names_are_read(tmp_path, backbone):
    """As google/ddpm-ema-celebahq-256 has them."""
    unet = {"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", **UNET}
    (tmp_path / "config.json").write_text(json.dumps(unet))
    scheduler = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    scheduler |= {"clip_sample": True, "trained_betas": None, "num_train_timesteps": 1000}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
    old = {}
    for name, value in backbone.unet.state_dict().items():
        for new, former in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{former}.")
        old[name] = value
    assert "mid_block.attentions.0.proj_attn.weight" in old
    torch.save(old, tmp_path / "diffusion_pytorch_model.bin")
    read = DDPMBackbone.load(tmp_path, **SAMPLING)
    assert torch.equal(read.invert(smooth()).latent, backbone.invert(smooth()).latent)
    assert (read.crop.style, read.crop.scale, read.crop.resolution, read.config.std) == ("ffhq", 1.0, 16, None)

    (tmp_path / "scheduler_config.json").write_text(json.dumps({**scheduler, "prediction_type": "v_prediction"}))
    with pytest.raises(CheckpointError, match="v_prediction"):
        DDPMBackbone.load(tmp_path)
    (tmp_path / "scheduler_config.json").unlink()
    with pytest.raises(CheckpointError, match="scheduler_config.json is missing"):
        DDPMBackbone.load(tmp_path)


def test_damaged_folders_are_refused(tmp_path, backbone):
    def fresh():
        backbone.save_pretrained(tmp_path)

    for name in ("unet/config.json", "scheduler/scheduler_config.json", f"unet/{checkpoints.WEIGHTS}"):
        fresh()
        (tmp_path / name).unlink()
        with pytest.raises(CheckpointError, match="missing"):
            DDPMBackbone.from_pretrained(tmp_path)
    fresh()
    (tmp_path / f"unet/{checkpoints.WEIGHTS}").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match="safetensors"):
        DDPMBackbone.from_pretrained(tmp_path)
    for change, match in (
        ({"block_out_channels": [8, 32]}, "expected"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel.*expected a UNet2DModel"),
    ):
        fresh()
        config = json.loads((tmp_path / "unet/config.json").read_text())
        (tmp_path / "unet/config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=match):
            DDPMBackbone.from_pretrained(tmp_path)
    fresh()
    (tmp_path / "config.json").write_text('{"colour": 9}')
    with pytest.raises(CheckpointError, match="colour"):
        DDPMBackbone.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError):
        DDPMBackbone.load(tmp_path / "nothing")


def test_an_original_file_says_its_own_architecture(original_file):
    state = ddpm_files.read_tensors(original_file)
    config = ddpm_files.original_config(state, original_file)
    assert config["sample_size"] == 32  # the second of its levels attends, at 16 pixels
    assert (config["block_out_channels"], config["layers_per_block"], config["in_channels"]) == ([32, 64], 1, 3)
    assert config["down_block_types"] == ["DownBlock2D", "AttnDownBlock2D"]
    # The published CelebA-HQ model by the shapes of its tensors.
    shapes = original_shapes(128, (1, 1, 2, 2, 4, 4), 2, (4,), 3)
    with torch.device("meta"):
        full = {name: torch.empty(shape) for name, shape in shapes.items()}
    config = ddpm_files.original_config(full, "celeba_hq.ckpt")
    assert (config["sample_size"], config["block_out_channels"]) == (256, [128, 128, 256, 256, 512, 512])
    assert config["up_block_types"] == ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4
    from diffusers import UNet2DModel

    with torch.device("meta"):
        unet = UNet2DModel(**config)
    checkpoints.check_state(
        {name: torch.zeros(()).expand(value.shape) for name, value in unet.state_dict().items()},
        {name: torch.zeros(()).expand(value.shape) for name, value in ddpm_files.convert_original(full).items()},
        "celeba_hq.ckpt",
    )


def test_original_files_that_do_not_fit_are_refused(original_file, tmp_path, backbone):
    state = ddpm_files.read_tensors(original_file)

    def refused(contents, match, **settings):
        torch.save(contents, tmp_path / "x.ckpt")
        with pytest.raises(CheckpointError, match=match):
            DDPMBackbone.load(tmp_path / "x.ckpt", **settings)

    refused(backbone.unet.state_dict(), "expected the original DDPM's")
    refused([state], "holds a list")
    refused({}, "holds a dict")
    refused({k: v for k, v in state.items() if k != "conv_in.weight"}, "no conv_in.weight")
    refused({k: v for k, v in state.items() if k != "mid.attn_1.q.weight"}, "1 missing.*mid_block.attentions.0.to_q")
    refused({**state, "layer_0.conv1.weight": torch.zeros(1)}, "1 unexpected.*layer_0")
    refused({**state, "conv_out.bias": torch.full((3,), float("nan"))}, "not finite")
    refused({k: v for k, v in state.items() if ".attn." not in k}, "give resolution")
    refused({k: v for k, v in state.items() if not k.startswith("down")}, "blocks each")
    refused(state, "multiple of 2", resolution=17)
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match="more than tensors"):
        DDPMBackbone.load(tmp_path / "x.ckpt")
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "x.ckpt")
    assert DDPMBackbone.load(tmp_path / "x.ckpt", resolution=16).h_shape == (64, 8, 8)

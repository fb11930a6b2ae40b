"""The Stable Diffusion backbone: SD 1.5's folder at tiny widths, the U-Net cut at h, inversions, guidance, the mask."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emoedit import sampling
from emoedit.editors import Editor
from emoedit.io import checkpoints
from emoedit.models.stable_diffusion import files
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.inversion import noise_maps, path_residuals
from emoedit.models.stable_diffusion.unet import down, up
from emoedit.steering.hspace import Directions, HSpace
from emoedit.types import CheckpointError, Control, Edit, EditError, ImageError, Inversion, UnknownNameError
from tests.fixtures.stable_diffusion import smooth, tiny, tokenizer, write_model

# A smaller one, luminance, for everything that needs no file

PATHS = ({}, {"inversion": "null_text", "negative": "", "null_iterations": 2}, {"inversion": "edit_friendly"})


@pytest.fixture(scope="module")
def backbone() -> StableDiffusionBackbone:
    return tiny()


def push(state) -> Tensor:
    """A delta_h that looks at all it may look at, and differs between pictures only through them."""
    return 2 * torch.tanh(state.h.roll(1, 1)) + state.temb.mean() + state.t[:, None, None, None] / 1000


def nothing(state) -> Tensor:
    return torch.zeros_like(state.h)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def latents(monkeypatch):
    """decode gives the latent that the VAE would draw."""
    monkeypatch.setattr(StableDiffusionBackbone, "to_picture", lambda self, z, mean, gain: z)


# The cut


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers_per_block": 2, "center_input_sample": True, "flip_sin_to_cos": False, "freq_shift": 1},
        {"use_linear_projection": True, "attention_head_dim": [2, 4], "upcast_attention": True},  # as 2.x
        {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "transformer_layers_per_block": 2},
        {"resnet_time_scale_shift": "scale_shift", "downsample_padding": 0, "mid_block_scale_factor": 2},
    ],
)
def test_the_two_halves_are_the_whole(changes):
    unet = tiny(unet=changes).unet
    x, t, context = torch.randn(3, 2, 8, 8), torch.tensor([999, 400, 0]), torch.randn(3, 16, 16)
    h, skips, temb = down(unet, x, t, context)
    torch.testing.assert_close(up(unet, h, skips, temb, context), unet(x, t, context).sample, atol=1e-6, rtol=0)


def test_h_has_the_shape_it_says(backbone):
    state = backbone.state(torch.randn(3, *backbone.latent_shape), 400)
    assert state.h.shape == (3, *backbone.h_shape) and state.temb.shape == (3, backbone.temb_dim)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_guidance_acts_on_the_context_and_a_shift_of_h_is_added(prediction):
    backbone = tiny(guidance=3.0, scheduler={"prediction_type": prediction})
    x, neutral, other = torch.randn(2, *backbone.latent_shape), backbone.context(), backbone.context("a happy face")
    a = float(backbone.alpha_bar[300])

    def e(context, shift=None):
        context = context.expand(2, -1, -1)
        h, skips, temb = down(backbone.unet, x, torch.tensor([300, 300]), context)
        found = up(backbone.unet, h if shift is None else h + shift, skips, temb, context)
        return found if prediction == "epsilon" else a**0.5 * found + (1 - a) ** 0.5 * x

    shift = torch.randn(2, *backbone.h_shape)
    n, c, shifted = e(neutral), e(other), e(other, shift)
    assert float((n - c).abs().max()) > 1e-3 < float((shifted - c).abs().max())
    for changes, expected, moved in (
        ({}, n + 3 * (c - n), shifted - c),
        ({"guidance": 1.0}, c, shifted - c),
        ({"negative": "a photo"}, e(backbone.context("a photo")) * -2 + 3 * c, shifted - c),
        ({"t_text_max": 299}, n, e(neutral, shift) - n),
        (
            {"t_text_max": 299, "negative": "a photo"},
            e(backbone.context("a photo")) * -2 + 3 * n,
            e(neutral, shift) - n,
        ),
        ({"t_edit": 301}, n + 3 * (c - n), None),
    ):
        eps, eps_shifted = backbone.with_sampling(**changes).eps_at(other, lambda state: shift)(x, 300)
        torch.testing.assert_close(eps, expected, atol=1e-5, rtol=1e-5)
        if moved is None:
            assert eps_shifted is None
        else:
            torch.testing.assert_close(eps_shifted - eps, moved, atol=1e-5, rtol=1e-5)


def test_a_delta_h_can_look_under_other_contexts(backbone):
    x, happy, sad = torch.randn(2, *backbone.latent_shape), *backbone.context("a happy face", "a sad face").split(1)
    seen = []

    def look(state):
        seen.append((state.h, state.h_under(happy), state.h_under(sad)))
        return state.h_under(sad) - state.h

    eps, shifted = backbone.eps_at(happy, look)(x, 300)
    ((h, same, other),) = seen
    assert same is h  # computed once
    torch.testing.assert_close(h, backbone.state(x, 300, happy).h, atol=1e-4, rtol=0)
    torch.testing.assert_close(other, backbone.state(x, 300, sad).h, atol=1e-4, rtol=0)
    torch.testing.assert_close(backbone.state(x, 300, happy).h_under(sad), other, atol=1e-4, rtol=0)
    assert float((other - h).abs().max()) > 1e-3 < float((shifted - eps).abs().max())


# Parity with diffusers


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sampling_equals_diffusers_own_pipeline(prediction, tmp_path, latents):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    backbone = tiny(
        scheduler={"prediction_type": prediction},
        inversion="image_to_image",
        negative="a photo",
        guidance=3.0,
        steps=10,
        t_last=900,
        t_text_max=999,
    )
    backbone.save_pretrained(tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert isinstance(pipe.scheduler, DDIMScheduler)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, steps_offset=0, set_alpha_to_one=True)
    torch.testing.assert_close(pipe.scheduler.alphas_cumprod.double(), backbone.alpha_bar, atol=1e-6, rtol=1e-5)
    pipe.set_progress_bar_config(disable=True)
    # In double precision, and with alpha_bar not rounded to single: what is left is not the arithmetic's.
    pipe.scheduler.alphas_cumprod, pipe.scheduler.final_alpha_cumprod = backbone.alpha_bar, torch.tensor(1.0)
    for part in (pipe.unet, pipe.text_encoder, pipe.vae, backbone):
        part.double()
    x = torch.randn(1, *backbone.latent_shape, generator=generator()).double()
    how = {"num_inference_steps": 10, "guidance_scale": 3.0, "output_type": "latent", "height": 16, "width": 16}
    truth = pipe("a photo of a happy face", negative_prompt="a photo", latents=x, **how).images
    assert pipe.scheduler.timesteps.tolist() == list(backbone.schedule.timesteps)[::-1]
    inversion = Inversion(x, backbone.invert(smooth(1).double()).extras)
    ours = backbone.decode(inversion, Control(context=backbone.context("a photo of a happy face")))
    torch.testing.assert_close(ours, truth, atol=1e-7, rtol=1e-7)
    with torch.no_grad():
        embeds = pipe.encode_prompt("a photo of a sad face", "cpu", 1, False)[0]
    torch.testing.assert_close(backbone.context("a photo of a sad face"), embeds, atol=1e-6, rtol=0)


def test_noise_maps_lead_diffusers_own_ddpm_steps_along_the_path(backbone):
    from diffusers import DDIMScheduler

    backbone = backbone.with_sampling(inversion="edit_friendly", steps=10, t_last=900)
    inversion = backbone.invert(smooth(2), generator=generator())
    path, eps, z = (inversion.extras[name] for name in ("path", "eps", "x0"))
    maps = noise_maps(path_residuals(path, z, eps, backbone.schedule, stochastic=True), backbone.schedule)
    betas = files.betas(backbone.config.scheduler).numpy()
    scheduler = DDIMScheduler(trained_betas=betas, clip_sample=False)
    scheduler.set_timesteps(10)
    for k in range(1, 10):
        step = scheduler.step(eps[:, k], 100 * k, path[:, k], eta=1.0, variance_noise=maps[:, k])
        torch.testing.assert_close(step.prev_sample, path[:, k - 1], atol=1e-4, rtol=1e-4)
    # Each x_t has noise of its own.
    noise = torch.stack([(path[:, k] - a**0.5 * z) / (1 - a) ** 0.5 for k, a in enumerate(backbone.schedule.alpha_bar)])
    assert 0.8 < float(noise.std()) < 1.2
    assert float(torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max()) < 0.4


# Inversion and decoding


@pytest.mark.parametrize("settings", PATHS, ids=lambda settings: settings.get("inversion", "exact"))
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_exact_inversions_are_exact_with_and_without_the_network(settings, prediction):
    backbone, x = tiny(scheduler={"prediction_type": prediction}, **settings), smooth()
    inversion = backbone.invert(x, generator=generator())
    vae = backbone.to_picture(*backbone.to_latent(x))
    assert torch.equal(backbone.decode(inversion), vae)
    through = backbone.decode(inversion, Control(delta_h=nothing))
    torch.testing.assert_close(through, vae, atol=2e-3, rtol=0)
    edited = backbone.decode(inversion, Control(context=backbone.context("a happy face")))
    assert float((edited - vae).abs().mean()) > 1e-3


def test_plain_ddim_loses_what_exact_inversion_keeps(backbone):
    x = smooth()
    plain = backbone.with_sampling(inversion="ddim", masked=False)
    inversion = plain.invert(x)
    assert torch.equal(inversion.latent, backbone.invert(x).latent)
    vae = backbone.to_picture(*backbone.to_latent(x))
    assert float((plain.decode(inversion) - vae).abs().mean()) > 1e-3
    # The neutral context is no edit: from there on both are the same.
    assert torch.equal(plain.decode(inversion), plain.decode(inversion, Control(context=plain.context())))


def test_null_text_finds_embeddings_under_which_less_is_lost():
    def residuals(**settings) -> Tensor:
        backbone = tiny(negative="", guidance=4.0, **settings)
        extras = backbone.invert(smooth(2)).extras
        return path_residuals(extras["path"], extras["x0"], extras["eps"], backbone.schedule, stochastic=False)

    found, before = residuals(inversion="null_text", null_iterations=8), residuals()
    assert (found.square().sum((2, 3, 4)) < before.square().sum((2, 3, 4))).all()
    assert float(found.norm()) < 0.8 * float(before.norm())


def test_image_to_image_draws_the_picture_anew(backbone, latents):
    anew = backbone.with_sampling(inversion="image_to_image", t_last=400)
    x, context = smooth(), backbone.context("a happy face")
    inversion = anew.invert(x, generator=generator())
    z, a = inversion.extras["x0"], float(backbone.alpha_bar[400])
    assert float(((inversion.latent - a**0.5 * z) / (1 - a) ** 0.5).std()) == pytest.approx(1, abs=0.2)
    assert torch.equal(anew.decode(inversion), z)  # strength 0 leaves the picture alone
    drawn = anew.decode(inversion, Control(context=context))
    truth = sampling.decode(anew.eps_at(context), inversion.latent, anew.schedule)
    torch.testing.assert_close(drawn, truth)
    assert float((anew.decode(anew.invert(x), Control(context=context)) - drawn).abs().mean()) > 1e-2  # another seed


def test_outside_the_face_nothing_changes(backbone, latents):
    inversion = backbone.invert(smooth())
    outside, inside = backbone.face == 0, backbone.face > 0.9
    assert 0.3 < float(outside.float().mean()) < 0.8 and inside.any()
    for settings in PATHS:
        model = tiny(**settings)
        inversion = model.invert(smooth())
        for control in (Control(context=model.context("a happy face")), Control(delta_h=push)):
            change = (model.decode(inversion, control) - inversion.extras["x0"]).abs().mean((0, 1))
            assert float(change[outside[0, 0]].max()) < 1e-4
            assert float(change[inside[0, 0]].mean()) > 1e-2
            change = model.with_sampling(masked=False).decode(inversion, control) - inversion.extras["x0"]
            assert float(change.abs().mean((0, 1))[outside[0, 0]].mean()) > 1e-2


def contexts_seen(backbone, call) -> list[Tensor]:
    """The contexts of every pass, as the mid block saw them."""
    seen: list[Tensor] = []
    hook = backbone.unet.mid_block.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    try:
        call()
    finally:
        hook.remove()
    return seen


def test_a_step_computes_nothing_twice_and_the_context_has_its_limits(backbone):
    x, neutral, happy = smooth(), backbone.context(), backbone.context("a happy face")
    # Timesteps 0, 150, 300, 450, 600; text up to 450, h from 300 up.
    inversions = {}
    for settings, passes in (
        ({}, 5),
        ({"guidance": 1.0}, 5),
        ({"inversion": "edit_friendly"}, 5),
        ({"negative": ""}, 10),
        ({"inversion": "image_to_image"}, 0),
    ):
        model = backbone.with_sampling(**settings)
        seen = contexts_seen(model, lambda m=model, s=str(settings): inversions.update({s: m.invert(x)}))
        assert len(seen) == passes
    inversion = inversions["{}"]
    assert contexts_seen(backbone, lambda: backbone.decode(inversion)) == []
    assert contexts_seen(backbone, lambda: backbone.decode(inversion, Control(context=neutral))) == []
    seen = contexts_seen(backbone, lambda: backbone.decode(inversion, Control(context=happy)))
    assert [len(c) for c in seen] == [6] * 4  # the step at 600 is the source's own
    assert all(torch.equal(c[:3], happy.expand(3, -1, -1)) for c in seen)
    assert all(torch.equal(c[3:], neutral.expand(3, -1, -1)) for c in seen)
    late = backbone.with_sampling(t_text_min=100, t_text_max=200, guidance=1.0)
    seen = contexts_seen(late, lambda: late.decode(inversion, Control(context=happy)))
    assert [torch.equal(c, happy.expand(3, -1, -1)) for c in seen] == [True, False]
    seen = contexts_seen(
        backbone, lambda: backbone.decode(inversion, Control(happy * 0, happy, push).__class__(None, happy, push))
    )
    assert [len(c) for c in seen] == [3, 6, 6, 6, 6]
    with pytest.raises(EditError, match="t_text_min and t_text_max leave none of the timesteps 0 to 600"):
        backbone.with_sampling(t_text_min=10, t_text_max=20).decode(inversion, Control(context=happy))
    with pytest.raises(EditError, match="t_edit leave"):
        backbone.with_sampling(t_edit=700).decode(inversion, Control(delta_h=push))


def test_each_picture_reads_its_text_between_its_own_timesteps(backbone):
    x, happy = smooth(), backbone.context("a happy face")
    inversion = backbone.invert(x)
    low, high = backbone.config.t_text_min, backbone.config.t_text_max
    alike = Control(context=happy, spans=torch.tensor([[low, high]] * 3))
    truth = backbone.decode(inversion, Control(context=happy))
    assert torch.equal(backbone.decode(inversion, alike), truth)
    other = backbone.with_sampling(t_text_min=150, t_text_max=300)
    late = other.decode(inversion, Control(context=happy))
    spans = torch.tensor([[low, high], [150, 300], [9000, 9999]])
    mixed = backbone.decode(inversion, Control(context=happy.expand(3, -1, -1), spans=spans))
    torch.testing.assert_close(mixed[0], truth[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], late[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[2], backbone.decode(inversion)[2], atol=1e-4, rtol=1e-4)
    assert float((late[1] - truth[1]).abs().mean()) > 1e-3
    with pytest.raises(EditError, match="the token's own limits leave none of the timesteps 0 to 600"):
        backbone.decode(inversion, Control(context=happy, spans=torch.tensor([[10, 20]] * 3)))


def test_a_picture_whose_h_is_not_shifted_costs_no_second_pass(backbone):
    x, happy, rows = smooth(), backbone.context("a happy face"), []
    inversion = backbone.invert(x)
    mask = torch.tensor([1.0, 0.0, 1.0])[:, None, None, None]
    seen = backbone.unet.conv_out.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        mixed = backbone.decode(inversion, Control(context=happy, delta_h=lambda state: mask * push(state)))
    finally:
        seen.remove()
    assert set(rows) <= {5, 6, 8} and 8 in rows  # both texts of three pictures, and two of them once more
    both = backbone.decode(inversion, Control(context=happy, delta_h=push))
    torch.testing.assert_close(mixed[[0, 2]], both[[0, 2]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        mixed[1], backbone.decode(inversion, Control(context=happy, delta_h=nothing))[1], atol=1e-4, rtol=1e-4
    )


def test_nan_of_bfloat16_steps_up_and_is_logged(caplog):
    class Breaks(torch.nn.SiLU):
        def forward(self, x):
            return super().forward(x) * (float("nan") if x.dtype == torch.bfloat16 else 1)

    backbone, x = tiny(), smooth()
    truth = backbone.invert(x)
    backbone.unet.conv_act = Breaks()
    with caplog.at_level(logging.WARNING):
        stepped = backbone.with_sampling(precision="bfloat16").invert(x)
    assert torch.equal(stepped.latent, truth.latent)
    assert {record.message.split(" at ")[0] for record in caplog.records if record.name.startswith("emoedit")} == {
        "bfloat16 gave values that are not finite"
    }


@pytest.mark.parametrize("settings", PATHS, ids=lambda settings: settings.get("inversion", "exact"))
def test_either_part_of_an_edit_at_strength_0_leaves_the_other_to_the_bit(settings):
    backbone = tiny(**settings)
    inversion = backbone.invert(smooth())
    neutral, happy = backbone.context(), backbone.context("a happy face")
    text, shift = Control(context=happy), Control(delta_h=push)
    by_text, by_shift = backbone.decode(inversion, text), backbone.decode(inversion, shift)
    assert torch.equal(backbone.decode(inversion, Control(context=neutral.expand(3, -1, -1)) + shift), by_shift)
    # A shift that is 0 has to walk the steps above the text's own, and rounding with them: there the path is the same.
    everywhere = backbone.with_sampling(t_text_max=600)
    assert torch.equal(
        everywhere.decode(inversion, text + Control(delta_h=nothing)), everywhere.decode(inversion, text)
    )
    both = backbone.decode(inversion, text + shift)
    assert float((both - by_text).abs().mean()) > 1e-3 < float((both - by_shift).abs().mean())


def test_the_effect_of_the_context_grows_with_its_strength(backbone, latents):
    inversion = backbone.invert(smooth())
    neutral, happy = backbone.context(), backbone.context("a happy face")
    sizes = [
        float(
            (
                backbone.decode(inversion, Control(context=neutral + s * (happy - neutral))) - inversion.extras["x0"]
            ).norm()
        )
        for s in (0.0, 1e-3, 2e-3, 0.25, 0.5, 1.0)
    ]
    assert sizes[0] == 0 and sizes == sorted(sizes)
    assert sizes[2] == pytest.approx(2 * sizes[1], rel=0.15)  # no jump at 0


KINDS = (*PATHS, {"inversion": "ddim"}, {"inversion": "image_to_image"}, {"t_boost": 300})
KINDS += ({"t_boost": 300, "boost": "changed", "std": 0.45},)


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_batch_equals_a_loop(settings):
    backbone, x = tiny(**settings).double(), smooth().double()  # rounding grows where weights are random
    contexts = backbone.context("a happy face", "a sad face", "a photo of a face")
    control = Control(context=contexts, delta_h=push)
    together = backbone.decode(backbone.invert(x, generator=generator()), control)
    for n in range(len(x)):
        alone = backbone.invert(x[n : n + 1], generator=generator())
        drawn = backbone.decode(alone, Control(context=contexts[n : n + 1], delta_h=push))
        torch.testing.assert_close(drawn[0], together[n], atol=1e-8, rtol=1e-8)


def test_boosting_draws_the_same_noise_for_an_edit_and_its_reconstruction():
    boosting, x = tiny(t_boost=300), smooth()
    inversion = boosting.invert(x, generator=generator())
    reconstruction = boosting.decode(inversion)
    assert torch.equal(reconstruction, boosting.decode(inversion))
    torch.testing.assert_close(boosting.decode(inversion, Control(delta_h=nothing)), reconstruction, atol=2e-3, rtol=0)
    other = boosting.decode(boosting.invert(x, generator=torch.Generator().manual_seed(8)))
    assert float((other - reconstruction).abs().mean()) > 1e-3


def test_local_boosting_draws_noise_where_an_edit_changes_something_and_nowhere_else(monkeypatch):
    boosting, x = tiny(t_boost=300, boost="changed", std=0.45, masked=False), smooth()
    inversion = boosting.invert(x, generator=generator())
    reconstruction = boosting.decode(inversion)
    assert torch.equal(reconstruction, boosting.with_sampling(t_boost=0).decode(inversion))
    torch.testing.assert_close(boosting.decode(inversion, Control(delta_h=nothing)), reconstruction, atol=2e-3, rtol=0)
    happy = Control(context=boosting.context("a happy face"))
    plain, everywhere = (
        boosting.with_sampling(**settings).decode(inversion, happy)
        for settings in ({"t_boost": 0}, {"boost": "everywhere"})
    )
    for where, expected in ((0.0, plain), (1.0, everywhere)):
        monkeypatch.setattr(
            "emoedit.sampling.change_mask", lambda predicted, source, w=where: torch.full_like(source[:, :1], w)
        )
        torch.testing.assert_close(boosting.decode(inversion, happy), expected, atol=1e-5, rtol=1e-5)
    assert float((plain - everywhere).abs().mean()) > 1e-3


def test_light_is_taken_out_and_put_back():
    backbone, x = tiny(std=0.45), smooth() * 0.5
    one, other = backbone.invert(x), backbone.invert(0.4 * x - 0.3)
    # Rounding grows along the inversion: 1.05e-4 on two threads. Light that stayed in would be a tenth.
    torch.testing.assert_close(one.latent, other.latent, atol=1e-3, rtol=0)
    for control in (Control(), Control(context=backbone.context("a happy face"))):
        dimmed = 0.4 * backbone.decode(one, control) - 0.3
        torch.testing.assert_close(dimmed, backbone.decode(other, control), atol=2e-3, rtol=0)


def test_progress_is_reported(backbone):
    for settings, walks in (({}, 1), (PATHS[1], 3), (PATHS[2], 1), ({"negative": ""}, 2)):
        done: list[tuple[int, int]] = []
        model = backbone.with_sampling(**settings)
        inversion = model.invert(smooth(1), callback=lambda *step, done=done: done.append(step))
        assert done == [(k, 5 * walks) for k in range(1, 5 * walks + 1)]
        done.clear()
        happy = Control(context=model.context("a happy face"))
        model.decode(inversion, happy, callback=lambda *step, done=done: done.append(step))
        assert done == [(k, 4) for k in range(1, 5)]
        done.clear()
        model.decode(inversion, callback=lambda *step, done=done: done.append(step))
        assert done == [(1, 1)]


def test_the_path_shows_what_inversion_passes_through(backbone):
    x = smooth()
    states, inversion = list(backbone.path(x)), backbone.invert(x)
    assert [int(state.t[0]) for state, _ in states] == list(backbone.schedule.timesteps)
    torch.testing.assert_close(states[-1][0].x_t, inversion.latent)
    for k, (state, eps) in enumerate(states):
        torch.testing.assert_close(eps, inversion.extras["eps"][:, k])
        assert state.h.shape == (3, *backbone.h_shape)
    neutral = backbone.context().expand(3, -1, -1)
    torch.testing.assert_close(states[2][1], backbone.unet(states[2][0].x_t, 300, neutral).sample, atol=1e-5, rtol=0)


def test_nothing_stays_behind_not_even_when_a_steering_fails(backbone):
    inversion = backbone.invert(smooth(1))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    extras = {name: value.clone() for name, value in inversion.extras.items()}

    def fail(state):
        raise RuntimeError("from a steering")

    with pytest.raises(RuntimeError, match="from a steering"):
        backbone.decode(inversion, Control(delta_h=fail))
    with pytest.raises(CheckpointError, match=r"\(1, 16, 1, 1\).*\(1, 16, 4, 4\)"):
        backbone.decode(inversion, Control(delta_h=lambda state: state.h.mean((2, 3), keepdim=True)))
    backbone.decode(inversion, Control(context=backbone.context("a happy face"), delta_h=push))
    for module in backbone.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in before.items())
    assert all(torch.equal(value, inversion.extras[name]) for name, value in extras.items())
    assert len(backbone.tokenizer) == len(tokenizer())


def test_shifts_of_h_are_fitted_and_used_as_on_other_backbones(backbone):
    states = list(backbone.path(smooth()))
    directions = Directions(torch.stack([s.h.mean(0) for s, _ in states]), [int(s.t[0]) for s, _ in states])
    editor = Editor(backbone, [HSpace(["happy"], [directions], train_steps=5)])
    inversion = editor.invert(smooth())
    (none, half, full) = editor.edit(inversion, [Edit("happy", s) for s in (0.0, 0.5, 1.0)])
    assert torch.equal(none, smooth())
    assert 0 < float((half - none).norm()) < float((full - none).norm())


def test_bfloat16_draws_nearly_the_same(backbone, latents):
    x, control = smooth(), Control(context=backbone.context("a happy face"))
    low = backbone.with_sampling(precision="bfloat16")
    inversion = backbone.invert(x)
    truth = backbone.decode(inversion, control)
    difference = low.decode(inversion, control) - truth
    assert 0 < float(difference.norm()) < 0.2 * float((truth - inversion.extras["x0"]).norm())
    assert all(p.dtype == torch.float32 for p in low.parameters())
    found = low.invert(x)
    assert torch.equal(low.decode(found), found.extras["x0"])


def test_models_loaded_in_inference_mode_work():
    with torch.inference_mode():
        backbone = tiny(precision="bfloat16")
    inversion = backbone.invert(smooth(1))
    assert bool(backbone.decode(inversion, Control(context=backbone.context("a happy face"))).isfinite().all())


def test_a_strength_beyond_numbers_is_an_error(backbone):
    inversion = backbone.invert(smooth(1))
    with pytest.raises(EditError, match="strength"):
        backbone.decode(inversion, Control(delta_h=lambda state: state.h * 1e38 * 1e10))


# What does not fit


def test_settings_that_make_no_sense_are_refused(backbone):
    for settings, match in (
        ({"t_edit": 1000}, "t_edit is 1000.*0 to 999"),
        ({"t_text_max": -1}, "t_text_max"),
        ({"steps": 1001}, "1001 steps"),
        ({"t_last": 1000}, "0 to 999"),
        ({"steps": "40"}, "whole number"),
        ({"precision": "float8"}, "bfloat16"),
        ({"inversion": "magic"}, "exact, ddim, null_text, edit_friendly, image_to_image"),
        ({"guidance": 0}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": "3"}, "guidance"),
        ({"negative": 3}, "prompts are text"),
        ({"inversion": "null_text"}, "give negative"),
        ({"inversion": "null_text", "negative": "", "guidance": 1}, "guidance above 1"),
        ({"inversion": "null_text", "negative": "", "null_iterations": 0}, "null_iterations"),
        ({"inversion": "edit_friendly", "t_boost": 100}, "noise of its own"),
        ({"boost": "somewhere"}, "everywhere or changed"),
        ({"boost": "changed", "t_boost": 100, "inversion": "ddim"}, "ddim keeps nothing"),
        ({"boost": "changed", "t_boost": 100}, "give std"),
    ):
        with pytest.raises(EditError, match=match):
            tiny(**settings)
        with pytest.raises(EditError, match=match):
            backbone.with_sampling(**settings)
    with pytest.raises(EditError, match="unet: no settings of sampling"):
        backbone.with_sampling(unet={})


def test_inversions_of_other_settings_are_refused(backbone):
    inversion = backbone.invert(smooth(1))
    control = Control(context=backbone.context("a happy face"))
    for settings, match in (
        ({"steps": 4}, "5 steps to timestep 600.*now takes 4"),
        ({"t_last": 500}, "to 500"),
        ({"inversion": "ddim"}, r"\(exact\).*\(ddim\)"),
        ({"negative": ""}, "another prompt"),
        ({"prompt": "a face"}, "another prompt"),
    ):
        with pytest.raises(EditError, match=match + ".*invert again"):
            backbone.with_sampling(**settings).decode(inversion, control)
    for settings in ({"guidance": 1.0}, {"t_text_max": 600}, {"masked": False}, {"t_boost": 200}):
        backbone.with_sampling(**settings).decode(inversion, control)  # what does not matter may change


def test_pictures_and_controls_that_do_not_fit_are_refused(backbone):
    for bad in (torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 32, 32), torch.zeros(1, 16, 16)):
        with pytest.raises(ImageError, match=r"expected \[N, 1, 16, 16\]"):
            backbone.invert(bad)
    inversion = backbone.invert(smooth(2))
    for bad in (torch.zeros(2, 16, 15), torch.zeros(2, 77, 16), torch.zeros(3, 16, 16), torch.zeros(16, 16)):
        with pytest.raises(CheckpointError, match=r"expected \[2, 16, 16\]"):
            backbone.decode(inversion, Control(context=bad))
    with pytest.raises(EditError, match="directions in a latent"):
        backbone.decode(inversion, Control(shift=torch.zeros_like(inversion.latent)))
    with pytest.raises(EditError, match="the text encoder reads 16"):
        backbone.context("a photo of the face " * 5)


@pytest.mark.parametrize(
    ("part", "changes", "match"),
    [
        ("unet", {"sample_size": None}, "sample_size None"),
        ("unet", {"sample_size": 7}, "multiple of 2"),
        ("unet", {"in_channels": 5}, "inpainting"),
        ("unet", {"cross_attention_dim": 32}, "cross_attention_dim 32 with a text encoder 16 wide"),
        ("unet", {"mid_block_type": "UNetMidBlock2D"}, "mid_block_type 'UNetMidBlock2D'"),
        ("unet", {"time_embedding_type": "fourier"}, "fourier"),
        ("unet", {"num_class_embeds": 10}, "num_class_embeds"),
        ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type"),
        ("unet", {"norm_num_groups": 7}, "not the arguments of a UNet2DConditionModel"),
        ("unet", {"colour": True}, "colour"),
        ("vae", {"in_channels": 2}, "VAE's 2 channels in"),
        ("vae", {"shift_factor": 0.1}, "shifted"),
        ("vae", {"colour": True}, "AutoencoderKL"),
        ("text_encoder", {"vocab_size": 100}, "has 5.. tokens, the text encoder 100"),
        ("text_encoder", {"num_attention_heads": 5}, "CLIPTextModel"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part, changes, match):
    with pytest.raises(CheckpointError, match=match):
        tiny(**{part: changes})


def test_schedules_of_noise_that_do_not_fit_are_refused():
    for scheduler, match in (
        ({"beta_schedule": "quartic"}, "quartic"),
        ({"beta_end": 2.0}, "between 0 and 1"),
        ({"prediction_type": "sample"}, "'sample'"),
        ({"rescale_betas_zero_snr": True}, "no signal at all"),
    ):
        with pytest.raises(CheckpointError, match=match):
            tiny(scheduler=scheduler)


# Files


@pytest.fixture(scope="module")
def sd15(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("sd15"))


@pytest.fixture
def damaged(sd15, tmp_path) -> Path:
    """A copy of the folder, to be damaged."""
    return Path(shutil.copytree(sd15, tmp_path / "model"))


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_a_folder_as_published_is_used_from_inversion_to_edit(sd15, tmp_path):
    """Configuration keys and tensor names of Stable Diffusion 1.5: RGB, four levels, old attention names."""
    from diffusers import StableDiffusionPipeline

    backbone = StableDiffusionBackbone.load(sd15, steps=3, t_last=300, t_text_max=200)
    assert (backbone.crop.resolution, backbone.channels, backbone.latent_shape) == (64, 3, (4, 8, 8))
    assert not backbone.v_prediction and float(backbone.alpha_bar[0]) == pytest.approx(1 - 0.00085)
    pipe = StableDiffusionPipeline.from_pretrained(sd15)
    x = smooth(1, 3, 64)
    with torch.no_grad():
        truth = pipe.vae.encode(x).latent_dist.mean * 0.18215
        embeds = pipe.encode_prompt("a photo of a face", "cpu", 1, False)[0]
        noise = pipe.unet(truth, 0, embeds).sample
    inversion = backbone.invert(x)
    torch.testing.assert_close(inversion.extras["x0"], truth, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inversion.extras["eps"][:, 0], noise, atol=1e-4, rtol=0)
    edited = backbone.decode(inversion, Control(context=backbone.context("a happy face")))
    assert edited.shape == (1, 3, 64, 64) and not torch.equal(edited, backbone.decode(inversion))

    backbone.save_pretrained(tmp_path / "again")
    again = StableDiffusionBackbone.from_pretrained(tmp_path / "again")
    assert again.config == backbone.config and again.crop == backbone.crop
    assert torch.equal(again.invert(x).latent, inversion.latent)
    assert {path.name for path in (tmp_path / "again" / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt"}


def test_save_then_load_is_bit_equal(tmp_path):
    backbone = tiny(std=0.45, crop_style="stable", crop_scale=0.66, negative="a photo", prompt="the face of a")
    backbone.save_pretrained(tmp_path)
    again = StableDiffusionBackbone.load(tmp_path).requires_grad_(False)  # torch rounds otherwise where it is asked for
    assert again.config == backbone.config and again.crop == backbone.crop
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())
    x, control = smooth(), Control(context=backbone.context("a happy face"))
    assert torch.equal(backbone.decode(backbone.invert(x), control), again.decode(again.invert(x), control))
    assert StableDiffusionBackbone.from_pretrained(tmp_path, steps=9).steps == 9
    assert again.tokenizer("a happy face")["input_ids"] == backbone.tokenizer("a happy face")["input_ids"]


def test_weights_of_older_files_and_in_half_precision_are_read(sd15, damaged):
    truth = StableDiffusionBackbone.load(sd15).state_dict()
    for part, old in (
        ("unet", checkpoints.WEIGHTS),
        ("vae", checkpoints.WEIGHTS),
        ("text_encoder", "model.safetensors"),
    ):
        path = damaged / part / old
        state = checkpoints.read_weights(path)
        path.unlink()
        if part == "unet":
            from safetensors.torch import save_file

            save_file({k: v.half() for k, v in state.items()}, path.with_suffix(".fp16.safetensors"))
        else:
            torch.save(state, damaged / part / ("pytorch_model.bin" if part == "text_encoder" else path.stem + ".bin"))
    for name, value in StableDiffusionBackbone.load(damaged).state_dict().items():
        expected = truth[name].half().float() if name.startswith("unet.") else truth[name]
        assert torch.equal(value, expected) and value.dtype == torch.float32


def test_v_prediction_of_2_x_is_read(damaged):
    change(damaged / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert StableDiffusionBackbone.load(damaged).v_prediction


@pytest.mark.parametrize(
    ("name", "how", "match"),
    [
        ("unet", None, "no Stable Diffusion in diffusers' layout: unet missing, found model_index.json"),
        ("scheduler/scheduler_config.json", None, "missing"),
        ("unet/config.json", None, "missing"),
        ("vae/diffusion_pytorch_model.safetensors", None, "vae/diffusion_pytorch_model.safetensors is missing"),
        ("text_encoder/model.safetensors", b"\x80\x04cos\nsystem\n", "safetensors"),
        ("tokenizer/vocab.json", None, "no vocabulary"),
        ("tokenizer/vocab.json", b"{", "tokenizer"),
        ("tokenizer/merges.txt", b"\xff\xfe", "tokenizer"),
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "UNet2DModel; expected a UNet2DConditionModel"),
        ("vae/config.json", {"_class_name": "VQModel"}, "VQModel"),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("unet/config.json", {"block_out_channels": [32, 32, 32, 64]}, "expected"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "'sample'"),
        ("text_encoder_2/config.json", b"{}", "SDXL"),
        ("config.json", b'{"colour": 9}', "colour"),
    ],
)
def test_folders_that_are_no_stable_diffusion_are_refused(damaged, name, how, match):
    path = damaged / name
    if how is None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif isinstance(how, dict):
        change(path, **how)
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(how)
    with pytest.raises(CheckpointError, match=match):
        StableDiffusionBackbone.load(damaged)


def test_weights_with_nan_or_too_few_are_refused(damaged):
    from safetensors.torch import save_file

    path = damaged / "unet" / checkpoints.WEIGHTS
    state = checkpoints.read_weights(path)
    save_file({**state, "conv_out.bias": torch.full((4,), float("nan"))}, path)
    with pytest.raises(CheckpointError, match="conv_out.bias holds values that are not finite"):
        StableDiffusionBackbone.load(damaged)
    save_file({k: v for k, v in state.items() if k != "conv_in.weight"}, path)
    with pytest.raises(CheckpointError, match="1 missing .conv_in.weight"):
        StableDiffusionBackbone.load(damaged)


def test_a_name_that_is_nothing_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.ckpt").write_bytes(b"")
    for name, error, match in (
        (tmp_path / "empty", CheckpointError, "found nothing"),
        (tmp_path / "nowhere", CheckpointError, "no folder"),
        (tmp_path / "file.ckpt", CheckpointError, "cannot be read: it is damaged"),
        ("stable", UnknownNameError, "owner/name"),
    ):
        with pytest.raises(error, match=match):
            StableDiffusionBackbone.load(name)


def test_of_the_hub_only_what_is_read_is_fetched(sd15, damaged, monkeypatch):
    import fnmatch

    import huggingface_hub

    for name in ("model.ckpt", "unet/diffusion_pytorch_model.non_ema.safetensors", "vae/diffusion_pytorch_model.bin"):
        (damaged / name).write_bytes(b"large")
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        names = [path.relative_to(damaged).as_posix() for path in damaged.rglob("*") if path.is_file()]
        asked.append(
            (name, revision, {name for name in names if any(fnmatch.fnmatch(name, p) for p in allow_patterns)})
        )
        return str(damaged)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    StableDiffusionBackbone.load("owner/name", revision="main")
    fetched = {path.relative_to(sd15).as_posix() for path in sd15.rglob("*") if path.is_file()}
    assert asked == [("owner/name", "main", fetched)]

    def gone(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    with pytest.raises(CheckpointError, match="owner/name.*the hub did not give it"):
        StableDiffusionBackbone.load("owner/name")

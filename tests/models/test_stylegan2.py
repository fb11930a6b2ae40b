"""The StyleGAN2 backbone: its networks against the paper's formulas, inversion, pivotal tuning, its own files."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.io import checkpoints
from emoedit.models.stylegan2 import network
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone, mix
from emoedit.models.stylegan2.inversion import (
    Losses,
)
from emoedit.types import CheckpointError, Control, EditError, ImageError, Inversion
from tests.fixtures.stylegan2 import CONFIG, DIM, seeded, smooth, tiny


@pytest.fixture(scope="module")
def backbone() -> StyleGAN2Backbone:
    return tiny()


# The networks, once more from the paper


def filtered(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    """Convolution of every map with a kernel, zeros around."""
    x = F.pad(x, (before, after, before, after))
    return F.conv2d(x.flatten(0, 1)[:, None], kernel.flip(0, 1)[None, None])[:, 0].unflatten(0, x.shape[:2])


def stuffed(x: Tensor) -> Tensor:
    """Zeros between all pixels."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


TAPS = torch.tensor([1.0, 3, 3, 1])
KERNEL = torch.outer(TAPS, TAPS) / 64


def plain_conv(layer: network.ModulatedConv, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """Equations 1 and 3, with weights of its own for each picture, one picture after the other."""
    rows = []
    for k in range(len(x)):
        style = w[k] @ layer.affine.weight.T / w.shape[1] ** 0.5 + layer.affine.bias
        weight = layer.weight * style[:, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if layer.up:
            row = F.conv2d(F.pad(stuffed(x[k : k + 1]), (2, 1, 2, 1)), weight.flip(2, 3))
            row = filtered(row, 4 * KERNEL, 1, 1)
        else:
            row = F.conv2d(x[k : k + 1], weight, padding=1)
        rows.append(row)
    x = torch.cat(rows) + noise * layer.noise_strength + layer.bias[:, None, None]
    return torch.where(x > 0, x, 0.2 * x) * 2**0.5


def plain(model: network.Synthesis, w_plus: Tensor) -> Tensor:
    maps = model.noise[0].split(model.sizes)
    x, image = model.const.repeat(len(w_plus), 1, 1, 1), 0
    for k, layer in enumerate(model.convs):
        side = int(len(maps[k]) ** 0.5)
        x = plain_conv(layer, x, w_plus[:, k], maps[k].view(side, side))
        if k % 2 == 0:
            to = model.to_images[k // 2]
            style = w_plus[:, k + 1] @ to.affine.weight.T / DIM**0.5 + to.affine.bias
            shown = torch.einsum("nihw,oi,ni->nohw", x, to.weight, style / x.shape[1] ** 0.5)
            image = (filtered(stuffed(image), 4 * KERNEL, 2, 1) if k else 0) + shown + to.bias[:, None, None]
    return image


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_synthesis_is_the_papers(count, channels):
    """A single picture's large maps take another way than a batch's."""
    model = tiny(resolution=32, widths=(16, 16, 12, 8), encoder_widths=(8, 8, 8), channels=channels).synthesis
    w_plus = torch.randn(count, 8, DIM, generator=seeded())
    truth = plain(model, w_plus)
    assert truth.shape == (count, channels, 32, 32)
    torch.testing.assert_close(model(w_plus), truth, atol=2e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(w_plus), truth, atol=2e-5, rtol=1e-5)
        assert torch.equal(model(w_plus), model(w_plus))  # nothing was overwritten


def test_synthesis_is_the_papers_in_training_too(backbone):
    model = copy.deepcopy(backbone.synthesis).train().requires_grad_(True)
    w_plus = torch.randn(2, 6, DIM, generator=seeded())
    drawn, truth = model(w_plus), plain(model, w_plus)
    torch.testing.assert_close(drawn, truth, atol=2e-5, rtol=1e-5)
    weights = list(model.parameters())
    ours, theirs = (torch.autograd.grad(picture.square().mean(), weights) for picture in (drawn, truth))
    for (name, _), one, other in zip(model.named_parameters(), ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_kept_weights_follow_every_change(backbone):
    model = copy.deepcopy(backbone.synthesis)
    w_plus = torch.randn(2, 6, DIM, generator=seeded())

    def check():
        with torch.no_grad():
            torch.testing.assert_close(model(w_plus), plain(model, w_plus), atol=2e-5, rtol=1e-5)

    check()
    with torch.no_grad():
        model.convs[1].weight.mul_(1.1).add_(0.1)
        check()
        model.convs[1].weight.data = torch.randn(16, 16, 3, 3, generator=seeded())
        check()
    model.load_state_dict(
        {name: value.roll(1, 0) for name, value in model.state_dict().items() if value.ndim}, strict=False
    )
    check()
    model = copy.deepcopy(model)  # whose weights count their changes anew
    for layer in model.convs:
        layer.requires_grad_(True)
        torch.optim.SGD(layer.parameters(), lr=0.1).zero_grad()
        for _ in range(3):
            with torch.no_grad():
                layer.weight.add_(0.05)
    check()
    model.load_state_dict(backbone.synthesis.state_dict(), assign=True)
    check()
    with torch.inference_mode():
        model = tiny().synthesis
        model.convs[0].weight.mul_(2).add_(0.3)
        check()
        model.convs[0].weight.mul_(2).add_(0.3)
        check()


def test_clamps_hold_layers_and_picture():
    loose, tight = tiny().synthesis, tiny(clamp=0.4).synthesis
    w_plus = 3 * torch.randn(2, 6, DIM, generator=seeded())
    assert float((loose(w_plus) - tight(w_plus)).abs().max()) > 0.1
    seen = []
    hook = tight.convs[3].register_forward_hook(lambda _, __, output: seen.append(float(output.abs().max())))
    tight(w_plus)
    hook.remove()
    assert seen == [pytest.approx(0.4)]


def test_mapping_and_its_running_mean():
    torch.manual_seed(0)
    mapping = network.Mapping(5, 7, layers=2, rate=0.01)
    z = torch.randn(4, 5, generator=seeded())
    with torch.no_grad():
        x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for layer in mapping.layers:
            layer.bias.normal_(0, 10)
            x = x @ (0.01 * layer.weight).T / x.shape[1] ** 0.5 + 0.01 * layer.bias
            x = torch.where(x > 0, x, 0.2 * x) * 2**0.5
        torch.testing.assert_close(mapping(z), x)
        assert 0.5 < float(network.Mapping(256, 256)(torch.randn(64, 256)).std()) < 1.5
    mapping.track(x, decay=0.9)
    torch.testing.assert_close(mapping.w_avg, 0.1 * x.mean(0))
    torch.testing.assert_close(mapping(3 * z), mapping(z))  # only the direction of z matters


def test_published_widths():
    assert network.widths(1024) == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert network.widths(256, base=16384) == (512, 512, 512, 512, 256, 128, 64)
    assert (network.layer_count(1024), network.layer_count(256)) == (18, 14)
    assert network.noise_sides(16) == [4, 8, 8, 16, 16]


def test_bfloat16_draws_nearly_the_same(backbone):
    low = backbone.with_inversion(precision="bfloat16")
    inversion = backbone.invert(smooth())
    truth, drawn = backbone.decode(inversion), low.decode(inversion)
    assert drawn.dtype == torch.float32
    assert 0 < float((drawn - truth).norm()) < 0.03 * float((truth - truth.mean()).norm())
    assert all(p.dtype == torch.float32 for p in low.parameters())
    assert torch.equal(
        backbone.decode(inversion), truth
    )  # the weights are shared, what is kept of them is not mixed up


# The backbone


def test_inversion_and_decoding(backbone):
    x, done = smooth(), []
    before = x.clone()
    inversion = backbone.invert(x, callback=lambda *step: done.append(step))
    assert inversion.latent.shape == (3, 6, DIM) == (3, *backbone.latent_shape)
    assert set(inversion.extras) == {"mean", "gain"} and done == [(1, 1)] and torch.equal(x, before)
    picture = backbone.decode(inversion)
    assert picture.shape == x.shape and picture.dtype == torch.float32
    expected = backbone.mapping.w_avg + backbone.encoder(x)
    torch.testing.assert_close(inversion.latent, expected)
    assert float(inversion.latent.std(1).max()) > 1e-3  # layers differ
    for n in range(3):
        alone = backbone.invert(x[n : n + 1])
        torch.testing.assert_close(alone.latent[0], inversion.latent[n], atol=1e-5, rtol=0)
        torch.testing.assert_close(backbone.decode(alone)[0], picture[n], atol=1e-4, rtol=0)


def test_light_is_taken_out_and_put_back():
    backbone, x = tiny(std=0.45, mean=0.1), smooth() * 0.5
    dimmed = 0.4 * x - 0.3
    one, other = backbone.invert(x), backbone.invert(dimmed)
    torch.testing.assert_close(one.latent, other.latent, atol=1e-4, rtol=0)
    torch.testing.assert_close(0.4 * backbone.decode(one) - 0.3, backbone.decode(other), atol=1e-4, rtol=0)
    normal = backbone.normalise(x)[0]
    inside = normal[:, 0, backbone.oval > 0]
    torch.testing.assert_close(inside.mean(1), torch.full((3,), 0.1), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.std(1, unbiased=False), torch.full((3,), 0.45), atol=1e-5, rtol=0)


def test_layers_from_coarse_to_fine(backbone):
    """A shift of one layer changes nothing that is drawn before it."""
    inversion = backbone.invert(smooth(1))
    seen: dict[str, list[Tensor]] = {}
    for k, layer in enumerate(backbone.synthesis.convs):
        hook = layer.register_forward_hook(lambda _, __, out, k=k: seen.setdefault(f"{k}", []).append(out.clone()))
        seen.setdefault("hooks", []).append(hook)
    try:
        backbone.decode(inversion)
        shift = torch.zeros(1, 6, DIM)
        shift[:, 3] = 1
        backbone.decode(inversion, Control(shift=shift))
    finally:
        for hook in seen.pop("hooks"):
            hook.remove()
    same = [torch.equal(*seen[str(k)]) for k in range(5)]
    assert same == [True, True, True, False, False]


def test_shifts(backbone):
    inversion = backbone.invert(smooth())
    shift = torch.randn(3, 6, DIM, generator=seeded())
    moved = Inversion(inversion.latent + shift, inversion.extras)
    assert torch.equal(backbone.decode(inversion, Control(shift=shift)), backbone.decode(moved))
    everywhere = backbone.decode(inversion, Control(shift=shift[:, :1]))
    assert torch.equal(everywhere, backbone.decode(inversion, Control(shift=shift[:, :1].expand(-1, 6, -1))))
    for bad in (shift[:, :2], shift[:1], shift[0], shift[..., :5]):
        with pytest.raises(CheckpointError, match=r"the shift is .* but w\+ is \(3, 6, 16\)"):
            backbone.decode(inversion, Control(shift=bad))
    with pytest.raises(EditError, match="neither a text input nor h"):
        backbone.decode(inversion, Control(context=torch.zeros(3, 1, 1)))
    with pytest.raises(EditError, match="neither a text input nor h"):
        backbone.decode(inversion, Control(delta_h=lambda state: state.h))
    with pytest.raises(EditError, match="strength"):
        backbone.decode(inversion, Control(shift=1e38 * 1e2 * shift))


def test_samples_truncation_and_mixing(backbone):
    full = backbone.latents(seeded(), 4)
    assert torch.equal(full, backbone.latents(seeded(), 4)) and torch.equal(full[:, :1].expand(-1, 6, -1), full)
    mean = backbone.mapping.w_avg
    half = backbone.latents(seeded(), 4, truncation=0.5)
    torch.testing.assert_close(half, mean + 0.5 * (full - mean))
    none = backbone.latents(seeded(), 4, truncation=0)
    torch.testing.assert_close(none, mean.expand_as(none))
    assert torch.equal(backbone.sample(seeded(), 4, truncation=0.5), backbone.synthesis(half))
    mixed = mix(full[:1], full[1:2], 3)
    assert torch.equal(mixed[:, :3], full[:1, :3]) and torch.equal(mixed[:, 3:], full[1:2, 3:])


def test_pictures_of_another_shape_are_refused(backbone):
    for bad in (torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 32, 32), torch.zeros(1, 16, 16)):
        with pytest.raises(ImageError, match=r"expected \[N, 1, 16, 16\]"):
            backbone.invert(bad)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"resolution": 24}, "resolution is 24"),
        ({"resolution": 8}, "resolution is 8"),
        ({"resolution": 16.0}, "resolution is 16.0"),
        ({"widths": (16, 16)}, r"widths \(16, 16\) \(expected 3"),
        ({"widths": "abc"}, "widths 'abc'"),
        ({"widths": (16, 0, 4)}, "widths"),
        ({"encoder_widths": (8,)}, r"encoder_widths \(8,\) \(expected 2"),
        ({"channels": 4}, "channels 4"),
        ({"w_dim": 0}, "w_dim 0"),
        ({"mapping_layers": 1.5}, "mapping_layers 1.5"),
        ({"encoder_neck": 0}, "encoder_neck 0"),
        ({"clamp": "256"}, "clamp '256'"),
        ({"mapping_rate": 0}, "mapping_rate 0"),
        ({"optimise_steps": -1}, "optimise_steps"),
        ({"encoder_widths": None}, "without an encoder needs optimise_steps"),
        ({"precision": "float16"}, "bfloat16"),
        ({"colour": True}, "colour"),
    ],
)
def test_configurations_that_make_no_model_are_refused(settings, match):
    with pytest.raises(CheckpointError, match=match):
        StyleGAN2Backbone.from_config({**CONFIG, **settings})


def test_other_settings_share_the_weights(backbone):
    other = backbone.with_inversion(optimise_steps=3, losses=Losses(weights=(2.0, 1.0, 1.0)))
    assert other.synthesis is backbone.synthesis and other.config.optimise_steps == 3
    assert (backbone.config.optimise_steps, backbone.losses.weights) == (0, (1.0, 1.0, 0.5))
    assert other.with_inversion(precision="bfloat16").losses is other.losses
    with pytest.raises(EditError, match="widths: no settings of sampling"):
        backbone.with_inversion(widths=(1, 2, 3))
    with pytest.raises(EditError, match="whole number"):
        backbone.with_inversion(optimise_steps=1.5)


# Its own files


def test_save_then_load_is_bit_equal(tmp_path, backbone):
    backbone = tiny(std=0.45, crop_style="stable", crop_scale=0.66)
    backbone.save_pretrained(tmp_path)
    again = StyleGAN2Backbone.load(tmp_path)
    assert again.to_config() == json.loads(json.dumps(backbone.to_config())) and again.crop == backbone.crop
    x = smooth()
    one, other = backbone.invert(x), again.invert(x)
    assert torch.equal(one.latent, other.latent) and torch.equal(backbone.decode(one), again.decode(other))
    assert torch.equal(backbone.sample(seeded(), 2), again.sample(seeded(), 2))
    assert StyleGAN2Backbone.load(tmp_path, optimise_steps=7).config.optimise_steps == 7


def test_damaged_folders_are_refused(tmp_path, backbone):
    for name in ("config.json", checkpoints.WEIGHTS):
        backbone.save_pretrained(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(CheckpointError, match="missing"):
            StyleGAN2Backbone.load(tmp_path)
    backbone.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "widths": [16, 12, 12]}))
    with pytest.raises(CheckpointError, match="expected"):
        StyleGAN2Backbone.load(tmp_path)
    with pytest.raises(CheckpointError):
        StyleGAN2Backbone.load(tmp_path / "nothing")

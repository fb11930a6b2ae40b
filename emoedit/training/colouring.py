"""Models of colour that start from one of luminance: they draw the same faces, in the colours of the mean face.

Such a model sees the luminance of a crop and draws three equal channels, each at its own mean and contrast; training
adds what colour there is beside. A latent means what it meant before, so directions in it keep their meaning. A U-Net
finds noise in planes of luminance as it did, and none in its new planes of colour; h is what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emoedit.models.luminance import per_channel
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.models.stylegan2.network import Encoder
from emoedit.models.vae.backbone import VAEBackbone
from emoedit.types import LUMA_WEIGHTS, DataError


class _Channels:
    """How a value of luminance, at its mean and contrast, becomes one of each channel, at theirs, and back.

    Args:
        colour: configuration of the model of colour.
        luminance: configuration of the model of luminance.
        like: gives the type and the device.
        same: settings that both have to share.

    Raises:
        DataError: they do not fit each other.
    """

    def __init__(self, colour: Any, luminance: Any, like: Tensor, same: Sequence[str]) -> None:
        differ = [n for n in same if _plain(getattr(colour, n)) != _plain(getattr(luminance, n))]
        if differ or (colour.channels, luminance.channels) != (3, 1) or None in (colour.std, luminance.std):
            raise DataError(
                "start: it takes a model of luminance for one of colour, both normalised and of the same architecture"
                + "".join(f"; {name} differs" for name in differ)
            )
        self.gain = per_channel(colour.std, like).flatten().expand(3) / luminance.std
        self.mean = per_channel(colour.mean, like).flatten().expand(3) - luminance.mean * self.gain
        self.shares = torch.tensor(LUMA_WEIGHTS).to(like) / self.gain

    def stem(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A first convolution of pixels: ``[O, P, k, k]`` and ``[O]`` -> ``[O, 3 P, k, k]`` and ``[O]``."""
        wide = torch.cat([weight * share for share in self.shares], 1)
        return wide, bias - weight.sum((1, 2, 3)) * (self.shares * self.mean).sum()

    def drawn(self, weight: Tensor) -> Tensor:
        """Weights or biases of a last layer: ``[P, ...]`` -> ``[3 P, ...]``; a bias also needs ``mean``."""
        return torch.cat([weight * gain for gain in self.gain])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


@torch.no_grad()
def start_vae_in_colour(model: VAEBackbone, luminance: VAEBackbone) -> None:
    """Gives a VAE of colour the weights of one of luminance.

    Encoding differs at the crop's border alone. Where the latent is longer, the rest of it changes nothing at first.

    Args:
        model: a fresh model of colour; changed in place.
        luminance: of the same architecture, with a latent that is not longer.

    Raises:
        DataError: the models do not fit each other.
    """
    state, new = luminance.state_dict(), model.state_dict()
    long, short = model.config.latent_dim, luminance.config.latent_dim
    if short > long:
        raise DataError(f"start: the latent of the model of luminance is {short} long, longer than {long}")
    channels = _Channels(
        model.config,
        luminance.config,
        new["decoder.out.weight"],
        ("resolution", "widths", "encoder_blocks", "decoder_blocks", "crop_scale", "crop_down"),
    )
    for name, value in state.items():
        if value.shape == new[name].shape:
            new[name].copy_(value)
    for name in ("encoder.head.weight", "encoder.head.bias"):  # means, then log-variances
        for row in (0, 1):
            new[name][row * long : row * long + short] = state[name][row * short : (row + 1) * short]
    for name in [name for name in state if name == "decoder.start.weight" or name.endswith("style.weight")]:
        new[name].zero_()
        new[name][:, :short] = state[name]
    stem = channels.stem(state["encoder.stem.weight"], state["encoder.stem.bias"])
    new["encoder.stem.weight"].copy_(stem[0])
    new["encoder.stem.bias"].copy_(stem[1])
    new["decoder.out.weight"].copy_(channels.drawn(state["decoder.out.weight"]))
    bias = state["decoder.out.bias"]
    new["decoder.out.bias"].copy_(channels.drawn(bias) + channels.mean.repeat_interleave(len(bias)))
    model.load_state_dict(new)


@torch.no_grad()
def start_stylegan_in_colour(model: StyleGAN2Backbone, luminance: StyleGAN2Backbone) -> None:
    """Gives a StyleGAN2 of colour and its encoder the weights of one of luminance; w means the same in both.

    Encoding differs at the crop's border alone.

    Args:
        model: a fresh model of colour with an encoder; changed in place.
        luminance: of the same architecture.

    Raises:
        DataError: the models do not fit each other.
    """
    state, new = luminance.state_dict(), model.state_dict()
    if not isinstance(model.encoder, Encoder) or not isinstance(luminance.encoder, Encoder):
        raise DataError("start: both models need the small encoder (encoder_widths)")
    shape = ["resolution", "widths", "z_dim", "w_dim", "mapping_layers", "mapping_rate", "clamp"]
    encoder = ["encoder_widths", "encoder_blocks", "encoder_neck"]
    same = [*shape, *encoder, "crop_scale", "crop_down"]
    channels = _Channels(model.config, luminance.config, new["synthesis.const"], same)
    for name, value in state.items():
        if value.shape == new[name].shape:
            new[name].copy_(value)
    stem = channels.stem(state["encoder.layers.0.weight"], state["encoder.layers.0.bias"])
    new["encoder.layers.0.weight"].copy_(stem[0])
    new["encoder.layers.0.bias"].copy_(stem[1])
    layers = sorted({name.rpartition(".")[0] for name in state if name.startswith("synthesis.to_images.")})
    layers = [name for name in layers if not name.endswith("affine")]
    last = f"synthesis.to_images.{len(layers) - 1}"
    for layer in layers:
        new[f"{layer}.weight"].copy_(channels.drawn(state[f"{layer}.weight"]))
        # Enlarging a picture darkens its border: the mean colour is added at full resolution.
        mean = channels.mean if layer == last else 0 * channels.mean
        new[f"{layer}.bias"].copy_(channels.drawn(state[f"{layer}.bias"]) + mean)
    model.load_state_dict(new)


@torch.no_grad()
def start_unet_in_colour(unet: nn.Module, luminance: nn.Module) -> None:
    """Gives a U-Net with planes of colour behind those of luminance the weights of one without.

    What it makes of the planes of luminance, h too, does not depend on those of colour, in which it finds no noise yet.

    Args:
        unet: a ``UNet2DModel`` or ``UNet2DConditionModel``; changed in place.
        luminance: of the same class and architecture, with fewer channels in and out.

    Raises:
        DataError: the networks do not fit each other.
    """
    state, new = luminance.state_dict(), unet.state_dict()
    planes = state["conv_in.weight"].shape[1]
    wide = {
        "conv_in.weight": (slice(None), slice(planes)),
        "conv_out.weight": slice(planes),
        "conv_out.bias": slice(planes),
    }
    differ = [name for name in new.keys() | state.keys() if name not in state or name not in new]
    differ += [name for name in new if name in state and name not in wide and new[name].shape != state[name].shape]
    if differ or new["conv_in.weight"].shape[1] <= planes:
        raise DataError(
            "start: it takes a U-Net of luminance for one with planes of colour, both of the same architecture; "
            f"{', '.join(sorted(differ)[:4]) or 'there are no more channels'} {'differ' if differ else ''}".rstrip()
        )
    for name, value in state.items():
        if name in wide:
            new[name].zero_()
            new[name][wide[name]] = value
        else:
            new[name].copy_(value)
    unet.load_state_dict(new)


@torch.no_grad()
def start_autoencoder_in_colour(vae: nn.Module, luminance: nn.Module) -> None:
    """Gives an autoencoder of colour, with further planes in its latent, the weights of one of luminance.

    It sees the luminance of a crop, encodes it as before, and draws it in three equal channels; the weights of the
    further planes stay fresh.

    Args:
        vae: a fresh ``AutoencoderKL`` of three channels; changed in place.
        luminance: of the same architecture, with one channel and a shorter latent.

    Raises:
        DataError: the networks do not fit each other.
    """
    state, new = luminance.state_dict(), vae.state_dict()
    short, long = (net["post_quant_conv.weight"].shape[0] for net in (state, new))
    stem, drawn = state["encoder.conv_in.weight"], ("decoder.conv_out.weight", "decoder.conv_out.bias")
    latent = [name for name in state if name.startswith(("encoder.conv_out", "quant_conv", "post_quant_conv"))]
    latent.append("decoder.conv_in.weight")
    fixed = [name for name in state if name not in (*latent, *drawn, "encoder.conv_in.weight")]
    differ = [name for name in fixed if name not in new or new[name].shape != state[name].shape]
    if differ or state.keys() != new.keys() or stem.shape[1] != 1 or new["encoder.conv_in.weight"].shape[1] != 3:
        raise DataError(
            "start: it takes an autoencoder of luminance for one of colour, of the same architecture otherwise"
            + (f"; {', '.join(differ[:4])} differ" if differ else "")
        )
    for name in fixed:
        new[name].copy_(state[name])
    new["encoder.conv_in.weight"].copy_(torch.cat([stem * share for share in LUMA_WEIGHTS], 1))
    for name in drawn:
        new[name].copy_(torch.cat([state[name]] * 3))
    rows = torch.cat([torch.arange(short), torch.arange(short) + long])  # means, then log-variances
    kept = torch.arange(short)
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias", "quant_conv.bias"):
        new[name][rows] = state[name]
    new["quant_conv.weight"][rows] = 0
    new["quant_conv.weight"][rows[:, None], rows] = state["quant_conv.weight"]
    new["post_quant_conv.weight"][:short] = 0
    new["post_quant_conv.weight"][kept[:, None], kept] = state["post_quant_conv.weight"]
    new["post_quant_conv.bias"][:short] = state["post_quant_conv.bias"]
    new["decoder.conv_in.weight"][:, :short] = state["decoder.conv_in.weight"]
    vae.load_state_dict(new)

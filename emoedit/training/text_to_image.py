"""A text-to-image U-Net for faces that starts from an unconditional one.

Weights that both have are copied; the layers that read text start without an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit import sampling
from emoedit.models.luminance import per_channel
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.text import encode, frozen_copy
from emoedit.models.stable_diffusion.unet import down, up
from emoedit.nn.layers import zeroed
from emoedit.training.diffusion import LIMIT, DenoisingTask, known_planes, plane_weights
from emoedit.training.loop import Shared
from emoedit.training.vae import region_weights
from emoedit.types import CheckpointError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNet2DModel

MID = "mid_block.attentions.0."  # another kind of module in each of the two classes


@torch.no_grad()
def copy_unconditional_weights(unet: UNet2DConditionModel, source: UNet2DModel) -> list[str]:
    """Copy the weights of an unconditional U-Net of the same shape.

    Convolutions, norms, the timestep embedding and self-attention of ``Attn`` blocks have the same names in both
    classes and are copied. What reads text is new: the last layer of each such block is set to zero, so the result is
    the source as it was, whatever the text says, except for the source's attention in the mid block, which has no place
    in a ``UNetMidBlock2DCrossAttn``.

    Args:
        unet: changed in place.
        source: U-Net of the same shape.

    Returns:
        The names of the tensors that stay fresh.

    Raises:
        CheckpointError: a U-Net of another shape; the message names the tensors.
    """
    own, given = unet.state_dict(), source.state_dict()
    fresh = [name for name in own if name not in given or name.startswith(MID)]
    text = tuple(f"{name}." for name, part in unet.named_modules() if type(part).__name__ == "Transformer2DModel")
    faults = [name for name in fresh if not name.startswith(text)]
    faults += [name for name in given if name not in own and not name.startswith(MID)]
    shared = [name for name in own if name in given and not name.startswith(MID)]
    faults += [name for name in shared if own[name].shape != given[name].shape]
    faults += [
        f"{name} {unet.config[name]!r}, not {source.config[name]!r}"
        for name in ("norm_num_groups", "norm_eps", "flip_sin_to_cos", "freq_shift", "center_input_sample", "act_fn")
        if unet.config[name] != source.config[name]
    ]
    heads, wanted = (
        {name: part.heads for name, part in net.named_modules() if hasattr(part, "heads") and f"{name}." != MID}
        for net in (unet, source)
    )
    faults += [
        f"{name} with {heads[name]} heads, not {wanted[name]}"
        for name in heads
        if name in wanted and heads[name] != wanted[name]
    ]
    if faults:
        raise CheckpointError(
            f"this U-Net has another skeleton than the one it is to start from: {len(faults)} parts do not fit "
            f"({', '.join(faults[:4])}{', …' if len(faults) > 4 else ''})"
        )
    unet.load_state_dict({**own, **{name: given[name] for name in shared}})
    for prefix in text:
        zeroed(unet.get_submodule(f"{prefix}proj_out"))
    return fresh


class TextToImageTask(DenoisingTask):
    """To find the noise in noisy latents, under the pictures' captions.

    Args:
        backbone: its ``unet`` is trained; autoencoder and text encoder stay as they are.
        gamma: signal-to-noise ratio above which a noise level counts less.

    Raises:
        CheckpointError: a model that predicts v.
    """

    def __init__(self, backbone: StableDiffusionBackbone, *, gamma: float = 5.0) -> None:
        if backbone.v_prediction:
            raise CheckpointError("this task trains models that find the noise; prediction_type is v_prediction")
        side, (channels, latent, _) = backbone.crop.resolution, backbone.latent_shape
        patch, weight = side // latent, region_weights(side)
        self.patch, self.colour_planes = patch, backbone.channels == 3 and channels == patch**2 + 2
        if channels in (patch**2, patch**2 + 2):  # a latent that is nearly the crop's planes
            weight = plane_weights(weight, patch, colour=channels > patch**2)
        else:
            weight = F.interpolate(weight, size=(latent, latent), mode="area")
        super().__init__(backbone.alpha_bar, weight, t_last=backbone.config.t_last, gamma=gamma)
        self.unet = backbone.unet
        self._shared = Shared(
            vae=frozen_copy(backbone.vae),
            text_encoder=frozen_copy(backbone.text_encoder),
            normalise=backbone.normalise,
            backbone=backbone,
        )

    @torch.no_grad()
    def encode(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Latents ``[N, C, r, r]`` and contexts ``[N, T, D]`` of a batch."""
        own = self._shared
        device = own.backbone.device
        with torch.autocast(device.type, enabled=False):
            x = own.normalise(batch["x"].to(device))[0].clamp(-LIMIT, LIMIT)
            context = own.text_encoder(batch["ids"].to(device))[0]
        z = own.vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist.mean
        return z.float() * own.vae.config.scaling_factor, context

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses of a batch; of grey pictures in three channels luminance alone is compared.

        Args:
            batch: ``x`` ``[N, C, R, R]`` in [-1, 1]; ``ids`` ``[N, T]`` of the captions.
        """
        z, context = self.encode(batch)
        with torch.autocast(z.device.type, enabled=False):
            z_t, t, noise = self.noisy(z)
        h, skips, temb = down(self.unet, z_t, t, context)
        known = known_planes(batch["x"].to(z.device), self.patch) if self.colour_planes else None
        return self.losses(up(self.unet, h, skips, temb, context).float(), noise, t, known)


@torch.no_grad()
def held_out_losses(
    task: TextToImageTask, batches: Callable[[int], Mapping[str, Tensor]], empty: Tensor, count: int
) -> dict[str, float]:
    """Mean losses over ``count`` batches with the same noise, under three kinds of captions.

    Each picture's ``true`` caption, ``another`` one's of the batch, and the ``empty`` one (``[T]`` ids).

    Args:
        task: the trained module.
        batches: step -> a batch of held-out pictures.
        empty: ids of the empty caption.
        count: count of batches.
    """
    totals = dict.fromkeys(("true", "another", "empty"), 0.0)
    for step in range(count):
        batch = batches(step)
        ids = {
            "true": batch["ids"],
            "another": batch["ids"].roll(1, 0),
            "empty": empty.expand_as(batch["ids"]),
        }
        for name, each in ids.items():
            torch.manual_seed(step)
            totals[name] += float(task({**batch, "ids": each})["loss"]) / count
    return totals


@torch.no_grad()
def draw(
    backbone: StableDiffusionBackbone,
    captions: Sequence[str],
    generator: torch.Generator,
    *,
    guidance: float = 3.0,
    steps: int = 25,
) -> Tensor:
    """Pictures from noise under captions, guided away from the empty one, ``[N, 1 or 3, R, R]``.

    They are at the model's mean and contrast, and show what it knows of faces and words.

    Args:
        backbone: the model.
        captions: N texts.
        generator: draws the noise.
        guidance: scale of classifier-free guidance.
        steps: number of steps of DDIM.
    """
    config = backbone.config
    last = len(backbone.alpha_bar) - 1 if config.t_last is None else config.t_last
    how = backbone.with_sampling(
        steps=steps, t_text_min=0, t_text_max=last, negative="", guidance=guidance, inversion="exact", t_boost=0
    )
    x = torch.randn(len(captions), *backbone.latent_shape, generator=generator, device=generator.device)
    context = encode(backbone.tokenizer, backbone.text_encoder, captions)
    z = sampling.decode(how.eps_at(context), x.to(backbone.device), how.schedule)
    mean = per_channel(config.mean if config.std is not None else 0.0, z)[None].expand(len(z), -1, -1, -1)
    return how.to_picture(z, mean, torch.ones_like(mean))

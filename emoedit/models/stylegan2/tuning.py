"""Pivotal tuning: a copy of the synthesis network learns what no w+ can draw.

w+ is held fast while the weights of the copy are optimised (Roich et al. 2021, arXiv 2106.05744).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.io.images import write_atomic
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
from emoedit.models.stylegan2.inversion import InversionError, Losses, check_finite
from emoedit.types import CheckpointError, Inversion

PARTS = ("synthesis", "latent", "extras")


def digest(synthesis: nn.Module) -> str:
    """Identifies the weights of a synthesis network.

    Args:
        synthesis: the network.
    """
    found = hashlib.sha256()
    for name, value in synthesis.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class Tuning:
    """What pivotal tuning made for some pictures: a synthesis network of their own, and their inversion.

    Args:
        weights: the tuned network's state dict.
        inversion: inversion of the pictures it was tuned for.
        base: ``digest`` of the network it comes from.
    """

    weights: Mapping[str, Tensor]
    inversion: Inversion
    base: str
    losses: tuple[float, ...] = field(default=(), compare=False)  # mean over the pictures, before each step and at last

    def apply(self, backbone: StyleGAN2Backbone) -> StyleGAN2Backbone:
        """The backbone with the tuned synthesis network; everything else is shared, and the one given stays as it is.

        Args:
            backbone: the model.

        Raises:
            CheckpointError: the tuning comes from a network with other weights.
        """
        if digest(backbone.synthesis) != self.base:
            raise CheckpointError(
                f"this tuning was made from the weights {self.base}, the backbone has {digest(backbone.synthesis)}: "
                "tune again, or load the backbone it was made with"
            )
        synthesis = copy.deepcopy(backbone.synthesis)
        checkpoints.check_state(synthesis.state_dict(), self.weights, "the tuning")
        synthesis.load_state_dict(self.weights)
        return backbone.with_synthesis(synthesis)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one safetensors file.

        Args:
            path: path of the file.
            overwrite: whether a file that exists is replaced.

        Raises:
            OutputError: it exists, or cannot be written; no half-written file is left.
        """
        from safetensors.torch import save

        groups = {"synthesis": self.weights, "latent": {"": self.inversion.latent}, "extras": self.inversion.extras}
        tensors = {
            f"{group}.{name}": value.detach().cpu().contiguous().clone()
            for group, values in groups.items()
            for name, value in values.items()
        }
        text = {"base": self.base, "fingerprint": self.inversion.fingerprint, "format": "pt"}
        data = save(tensors, text)
        write_atomic(path, lambda file: file.write(data), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote.

        Args:
            path: path of the file.

        Raises:
            CheckpointError: missing, damaged, or something else.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        state = checkpoints.read_weights(path)
        try:
            with safe_open(path, "pt") as file:
                text = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        parts: dict[str, dict[str, Tensor]] = {group: {} for group in PARTS}
        for name, value in state.items():
            group, _, rest = name.partition(".")
            if group not in parts:
                raise CheckpointError(f"{path} holds {name}; expected only {', '.join(PARTS)}: this is no tuning")
            parts[group][rest] = value.clone()  # aligned in memory as before: else sums are rounded otherwise
        if "base" not in text or set(parts["latent"]) != {""} or not parts["synthesis"]:
            raise CheckpointError(f"{path} is no tuning of a StyleGAN2: it lacks weights, w+ or what it comes from")
        inversion = Inversion(parts["latent"][""], parts["extras"], text.get("fingerprint", ""))
        return cls(parts["synthesis"], inversion, text["base"])


def tune(
    backbone: StyleGAN2Backbone,
    x: Tensor,
    inversion: Inversion,
    *,
    losses: Losses | None = None,
    steps: int = 100,
    rate: float = 3e-4,
) -> Tuning:
    """Teach a copy of the synthesis network to draw pictures at their w+ (pivotal tuning).

    Args:
        backbone: stays as it is.
        x: ``[N, C, R, R]`` in [-1, 1]; all pictures share the tuned network.
        inversion: inversion of these pictures by this backbone.
        losses: default: the backbone's own.
        steps: number of steps of Adam; the paper takes 350.
        rate: learning rate; the paper takes 3e-4.

    Raises:
        ImageError: pictures of another shape.
        InversionError: the loss is no longer finite, or not lower than before.
    """
    losses = backbone.losses if losses is None else losses
    target = backbone.normalise(backbone.checked(x))[0]
    noise = inversion.extras.get("noise")
    synthesis = copy.deepcopy(backbone.synthesis).requires_grad_(True)
    weights = list(synthesis.parameters())
    adam = torch.optim.Adam(weights, lr=rate)
    course: list[float] = []

    def loss_now(step: int) -> Tensor:
        loss = losses(synthesis(inversion.latent, noise, dtype=backbone.dtype), target)
        check_finite(loss, step)
        course.append(float(loss.detach().mean()))
        return loss.sum()

    with torch.enable_grad():
        for step in range(steps):
            gradients = torch.autograd.grad(loss_now(step), weights)  # and of no one else's weights
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            adam.step()
    with torch.no_grad():
        loss_now(steps)
    if steps and course[-1] >= course[0]:
        raise InversionError(
            f"tuning changed the loss from {course[0]:.4g} to {course[-1]:.4g} in {steps} steps; take a lower learning "
            f"rate than {rate:g}, or more steps"
        )
    state = {name: value.detach().clone() for name, value in synthesis.state_dict().items()}
    return Tuning(state, inversion, digest(backbone.synthesis), tuple(course))

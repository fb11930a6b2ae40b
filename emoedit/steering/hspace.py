"""Shifts of h, the mid-block output of a diffusion model's U-Net (Kwon et al. 2023, arXiv 2210.10960).

A shift is a fitted network f_t of h and the timestep; directions in closed form, one a timestep or one for all (Haas et
al. 2024, arXiv 2303.11073); or directions that a network adapts to the picture. All are linear in the strength and add.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.models.ddpm.files import read_file
from emoedit.models.diffusion import DiffusionBackbone
from emoedit.nn.layers import ModuleList, zeroed
from emoedit.steering.base import Steering, are_names
from emoedit.types import CheckpointError, Control, Edit, HState, Inversion

TRAIN_STEPS = re.compile(r"_ngen(\d+)_")  # in the names of Asyrp's files


class ShiftBlock(nn.Module):
    """f_t: 1 x 1 convolution, + Linear(SiLU(temb)), GroupNorm, SiLU, 1 x 1 convolution (Kwon et al. 2023, section 3.4).

    Its tensors have the names and shapes of Asyrp's ``DeltaBlock``.

    Args:
        channels: channels of h.
        temb_dim: length of the timestep embedding.
    """

    def __init__(self, channels: int, temb_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.temb_proj = nn.Linear(temb_dim, channels)
        self.norm2 = nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, state: HState) -> Tensor:
        """``[N, C, h, w]``."""
        hidden = self.conv1(state.h) + self.temb_proj(F.silu(state.temb))[:, :, None, None]
        return self.conv2(F.silu(self.norm2(hidden)))


class Directions(nn.Module):
    """One direction a timestep, linear in between; a single one is the same at all (global, time-averaged).

    Args:
        directions: ``[T, C, h, w]``, or ``[T, C]`` for the same everywhere on the map.
        timesteps: ``[T]``, ascending, of the directions; may be left out for a single one.

    Raises:
        CheckpointError: shapes that do not fit the timesteps.
    """

    directions: Tensor
    timesteps: Tensor

    def __init__(self, directions: Tensor, timesteps: Sequence[int] | Tensor = (0,)) -> None:
        super().__init__()
        times = torch.as_tensor(timesteps, dtype=torch.float32)
        if directions.ndim not in (2, 4) or times.shape != directions.shape[:1] or not bool((times.diff() > 0).all()):
            raise CheckpointError(
                f"directions {tuple(directions.shape)} at timesteps {tuple(times.shape)}; expected [T, C, h, w] or "
                "[T, C] at T ascending timesteps"
            )
        self.register_buffer("directions", directions.float())
        self.register_buffer("timesteps", times)

    def forward(self, state: HState) -> Tensor:
        """``[N, C, h, w]`` or ``[N, C, 1, 1]``."""
        t = state.t.to(self.timesteps)
        right = torch.searchsorted(self.timesteps, t).clamp(1, max(1, len(self.timesteps) - 1))
        left = right - 1
        right = right.clamp_max(len(self.timesteps) - 1)
        gap = (self.timesteps[right] - self.timesteps[left]).clamp_min(1e-6)
        share = ((t - self.timesteps[left]) / gap).clamp(0, 1)
        share = share.view(-1, *[1] * (self.directions.ndim - 1))
        found = self.directions[left].lerp(self.directions[right], share)
        return found if found.ndim == 4 else found[:, :, None, None]


class AdaptedDirections(nn.Module):
    """Directions that a network adapts to the picture: d_t + f_t(h).

    Args:
        directions: d_t.
        block: f_t.
    """

    def __init__(self, directions: Directions, block: ShiftBlock) -> None:
        super().__init__()
        self.directions, self.block = directions, block

    @classmethod
    def starting_from(cls, directions: Directions, *, channels: int, temb_dim: int) -> Self:
        """With a block that adds nothing yet: only its last convolution is 0, so that it learns from the first step on.

        Args:
            directions: ``[E, ...]``.
            channels: channels of h.
            temb_dim: length of the timestep embedding.
        """
        block = ShiftBlock(channels, temb_dim)
        zeroed(block.conv2)
        return cls(directions, block)

    def forward(self, state: HState) -> Tensor:
        """``[N, C, h, w]``."""
        return self.directions(state) + self.block(state)


Shift = ShiftBlock | Directions | AdaptedDirections
KINDS: dict[str, type[Shift]] = {"block": ShiftBlock, "directions": Directions, "adapted": AdaptedDirections}


class HSpace(Steering):
    """``delta_h`` = (steps when it was fitted / steps now) x sum of strength x gain x shift over emotions.

    Args:
        emotions: names, E of them.
        shifts: for each emotion a ``ShiftBlock``, ``Directions``, or both as ``AdaptedDirections``.
        train_steps: steps of decoding when the shifts were fitted: they act once a step, so fewer steps need larger
            ones.
        gain: ``[E]``: multiple of the shift at strength 1; default 1 each.
        against: directions of other attributes (gender, light, ...) that no edit may change: delta_h is projected onto
            their orthogonal complement, at each timestep (Haas et al. 2024).

    Raises:
        CheckpointError: numbers of shifts, gains and emotions that differ, or no whole number of ``train_steps``.
    """

    gain: Tensor

    def __init__(
        self,
        emotions: Sequence[str],
        shifts: Sequence[Shift],
        *,
        train_steps: int,
        gain: Tensor | None = None,
        against: Sequence[Directions] = (),
    ) -> None:
        super().__init__()
        self.emotions = tuple(emotions)
        gain = torch.ones(len(shifts)) if gain is None else gain.float()
        if not self.emotions or len(shifts) != len(self.emotions) or gain.shape != (len(shifts),):
            raise CheckpointError(
                f"{len(shifts)} shifts and gains of shape {tuple(gain.shape)} for {len(self.emotions)} emotions; "
                "expected one of each for an emotion"
            )
        if not isinstance(train_steps, int) or train_steps < 1:
            raise CheckpointError(f"train_steps must be a whole number above 0, found {train_steps!r}")
        self.train_steps = train_steps
        self.shifts = ModuleList(shifts)
        self.against = ModuleList(against)
        self.register_buffer("gain", gain)

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """See ``Steering.control``.

        Raises:
            CheckpointError: the backbone has no h, or one of another width or resolution than the shifts were fitted
                for.
        """
        if not isinstance(backbone, DiffusionBackbone):
            raise CheckpointError(f"{type(backbone).__name__} has no h: shifts of h need a diffusion model's U-Net")
        self._check(backbone)
        weights = self.weights(inversion, edits) * self.gain * (self.train_steps / backbone.steps)
        jobs = []
        for shift, column in zip(self.shifts, weights.T, strict=True):
            rows = column.nonzero()[:, 0]  # each picture of a batch may have another emotion
            if len(rows):
                jobs.append((shift, rows, column[rows, None, None, None]))

        def delta_h(state: HState) -> Tensor:
            total = torch.zeros_like(state.h)
            for shift, rows, weight in jobs:
                part = HState(state.x_t[rows], state.t[rows], state.h[rows], state.temb[rows])
                total = total.index_add(0, rows, (weight * shift(part)).expand(-1, *total.shape[1:]))
            return self._projected(total, state)

        return Control(delta_h=delta_h)

    def _projected(self, total: Tensor, state: HState) -> Tensor:
        if not self.against:
            return total
        others = torch.stack([other(state).expand_as(total).flatten(1) for other in self.against], 2)  # [N, D, K]
        basis = torch.linalg.qr(others).Q
        flat = total.flatten(1)[:, :, None]
        return (flat - basis @ (basis.mT @ flat))[:, :, 0].view_as(total)

    def _check(self, backbone: DiffusionBackbone) -> None:
        shape = backbone.h_shape
        named = [*zip(self.emotions, self.shifts, strict=True), *(("against", d) for d in self.against)]
        for name, shift in named:
            for part in (shift.directions, shift.block) if isinstance(shift, AdaptedDirections) else (shift,):
                if isinstance(part, ShiftBlock):
                    found: tuple[int, ...] = (part.conv1.in_channels, part.temb_proj.in_features)
                    expected: tuple[int, ...] = (shape[0], backbone.temb_dim)
                    what = "channels of h and length of temb"
                else:
                    found = tuple(part.directions.shape[1:])
                    expected, what = shape[: len(found)], "shape of h"
                if found != expected:
                    raise CheckpointError(f"{name}: fitted for {what} {found}, the backbone has {expected}")

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the weights (safetensors)."""
        names: dict[type, str] = {kind: name for name, kind in KINDS.items()}
        config = {
            "emotions": list(self.emotions),
            "shifts": [names[type(shift)] for shift in self.shifts],
            "against": len(self.against),
            "train_steps": self.train_steps,
        }
        checkpoints.write_part(folder, config, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or does not fit this class.
        """
        folder = Path(folder)
        path = folder / checkpoints.CONFIG
        config = checkpoints.read_json(path)
        emotions, kinds, others = config.get("emotions"), config.get("shifts"), config.get("against", 0)
        if not (are_names(emotions) and are_names(kinds) and set(kinds) <= set(KINDS) and isinstance(others, int)):
            raise CheckpointError(
                f"{path}: 'emotions' must be a list of names, 'shifts' of {', '.join(KINDS)}, 'against' a number; "
                f"found {emotions!r}, {kinds!r} and {others!r}"
            )
        weights = folder / checkpoints.WEIGHTS
        state = checkpoints.read_weights(weights)
        shifts = [_empty(state, f"shifts.{i}.", kind, weights) for i, kind in enumerate(kinds)]
        against = [_empty_directions(state, f"against.{i}.", weights) for i in range(others)]
        steps = config.get("train_steps")
        if not isinstance(steps, int):
            raise CheckpointError(f"{path}: train_steps must be a whole number above 0, found {steps!r}")
        model = cls(emotions, shifts, train_steps=steps, against=against)
        checkpoints.check_state(model.state_dict(), state, weights)
        model.load_state_dict(state)
        return model.eval()

    @classmethod
    def from_asyrp(cls, files: Mapping[str, str | os.PathLike[str]], *, train_steps: int | None = None) -> Self:
        """Asyrp's own checkpoints (``smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth``): one f_t a file.

        Args:
            files: emotion -> file.
            train_steps: default: what the names say (``ngen40``).

        Raises:
            CheckpointError: no such file, damaged, another kind; or files whose names say nothing, or not the same,
                about the steps.
        """
        said = {int(m[1]) for m in map(TRAIN_STEPS.search, map(os.path.basename, files.values())) if m}
        if train_steps is None:
            if len(said) != 1:
                raise CheckpointError(
                    f"the names of the files give {sorted(said) or 'no'} steps of training (ngen...); give train_steps"
                )
            (train_steps,) = said
        blocks = [_asyrp_block(Path(path)) for path in files.values()]
        return cls(list(files), blocks, train_steps=train_steps).eval()

    @classmethod
    def joined(cls, parts: Mapping[str, HSpace]) -> Self:
        """Shifts that were fitted one by one, as one steering.

        Args:
            parts: emotion -> what holds its shift.

        Raises:
            CheckpointError: none, or one that does not hold its emotion.
        """
        if not parts:
            raise CheckpointError("no shift to join: give at least one")
        steps = next(iter(parts.values())).train_steps
        shifts, gains, against = [], [], []
        for emotion, part in parts.items():
            if emotion not in part.emotions and len(part.emotions) != 1:
                raise CheckpointError(f"no shift for {emotion!r} among those for {', '.join(part.emotions)}")
            number = part.emotions.index(emotion) if emotion in part.emotions else 0
            shifts.append(part.shifts[number])
            gains.append(float(part.gain[number]) * part.train_steps / steps)
            against += list(part.against)
        return cls(list(parts), shifts, train_steps=steps, gain=torch.tensor(gains), against=against).eval()


def _empty(state: Mapping[str, Tensor], prefix: str, kind: str, path: Path) -> Shift:
    """A shift of the size that its tensors have."""
    if kind == "adapted":
        directions = _empty_directions(state, f"{prefix}directions.", path)
        return AdaptedDirections(directions, _empty_block(state, f"{prefix}block.", path))
    return _empty_block(state, prefix, path) if kind == "block" else _empty_directions(state, prefix, path)


def _empty_block(state: Mapping[str, Tensor], prefix: str, path: Path) -> ShiftBlock:
    conv, linear = _both(state, (f"{prefix}conv1.weight", f"{prefix}temb_proj.weight"), path)
    if linear.ndim != 2:
        raise CheckpointError(f"{path}: {prefix}temb_proj.weight is {tuple(linear.shape)}, expected [C, D]")
    return ShiftBlock(len(conv), linear.shape[1])


def _empty_directions(state: Mapping[str, Tensor], prefix: str, path: Path) -> Directions:
    return Directions(*_both(state, (f"{prefix}directions", f"{prefix}timesteps"), path))


def _both(state: Mapping[str, Tensor], names: tuple[str, str], path: Path) -> tuple[Tensor, Tensor]:
    first, second = (state.get(name) for name in names)
    if first is None or second is None or not first.ndim or not second.ndim:
        raise CheckpointError(f"{path} does not hold {', '.join(names)}")
    return first, second


def _asyrp_block(path: Path) -> ShiftBlock:
    contents = read_file(path)
    state = contents.get("0") if isinstance(contents, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        listed = ", ".join(map(str, list(contents)[:4])) if isinstance(contents, Mapping) else type(contents).__name__
        raise CheckpointError(f"{path} holds {listed}; expected one DeltaBlock of Asyrp under '0'")
    if "in_layers.0.weight" in state:
        raise CheckpointError(
            f"{path} is a shift for the ADM U-Net of guided diffusion (Asyrp's dogs and MetFaces); this is for the "
            "DDPM's, as CelebA-HQ, churches and bedrooms have it"
        )
    block = _empty_block(state, "", path)
    checkpoints.check_state(block.state_dict(), state, path)
    block.load_state_dict(state)
    return block

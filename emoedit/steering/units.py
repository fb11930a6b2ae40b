"""Action units as displacements of a face's landmarks.

The units are those of the Facial Action Coding System (P. Ekman and W. Friesen 1978; Ekman, Friesen and Hager 2002). An
emotion is a sum of them (EMFACS, the subset of FACS codes that says which units an emotion shows).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from emoedit.emotions import parse
from emoedit.faces.layout import EYES, POINTS
from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.steering.base import Steering
from emoedit.steering.unit_names import CONTRADICTIONS, HIGHEST, LOWEST, SIDED, UNITS, check_units
from emoedit.types import CheckpointError, Control, Edit, EditError, Inversion

RIDGE = 1.5  # how much a unit has to explain before it is read, in deviations of neutral faces
TRACE, ALIKE = 0.1, 0.25  # what is weaker is not read; halves that differ by less are one
NEAREST = 0.2  # of the crop's side: how near to each other pupils are taken to be
TURNED = (0.5, 1.3)  # how much narrower or wider than the mean half of a turned face a half is taken to be
MIDDLE = [27, 28, 29, 30, 33]  # landmarks of the bridge and the tip of the nose


def face_shape(points: np.ndarray) -> np.ndarray:
    """Landmarks ``[68, 2]`` from the bridge of the nose, in distances between the pupils.

    Args:
        points: ``[68, 2]`` in any unit, the eyes level.
    """
    left, right = (points[eye].mean(0) for eye in EYES)
    return (points - points[27:31].mean(0)) / np.linalg.norm(right - left)


def _checked_units(units: dict[str, float]) -> dict[str, float]:
    """Units without traces, equal halves as one, and of those that contradict each other the stronger."""
    merged: dict[str, float] = {}
    for number in UNITS:
        right, left = (units.get(f"AU{number}{half}", units.get(f"AU{number}", 0.0)) for half in "RL")
        if abs(right - left) < ALIKE:
            merged[f"AU{number}"] = (right + left) / 2
        else:
            merged |= {f"AU{number}R": right, f"AU{number}L": left}
    merged = {name: round(value, 3) for name, value in merged.items() if value >= TRACE}
    for first, second in CONTRADICTIONS:
        both = [[n for n in merged if n.rstrip("LR") == f"AU{unit}"] for unit in (first, second)]
        if all(both):
            weaker = min(both, key=lambda names: max(merged[name] for name in names))
            merged = {name: value for name, value in merged.items() if name not in weaker}
    return merged


class ActionUnits(Steering):
    """Action units, and emotions as sums of them.

    Args:
        sums: emotion -> unit (a name as [unit_name][emoedit.steering.unit_names.unit_name] gives it) -> how strong.
        displacements: ``[20, 68, 2]`` of every unit in ``UNITS``' order, in distances between the pupils, of a face
            that looks into the camera; x to the right of the picture, y down.
        left: ``[68]``: how far a landmark belongs to the person's left half, in [0, 1].
        neutral: ``[68, 2]``: the mean neutral face, as [face_shape][emoedit.steering.units.face_shape] has it; None
            where units cannot be read.
        whitener: ``[136, 136]``: whitens the differences between neutral faces; None where units cannot be read.

    Raises:
        CheckpointError: other shapes, or a sum of units that do not exist.
    """

    displacements: Tensor
    left: Tensor
    neutral: Tensor | None
    whitener: Tensor | None
    _table: Tensor

    def __init__(
        self,
        sums: Mapping[str, Mapping[str, float]],
        displacements: Tensor,
        left: Tensor,
        neutral: Tensor | None = None,
        whitener: Tensor | None = None,
    ) -> None:
        super().__init__()
        if displacements.shape != (len(UNITS), POINTS, 2) or left.shape != (POINTS,):
            raise CheckpointError(
                f"units move as [{len(UNITS)}, {POINTS}, 2] with sides [{POINTS}]; found "
                f"{tuple(displacements.shape)} and {tuple(left.shape)}"
            )
        if not bool(displacements.isfinite().all()):
            raise CheckpointError("displacements of units have to be finite numbers")
        self.sums = {emotion: {name: float(w) for name, w in units.items()} for emotion, units in sums.items()}
        self.units = tuple(f"AU{n}" for n in UNITS)
        halves = tuple(f"AU{n}{half}" for n in SIDED for half in "LR")
        unknown = {name for units in self.sums.values() for name in units} - {*self.units, *halves}
        if unknown:
            raise CheckpointError(f"emotions are sums of units that do not exist: {', '.join(sorted(unknown))}")
        self.emotions = (*self.sums, *self.units, *halves)
        self.register_buffer("displacements", displacements.float())
        self.register_buffer("left", left.float())
        shapes = [None if part is None else tuple(part.shape) for part in (neutral, whitener)]
        if shapes not in ([None, None], [(POINTS, 2), (2 * POINTS, 2 * POINTS)]):
            raise CheckpointError(
                f"a neutral face and its whitener come together, of {POINTS} landmarks; found {shapes}"
            )
        self.register_buffer("neutral", None if neutral is None else neutral.float())
        self.register_buffer("whitener", None if whitener is None else whitener.float())
        self.register_buffer("_table", self._activations(), persistent=False)

    def _activations(self) -> Tensor:
        """``[number of emotions, 20, 2]``: how strongly each name activates each unit, right half and left half."""
        table = torch.zeros(len(self.emotions), len(self.units), 2)
        for row, name in enumerate(self.emotions):
            for unit, weight in self.sums.get(name, {name: 1.0}).items():
                halves = [1.0, 1.0] if unit in self.units else [float(unit[-1] == "R"), float(unit[-1] == "L")]
                table[row, self.units.index(unit.rstrip("LR"))] += weight * torch.tensor(halves)
        return table

    def activations(self, inversion: Inversion, edits: Sequence[Edit]) -> Tensor:
        """How strongly each unit of each picture is activated, ``[N, 20, 2]``, right half and left half.

        Args:
            inversion: inversion of N pictures.
            edits: one a picture.

        Raises:
            EditError: units that contradict each other; not one edit a picture.
            UnknownNameError: an emotion that does not resolve to this steering's own.
        """
        for edit in edits:
            named = parse(edit.emotion, extra=self.emotions)
            check_units({name: w * edit.strength for name, w in named.items() if name not in self.sums})
        weights = self.weights(inversion, edits)
        return torch.einsum("ne,euh->nuh", weights, self._table.to(weights)).clamp(LOWEST, HIGHEST)

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """See [Steering.control][emoedit.steering.base.Steering.control].

        Args:
            backbone: backbone that moves landmarks.
            inversion: inversion with ``landmarks``.
            edits: one a picture.

        Raises:
            EditError: a backbone that does not know where landmarks are.
        """
        points = inversion.extras.get("landmarks")
        if points is None:
            raise EditError(f"action units move landmarks, and {type(backbone).__name__} has none; use editor 'facs'")
        active = self.activations(inversion, edits).to(points)
        sides = torch.stack([1 - self.left, self.left], -1)  # [68, 2]
        moves = torch.einsum("nuh,ph,upc->npc", active, sides, self.displacements)
        return Control(displacements=moves * self._scale(points))

    def read(self, points: np.ndarray) -> dict[str, float]:
        """The units that a face shows.

        Non-negative least squares, whitened by the covariance of neutral faces of different people and poses.

        Args:
            points: ``[68, 2]`` landmarks in any unit, the eyes level.

        Returns:
            Unit -> strength, 0 to 1.5; separate for halves that differ. Units weaker than 0.1 are left out, and so is
            the weaker of two that contradict each other.

        Raises:
            CheckpointError: a checkpoint without the statistics of neutral faces.
        """
        if self.neutral is None or self.whitener is None:
            raise CheckpointError("these action units hold no statistics of neutral faces, so none can be read")
        halves = [f"AU{n}{half}" for n in UNITS for half in ("RL" if n in SIDED else ("",))]
        rows = self._table[[self.emotions.index(name) for name in halves]]
        sides = torch.stack([1 - self.left, self.left], -1)
        moves = torch.einsum("kuh,ph,upc->kpc", rows, sides, self.displacements).flatten(1).double().numpy()
        white = self.whitener.double().numpy()
        away = (face_shape(points) - self.neutral.double().numpy()).ravel()
        system = np.concatenate([white @ moves.T, RIDGE * np.eye(len(halves))])
        found, _ = nnls(system, np.concatenate([white @ away, np.zeros(len(halves))]))
        return _checked_units(dict(zip(halves, found.clip(0, HIGHEST).tolist(), strict=True)))

    def _scale(self, points: Tensor) -> Tensor:
        """The distance between the pupils, less across a half that is turned away: ``[N, 68, 2]``."""
        pupils = torch.stack([points[:, eye].mean(1) for eye in EYES], 1)
        apart = (pupils[:, 1] - pupils[:, 0]).norm(dim=-1).clamp_min(NEAREST)
        middle = points[:, MIDDLE, 0].mean(1)
        halves = torch.stack([middle - points[:, 36, 0], points[:, 45, 0] - middle], -1)
        shares = (halves / halves.mean(-1, keepdim=True).clamp_min(1e-3)).clamp(*TURNED)
        across = shares[:, :1] * (1 - self.left) + shares[:, 1:] * self.left
        return apart[:, None, None] * torch.stack([across, torch.ones_like(across)], -1)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """See [Steering.save_pretrained][emoedit.steering.base.Steering.save_pretrained].

        Args:
            folder: the folder to write.
        """
        checkpoints.write_part(folder, {"sums": self.sums}, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """See [Steering.from_pretrained][emoedit.steering.base.Steering.from_pretrained].

        Args:
            folder: the folder to read.

        Raises:
            CheckpointError: a file is missing, damaged, or of another shape.
        """
        folder = Path(folder)
        path = folder / checkpoints.CONFIG
        sums: Any = checkpoints.read_json(path).get("sums")
        state = checkpoints.read_weights(folder / checkpoints.WEIGHTS)
        if not {"displacements", "left"} <= set(state) <= {"displacements", "left", "neutral", "whitener"}:
            raise CheckpointError(f"{folder / checkpoints.WEIGHTS} holds {', '.join(state) or 'nothing'}, no units")
        try:
            sums = {str(e): {str(u): float(w) for u, w in units.items()} for e, units in sums.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: 'sums' must map emotions to units and numbers: {error}") from error
        return cls(sums, **state).eval()

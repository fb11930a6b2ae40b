"""Action units that an editor adds to its model's output.

Models move some parts too little, such as brows in anger. Units move the landmarks of the model's output before it is
put into the photograph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from emoedit.faces.warp import sample
from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.models.landmarks.backbone import LandmarkBackbone, LandmarksConfig
from emoedit.models.luminance import in_luminance
from emoedit.steering.units import ActionUnits
from emoedit.types import CheckpointError, Edit, Inversion

Sums = Mapping[str, Mapping[str, float]]  # emotion -> unit -> how strong at strength 1
EMBEDDED = "facs/steering_0"  # whose displacements units are


class AddedUnits:
    """Moves the landmarks of drawings by action units.

    Args:
        sums: emotion -> unit (``"AU4"``, ``"AU12L"``) -> how strong at strength 1 of the edit, -1 to 1.5.
        emotions: names that the editor supports: what an edit's name resolves to.
        backbone: backbone that draws.

    Raises:
        CheckpointError: sums of emotions that the editor does not know, of units that do not exist or that are no
            numbers; a backbone that moves faces itself, or whose crops have another alignment than the stable one, in
            which landmarks are found.
    """

    def __init__(self, sums: Sums, emotions: Sequence[str], backbone: Backbone) -> None:
        self.sums, crop = _checked(sums, emotions), backbone.crop
        if crop.style != "stable" or type(backbone).changes is not Backbone.changes:
            kind = f"{type(backbone).__name__}, whose crops are of style {crop.style!r}"
            raise CheckpointError(f"units are added to drawings in crops of style 'stable', not to those of {kind}")
        facs = _embedded_units()
        everything = {emotion: self.sums.get(emotion, {}) for emotion in emotions}
        self.steering = ActionUnits(everything, facs.displacements, facs.left)
        self.mover = LandmarkBackbone(LandmarksConfig(crop.resolution, crop.scale, crop.down))

    def __call__(self, drawn: Tensor, edit: Edit) -> Tensor:
        """What a model drew of some faces for an edit, with the edit's units in it.

        Args:
            drawn: ``[N, C, R, R]`` in [-1, 1].
            edit: emotion and strength.

        Returns:
            ``[N, C, R, R]``; what was given where the edit has no units.
        """
        edits = [edit] * len(drawn)
        if not self.steering.activations(Inversion(drawn), edits).any():
            return drawn
        self.mover.to(drawn.device)
        seen = self.mover.invert(in_luminance(drawn))
        moved = []
        changes = self.mover.changes(seen, self.steering.control(self.mover, seen, edits))
        for picture, change in zip(drawn.permute(0, 2, 3, 1).float().cpu().numpy(), changes, strict=True):
            there = sample(picture, change.flow).reshape(picture.shape) + change.remainder[..., None] / 127.5
            moved.append(torch.from_numpy(np.ascontiguousarray(there, np.float32)))
        return torch.stack(moved).permute(0, 3, 1, 2).to(drawn)


def _checked(sums: Sums, emotions: Sequence[str]) -> dict[str, dict[str, float]]:
    """Sums as ``editor.json`` has them; which units there are is known to ``ActionUnits``."""
    try:
        found = {str(name): {str(unit): float(w) for unit, w in units.items()} for name, units in sums.items()}
    except (AttributeError, TypeError, ValueError):
        raise CheckpointError(f"units are emotion -> unit -> number, not {sums!r}") from None
    unknown = set(found) - set(emotions)
    if unknown or not all(math.isfinite(w) for units in found.values() for w in units.values()):
        raise CheckpointError(f"units are finite numbers for {', '.join(emotions)}; found {found!r}")
    return found


@lru_cache(maxsize=1)
def _embedded_units() -> ActionUnits:
    return ActionUnits.from_pretrained(checkpoints.embedded_root() / EMBEDDED)

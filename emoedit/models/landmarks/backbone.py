"""No model: a face's landmarks are moved, and the photograph's own pixels go with them.

The latent of a crop is the crop; its landmarks stand beside it. What a steering asks for is a displacement of every
landmark (``Control.displacements``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from emoedit.faces.curves import filled, outline
from emoedit.faces.landmarks import landmark_finder, luminance_patches
from emoedit.faces.layout import EYES, OUTER
from emoedit.faces.masks import face_masks
from emoedit.faces.moving import crease_light, face_flow, possible
from emoedit.faces.warp import sample
from emoedit.models.base import Callback
from emoedit.models.configured import ConfiguredBackbone
from emoedit.types import Change, CheckpointError, Control, CropSpec, Inversion


@dataclass(frozen=True)
class LandmarksConfig:
    """Which crop moves.

    Args:
        resolution: side of the crop in pixels.
        crop_scale: scale of the crop ([CropSpec][emoedit.types.CropSpec], style ``stable``).
        crop_down: vertical offset of the crop.
    """

    resolution: int = 128
    crop_scale: float = 0.66
    crop_down: float = 0.074


class LandmarkBackbone(ConfiguredBackbone[LandmarksConfig]):
    """Moves the landmarks of a crop. It has no weights of its own; the embedded landmark network finds the landmarks.

    Args:
        config: see [LandmarksConfig][emoedit.models.landmarks.backbone.LandmarksConfig].
    """

    channels = 1
    place: Tensor
    compositor = "landmarks"

    def __init__(self, config: LandmarksConfig) -> None:
        super().__init__()
        self.config = config
        self.crop = CropSpec(config.resolution, "stable", config.crop_scale, config.crop_down)
        self.register_buffer("place", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where crops are."""
        return self.place.device

    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """The crop itself, with ``landmarks`` ``[N, 68, 2]`` in fractions of its side beside it.

        Args:
            x: ``[N, 1, R, R]`` in [-1, 1].
            generator: is ignored.
            callback: called with (steps done, steps in all).
        """
        finder, side = landmark_finder(str(self.device)), self.config.resolution
        seen = finder.network.crop
        # Two crops of one alignment differ in scale and in how far down they lie.
        k = self.crop.scale / seen.scale * seen.resolution / side
        shift = (seen.resolution - 1) / 2 - k * (side - 1) / 2
        down = (self.crop.down - seen.down) / seen.scale * seen.resolution
        matrix = np.array([[k, 0, shift], [0, k, shift + down]])
        crops = ((x[:, 0].float() + 1) * 127.5).cpu().numpy()
        patches = luminance_patches(list(crops), matrix, seen.resolution)
        with torch.no_grad():
            inputs = torch.from_numpy(patches)[:, None].to(self.device) / 127.5 - 1
            points = finder.network(inputs)["points"].double() * seen.resolution - 0.5
        there = (points - points.new_tensor(matrix[:, 2])) / k
        if callback is not None:
            callback(1, 1)
        return Inversion(x.clone(), {"landmarks": ((there + 0.5) / side).float()})

    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """``[N, 1, R, R]``: the crop, or the crop with its landmarks moved.

        Lips that part show nothing between them here: the compositor draws it into the photograph.

        Args:
            inversion: inversion of crops.
            control: control with the ``displacements``.
            callback: called with (steps done, steps in all).
        """
        drawn = inversion.latent.clone()
        if control.displacements is not None:
            for row, change in zip(drawn, self.changes(inversion, control), strict=True):
                moved = sample(row[0].float().cpu().numpy(), change.flow) + change.remainder / 127.5
                row[0] = torch.from_numpy(moved).to(row)
        if callback is not None:
            callback(1, 1)
        return drawn

    def _level(self, crop: np.ndarray) -> float:
        return float(np.median(crop[face_masks(self.crop).face > 0.5]))

    def changes(self, inversion: Inversion, control: Control) -> list[Change]:
        """What moves and what light comes with it, one a picture.

        Args:
            inversion: inversion of crops.
            control: control with the ``displacements``.
        """
        side, mask = self.config.resolution, face_masks(self.crop).face
        points = inversion.extras["landmarks"].double().cpu().numpy()
        moves = np.zeros_like(points) if control.displacements is None else control.displacements.double().cpu().numpy()
        result = []
        for crop, before, move in zip(inversion.latent[:, 0].float().cpu().numpy(), points, moves, strict=True):
            after = before + possible(before, move)
            before, after = before * side - 0.5, after * side - 0.5
            flow = face_flow(before, after, mask)
            parts = [outline(after[OUTER]), *(outline(after[eye]) for eye in EYES)]
            hidden = np.max([filled(part, mask.shape) for part in parts], 0)
            hidden = cv2.GaussianBlur(cv2.dilate(hidden, np.ones((5, 5))), (0, 0), 0.012 * side)
            light = crease_light(flow, mask, hidden, 127.5 * (self._level(crop) + 1))
            result.append(Change(flow.astype(np.float32), light, np.stack([before, after])))
        return result

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LandmarkBackbone:
        """See [Backbone.from_config][emoedit.models.base.Backbone.from_config].

        Args:
            config: what [LandmarksConfig][emoedit.models.landmarks.backbone.LandmarksConfig] takes.

        Raises:
            CheckpointError: it takes something else.
        """
        try:
            return cls(LandmarksConfig(**config))
        except TypeError as error:
            raise CheckpointError(f"this is no configuration of a landmark backbone: {error}") from error

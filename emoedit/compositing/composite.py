"""The values that the parts of a compositor read and pass on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from emoedit.compositing.drawing import Drawing
from emoedit.compositing.lips import LipReading, read_lips
from emoedit.faces.analysis import FaceAnalysis


@dataclass(frozen=True)
class Layer:
    """A picture that is blended over the photograph.

    Args:
        rgb: float32 ``[h, w, 3]``, 0 to 255, on a grid of its own.
        alpha: float32 ``[h, w]`` in [0, 1]: its opacity.
        to_crop: ``[2, 3]``: pixels of the grid -> pixels of the crop.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    to_crop: np.ndarray


@dataclass(frozen=True)
class Scene:
    """What every part can read.

    Args:
        face: analysis of the face in the photograph.
        drawing: the backbone's pictures, before and after.
    """

    face: FaceAnalysis
    drawing: Drawing

    @cached_property
    def lips(self) -> LipReading:
        """Where the lips of the drawing are, and what becomes visible between them."""
        before, after = self.drawing.luma
        has_teeth = self.face.opening is not None
        return read_lips(self.drawing.points, before, after, self.drawing.teeth, self.face.masks, has_teeth=has_teeth)


@dataclass(frozen=True)
class Composite:
    """An edit of one face, as changes of the photograph's own pixels; R is the crop's side.

    Args:
        flow: float32 ``[R, R, 2]``: the pixel that lands at p comes from ``p + flow[p]``, in pixels of the crop.
        change: float32 ``[R, R]`` grey levels or ``[R, R, 3]`` RGB levels to add after the movement.
        layers: layers over both, in order.
        notes: notes for the user.
        blend: factor on the face mask, whose product, at most 1, is the edit's opacity: above 1 the edit is opaque
            nearer the mask's edge.
    """

    flow: np.ndarray
    change: np.ndarray
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()
    blend: float = 4.0

    @classmethod
    def empty(cls, resolution: int) -> Self:
        """No change.

        Args:
            resolution: side of the crop in pixels.
        """
        return cls(np.zeros((resolution, resolution, 2), np.float32), np.zeros((resolution, resolution), np.float32))

    def with_layer(self, layer: Layer) -> Self:
        """The same with another layer on top.

        Args:
            layer: the layer to add.
        """
        return replace(self, layers=(*self.layers, layer))

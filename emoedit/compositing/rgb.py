"""Parts for models of colour, which draw mouths, eyes and skin themselves.

The photograph plus the difference between edit and reconstruction, with the photograph's finer detail moved along.
Where an edge of the drawing has no counterpart in the photograph, the photograph's detail no longer applies: there the
drawing itself is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np

from emoedit.compositing.composite import Composite, Layer, Scene
from emoedit.faces.curves import smoothstep
from emoedit.faces.tone import LUMA
from emoedit.faces.warp import sample

CROP = np.array([[1.0, 0, 0], [0, 1, 0]])  # a layer on the crop's own pixels


@dataclass(frozen=True)
class NewEdges:
    """Shows the drawing where it has edges that the photograph lacks. Fractions are of the crop's side.

    Args:
        spread: scale above which a variation counts as light and not as an edge.
        soft: width of the soft edge of what is shown.
        skin: edges, in skin levels, between which the drawing begins to be shown; chosen so that an oracle editor keeps
            more than .92 of the sharpness of five London people at 256 and 512 pixels.
        mouth: the same in the mouth, lower, because the photograph's lips would show through an opening mouth.
    """

    channels: ClassVar[int] = 3
    spread: float = 0.03
    soft: float = 0.012
    skin: tuple[float, float] = (0.2, 0.5)
    mouth: tuple[float, float] = (0.04, 0.11)

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with a layer of the drawing."""
        face, drawing, side = scene.face, scene.drawing, len(composite.change)
        change = composite.change if composite.change.ndim == 2 else composite.change @ LUMA
        over = change * face.masks.face
        edges = np.abs(over - cv2.GaussianBlur(over, (0, 0), self.spread * side))
        edges = cv2.GaussianBlur(edges, (0, 0), self.soft * side)
        level = float(np.median(drawing.luma[1][face.masks.face > 0.5]))
        shares = [smoothstep(edges, *(bound * level for bound in bounds)) for bounds in (self.skin, self.mouth)]
        alpha = shares[0] + face.masks.mouth * (np.maximum(*shares) - shares[0])
        # What every reconstruction loses, above all its tint, is not part of the edit.
        lost = cv2.GaussianBlur(face.crop - drawing.before, (0, 0), self.spread * side)
        rgb = drawing.after + sample(lost, composite.flow)
        return composite.with_layer(Layer(rgb.astype(np.float32), alpha.astype(np.float32), CROP))


@dataclass(frozen=True)
class WholeDrawing:
    """The edit itself in place of the photograph, for services that return a finished picture, and for baselines."""

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with the whole edit as a layer."""
        after = scene.drawing.after
        if after.ndim == 2:  # a model of luminance has no colour to give: the photograph keeps its own
            after = scene.face.crop + (after - scene.face.crop @ LUMA)[..., None]
        rgb, alpha = after.astype(np.float32), np.ones(after.shape[:2], np.float32)
        return replace(composite.with_layer(Layer(rgb, alpha, CROP)), blend=1.0)

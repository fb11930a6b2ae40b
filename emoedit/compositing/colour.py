"""The part for models of colour: the change of colour that comes with a change of luminance.

The parts before it work on luminance alone, where edges are. Of the drawings' colour, RGB less luminance, the change
along the flow is added: skin reddens, lips pale, the white of an eye shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from emoedit.compositing.composite import Composite, Scene
from emoedit.faces.tone import LUMA
from emoedit.faces.warp import sample


@dataclass(frozen=True)
class Colour:
    """Adds the drawings' change of colour.

    Args:
        mouth: share of the change in the mouth; below 1 where the mouth is drawn by another part.
        face: share that fades with the face mask: small models are wrong near its edge.
        most: largest change of colour, in grey levels.
    """

    channels: ClassVar[int] = 3
    mouth: float = 1.0
    face: float = 0.0
    most: float = 255.0

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with an RGB change ``[R, R, 3]``."""
        masks, drawing = scene.face.masks, scene.drawing
        before, after = (rgb - (rgb @ LUMA)[..., None] for rgb in (drawing.before, drawing.after))
        colour = np.clip(after - sample(before, composite.flow), -self.most, self.most)
        share = (1 - self.face * (1 - masks.face)) * (1 - (1 - self.mouth) * masks.mouth)
        change = composite.change[..., None] + colour * share[..., None]
        return replace(composite, change=change.astype(np.float32))

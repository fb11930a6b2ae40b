"""The part for luminance that turns a change of light into a change of colour.

Shading scales red, green and blue alike. An edge that disappears takes its colour along: a crease is warmer than the
skin that replaces it. Dark faces are drawn at lifted tones; here the change is converted to the photograph's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np

from emoedit.compositing.composite import Composite, Scene
from emoedit.faces.curves import smoothstep
from emoedit.faces.tone import LUMA
from emoedit.faces.warp import sample


@dataclass(frozen=True)
class Light:
    """Gives a change of luminance its colours.

    Args:
        spread: how far colour is averaged around an edge that disappears, in crop sides; about the height of a lip.
        edge: grey levels over that height between which an edge's colour begins to disappear with it.
        darkest: smallest factor on the colour in a shadow.
        brightest: largest factor on the colour in light: an iris lit threefold would glow in its own colour.
        floor: grey levels added to both sides of the ratio, so that noise in the dark gets no colour.
    """

    channels: ClassVar[int] = 1
    spread: float = 0.05
    edge: tuple[float, float] = (8.0, 24.0)
    darkest: float = 0.2
    brightest: float = 1.35
    floor: float = 8.0

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with an RGB change ``[R, R, 3]`` at the photograph's own tones."""
        moved = sample(scene.face.crop, composite.flow)
        before, tone = moved @ LUMA, scene.face.tone
        if tone.power == 1:
            light = composite.change
        else:
            lifted = tone.lift(before)
            light = tone.lower(lifted + composite.change) - before
        after = np.clip(before + light, 0, 255)
        colour = self._colour(moved - before[..., None], before, after)
        return replace(composite, change=after[..., None] + colour - moved)

    def _colour(self, chroma: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The new colour, RGB less luminance, ``[R, R, 3]``."""
        spread = self.spread * len(before)
        ratio = np.clip((after + self.floor) / (before + self.floor), self.darkest, self.brightest)
        # A crease that disappears is not lit: a ratio as sharp as the crease would leave its colour glowing.
        near = [cv2.GaussianBlur(levels, (0, 0), spread) for levels in (before, after)]
        ratio = np.minimum(ratio, np.maximum(1, (near[1] + self.floor) / (near[0] + self.floor)))
        # Shadows on skin are warmer than grey ones: light scatters into them through the skin.
        ratio = np.where(ratio < 1, np.sqrt(ratio), ratio)
        colour = chroma * ratio[..., None].astype(np.float32)
        light = after - before
        sharp = light - (near[1] - near[0])
        even = cv2.GaussianBlur(colour, (0, 0), spread)
        excess = np.linalg.norm(colour, axis=-1) - np.linalg.norm(even, axis=-1)
        # Darkening an iris removes no edge: without this test it would take on the colour of skin.
        taken = (excess * sharp > 0) & (sharp * (before - near[0]) < 0)
        share = (smoothstep(np.abs(sharp), *self.edge) * taken).astype(np.float32)
        return colour + (even - colour) * share[..., None]

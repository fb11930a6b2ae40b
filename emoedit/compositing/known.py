"""Mouths of a backbone that knows where the lips go: what parts is known, and need not be read from a drawing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from emoedit.compositing.composite import Composite, Scene
from emoedit.compositing.compositors import Compositor
from emoedit.compositing.lips import LipReading
from emoedit.compositing.mouth import Mouth
from emoedit.faces.curves import smoothstep
from emoedit.faces.layout import CORNERS, PAIRS
from emoedit.registry import COMPOSITOR_PARTS
from emoedit.types import EditError


@dataclass(frozen=True)
class _KnownLips(Scene):
    """A scene whose lips are known."""

    lips: LipReading  # takes the place of what would be read from the drawing


@dataclass(frozen=True)
class KnownMouth:
    """Draws what lips hid that were together and part. Fractions are of the crop's side.

    Lips that were apart in the photograph already show their own inside, which is stretched.

    Args:
        parted: by how much lips part where nothing is drawn, and where it is drawn whole.
        apart: how far apart lips were whose own inside is stretched: not at all, and altogether.
        wider: by how much the mouth becomes wider where no teeth show, and where a row shows.
        wide: opening between which a row of teeth becomes the dark of a dropped jaw.
        mouth: how the inside is drawn.
    """

    parted: tuple[float, float] = (0.002, 0.012)
    apart: tuple[float, float] = (0.012, 0.03)
    wider: tuple[float, float] = (0.01, 0.04)
    wide: tuple[float, float] = (0.07, 0.12)
    mouth: Mouth = field(default_factory=lambda: Mouth(kept=0.0))

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with a layer between lips that part.

        Raises:
            EditError: the backbone moves no landmarks.
        """
        known = scene.drawing.known
        if known is None or known.points is None:
            raise EditError("the compositor 'landmarks' is for backbones that move landmarks; use 'drawn' or 'rgb'")
        return self.mouth(
            _KnownLips(scene.face, scene.drawing, self.read(known.points, len(composite.change))), composite
        )

    def read(self, points: np.ndarray, side: int) -> LipReading:
        """What the landmarks say of the mouth.

        Args:
            points: ``[2, 68, 2]`` before and after, in pixels of the crop.
            side: side of the crop.
        """
        first, last = (float(np.mean([p[k, 1] - p[i, 1] for i, k in PAIRS])) / side for p in points)
        widths = [float(np.linalg.norm(p[CORNERS[1]] - p[CORNERS[0]])) / side for p in points]
        opens = float(smoothstep(last - max(first, 0.0), *self.parted) * (1 - smoothstep(first, *self.apart)))
        teeth = float(smoothstep(widths[1] - widths[0], *self.wider) * (1 - smoothstep(last, *self.wide)))
        return LipReading(points[0], points[1], opens, teeth, 0.0)


def landmarks() -> Compositor:
    """For backbones that move landmarks and light, and know where lips part."""
    names = ("known_movement", "known_mouth", "light")
    parts = tuple((name, COMPOSITOR_PARTS.get(name)()) for name in names)
    return Compositor("landmarks", parts, closes_smiles=True, reads_drawings=False)

"""Mouths for a backbone that moves landmarks: where lips part is known and not read from a drawing."""

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
    """A scene whose lips come from the backbone's landmarks."""

    lips: LipReading  # in place of what ``Scene`` reads from the drawing


@dataclass(frozen=True)
class KnownMouth:
    """Draws the inside of a mouth whose closed lips part. Fractions are of the crop's side.

    Where lips are apart in the photograph, the visible inside of the mouth is stretched instead.

    Args:
        parted: how far lips part where the inside begins to be drawn, and where it is opaque.
        apart: distance of the lips in the photograph from which the inside is stretched in part, and altogether.
        wider: how much the mouth widens where teeth begin to show, and where a whole row shows.
        wide: openings between which the row of teeth fades into the dark of a dropped jaw.
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
            raise EditError("the compositor 'landmarks' is for backbones that move landmarks; leave it out")
        return self.mouth(
            _KnownLips(scene.face, scene.drawing, self.read(known.points, len(composite.change))), composite
        )

    def read(self, points: np.ndarray, side: int) -> LipReading:
        """The lips according to the landmarks.

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
    """For backbones that move landmarks and light."""
    names = ("known_movement", "known_mouth", "light")
    parts = tuple((name, COMPOSITOR_PARTS.get(name)()) for name in names)
    return Compositor("landmarks", parts, closes_smiles=True, reads_drawings=False)

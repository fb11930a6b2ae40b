"""Drawing of the upper teeth between parted lips.

Their sizes are averages; each is rounded, recedes towards the corners of the mouth, and lies in the shadow of the upper
lip.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from emoedit.faces.curves import smoothstep
from emoedit.faces.tone import LUMA

if TYPE_CHECKING:
    from emoedit.compositing.mouth import LipAperture
    from emoedit.faces.analysis import FaceAnalysis

PUPILS = 63.0  # mm apart (Dodgson 2004)
WIDTHS = np.array([8.5, 6.5, 5.5, 4.0, 3.0, 2.0])  # mm, from the middle, as seen from the front (Ash and Nelson 2003)
SHORTER = np.array([0.0, 1.0, 0.4, 1.5, 2.0, 2.5])  # mm shorter than the longest, as far as visible
CURVED = np.array([0.9, 0.7, 1.3, 1.0, 0.8, 0.8])  # mm by which an edge is higher at a tooth's sides than in its middle


@dataclass(frozen=True)
class TeethVisibility:
    """How much of the upper teeth is visible.

    Args:
        share: largest share of the gap between the lips that they cover.
        longest: largest visible length, in mm.
        light: brightness, that of ``teeth_level`` being 1.
        shadow: darkening below the upper lip.
        wide: distances from the middle, in mm, between which they fade into the dark.
        tongue: visibility of a tongue below them, in [0, 1].
    """

    share: float
    longest: float
    light: float
    shadow: float
    wide: tuple[float, float]
    tongue: float

    def towards(self, other: TeethVisibility, share: float) -> TeethVisibility:
        """A share, in [0, 1], of the way to another visibility.

        Args:
            other: visibility at share 1.
            share: 0 to 1.
        """
        mine, far = ({f.name: np.asarray(getattr(v, f.name)) for f in fields(v)} for v in (self, other))
        mixed = {name: (mine[name] + share * (far[name] - mine[name])).tolist() for name in mine}
        return TeethVisibility(**{**mixed, "wide": tuple(mixed["wide"])})


@dataclass(frozen=True)
class UpperTeeth:
    """Draws upper teeth.

    Args:
        gap: half the width of the line between two teeth, in mm.
        taper: additional half width of that line at its lower end, in mm.
        line: darkening in that line.
        rounded: darkening towards that line.
        reach: length of the upper lip's shadow, in mm.
        arch: distances from the middle, in mm, between which teeth recede.
        back: darkening of the last ones.
        softest: least width of soft edges, in mm.
        of_skin: share of the skin's colour in that of teeth; this and the next are fitted to 135 everyday smiles.
        of_white: share of the colour of the whites of the eyes in it.
        dim: levels of skin, of the whites of the eyes, and of a photograph's brightest places; a photograph below all
            three is dim, and its teeth are limited by ``over_white``. Dark skin in good light has bright eyes or a
            bright photograph.
        over_white: largest brightness of teeth in dim photographs, that of the whites of the eyes being 1.
    """

    gap: float = 0.16
    taper: float = 0.30
    line: float = 0.15
    rounded: float = 0.07
    reach: float = 1.6
    arch: tuple[float, float] = (12.0, 28.0)
    back: float = 0.5
    softest: float = 0.12
    of_skin: float = 0.1
    of_white: float = 0.3
    dim: tuple[tuple[float, float], ...] = ((80.0, 110.0), (90.0, 130.0), (190.0, 240.0))
    over_white: float = 1.15

    def __call__(
        self,
        aperture: LipAperture,
        eyes: float,
        skin: np.ndarray,
        face: FaceAnalysis,
        shown: TeethVisibility,
        behind: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Upper teeth between lips, on the mouth grid.

        Args:
            aperture: gap between the lips.
            eyes: distance between the pupils, in pixels of the grid.
            skin: float32 ``[h, w]``: levels of lit skin, 0 to 255, at lifted tones.
            face: analysis of the face.
            shown: visibility of the teeth.
            behind: float32 ``[h, w]``: levels of the mouth without teeth.

        Returns:
            Levels, and where teeth are, in [0, 1]: float32 ``[h, w]`` each.
        """
        mm = PUPILS / eyes
        x = self._along_arch(aperture) * mm
        ends = np.cumsum(WIDTHS)
        tooth = np.searchsorted(ends, np.abs(x)).clip(0, len(WIDTHS) - 1)
        # From -1 at one side of a tooth to 1 at its other one.
        across = (2 * (np.abs(x) - (ends - WIDTHS)[tooth]) / WIDTHS[tooth] - 1).clip(-1, 1)
        down = np.maximum(aperture.below * mm, 0)
        length = np.minimum(shown.share * aperture.height * mm, shown.longest - SHORTER[tooth])
        edge = length - np.minimum(CURVED[tooth], 0.3 * length) * np.abs(across) ** 2.5
        soft = max(aperture.soft * mm, self.softest)
        teeth = smoothstep(edge - down, -soft, soft) * (1 - smoothstep(np.abs(x), *shown.wide))
        near = (1 - np.abs(across)) * WIDTHS[tooth] / 2
        lower = np.clip(down / np.maximum(edge, 0.1), 0, 1) ** 4
        line = np.exp(-0.5 * (near / (self.gap + self.taper * lower + 0.3 * soft)) ** 2)
        light = (1 - self.line * line) * (1 - self.rounded * np.abs(across) ** 3)
        light = light * (1 - shown.shadow * np.exp(-down / self.reach))
        light = light * (1 - self.back * smoothstep(np.abs(x), *self.arch))
        levels = behind + teeth * (light * self._lit(shown.light * teeth_level(skin), face) - behind)
        return levels.astype(np.float32), teeth.astype(np.float32)

    def _along_arch(self, aperture: LipAperture) -> np.ndarray:
        """Where columns of the grid are along the arch, ``[w]`` in its pixels from the middle.

        On a turned head the far side is foreshortened.
        """
        x = np.arange(len(aperture.height), dtype=np.float32) - aperture.middle
        half = (aperture.right - aperture.left) / 2
        sides = np.array([aperture.middle - aperture.left, aperture.right - aperture.middle])
        sides = np.clip(sides, 0.6 * half, 1.4 * half)  # in a profile, landmarks of the far side are wrong
        return x * np.where(x < 0, half / sides[0], half / sides[1])

    def _dimness(self, face: FaceAnalysis) -> float:
        """How dim the light is in which a face is, in [0, 1]."""
        levels = face.skin_level, float(face.white @ LUMA), face.brightest
        return float(np.prod([1 - smoothstep(x, *bounds) for x, bounds in zip(levels, self.dim, strict=True)]))

    def _lit(self, levels: np.ndarray, face: FaceAnalysis) -> np.ndarray:
        """Levels of teeth, limited by the whites of the eyes in dim photographs."""
        most = face.tone.lift(self.over_white * np.float64(face.white @ LUMA))
        return levels - self._dimness(face) * np.maximum(levels - most, 0)

    def colour(self, face: FaceAnalysis) -> np.ndarray:
        """The colour of teeth as RGB less luminance, of its level, ``[3]``."""
        of_skin, of_white = (rgb / max(float(rgb @ LUMA), 1.0) - 1 for rgb in (face.skin, face.white))
        dim = self._dimness(face)
        lit = self.of_skin * of_skin + self.of_white * of_white
        return (lit + dim * (of_white - lit)).astype(np.float32)


def teeth_level(skin: np.ndarray) -> np.ndarray:
    """The level of teeth in a photograph whose skin has this level, 0 to 255.

    Teeth reflect alike in every face, and skin does not: beside dark skin teeth are relatively brighter.

    Args:
        skin: levels of skin, 0 to 255.
    """
    return np.maximum(1.1 * skin, 0.5 * skin + 75)

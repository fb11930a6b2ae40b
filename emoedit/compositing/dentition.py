"""The upper teeth that come to be seen between lips that an edit parts.

A drawing of a hundred pixels says that a smile shows teeth and where its lips are; of the teeth it has a pale band. The
lips are the photograph's own, moved (:func:`emoedit.compositing.lips.lip_flow`), so between them teeth can be drawn as
photographs show them: nobody's own, of average size, each rounded, receding towards the corners of the mouth and in the
shadow of the upper lip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emoedit.compositing.cavity import Between
from emoedit.compositing.flow import ramp
from emoedit.compositing.mouth import teeth_level
from emoedit.compositing.teeth import PUPILS, TEETH

SHORTER = (0.0, 1.0, 0.4, 1.5, 2.0, 2.5)  # mm, from the middle: than the longest, as far as these are seen
CURVED = (0.9, 0.7, 1.3, 1.0, 0.8, 0.8)  # mm, that an edge is higher at a tooth's sides than in its middle
GAP, TAPER = 0.16, 0.30  # mm: half the width of the line between two, and how much wider it is at its lower end
LINE, ROUND = 0.15, 0.07  # how much darker teeth are in that line, and towards it
REACH = 1.6  # mm of the shadow of the upper lip
ARCH, BACK = (12.0, 28.0), 0.5  # mm from the middle between which teeth recede; how much darker the last are
SOFTEST = 0.12  # mm


@dataclass(frozen=True)
class Shown:
    """What is seen of upper teeth.

    Args:
        share: of what is between the lips, at most.  longest: mm, at most.
        light: of what teeth reflect.  shadow: below the upper lip, how much darker they are.
        wide: mm from the middle between which they are lost in the dark.
        tongue: how much of it is seen below them, in [0, 1].
    """

    share: float
    longest: float
    light: float
    shadow: float
    wide: tuple[float, float]
    tongue: float


# As bright as those of 77 people who smile in the training data: 1.16 to 1.27 of what their skin lets expect.
SMILE = Shown(share=0.93, longest=11.0, light=1.3, shadow=0.3, wide=(28.0, 29.5), tongue=0.0)
SURPRISE = Shown(share=0.28, longest=4.0, light=0.8, shadow=0.45, wide=(9.0, 19.0), tongue=1.0)


def dentition(
    between: Between, eyes: float, skin: np.ndarray, shown: Shown, behind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Upper teeth between lips, on the mouth's grid, ``LARGER`` times as fine as the crop.

    Args:
        between: the lips.  eyes: how far the pupils are apart, in pixels of the grid.
        skin: the level of lit skin, ``[kR, kR]``, 0 to 255.
        shown: which teeth are seen.  behind: levels of what is there without them, ``[kR, kR]``.

    Returns:
        Levels, and where teeth are, in [0, 1]: float32 ``[kR, kR]`` each; above the upper lip's edge they go on.
    """
    mm = PUPILS / eyes
    x = (np.arange(len(between.height), dtype=np.float32) - np.mean(between.ends)) * mm
    widths, ends = np.asarray(TEETH), np.cumsum(TEETH)
    tooth = np.searchsorted(ends, np.abs(x)).clip(0, len(TEETH) - 1)
    # From -1 at one side of a tooth to 1 at its other one, the middle of the face being at the left.
    across = (2 * (np.abs(x) - (ends - widths)[tooth]) / widths[tooth] - 1).clip(-1, 1)
    down = np.maximum(between.below * mm, 0)
    length = np.minimum(shown.share * between.height * mm, shown.longest - np.asarray(SHORTER)[tooth])
    edge = length - np.minimum(np.asarray(CURVED)[tooth], 0.3 * length) * np.abs(across) ** 2.5
    soft = max(between.soft * mm, SOFTEST)
    teeth = ramp(edge - down, -soft, soft) * (1 - ramp(np.abs(x), *shown.wide))
    near = (1 - np.abs(across)) * widths[tooth] / 2
    lower = np.clip(down / np.maximum(edge, 0.1), 0, 1) ** 4
    line = np.exp(-0.5 * (near / (GAP + TAPER * lower + 0.3 * soft)) ** 2)
    light = shown.light * (1 - LINE * line) * (1 - ROUND * np.abs(across) ** 3)
    light = light * (1 - shown.shadow * np.exp(-down / REACH)) * (1 - BACK * ramp(np.abs(x), *ARCH))
    levels = behind + teeth * (light * teeth_level(skin) - behind)
    return levels.astype(np.float32), teeth.astype(np.float32)

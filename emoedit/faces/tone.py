"""The tones of a dark face, lifted to those of the training data and restored afterwards.

On dark skin highlights are far brighter than everything else: the luminance of most faces is skewed to the dark (brows,
lips and shadows below skin), that of these faces to the light. Lips and lids then hardly differ from skin, so that
models blur them and the compositor finds no movement. A power of the tones removes the skew before a face is edited,
and is undone afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from emoedit.types import LUMA_WEIGHTS

LUMA = np.array(LUMA_WEIGHTS, np.float32)  # pictures ``[..., 3] @ LUMA`` are luminance
LEAN = 0.2  # skewness of luminance that is left as it is: nearly 9 of 10 faces are below
LIGHT = 0.6  # of white: where most skin is, and lifted skin stops
DEEPEST = 0.3  # the strongest power: beyond it photographs show their noise
RARE = (0.01, 0.99)  # quantiles beyond which a spark or a hole says nothing of a face

Levels = TypeVar("Levels", np.ndarray, np.float64)


@dataclass(frozen=True)
class Tone:
    """A power of a photograph's tones.

    Args:
        power: 1 leaves everything as it is, less lifts what is dark; in (0, 1].
    """

    power: float = 1.0

    def lifted(self, rgb: np.ndarray) -> np.ndarray:
        """The photograph, uint8 ``[H, W, 3]``, with its dark tones lifted; itself at power 1."""
        if self.power == 1:
            return rgb
        return cv2.LUT(rgb, np.rint(self.lift(np.arange(256))).astype(np.uint8))

    def lift(self, levels: Levels) -> Levels:
        """Levels 0 to 255 with the dark ones lifted, of the same shape.

        Args:
            levels: grey levels.
        """
        return 255 * (np.clip(levels, 0, 255) / 255) ** self.power

    def lower(self, levels: Levels) -> Levels:
        """Lifted levels at the photograph's own tones: the inverse of [lift][emoedit.faces.tone.Tone.lift].

        Args:
            levels: lifted grey levels.
        """
        return 255 * (np.clip(levels, 0, 255) / 255) ** (1 / self.power)

    def restored(self, rgb: np.ndarray, lifted: np.ndarray, edited: np.ndarray) -> np.ndarray:
        """The edit of a lifted photograph at the photograph's own tones; what did not change keeps every bit.

        Args:
            rgb: uint8 ``[H, W, 3]``.
            lifted: result of [lifted][emoedit.faces.tone.Tone.lifted] for it.
            edited: ``lifted`` after the edit.
        """
        if self.power == 1:
            return edited
        back = self.lower(np.arange(256)).astype(np.float32)
        # Differences, because several tones of the photograph can be one of the lifted photograph.
        return np.rint(rgb + (back[edited] - back[lifted])).clip(0, 255).astype(np.uint8)


def find_tone(crop: np.ndarray, face: np.ndarray) -> Tone:
    """The power that removes the skew to the light from a dark face; 1 where there is none.

    Args:
        crop: ``[R, R]`` luminance of an aligned crop, 0 to 255.
        face: ``[R, R]``, over .5 where it shows the face (``FaceMasks.face``).
    """
    tones = crop[face > 0.5].astype(np.float64) / 255
    tones = tones.clip(*np.quantile(tones, RARE))
    if skewness(tones) <= LEAN:
        return Tone()
    # A flat picture of light skin can be skewed, too; removing that would make it white.
    skin = min(max(float(np.median(tones)), 1e-3), LIGHT)
    low, high = max(DEEPEST, math.log(LIGHT) / math.log(skin)), 1.0
    if skewness(tones**low) > LEAN:
        return Tone(low)
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if skewness(tones**middle) <= LEAN else (low, middle)
    return Tone(low)


def skewness(values: np.ndarray) -> float:
    """Third standardised moment; 0 of what does not vary.

    Args:
        values: any numbers.
    """
    centred = values - values.mean()
    deviation = centred.std()
    return float((centred**3).mean() / deviation**3) if deviation > 1e-6 else 0.0

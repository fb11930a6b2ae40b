"""Eyes and brows between two drawings of a face: where they go, and whose eyes are shown.

A small model draws an iris of five pixels as a blur, and one that squints in places where lids move; flow between such
drawings stretches the iris of a photograph with the lids. Landmarks say where these go. Irises are the photograph's
own, in their own light, and so are brows, which such drawings fade; the whites of wide eyes are as bright as they are
drawn.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.compositing.curves import arc, filled
from emoedit.compositing.flow import ramp, sample
from emoedit.compositing.lips import led
from emoedit.faces.layout import BROWS, EYES

LEADING = [i for part in (*BROWS, *EYES) for i in range(part.start, part.stop)]
REACH = 0.05  # of the crop's side: how far a lid or a brow takes the skin beside it along
NOISE = 0.3  # how far a landmark may be off: more than those of lips, beside what they move
BROW, BELOW = 0.07, 0.015  # of the side: how broad a brow is, and how far below its landmarks its middle lies
FINER = 4  # times as fine as the crop a brow is drawn
OWN, FADE = 0.85, 0.01  # share of the light of irises and brows that stays; of the side: how softly that ends
IRIS, WHITE = 5, 90  # percentiles of the light between lids


def eye_flow(before: np.ndarray, after: np.ndarray, resolution: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The movement of lids and brows, and how near they are, as ``lip_flow`` gives both."""
    return led(before, after, LEADING, resolution, side, reach=REACH, noise=NOISE)


def beside_own_eyes(before: np.ndarray, after: np.ndarray, flow: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The share of the light that a drawing changes: little of it in irises, and on brows, which blur fades.

    Args:
        before, after: ``[68, 2]`` landmarks in pixels of the crop.
        flow: between them, ``[R, R, 2]``: brows are where they were, moved; blur hides where one is drawn.
        moved: float32 ``[R, R]``: the face as it was, moved.

    Returns:
        float32 ``[R, R]`` in [0, 1].
    """
    side = len(flow)
    irises = np.maximum(*(_iris(after[eye], moved) for eye in EYES))
    hairs = np.zeros((side * FINER,) * 2, np.uint8)
    for brow in BROWS:
        line = arc(before[brow]) + [0, BELOW * side]
        line = np.round(((line + 0.5) * FINER - 0.5) * 16).astype(np.int32)
        cv2.polylines(hairs, [line], False, 255, round(BROW * side * FINER), cv2.LINE_AA, shift=4)
    brows = sample(cv2.resize(hairs, (side, side), interpolation=cv2.INTER_AREA) / np.float32(255), flow)
    return 1 - OWN * cv2.GaussianBlur(np.maximum(irises, brows), (0, 0), FADE * side)


def _iris(lids: np.ndarray, light: np.ndarray) -> np.ndarray:
    """How dark each pixel of an eye is, from its white to its iris: ``[R, R]`` in [0, 1].

    Args:
        lids: ``[6, 2]`` landmarks.  light: float32 ``[R, R]``.
    """
    eye = filled(lids, len(light))
    if not (eye > 0.5).any():  # shut: there is nothing but lashes
        return eye
    dark, white = (float(level) for level in np.percentile(light[eye > 0.5], (IRIS, WHITE)))
    return cv2.dilate(eye, np.ones((3, 3), np.uint8)) * ramp(white - light, 0.0, max(white - dark, 1.0))

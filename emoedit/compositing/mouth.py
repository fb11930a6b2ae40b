"""What stands in a mouth after an edit: lips, teeth or a gap.

A small model is unsure and draws the mean of them: whitened lips where teeth may be, darkened ones where a gap may be.
A photograph never shows a mean, so the more likely one is taken, and drawn with crisp edges.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.compositing.flow import GAP, Change, gap_share, patches, ramp

MOST_SHADING = 0.13  # of the skin's level
TEETH_DOUBT = 0.8  # teeth that are half there look worse than closed lips that smile
LARGER, SHOCKS = 4, 8  # how much larger than the crop a mouth is drawn, and how often its edges are steepened


def draw_mouth(
    change: Change, edited: np.ndarray, face: np.ndarray, mouth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn anew, where, and the light to add everywhere else.

    Args:
        change: maps of the crop's side R.  edited: float32 ``[R, R]``, grey levels 0 to 255.
        face, mouth: float32 ``[R, R]`` in [0, 1]; nothing is drawn outside the mouth.

    Returns:
        drawn: float32 ``[kR, kR]`` grey levels (k = :data:`LARGER`).  new: ``[kR, kR]`` in [0, 1], where it stands.
        pale: ``[kR, kR]`` in [0, 1], where what stands are teeth, which have hardly any colour.
        shading: ``[R, R]``, the remainder less what is drawn or too unsure to be.
    """
    side = len(edited)
    large = (side * LARGER, side * LARGER)
    after = steepen(edited, LARGER)
    before = cv2.resize(edited - change.remainder, large, interpolation=cv2.INTER_CUBIC)
    skin = float(np.median(edited[face > 0.5]))
    teeth, gap = teeth_level(skin), GAP * skin
    as_teeth = np.clip((after - before) / np.maximum(teeth - before, 45), 0, 1)
    as_gap = gap_share(before, after, skin)
    inside = np.clip(cv2.resize(mouth * face, large), 0, 1)
    likely = [
        patches(TEETH_DOUBT * as_teeth * inside, LARGER),
        cv2.resize(change.gap, large, interpolation=cv2.INTER_CUBIC).clip(0, 1),
    ]
    drawn = after + likely[0] * 0.8 * (1 - as_teeth) * (teeth - before)
    drawn -= likely[1] * 0.8 * (1 - as_gap) * (before - gap)
    new = cv2.GaussianBlur(np.maximum(*likely) * inside, (0, 0), 0.4 * LARGER)
    unsure = mouth * ramp(np.abs(change.remainder), 4, 14)
    # Folds and shadows are a small part of the skin's own light; more of it, blurred, looks like dirt on a cheek.
    most = MOST_SHADING * skin
    shading = most * np.tanh(change.remainder * (1 - unsure) / most)
    return drawn.astype(np.float32), new.astype(np.float32), likely[0].astype(np.float32), shading


def teeth_level(skin: float | np.ndarray) -> float | np.ndarray:
    """How bright teeth are in a photograph whose skin has this median level, both 0 to 255.

    Teeth reflect alike in every face, skin does not: beside dark skin they are relatively brighter.
    """
    return np.maximum(1.1 * skin, 0.5 * skin + 75)


def steepen(picture: np.ndarray, factor: int) -> np.ndarray:
    """A blurred picture, ``factor`` times as large and with crisp edges: ``[H, W]`` -> ``[fH, fW]``, same grey levels.

    A small model draws teeth and lips as blurs. The shock filter (Osher & Rudin 1990; with the second derivative along
    the gradient of a smoothed picture, Alvarez & Mazorra 1994) sharpens an edge where it is and never overshoots.
    """
    height, width = picture.shape
    x = cv2.resize(picture.astype(np.float32), (width * factor, height * factor), interpolation=cv2.INTER_CUBIC)
    for _ in range(SHOCKS):
        smooth = cv2.GaussianBlur(x, (0, 0), 1.5)
        gy, gx = np.gradient(smooth)
        gyy, gyx = np.gradient(gy)
        gxx = np.gradient(gx, axis=1)
        curve = gx * gx * gxx + 2 * gx * gy * gyx + gy * gy * gyy
        slope = np.hypot(_minmod(x, 1), _minmod(x, 0))
        x = x - 0.4 * np.tanh(curve / (np.abs(curve).mean() + 1e-3)) * slope
    return cv2.GaussianBlur(x, (0, 0), 0.25 * factor)


def _minmod(x: np.ndarray, axis: int) -> np.ndarray:
    """The smaller of forward and backward difference, 0 at an extremum: what keeps the filter from overshooting."""
    step = np.diff(x, axis=axis)
    edge = np.zeros_like(x.take([0], axis))
    ahead, behind = np.concatenate([step, edge], axis), np.concatenate([edge, step], axis)
    return np.where(ahead * behind > 0, np.where(np.abs(ahead) < np.abs(behind), ahead, behind), 0)

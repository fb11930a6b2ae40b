"""Closing a mouth that the photograph shows open: the lips are brought together over the teeth.

No flow between pictures can do this, because what has to happen is that something disappears. The lips are the
photograph's own; only the line where they meet is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from emoedit.compositing.curves import arc
from emoedit.compositing.flow import ramp, sample
from emoedit.compositing.mouth import teeth_level
from emoedit.compositing.teeth import DrawnMouth
from emoedit.faces.align import Alignment
from emoedit.faces.layout import LOWER_EDGE, UPPER_EDGE
from emoedit.faces.masks import LUMA, Regions

SIDE = 192  # of the crop in which the opening is measured
SURE, LIKELY = 0.6, 0.25  # how surely a network sees teeth where they are surest, and where they end
NARROWEST = 0.1  # of the crop's side
MARGIN = 2  # pixels of that crop: of blur, that make the edge of teeth
BEYOND = (-1, 3)  # pixels of that crop: the same beyond what is seen of teeth, above and below; lower lips curve more
REACH, CORNER = 0.06, 0.02  # of the side: beyond teeth, or landmarks of corners, an opening narrows to nothing
NEAR = 0.008  # of the side: how far landmarks move the edge of teeth that are seen
FAR = (0.012, 0.03)  # of the side: so far beyond teeth are lips of a mouth that is open wider than they are high
WRONG = (0.12, 0.16)  # of the side: and so far beyond, there are none
UPPER = 0.4  # of the way is the upper lip's; the lower one and the chin do the rest
STRAIGHTEN = 0.7  # share of the rise of the corners over the middle of the mouth that goes with the smile
CHIN = 0.17  # of the crop's side: how far below the opening, and how wide, its lower lip is looked at
DOWN = 0.002  # of the side: lips that are brought together move this far down at most
LEAST_GONE = 0.08  # share of the teeth that has to have gone from the blurred picture for the mouth to be closed


@dataclass(frozen=True)
class Opening:
    """The opening of a mouth, column by column, in fractions of the crop's side (pixel centres; x to the right).

    Args:
        x: ``[K]`` positions.  top, bottom: ``[K]`` edges of the opening; equal where there is none.
        teeth: the part of it in which teeth are seen; None for all of it.
    """

    x: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    teeth: Opening | None = None


def find_opening(
    photo: np.ndarray,
    alignment: Alignment,
    where: Regions,
    mouth: DrawnMouth | None = None,
    points: np.ndarray | None = None,
) -> Opening | None:
    """The opening with teeth in it, or None where the mouth is closed or no teeth are seen.

    Args:
        photo: uint8 ``[H, W, 3]``.
        mouth: of its crop: whether a network sees teeth, and where their colour does not tell them from lips.
        points: 68 landmarks of its crop, ``[68, 2]`` in its pixels: an opening ends where lips meet, not with the teeth
            that are seen.
    """
    inside = _pale_teeth(photo, alignment, where)
    if mouth is not None:
        if mouth.teeth.max() < SURE:
            return None  # a gleam on a full lip has the colour of teeth
        seen = _largest(cv2.resize(mouth.teeth, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > LIKELY)
        if inside is None or (seen is not None and (seen & inside).any()):
            inside = seen if inside is None else _largest(seen | inside)
    if inside is None:
        return None
    columns = np.nonzero(inside.any(0))[0]
    if len(columns) < NARROWEST * SIDE:
        return None
    rows = np.arange(SIDE)[:, None]
    # The teeth's dark surroundings belong to the opening.
    top = np.array([rows[inside[:, x]].min() for x in columns], float) - MARGIN
    bottom = np.array([rows[inside[:, x]].max() for x in columns], float) + MARGIN
    # A smile goes on rising beyond the teeth; how far is a guess from their curve: only half of it is believed.
    middle = (top + bottom) / 2
    ends = [columns[0] - REACH * SIDE, columns[-1] + REACH * SIDE]
    ends = (np.polyval(np.polyfit(columns, middle, 2), ends) + middle[[0, -1]]) / 2
    teeth = _opening(columns, top, bottom, ends, REACH)
    if points is None:
        return teeth
    points = (points + 0.5) * SIDE / alignment.resolution - 0.5
    return replace(_opening(*_to_corners(points, columns, top, bottom), CORNER), teeth=teeth)


def _opening(columns: np.ndarray, top: np.ndarray, bottom: np.ndarray, ends: np.ndarray, reach: float) -> Opening:
    """An opening that narrows to nothing, at two heights, beyond the columns where it is known."""
    smooth = [cv2.GaussianBlur(edge[None], (0, 0), 3.0, borderType=cv2.BORDER_REPLICATE)[0] for edge in (top, bottom)]
    x = np.concatenate([[columns[0] - reach * SIDE], columns, [columns[-1] + reach * SIDE]])
    top, bottom = (np.concatenate([[ends[0]], edge, [ends[1]]]) for edge in smooth)
    return Opening((x + 0.5) / SIDE, (top + 0.5) / SIDE, (bottom + 0.5) / SIDE)


def _to_corners(
    points: np.ndarray, columns: np.ndarray, top: np.ndarray, bottom: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An opening that is known where teeth are seen, as far as the inner edges of lips go: its columns, top and bottom,
    and the heights of the corners."""
    edges = [arc(points[index]) for index in (UPPER_EDGE, LOWER_EDGE)]
    wide = np.arange(min(columns[0], np.ceil(points[60, 0])), max(columns[-1], np.floor(points[64, 0])) + 1)
    lips = [np.interp(wide, *edge.T) + out for edge, out in zip(edges, BEYOND, strict=True)]
    # Landmarks err by a little: where teeth are seen, they say no more than that there is a little more, unless lips
    # are far beyond: in a laugh, the tongue and the dark lie between.
    seen = [np.interp(wide, columns, edge) for edge in (top, bottom)]
    beyond = (wide < columns[0]) | (wide > columns[-1])
    away = [np.maximum(sign * (lip - edge), 0) for sign, lip, edge in zip((-1, 1), lips, seen, strict=True)]
    laughs = [ramp(a / SIDE, *FAR) * (1 - ramp(a / SIDE, *WRONG)) for a in away]
    more = [np.maximum(np.minimum(a, NEAR * SIDE), a * laugh) for a, laugh in zip(away, laughs, strict=True)]
    new = [np.where(beyond, lip, edge + sign * m) for sign, lip, edge, m in zip((-1, 1), lips, seen, more, strict=True)]
    return wide, *new, points[[60, 64], 1]


def _pale_teeth(photo: np.ndarray, alignment: Alignment, where: Regions) -> np.ndarray | None:
    """Teeth by their colour, bool ``[S, S]``, S = :data:`SIDE`; None for none."""
    rgb = alignment.scaled(SIDE / alignment.resolution).crop(photo).astype(np.float32)
    face, mouth = (cv2.resize(m, (SIDE, SIDE)) for m in (where.face, where.mouth))
    luma, most = rgb @ LUMA, rgb.max(-1)
    colour = (most - rgb.min(-1)) / np.maximum(most, 1)
    skin = float(np.median(luma[face > 0.5]))
    pale = (colour < 0.6 * np.median(colour[face > 0.5])) & (luma > max(0.75 * skin, 0.8 * teeth_level(skin)))
    teeth = _largest(pale & (mouth > 0.9))
    if teeth is None:
        return None
    height, width = (int(teeth.any(axis).sum()) for axis in (1, 0))
    if width < 0.12 * SIDE or height < 0.025 * SIDE or teeth.sum() < 0.3 * width * height or width < 1.5 * height:
        return None  # a gleam on a lip or a cheek
    return teeth


def _largest(mask: np.ndarray) -> np.ndarray | None:
    """The largest part of a mask whose gaps between teeth are closed; None if it is empty."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 15), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if count > 1 else None


def gone(
    opening: Opening, before: np.ndarray, after: np.ndarray, where: Regions, flow: np.ndarray | None = None
) -> bool:
    """Whether the teeth of an opening went between two of the model's pictures, float32 ``[R, R]`` grey levels.

    Args:
        flow: ``[R, R, 2]`` between them: teeth that only moved have not gone.
    """
    side, opening = len(before), opening.teeth or opening
    centres = (np.arange(side) + 0.5) / side
    top, bottom = (np.interp(centres, opening.x, edge, left=0, right=0) for edge in (opening.top, opening.bottom))
    inside = (centres[:, None] > top) & (centres[:, None] < bottom)
    skin = float(np.median(before[where.face > 0.5]))
    if flow is not None:
        before, inside = (sample(m.astype(np.float32), flow) for m in (before, inside))
        inside = inside > 0.5
    if not inside.any():
        return False
    lost = (before - after)[inside].mean() / max(float(before[inside].mean()) - 0.75 * skin, 20.0)
    return bool(lost > LEAST_GONE)


def opens(opening: Opening, flow: np.ndarray) -> bool:
    """Whether the mouth opens further where its teeth go: the lip below it moves down.

    Args:
        flow: float32 ``[R, R, 2]`` crop pixels, from where each pixel of the new picture comes.
    """
    side, opening = len(flow), opening.teeth or opening
    middle, lowest = opening.x.mean() * side, opening.bottom.max() * side
    columns = slice(round(middle - CHIN * side / 2), round(middle + CHIN * side / 2))
    below = flow[round(lowest) + 1 : round(lowest + CHIN * side), columns, 1]
    return bool(below.mean() < -DOWN * side)


def close(picture: np.ndarray, u: np.ndarray, v: np.ndarray, opening: Opening, to_picture: np.ndarray) -> np.ndarray:
    """The picture with the lips together.

    Args:
        picture: ``[H, W, 3]``; not modified.
        u, v: float ``[h, w]``: for every pixel to be made, where it lies in the crop, in fractions of its side.
        to_picture: ``[2, 3]``: from such fractions to the picture's pixels.

    Returns:
        float32 ``[h, w, 3]``.
    """
    top = np.interp(u, opening.x, opening.top)
    bottom = np.interp(u, opening.x, opening.bottom)
    outside = np.maximum(np.maximum(opening.x[0] - u, u - opening.x[-1]), 0)
    within = np.clip(1 - outside / 0.05, 0, 1)
    line = top + UPPER * (bottom - top)
    # Corners that a smile had raised come down with it; a mouth that is tilted as a whole stays so.
    lines = opening.top + UPPER * (opening.bottom - opening.top)
    ends, middle = opening.x[[0, -1]], 0.5 * (opening.x[0] + opening.x[-1])
    tilt = (lines[-1] - lines[0]) / (ends[1] - ends[0])
    level = np.interp(middle, opening.x, lines) + tilt * (np.clip(u, *ends) - middle)
    raised = np.clip(STRAIGHTEN * (line - level), -0.03, 0) * np.exp(-((outside / 0.08) ** 2))
    v = v + raised * np.exp(-(((v - (line - raised)) / 0.13) ** 2))
    above = (top - line) * np.exp(-(((line - v) / 0.11) ** 2))
    below = (bottom - line) * np.exp(-(((v - line) / 0.17) ** 2))
    source = v + within * np.where(v < line, above, below)
    x, y = (to_picture[i, 0] * u + to_picture[i, 1] * source + to_picture[i, 2] for i in (0, 1))
    closed = cv2.remap(
        picture.astype(np.float32),
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    # Where lips meet there is a shadow.
    shadow = 0.45 * np.exp(-(((v - line) / 0.009) ** 2)) * np.clip((bottom - top) / 0.03, 0, 1) * (within == 1)
    return closed * (1 - shadow)[..., None].astype(np.float32)

"""The opening of a mouth that shows teeth: where it is in a photograph, column by column.

Teeth are found by their colour and by a network. Landmarks say how far the opening goes beyond the teeth: the last
ones at the corners of a wide smile are in shadow, and in a laugh a tongue and the dark lie below them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from emoedit.faces.align import Alignment
from emoedit.faces.curves import arc, filled, outline, smoothstep
from emoedit.faces.layout import LOWER_EDGE, OUTER, UPPER_EDGE
from emoedit.faces.masks import FaceMasks
from emoedit.faces.teeth import MouthGrid
from emoedit.faces.tone import LUMA

SIDE = 192  # of the crop in which the opening is measured
# Chosen on 62 London photographs: neutral mouths reach .36 at most, mouths that show teeth .66 and more.
SURE, LIKELY = 0.6, 0.25  # probability of teeth at their peak, and at their edge
NARROWEST = 0.1  # in crop sides: least width of an opening
MARGIN = 2  # pixels of SIDE: blur at the edge of teeth
BEYOND = (-1, 3)  # pixels of SIDE beyond the landmarks of the upper and the lower lip; lower lips curve more
REACH, CORNER = 0.06, 0.02  # in crop sides: beyond teeth, or landmarks of corners, an opening narrows to 0 over this
NEAR = 0.008  # in crop sides: largest correction of the edge of visible teeth by landmarks
PALER = 0.012  # in crop sides: pale pixels this far beyond the teeth that the network finds are lips that shine
ROBUST, ROUNDS = 0.008, 10  # of the fit of the lower edge: scale of errors in crop sides, rounds
UNSEEN = 0.1  # weight of landmarks where no teeth are seen
FAR, WRONG = (0.012, 0.03), (0.12, 0.16)  # in crop sides: lips this far beyond teeth are a laugh, or an error
PALE = 0.6  # largest saturation of teeth, that of the skin being 1
TOOTH = (0.12, 0.025, 0.3, 1.5)  # least width and height of the side, share of its box, width over height


@dataclass(frozen=True)
class Opening:
    """The opening of a mouth in fractions of the crop's side (pixel centres; x to the right).

    Args:
        x: ``[K]`` columns.
        top: ``[K]`` upper edge of the opening.
        bottom: ``[K]`` lower edge; equal to ``top`` where there is no opening.
    """

    x: np.ndarray
    top: np.ndarray
    bottom: np.ndarray


def find_opening(
    photo: np.ndarray, alignment: Alignment, masks: FaceMasks, teeth: np.ndarray, points: np.ndarray
) -> Opening | None:
    """The opening of a mouth that shows teeth.

    Args:
        photo: uint8 ``[H, W, 3]``.
        alignment: alignment of the face's crop.
        masks: masks of the crop.
        teeth: their probability, float32 ``[h, w]`` on the crop's mouth grid.
        points: 68 landmarks of the crop, ``[68, 2]`` in its pixels.

    Returns:
        None where the mouth is closed or shows no teeth.
    """
    if teeth.max() < SURE:
        return None  # a highlight on a full lip has the colour of teeth
    inside = _pale_teeth(photo, alignment, masks, points)
    small = MouthGrid(alignment.resolution).shrink(teeth)
    seen = _largest(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) > LIKELY)
    if inside is None:
        inside = seen
    elif seen is not None and (seen & inside).any():
        inside = _largest(seen | (inside & _near_rows(seen)))
    if inside is None:
        return None
    columns = np.nonzero(inside.any(0))[0]
    if len(columns) < NARROWEST * SIDE:
        return None
    rows = np.arange(SIDE)[:, None]
    # The teeth's dark surroundings belong to the opening.
    top = np.array([rows[inside[:, x]].min() for x in columns], float) - MARGIN
    bottom = np.array([rows[inside[:, x]].max() for x in columns], float) + MARGIN
    points = (points + 0.5) * SIDE / alignment.resolution - 0.5
    wide, top, bottom, ends = _to_corners(points, columns, top, bottom)
    weights = np.interp(wide, columns, smoothstep(inside[:, columns].sum(0) / SIDE, 0, NEAR), 0, 0)
    return _opening(wide, top, _lower_edge(wide, bottom, np.maximum(weights, UNSEEN), ends), ends)


def _near_rows(seen: np.ndarray) -> np.ndarray:
    """Rows in which pale pixels may be teeth, bool ``[S, S]``: those of the teeth that the network finds, and nearby.

    Beside the last of them the rows are those of the nearest one: the network misses teeth in shadow.
    """
    columns = np.nonzero(seen.any(0))[0]
    rows = np.arange(len(seen))
    nearest = columns[np.abs(rows[:, None] - columns).argmin(1)]
    top = np.array([rows[seen[:, x]].min() for x in nearest])
    bottom = np.array([rows[seen[:, x]].max() for x in nearest])
    reach = PALER * len(seen)
    return (rows[:, None] >= top - reach) & (rows[:, None] <= bottom + reach)


def _lower_edge(x: np.ndarray, bottom: np.ndarray, weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The edge of the lower lip, ``[K]``: one bend from corner to corner, a robust fit to the edge of what is seen.

    A lip that shines, or a tooth in shadow, moves a part of the visible edge; the lip itself has no notch there.

    Args:
        x: ``[K]`` columns.
        bottom: ``[K]`` lower edge of what is seen.
        weights: ``[K]``
        ends: heights of both corners.
    """
    across = np.linspace(-1, 1, len(x))
    chord = np.interp(across, [-1, 1], ends)
    # Their sums with positive coefficients bend one way only: deepest right or left of the middle, or flat there.
    basis = np.stack([(1 - across**2) * (1 + skew * across) for skew in (1 / 3, -1 / 3)] + [1 - across**4], 1)
    sure = weights
    for _ in range(ROUNDS):
        scaled = np.sqrt(sure)
        fit = basis @ _not_negative(basis * scaled[:, None], (bottom - chord) * scaled)
        sure = weights / np.sqrt(1 + ((bottom - chord - fit) / (ROBUST * SIDE)) ** 2)
    return chord + fit


def _not_negative(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The least-squares solution ``[N]``, N small, without negative coefficients: the best of all choices of zeros."""
    best, least = np.zeros(matrix.shape[1]), float(target @ target)
    for free in product((False, True), repeat=matrix.shape[1]):
        found = np.zeros(matrix.shape[1])
        found[list(free)] = np.linalg.lstsq(matrix[:, list(free)], target, rcond=None)[0]
        error = float(((matrix @ found - target) ** 2).sum())
        if (found >= 0).all() and error < least:
            best, least = found, error
    return best


def _opening(columns: np.ndarray, top: np.ndarray, bottom: np.ndarray, ends: np.ndarray) -> Opening:
    """An opening that narrows to nothing, at two heights, beyond the columns where it is known."""
    top = cv2.GaussianBlur(top[None], (0, 0), 3.0, borderType=cv2.BORDER_REPLICATE)[0]
    x = np.concatenate([[columns[0] - CORNER * SIDE], columns, [columns[-1] + CORNER * SIDE]])
    top, bottom = (np.concatenate([[ends[0]], edge, [ends[1]]]) for edge in (top, bottom))
    return Opening((x + 0.5) / SIDE, (top + 0.5) / SIDE, (bottom + 0.5) / SIDE)


def _to_corners(
    points: np.ndarray, columns: np.ndarray, top: np.ndarray, bottom: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An opening that is known where teeth are seen, as far as the inner edges of lips go.

    Its columns, top and bottom, and the heights of the corners.
    """
    edges = [arc(points[index]) for index in (UPPER_EDGE, LOWER_EDGE)]
    wide = np.arange(min(columns[0], np.ceil(points[60, 0])), max(columns[-1], np.floor(points[64, 0])) + 1)
    lips = [np.interp(wide, *edge.T) + out for edge, out in zip(edges, BEYOND, strict=True)]
    # Landmarks err by a little: where teeth are visible they extend the opening by a little only, unless lips are far
    # beyond: in a laugh, the tongue and the dark lie between.
    seen = [np.interp(wide, columns, edge) for edge in (top, bottom)]
    beyond = (wide < columns[0]) | (wide > columns[-1])
    away = [np.maximum(sign * (lip - edge), 0) for sign, lip, edge in zip((-1, 1), lips, seen, strict=True)]
    laughs = [smoothstep(a / SIDE, *FAR) * (1 - smoothstep(a / SIDE, *WRONG)) for a in away]
    more = [np.maximum(np.minimum(a, NEAR * SIDE), a * laugh) for a, laugh in zip(away, laughs, strict=True)]
    new = [np.where(beyond, lip, edge + sign * m) for sign, lip, edge, m in zip((-1, 1), lips, seen, more, strict=True)]
    return wide, *new, points[[60, 64], 1]


def _pale_teeth(photo: np.ndarray, alignment: Alignment, masks: FaceMasks, points: np.ndarray) -> np.ndarray | None:
    """Teeth by their colour, bool ``[S, S]``, S = ``SIDE``; None for none.

    They are looked for within the outline of the lips alone: in cold light a chin is as pale as teeth.
    """
    rgb = alignment.scaled(SIDE / alignment.resolution).crop(photo).astype(np.float32)
    face, mouth = (cv2.resize(m, (SIDE, SIDE)) for m in (masks.face, masks.mouth))
    lips = filled(outline((points[OUTER] + 0.5) * SIDE / alignment.resolution - 0.5), (SIDE, SIDE))
    lips = cv2.dilate(lips, np.ones((2 * MARGIN + 1,) * 2, np.uint8)) > 0.5
    luma, most = rgb @ LUMA, rgb.max(-1)
    colour = (most - rgb.min(-1)) / np.maximum(most, 1)
    skin = float(np.median(luma[face > 0.5]))
    # Teeth reflect alike in every face, skin does not: beside dark skin they are relatively brighter.
    bright = luma > max(0.75 * skin, 0.8 * max(1.1 * skin, 0.5 * skin + 75))
    teeth = _largest((colour < PALE * np.median(colour[face > 0.5])) & bright & (mouth > 0.9) & lips)
    if teeth is None:
        return None
    height, width = (int(teeth.any(axis).sum()) for axis in (1, 0))
    least = width < TOOTH[0] * SIDE or height < TOOTH[1] * SIDE
    if least or teeth.sum() < TOOTH[2] * width * height or width < TOOTH[3] * height:
        return None  # a highlight on a lip or a cheek
    return teeth


def _largest(mask: np.ndarray) -> np.ndarray | None:
    """The largest part of a mask whose gaps between teeth are closed; None if it is empty."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 15), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if count > 1 else None

"""Where lips are in a drawing, whether they part, and what becomes visible between them.

In a drawing of a hundred pixels lips, teeth and gap are one blur. Landmarks still locate its lips well; where teeth or
the dark extend beyond an inner edge, that edge is corrected. Every measure is continuous, so that a mouth opens
gradually as an edit becomes stronger.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from emoedit.faces.curves import outline, smoothstep
from emoedit.faces.layout import INNER, LOWER_MIDDLE, OUTER, PAIRS, UPPER_MIDDLE
from emoedit.faces.masks import FaceMasks
from emoedit.faces.teeth import MOUTH_UPSCALE, MouthGrid

# How far lips part, in crop sides: below the first is landmark error; from the second on they may part.
PARTED = (0.002, 0.006)
# Growth of the dark between lips, in crop sides of full black, and PART of the distance by which lips part, at most the
# same again: on 89 everyday faces and portraits .014 at most where lips stay closed, .019 at least in surprise.
DARK, PART = (0.012, 0.019), 0.4
MIDDLE = 0.5  # share of the mouth's width, in its middle, in which the dark is measured
WIDE = (0.045, 0.075)  # in crop sides: lips further apart than in a smile
TEETH = (0.2, 0.45)  # probability of teeth where they begin to count, and where they count fully
# What tells a row of teeth from a highlight on a lip: least width (in crop sides), symmetry about the mouth's middle,
# peak and mean probability, and share between the lips; and the largest distance below the lips' middle (in crop
# sides).
ROW_WIDTH, ROW_EVEN, ROW_PEAK, ROW_MEAN, ROW_INSIDE, ROW_LOW = 0.14, 0.6, 0.5, 0.35, 0.3, 0.04
DOUBT = (0.45, 1.05)  # multiples of these: below the first it is no row, from the second on it is one


@dataclass(frozen=True)
class LipReading:
    """Lips before and after an edit.

    Args:
        before: ``[68, 2]`` landmarks in pixels of the crop.
        after: ``[68, 2]``, the inner edges corrected by what is seen between them.
        opens: in [0, 1]: how surely lips part and show the inside of the mouth.
        teeth: in [0, 1]: how surely that inside is a row of teeth and not dark.
        shuts: in [0, 1]: how surely a wide open mouth closes.
    """

    before: np.ndarray
    after: np.ndarray
    opens: float
    teeth: float
    shuts: float


def read_lips(
    points: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    teeth: np.ndarray,
    masks: FaceMasks,
    *,
    has_teeth: bool,
) -> LipReading:
    """The lips of a drawing.

    Args:
        points: ``[2, 68, 2]`` landmarks of reconstruction and edit, in pixels of the crop.
        before: float32 ``[R, R]`` grey levels.
        after: float32 ``[R, R]``.
        teeth: probability that the edit shows teeth, float32 ``[h, w]`` on the mouth grid.
        masks: masks of the crop.
        has_teeth: whether the photograph shows teeth; if so, no row of teeth is looked for.
    """
    side, grid = len(after), MouthGrid(len(after))
    first, last = points
    mouth, skin = grid.enlarge(masks.mouth), float(np.median(after[masks.face > 0.5]))
    apart = [float(np.mean([np.linalg.norm(p[i] - p[k]) for i, k in PAIRS])) / side for p in points]
    lip = _level(grid.enlarge(before), grid.fill(outline(first[OUTER])))
    black = [_darkness(grid.enlarge(p) / lip, at, grid) / side for p, at in ((before, first), (after, last))]
    parts, grows = apart[1] - apart[0], black[1] - black[0]
    dark = float(smoothstep(parts, *PARTED) * smoothstep(grows + min(PART * parts, grows), *DARK))
    row, likely = (np.zeros_like(teeth), 0.0) if has_teeth else _row(teeth * mouth, grid, last)
    likely *= 1 - dark
    last = snap_lips(last, row > 0.5, grid, outwards=1.0, weight=likely)
    last = snap_lips(last, _dark_patch(last, grid.enlarge(after), skin, mouth, grid), grid, outwards=0.5, weight=dark)
    opens = max(dark, likely)
    shuts = float(smoothstep(apart[0], *WIDE) * smoothstep(apart[0] - apart[1], *PARTED))
    return LipReading(first, last, opens, likely / opens if opens else 0.0, shuts)


def _level(levels: np.ndarray, lips: np.ndarray) -> float:
    """The level of lips, at least 1."""
    seen = levels[lips > 0.5]
    return max(float(np.median(seen)), 1.0) if len(seen) else 1.0


def _darkness(levels: np.ndarray, points: np.ndarray, grid: MouthGrid) -> float:
    """How high the dark within the lips would be if it were black, in pixels of the crop.

    A line that is moved or blurred keeps what it lacks of the lips' level; only a line that grows lacks more.

    Args:
        levels: float32 ``[h, w]`` on the mouth grid; the level of lips is 1.
        points: ``[68, 2]`` landmarks in pixels of the crop.
        grid: the mouth grid.
    """
    lost = np.clip(1 - levels, 0, 1) * grid.fill(outline(points[OUTER]))
    ends = grid.points(points[[60, 64]])[:, 0]
    middle, reach = ends.mean(), MIDDLE * abs(np.ptp(ends)) / 2
    columns = lost[:, max(round(middle - reach), 0) : max(round(middle + reach), 0) + 1]
    return float(columns.sum(0).mean()) / MOUTH_UPSCALE if columns.size else 0.0


def _row(teeth: np.ndarray, grid: MouthGrid, points: np.ndarray) -> tuple[np.ndarray, float]:
    """The likeliest row of upper teeth, float32 ``[h, w]`` in [0, 1], and how surely it is one, in [0, 1]."""
    share = smoothstep(teeth, *TEETH).astype(np.float32)
    inner, fine = grid.points(outline(points[INNER])), grid.resolution * MOUTH_UPSCALE
    between = grid.fill(outline(points[INNER]))
    middle, height = inner[:, 0].mean(), inner[:, 1].mean()
    count, labels, stats, _ = cv2.connectedComponentsWithStats((share > 0).astype(np.uint8))
    best, surest = np.zeros_like(share), 0.0
    for n in range(1, count):
        here, (left, width) = labels == n, stats[n, [cv2.CC_STAT_LEFT, cv2.CC_STAT_WIDTH]]
        sides = sorted((middle - left, left + width - middle))
        measures = (
            width / (ROW_WIDTH * fine),
            sides[0] / max(ROW_EVEN * sides[1], 1e-6),
            float(teeth[here].max()) / ROW_PEAK,
            float(teeth[here].mean()) / ROW_MEAN,
            float(between[here].mean()) / ROW_INSIDE,
            1 + (height + ROW_LOW * fine - np.nonzero(here)[0].mean()) / (ROW_LOW * fine),
        )
        sure = float(smoothstep(min(measures), *DOUBT))
        if sure > surest:
            best, surest = share * here, sure
    return best, surest


def _dark_patch(points: np.ndarray, after: np.ndarray, skin: float, mouth: np.ndarray, grid: MouthGrid) -> np.ndarray:
    """Where a drawing shows the dark inside of a mouth, bool on the mouth grid.

    The edge of a blur is where its level is half-way between the darkest place between the lips and skin.
    """
    inside = grid.fill(outline(points[INNER])) > 0.5
    if not inside.any():
        return inside
    dark = (after < (after[inside].min() + skin) / 2) & (mouth > 0.5)
    _, labels = cv2.connectedComponents(dark.astype(np.uint8))
    return dark & np.isin(labels, np.unique(labels[inside & dark]))


def snap_lips(points: np.ndarray, seen: np.ndarray, grid: MouthGrid, *, outwards: float, weight: float) -> np.ndarray:
    """Landmarks with the inner edges of the lips moved towards the edge of the visible teeth or dark.

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.
        seen: bool ``[h, w]`` on the mouth grid: teeth, or the dark.
        grid: the mouth grid.
        outwards: share of the distance that a lip moves outwards; inwards it is half.
        weight: in [0, 1]: share of this movement that is applied.
    """
    points = points.copy()
    for number, middle, end, out in ((0, UPPER_MIDDLE, 0, -1), (1, LOWER_MIDDLE, -1, 1)):
        inner = [pair[number] for pair in PAIRS]
        there = grid.points(points[inner])
        columns = np.clip(np.rint(there[:, 0]).astype(int), 0, seen.shape[1] - 1)
        ends = [np.nonzero(seen[:, x])[0] for x in columns]
        off = [(e[end] - y) / MOUTH_UPSCALE for e, y in zip(ends, there[:, 1], strict=True) if len(e)]
        if off:  # one distance for all three: the patch's corners are not the lips'
            way = float(np.median(off))
            points[[*inner, *middle], 1] += weight * way * (outwards if way * out > 0 else 0.5)
    return points

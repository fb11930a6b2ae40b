"""Where lips go between two drawings of a face, from landmarks.

Optical flow alone loses a lip that moves by more than its height, or whose light changes: half of it stays behind, and
with it the colour. Landmarks say which lip is which; flow has only the rest to find.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.compositing.curves import filled
from emoedit.compositing.flow import ramp
from emoedit.compositing.mouth import LARGER
from emoedit.faces.layout import (
    INNER,
    LIPS,
    LOWER,
    LOWER_EDGE,
    LOWER_MIDDLE,
    PAIRS,
    UPPER,
    UPPER_EDGE,
    UPPER_MIDDLE,
)

REACH = 0.07  # of the crop's side: how far a lip takes the skin beside it along
JAW = 0.11  # how far a lower lip does that leaves the upper one: the jaw goes with it
NOISE = 0.2  # how far a landmark may be off, its share in what the others say about its place
SURER = 0.05  # the same, where a lip is led by its own landmarks alone
EDGE = 0.004  # of the crop's side: how soft the inner edge of a lip is drawn
PARTED = (0.008, 0.022)  # of the crop's side: by less they are drawn a little otherwise, by more they are open
WIDE = (0.045, 0.075)  # wider than a smile opens


def lip_flow(
    before: np.ndarray, after: np.ndarray, resolution: int, side: int, *, parted: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The movement of lips and what is near them: float32 ``[side, side, 2]``, backward (the pixel that lands at p
    comes from ``p + flow[p]``), in pixels of ``side``; and how near to a landmark it is, ``[side, side]`` in [0, 1].

    Kernel ridge regression with a Gaussian over the displacements of the landmarks: smooth, and nothing far from lips.

    Args:
        before, after: ``[68, 2]`` landmarks in pixels of the crop.  resolution: the crop's side.  side: of the result.
        parted: each lip goes its own way, apart from the other in the middle of what comes to be seen between them.
    """
    how = resolution, side
    if not parted:
        return led(before, after, LIPS, *how, reach=REACH, noise=NOISE)
    above, near_above = led(before, after, UPPER, *how, reach=REACH, noise=SURER)
    below, near_below = led(before, after, LOWER, *how, reach=JAW, noise=SURER)
    x, y = _grid(*how)
    middle = sum(np.interp(x, *after[edge].T) for edge in (UPPER_EDGE, LOWER_EDGE)) / 2
    lower = ramp(y - middle, -EDGE * resolution, EDGE * resolution).astype(np.float32)
    return above + (below - above) * lower[..., None], np.maximum(near_above, near_below)


def led(
    before: np.ndarray,
    after: np.ndarray,
    landmarks: list[int] | slice,
    resolution: int,
    side: int,
    *,
    reach: float,
    noise: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The movement of some landmarks and what is near them; arguments and result are as :func:`lip_flow` has them.

    Args:
        landmarks: which of the 68.  reach: how far they take along what is near, of the crop's side.
        noise: how far one may be off, its share in what the others say about its place.
    """
    points, moves = after[landmarks], (before - after)[landmarks]

    def kernel(squared: np.ndarray) -> np.ndarray:
        return np.exp(-squared / (2 * (reach * resolution) ** 2))

    between = kernel(((points[:, None] - points[None]) ** 2).sum(-1))
    weights = np.linalg.solve(between + noise * np.eye(len(points)), moves)
    x, y = _grid(resolution, side)
    near = kernel((x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2)
    return (near @ weights * (side / resolution)).astype(np.float32), near.max(-1).astype(np.float32)


def _grid(resolution: int, side: int) -> list[np.ndarray]:
    """Where the pixels of a larger or smaller picture lie in the crop's: x and y, ``[side, side]``."""
    axis = (np.arange(side) + 0.5) * (resolution / side) - 0.5
    return np.meshgrid(axis, axis)


def around(points: np.ndarray, seen: np.ndarray, *, outwards: float = 0.5) -> np.ndarray:
    """Landmarks with each lip half-way to where ends what is seen between them, as both may be off: ``[68, 2]``.

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.
        seen: ``[kR, kR]`` in [0, 1], teeth or the dark, on a grid ``LARGER`` times as fine.
        outwards: the share of the way that a lip goes for what is seen beyond it.
    """
    points, there = points.copy(), seen > 0.5
    for number, middle, end, out in ((0, UPPER_MIDDLE, 0, -1), (1, LOWER_MIDDLE, -1, 1)):
        inner = [pair[number] for pair in PAIRS]
        columns = np.clip(np.rint((points[inner, 0] + 0.5) * LARGER - 0.5).astype(int), 0, len(seen) - 1)
        ends = [np.nonzero(there[:, x])[0] for x in columns]
        off = [(e[end] + 0.5) / LARGER - 0.5 - y for e, y in zip(ends, points[inner, 1], strict=True) if len(e)]
        if off:  # one for all three: a patch is no lip, and has corners of its own
            way = float(np.median(off))
            points[[*inner, *middle], 1] += way * (outwards if way * out > 0 else 0.5)
    return points


def inside_lips(points: np.ndarray, resolution: int) -> np.ndarray:
    """What lies between the lips: float32 ``[resolution, resolution]`` in [0, 1].

    Args:
        points: ``[68, 2]`` landmarks in pixels of the crop.
    """
    return cv2.GaussianBlur(filled(points[INNER], resolution), (0, 0), EDGE * resolution)


def parting(before: np.ndarray, after: np.ndarray, resolution: int) -> tuple[float, float, float]:
    """Whether lips came apart, whether wider than in a smile, and whether a mouth closed that was open: 0 to 1 each.

    Args:
        before, after: ``[68, 2]`` landmarks in pixels of the crop.
    """
    apart = [np.mean([np.linalg.norm(p[i] - p[k]) for i, k in PAIRS]) / resolution for p in (before, after)]
    further = apart[1] - apart[0]
    parted, wide, were = (
        float(ramp(*measure)) for measure in ((further, *PARTED), (further, *WIDE), (apart[0], *WIDE))
    )
    return parted, wide, were * float(ramp(-further, *PARTED))

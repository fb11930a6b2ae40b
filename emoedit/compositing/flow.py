"""What changed between two pictures of a face, as movement and light.

Movement is dense optical flow, found from picture to picture along the way from source to edit. Where a mouth opens,
flow between blurred pictures cannot part the lips (there is nothing to match a gap with), so the gap itself says how
far they have to go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

FLOW_SIDE = 192  # flow is found at this side: DIS matches 8-pixel patches, which on 96 pixels would span half a mouth
MAX_FLOW = 0.11  # of the crop's side: the widest movement a lip or a brow makes; more is a mismatch
MAX_REST = 0.02  # what landmarks may be off; flow that goes further follows something else than the lip
MIN_JACOBIAN = 0.1  # a flow that shrinks an area further than this is about to fold
GAP = 0.2  # level of the inside of an open mouth, skin being 1
EDGES = (0.014, 0.041)  # slope, in the face's contrast a pixel of :data:`FLOW_SIDE`: flatter places say nothing
SPREAD = 0.06  # of the side: how far what edges say is believed around them
STILL = 0.02  # how surely what is far from all edges stays where it is
LIKELY_FROM, LIKELY_TO = 0.5, 0.65  # share of a gap (or of teeth) in a mean from which on it counts as there
SMALLEST = (0.15, 0.03, 0.006)  # width, height and area, the crop's being 1: a smaller patch is a shadow


@dataclass(frozen=True)
class Change:
    """A change in crop coordinates.

    Args:
        flow: float32 ``[R, R, 2]``: the pixel that lands at p comes from ``p + flow[p]``, in crop pixels (x, y).
        remainder: float32 ``[R, R]``: luminance to add after the flow, in grey levels 0 to 255.
        gap: float32 ``[F, F]`` (F = :data:`FLOW_SIDE`) in [0, 1]: where the inside of a mouth came to be seen.
    """

    flow: np.ndarray
    remainder: np.ndarray
    gap: np.ndarray


def sample(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """``picture`` at ``p + flow[p]``, ``[H, W]``; mirrored where that leaves it."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def jacobian(flow: np.ndarray) -> np.ndarray:
    """Determinant of ``p -> p + flow[p]``, ``[H, W]``: 1 where nothing stretches, at or below 0 where it folds."""
    dy, dx = np.gradient(flow, axis=(0, 1))
    return (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]


def unfold(flow: np.ndarray, limit: float = MIN_JACOBIAN) -> np.ndarray:
    """The flow, smoothed where and as far as needed for its Jacobian to stay above ``limit`` everywhere."""
    for _ in range(40):
        bad = (jacobian(flow) < limit).astype(np.float32)
        if not bad.any():
            return flow
        where = np.minimum(cv2.GaussianBlur(cv2.dilate(bad, np.ones((5, 5))), (0, 0), 3), 1)[..., None]
        flow = flow + where * (cv2.GaussianBlur(flow, (0, 0), 3) - flow)
    worst = float(1 - jacobian(flow).min())
    return flow * min(1.0, (1 - limit) / max(worst, 1e-6))


def _flow_between(first: np.ndarray, second: np.ndarray, mask: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Backward flow from the second picture to the first, float32 ``[F, F, 2]`` in pixels of :data:`FLOW_SIDE`.

    Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590; OpenCV), then smoothed and faded by the mask.
    """
    low, high = levels

    def prepared(picture: np.ndarray) -> np.ndarray:
        # DIS reads 8 bits: use all of them, or a dark photograph has too few grey levels for sub-pixel motion.
        stretched = (picture - low) * (220.0 / max(high - low, 1.0)) + 18
        return (
            cv2.resize(stretched, (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
        )

    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setFinestScale(0)
    finder.setVariationalRefinementIterations(10)
    finder.setVariationalRefinementAlpha(20.0)
    flow = finder.calc(prepared(second), prepared(first), None)
    return cv2.GaussianBlur(cv2.medianBlur(flow, 5), (0, 0), 2.5) * mask[..., None]


def estimate_change(frames: Sequence[np.ndarray], mask: np.ndarray, mouth: np.ndarray) -> Change:
    """What turns the first of several luminance crops into the last, inside the mask.

    Flow is found from each frame to the next and composed: between near pictures it follows a lip that parts or a brow
    that rises, where between far ones it would match what merely looks alike. Then it is bounded and freed of folds.

    Args:
        frames: two or more float32 ``[R, R]``, grey levels 0 to 255: reconstruction, half-way pictures, edit.
        mask, mouth: float32 ``[R, R]`` in [0, 1]: the face, and where lips, teeth and the inside of a mouth can be.
    """
    first, last = frames[0], frames[-1]
    flow = _composed(frames, mask)
    size = (FLOW_SIDE, FLOW_SIDE)
    moved = sample(cv2.resize(first, size, interpolation=cv2.INTER_CUBIC), flow)
    skin = float(np.median(first[mask > 0.5]))
    share = gap_share(moved, cv2.resize(last, size, interpolation=cv2.INTER_CUBIC), skin)
    # A gleam on the lips leaves holes in the gap; an open mouth has none.
    share = cv2.morphologyEx(share * cv2.resize(mouth, size), cv2.MORPH_CLOSE, _disc(0.06 * FLOW_SIDE))
    gap = patches(share, FLOW_SIDE / first.shape[0])
    apart = part_lips(gap, moved)
    flow = _to_crop(_bounded(apart + sample(flow, apart)), len(first))
    remainder = (last - sample(first, flow)) * mask
    return Change(flow, cv2.GaussianBlur(remainder, (0, 0), 0.4), gap)


def estimate_flow(
    before: np.ndarray, after: np.ndarray, mask: np.ndarray, start: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """The movement alone: float32 ``[R, R, 2]`` as :class:`Change` has it, bounded and without folds. For pictures as
    sharp as photographs, in which lips that part are seen.

    Args:
        before, after: float32 ``[R, R]``, grey levels 0 to 255.  mask: float32 ``[R, R]`` in [0, 1].
        start: what is known of it, float32 ``[F, F, 2]`` in pixels of :data:`FLOW_SIDE`, and how surely, ``[F, F]`` in
            [0, 1]: only the rest is looked for, and not far away where it is sure.
    """
    if start is None:
        return _to_crop(_bounded(_supported(_composed([before, after], mask), before, after, mask)), len(before))
    size = (FLOW_SIDE, FLOW_SIDE)
    large = cv2.resize(mask, size)
    flow, sure = start
    length = np.linalg.norm(flow, axis=-1, keepdims=True)
    flow = unfold(flow * large[..., None] * np.minimum(1, MAX_FLOW * FLOW_SIDE / np.maximum(length, 1e-6)))
    moved = sample(cv2.resize(before, size, interpolation=cv2.INTER_CUBIC), flow)
    last = cv2.resize(after, size, interpolation=cv2.INTER_CUBIC)
    rest = _supported(_composed([moved, last], large), moved, last, large)
    rest = _bounded(rest, (MAX_FLOW + (MAX_REST - MAX_FLOW) * sure)[..., None])
    return _to_crop(unfold(rest + sample(flow, rest)), len(before))


def _composed(frames: Sequence[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Flow from each frame to the next, one after the other: ``[F, F, 2]``."""
    low, high = np.percentile(frames[0][mask > 0.5], (1, 99))
    large = cv2.resize(mask, (FLOW_SIDE, FLOW_SIDE))
    flow = np.zeros((FLOW_SIDE, FLOW_SIDE, 2), np.float32)
    for before, after in pairwise(frames):
        step = _flow_between(before, after, large, (float(low), float(high)))
        flow = step + sample(flow, step)
    return flow


def _supported(flow: np.ndarray, before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A flow ``[F, F, 2]`` that follows edges, and lies smoothly between them: what is even, as a cheek is, matches
    everything, and a change of its light would be taken for movement.

    Args:
        before, after, mask: float32 ``[R, R]``, grey levels and in [0, 1].
    """
    low, high = np.percentile(before[mask > 0.5], (1, 99))
    mask = cv2.resize(mask, (FLOW_SIDE, FLOW_SIDE))

    def edges(picture: np.ndarray) -> np.ndarray:
        large = cv2.resize(picture.astype(np.float32), (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_CUBIC)
        dy, dx = np.gradient(cv2.GaussianBlur(large / max(float(high - low), 1.0), (0, 0), 1.5))
        return cv2.GaussianBlur(np.hypot(dx, dy), (0, 0), 2.0)

    sure = ramp(np.minimum(sample(edges(before), flow), edges(after)), *EDGES) * mask
    around = cv2.GaussianBlur(flow * sure[..., None], (0, 0), SPREAD * FLOW_SIDE)
    around /= (cv2.GaussianBlur(sure, (0, 0), SPREAD * FLOW_SIDE) + STILL)[..., None]
    return (around + (flow - around) * sure[..., None]) * mask[..., None]


def _bounded(flow: np.ndarray, bound: float | np.ndarray = MAX_FLOW) -> np.ndarray:
    """A flow ``[F, F, 2]`` no longer than a lip or a brow moves, in crop sides, and without folds."""
    length = np.linalg.norm(flow, axis=-1, keepdims=True)
    bound = bound * FLOW_SIDE
    return unfold(flow * (bound * np.tanh(length / bound) / np.maximum(length, 1e-6)))


def _to_crop(flow: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(flow, (side, side), interpolation=cv2.INTER_AREA) * (side / FLOW_SIDE)


def _disc(diameter: float) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (round(diameter) | 1,) * 2)


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    x = np.clip((x - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)


def gap_share(before: np.ndarray, after: np.ndarray, skin: float) -> np.ndarray:
    """How much of the way from what was there to the dark inside of a mouth a picture went, in [0, 1]."""
    share = np.clip((before - after) / np.maximum(before - GAP * skin, 20), 0, 1)
    return share * ramp(before - after, 15, 40)


def patches(share: np.ndarray, factor: float) -> np.ndarray:
    """Where a share of teeth or gap is likely enough, in [0, 1]: in patches that reach the middle of the mouth and are
    large enough to be something.

    Args:
        share: ``[H, H]`` in [0, 1].  factor: its pixels a pixel of the crop.
    """
    likely = ramp(cv2.GaussianBlur(share, (0, 0), 0.7 * factor), LIKELY_FROM, LIKELY_TO)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((likely > 0.25).astype(np.uint8))
    side = len(share)
    central = np.unique(labels[:, round(0.45 * side) : round(0.55 * side)])
    sizes = stats[:, (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA)] / [side, side, side * side]
    kept = [n for n in range(1, count) if n in central and (sizes[n] >= SMALLEST).all()]
    keep = np.isin(labels, kept).astype(np.float32)
    return likely * cv2.dilate(keep, np.ones((2 * round(factor) + 1,) * 2))


def part_lips(gap: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The movement that makes room for a gap: backward flow, float32 ``[F, F, 2]``.

    In every column of pixels the gap has a height and a middle; the lip line that was there is drawn apart to its
    edges, and what lies beyond follows less and less: the upper lip as far as the nose, the lower lip with the chin.

    Args:
        gap: ``[F, F]`` in [0, 1].  moved: ``[F, F]`` grey levels: the reconstruction after the flow.
    """
    side = len(moved)
    weight = gap.sum(0)
    flow = np.zeros((side, side, 2), np.float32)
    if weight.max() < 0.01 * side:
        return flow
    y = np.arange(side, dtype=np.float32)[:, None]
    blurred = np.maximum(cv2.GaussianBlur(weight[None], (0, 0), 0.03 * side)[0], 1e-3)
    middle = cv2.GaussianBlur((gap * y).sum(0)[None], (0, 0), 0.03 * side)[0] / blurred
    height = cv2.GaussianBlur(weight[None], (0, 0), 0.02 * side)[0]
    # The lip line: the darkest place near the gap before the edit, weighted softly to run smoothly along the mouth.
    near = np.exp(-(((y - middle) / (0.05 * side)) ** 2)) * np.exp(-(moved - moved.min()) / 8.0)
    line = cv2.GaussianBlur((near * y).sum(0)[None], (0, 0), 0.03 * side)[0]
    line = line / np.maximum(cv2.GaussianBlur(near.sum(0)[None], (0, 0), 0.03 * side)[0], 1e-6)
    half = 0.5 * height
    top, bottom = middle - half, middle + half
    # Inside the gap a sliver of the lip line is stretched; 0 would be a fold.
    up, down = (line - 0.15 * half) - top, (line + 0.15 * half) - bottom
    above = np.exp(-(((y - top) / (0.075 * side)) ** 2)) * up
    below = np.exp(-(((y - bottom) / (0.13 * side)) ** 2)) * down
    share = np.clip((y - top) / np.maximum(height, 1e-3), 0, 1)
    inside = (1 - share) * up + share * down
    vertical = np.where(y < top, above, np.where(y > bottom, below, inside))
    flow[..., 1] = cv2.GaussianBlur(vertical * np.clip(height / (0.045 * side), 0, 1), (0, 0), 1.0)
    return flow

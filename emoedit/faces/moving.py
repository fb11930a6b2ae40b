"""Landmarks that move, and the skin, lids and lips that move with them.

The eyeball under the lids does not move: a closing lid covers it, and an opening one stretches what is visible.
Parting lips have a flow each. Cheeks have no landmarks; they follow the lower lids and the corners of the mouth.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.faces.curves import filled, outline, smoothstep
from emoedit.faces.layout import BROWS, CORNERS, EYES, LOWER, LOWER_EDGE, PAIRS, UPPER, UPPER_EDGE
from emoedit.faces.warp import jacobian, landmark_flow, pixel_grid, unfold

NOSE_BASE, CHIN = list(range(31, 36)), list(range(3, 14))
LIDS = ((36, [37, 38], [41, 40], 39), (42, [43, 44], [47, 46], 45))  # corner, upper lid, lower lid, corner
CHEEKS = ((48, (41, 40), 36), (54, (46, 47), 45))  # corner of the mouth, lower lid, outer corner of the eye
# In crop sides: how far around landmarks the skin moves along.
BROW_REACH, LID_REACH, LIP_REACH, CHEEK_REACH = 0.075, 0.045, 0.075, 0.08
NOISE = 0.05  # of ``landmark_flow``
SHUT = (0.0, 0.2)  # relative loss of an eye's opening at which lids begin to cover the eyeball, and cover it all
IRIS = 0.3  # shares of an eye's opening: how far above and below its middle an iris reaches
LASHES = (0.5, 0.4)  # how far above and below an open eye its lids have neither lashes nor shadow
APART = (0.012, 0.03)  # in crop sides: lips this far apart have their visible inside stretched
SOFT = 0.004  # in crop sides: width of the soft line between two lips or lids
CHEEK_LID, CHEEK_CORNER = 0.9, 0.35  # shares of their movements that a cheek makes
# The light of skin that is pushed together: share of the skin's level for each doubling of its density, and at most.
CREASE, DEEPEST = 0.10, 0.14
CREASE_BLUR = 0.012  # in crop sides: fineness of a drawn crease


def possible(points: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Displacements that a face can make: neither lips nor lids pass each other.

    Args:
        points: ``[68, 2]`` landmarks.
        moves: ``[68, 2]`` in the same unit.
    """
    moves = moves.copy()
    pairs = [*PAIRS, *((u, k) for _, upper, lower, _ in LIDS for u, k in zip(upper, lower, strict=True))]
    for upper, lower in pairs:
        gap = max(float(points[lower, 1] - points[upper, 1]), 0.0)
        over = -(gap + moves[lower, 1] - moves[upper, 1])
        if over > 0:  # both are moved back in proportion to their movements
            down, up = max(moves[upper, 1], 0.0), max(-moves[lower, 1], 0.0)
            share = down / (down + up) if down + up > 0 else 0.5
            moves[upper, 1] -= over * share
            moves[lower, 1] += over * (1 - share)
    return moves


def face_flow(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How a crop moves when its landmarks do.

    Args:
        before: ``[68, 2]`` in pixels of the crop.
        after: the same landmarks after the movement.
        mask: float32 ``[R, R]`` in [0, 1]: nothing moves where it is 0.

    Returns:
        Backward flow, float32 ``[R, R, 2]``: the pixel that lands at p comes from ``p + flow[p]``.
    """
    side = len(mask)
    share = smoothstep(mask, 0.0, 0.6).astype(np.float32)[..., None]
    upper_face = _brows(before, after, side) + sum(_eye(before, after, lids, side) for lids in LIDS)
    upper_face = upper_face + _regressed_flow(*_cheeks(before, after), slice(None), side, CHEEK_REACH)
    above = unfold((upper_face + _regressed_flow(before, after, [*UPPER, *NOSE_BASE], side, LIP_REACH)) * share)
    below = unfold((upper_face + _regressed_flow(before, after, [*LOWER, *CHIN], side, LIP_REACH)) * share)
    whole = unfold(
        (upper_face + _regressed_flow(before, after, [*range(48, 68), *NOSE_BASE, *CHIN], side, LIP_REACH)) * share
    )
    x, y = pixel_grid(side, side)
    middle = sum(np.interp(x[0], *after[edge].T) for edge in (UPPER_EDGE, LOWER_EDGE)) / 2
    left, right = sorted(after[list(CORNERS), 0])
    lower = smoothstep(y - middle, -SOFT * side, SOFT * side)
    within = smoothstep(x, left - 0.01 * side, left + 0.02 * side) * (
        1 - smoothstep(x, right - 0.02 * side, right + 0.01 * side)
    )
    # Beside the corners both lips are one.
    lower = (0.5 + (lower - 0.5) * within).astype(np.float32)[..., None]
    apart = float(np.mean([before[k, 1] - before[i, 1] for i, k in PAIRS])) / side
    return (above + (below - above) * lower) * (1 - smoothstep(apart, *APART)) + whole * smoothstep(apart, *APART)


def _regressed_flow(
    before: np.ndarray, after: np.ndarray, which: list[int] | slice, side: int, reach: float
) -> np.ndarray:
    return landmark_flow(before, after, which, side, side, reach=reach, noise=NOISE)[0]


def _brows(before: np.ndarray, after: np.ndarray, side: int) -> np.ndarray:
    """The flow of brows and of the skin above and below them: a brow that rises lifts no lid."""
    brows = [i for brow in BROWS for i in range(brow.start, brow.stop)]
    lids = before[EYES[0].start : EYES[1].stop]
    return _regressed_flow(
        np.concatenate([before[brows], lids]), np.concatenate([after[brows], lids]), slice(None), side, BROW_REACH
    )


def _eye(before: np.ndarray, after: np.ndarray, lids: tuple[int, list[int], list[int], int], side: int) -> np.ndarray:
    """The flow of the lids of one eye, ``[R, R, 2]``."""
    inner, upper, lower, outer = lids
    ring = [inner, *upper, outer, *lower[::-1]]
    gaps = [float(np.mean([p[k, 1] - p[i, 1] for i, k in zip(upper, lower, strict=True)])) for p in (before, after)]
    covers = float(smoothstep(1 - gaps[1] / max(gaps[0], 1e-3), *SHUT))
    iris = before[ring].mean(0) + gaps[0] * np.array([[0, -IRIS], [0, 0], [0, IRIS]])  # stays where it is
    opened = _regressed_flow(
        np.concatenate([before[ring], iris]), np.concatenate([after[ring], iris]), slice(None), side, LID_REACH
    )
    if covers == 0:
        return opened
    # Skin, and no lashes or white, has to lie on the ball: lids begin a little outside of where landmarks see them.
    before, beyond = before.copy(), max(1 - gaps[1] / max(gaps[0], 1e-3), 0.0) * max(gaps[0], 0.0)
    before[upper, 1] -= LASHES[0] * beyond
    before[lower, 1] += LASHES[1] * beyond
    above = _regressed_flow(before, after, [inner, *upper, outer], side, LID_REACH)
    below = _regressed_flow(before, after, [inner, *lower, outer], side, LID_REACH)
    x, y = pixel_grid(side, side)
    ends = sorted(((inner, *upper, outer), (inner, *lower, outer)))
    middle = sum(np.interp(x[0], *after[list(edge)][np.argsort(after[list(edge), 0])].T) for edge in ends) / 2
    part = smoothstep(y - middle, -SOFT * side, SOFT * side).astype(np.float32)[..., None]
    ball = cv2.GaussianBlur(filled(outline(after[ring]), (side, side)), (0, 0), SOFT * side)[..., None]
    closed = (above + (below - above) * part) * (1 - ball)
    return opened + (closed - opened) * covers


def _cheeks(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two points on the cheeks before and after, and the lids, which a cheek does not take along."""
    moves = after - before
    points, moved = [], []
    for corner, lid, eye in CHEEKS:
        point = 0.5 * before[corner] + 0.5 * before[eye]
        way = CHEEK_LID * moves[list(lid)].mean(0) + CHEEK_CORNER * moves[corner]
        points.append(point)
        moved.append(point + way * [0.5, 1.0])
    lids = before[EYES[0].start : EYES[1].stop]
    return np.concatenate([points, lids]), np.concatenate([moved, lids])


def crease_light(flow: np.ndarray, mask: np.ndarray, hidden: np.ndarray, level: float) -> np.ndarray:
    """The shade of skin that is pushed together, and the sheen of skin that is stretched.

    Args:
        flow: ``[R, R, 2]`` backward, in pixels.
        mask: float32 ``[R, R]`` in [0, 1]: the face.
        hidden: float32 ``[R, R]`` in [0, 1]: lips and eyes, which have no creases.
        level: grey level of the skin.

    Returns:
        float32 ``[R, R]`` grey levels to add.
    """
    dense = np.log2(np.clip(jacobian(flow), 0.25, 4.0))  # above 0 where more skin comes to lie on a pixel
    dense = cv2.GaussianBlur(dense.astype(np.float32), (0, 0), CREASE_BLUR * len(mask))
    shade = -DEEPEST * np.tanh(CREASE / DEEPEST * dense)
    return (shade * level * mask * (1 - hidden)).astype(np.float32)

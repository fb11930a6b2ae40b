"""A drawing of a face in a photograph: as it is drawn, with the photograph's own detail moved onto it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from emoedit.compositing.cavity import SMALL, beside_own_lips, dark_patch, opens_mouth
from emoedit.compositing.dentition import SMILE, SURPRISE, Shown
from emoedit.compositing.eyes import beside_own_eyes, eye_flow
from emoedit.compositing.fading import BLURRED, KEPT, beside_eyes, faded, torn
from emoedit.compositing.flow import FLOW_SIDE, estimate_flow, patches, ramp, sample, unfold
from emoedit.compositing.folds import FOLD_SIDE, beside_lips, fold_lines, unsmiling
from emoedit.compositing.inside import draw_inside
from emoedit.compositing.lips import around, inside_lips, lip_flow, parting
from emoedit.compositing.mouth import LARGER, steepen, teeth_level
from emoedit.compositing.teeth import DrawnMouth, Rows, lay_in, new_rows
from emoedit.compositing.window import Place
from emoedit.faces.masks import LUMA, Regions

BRIGHT = (0.3, 0.8)  # of the way to teeth: what is taken for them a little, and wholly
GONE, GONE_MOUTH = (0.08, 0.2), (0.04, 0.11)  # edges without a counterpart, in skin levels, with which detail goes
TOGETHER = 3.0  # times as strong where lips stay together: their own detail is better than any drawing of them
HELD = 0.6  # of what is drawn in the nose: a smile moves it less than directions fitted on other people do
INNER_PALE = 0.7  # of the way from the colour of lips to that of teeth: what a model drew between lips far apart
DARK = (0.35, 0.55)  # below skin, of its level: what between parted lips is the inside of a mouth, and no lip
EDGE_SPREAD = 0.03  # of the crop's side: what varies more slowly is light, not an edge


@dataclass(frozen=True)
class Movement:
    """From one drawing of a face to another.

    Args:
        before, after: float32 ``[R, R]``, 0 to 255; in the latter the nose hardly moves.
        flow: float32 ``[R, R, 2]``: the pixel that lands at p comes from ``p + flow[p]``.
        points: 68 landmarks of both, ``[68, 2]`` each in pixels of the crop, or None.
        shows: what teeth are seen where lips part, on the dark or on a smile's teeth; None where they do not.
    """

    before: np.ndarray
    after: np.ndarray
    flow: np.ndarray
    points: Sequence[np.ndarray] | None
    shows: Shown | None


@dataclass(frozen=True)
class Redrawn:
    """A face in the window of a photograph.

    Args:
        warped: the photograph, moved, float32 ``[H, W, 3]``.  light: to add to it, ``[H, W]`` grey levels.
        new: ``[H, W]`` in [0, 1]: where things are that were not there.  pale: and where these have little colour.
        deep: and where they are the dark inside of a mouth.
    """

    warped: np.ndarray
    light: np.ndarray
    new: np.ndarray
    pale: np.ndarray
    deep: np.ndarray


def find_movement(
    before: np.ndarray,
    after: np.ndarray,
    where: Regions,
    points: Sequence[np.ndarray] | None,
    mouths: Sequence[DrawnMouth] | None = None,
    *,
    showed_teeth: bool = False,
) -> Movement:
    """What moves between two drawings.

    Args:
        before, after, points: as :class:`Movement` has them.  where: of the crop.  mouths: sharp ones of both, or None.
        showed_teeth: whether the photograph does: then none are drawn between its lips.
    """
    start, shows = None, None
    if points is not None:
        first, last = points
        if opens_mouth(points, before, after):
            skin = float(np.median(after[where.face > 0.5]))
            shows, last = SURPRISE, around(last, dark_patch(last, after, skin, where.mouth))
        elif mouths is not None and not showed_teeth:
            bared = _bared(mouths, after, where, last)
            if bared.any():
                shows, last = SMILE, around(last, bared, outwards=1.0)
        points = first, last
        lips, near_lips = lip_flow(*points, len(before), FLOW_SIDE, parted=shows is not None)
        eyes, near_eyes = eye_flow(*points, len(before), FLOW_SIDE)
        start = lips + eyes, np.maximum(near_lips, near_eyes)
    flow, after = _hold(before, after, estimate_flow(before, after, where.face, start), HELD * where.nose)
    return Movement(before, after, flow, points, shows)


def _hold(before: np.ndarray, after: np.ndarray, flow: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flow and the edit without a share of the change: what moved moves less, and what lit is weaker. Two pictures
    laid over each other would show everything twice.

    Args:
        before, after: float32 ``[R, R]``, 0 to 255.  flow: between them, ``[R, R, 2]``.
        held: ``[R, R]`` in [0, 1]: the share that is taken from the change.
    """
    less = unfold(flow * (1 - held)[..., None])
    return less, sample(before, less) + (after - sample(before, flow)) * (1 - held)


def _bared(mouths: Sequence[DrawnMouth], after: np.ndarray, where: Regions, points: np.ndarray) -> np.ndarray:
    """Teeth that come to be seen between lips that hid them, ``[kR, kR]`` in [0, 1]. What looked like teeth before were
    gleams of these lips."""
    side, skin = len(after), float(np.median(after[where.face > 0.5]))
    still, hid = np.zeros((side, side, 2), np.float32), replace(mouths[0], teeth=np.zeros_like(mouths[0].teeth))
    return new_rows((hid, mouths[-1]), still, where.mouth, inside_lips(points, side), skin).share


@dataclass(frozen=True)
class _Lips:
    """What landmarks say of lips that are drawn.

    Args:
        inside: ``[R, R]`` in [0, 1]: what is between them.  own: the share of the light around them that is drawn.
        parted, wide, shut: whether they came apart, wider than in a smile, or together (:func:`parting`).
    """

    inside: np.ndarray
    own: np.ndarray
    parted: float
    wide: float
    shut: float

    @classmethod
    def of(cls, movement: Movement, where: Regions) -> _Lips:
        if movement.points is None:
            return cls(where.mouth, np.ones_like(where.face), 0.0, 0.0, 1.0)
        side, last = len(movement.after), movement.points[-1]
        return cls(inside_lips(last, side), beside_own_lips(last, side), *parting(*movement.points, side))


def redraw(
    photo: np.ndarray,
    place: Place,
    movement: Movement,
    where: Regions,
    *,
    mouths: Sequence[DrawnMouth] | None,
    showed_teeth: bool,
    power: float,
    mouth_only: bool,
) -> Redrawn:
    """The drawing that a movement leads to, in the photograph.

    Args:
        photo: uint8 ``[H, W, 3]``.
        where: of the crop.
        mouths: sharp ones of both drawings, or None (:func:`emoedit.compositing.paste.paste`).
        showed_teeth: whether the photograph does, so that lips do not keep their detail longer than the rest does.
        power: of the photograph's tone, by which lifting weakens edges.
        mouth_only: the photograph's detail goes nowhere else, and what small drawings of it lose, stays.
    """
    before, flow, points, side = movement.before, movement.flow, movement.points, len(movement.before)
    skin, lips = float(np.median(movement.after[where.face > 0.5])), _Lips.of(movement, where)
    moved = sample(before, flow)
    after, rows = _in_own_light(movement, moved, lips, where, mouths, skin)
    folded = np.zeros_like(where.face)  # where lines go as a smile does
    if points is not None:
        folded = where.cheeks * unsmiling(*points) * beside_lips(points[-1], side)
        if mouth_only and side <= SMALL:
            stays = where.face * (1 - where.mouth) * beside_eyes(points[-1], side) * (1 - folded)
            if side <= BLURRED:
                after = after + KEPT * faded(moved, after, stays)
            after = after - torn(moved, after, stays, skin)
    bright, likely = _whitened(movement, moved, after, lips, where, rows, skin)
    if points is not None and not showed_teeth:  # or the creases of a smile would outlive it
        power *= TOGETHER ** (1 - lips.parted)
    # What the movement leaves over beyond a change of light: an edge that has no counterpart, so that the photograph's
    # detail there belongs to something that is gone.
    over = (after - moved) * where.face
    edges = np.abs(over - cv2.GaussianBlur(over, (0, 0), EDGE_SPREAD * side))
    edges = cv2.GaussianBlur(edges, (0, 0), 0.012 * side)
    # A mouth is new as soon as it opens; eyes and brows are the person, and hold on to their detail for longer.
    gone = np.maximum(ramp(edges, *(level * skin * power for level in GONE_MOUTH)), likely)
    if movement.shows is None:
        gone = np.maximum(gone, lips.parted * lips.inside * ramp(1 - after / skin, *DARK))
    gone = where.mouth * gone
    new = place.share(gone * where.mouth)
    pale = place.share(gone * ramp(bright, *BRIGHT) * (likely > 0))
    if not mouth_only:
        gone = gone + (1 - where.mouth) * ramp(edges, *(level * skin for level in GONE))
    gone = place.share(gone)
    drawn = before + (after - before) * where.face
    crisp = steepen(drawn, LARGER)
    # What is seen between lips that are far apart has not their colour: stretched over a mouth it would be a tongue.
    between = place.share(lips.wide * lips.inside * where.mouth)
    if movement.shows is not None:
        inside = draw_inside(photo, place, points[-1], moved, where, movement.shows)
        crisp = crisp + inside.mask * (inside.levels - crisp)
        between, pale = (place.share(m, factor=LARGER) for m in (inside.mask, inside.mask * inside.teeth))
        new, gone = np.maximum(new, between), np.maximum(gone, between)
        deep = np.maximum(between - pale, 0)
    else:
        if rows is not None:
            crisp = crisp + rows.laid * (rows.levels - crisp)
            pale = place.share(rows.share, factor=LARGER)  # as crisp as teeth are
            new, gone = np.maximum(new, pale), np.maximum(gone, pale)
        pale, deep = np.maximum(pale, INNER_PALE * between), np.zeros_like(pale)
    warped, detail = _moved_detail(photo, place, before, flow)
    if folded.max() > 0:
        detail = detail - _smile_lines(detail, place, folded)
    smooth = place.enlarge(drawn)
    target = smooth + new * (place.enlarge(crisp, factor=LARGER) - smooth) + (1 - gone) * detail
    return Redrawn(warped, target - warped @ LUMA, np.maximum(new, between), pale, deep)


def _in_own_light(
    movement: Movement,
    moved: np.ndarray,
    lips: _Lips,
    where: Regions,
    mouths: Sequence[DrawnMouth] | None,
    skin: float,
) -> tuple[np.ndarray, Rows | None]:
    """The edit with lips, irises and brows in the light that they had; and the rows of teeth that are drawn in it."""
    after = movement.after
    if movement.points is not None and mouths is not None:
        after = moved + beside_own_eyes(*movement.points, movement.flow, moved) * (after - moved)
    if movement.shows is not None:
        return moved + lips.own * (after - moved), None
    if mouths is None:
        return after, None
    rows = new_rows(mouths, movement.flow, where.mouth, lips.inside, skin)
    own = np.maximum(lips.own, _around(lips.inside) if rows.share.any() else lips.shut)
    return lay_in(rows, moved + own * (after - moved), moved, where.mouth, skin), rows


def _whitened(
    movement: Movement,
    moved: np.ndarray,
    after: np.ndarray,
    lips: _Lips,
    where: Regions,
    rows: Rows | None,
    skin: float,
) -> tuple[np.ndarray, np.ndarray]:
    """How far the edit goes from what was there to teeth, and where these are likely: ``[R, R]`` in [0, 1] each."""
    if movement.shows is not None:
        return np.zeros_like(after), np.zeros_like(after)
    if rows is not None:
        share = rows.small(len(after))[0]
        return share, share
    bright = np.clip((after - moved) / np.maximum(teeth_level(skin) - moved, 45), 0, 1) * where.mouth * lips.inside
    return bright, patches(bright, factor=1)  # a gleam on a lip is no row of teeth


def _moved_detail(
    photo: np.ndarray, place: Place, before: np.ndarray, flow: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The photograph in the window, moved, float32 ``[H, W, 3]``; and what its drawing is too small for, ``[H, W]``."""
    displacement = place.displacement(flow)
    warped = place.sample(photo, displacement)
    height, width = displacement.shape[:2]
    x = np.arange(width, dtype=np.float32)[None] + displacement[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + displacement[..., 1]
    coarse = cv2.remap(place.enlarge(before), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped, warped @ LUMA - coarse


def _around(inside: np.ndarray) -> np.ndarray:
    """What is between lips, a little larger, as landmarks err by a little: ``[R, R]`` in [0, 1]."""
    return cv2.GaussianBlur(cv2.dilate(inside, np.ones((3, 3), np.uint8)), (0, 0), 1.0)


def _smile_lines(detail: np.ndarray, place: Place, folded: np.ndarray) -> np.ndarray:
    """What the lines of a smile are in the window's detail, float32 ``[H, W]``.

    Args:
        detail: float32 ``[H, W]``.  folded: ``[R, R]`` in [0, 1]: where they go.
    """
    fine = place.alignment.scaled(FOLD_SIDE / place.alignment.resolution)
    smooth = cv2.GaussianBlur(detail, (0, 0), 0.5 * fine.zoom) if fine.zoom > 1 else detail
    matrix = fine.matrix.copy()
    matrix[:, 2] = matrix @ [place.x0, place.y0, 1]
    size = (FOLD_SIDE, FOLD_SIDE)
    upright = cv2.warpAffine(smooth, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    lines = fold_lines(upright) * cv2.resize(folded, size, interpolation=cv2.INTER_LINEAR)
    return replace(place, alignment=fine).enlarge(lines, cv2.INTER_LINEAR)

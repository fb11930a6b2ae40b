"""Putting a change back into the photograph, at the photograph's own resolution.

What is pasted is not the model's picture but the *change* it made between its own reconstruction and its edit:

- ``warp``: dense optical flow from reconstruction to edit moves the photograph's own pixels; what the
  flow cannot explain (a new fold) is added as a smooth luminance remainder, and mouths are drawn or closed
  (:mod:`emoedit.faces.mouth`, :mod:`emoedit.faces.closing`). Skin keeps its texture, lip corners and lids really move.
- ``redraw``: for models whose drawings are as sharp as the crops they were given: the edit is drawn as it is, and only
  the detail that crops are too small for comes from the photograph, moved by the flow and left out where the edit
  shows something else than what was there. The nose, by which people are told apart, changes less than it is drawn.
- ``mouth``: as ``redraw``, but only mouths are drawn; elsewhere the photograph keeps all of its detail. For models that
  draw mouths well and lose lashes and skin.
- ``residual``: the difference, enlarged and added to luminance. Cheaper; ghosts where edges move.
- ``replace``: the edited crop itself, for models that see everything (full-size, colour).

Outside the mask not one bit changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from emoedit.faces.align import Alignment
from emoedit.faces.closing import Opening, close, gone, opens
from emoedit.faces.flow import FLOW_SIDE, Change, estimate_change, estimate_flow, patches, ramp, sample, unfold
from emoedit.faces.folds import FOLD_SIDE, beside_lips, fold_lines, unsmiling
from emoedit.faces.lips import inside_lips, lip_flow, parting
from emoedit.faces.mouth import LARGER, draw_mouth, steepen, teeth_level
from emoedit.faces.regions import LUMA, Regions
from emoedit.faces.teeth import DrawnMouth, lay_in, new_rows, went
from emoedit.faces.tone import Tone

Mode = Literal["warp", "redraw", "mouth", "residual", "replace"]
MODES: tuple[Mode, ...] = ("warp", "redraw", "mouth", "residual", "replace")
DRAWN: tuple[Mode, ...] = ("redraw", "mouth")

MOUTH_SPREAD = 0.05  # of the crop's side: about the height of a lip
BRIGHT = (0.3, 0.8)  # of the way to teeth: what is taken for them a little, and wholly
TEETH = 0.35  # of the skin's colour, which the light has too
LIP = 0.4  # of MOUTH_SPREAD, over which lips mix their colours, or they would have that of the skin beside them
GONE, GONE_MOUTH = (0.08, 0.2), (0.04, 0.11)  # edges without a counterpart, in skin levels, with which detail goes
TOGETHER = 3.0  # times as strong where lips stay together: their own detail is better than any drawing of them
HELD = 0.6  # of what is drawn in the nose: a smile moves it less than directions fitted on other people do
INNER_PALE = 0.7  # of the way from the colour of lips to that of teeth: the inside of a mouth, whatever is seen of it
UNEDGED = (8.0, 24.0)  # grey levels of light over a lip's height: where colour is evened out, too
DARK = (0.35, 0.55)  # below skin, of its level: what between parted lips is the inside of a mouth, and no lip
EDGE_SPREAD = 0.03  # of the crop's side: what varies more slowly is light, not an edge


@dataclass(frozen=True)
class _Window:
    """The part of a photograph that a crop's mask touches."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def _window(alignment: Alignment, height: int, width: int) -> _Window:
    side = alignment.resolution - 1
    corners = alignment.to_photo(np.array([[0, 0], [side, 0], [0, side], [side, side]], float))
    x0, y0 = np.floor(corners.min(0)).astype(int)
    x1, y1 = np.ceil(corners.max(0)).astype(int) + 1
    return _Window(max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1)))


def _enlarge(
    crop: np.ndarray,
    alignment: Alignment,
    window: _Window,
    interpolation: int = cv2.INTER_CUBIC,
    *,
    factor: int = 1,
) -> np.ndarray:
    """A crop-sized array, or one ``factor`` times as large, in the photograph's pixels inside the window; else zero."""
    matrix = alignment.matrix * factor
    matrix[:, 2] += (factor - 1) / 2
    matrix[:, 2] = matrix @ [window.x0, window.y0, 1]
    size = (window.x1 - window.x0, window.y1 - window.y0)
    return cv2.warpAffine(
        crop, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT
    )


def _relight(rgb: np.ndarray, light: np.ndarray, new: np.ndarray, pale: np.ndarray, spread: float) -> np.ndarray:
    """Luminance added as light is: skin keeps its hue; what is new in the mouth takes a colour of its own.

    Args:
        rgb: float32 ``[H, W, 3]``, 0 to 255.  light: ``[H, W]`` grey levels to add.  new, pale: ``[H, W]`` in [0, 1].
        spread: pixels over which the colour around a new thing is averaged.
    """
    luma = rgb @ LUMA
    target = np.clip(luma + light, 0, 255)
    # Shading scales all three channels alike, up to a point: an iris lit threefold would glow in its own colour.
    ratio = np.clip((target + 8) / (luma + 8), 0.2, 1.35)
    # A crease that goes is not lit: scaled as sharply as it is thin, its shadow's colour would be left glowing.
    near = (cv2.GaussianBlur(target, (0, 0), spread) + 8) / (cv2.GaussianBlur(luma, (0, 0), spread) + 8)
    ratio = np.minimum(ratio, np.maximum(1, near))
    # Shadows on skin are warmer than grey ones would be: light comes through it from beside.
    ratio = np.where(ratio < 1, np.sqrt(ratio), ratio)
    chroma = (rgb - luma[..., None]) * ratio[..., None]
    # An edge that is taken away takes its colour along: a crease is warmer than the skin it becomes, a gleam is colder.
    sharp = light - cv2.GaussianBlur(light, (0, 0), spread)
    if np.abs(sharp).max() > UNEDGED[0]:
        even = cv2.GaussianBlur(chroma, (0, 0), spread)
        excess = np.linalg.norm(chroma, axis=-1) - np.linalg.norm(even, axis=-1)
        # An iris that is darkened is no gleam that goes: it would take on the colour of skin.
        taken = (excess * sharp > 0) & (sharp * (luma - cv2.GaussianBlur(luma, (0, 0), spread)) < 0)
        chroma = chroma + (even - chroma) * (ramp(np.abs(sharp), *UNEDGED) * taken)[..., None]
    if new.max() > 0:
        # What was there is gone with its colour: lips take that of what is near, teeth a little of the skin's around.
        def borrowed(from_within: float, share: float) -> np.ndarray:
            around = cv2.GaussianBlur(rgb, (0, 0), from_within)
            level = around @ LUMA
            ratio = np.clip(target / np.maximum(level, 1), 0, 1)
            return (around - level[..., None]) * (ratio * share)[..., None]

        lips, teeth = borrowed(LIP * spread, 1.0), borrowed(spread, TEETH)
        chroma = chroma + (lips + (teeth - lips) * pale[..., None] - chroma) * new[..., None]
    return target[..., None] + chroma


def paste(
    photo: np.ndarray,
    alignment: Alignment,
    frames: Sequence[np.ndarray],
    where: Regions,
    *,
    mode: Mode = "warp",
    change: Change | None = None,
    points: Sequence[np.ndarray] | None = None,
    mouths: Sequence[DrawnMouth] | None = None,
    opening: Opening | None = None,
    closed: bool = False,
    tone: Tone = Tone(),  # noqa: B008
) -> np.ndarray:
    """The photograph with the change in it.

    Args:
        photo: uint8 ``[H, W, 3]``; not modified.
        frames: what the backbone drew, from the reconstruction to the edit, with half-way pictures between them or
            without: float32 ``[R, R]`` luminance or ``[R, R, 3]`` RGB each, 0 to 255.
        where: of the crop (:func:`regions`).
        mode: see the module docstring.
        change: for mode ``warp``, where a backbone knows what it moved and lit: nothing is looked for in the frames.
        points: for modes ``redraw`` and ``mouth``, 68 landmarks of reconstruction and edit, ``[68, 2]`` each in pixels
            of the crop, by which lips are followed that flow alone would lose.
        mouths: for the same modes, sharp ones of reconstruction and edit, whose teeth are drawn; without them what
            becomes much brighter between lips is taken for teeth.
        opening: of a mouth that shows teeth (:func:`emoedit.faces.closing.find_opening`).
        closed: whether the frames were drawn for the photograph with its mouth closed (:func:`loses_teeth`).
        tone: that the frames were drawn at, to which the photograph is lifted while they are put in.

    Returns:
        uint8 ``[H, W, 3]``; equal to ``photo`` bit for bit wherever the mask is 0, and everywhere if nothing changed.
    """
    window = _window(alignment, *photo.shape[:2])
    same = np.array_equal(frames[0], frames[-1]) and not closed
    if same or window.x1 <= window.x0 or window.y1 <= window.y0:
        return photo.copy()
    lifted = tone.lifted(photo)
    before, edited = lifted[window.slices], frames[-1]
    if closed and opening is not None:
        lifted, opening = close_mouth(lifted, alignment, opening), None
    soft = np.clip(_enlarge(where.face, alignment, window, cv2.INTER_LINEAR), 0, 1)
    part = before.astype(np.float32)
    if mode == "replace":
        new = _enlarge(edited, alignment, window)
        if edited.ndim == 2:  # a model of luminance has no colour to give: the photograph keeps its own
            new = part + (new - part @ LUMA)[..., None]
    else:
        grey = [p if p.ndim == 2 else p @ LUMA for p in frames]
        if mode == "warp" and change is not None:
            warped = _warp(lifted, alignment, window, change.flow)
            light = _enlarge(change.remainder, alignment, window)
            new = pale = np.zeros_like(light)
        elif mode == "warp":
            # The photograph's own teeth and lips are better than any drawn.
            mouth = np.zeros_like(where.mouth) if opening is not None else where.mouth
            change = estimate_change(grey, where.moving, mouth)
            drawn, new, pale, shading = draw_mouth(change, grey[-1], where.face, mouth)
            warped = _warp(lifted, alignment, window, change.flow)
            light = _enlarge(shading, alignment, window)
            # What is new has none of the photograph's detail, which belongs to what was there: it is drawn instead.
            new, pale = (
                np.clip(_enlarge(m, alignment, window, cv2.INTER_LINEAR, factor=LARGER), 0, 1) for m in (new, pale)
            )
            light += new * (_enlarge(drawn, alignment, window, factor=LARGER) - (warped @ LUMA + light))
        elif mode in DRAWN:
            source, side = grey[0], alignment.resolution
            inside, parted = where.mouth, (0.0, 0.0)
            folded = np.zeros_like(where.face)
            kept = tone.power  # by which lifting weakens edges
            if points is not None:
                inside, parted = inside_lips(points[-1], side), parting(*points, side)
                folded = where.cheeks * unsmiling(*points) * beside_lips(points[-1], side)
                if opening is None:  # or the creases of a smile would outlive it
                    kept *= TOGETHER ** (1 - parted[0])
            flow, after = _movement(source, grey[-1], where, points)
            found = lifted, alignment, window, source, after, flow, where, inside, parted, kept, folded, mouths
            warped, light, new, pale = _redraw(*found, mouth_only=mode == "mouth")
        else:
            warped, light = part, _enlarge((grey[-1] - grey[0]) * where.moving, alignment, window)
            new = pale = np.zeros_like(light)
        new = _relight(warped, light, new, pale, spread=MOUTH_SPREAD * alignment.zoom * alignment.resolution)
    blend = soft[..., None] if mode == "replace" else np.minimum(1, soft * 4)[..., None]
    result = np.rint(part + (new - part) * blend).clip(0, 255).astype(np.uint8)
    out = photo.copy()
    result = np.where(soft[..., None] > 0, result, before)
    out[window.slices] = tone.restored(photo[window.slices], before, result)
    return out


def loses_teeth(
    opening: Opening,
    frames: Sequence[np.ndarray],
    where: Regions,
    *,
    points: Sequence[np.ndarray] | None = None,
    mouths: Sequence[DrawnMouth] | None = None,
) -> bool:
    """Whether an edit takes away the teeth that a photograph shows.

    Then the mouth is to be closed first, and the edit to be drawn for that: what is drawn for a smile does not lead
    away from the mouth it leaves behind, whose corners would stay up.

    Args:
        opening: of the mouth.  the others: as :func:`paste` has them.
    """
    before, after = (p if p.ndim == 2 else p @ LUMA for p in (frames[0], frames[-1]))
    flow, after = _movement(before, after, where, points)
    # Teeth that only move down with the lip stay.
    lost = gone(opening, before, after, where, flow) or (mouths is not None and went(mouths))
    return lost or (gone(opening, before, after, where) and not opens(opening, flow))


def _movement(
    before: np.ndarray, after: np.ndarray, where: Regions, points: Sequence[np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The flow from one drawing to another ``[R, R, 2]``, and the latter ``[R, R]`` with a nose that hardly moves."""
    start = lip_flow(*points, len(before), FLOW_SIDE) if points is not None else None
    flow = estimate_flow(before, after, where.face, start)
    return _hold(before, after, flow, HELD * where.nose)


def _hold(before: np.ndarray, after: np.ndarray, flow: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flow and the edit without a share of the change: what moved moves less, and what lit is weaker. Two pictures
    laid over each other would show everything twice.

    Args:
        before, after: float32 ``[R, R]``, 0 to 255.  flow: between them, ``[R, R, 2]``.
        held: ``[R, R]`` in [0, 1]: the share that is taken from the change.
    """
    less = unfold(flow * (1 - held)[..., None])
    return less, sample(before, less) + (after - sample(before, flow)) * (1 - held)


def _redraw(
    photo: np.ndarray,
    alignment: Alignment,
    window: _Window,
    before: np.ndarray,
    after: np.ndarray,
    flow: np.ndarray,
    where: Regions,
    inside: np.ndarray,
    parted: tuple[float, float],
    kept: float,
    folded: np.ndarray,
    mouths: Sequence[DrawnMouth] | None,
    *,
    mouth_only: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The moved photograph float32 ``[H, W, 3]``, the light that makes the drawing of it, where things are new, and
    where these are pale: ``[H, W]`` each.

    Args:
        before, after: float32 ``[R, R]``, 0 to 255.  flow: between them, ``[R, R, 2]``.
        inside: ``[R, R]`` in [0, 1]: where teeth can be.
        parted: 0 to 1 each: whether lips are known to have come apart, so that what is dark between them is no lip,
            however well one would fit there; and whether wide.
        kept: how many times as strong an edge without a counterpart has to be for the mouth's detail to go.
        folded: ``[R, R]`` in [0, 1]: where lines of cheeks go with a smile.
        mouths: as in :func:`paste`.
        mouth_only: the photograph's detail goes nowhere else.
    """
    side = len(before)
    moved = sample(before, flow)
    skin = float(np.median(after[where.face > 0.5]))
    found = new_rows(mouths, flow, where.mouth, inside, skin) if mouths is not None else None
    if found is not None:
        after = lay_in(found, after, moved, where.mouth, skin)
    # What the movement leaves over beyond a change of light: an edge that has no counterpart, so that the photograph's
    # detail there belongs to something that is gone.
    over = (after - moved) * where.face
    edges = np.abs(over - cv2.GaussianBlur(over, (0, 0), EDGE_SPREAD * side))
    edges = cv2.GaussianBlur(edges, (0, 0), 0.012 * side)
    if found is not None:
        rows = bright = found.small(side)[0]
    else:
        bright = np.clip((after - moved) / np.maximum(teeth_level(skin) - moved, 45), 0, 1) * where.mouth * inside
        rows = patches(bright, factor=1)  # a gleam on a lip is no row of teeth
    # A mouth is new as soon as it opens; eyes and brows are the person, and hold on to their detail for longer.
    gone = np.maximum(ramp(edges, *(level * skin * kept for level in GONE_MOUTH)), rows)
    gone = where.mouth * np.maximum(gone, parted[0] * inside * ramp(1 - after / skin, *DARK))
    if not mouth_only:
        gone = gone + (1 - where.mouth) * ramp(edges, *(level * skin for level in GONE))
    pale = gone * ramp(bright, *BRIGHT) * (rows > 0)
    # What is seen between lips that are far apart has not their colour: stretched over a mouth it would be a tongue.
    between = parted[1] * inside * where.mouth
    drawn = before + (after - before) * where.face
    crisp = steepen(drawn, LARGER)
    if found is not None:
        crisp = crisp + found.laid * (found.levels - crisp)
    crisp = _enlarge(crisp, alignment, window, factor=LARGER)
    smooth = _enlarge(drawn, alignment, window)
    new, pale, gone, between = (
        np.clip(_enlarge(m.astype(np.float32), alignment, window, cv2.INTER_LINEAR), 0, 1)
        for m in (gone * where.mouth, pale, gone, between)
    )
    if found is not None:  # as crisp as teeth are
        pale = np.clip(_enlarge(found.share, alignment, window, cv2.INTER_LINEAR, factor=LARGER), 0, 1)
        new, gone = np.maximum(new, pale), np.maximum(gone, pale)
    displacement = _displacement(alignment, window, flow)
    warped = _sample_window(photo, window, displacement)
    height, width = displacement.shape[:2]
    x = np.arange(width, dtype=np.float32)[None] + displacement[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + displacement[..., 1]
    coarse = cv2.remap(_enlarge(before, alignment, window), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    luma = warped @ LUMA
    detail = luma - coarse
    if folded.max() > 0:
        detail = detail - _smile_lines(detail, alignment, window, folded)
    target = smooth + new * (crisp - smooth) + (1 - gone) * detail
    return warped, target - luma, np.maximum(new, between), np.maximum(pale, INNER_PALE * between)


def _smile_lines(detail: np.ndarray, alignment: Alignment, window: _Window, folded: np.ndarray) -> np.ndarray:
    """What the lines of a smile are in the window's detail, float32 ``[H, W]``.

    Args:
        detail: float32 ``[H, W]``.  folded: ``[R, R]`` in [0, 1]: where they go.
    """
    fine = alignment.scaled(FOLD_SIDE / alignment.resolution)
    smooth = cv2.GaussianBlur(detail, (0, 0), 0.5 * fine.zoom) if fine.zoom > 1 else detail
    matrix = fine.matrix.copy()
    matrix[:, 2] = matrix @ [window.x0, window.y0, 1]
    size = (FOLD_SIDE, FOLD_SIDE)
    upright = cv2.warpAffine(smooth, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    lines = fold_lines(upright) * cv2.resize(folded, size, interpolation=cv2.INTER_LINEAR)
    return _enlarge(lines, fine, window, cv2.INTER_LINEAR)


def close_mouth(photo: np.ndarray, alignment: Alignment, opening: Opening) -> np.ndarray:
    """The photograph with a mouth closed, uint8 ``[H, W, 3]``; the given one is not modified."""
    window = _window(alignment, *photo.shape[:2])
    x, y = np.meshgrid(np.arange(window.x0, window.x1), np.arange(window.y0, window.y1))
    side = alignment.resolution
    u, v = (
        (alignment.matrix[i, 0] * x + alignment.matrix[i, 1] * y + alignment.matrix[i, 2] + 0.5) / side for i in (0, 1)
    )
    scale = np.array([[side, 0, -0.5], [0, side, -0.5], [0, 0, 1]])
    to_window = alignment.inverse @ scale
    to_window[:, 2] -= window.x0, window.y0
    closed = photo.copy()
    closed[window.slices] = close(photo[window.slices], u, v, opening, to_window).clip(0, 255).round()
    return closed


def _warp(photo: np.ndarray, alignment: Alignment, window: _Window, flow: np.ndarray) -> np.ndarray:
    """The window after a flow in crop pixels ``[R, R, 2]``, float32."""
    return _sample_window(photo, window, _displacement(alignment, window, flow))


def _displacement(alignment: Alignment, window: _Window, flow: np.ndarray) -> np.ndarray:
    """A flow in crop pixels ``[R, R, 2]``, rotated and scaled into one of the window's pixels."""
    return _enlarge((flow @ alignment.inverse[:, :2].T).astype(np.float32), alignment, window)


def _sample_window(photo: np.ndarray, window: _Window, displacement: np.ndarray) -> np.ndarray:
    """The photograph at ``p + displacement[p]`` for the window's pixels, float32."""
    height, width = displacement.shape[:2]
    x = np.arange(window.x0, window.x0 + width, dtype=np.float32)[None] + displacement[..., 0]
    y = np.arange(window.y0, window.y0 + height, dtype=np.float32)[:, None] + displacement[..., 1]
    # Remap only what the window can reach: converting a 50-megapixel photograph to float for one face would be waste.
    reach = int(np.ceil(np.abs(displacement).max())) + 3
    top, left = max(0, window.y0 - reach), max(0, window.x0 - reach)
    near = photo[top : window.y1 + reach, left : window.x1 + reach].astype(np.float32)
    return cv2.remap(near, x - left, y - top, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101).clip(0, 255)

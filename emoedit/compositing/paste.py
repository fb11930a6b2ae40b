"""Putting a change back into the photograph, at the photograph's own resolution.

What is pasted is not the model's picture but the *change* it made between its own reconstruction and its edit:

- ``warp``: dense optical flow from reconstruction to edit moves the photograph's own pixels; what the
  flow cannot explain (a new fold) is added as a smooth luminance remainder, and mouths are drawn or closed
  (``mouth``, ``closing``). Skin keeps its texture, lip corners and lids really move.
- ``redraw``: for models whose drawings are as sharp as the crops they were given: the edit is drawn as it is, and only
  the detail that crops are too small for comes from the photograph, moved by the flow and left out where the edit
  shows something else than what was there. The nose, by which people are told apart, changes less than it is drawn,
  and lips, which small models blur, are the photograph's own (:mod:`emoedit.compositing.redraw`).
- ``mouth``: as ``redraw``, but only mouths are drawn; elsewhere the photograph keeps all of its detail. For models that
  draw mouths well and lose lashes and skin. What small ones make fainter is given back (``fading``).
- ``residual``: the difference, enlarged and added to luminance. Cheaper; ghosts where edges move.
- ``replace``: the edited crop itself, for models that see everything (full-size, colour).

Outside the mask not one bit changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from emoedit.compositing.closing import Opening, close, gone, opens
from emoedit.compositing.flow import Change, estimate_change, ramp
from emoedit.compositing.mouth import LARGER, draw_mouth
from emoedit.compositing.redraw import find_movement, redraw
from emoedit.compositing.teeth import DrawnMouth, went
from emoedit.compositing.window import Place
from emoedit.faces.align import Alignment
from emoedit.faces.masks import LUMA, Regions
from emoedit.faces.tone import Tone

Mode = Literal["warp", "redraw", "mouth", "residual", "replace"]
MODES: tuple[Mode, ...] = ("warp", "redraw", "mouth", "residual", "replace")
DRAWN: tuple[Mode, ...] = ("redraw", "mouth")

MOUTH_SPREAD = 0.05  # of the crop's side: about the height of a lip
TEETH = 0.35  # of the skin's colour, which the light has too
INSIDE = 2.5  # times as much colour has the dark of a mouth as skin would have at its level
LIP = 0.4  # of MOUTH_SPREAD, over which lips mix their colours, or they would have that of the skin beside them
UNEDGED = (8.0, 24.0)  # grey levels of light over a lip's height: where colour is evened out, too


def _relight(
    rgb: np.ndarray,
    light: np.ndarray,
    new: np.ndarray,
    pale: np.ndarray,
    deep: np.ndarray | None = None,
    *,
    spread: float,
) -> np.ndarray:
    """Luminance added as light is: skin keeps its hue; what is new in the mouth takes a colour of its own.

    Args:
        rgb: float32 ``[H, W, 3]``, 0 to 255.  light: ``[H, W]`` grey levels to add.
        new, pale, deep: ``[H, W]`` in [0, 1] (:class:`emoedit.compositing.redraw.Redrawn`).
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
        colour = lips + (teeth - lips) * pale[..., None]
        if deep is not None and deep.max() > 0:
            colour = colour + deep[..., None] * (borrowed(2 * spread, INSIDE) - colour)
        chroma = chroma + (colour - chroma) * new[..., None]
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
        opening: of a mouth that shows teeth (:func:`emoedit.compositing.closing.find_opening`).
        closed: whether the frames were drawn for the photograph with its mouth closed (:func:`loses_teeth`).
        tone: that the frames were drawn at, to which the photograph is lifted while they are put in.

    Returns:
        uint8 ``[H, W, 3]``; equal to ``photo`` bit for bit wherever the mask is 0, and everywhere if nothing changed.
    """
    place = Place.of(alignment, *photo.shape[:2])
    same = np.array_equal(frames[0], frames[-1]) and not closed
    if same or place.empty:
        return photo.copy()
    lifted = tone.lifted(photo)
    before, edited = lifted[place.slices], frames[-1]
    if closed and opening is not None:
        lifted, opening = close_mouth(lifted, alignment, opening), None
    soft = place.share(where.face)
    part = before.astype(np.float32)
    if mode == "replace":
        new = place.enlarge(edited)
        if edited.ndim == 2:  # a model of luminance has no colour to give: the photograph keeps its own
            new = part + (new - part @ LUMA)[..., None]
    else:
        deep = None
        grey = [p if p.ndim == 2 else p @ LUMA for p in frames]
        if mode == "warp" and change is not None:
            warped = place.sample(lifted, place.displacement(change.flow))
            light = place.enlarge(change.remainder)
            new = pale = np.zeros_like(light)
        elif mode == "warp":
            # The photograph's own teeth and lips are better than any drawn.
            mouth = np.zeros_like(where.mouth) if opening is not None else where.mouth
            change = estimate_change(grey, where.moving, mouth)
            drawn, new, pale, shading = draw_mouth(change, grey[-1], where.face, mouth)
            warped = place.sample(lifted, place.displacement(change.flow))
            light = place.enlarge(shading)
            # What is new has none of the photograph's detail, which belongs to what was there: it is drawn instead.
            new, pale = (place.share(m, factor=LARGER) for m in (new, pale))
            light += new * (place.enlarge(drawn, factor=LARGER) - (warped @ LUMA + light))
        elif mode in DRAWN:
            showed = {"showed_teeth": opening is not None}
            movement = find_movement(grey[0], grey[-1], where, points, mouths, **showed)
            how = {"mouths": mouths, "power": tone.power, **showed}
            drawing = redraw(lifted, place, movement, where, **how, mouth_only=mode == "mouth")
            warped, light, new, pale, deep = drawing.warped, drawing.light, drawing.new, drawing.pale, drawing.deep
        else:
            warped, light = part, place.enlarge((grey[-1] - grey[0]) * where.moving)
            new = pale = np.zeros_like(light)
        new = _relight(warped, light, new, pale, deep, spread=MOUTH_SPREAD * alignment.zoom * alignment.resolution)
    blend = soft[..., None] if mode == "replace" else np.minimum(1, soft * 4)[..., None]
    result = np.rint(part + (new - part) * blend).clip(0, 255).astype(np.uint8)
    out = photo.copy()
    result = np.where(soft[..., None] > 0, result, before)
    out[place.slices] = tone.restored(photo[place.slices], before, result)
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
    movement = find_movement(before, after, where, points, mouths, showed_teeth=True)
    flow, after = movement.flow, movement.after
    # Teeth that only move down with the lip stay.
    lost = gone(opening, before, after, where, flow) or (mouths is not None and went(mouths))
    return lost or (gone(opening, before, after, where) and not opens(opening, flow))


def close_mouth(photo: np.ndarray, alignment: Alignment, opening: Opening) -> np.ndarray:
    """The photograph with a mouth closed, uint8 ``[H, W, 3]``; the given one is not modified."""
    place = Place.of(alignment, *photo.shape[:2])
    x, y = np.meshgrid(np.arange(place.x0, place.x1), np.arange(place.y0, place.y1))
    side = alignment.resolution
    u, v = (
        (alignment.matrix[i, 0] * x + alignment.matrix[i, 1] * y + alignment.matrix[i, 2] + 0.5) / side for i in (0, 1)
    )
    scale = np.array([[side, 0, -0.5], [0, side, -0.5], [0, 0, 1]])
    to_window = alignment.inverse @ scale
    to_window[:, 2] -= place.x0, place.y0
    closed = photo.copy()
    closed[place.slices] = close(photo[place.slices], u, v, opening, to_window).clip(0, 255).round()
    return closed

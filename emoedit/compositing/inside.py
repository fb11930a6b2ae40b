"""What is drawn between lips that an edit parts: the dark, a tongue and teeth, as the photograph would show them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from emoedit.compositing.cavity import DEEPEST, Between, cavity
from emoedit.compositing.dentition import Shown, dentition
from emoedit.compositing.mouth import LARGER
from emoedit.compositing.optics import black_level, edge_blur, no_darker
from emoedit.compositing.window import Place
from emoedit.faces.layout import EYES
from emoedit.faces.masks import LUMA, Regions

SPREAD = 0.14  # of the crop's side, over which the light beside a mouth is what is in it
LEAST_LIGHT = 0.6  # of the face's: how dark it is there at most
NEAREST = 0.2  # of the crop's side: how near to each other pupils are taken to be; a turned head's teeth stay as wide


@dataclass(frozen=True)
class Inside:
    """On a grid k = :data:`~emoedit.compositing.mouth.LARGER` times as fine as the crop: float32 ``[kR, kR]`` each.

    Args:
        mask: in [0, 1], what is between the lips.  levels: grey levels of what is drawn there, 0 to 255.
        teeth: in [0, 1], where these are.
    """

    mask: np.ndarray
    levels: np.ndarray
    teeth: np.ndarray


def draw_inside(
    photo: np.ndarray, place: Place, points: np.ndarray, drawing: np.ndarray, where: Regions, shown: Shown
) -> Inside:
    """The inside of a mouth in the light of a face, no crisper and not much darker than its photograph is elsewhere.

    Args:
        photo: uint8 ``[H, W, 3]``.
        points: ``[68, 2]`` landmarks of the mouth to draw, in pixels of the crop.
        drawing: of the face, float32 ``[R, R]``.  where: of the crop.  shown: which teeth are seen.
    """
    side, zoom = len(drawing), place.alignment.zoom
    luma, face = photo[place.slices] @ LUMA, place.share(where.face)
    blur = edge_blur(luma, face)
    between = Between.lips(points, side, zoom, blur)
    skin = cv2.resize(_lit_skin(drawing, where), between.mask.shape, interpolation=cv2.INTER_LINEAR)
    left, right = (points[eye].mean(0) for eye in EYES)
    eyes = LARGER * max(float(np.linalg.norm(right - left)), NEAREST * side)
    levels, teeth = dentition(between, eyes, skin, shown, cavity(between, skin, tongue=shown.tongue))
    levels = no_darker(levels, black_level(luma, face), DEEPEST * skin, skin)
    if blur > 0:
        levels, teeth = (cv2.GaussianBlur(m, (0, 0), blur / zoom * LARGER) for m in (levels, teeth))
    return Inside(between.mask, levels.astype(np.float32), teeth)


def _lit_skin(drawing: np.ndarray, where: Regions) -> np.ndarray:
    """How bright skin is around each place of a face, ``[R, R]``: one side of it may be in shadow."""
    skin, share = float(np.median(drawing[where.face > 0.5])), where.face * (1 - where.mouth)
    near = cv2.GaussianBlur(drawing * share, (0, 0), SPREAD * len(drawing))
    near /= np.maximum(cv2.GaussianBlur(share, (0, 0), SPREAD * len(drawing)), 1e-3)
    return np.clip(near, LEAST_LIGHT * skin, skin / LEAST_LIGHT)

"""Removal of a smile from a photograph before an edit that ends it.

A model's edit of a smile towards sadness keeps the smile's corners and the width of its mouth. So lips are brought
together over the teeth, and the face's landmarks move to where a network predicts them in the same person's neutral
face. All pixels are the photograph's own; only the shadow in the line between the lips is drawn, and the lines that a
smile folds into cheeks are averaged away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from emoedit.compositing.window import CropWindow
from emoedit.faces.align import align
from emoedit.faces.analysis import FaceAnalysis
from emoedit.faces.curves import arc, filled, smoothstep
from emoedit.faces.layout import CORNERS, INNER, LIPS, LOWER_EDGE, OUTER, PAIRS
from emoedit.faces.opening import Opening
from emoedit.faces.teeth import MouthGrid
from emoedit.faces.tone import LUMA
from emoedit.faces.warp import landmark_flow, sample, unfold
from emoedit.io import checkpoints
from emoedit.nn.relaxation import RelaxationNetwork
from emoedit.types import CropSpec

UNDER = slice(55, 60)  # of the 68 landmarks, the outer edge of the lower lip
JAW, NOSE = 17, 27  # of the 68 landmarks, the end of the jaw and the beginning of the nose
SIDE = 192  # of the crop in which movements are found
FOLD_SIDE = 256  # of the crop in which the lines of a smile are found
# in crop sides: lips are taken from this far above and below the opening; nearer, teeth show in the line between them
MARGIN = 0.008, 0.012
# Largest error of the landmarks of a lower lip in crop sides, and the share of it that is corrected, between .6 and 1:
# so full are lips in the neutral photographs of London's people, by their landmarks and by eye.
LOW, CORRECTED = 0.03, 0.8
UPPER = 0.4  # share of the distance that the upper lip moves; the lower lip and the chin move the rest
ABOVE, BELOW = 0.11, 0.24  # in crop sides: how far the skin above and below moves with its lip
ENDS = 0.05  # in crop sides: width over which that movement ends beside the corners
DARK, SATURATED = 0.35, 2.5  # level and saturation of the line between lips, those of skin being 1
SHADOW, LINE, OPEN = 0.7, 0.005, 0.03  # the line's opacity; its width and a whole opening, in crop sides
REACH, NOISE = 0.1, 0.1  # of ``landmark_flow``
SMILE = (0.006, 0.012)  # in crop sides: movement of the mouth's corners, from error to a smile
LONG, FINE, WIDE = 0.02, 0.004, 0.03  # in crop sides: length and thickness of a fold's line, scale of light
SLANTS = tuple(range(0, 180, 20))  # degrees from upright
BESIDE = 0.02  # in crop sides: distance from the lips at which lines count as those of cheeks


@dataclass(frozen=True)
class Smile:
    """The smile of a face and the way to its neutral face; fractions are of the crop's side.

    Args:
        before: ``[68, 2]`` landmarks, lips together, in fractions of the crop's side.
        after: ``[68, 2]`` landmarks of the neutral face.
        opening: opening of the mouth; None where it shows no teeth.
        amount: in [0, 1]: how much of a smile there is.
    """

    before: np.ndarray
    after: np.ndarray
    opening: Opening | None
    amount: float


@lru_cache(maxsize=4)
def relaxation_network(device: str) -> RelaxationNetwork:
    """The frozen relaxation network, loaded once for each device.

    Args:
        device: name of a ``torch.device``.
    """
    return RelaxationNetwork.from_pretrained(checkpoints.embedded_root() / "relaxation").to(device)


@torch.no_grad()
def find_smile(face: FaceAnalysis, network: RelaxationNetwork) -> Smile | None:
    """The smile of a face.

    Args:
        face: analysis of the face.
        network: network that predicts neutral landmarks.

    Returns:
        None where there is no smile and no teeth are seen, or the mouth is hidden.
    """
    config, side = network.config, len(face.crop)
    spec = CropSpec(128, "stable", config.scale, config.down)
    to_network = align(face.face.landmarks, spec)
    seen = to_network.to_crop(face.alignment.to_photo(face.landmarks))
    flat = torch.from_numpy((seen + 0.5) / spec.resolution - 0.5).float()[None]
    flat = flat.to(next(network.parameters()).device)
    moved = seen + network(flat)[0].cpu().numpy() * spec.resolution
    after = (face.alignment.to_crop(to_network.to_photo(moved)) + 0.5) / side
    before = (face.landmarks + 0.5) / side
    moves = _beyond_affine(before, after - before)
    corners = float(np.linalg.norm(moves[list(CORNERS)], axis=-1).mean())
    amount = float(smoothstep(corners, *SMILE))
    if (face.opening is None and amount == 0) or face.mouth_hidden:
        return None
    after = before + amount * moves
    if face.opening is None:
        return Smile(before, after, None, amount)
    return Smile(_closed_landmarks(_lowered(before, face.opening), face.opening), _meeting(after), face.opening, 1.0)


def _beyond_affine(points: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Movements ``[68, 2]`` less the affine map that fits those of jaw, nose and eyes.

    A smile hardly moves these: their predicted movement is the difference between this face's shape and those that the
    network was trained on.
    """
    where = np.c_[points, np.ones(len(points))]
    still = [*range(JAW), *range(NOSE, LIPS.start)]
    return moves - where @ np.linalg.lstsq(where[still], moves[still], rcond=None)[0]


def relax(photo: np.ndarray, face: FaceAnalysis, smile: Smile, amount: float = 1.0) -> np.ndarray:
    """The photograph without the smile.

    Args:
        photo: uint8 ``[H, W, 3]``; not modified.
        face: analysis of the face.
        smile: the smile of that face.
        amount: in [0, 1]: how much of the smile is removed.

    Returns:
        uint8 ``[H, W, 3]``; outside the face mask not one bit changes.
    """
    window = CropWindow.of(face.alignment, *photo.shape[:2])
    result = photo.copy()
    if window.empty or amount <= 0:
        return result
    above, below = _movement(smile, face, amount)
    to_lower, shade = _lip_line(smile, face, amount)
    level = face.skin_level  # the shadow between lips is dark and has more colour than skin
    dark = DARK * (level + SATURATED * (face.skin - level)).clip(0, 255).astype(np.float32)
    free = face.masks.face * (1 - face.hidden)
    grid, resize = MouthGrid(len(face.crop)), FOLD_SIDE / len(face.crop)
    moved = cv2.resize(above, (FOLD_SIDE, FOLD_SIDE), interpolation=cv2.INTER_LINEAR) * np.float32(resize)
    lines = amount * smile.amount * sample(_smile_lines(photo, face), moved)
    fine = np.array([[1 / resize, 0, 0.5 / resize - 0.5], [0, 1 / resize, 0.5 / resize - 0.5]])
    for strip in window.strips():
        part = photo[strip.slices]
        mask = np.minimum(1, 4 * strip.warp(free, flags=cv2.INTER_LINEAR))[..., None]
        new = strip.sample(photo, above)
        if smile.opening is not None:
            lower = strip.warp(to_lower, grid.to_crop, cv2.INTER_LINEAR)[..., None]
            new += lower * (strip.sample(photo, below) - new)
            new += strip.warp(shade, grid.to_crop, cv2.INTER_LINEAR)[..., None] * (dark - new)
        new -= strip.warp(lines, fine)[..., None]
        result[strip.slices] = np.rint(part + (new.clip(0, 255) - part) * mask).astype(np.uint8)
    return result


def _edges(opening: Opening, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At columns ``u``: upper and lower edge of the opening, the line where lips meet, and a weight in [0, 1]."""
    top, bottom = np.interp(u, opening.x, opening.top), np.interp(u, opening.x, opening.bottom)
    within = np.clip((bottom - top) / OPEN, 0, 1)  # near the corners lips are thin, and no teeth are between them
    top, bottom = top - MARGIN[0] * within, bottom + MARGIN[1] * within
    outside = np.maximum(np.maximum(opening.x[0] - u, u - opening.x[-1]), 0)
    middle = np.polyfit(opening.x, opening.top + UPPER * (opening.bottom - opening.top), 2)
    line = np.clip(np.polyval(middle, np.clip(u, opening.x[0], opening.x[-1])), top, bottom)
    return top, bottom, line, np.clip(1 - outside / ENDS, 0, 1)


def _lowered(points: np.ndarray, opening: Opening) -> np.ndarray:
    """Landmarks ``[68, 2]`` whose lower lip is where it is in the photograph, in fractions of the crop's side.

    In a laugh the landmarks of both edges of the lower lip lie too high, by equal distances; the opening shows how far.
    Without this correction the lip would become as much fuller.
    """
    points = points.copy()
    inner = arc(points[LOWER_EDGE])
    off = np.interp(points[UNDER, 0], opening.x, opening.bottom) - np.interp(points[UNDER, 0], *inner.T)
    points[UNDER, 1] += CORRECTED * np.clip(off, 0, LOW)
    return points


def _closed_landmarks(points: np.ndarray, opening: Opening) -> np.ndarray:
    """Landmarks ``[68, 2]`` of a face whose lips are brought together, in fractions of the crop's side."""
    points = points.copy()
    top, bottom, line, within = _edges(opening, points[:, 0])
    x, y = points.T
    up = within * (line - top) * np.exp(-(((line - y) / ABOVE) ** 2))
    down = within * (line - bottom) * np.exp(-(((y - line) / BELOW) ** 2))
    lips = np.zeros(len(points), bool)
    lips[INNER] = True
    points[:, 1] = np.where(lips, y + within * (line - y), np.where(y < line, y + up, y + down))
    return points


def _meeting(neutral: np.ndarray) -> np.ndarray:
    """Landmarks ``[68, 2]`` whose lips meet in a smooth line; predicted ones are a little apart."""
    after = neutral.copy()
    middles = np.array([(neutral[upper] + neutral[lower]) / 2 for upper, lower in PAIRS])
    inner = np.concatenate([neutral[[60, 64]], middles])
    line = np.polyfit(inner[:, 0], inner[:, 1], 2)  # the line of a closed mouth has one bend
    ends = np.sort(inner[:2, 0])
    after[INNER, 1] = np.polyval(line, np.clip(neutral[INNER, 0], *ends))
    return after


def _movement(smile: Smile, face: FaceAnalysis, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Backward flows, ``[S, S, 2]`` in pixels of the crop, of what lies above and below the line between the lips."""
    resolution = len(face.crop)
    before, after = smile.before * SIDE - 0.5, smile.after * SIDE - 0.5
    after = before + amount * (after - before)
    flow, _ = landmark_flow(before, after, slice(None), SIDE, SIDE, reach=REACH, noise=NOISE)
    mask = cv2.resize(face.masks.face, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    flow = unfold(flow * np.minimum(1, 2 * mask)[..., None])
    flows = []
    for upper in (True, False):
        closing = np.zeros_like(flow)
        if smile.opening is not None:
            u, v = np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE] * 2)
            top, bottom, line, within = _edges(smile.opening, u)
            reach, way = (ABOVE, top - line) if upper else (BELOW, bottom - line)
            closing[..., 1] = amount * SIDE * within * way * np.exp(-(((v - line) / reach) ** 2))
        both = flow + sample(closing, flow)
        size = (resolution, resolution)
        flows.append(cv2.resize(both, size, interpolation=cv2.INTER_AREA) * np.float32(resolution / SIDE))
    return flows[0], flows[1]


def _lip_line(smile: Smile, face: FaceAnalysis, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the lower lip is shown, and the shadow in the line between the lips: ``[h, w]`` on the mouth grid each."""
    side, grid = len(face.crop), MouthGrid(len(face.crop))
    width, height = grid.size
    if smile.opening is None:
        return np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    before, after = smile.before * side - 0.5, smile.after * side - 0.5
    after = before + amount * (after - before)
    flow, _ = landmark_flow(before, after, slice(None), side, side, reach=REACH, noise=NOISE)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    moved = grid.enlarge(flow)
    u, v = (
        (grid.to_crop[i, i] * at + grid.to_crop[i, 2] + moved[..., i] + 0.5) / side
        for i, at in ((0, columns), (1, rows))
    )
    top, bottom, line, within = _edges(smile.opening, u)
    soft = 0.3 * LINE
    below = smoothstep(v - line, -soft, soft)
    shade = SHADOW * np.exp(-(((v - line) / LINE) ** 2)) * np.clip(amount * (bottom - top) / OPEN, 0, 1) * (within == 1)
    return below.astype(np.float32), shade.astype(np.float32)


def _smile_lines(photo: np.ndarray, face: FaceAnalysis) -> np.ndarray:
    """The lines that a smile folds into cheeks, ``[F, F]`` grey levels.

    Only detail finer than the crop: the edit removes the rest. Averages along lines find them, and leave pores and
    stubble.
    """
    fine = face.alignment.scaled(FOLD_SIDE / len(face.crop)).crop(photo).astype(np.float32)
    coarse = cv2.resize(face.crop, (FOLD_SIDE, FOLD_SIDE), interpolation=cv2.INTER_CUBIC)
    left = (fine - coarse) @ LUMA
    lines = np.zeros_like(left)
    for _ in range(2):  # the second pass finds what the first leaves of curved lines
        band = left - cv2.GaussianBlur(left, (0, 0), WIDE * FOLD_SIDE)
        responses = np.stack([cv2.filter2D(band, -1, _along(slant)) for slant in SLANTS])
        found = np.take_along_axis(responses, np.abs(responses).argmax(0)[None], 0)[0]
        left, lines = left - found, lines + found
    side = len(face.crop)
    lips = 1 - filled(face.landmarks[OUTER], (side, side))
    away = cv2.distanceTransform((lips > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / side
    where = face.masks.cheeks * smoothstep(away, 0.25 * BESIDE, BESIDE).astype(np.float32)
    return lines * cv2.resize(where, (FOLD_SIDE, FOLD_SIDE), interpolation=cv2.INTER_LINEAR)


def _along(degrees: float) -> np.ndarray:
    """A kernel that averages along a line: ``[K, K]``, sum 1. 0 degrees is upright, positive ones lean right below."""
    reach = round(2.5 * LONG * FOLD_SIDE)
    x, y = np.meshgrid(*[np.arange(-reach, reach + 1, dtype=np.float32)] * 2)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across, along = c * x - s * y, s * x + c * y
    kernel = np.exp(-0.5 * ((across / (FINE * FOLD_SIDE)) ** 2 + (along / (LONG * FOLD_SIDE)) ** 2))
    return (kernel / kernel.sum()).astype(np.float32)

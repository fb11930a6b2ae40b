"""What is known of a face in a photograph before anything is edited."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import cv2
import numpy as np

from emoedit.faces.align import Alignment
from emoedit.faces.curves import filled
from emoedit.faces.detect import Face
from emoedit.faces.landmarks import LandmarkFinder, landmark_finder
from emoedit.faces.layout import EYES, OUTER
from emoedit.faces.masks import FaceMasks
from emoedit.faces.occlusion import OcclusionFinder, occlusion_finder
from emoedit.faces.opening import Opening, find_opening
from emoedit.faces.teeth import TeethFinder, teeth_finder
from emoedit.faces.tone import LUMA, Tone

FINEST = 384  # pixels: the crop's side at which blur is measured; a larger face is measured at this one
AGAIN = 1.5  # pixels: the additional blur by which the photograph's own is estimated
EDGES, SHARPEST = 0.95, 0.25  # quantiles of slopes, for edges, and of edges' widths, without shadows
DARKEST = 0.001  # quantile of a face's levels: pupils, nostrils, the line between lips
HIDDEN = 0.5  # mean of ``hidden`` over the mouth above which the mouth counts as hidden
NEAREST = 0.2  # in crop sides: smallest distance between pupils
BRIGHTEST = 99  # percentile of a photograph's light
WHITE = 85  # percentile of the light between lids, above which is the white of the eye


@dataclass(frozen=True)
class FaceAnalysis:
    """A face in a photograph.

    Args:
        face: its box and landmarks.
        alignment: alignment of its crop.
        masks: masks of the crop.
        tone: the power that lifts its dark tones for a model of luminance.
        crop: float32 ``[R, R, 3]`` RGB, 0 to 255, at the photograph's own tones.
        landmarks: ``[68, 2]`` in pixels of the crop.
        skin: ``[3]`` RGB of its skin.
        white: ``[3]`` RGB of the whites of its eyes.
        blur: standard deviation, in pixels of the crop, of the Gaussian by which the photograph's edges are blurred.
        black: grey level of its darkest places.
        brightest: grey level of the brightest places of the whole photograph, a measure of how dim its light is.
        opening: opening of a mouth that shows teeth; None for others.
        hidden: float32 ``[R, R]`` in [0, 1]: confidence that something is in front of the face.
    """

    face: Face
    alignment: Alignment
    masks: FaceMasks
    tone: Tone
    crop: np.ndarray
    landmarks: np.ndarray
    skin: np.ndarray
    white: np.ndarray
    blur: float
    black: float
    brightest: float
    opening: Opening | None
    hidden: np.ndarray

    @property
    def skin_level(self) -> float:
        """Grey level of the skin, 0 to 255."""
        return float(self.skin @ LUMA)

    @cached_property
    def mouth_hidden(self) -> bool:
        """Whether something is in front of most of the mouth."""
        lips = filled(self.landmarks[OUTER], self.hidden.shape) > 0.5
        return bool(lips.any() and self.hidden[lips].mean() > HIDDEN)

    @property
    def pupil_distance(self) -> float:
        """Distance between the pupils, in pixels of the crop.

        It is at least a fifth of the crop's side, so that lengths in this unit keep their size on a turned face.
        """
        left, right = (self.landmarks[eye].mean(0) for eye in EYES)
        return max(float(np.linalg.norm(right - left)), NEAREST * len(self.crop))


@dataclass(frozen=True)
class Finders:
    """The networks that analyse a face.

    Args:
        landmarks: finds landmarks.
        teeth: finds teeth.
        occlusion: finds what is in front of the face.
    """

    landmarks: LandmarkFinder
    teeth: TeethFinder
    occlusion: OcclusionFinder

    @classmethod
    def on(cls, device: str) -> Self:
        """The embedded ones, shared by everything on a device.

        Args:
            device: device of the networks.
        """
        return cls(landmark_finder(device), teeth_finder(device), occlusion_finder(device))


def analyse(
    photo: np.ndarray,
    face: Face,
    alignment: Alignment,
    masks: FaceMasks,
    tone: Tone,
    finders: Finders,
    *,
    brightest: float | None = None,
) -> FaceAnalysis:
    """Analyse a face.

    Args:
        photo: uint8 ``[H, W, 3]``.
        face: where it was found.
        alignment: alignment of its crop.
        masks: masks of the crop.
        tone: tone of the crop.
        finders: networks that find landmarks, teeth and occlusions.
        brightest: ``brightest_level`` of the photograph that ``photo`` is a part of; default: that of ``photo``.
    """
    crop = alignment.crop(photo).astype(np.float32)
    points = finders.landmarks([crop], alignment, face)[0]
    opening = find_opening(photo, alignment, masks, finders.teeth([crop], alignment, face)[0], points)
    levels = crop @ LUMA
    inside = masks.face > 0.5
    level = float(np.median(levels[inside]))
    near = inside & (masks.mouth < 0.5) & (np.abs(levels - level) <= 0.1 * level + 1)
    skin = np.median(crop[near], 0)
    fine = min(FINEST / alignment.resolution, max(alignment.zoom, 1.0))
    luma = alignment.scaled(fine).crop(photo).astype(np.float32) @ LUMA
    shown = cv2.resize(masks.face, luma.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    blur, black = edge_blur(luma, shown) / fine, float(np.quantile(luma[shown], DARKEST))
    white = eye_white(crop, points, skin)
    brightest = brightest_level(photo) if brightest is None else brightest
    hidden = finders.occlusion(photo, face, alignment)
    return FaceAnalysis(
        face, alignment, masks, tone, crop, points, skin, white, blur, black, brightest, opening, hidden
    )


def brightest_level(photo: np.ndarray) -> float:
    """The grey level of the brightest places of a photograph, uint8 ``[H, W, 3]``, seen at 64 pixels."""
    small = cv2.resize(photo, (64, 64), interpolation=cv2.INTER_AREA)
    return float(np.percentile(small @ LUMA, BRIGHTEST))


def eye_white(crop: np.ndarray, points: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """The colour of the whites of the eyes, ``[3]`` RGB.

    Args:
        crop: float32 ``[R, R, 3]``.
        points: ``[68, 2]`` landmarks in its pixels.
        skin: ``[3]``, returned where both eyes are shut.
    """
    shape = crop.shape[:2]
    eyes = np.maximum(*(filled(points[eye], shape) for eye in EYES)) > 0.5
    if not eyes.any():
        return skin
    between = crop[eyes]
    levels = between @ LUMA
    return between[levels >= np.percentile(levels, WHITE)].mean(0)


def edge_blur(luma: np.ndarray, inside: np.ndarray) -> float:
    """The Gaussian blur of a picture's edges.

    An edge that is blurred again loses the more of its slope the sharper it was (Zhuo and Sim 2011, Defocus map
    estimation from a single image, equation 4).

    Args:
        luma: float32 ``[H, W]``, grey levels.
        inside: bool ``[H, W]``: where it is measured.

    Returns:
        Its standard deviation in pixels; 0 where there are no edges.
    """

    def slope(picture: np.ndarray) -> np.ndarray:
        return np.hypot(cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1))

    own, again = slope(luma), slope(cv2.GaussianBlur(luma, (0, 0), AGAIN))
    if not inside.any():
        return 0.0
    edges = inside & (own > max(float(np.quantile(own[inside], EDGES)), 1e-3))
    if not edges.any():
        return 0.0
    ratio = own[edges] / np.maximum(again[edges], 1e-6)
    return float(np.quantile(AGAIN / np.sqrt(np.maximum(ratio**2 - 1, 1e-4)), SHARPEST))

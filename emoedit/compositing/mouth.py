"""The fourth part for luminance: lips are the photograph's own, and the inside of an opening mouth is drawn.

In a drawing of a hundred pixels lips blur into the dark between them and the skin beside them. Landmarks still locate
its lips well, so the photograph's lips move there and nearly keep their light; the drawing's own mouth is not shown.
What becomes visible is drawn: the dark, a tongue, and upper teeth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from emoedit.compositing.composite import Composite, Layer, Scene
from emoedit.compositing.teeth import TeethVisibility, UpperTeeth
from emoedit.faces.analysis import FaceAnalysis
from emoedit.faces.curves import filled, outline, smoothstep
from emoedit.faces.layout import INNER, OUTER
from emoedit.faces.teeth import MOUTH_UPSCALE, MouthGrid
from emoedit.faces.tone import LUMA
from emoedit.faces.warp import sample

# Levels from the upper lip to the lower one, skin being 1: between the lower quartile and the median of 131 mouths of
# surprised people in the training data, in whose middle the tongue lies below the dark.
DEPTH = (0.0, 0.15, 0.35, 0.5, 0.7, 0.88, 1.0)
DARK = (0.30, 0.20, 0.14, 0.13, 0.14, 0.17, 0.22)
TONGUE = (0.30, 0.20, 0.14, 0.17, 0.32, 0.44, 0.40)
# As bright as the teeth of 77 people who smile in the training data: 1.16 to 1.27 times ``teeth_level`` of their skin.
SMILE = TeethVisibility(share=0.93, longest=11.0, light=1.3, shadow=0.3, wide=(28.0, 29.5), tongue=0.0)
SURPRISE = TeethVisibility(share=0.28, longest=4.0, light=0.8, shadow=0.45, wide=(9.0, 19.0), tongue=1.0)


@dataclass(frozen=True)
class LipAperture:
    """The gap between lips, on the mouth grid.

    Args:
        mask: float32 ``[h, w]`` in [0, 1].
        below: float32 ``[h, w]``: how far a pixel is below the upper lip, in pixels of the grid.
        height: float32 ``[w]``: distance between upper and lower lip, in pixels of the grid.
        left: x of the left corner, in pixels of the grid.
        middle: x of the middle of the face.
        right: x of the right corner.
        soft: width of soft edges, in pixels of the grid.
    """

    mask: np.ndarray
    below: np.ndarray
    height: np.ndarray
    left: float
    middle: float
    right: float
    soft: float

    @classmethod
    def between(cls, points: np.ndarray, grid: MouthGrid, soft: float) -> LipAperture:
        """The aperture of a mouth.

        Args:
            points: ``[68, 2]`` landmarks in pixels of the crop.
            grid: the mouth grid.
            soft: width of soft edges, in pixels of the grid.
        """
        mask = cv2.GaussianBlur(grid.fill(outline(points[INNER])), (0, 0), soft)
        mask = smoothstep(mask, 0.15, 0.85).astype(np.float32)
        height = mask.sum(0)
        rows = np.arange(len(mask), dtype=np.float32)[:, None]
        centre = (mask * rows).sum(0) / np.maximum(height, 1e-3)
        left, right = sorted(float(x) for x in grid.points(points[[60, 64]])[:, 0])
        # The upper lip's notch is the middle of the face; on a turned head that is not half-way.
        middle = float(np.clip(grid.points(points[[51, 62]])[:, 0].mean(), left + 1, max(right - 1, left + 1)))
        return cls(mask, rows - (centre - height / 2), height, left, middle, right, soft)


@dataclass(frozen=True)
class Mouth:
    """Keeps the lips' own light and draws between them. Fractions are of the crop's side.

    Args:
        kept: share of the lips' light that stays as it was.
        around: how far around the lips the light is kept.
        fade: width of the soft edge of that region.
        soft: least width of the drawn layer's soft edges.
        pixel: the same in pixels of the photograph.
        blur: the same as a multiple of the photograph's own blur.
        lit: how far around a mouth skin is averaged for the light inside it.
        least_light: lowest level of that light, the face's level being 1.
        colour: how far around a mouth colour is averaged for the inside.
        saturated: saturation of the dark inside of a mouth, that of skin being 1.
        deeper: lowest level of the inside of a mouth, that of the photograph's darkest places being 1.
        teeth: how upper teeth are drawn.
    """

    kept: float = 0.9
    around: float = 0.065
    fade: float = 0.015
    soft: float = 0.003
    pixel: float = 1.2
    blur: float = 1.3
    lit: float = 0.14
    least_light: float = 0.6
    colour: float = 0.1
    saturated: float = 2.5
    deeper: float = 0.7
    teeth: UpperTeeth = UpperTeeth()

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with lips in their own light and, where they part, a layer with the inside of the mouth."""
        lips, side = scene.lips, len(composite.change)
        mask = cv2.dilate(filled(lips.after[OUTER], (side, side)), np.ones((round(self.around * side) | 1,) * 2))
        drawn = 1 - self.kept * cv2.GaussianBlur(mask, (0, 0), self.fade * side)
        drawn = np.maximum(drawn, lips.shuts * (1 - lips.opens))  # lips that close are as they are drawn
        composite = replace(composite, change=composite.change * drawn)
        return composite if lips.opens == 0 else composite.with_layer(self._inside(scene, composite.flow))

    def _inside(self, scene: Scene, flow: np.ndarray) -> Layer:
        """The inside of the mouth in the light of the face, no sharper and not much darker than the photograph."""
        face, lips = scene.face, scene.lips
        side = len(face.crop)
        grid = MouthGrid(side)
        soft = max(self.soft * side, self.pixel / face.alignment.zoom, self.blur * face.blur) * MOUTH_UPSCALE
        aperture = LipAperture.between(lips.after, grid, soft)
        tone = face.tone  # the dark of a mouth is as much darker than skin as at lifted tones
        skin = tone.lift(grid.enlarge(self._lit_skin(sample(face.crop @ LUMA, flow), face)))
        shown = SURPRISE.towards(SMILE, lips.teeth)
        behind = self._cavity(aperture, skin, shown.tongue)
        eyes = MOUTH_UPSCALE * face.pupil_distance
        levels, teeth = self.teeth(aperture, eyes, skin, face, shown, behind)
        # Levels below skin move up until the darkest is no darker than the photograph's own black.
        black, deepest = self.deeper * tone.lift(np.float64(face.black)), min(DARK) * skin
        steep = np.clip((skin - black) / np.maximum(skin - deepest, 1), 0, 1)
        levels = tone.lower(np.where(levels < skin, skin - (skin - levels) * steep, levels)).astype(np.float32)
        if face.blur > 0:
            levels, teeth = (cv2.GaussianBlur(m, (0, 0), face.blur * MOUTH_UPSCALE) for m in (levels, teeth))
        rgb = self._coloured(levels, teeth, face, grid)
        return Layer(rgb, aperture.mask * np.float32(lips.opens), grid.to_crop)

    def _cavity(self, aperture: LipAperture, skin: np.ndarray, tongue: float) -> np.ndarray:
        """Levels of the dark and the tongue, float32 ``[h, w]``."""
        depth = aperture.below / np.maximum(aperture.height, 1.0)
        half = max((aperture.right - aperture.left) / 2, MOUTH_UPSCALE)
        across = (np.arange(len(aperture.height)) - (aperture.left + aperture.right) / 2) / half
        seen = tongue * smoothstep(1 - np.abs(across), 0.15, 0.75)
        dark, pale = (np.interp(depth, DEPTH, levels) for levels in (DARK, TONGUE))
        return ((dark + seen * (pale - dark)) * skin).astype(np.float32)

    def _lit_skin(self, levels: np.ndarray, face: FaceAnalysis) -> np.ndarray:
        """Levels of skin around each place, ``[R, R]``: one side of a face may be in shadow."""
        share, spread = face.masks.face * (1 - face.masks.mouth), self.lit * len(levels)
        near = cv2.GaussianBlur(levels * share, (0, 0), spread)
        near = near / np.maximum(cv2.GaussianBlur(share, (0, 0), spread), 1e-3)
        return np.clip(near, self.least_light * face.skin_level, face.skin_level / self.least_light)

    def _coloured(self, levels: np.ndarray, teeth: np.ndarray, face: FaceAnalysis, grid: MouthGrid) -> np.ndarray:
        """Levels ``[h, w]`` in colour, ``[h, w, 3]``: the dark as red as lips in shadow, teeth pale."""
        around = grid.enlarge(cv2.GaussianBlur(face.crop, (0, 0), self.colour * len(face.crop)))
        near = np.maximum(around @ LUMA, 1)
        share = np.clip(levels / near, 0, 1) * self.saturated
        deep = (around - near[..., None]) * share[..., None]
        pale = levels[..., None] * self.teeth.colour(face)
        return levels[..., None] + deep + teeth[..., None] * (pale - deep)

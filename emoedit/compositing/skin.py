"""The second part of a composite: lost edges of skin are restored, and new ones are no stronger than creases.

A diffusion model of a hundred pixels draws an edited face a little softer than its reconstruction: bags under eyes, the
shadow beside a nose, a beard and a hand at the cheek fade, and identity with them. Creases of an emotion are new edges,
and stay. On unfamiliar input a small model makes artefacts: pale patches beside a nose, specks at a temple. Mouths and
eyes change by their landmarks, and are left out here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from emoedit.compositing.composite import Composite, Scene
from emoedit.faces.curves import filled
from emoedit.faces.layout import EYES
from emoedit.faces.warp import sample


@dataclass(frozen=True)
class Skin:
    """Bounds how edges of skin change.

    Fractions are of the crop's side; all were chosen on 34 people who are in no reported result.

    Args:
        restored: share of an edge's loss that is restored; 0 for models whose softer edges are intended.
        gleam: most by which an edge becomes brighter, the skin's level being 1.
        crease: most by which it becomes darker, the skin's level being 1.
        edge: scale above which a variation counts as light and not as an edge.
        eyes: how far around lids the change is left as it is.
        soft: width of the soft edge of that region.
    """

    restored: float = 0.85
    gleam: float = 0.08
    crease: float = 0.2
    edge: float = 0.15
    eyes: float = 0.05
    soft: float = 0.015

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with its change of light bounded."""
        masks, side = scene.face.masks, len(composite.change)
        before, after = scene.drawing.luma
        where = masks.face * (1 - masks.mouth) * self._beside_eyes(scene.lips.after, side)
        share = np.maximum(self._blur(where), 1e-3)
        change = composite.change
        if self.restored:
            was = self._edges(sample(before, composite.flow), where, share)
            change = change + self.restored * restore_lost_edges(was, self._edges(change, where, share)) * where
        skin = float(np.median(after[masks.face > 0.5]))
        new = self._edges(change, where, share)
        change = change - where * limit_new_edges(new, self.gleam * skin, self.crease * skin)
        return replace(composite, change=change.astype(np.float32))

    def _blur(self, picture: np.ndarray) -> np.ndarray:
        """A wide blur, computed at a quarter of the side."""
        small = cv2.resize(picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), self.edge * len(picture) / 4)
        return cv2.resize(small, picture.shape[::-1], interpolation=cv2.INTER_LINEAR)

    def _edges(self, picture: np.ndarray, where: np.ndarray, share: np.ndarray) -> np.ndarray:
        """What varies fast, within ``where``, whose own blur is ``share``."""
        return picture - self._blur(picture * where) / share

    def _beside_eyes(self, points: np.ndarray, side: int) -> np.ndarray:
        """1 away from the eyes, 0 in them: float32 ``[R, R]``."""
        lids = np.maximum(*(filled(points[eye], (side, side)) for eye in EYES))
        near = cv2.dilate(lids, np.ones((round(self.eyes * side) | 1,) * 2, np.uint8))
        return 1 - cv2.GaussianBlur(near, (0, 0), self.soft * side)


def restore_lost_edges(was: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The loss of edges, to be added back.

    Args:
        was: edges as they were, ``[R, R]`` grey levels.
        change: change of the edges, of the same shape.

    Returns:
        ``[R, R]``: 0 where an edge is as strong or stronger, and no more than the edge was where it turns into its
        opposite.
    """
    return np.where(was * change < 0, -np.sign(change) * np.minimum(np.abs(change), np.abs(was)), 0)


def limit_new_edges(change: np.ndarray, brighter: float, darker: float) -> np.ndarray:
    """The excess in the change of edges, to be subtracted.

    Args:
        change: change of edges, ``[R, R]`` grey levels.
        brighter: the most by which an edge becomes brighter, in grey levels.
        darker: the most by which it becomes darker.
    """
    most = np.where(change > 0, brighter, darker)
    return change - most * np.tanh(change / most)

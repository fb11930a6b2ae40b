"""A part of several compositors: what is in front of the face stays as it is.

Where something hides the face, such as a microphone, neither pixels move nor light changes. Where it hides the mouth,
the mouth stays as it is, and a note says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from emoedit.compositing.composite import Composite, Layer, Scene

MOUTH_HIDDEN = "something hides the mouth: it stays as it is"


@dataclass(frozen=True)
class Front:
    """Keeps what is in front of a face."""

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite without changes where something hides the face."""
        hidden = scene.face.hidden
        if not hidden.any():
            return composite
        free = 1 - hidden
        notes, layers = composite.notes, tuple(_uncovered(layer, hidden) for layer in composite.layers)
        if scene.face.mouth_hidden:
            notes, layers = (*notes, MOUTH_HIDDEN), ()
            free = free * (1 - scene.face.masks.mouth)
        change = composite.change * (free if composite.change.ndim == 2 else free[..., None])
        return replace(composite, flow=composite.flow * free[..., None], change=change, layers=layers, notes=notes)


def _uncovered(layer: Layer, hidden: np.ndarray) -> Layer:
    """The layer, transparent where something is in front of the face."""
    size, flags = layer.alpha.shape[::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(hidden, layer.to_crop, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return replace(layer, alpha=layer.alpha * (1 - there))

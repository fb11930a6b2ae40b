"""The model's whole change added to the photograph, without the other parts: for comparing models."""

from __future__ import annotations

from dataclasses import dataclass, replace

from emoedit.compositing.composite import Composite, Scene
from emoedit.faces.tone import LUMA


@dataclass(frozen=True)
class AddedChange:
    """The edit less the reconstruction, added to the photograph as it is."""

    def __call__(self, scene: Scene, composite: Composite) -> Composite:
        """The composite with the model's whole change at the photograph's own tones, and without flow."""
        change, tone = scene.drawing.after - scene.drawing.before, scene.face.tone
        if change.ndim == 2 and tone.power != 1:
            own = scene.face.crop @ LUMA
            change = tone.lower(tone.lift(own) + change) - own
        return replace(composite, change=change.astype("float32"))

"""Compositors measured with an oracle editor, whose output is the same person's true smile.

The smiling photograph is aligned to the model's crop; that crop stands for the output of an ideal model for
the neutral photograph. The difference between the result and the true photograph, moved onto the neutral one by the two
alignments, is the compositor's own error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emoedit.compositing.composite import Scene
from emoedit.compositing.drawing import read_drawings
from emoedit.faces.align import Alignment, align
from emoedit.faces.analysis import Finders, analyse
from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.masks import FaceMasks, face_masks
from emoedit.faces.tone import Tone, find_tone
from emoedit.types import CropSpec, ImageError

MOUTH = 0.5  # of the mask of mouths: above it lies the inside, where colours are compared
FINEST = 1.5  # pixels of the photograph: by how much pictures are averaged before colours are compared


@dataclass(frozen=True)
class CompositeErrors:
    """How near a result is to the true photograph.

    Args:
        colour_error: mean difference of a and b (CIE Lab) inside the mouth; 0 is best.
        error: mean absolute difference inside the face mask, in grey levels.
        sharpness: mean absolute Laplacian inside the face mask, the neutral photograph's being 1.
        outside: pixels outside the face mask that differ from the neutral photograph.
    """

    colour_error: float
    error: float
    sharpness: float
    outside: int


def oracle_scene(
    neutral: np.ndarray, smile: np.ndarray, spec: CropSpec, *, channels: int = 3, faces: Sequence[Face] | None = None
) -> tuple[Scene, np.ndarray]:
    """A face with the output of an oracle editor.

    Args:
        neutral: uint8 ``[H, W, 3]``.
        smile: uint8 ``[H, W, 3]`` of the same person.
        spec: crop of the model.
        channels: 3 for a model of colour; 1 for one of luminance, which is given lifted tones.
        faces: faces of both, where they are known; default: the largest of each, as a detector finds them.

    Returns:
        The scene, and the smile moved onto the neutral photograph, uint8 ``[H, W, 3]``.

    Raises:
        NoFaceError: a photograph without a face.
        ImageError: another number of channels.
    """
    if channels not in (1, 3):
        raise ImageError(f"models have 1 or 3 channels, not {channels}")
    if faces is None:
        detector = FaceDetector()
        faces = [detector.choose(photo)[0] for photo in (neutral, smile)]
    first, second = (align(face.landmarks, spec) for face in faces)
    onto = np.vstack([first.inverse, [0, 0, 1]]) @ np.vstack([second.matrix, [0, 0, 1]])
    true = cv2.warpAffine(smile, onto[:2], neutral.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    masks, finders = face_masks(spec), Finders.on("cpu")
    tone, crops = Tone(), [first.crop(photo).astype(np.float32) for photo in (neutral, true)]
    if channels == 1:
        tone = find_tone(first.crop(cv2.cvtColor(neutral, cv2.COLOR_RGB2GRAY)), masks.face)
        lifted = (cv2.cvtColor(tone.lifted(photo), cv2.COLOR_RGB2GRAY) for photo in (neutral, true))
        crops = [first.crop(grey).astype(np.float32) for grey in lifted]
    known = analyse(neutral, faces[0], first, masks, tone, finders)
    (drawing,) = read_drawings(crops[0], crops[1:], faces[0], first, known=[None], finders=finders)
    return Scene(known, drawing), true


def composite_errors(
    result: np.ndarray, neutral: np.ndarray, true: np.ndarray, alignment: Alignment, masks: FaceMasks
) -> CompositeErrors:
    """Compare a result with the true photograph.

    Args:
        result: uint8 ``[H, W, 3]``: the neutral photograph with the edit in it.
        neutral: uint8 ``[H, W, 3]``.
        true: uint8 ``[H, W, 3]``, moved onto the neutral photograph.
        alignment: alignment of the face's crop.
        masks: masks of that crop.
    """
    size = neutral.shape[1::-1]
    face, mouth, whole = (
        cv2.warpAffine(mask, alignment.inverse, size, flags=cv2.INTER_LINEAR)
        for mask in (masks.face, masks.mouth, (masks.face > 0).astype(np.float32))
    )
    smoothed = [cv2.GaussianBlur(picture.astype(np.float32) / 255, (0, 0), FINEST) for picture in (result, true)]
    lab = [cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)[..., 1:] for picture in smoothed]
    inside = mouth * face > MOUTH
    error = np.abs(result.astype(np.float32) - true).mean(-1)
    differs = (result != neutral).any(-1) & (cv2.dilate(whole, np.ones((3, 3))) == 0)
    return CompositeErrors(
        float(np.abs(lab[0] - lab[1]).mean(-1)[inside].mean()),
        float((error * face).sum() / face.sum()),
        _sharpness(result, face) / max(_sharpness(neutral, face), 1e-6),
        int(differs.sum()),
    )


def _sharpness(picture: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean absolute Laplacian of luminance, in grey levels."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float((np.abs(cv2.Laplacian(grey, cv2.CV_32F)) * weight).sum() / weight.sum())

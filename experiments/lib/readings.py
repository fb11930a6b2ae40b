"""What the two prompt studies read of a picture by eye, as measured quantities with definitions.

- *faces*: how many the detector finds with a confidence of at least ``SURE``.
- *shot*: the height of the largest face (brows to chin, the detector's box) as a share of the picture's: from .6 on an
  extreme close-up, from .33 a close-up, from .15 a medium shot, below a long one.
- *camera*: how far down the nose's tip lies between the eyes and the nose's base. Of studio portraits at eye level,
  neutral and smiling, .772 with a deviation of .05: within 2.5 deviations eye level, below it a camera that looks up,
  above it one that looks down.
- *shape*: visible errors of the face: how far its 68 landmarks lie from those of neutral photographs, in deviations of
  these (root of the mean square). It compares pictures: the astronaut's portrait has .3 to .5, a face that no person
  has lies farther out.
- *style*: agreement of picture and prompt in style: the cosine in a CLIP of the picture and the prompt's words for
  style. Needs a CLIP.

Not measurable here: how likely a picture was generated (it takes a classifier that was trained on the pictures of many
generators; none comes with this package), and errors outside of the face (hands, lettering, light).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from PIL import Image

from emoedit.editors import load_editor
from emoedit.faces.align import align
from emoedit.faces.detect import FaceDetector
from emoedit.faces.landmarks import landmark_finder
from emoedit.faces.layout import EYES
from emoedit.metrics.clip import Clip
from emoedit.steering.units import ActionUnits, face_shape
from emoedit.types import DataError

SURE = 0.9
SHOTS = ((0.6, "extreme close-up"), (0.33, "close-up"), (0.15, "medium shot"), (0.0, "long shot"))
NOSE, BASE = 30, slice(31, 36)
LEVEL, DEVIATION, WITHIN = 0.772, 0.05, 2.5
NOT_MEASURED = (
    "Not measurable here: how likely a picture was generated, which takes a classifier that was trained on pictures of "
    "many generators; and errors outside of the face, such as hands."
)


@dataclass(frozen=True)
class PictureReading:
    """What is read of one picture; None for what a picture without a face, or no CLIP, does not tell.

    Args:
        faces: how many.
        shot: how near the largest one is.
        camera: from where it is seen.
        shape: deviations of its landmarks from neutral photographs.
        style: cosine with the prompt's words for style.
    """

    faces: int
    shot: str | None = None
    camera: str | None = None
    shape: float | None = None
    style: float | None = None


@cache
def _parts() -> tuple[FaceDetector, ActionUnits]:
    (units,) = load_editor("facs", device="cpu").steerings
    assert isinstance(units, ActionUnits)
    return FaceDetector(min_confidence=SURE), units


def shot(share: float) -> str:
    """The name of a shot in which the face takes this share of the picture's height."""
    return next(name for least, name in SHOTS if share >= least)


def camera(points: np.ndarray) -> str:
    """From where a face is seen, by its landmarks ``[68, 2]``, the eyes level."""
    eyes, base = np.mean([points[eye][:, 1].mean() for eye in EYES]), points[BASE, 1].mean()
    away = ((points[NOSE, 1] - eyes) / max(float(base - eyes), 1e-6) - LEVEL) / DEVIATION
    return "eye level" if abs(away) <= WITHIN else "from above" if away > 0 else "from below"


def shape_deviation(units: ActionUnits, points: np.ndarray) -> float:
    """How far landmarks ``[68, 2]`` lie from neutral photographs, in deviations of these."""
    assert units.neutral is not None and units.whitener is not None  # of the embedded editor
    away = (face_shape(points) - units.neutral.double().numpy()).ravel()
    return float(np.sqrt(np.mean((units.whitener.double().numpy() @ away) ** 2)))


def read_picture(image: Image.Image, style: str, clip: Clip | None) -> PictureReading:
    """Everything that is measured of one picture.

    Args:
        image: image of any size.
        style: the prompt's words for style; empty for none.
        clip: None: the style's agreement is not measured.
    """
    detector, units = _parts()
    rgb = np.asarray(image.convert("RGB"))
    faces = detector(rgb)
    found = {} if clip is None or not style else {"style": _agreement(image, style, clip)}
    if not faces:
        return PictureReading(0, **found)
    face = max(faces, key=lambda each: each.area)
    finder = landmark_finder("cpu")
    alignment = align(face.landmarks, finder.network.crop)
    crop = cv2.cvtColor(alignment.crop(rgb), cv2.COLOR_RGB2GRAY).astype(np.float32)
    points = finder([crop], alignment, face)[0]
    near = shot((face.box[3] - face.box[1]) / len(rgb))
    return PictureReading(len(faces), near, camera(points), shape_deviation(units, points), **found)


@torch.no_grad()
def _agreement(image: Image.Image, style: str, clip: Clip) -> float | None:
    """Cosine of the picture and the words; None for words that the CLIP cannot read."""
    x = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
    try:
        return float(clip.image_embeddings(x)[0] @ clip.text_embeddings([style])[0])
    except DataError:
        return None

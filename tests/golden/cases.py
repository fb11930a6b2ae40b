"""Which edits of which pictures are kept as golden pictures, and how they are made and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from emoedit.compositing.compositors import compositor
from emoedit.evaluation.oracle import oracle_scene
from emoedit.faces.align import align
from emoedit.faces.detect import Face
from emoedit.io.images import load_picture
from emoedit.photo import PhotoEditor
from emoedit.types import CropSpec, Edit
from tests.fixtures.faces import face_at, five_points, lips, photo_of, smiling

FOLDER = Path(__file__).parent
SIDE = 192  # pixels of a golden picture
SHOWN = CropSpec(SIDE, "stable", 0.8, 0.074)  # the part of the photograph that is kept
# What rounding on other processors stays below and a changed constant does not: CIEDE2000, its mean over the picture
# and its 99th percentile, and structural similarity of luminance.
MEAN, HIGH, SIMILAR = 0.006, 0.35, 0.9995

BASIC = ("happy", "sad", "angry", "surprised")
OTHERS = ("fearful", "disgusted", "neutral")
NEUTRAL = ("001-neutral", "024-neutral", "043-neutral", "062-neutral", "034-neutral")
SMILING = ("010-smiling", "024-smiling", "041-smiling", "043-smiling", "087-smiling")


@dataclass(frozen=True)
class Case:
    """Golden pictures of one source and one editor.

    Args:
        source: ``"astronaut"``, ``"drawn-lips"``, ``"drawn-smile"``, or a file of ``sources/`` without its ending.
        editor: an embedded editor, or ``"perfect"``: the same person's true smile as a model of colour draws it.
        edits: emotion and strength.
    """

    source: str
    editor: str
    edits: tuple[tuple[str, float], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Files of the pictures, without their ending."""
        return tuple(f"{self.source}_{self.editor}_{emotion}_{strength:g}" for emotion, strength in self.edits)


def at(strength: float, *emotions: str) -> tuple[tuple[str, float], ...]:
    return tuple((emotion, strength) for emotion in emotions)


CASES = (
    Case("astronaut", "stylegan", (*at(1, *BASIC, *OTHERS), *at(0.5, "sad", "surprised"), *at(1.5, *BASIC))),
    Case(NEUTRAL[0], "stylegan", (*at(1, *BASIC, "fearful"), *at(0.5, "happy"), *at(1.5, "happy", "surprised"))),
    *(Case(name, "stylegan", (*at(1, "happy", "surprised"), *at(1.5, "angry"))) for name in NEUTRAL[1:]),
    *(Case(name, "stylegan", (*at(1, "neutral", "sad", "surprised"), *at(0.5, "angry"))) for name in SMILING),
    Case("drawn-lips", "stylegan", at(1, "happy", "surprised")),
    Case("drawn-smile", "stylegan", at(1, "neutral", "sad")),
    *(Case(NEUTRAL[0], name, at(1, "happy", "surprised")) for name in ("vae", "asyrp", "ti", "ti_asyrp")),
    *(Case(NEUTRAL[1], name, at(1, "fearful", "disgusted")) for name in ("ti", "ti_asyrp")),
    *(Case(SMILING[3], name, at(1, "sad")) for name in ("vae", "ti_asyrp")),
    *(Case(SMILING[3], name, at(1, "neutral")) for name in ("ti", "ti_asyrp")),
    Case(NEUTRAL[3], "mean_warp", at(1, "happy")),
    Case(NEUTRAL[4], "pixel_mean", at(1, "happy")),
    Case(NEUTRAL[1], "perfect", at(1, "happy")),
    Case(NEUTRAL[2], "perfect", at(1, "happy")),
)


def source(name: str) -> np.ndarray:
    """A source by name, uint8 ``[H, W, 3]``."""
    if name == "astronaut":
        from skimage.data import astronaut

        return astronaut()
    if name.startswith("drawn"):
        return photo_of(lips(48, 72) if name == "drawn-lips" else smiling(50.0), np.array([1.3, 0.9, 0.75]), grain=3.0)
    return load_picture(FOLDER / "sources" / f"{name}.jpg").rgb


@cache
def face(name: str) -> Face:
    """Where a source's face is, as it was once found: what is compared is edits, not the rounding of a detector."""
    if name.startswith("drawn"):
        return face_at(five_points(150, 0, 150, 140))
    found = json.loads((FOLDER / "sources" / "faces.json").read_text())[name]
    return Face(tuple(found["box"]), np.array(found["landmarks"]), 1.0)


@cache
def editor(name: str) -> PhotoEditor:
    return PhotoEditor(name)


def pictures(case: Case) -> Iterator[tuple[str, np.ndarray]]:
    """The name and the picture, uint8 ``[192, 192, 3]``, of every edit of a case, made anew."""
    photo = source(case.source)
    if case.editor == "perfect":
        smile = source(case.source.replace("neutral", "smiling"))
        both = face(case.source), face(case.source.replace("neutral", "smiling"))
        scene, _ = oracle_scene(photo, smile, CropSpec(256, "ffhq"), faces=both)
        edited = [compositor("rgb")(photo, scene)[0]]
    else:
        photos = editor(case.editor)
        opened = photos.open(photo, face(case.source))
        edits = [Edit(emotion, strength) for emotion, strength in case.edits]
        edited = [np.asarray(result.image) for result in photos.edit(opened, edits)]
    whole = align(face(case.source).landmarks, SHOWN)
    for name, picture in zip(case.names, edited, strict=True):
        yield name, whole.crop(picture)


def path(name: str) -> Path:
    """The golden picture of a name."""
    return FOLDER / "pictures" / f"{name}.webp"


def golden(name: str) -> np.ndarray:
    """The golden picture, uint8 ``[192, 192, 3]``."""
    return np.asarray(Image.open(path(name)).convert("RGB"))


@dataclass(frozen=True)
class Difference:
    """How two pictures differ.

    Args:
        mean: CIEDE2000 on average.
        high: its 99th percentile.
        similar: structural similarity of luminance, 1 for the same picture.
    """

    mean: float
    high: float
    similar: float

    @classmethod
    def between(cls, first: np.ndarray, second: np.ndarray) -> Difference:
        """Of two pictures uint8 ``[h, w, 3]``."""
        colours = deltaE_ciede2000(*(rgb2lab(picture) for picture in (first, second)))
        grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
        return cls(float(colours.mean()), float(np.percentile(colours, 99)), float(structural_similarity(*grey)))

    @property
    def small(self) -> bool:
        """Whether it is no more than rounding."""
        return self.mean <= MEAN and self.high <= HIGH and self.similar >= SIMILAR

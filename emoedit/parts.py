"""An edit of a part of the face alone, one with action units added, and one that starts from the neutral face."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache

import numpy as np

from emoedit.compositing.window import CropWindow
from emoedit.editors import load_editor
from emoedit.faces.analysis import FaceAnalysis
from emoedit.faces.layout import BROWS, EYES, LIPS
from emoedit.io.images import load_picture
from emoedit.photo import OpenPhoto, PhotoEdit, PhotoEditor
from emoedit.types import Edit, EditError

PARTS = {"brows": BROWS, "eyes": EYES, "mouth": (LIPS,)}
SOFT = 0.03  # of the crop's side: how softly one part ends where the next begins
POWER = 2  # the brows lie close above the eyes


def part_weights(face: FaceAnalysis, parts: Collection[str]) -> np.ndarray:
    """How much each pixel of the crop belongs to some parts of the face, float32 ``[R, R]`` in [0, 1].

    Every pixel belongs to the parts it is near to; the weights of all parts add to 1.

    Args:
        face: analysis of the face.
        parts: names, of ``brows``, ``eyes`` and ``mouth``.

    Raises:
        EditError: no part, or one that does not exist.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise EditError(f"parts of a face are {', '.join(PARTS)}, not {', '.join(unknown) or 'none'}")
    side = len(face.crop)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    distances = []
    for groups in PARTS.values():
        points = np.concatenate([face.landmarks[group] for group in groups])
        squared = (x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2
        distances.append(np.sqrt(squared.min(-1)) / (SOFT * side))
    nearness = np.exp(-(np.array(distances) - np.min(distances, axis=0)))
    weights = nearness**POWER / (nearness**POWER).sum(0)
    chosen = [n for n, name in enumerate(PARTS) if name in parts]
    return weights[chosen].sum(0).astype(np.float32)


def keep_only(result: PhotoEdit, photo: OpenPhoto, parts: Collection[str]) -> PhotoEdit:
    """An edit of some parts of the faces alone: everywhere else the photograph is as it was.

    Args:
        result: the edit.
        photo: the photograph that was edited.
        parts: names, of ``brows``, ``eyes`` and ``mouth``.

    Raises:
        EditError: no part, or one that does not exist.
    """
    weights = [part_weights(face, parts) for face in photo.source.faces]
    (y, x), (height, width) = photo.near.corner, photo.near.rgb.shape[:2]
    before, after = photo.near.rgb, load_picture(result.image).rgb[y : y + height, x : x + width]
    mixed = before.copy()
    for face, weight in zip(photo.source.faces, weights, strict=True):
        window = CropWindow.of(face.alignment, *before.shape[:2])
        if window.empty:
            continue
        share = np.clip(window.warp(weight), 0, 1)[..., None]
        first, last = (p[window.slices].astype(np.float32) for p in (before, after))
        blended = np.rint(first + share * (last - first)).astype(np.uint8)
        mixed[window.slices] = np.where(last != first, blended, mixed[window.slices])
    return replace(result, image=photo.picture.to_pil(mixed, photo.near.corner))


@lru_cache(maxsize=1)
def _units_editor(device: str) -> PhotoEditor:
    return PhotoEditor(load_editor("facs", device=device))


def add_units(result: PhotoEdit, units: str, *, device: str = "auto", seed: int = 0) -> PhotoEdit:
    """A finished edit, by any editor, with action units added: the landmarks of its faces move.

    Args:
        result: the edit.
        units: algebra on units, such as ``"0.5*AU12"``.
        device: device of the landmark network.
        seed: is kept with the result.

    Raises:
        EditError: units that contradict each other.
        UnknownNameError: a unit that does not exist.
    """
    photo_editor, edit, image = _units_editor(device), Edit(units), result.image
    for face in result.faces:
        opened = photo_editor.open(image, face, seed=seed, edits=[edit])
        image = next(photo_editor.edit(opened, [edit], seed=seed)).image
    return replace(result, image=image)


def neutral_first(photo_editor: PhotoEditor, photo: OpenPhoto, *, seed: int = 0) -> OpenPhoto:
    """The photograph with its faces made neutral, opened: for edits that are to start there.

    Args:
        photo_editor: the editor.
        photo: what its ``open`` returned.
        seed: seed of the noise an editor draws.

    Raises:
        EditError: an editor that knows no neutral face.
    """
    if "neutral" not in photo_editor.editor.emotions:
        raise EditError(
            f"{photo_editor.editor.name} has no emotion 'neutral'; it has {', '.join(photo_editor.editor.emotions)}"
        )
    neutral = next(photo_editor.edit(photo, [Edit("neutral")], seed=seed)).image
    return photo_editor.open(neutral, photo.faces[0] if len(photo.faces) == 1 else "all", seed=seed)

"""The expression of another photograph, as an emotion's algebra for this one.

Two readings. A recogniser says which emotions a face shows. Landmarks say which action units its lower face shows,
relative to what neutral faces of other people and in other poses look like; brows and lids move by less than landmarks
err, so their units come from the emotions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from emoedit.emotions import BASIC, canonical
from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io.images import load_picture
from emoedit.types import EditError, UnknownNameError

LEAST = 0.1  # probability below which an emotion is not read
UPPER_UNITS = ("AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU43")  # brows, lids, cheeks
# The landmark network and the prior of neutral faces shrink movements: on smiles of held-out people, AU12 is a third
# of the movement of the corners of their mouths.
GAIN, WEAKEST, STRONGEST = 2.0, 0.15, 1.2


def expression_of(
    reference: Any,
    emotions: Collection[str],
    *,
    face: int | None = None,
    device: str = "cpu",
) -> str:
    """The expression of another photograph, as algebra on an editor's emotions.

    Args:
        reference: a path, bytes, PIL picture, array or tensor.
        emotions: the names that the editor knows; where action units are among them, the lower face is read as units.
        face: index of the reference's face, by size; None where it shows one.
        device: device of the networks.

    Returns:
        Algebra such as ``"0.82*happy + 0.11*surprised"``; ``"neutral"`` for a face that shows nothing.

    Raises:
        ImageError: the reference cannot be read.
        NoFaceError: it shows no face, or not that one.
        EditError: it shows several faces, and none was chosen.
        UnknownNameError: the editor has none of the emotions that are read.
    """
    picture = load_picture(reference)
    detector = FaceDetector(device)
    if face is None:
        found = detector.choose(picture.rgb, "all")
        if len(found) > 1:
            raise EditError(f"the reference shows {len(found)} faces; say which one (0 is the largest)")
        chosen = found[0]
    else:
        chosen = detector.choose(picture.rgb, face)[0]
    scores = read_emotions(picture.rgb, chosen, device=device)
    if "AU12" in emotions:
        return _algebra(_units(picture.rgb, chosen, scores, device))
    known = {canonical(name): name for name in emotions if _is_known(name)}
    read = {name: p for name, p in scores.items() if name != "neutral" and p >= LEAST}
    if read and not any(name in known for name in read):
        raise UnknownNameError(f"the reference shows {', '.join(read)}, and the editor has {', '.join(emotions)}")
    return _algebra({known[name]: p for name, p in read.items() if name in known})


def _is_known(name: str) -> bool:
    try:
        canonical(name)
    except UnknownNameError:
        return False
    return True


def read_emotions(rgb: np.ndarray, face: Face, *, device: str = "cpu") -> dict[str, float]:
    """Basic emotion -> probability, by the embedded recogniser.

    Args:
        rgb: uint8 ``[H, W, 3]``.
        face: the face in it.
        device: device of the network.
    """
    network = EmbeddedNetwork.load("expression", device=device)
    scores = network.scores(network.faces(rgb, face)[None])[0]
    return {name: float(p) for name, p in zip(network.emotions, scores, strict=True) if name in BASIC}


def _units(rgb: np.ndarray, face: Face, scores: Mapping[str, float], device: str) -> dict[str, float]:
    """Units of the lower face from landmarks, those of the upper face from emotions."""
    from emoedit.editors import load_editor
    from emoedit.faces.align import align
    from emoedit.faces.landmarks import landmark_finder
    from emoedit.steering.units import ActionUnits

    editor = load_editor("facs", device=device)
    (steering,) = editor.steerings
    if not isinstance(steering, ActionUnits):
        raise EditError("the embedded editor 'facs' is not made of action units")
    alignment = align(face.landmarks, editor.backbone.crop)
    crop = alignment.crop(rgb).astype(np.float32)
    points = landmark_finder(device)([crop], alignment, face)[0]
    lower = {
        name: round(min(GAIN * weight, STRONGEST), 3)
        for name, weight in steering.read(points).items()
        if weight >= WEAKEST and name.rstrip("LR") not in UPPER_UNITS
    }
    upper: dict[str, float] = {}
    for emotion, probability in scores.items():
        for name, weight in steering.sums.get(emotion, {}).items():
            if name.rstrip("LR") in UPPER_UNITS and probability >= LEAST:
                upper[name] = round(upper.get(name, 0.0) + probability * weight, 3)
    if {"AU5", "AU43"} <= set(upper):
        del upper[min(("AU5", "AU43"), key=upper.__getitem__)]
    return upper | lower


def _algebra(weights: Mapping[str, float]) -> str:
    return " + ".join(f"{weight:.3g}*{name}" for name, weight in weights.items()) or "neutral"

"""Removal of a smile's light from a face: cheeks flatten, and the shadows around them disappear."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch

from emoedit.compositing.window import CropWindow
from emoedit.faces.align import align
from emoedit.faces.analysis import FaceAnalysis
from emoedit.faces.curves import filled, smoothstep
from emoedit.faces.layout import BROWS, JAW
from emoedit.faces.masks import face_masks
from emoedit.faces.tone import LUMA
from emoedit.io import checkpoints
from emoedit.nn.relighting import DIM, RelightingNetwork

AMOUNT = 0.6  # share of the predicted change that is applied: the edit itself flattens cheeks, too
EDGE = 0.03  # in crop sides: width over which the light fades before the outline of the face


@lru_cache(maxsize=4)
def relighting_network(device: str) -> RelightingNetwork:
    """The frozen relighting network, loaded once for each device.

    Args:
        device: device of the network.
    """
    return RelightingNetwork.from_pretrained(checkpoints.embedded_root() / "relighting").to(device)


@torch.no_grad()
def relight(photo: np.ndarray, face: FaceAnalysis, network: RelightingNetwork, amount: float = 1.0) -> np.ndarray:
    """The photograph with the face in a neutral face's light.

    Args:
        photo: uint8 ``[H, W, 3]`` after ``relax``; not modified.
        face: analysis of the face.
        network: network that predicts the light.
        amount: in [0, 1]: share of the change of light.

    Returns:
        uint8 ``[H, W, 3]``; outside the face mask not one bit changes.
    """
    window, result, free = CropWindow.of(face.alignment, *photo.shape[:2]), photo.copy(), _skin(face)
    if window.empty or amount <= 0 or not free.any():
        return result
    ratio, to_crop = _ratio(photo, face, network)
    window = window.around(free)
    for strip in () if window.empty else window.strips():
        part = photo[strip.slices].astype(np.float32)
        mask = strip.warp(free, flags=cv2.INTER_LINEAR)
        # Equal for red, green and blue: the shadow in a fold is more saturated than skin, and would turn red.
        brighter = (part @ LUMA + DIM) * (np.exp(amount * strip.warp(ratio, to_crop) * mask) - 1)
        result[strip.slices] = np.rint((part + brighter[..., None]).clip(0, 255)).astype(np.uint8)
    return result


def _ratio(photo: np.ndarray, face: FaceAnalysis, network: RelightingNetwork) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the ratio of light, ``[S, S]`` on the network's crop, and the map from there to the face's crop."""
    seen = align(face.face.landmarks, network.crop)
    levels, inside = np.log(seen.crop(photo) @ LUMA + DIM), face_masks(network.crop).face > 0.5
    x = torch.from_numpy(levels - np.median(levels[inside])).float()[None, None]
    x = torch.cat([x, x.flip(-1)]).to(next(network.parameters()).device)
    straight, mirrored = network(x).cpu()
    ratio = AMOUNT * (straight[0] + mirrored[0].flip(-1)).numpy() / 2
    return ratio, (face.alignment.matrix @ np.vstack([seen.inverse, [0, 0, 1]])).astype(np.float64)


def _skin(face: FaceAnalysis) -> np.ndarray:
    """Where light may change, float32 ``[R, R]`` in [0, 1]: from jaw to brows, 0 from the outline on."""
    left, right = (face.landmarks[brow] for brow in BROWS)
    outline = np.concatenate([face.landmarks[JAW], right[::-1], left[::-1]])
    side = len(face.crop)
    soft = cv2.GaussianBlur(filled(outline, (side, side)), (0, 0), EDGE * side)
    return (face.masks.face * (1 - face.hidden) * smoothstep(soft, 0.5, 1.0)).astype(np.float32)

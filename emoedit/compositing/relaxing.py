"""Removal of a smile from a photograph before an edit that ends it.

A model's edit of a smile towards sadness keeps the smile's corners and the width of its mouth. So lips are brought
together over the teeth ([emoedit.compositing.closing][]), and a network tells how the same person's neutral face is
made of that picture's pixels ([emoedit.nn.smile_removal][]): corners come down, cheeks flatten and eyes open.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from emoedit.compositing.closing import closing_flows, lip_line
from emoedit.compositing.window import CropWindow
from emoedit.faces.align import Alignment, align
from emoedit.faces.analysis import FaceAnalysis
from emoedit.faces.curves import smoothstep
from emoedit.faces.layout import CORNERS, LIPS
from emoedit.faces.opening import Opening
from emoedit.faces.teeth import MouthGrid
from emoedit.io import checkpoints
from emoedit.nn.relaxation import RelaxationNetwork
from emoedit.nn.smile_removal import Layers, SmileRemovalNetwork
from emoedit.types import CropSpec

JAW, NOSE = 17, 27  # of the 68 landmarks, the end of the jaw and the beginning of the nose
DARK, SATURATED = 0.35, 2.5  # level and saturation of the line between lips, those of skin being 1
SMILE = (0.006, 0.012)  # in crop sides: movement of the mouth's corners, from error to a smile


@dataclass(frozen=True)
class NeutralFace:
    """What a neutral face is made of, on the crop of side S of the same face smiling, once its lips are together.

    Args:
        flow: float32 ``[S, S, 2]``: backward flow in pixels of the crop.
        light: float32 ``[S, S]``: natural logarithm of the ratio of neutral to present light.
        paint: float32 ``[S, S, 3]``, 0 to 255: what is drawn.
        drawn: float32 ``[S, S]`` in [0, 1]: where.
    """

    flow: np.ndarray
    light: np.ndarray
    paint: np.ndarray
    drawn: np.ndarray

    @classmethod
    def unmoved(cls, side: int) -> NeutralFace:
        """What changes nothing.

        Args:
            side: side S of the crop.
        """
        nothing = np.zeros((side, side), np.float32)
        flow, paint = (np.zeros((side, side, channels), np.float32) for channels in (2, 3))
        return cls(flow, nothing, paint, nothing)


class Smile:
    """The smile of a face in a photograph.

    Args:
        photo: uint8 ``[H, W, 3]``; must not be modified afterwards.
        face: analysis of the face.
        amount: in [0, 1]: how much of a smile there is.
        network: tells what is below it.
    """

    def __init__(self, photo: np.ndarray, face: FaceAnalysis, amount: float, network: SmileRemovalNetwork) -> None:
        self._photo, self._face, self._network = photo, face, network
        self.amount = amount
        self.opening = face.opening  # what shows teeth; None where none are seen

    @cached_property
    def neutral(self) -> NeutralFace:
        """What the neutral face is made of; found when it is first asked for, because many edits keep a smile."""
        face, network = self._face, self._network
        seen = align(face.face.landmarks, network.crop)
        x = torch.from_numpy(seen.crop(close_lips(self._photo, face))).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            layers = _symmetric(network, x.to(next(network.parameters()).device))
        return _on_crop(layers, seen, face.alignment)


@dataclass(frozen=True)
class SmileFinder:
    """The two frozen networks that find a smile and what is below it.

    Args:
        relaxation: tells from landmarks how much of a smile there is.
        removal: tells what the neutral face is made of.
    """

    relaxation: RelaxationNetwork
    removal: SmileRemovalNetwork

    def __call__(self, photo: np.ndarray, face: FaceAnalysis) -> Smile | None:
        """The smile of a face.

        Args:
            photo: uint8 ``[H, W, 3]``; must not be modified afterwards.
            face: analysis of the face.

        Returns:
            None where there is no smile and no teeth are seen, or the mouth is hidden.
        """
        amount = smile_amount(face, self.relaxation)
        return Smile(photo, face, amount, self.removal) if amount else None


@lru_cache(maxsize=4)
def smile_finder(device: str) -> SmileFinder:
    """The finder of a device, loaded once.

    Args:
        device: name of a ``torch.device``.
    """
    root = checkpoints.embedded_root()
    return SmileFinder(
        RelaxationNetwork.from_pretrained(root / "relaxation").to(device),
        SmileRemovalNetwork.from_pretrained(root / "smile_removal").to(device),
    )


def smile_amount(face: FaceAnalysis, network: RelaxationNetwork) -> float:
    """How much of a smile there is, in [0, 1]: 1 where teeth are seen, 0 where the mouth is hidden.

    Args:
        face: analysis of the face.
        network: predicts the landmarks of its neutral face.
    """
    if face.mouth_hidden:
        return 0.0
    if face.opening is not None:
        return 1.0
    corners = np.linalg.norm(neutral_movement(face, network)[list(CORNERS)], axis=-1).mean()
    return float(smoothstep(float(corners), *SMILE))


@torch.no_grad()
def neutral_movement(face: FaceAnalysis, network: RelaxationNetwork) -> np.ndarray:
    """How far each landmark is from where it is in the same person's neutral face.

    Args:
        face: analysis of the face.
        network: predicts it.

    Returns:
        ``[68, 2]`` in sides of the face's crop, less the affine map that fits the movements of jaw, nose and eyes: a
        smile hardly moves these, and their predicted movement is the difference between this face's shape and those
        that the network was trained on.
    """
    config = network.config
    spec = CropSpec(128, "stable", config.scale, config.down)
    to_network = align(face.face.landmarks, spec)
    seen = to_network.to_crop(face.alignment.to_photo(face.landmarks))
    flat = torch.from_numpy((seen + 0.5) / spec.resolution - 0.5).float()[None]
    flat = flat.to(next(network.parameters()).device)
    moved = seen + network(flat)[0].cpu().numpy() * spec.resolution
    moves = (face.alignment.to_crop(to_network.to_photo(moved)) - face.landmarks) / len(face.crop)
    where = np.c_[face.landmarks, np.ones(len(moves))]
    still = [*range(JAW), *range(NOSE, LIPS.start)]
    return moves - where @ np.linalg.lstsq(where[still], moves[still], rcond=None)[0]


def _symmetric(network: SmileRemovalNetwork, x: Tensor) -> Layers:
    """The mean of what a network makes of a crop ``[1, 3, R, R]`` and of its mirror image."""
    found = network(torch.cat([x, x.flip(-1)]))
    straight, mirrored = (Layers(*(layer[k : k + 1] for layer in found)) for k in (0, 1))
    back = Layers(*(layer.flip(-1) for layer in mirrored))
    back = back._replace(flow=back.flow * torch.tensor([-1.0, 1.0], device=x.device)[:, None, None])
    return Layers(*((a + b) / 2 for a, b in zip(straight, back, strict=True)))


def _on_crop(layers: Layers, seen: Alignment, alignment: Alignment) -> NeutralFace:
    """Layers of one crop on the crop of another alignment.

    Args:
        layers: of a crop.
        seen: its alignment.
        alignment: the other one.
    """
    there = alignment.matrix @ np.vstack([seen.inverse, [0, 0, 1]])
    size = (alignment.resolution, alignment.resolution)
    flow, light, paint, drawn = (layer[0].permute(1, 2, 0).cpu().numpy() for layer in layers)
    flow = seen.resolution * flow @ there[:, :2].T
    maps = (flow.astype(np.float32), light[..., 0], (paint + 1) * 127.5, drawn[..., 0])
    # What is outside stays as it is; colours that are drawn there are not seen.
    return NeutralFace(*(cv2.warpAffine(values, there, size, flags=cv2.INTER_LINEAR) for values in maps))


def relax(photo: np.ndarray, face: FaceAnalysis, smile: Smile, amount: float = 1.0) -> np.ndarray:
    """The photograph without the smile.

    Args:
        photo: uint8 ``[H, W, 3]``; not modified.
        face: analysis of the face.
        smile: the smile of that face.
        amount: in [0, 1]: how much of the smile is removed.

    Returns:
        uint8 ``[H, W, 3]``; outside the face mask not one bit changes.
    """
    amount = float(amount * smile.amount)  # not numpy's, which would make maps of float64
    return towards_neutral(photo, face, smile.opening, smile.neutral, amount) if amount > 0 else photo.copy()


def close_lips(photo: np.ndarray, face: FaceAnalysis) -> np.ndarray:
    """The photograph with lips together over the teeth, and nothing else changed.

    Args:
        photo: uint8 ``[H, W, 3]``; not modified.
        face: analysis of the face.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    return towards_neutral(photo, face, face.opening, NeutralFace.unmoved(len(face.crop)), 1.0)


def towards_neutral(
    photo: np.ndarray, face: FaceAnalysis, opening: Opening | None, neutral: NeutralFace, amount: float
) -> np.ndarray:
    """The photograph on the way to a neutral face.

    Args:
        photo: uint8 ``[H, W, 3]``; not modified.
        face: analysis of the face.
        opening: what shows teeth, and is closed.
        neutral: what the neutral face is made of.
        amount: share of the way, in (0, 1].

    Returns:
        uint8 ``[H, W, 3]``; outside the face mask not one bit changes.
    """
    window, result = CropWindow.of(face.alignment, *photo.shape[:2]), photo.copy()
    if window.empty:
        return result
    flow = above = amount * neutral.flow
    if opening is not None:
        above, below = closing_flows(opening, flow, amount)
        to_lower, shade = lip_line(opening, flow, amount)
        grid = MouthGrid(len(face.crop)).to_crop
        # The shadow between lips is dark and has more colour than skin.
        dark = DARK * (face.skin_level + SATURATED * (face.skin - face.skin_level)).clip(0, 255).astype(np.float32)
    free = face.masks.face * (1 - face.hidden)
    for strip in window.strips():
        part = photo[strip.slices]
        new = strip.sample(photo, above)
        if opening is not None:
            lower = strip.warp(to_lower, grid, cv2.INTER_LINEAR)[..., None]
            new += lower * (strip.sample(photo, below) - new)
            new += strip.warp(shade, grid, cv2.INTER_LINEAR)[..., None] * (dark - new)
        new *= np.exp(amount * strip.warp(neutral.light))[..., None]
        new += amount * strip.warp(neutral.drawn, flags=cv2.INTER_LINEAR)[..., None] * (strip.warp(neutral.paint) - new)
        mask = np.minimum(1, 4 * strip.warp(free, flags=cv2.INTER_LINEAR))[..., None]
        result[strip.slices] = np.rint(part + (new.clip(0, 255) - part) * mask).astype(np.uint8)
    return result

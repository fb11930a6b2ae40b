"""Synthetic occlusions of faces, for training the network that finds what is in front of a face.

Shapes of hands, microphones and other objects, in colours and textures of other pictures and of the face's own skin,
are drawn over faces; their masks are the labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from emoedit.nn.occlusion import OcclusionNetwork

FINE = 2  # times as fine as the crop shapes are drawn


@dataclass(frozen=True)
class Occluders:
    """How faces are occluded.

    Args:
        share: share of the faces, with an object in front of them.
        second: share of these faces, with a second object.
        grey: share of the pictures without colour.
        blur: pixels, of pictures that are soft.
        noise: grey levels, at most.
    """

    share: float = 0.65
    second: float = 0.25
    grey: float = 0.3
    blur: float = 1.2
    noise: float = 8.0


class OcclusionBatches:
    """Batches of occluded faces and the masks of the occluders.

    Args:
        crops: uint8 ``[N, R, R, 3]`` aligned faces.
        resolution: side of the network's crops in pixels.
        batch_size: faces a batch.
        how: faces are occluded.
        seed: seed of everything; a batch is a function of seed and step.
    """

    def __init__(
        self,
        crops: np.ndarray,
        resolution: int,
        *,
        batch_size: int,
        how: Occluders = Occluders(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:
        self.crops, self.resolution, self.batch_size, self.how, self.seed = crops, resolution, batch_size, how, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """RGB crops ``[B, 3, R, R]`` in [-1, 1], and masks ``[B, 1, R, R]`` in [0, 1]."""
        rng = np.random.default_rng((self.seed, step))
        made = [self._face(rng) for _ in range(self.batch_size)]
        x = torch.from_numpy(np.stack([face for face, _ in made])).permute(0, 3, 1, 2) / 127.5 - 1
        return x.float(), torch.from_numpy(np.stack([mask for _, mask in made]))[:, None]

    def _pick(self, rng: np.random.Generator) -> np.ndarray:
        """A face, flipped at random, float32 ``[R, R, 3]``."""
        side = (self.resolution, self.resolution)
        face = cv2.resize(self.crops[rng.integers(len(self.crops))], side, interpolation=cv2.INTER_AREA)
        return face[:, :: rng.choice([-1, 1])].astype(np.float32)

    def _face(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        face, how = self._pick(rng), self.how
        mask = np.zeros(face.shape[:2], np.float32)
        count = 0 if rng.random() > how.share else 1 + (rng.random() < how.second)
        for _ in range(count):
            shape = SHAPES[rng.integers(len(SHAPES))](rng, self.resolution)
            texture = self._texture(rng, face, skin=rng.random() < 0.4)
            shadow = cv2.GaussianBlur(np.roll(shape, rng.integers(-3, 4, 2), (0, 1)), (0, 0), 2)[..., None]
            face = face * (1 - rng.uniform(0, 0.4) * shadow)
            face = face + shape[..., None] * (texture - face)
            mask = np.maximum(mask, shape)
        if rng.random() < 0.5:
            face = cv2.GaussianBlur(face, (0, 0), rng.uniform(0.1, how.blur))
        if rng.random() < how.grey:
            face = np.repeat(face.mean(-1, keepdims=True), 3, -1)
        face = face * rng.uniform(0.5, 1.2) + rng.normal(0, rng.uniform(0, how.noise), face.shape)
        return face.clip(0, 255).astype(np.float32), mask

    def _texture(self, rng: np.random.Generator, face: np.ndarray, *, skin: bool) -> np.ndarray:
        """Texture of an object, ``[R, R, 3]``: of this face's skin, of another picture, or of one colour."""
        side = self.resolution
        light = np.linspace(-1, 1, side)[:, None] * rng.normal() + np.linspace(-1, 1, side) * rng.normal()
        if skin:
            tone = np.median(face[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4].reshape(-1, 3), 0)
            base = np.broadcast_to(tone * rng.uniform(0.75, 1.15), face.shape)
        elif rng.random() < 0.5:
            other = self._pick(rng)
            turned = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 360), rng.uniform(1, 4))
            base = cv2.warpAffine(other, turned, (side, side), borderMode=cv2.BORDER_REFLECT_101)
            base = base * rng.uniform(0.4, 1.4, 3)
        else:
            base = np.broadcast_to(rng.uniform(5, 250, 3) if rng.random() < 0.5 else rng.uniform(5, 250), face.shape)
        grain = cv2.GaussianBlur(rng.normal(0, rng.uniform(0, 60), (side, side)), (0, 0), rng.uniform(0.5, 2))
        return (base + 15 * light[..., None] + grain[..., None]).astype(np.float32)


def _canvas(side: int) -> np.ndarray:
    return np.zeros((side * FINE, side * FINE), np.uint8)


def _done(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A drawn shape at the crop's size, with soft edges, float32 in [0, 1]."""
    small = cv2.resize(canvas, None, fx=1 / FINE, fy=1 / FINE, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return cv2.GaussianBlur(small, (0, 0), rng.uniform(0.3, 0.8))


def _near_mouth(rng: np.random.Generator, side: int) -> np.ndarray:
    """A place on the lower half of a face, more often at the mouth, in pixels of the canvas."""
    return np.array([rng.normal(0.5, 0.16), rng.normal(0.72, 0.14)]) * side * FINE


def hand(rng: np.random.Generator, side: int) -> np.ndarray:
    """Fingers side by side, and a palm: float32 ``[side, side]`` in [0, 1].

    Args:
        rng: draws the shape.
        side: side of the crop in pixels.
    """
    canvas, unit = _canvas(side), side * FINE
    tip, angle = (
        _near_mouth(rng, side),
        rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else rng.normal(np.pi / 2, 0.8),
    )
    along, width = np.array([np.cos(angle), np.sin(angle)]), rng.uniform(0.07, 0.12) * unit
    across = np.array([-along[1], along[0]])
    for n in range(rng.integers(1, 5)):
        start = tip + across * n * width * 1.05 + along * rng.normal(0, 0.05) * unit
        end = start + along * rng.uniform(0.3, 0.8) * unit
        cv2.line(canvas, start.astype(int).tolist(), end.astype(int).tolist(), 255, max(2, int(width)), cv2.LINE_AA)
    if rng.random() < 0.6:
        palm = tip + along * 0.55 * unit + across * 1.5 * width
        axes = (int(rng.uniform(0.2, 0.35) * unit), int(rng.uniform(0.18, 0.3) * unit))
        cv2.ellipse(canvas, palm.astype(int).tolist(), axes, np.degrees(angle), 0, 360, 255, -1, cv2.LINE_AA)
    return _done(canvas, rng)


def microphone(rng: np.random.Generator, side: int) -> np.ndarray:
    """A head on a stick that comes from below: float32 ``[side, side]`` in [0, 1].

    Args:
        rng: draws the shape.
        side: side of the crop in pixels.
    """
    canvas, unit, head = _canvas(side), side * FINE, _near_mouth(rng, side) + [0, 0.1 * side]
    axes = (int(rng.uniform(0.06, 0.16) * unit), int(rng.uniform(0.08, 0.2) * unit))
    cv2.ellipse(canvas, head.astype(int).tolist(), axes, rng.uniform(-40, 40), 0, 360, 255, -1, cv2.LINE_AA)
    foot = [int(head[0] + rng.normal(0, 0.2) * unit), int(1.1 * unit)]
    cv2.line(canvas, head.astype(int).tolist(), foot, 255, max(2, int(0.8 * axes[0])), cv2.LINE_AA)
    return _done(canvas, rng)


def small_object(rng: np.random.Generator, side: int) -> np.ndarray:
    """A cup, a telephone, a sheet: a polygon with round corners, float32 ``[side, side]`` in [0, 1].

    Args:
        rng: draws the shape.
        side: side of the crop in pixels.
    """
    canvas, unit, centre = _canvas(side), side * FINE, _near_mouth(rng, side)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 8)))
    reach = rng.uniform(0.08, 0.3) * unit * rng.uniform(0.7, 1.2, len(angles))
    corners = centre + np.stack([np.cos(angles), rng.uniform(0.5, 1.5) * np.sin(angles)], -1) * reach[:, None]
    cv2.fillPoly(canvas, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    return _done(cv2.GaussianBlur(canvas, (0, 0), 1.5), rng)


def cover(rng: np.random.Generator, side: int) -> np.ndarray:
    """A mask or a scarf: all below a curve, float32 ``[side, side]`` in [0, 1].

    Args:
        rng: draws the shape.
        side: side of the crop in pixels.
    """
    unit = side * FINE
    x = np.linspace(-1, 1, unit)
    edge = rng.uniform(0.5, 0.9) + rng.normal(0, 0.08) * x + rng.normal(0.03, 0.06) * x**2
    rows = np.arange(unit)[:, None] / unit
    return _done(((rows > edge) * 255).astype(np.uint8), rng)


def strand(rng: np.random.Generator, side: int) -> np.ndarray:
    """A strand of hair across the face, float32 ``[side, side]`` in [0, 1].

    Args:
        rng: draws the shape.
        side: side of the crop in pixels.
    """
    canvas, unit = _canvas(side), side * FINE
    x = np.array([rng.uniform(0, 1), rng.uniform(0.2, 0.8), rng.uniform(0, 1)]) * unit
    t = np.linspace(0, 1, 30)[:, None]
    y = np.array([-0.05, rng.uniform(0.3, 0.6), rng.uniform(0.6, 1.05)]) * unit
    p = np.stack([x, y], -1)
    curve = (1 - t) ** 2 * p[0] + 2 * t * (1 - t) * p[1] + t**2 * p[2]
    cv2.polylines(canvas, [curve.astype(np.int32)], False, 255, int(rng.uniform(2, 9)), cv2.LINE_AA)
    return _done(canvas, rng)


SHAPES: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (
    hand,
    hand,
    microphone,
    small_object,
    small_object,
    cover,
    strand,
)


def fit_occlusion(network: OcclusionNetwork, batches: OcclusionBatches, *, steps: int, rate: float = 4e-3) -> None:
    """Train the network in place: cross entropy and overlap (Dice).

    Args:
        network: network with fresh weights.
        batches: batches of hidden faces.
        steps: number of steps of AdamW.
        rate: its learning rate, reached after 50 steps, which falls over the second half.
    """
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    network.train().to(memory_format=torch.channels_last)
    for step in tqdm(range(steps), desc="occlusion", leave=False):
        x, hidden = batches(step)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50, 2 * (1 - step / steps))
        logits = network(x.contiguous(memory_format=torch.channels_last))
        found = logits.sigmoid()
        both, either = (found * hidden).sum((1, 2, 3)), (found + hidden).sum((1, 2, 3))
        dice = (1 - (2 * both + 1) / (either + 1)).mean()
        loss = F.binary_cross_entropy_with_logits(logits, hidden) + 0.3 * dice
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()

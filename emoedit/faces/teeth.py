"""Where a crop shows teeth, by a small network, on a grid finer than the crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from emoedit.faces.align import Alignment, align
from emoedit.faces.curves import filled
from emoedit.faces.detect import Face
from emoedit.faces.landmarks import luminance_patches
from emoedit.io import checkpoints
from emoedit.nn.mouth import MouthNetwork, standardise

MOUTH_UPSCALE = 4  # pixels of the mouth's grid in one of the crop: lips and teeth have finer edges than crops
BOX = (0.2, 0.5, 0.8, 1.0)  # left, top, right and bottom of the part of a crop in which mouths are, of its side


@dataclass(frozen=True)
class MouthGrid:
    """The part of a crop in which mouths are, on a finer grid.

    Args:
        resolution: side of the crop in pixels.
    """

    resolution: int

    @property
    def origin(self) -> tuple[int, int]:
        """Left and upper edge in the crop, in its pixels."""
        return round(BOX[0] * self.resolution), round(BOX[1] * self.resolution)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the grid."""
        x0, y0 = self.origin
        right, bottom = round(BOX[2] * self.resolution), round(BOX[3] * self.resolution)
        return (right - x0) * MOUTH_UPSCALE, (bottom - y0) * MOUTH_UPSCALE

    @property
    def to_crop(self) -> np.ndarray:
        """``[2, 3]``: pixels of the grid -> pixels of the crop (centres at whole numbers)."""
        x0, y0 = self.origin
        half = (1 / MOUTH_UPSCALE - 1) / 2
        return np.array([[1 / MOUTH_UPSCALE, 0, x0 + half], [0, 1 / MOUTH_UPSCALE, y0 + half]])

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points ``[..., 2]`` of the crop in pixels of the grid."""
        return (points + 0.5 - self.origin) * MOUTH_UPSCALE - 0.5

    def fill(self, curve: np.ndarray) -> np.ndarray:
        """A closed curve ``[K, 2]`` in pixels of the crop, filled: float32 ``[h, w]`` in [0, 1]."""
        width, height = self.size
        return filled(curve, (height, width), MOUTH_UPSCALE, self.origin)

    def enlarge(self, crop: np.ndarray) -> np.ndarray:
        """The grid's part of a crop ``[R, R]`` or ``[R, R, C]``, float32 ``[h, w]`` or ``[h, w, C]``."""
        x0, y0 = self.origin
        width, height = self.size
        part = crop[y0 : y0 + height // MOUTH_UPSCALE, x0 : x0 + width // MOUTH_UPSCALE]
        return cv2.resize(np.ascontiguousarray(part, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)

    def shrink(self, values: np.ndarray) -> np.ndarray:
        """What is on the grid in the crop's own pixels, float32 ``[R, R]``; 0 outside the grid."""
        x0, y0 = self.origin
        width, height = (n // MOUTH_UPSCALE for n in self.size)
        out = np.zeros((self.resolution, self.resolution), np.float32)
        out[y0 : y0 + height, x0 : x0 + width] = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
        return out


class TeethFinder:
    """Finds teeth in crops of any alignment; loaded once, used for many crops.

    Args:
        device: device of the network.
    """

    def __init__(self, device: str = "cpu") -> None:
        network = MouthNetwork.from_pretrained(checkpoints.embedded_root() / "mouth")
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.device = torch.device(device)
        side = self.network.config.side
        # 0 at the border of the network's square, which may cut a mouth.
        edge = np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) - 1) / (0.1 * side), 0, 1)
        self.cover = np.outer(edge, edge).astype(np.float32)

    @torch.no_grad()
    def __call__(self, crops: Sequence[np.ndarray], alignment: Alignment, face: Face) -> list[np.ndarray]:
        """The probability of teeth at every place of the mouth.

        Args:
            crops: N of one face, float32 ``[R, R]`` luminance or ``[R, R, 3]`` RGB, 0 to 255.
            alignment: alignment of the crops.
            face: where it was found in the photograph.

        Returns:
            For every crop, float32 in [0, 1] on its [MouthGrid][emoedit.faces.teeth.MouthGrid].
        """
        config = self.network.config
        there = align(face.landmarks, self.network.crop).matrix @ np.vstack([alignment.inverse, [0, 0, 1]])
        there[:, 2] -= config.left, config.top
        seen = luminance_patches(crops, there, config.side)
        x, _, _ = standardise(torch.from_numpy(seen)[:, None].to(self.device) / 127.5 - 1)
        # Mouths are symmetric: the mean with the output for the mirror image.
        both = torch.cat([x, x.flip(-1)]).contiguous(memory_format=torch.channels_last)
        straight, mirrored = self.network(both)[1].chunk(2)
        likely = ((straight + mirrored.flip(-1)) / 2).sigmoid()[:, 0].cpu().numpy() * self.cover
        grid = MouthGrid(alignment.resolution)
        matrix = there @ np.vstack([grid.to_crop, [0, 0, 1]])
        how = {"flags": cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_CONSTANT}
        return [np.clip(cv2.warpAffine(np.ascontiguousarray(p), matrix, grid.size, **how), 0, 1) for p in likely]


@lru_cache(maxsize=4)
def teeth_finder(device: str) -> TeethFinder:
    """The finder of a device, loaded once; its network is frozen.

    Args:
        device: a name that ``torch.device`` takes.
    """
    return TeethFinder(device)

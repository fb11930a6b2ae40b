"""68 landmarks of an aligned crop, by the embedded landmark network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch

from emoedit.faces.align import Alignment, align
from emoedit.faces.detect import Face
from emoedit.faces.tone import LUMA
from emoedit.io import checkpoints
from emoedit.nn.measuring import MeasuringNetwork


class LandmarkFinder:
    """Finds landmarks in crops of any alignment; loaded once, used for many crops.

    Args:
        device: device of the network.
    """

    def __init__(self, device: str = "cpu") -> None:
        network = MeasuringNetwork.from_pretrained(checkpoints.embedded_root() / "landmarks")
        self.network = network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, crops: Sequence[np.ndarray], alignment: Alignment, face: Face) -> np.ndarray:
        """The landmarks of every crop.

        Args:
            crops: N of one face, float32 ``[R, R]`` luminance or ``[R, R, 3]`` RGB, 0 to 255.
            alignment: alignment of the crops.
            face: where it was found in the photograph.

        Returns:
            float64 ``[N, 68, 2]`` in pixels of the crop (pixel centres at whole numbers), in the layout of
            [emoedit.faces.layout][].
        """
        spec = self.network.crop
        there = align(face.landmarks, spec).matrix @ np.vstack([alignment.inverse, [0, 0, 1]])
        seen = luminance_patches(crops, there, spec.resolution)
        x = torch.from_numpy(seen)[:, None].to(self.device) / 127.5 - 1
        points = self.network(x)["points"].cpu().numpy() * spec.resolution - 0.5
        return (points - there[:, 2]) @ np.linalg.inv(there[:, :2]).T


@lru_cache(maxsize=4)
def landmark_finder(device: str) -> LandmarkFinder:
    """A finder that everything on a device shares; its network is frozen.

    Args:
        device: a name that ``torch.device`` takes.
    """
    return LandmarkFinder(device)


def luminance_patches(crops: Sequence[np.ndarray], matrix: np.ndarray, side: int) -> np.ndarray:
    """Crops as a small network sees them.

    Args:
        crops: N float32 ``[R, R]`` or ``[R, R, 3]``, 0 to 255.
        matrix: ``[2, 3]``: pixels of the crop -> pixels of the patch.
        side: side of the patch.

    Returns:
        float32 ``[N, side, side]``, 0 to 255.
    """
    how = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    grey = [np.asarray(crop if crop.ndim == 2 else crop @ LUMA, np.float32) for crop in crops]
    return np.stack([cv2.warpAffine(crop, matrix, (side, side), **how) for crop in grey]).clip(0, 255)

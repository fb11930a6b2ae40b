"""68 landmarks of what a backbone draws, by the embedded landmark network."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from emoedit.faces.align import Alignment, align
from emoedit.faces.detect import Face
from emoedit.faces.masks import LUMA
from emoedit.io import checkpoints
from emoedit.nn.measuring import MeasuringNetwork


class DrawingLandmarks:
    """Finds them in crops of any alignment; loaded once, used for many drawings."""

    def __init__(self) -> None:
        network = MeasuringNetwork.from_pretrained(checkpoints.embedded_root() / "landmarks")
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, drawings: Sequence[np.ndarray], alignment: Alignment, face: Face) -> np.ndarray:
        """``[N, 68, 2]`` in pixels of the drawings' crop (pixel centres at whole numbers).

        Args:
            drawings: N of one face, float32 ``[R, R]`` luminance or ``[R, R, 3]`` RGB, 0 to 255.
            alignment: of the crop they are drawn in.  face: where it was found in the photograph.
        """
        spec = self.network.crop
        there = align(face.landmarks, spec).matrix @ np.vstack([alignment.inverse, [0, 0, 1]])
        size = (spec.resolution, spec.resolution)
        seen = [
            cv2.warpAffine(d if d.ndim == 2 else d @ LUMA, there, size, borderMode=cv2.BORDER_REPLICATE)
            for d in drawings
        ]
        x = torch.from_numpy(np.stack(seen))[:, None].clamp(0, 255) / 127.5 - 1
        points = self.network(x)["points"].numpy() * spec.resolution - 0.5
        return (points - there[:, 2]) @ np.linalg.inv(there[:, :2]).T

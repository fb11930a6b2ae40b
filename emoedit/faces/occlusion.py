"""What is in front of a face: hands, microphones, cups, strands of hair; found by a small network."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch

from emoedit.faces.align import Alignment, align
from emoedit.faces.curves import smoothstep
from emoedit.faces.detect import Face
from emoedit.io import checkpoints
from emoedit.nn.occlusion import OcclusionNetwork

SURE = (0.7, 0.95)  # probabilities between which something begins to count: noses shine, and beards are dark
AROUND, SOFT = 0.02, 0.012  # in crop sides: margin around an object without changes, and width of its soft edge


class OcclusionFinder:
    """Finds what is in front of faces; loaded once, used for many.

    Args:
        device: device of the network.
    """

    def __init__(self, device: str = "cpu") -> None:
        network = OcclusionNetwork.from_pretrained(checkpoints.embedded_root() / "occlusion")
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, photo: np.ndarray, face: Face, alignment: Alignment) -> np.ndarray:
        """The confidence that something is in front of each place of a crop.

        Args:
            photo: uint8 ``[H, W, 3]``.
            face: where it was found.
            alignment: alignment of the crop.

        Returns:
            float32 ``[R, R]`` in [0, 1].
        """
        seen = align(face.landmarks, self.network.crop)
        x = torch.from_numpy(seen.crop(photo)).permute(2, 0, 1)[None].float() / 127.5 - 1
        x = torch.cat([x, x.flip(-1)]).to(self.device)
        straight, mirrored = self.network(x).sigmoid()[:, 0]
        found = smoothstep(((straight + mirrored.flip(-1)) / 2).cpu().numpy(), *SURE).astype(np.float32)
        to_seen = (seen.matrix @ np.vstack([alignment.inverse, [0, 0, 1]])).astype(np.float64)
        side = alignment.resolution
        how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
        found = cv2.warpAffine(found, to_seen, (side, side), **how)
        near = cv2.dilate(found, np.ones((round(AROUND * side) | 1,) * 2, np.uint8))
        return cv2.GaussianBlur(near, (0, 0), SOFT * side)


@lru_cache(maxsize=4)
def occlusion_finder(device: str) -> OcclusionFinder:
    """A finder that everything on a device shares; its network is frozen.

    Args:
        device: a name that ``torch.device`` takes.
    """
    return OcclusionFinder(device)

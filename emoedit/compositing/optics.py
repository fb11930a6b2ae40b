"""How crisp a photograph is and how dark its darkest places are: what is drawn into it has to be of that photograph."""

from __future__ import annotations

import cv2
import numpy as np

AGAIN = 1.5  # pixels: what a photograph is blurred by once more to tell its own blur
EDGES = 0.95  # quantile of the slopes within the face, above which is an edge
SHARPEST = 0.25  # quantile of edges' widths: a shadow is soft in any photograph
DARKEST = 0.001  # share of a face that is darker: pupils, nostrils, the line between lips
DEEPER = 0.7  # of their level has the inside of a mouth


def edge_blur(luma: np.ndarray, where: np.ndarray) -> float:
    """The deviation, in pixels, of the Gaussian by which edges are blurred.

    An edge that is blurred again loses the more of its slope the sharper it was (Zhuo and Sim 2011, Defocus map
    estimation from a single image, equation 4).

    Args:
        luma: float32 ``[H, W]``.  where: ``[H, W]`` in [0, 1]: where it is looked for.

    Returns:
        0 where there are no edges to tell by.
    """

    def slope(picture: np.ndarray) -> np.ndarray:
        return np.hypot(cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1))

    own, again, inside = slope(luma), slope(cv2.GaussianBlur(luma, (0, 0), AGAIN)), where > 0.5
    if not inside.any():
        return 0.0
    edges = inside & (own > max(float(np.quantile(own[inside], EDGES)), 1e-3))
    if not edges.any():
        return 0.0
    ratio = own[edges] / np.maximum(again[edges], 1e-6)
    return float(np.quantile(AGAIN / np.sqrt(np.maximum(ratio**2 - 1, 1e-4)), SHARPEST))


def black_level(luma: np.ndarray, where: np.ndarray) -> float:
    """How dark the inside of a mouth can be beside the darkest places of a face; arguments are as :func:`edge_blur`
    has them."""
    inside = where > 0.5
    return DEEPER * float(np.quantile(luma[inside], DARKEST)) if inside.any() else 0.0


def no_darker(levels: np.ndarray, black: float, deepest: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Levels below that of skin, moved up so that the deepest is no darker than the photograph's black.

    Args:
        levels: grey levels.  black: :func:`black_level`.  deepest: how dark the darkest of them can be.
        skin: the level above which nothing changes.
    """
    steep = np.clip((skin - black) / np.maximum(skin - deepest, 1), 0, 1)
    return np.where(levels < skin, skin - (skin - levels) * steep, levels)

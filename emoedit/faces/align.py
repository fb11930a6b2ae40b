"""Alignment: a similarity transform from photograph to crop that is kept together with its inverse.

Two ways, because models differ in what they were trained on:

- ``ffhq``: the oriented square of Karras et al. 2019 (arXiv 1812.04948, appendix A) from the eyes and the mouth, for
  full-size models trained on FFHQ or CelebA-HQ.
- ``stable``: least squares of the five points onto their mean layout in that square, mouth corners counted little.
  FFHQ's square follows the mouth, which moves with the expression: an opening mouth zooms the crop out, and an edit
  learned from such crops would shrink the eyes. Least squares keeps eyes and nose where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emoedit.types import CropSpec

# Mean of the five points in FFHQ's square, as fractions of its side, from the centre (public statistics of FFHQ faces).
FFHQ_POINTS = np.array([[-0.1230, -0.0313], [0.1230, -0.0313], [0.0012, 0.1133], [-0.1070, 0.2254], [0.1115, 0.2249]])
STABLE_WEIGHTS = np.array([1.0, 1.0, 0.5, 0.1, 0.1])


@dataclass(frozen=True)
class Alignment:
    """A similarity between photograph and crop pixels (pixel centres at whole numbers).

    Args:
        matrix: ``[2, 3]``: photograph -> crop.
        inverse: ``[2, 3]``: crop -> photograph.
        resolution: side of the crop.
    """

    matrix: np.ndarray
    inverse: np.ndarray
    resolution: int

    @property
    def zoom(self) -> float:
        """Photograph pixels per crop pixel."""
        return float(np.hypot(self.inverse[0, 0], self.inverse[1, 0]))

    def scaled(self, factor: float) -> Alignment:
        """The same crop at ``factor`` times the resolution."""
        matrix = self.matrix * factor
        matrix[:, 2] += (factor - 1) / 2
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        return Alignment(matrix, inverse, round(self.resolution * factor))

    def shifted(self, row: int, column: int) -> Alignment:
        """The same crop, seen from a part of the photograph that begins at this row and column.

        Args:
            row: row of the part's first pixel.
            column: column of the part's first pixel.
        """
        matrix, inverse = self.matrix.copy(), self.inverse.copy()
        matrix[:, 2] += matrix[:, :2] @ (column, row)
        inverse[:, 2] -= (column, row)
        return Alignment(matrix, inverse, self.resolution)

    def followed_by(self, move: np.ndarray) -> Alignment:
        """The alignment whose crop is this one's, moved by an affine map ``[2, 3]`` of the crop's pixels."""
        whole = [0, 0, 1]
        matrix = move @ np.vstack([self.matrix, whole])
        return Alignment(matrix, np.linalg.inv(np.vstack([matrix, whole]))[:2], self.resolution)

    def crop(self, picture: np.ndarray) -> np.ndarray:
        """The aligned crop of a picture ``[H, W]`` or ``[H, W, 3]``, same dtype; mirrored where it leaves the frame."""
        import cv2

        matrix, source = self.matrix, picture
        if self.zoom > 1.5:
            # Area-average before sampling: bilinear sampling of a large photograph would alias pores into speckles.
            factor = self.zoom
            size = max(1, round(picture.shape[1] / factor)), max(1, round(picture.shape[0] / factor))
            source = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            sx, sy = picture.shape[1] / size[0], picture.shape[0] / size[1]
            shrink = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
            matrix = self.matrix @ shrink
        side = (self.resolution, self.resolution)
        return cv2.warpAffine(source, matrix, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def coverage(self, height: int, width: int) -> float:
        """Share of the crop that lies inside a picture of this size, 0 to 1.

        Args:
            height: height in pixels.
            width: width in pixels.
        """
        grid = np.stack(np.meshgrid(*[np.linspace(0, self.resolution - 1, 16)] * 2), -1).reshape(-1, 2)
        points = self.to_photo(grid)
        inside = (points >= -0.5).all(1) & (points[:, 0] <= width - 0.5) & (points[:, 1] <= height - 0.5)
        return float(inside.mean())

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """Crop points ``[N, 2]`` in photograph pixels."""
        return points @ self.inverse[:, :2].T + self.inverse[:, 2]

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Photograph points ``[N, 2]`` in crop pixels."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]


def _similarity(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least-squares similarity ``[2, 3]`` from source to target points (closed form over complex numbers)."""
    w = weights / weights.sum()
    s, t = source @ [1, 1j], target @ [1, 1j]
    s_mean, t_mean = (w * s).sum(), (w * t).sum()
    a = (w * np.conj(s - s_mean) * (t - t_mean)).sum() / (w * np.abs(s - s_mean) ** 2).sum()
    b = t_mean - a * s_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _ffhq_square(landmarks: np.ndarray) -> np.ndarray:
    """Photograph -> FFHQ's square with side 1 and centre 0, ``[2, 3]``."""
    eye, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    across, down = landmarks[1] - landmarks[0], mouth - eye
    x = across - np.array([-down[1], down[0]])
    x = x / np.hypot(*x) * max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8)
    centre = eye + down * 0.1
    right = centre + x
    return _similarity(np.stack([centre, right]), np.array([[0.0, 0.0], [0.5, 0.0]]), np.ones(2))


def align(landmarks: np.ndarray, spec: CropSpec) -> Alignment:
    """The alignment of a face.

    Args:
        landmarks: ``[5, 2]`` in photograph pixels (``emoedit.faces.detect.Face``).
        spec: the crop that is wanted.
    """
    landmarks = np.asarray(landmarks, np.float64)
    square = _ffhq_square(landmarks) if spec.style == "ffhq" else _similarity(landmarks, FFHQ_POINTS, STABLE_WEIGHTS)
    k = spec.resolution / spec.scale
    matrix = square * k
    matrix[:, 2] += (spec.resolution - 1) / 2
    matrix[1, 2] -= spec.down * k
    full = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    return Alignment(matrix, full[:2], spec.resolution)

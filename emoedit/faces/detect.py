"""Face detection and five landmarks: MTCNN (Zhang et al. 2016, arXiv 1604.02878) as packaged by facenet-pytorch."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from emoedit.types import NoFaceError

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

MAX_SIDE = 1280  # longer photographs are reduced, for detection only: the cost grows with the pixels, the precision not
SURE = 0.995  # confidence of 95 % of upright faces, and of none of 40 that were told of faces lying or upside down
TILT = 0.5  # cosine of the largest angle at which an upright face is believed: 60 degrees
MIN_FACE = 0.05  # of the shorter side; smaller faces hold too few pixels to edit and cost most of the image pyramid

_BUILDING = threading.Lock()


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the photograph (x to the right, y down; pixel centres at whole numbers).

    Args:
        box: x0, y0, x1, y1.
        landmarks: ``[5, 2]``: the eye, eye, nose tip, mouth corner, mouth corner; left first, as seen when the face is
            upright.
        confidence: the detector's probability, 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    confidence: float

    @property
    def area(self) -> float:
        """Box area in square pixels."""
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])

    @property
    def down(self) -> float:
        """Cosine of the angle between the way from eyes to mouth and straight down: 1 upright, 0 lying, -1 inverted."""
        way = self.landmarks[3:].mean(0) - self.landmarks[:2].mean(0)
        return float(way[1] / max(float(np.hypot(*way)), 1e-6))

    @property
    def yaw(self) -> float:
        """How far the nose tip lies from the middle of the eyes and mouth, in interocular distances.

        0 is frontal, about 0.35 is 30 degrees, above 0.6 is near profile. Signed, rotation-invariant.
        """
        eye, mouth = self.landmarks[:2].mean(0), self.landmarks[3:].mean(0)
        across = self.landmarks[1] - self.landmarks[0]
        distance = float(np.hypot(*across)) or 1.0
        down = mouth - eye
        t = float(np.dot(self.landmarks[2] - eye, down) / max(float(np.dot(down, down)), 1e-6))
        return float(np.dot(self.landmarks[2] - (eye + t * down), across / distance) / distance)


def _surest(faces: list[Face]) -> float:
    """The confidence of the surest face that is upright, 0 where there is none.

    In a face that lies on its side the detector sometimes finds a second one, with the mouth where an eye is.
    """
    return max((face.confidence for face in faces if face.down > TILT), default=0.0)


def _reduced(rgb: np.ndarray) -> np.ndarray:
    """The photograph, no side longer than ``MAX_SIDE``; itself where it has none."""
    import cv2

    height, width = rgb.shape[:2]
    scale = min(1.0, MAX_SIDE / max(height, width))
    if scale == 1:
        return rgb
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _turned_back(face: Face, turns: int, width: int, height: int) -> Face:
    """A face of ``np.rot90(photograph, turns)``, in pixels of the photograph.

    Args:
        face: the order of its landmarks stays, so that it is that of an upright face.
        turns: 90 degrees each, counter-clockwise.
        width: width of the photograph.
        height: height of the photograph.
    """

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points[..., 0], points[..., 1]
        where = {1: (width - 1 - y, x), 2: (width - 1 - x, height - 1 - y), 3: (y, height - 1 - x)}
        return np.stack(where[turns], -1)

    corners = back(np.array(face.box).reshape(2, 2))
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    return Face((float(x0), float(y0), float(x1), float(y1)), back(face.landmarks), face.confidence)


class FaceDetector:
    """Finds faces; built once, used for many photographs.

    Args:
        device: where MTCNN runs. On Apple's ``mps`` it runs on the CPU: its pooling of maps whose sides do not divide
            has no kernel there.
        min_confidence: faces the detector is less sure of are not reported, 0 to 1.
    """

    def __init__(self, device: str = "cpu", *, min_confidence: float = 0.9) -> None:
        self.device = "cpu" if device.startswith("mps") else device
        self.min_confidence = min_confidence
        self._mtcnn: MTCNN | None = None

    def _network(self, min_face_size: int) -> MTCNN:
        """The networks, with a setting of this call's own: several threads use one detector."""
        with _BUILDING:
            if self._mtcnn is None:
                from facenet_pytorch import MTCNN

                self._mtcnn = MTCNN(keep_all=True, post_process=False, device=self.device)
        network = copy.copy(self._mtcnn)
        network.min_face_size = min_face_size
        return network

    def __call__(self, rgb: np.ndarray) -> list[Face]:
        """Faces of a photograph, largest first.

        Photographs lie on their side where a camera or a program lost their orientation. Where no face is surely found,
        the photograph is turned by 90, 180 and 270 degrees, too, and the turn whose faces the detector is surest of is
        taken. Faces are always told in the photograph as it lies.

        Args:
            rgb: uint8 ``[H, W, 3]``.
        """
        small = _reduced(rgb)  # before it is turned: a copy of a photograph of 200 megapixels takes 600 MB
        best, turns = self._upright(small, rgb.shape[:2]), 0
        if _surest(best) < SURE:
            for other in (1, 3, 2):
                size = rgb.shape[:2] if other == 2 else rgb.shape[1::-1]
                faces = self._upright(np.ascontiguousarray(np.rot90(small, other)), size)
                if _surest(faces) > _surest(best):
                    best, turns = faces, other
        height, width = rgb.shape[:2]
        return [_turned_back(face, turns, width, height) for face in best] if turns else best

    def _upright(self, small: np.ndarray, size: tuple[int, ...]) -> list[Face]:
        """Faces whose eyes are above their mouth, within about 60 degrees, largest first.

        Args:
            small: the photograph, uint8 ``[h, w, 3]``, reduced to ``MAX_SIDE``.
            size: height and width of the photograph, in whose pixels faces are told.
        """
        import cv2

        height, width = size
        if min(height, width) < 16:
            return []
        # A border of context on every side: faces that fill the frame are otherwise missed by the first stage.
        pad = round(0.15 * min(small.shape[:2]))
        small = cv2.copyMakeBorder(small, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        shortest = min(small.shape[:2])
        # The first stage scans 12-pixel windows: a picture under one window has no pyramid at all.
        network = self._network(min_face_size=max(14, min(round(MIN_FACE * shortest), shortest - 1)))
        boxes, scores, points = network.detect(small, landmarks=True)
        if boxes is None:
            return []
        x_scale, y_scale = width / (small.shape[1] - 2 * pad), height / (small.shape[0] - 2 * pad)
        factor = np.array([x_scale, y_scale])
        faces = []
        for box, score, landmarks in zip(boxes, scores, points, strict=True):
            if score is None or score < self.min_confidence:
                continue
            corners = (np.asarray(box, np.float64).reshape(2, 2) - pad) * factor
            x0, y0, x1, y1 = (float(v) for v in corners.ravel())
            faces.append(Face((x0, y0, x1, y1), (np.asarray(landmarks, np.float64) - pad) * factor, float(score)))
        return sorted(faces, key=lambda face: -face.area)

    def choose(self, rgb: np.ndarray, which: str | int = "largest") -> list[Face]:
        """The faces to edit.

        Args:
            rgb: uint8 ``[H, W, 3]``.
            which: ``"largest"``, ``"all"``, or an index into the faces ordered by size (0 the largest).

        Raises:
            NoFaceError: no face found, or fewer than the index asks for.
        """
        faces = self(rgb)
        if not faces:
            raise NoFaceError(
                "no face found, in any of four rotations: use a photograph with a face that is turned towards the "
                f"camera, not covered, and at least {MIN_FACE:.0%} of the shorter side"
            )
        if which == "all":
            return faces
        if which == "largest":
            return faces[:1]
        try:
            index = int(which)
        except ValueError:
            raise NoFaceError(f"face must be 'largest', 'all' or a number, not {which!r}") from None
        if not 0 <= index < len(faces):
            raise NoFaceError(
                f"face {index} was asked for, but {len(faces)} found (0 to {len(faces) - 1}, largest first)"
            )
        return [faces[index]]


@lru_cache(maxsize=4)
def face_detector(device: str) -> FaceDetector:
    """A detector that everything on a device shares.

    Args:
        device: a name that ``torch.device`` takes.
    """
    return FaceDetector(device)

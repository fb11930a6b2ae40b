"""Measures of the 68 landmarks of an aligned crop: eye opening, mouth, brows, head pose, masks.

Which is where: ``emoedit.faces.layout``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from emoedit.faces.layout import EYES, POINTS
from emoedit.metrics.measure import EditViews, Measure
from emoedit.types import ImageError

# Where each landmark's counterpart lies in a mirrored face.
MIRROR = torch.tensor(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)

# A rigid face in millimetres (x right in the picture, y down, z away from the camera), rounded from the mean adult
# measurements of Farkas 1994, Anthropometry of the Head and Face: eye corners, nasion, tip and base of the nose. Lips,
# brows and chin are left out: expressions move them, and a smile must not read as a turned head.
RIGID = (36, 39, 42, 45, 27, 30, 31, 33, 35)
RIGID_FACE = np.array(
    [[-45, 0, 0], [-16, 2, -8], [16, 2, -8], [45, 0, 0], [0, -4, -18], [0, 38, -38], [-15, 46, -20], [0, 49, -22]]
    + [[15, 46, -20]],
    float,
)
FOCAL = 4.0  # of the crop's side: a portrait lens; the pose of a small face hardly depends on it


def check_points(*batches: Tensor) -> None:
    """Refuse what are no landmarks.

    Raises:
        ImageError: not ``[N, 68, 2]``, not finite floats, or batches of two sizes.
    """
    for points in batches:
        if points.ndim != 3 or points.shape[1:] != (POINTS, 2) or not points.is_floating_point():
            raise ImageError(f"landmarks are floats [N, {POINTS}, 2], found {points.dtype} {tuple(points.shape)}")
        if not bool(points.isfinite().all()):
            raise ImageError("a landmark is not finite")
        if len(points) != len(batches[0]):
            raise ImageError(f"landmarks of as many faces are compared, found {len(batches[0])} and {len(points)}")


def _distance(points: Tensor, i: int, j: int) -> Tensor:
    return (points[:, i] - points[:, j]).norm(dim=1)


def eye_distance(points: Tensor) -> Tensor:
    """Between the centres of the eyes, ``[N]``, in the units of the points ``[N, 68, 2]``."""
    left, right = (points[:, eye].mean(1) for eye in EYES)
    return (right - left).norm(dim=1)


def upright(points: Tensor) -> Tensor:
    """Points with the eyes level, their middle at 0 and their distance 1.

    Args:
        points: ``[N, 68, 2]``, in any unit.
    """
    check_points(points)
    left, right = (points[:, eye].mean(1) for eye in EYES)
    across = right - left
    scale = across.norm(dim=1, keepdim=True).clamp_min(1e-6)
    cos, sin = (across / scale).unbind(1)
    turn = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    return ((points - ((left + right) / 2)[:, None]) @ turn.mT) / scale[:, None]


def eye_opening(points: Tensor) -> Tensor:
    """Height over width of the eyes, mean of both, ``[N]``: about .3 open, below .2 closed.

    The eye aspect ratio of Soukupová and Čech 2016, eq. 1.
    """
    check_points(points)

    def ratio(i: int) -> Tensor:
        height = _distance(points, i + 1, i + 5) + _distance(points, i + 2, i + 4)
        return height / (2 * _distance(points, i, i + 3)).clamp_min(1e-6)

    return (ratio(36) + ratio(42)) / 2


def mouth_shape(points: Tensor) -> Tensor:
    """Opening, width and lift of the corners of the mouth, ``[N, 3]``, in eye distances.

    The opening is the gap between the lips; the lift is that of the corners above the middle of the lips.
    """
    face = upright(points)
    opening = (face[:, 65:68, 1] - face[:, [63, 62, 61], 1]).mean(1)
    middle = (face[:, [51, 62, 66, 57], 1]).mean(1)
    lift = middle - face[:, [48, 54], 1].mean(1)
    return torch.stack([opening, face[:, 54, 0] - face[:, 48, 0], lift], 1)


def brow_height(points: Tensor) -> Tensor:
    """Height of the inner and the outer half of the brows above the eyes' centres, ``[N, 2]``.

    In eye distances, mean of both sides.
    """
    face = upright(points)
    inner = -face[:, [20, 21, 22, 23], 1].mean(1)
    outer = -face[:, [17, 18, 25, 26], 1].mean(1)
    return torch.stack([inner, outer], 1)


def head_pose(points: Tensor, side: float = 1.0) -> Tensor:
    """Yaw, pitch and roll in degrees, ``[N, 3]``: 0 facing the camera.

    Positive is towards the right of the picture, up, and clockwise.

    Perspective-n-point (SQPnP, Terzakis and Lourakis 2020; OpenCV) of a rigid mean face: differences between two
    pictures of a face are trustworthy, absolute values to about ten degrees.

    Args:
        points: ``[N, 68, 2]``.
        side: side of the crop, in the units of the points.

    Raises:
        ImageError: other shapes, or points so close together that they have no pose.
    """
    check_points(points)
    camera = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1.0]])
    rows = []
    for face in (points[:, list(RIGID)].double() / side).cpu().numpy():
        try:
            _, turn, _ = cv2.solvePnP(RIGID_FACE, face, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        except cv2.error as error:
            raise ImageError("these landmarks have no pose: eyes and nose lie in one place") from error
        r = cv2.Rodrigues(turn)[0]
        yaw = np.arctan2(r[2, 0], np.hypot(r[2, 1], r[2, 2]))  # a turn that takes x to -z: the nose is at negative z
        rows.append(np.rad2deg([yaw, np.arctan2(-r[2, 1], r[2, 2]), np.arctan2(r[1, 0], r[0, 0])]))
    return torch.from_numpy(np.array(rows)).float().reshape(-1, 3).to(points.device)


def landmark_drift(source: Tensor, edited: Tensor) -> Tensor:
    """Mean distance between landmarks that no expression moves, ``[N]``, in eye distances of the source.

    These are eye corners and nose: 0 is the same face in the same place.

    Args:
        source: ``[N, 68, 2]``.
        edited: ``[N, 68, 2]``.
    """
    check_points(source, edited)
    moved = (source[:, list(RIGID)] - edited[:, list(RIGID)]).norm(dim=2).mean(1)
    return moved / eye_distance(source).clamp_min(1e-6)


def face_mask(points: np.ndarray, height: int, width: int, *, margin: float = 0.35) -> np.ndarray:
    """The face in a picture, bool ``[height, width]``.

    The hull of the landmarks and what lies within ``margin`` eye distances of it, which takes in the forehead's lower
    half.

    Args:
        points: ``[68, 2]`` in pixels, or ``[M, 68, 2]`` for the union of several faces or of one before and after.
        height: height in pixels.
        width: width in pixels.
        margin: margin in eye distances.

    Raises:
        ImageError: other shapes, or a point that is not finite.
    """
    points = np.asarray(points, np.float64)
    if points.ndim not in (2, 3) or points.shape[-2:] != (POINTS, 2) or not np.isfinite(points).all():
        raise ImageError(f"landmarks are finite [{POINTS}, 2] or [M, {POINTS}, 2], found {points.shape}")
    mask = np.zeros((height, width), np.uint8)
    for face in points.reshape(-1, POINTS, 2):
        hull = cv2.convexHull(np.rint(face).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 1)
        reach = margin * float(np.hypot(*(face[EYES[1]].mean(0) - face[EYES[0]].mean(0))))
        cv2.polylines(mask, [hull], True, 1, thickness=max(1, round(2 * reach)), lineType=cv2.LINE_8)
    return mask.astype(bool)


def pose_drift(source: Tensor, edited: Tensor, side: float = 1.0) -> Tensor:
    """Largest absolute change of yaw, pitch and roll, ``[N]`` in degrees.

    Args:
        source: ``[N, 68, 2]``.
        edited: as ``source``.
        side: side of the crop, in the units of the points.
    """
    check_points(source, edited)
    change = head_pose(edited, side) - head_pose(source, side)
    return ((change + 180) % 360 - 180).abs().amax(1)


def describe(points: Tensor) -> dict[str, Any]:
    """Every shape measure of ``[N, 68, 2]`` landmarks by name, ``[N]`` each."""
    mouth, brows = mouth_shape(points), brow_height(points)
    return {
        "eye_opening": eye_opening(points),
        "mouth_opening": mouth[:, 0],
        "mouth_width": mouth[:, 1],
        "mouth_corners": mouth[:, 2],
        "inner_brow": brows[:, 0],
        "outer_brow": brows[:, 1],
    }


def _change(shape: str) -> Callable[[EditViews], Tensor]:
    """What computes how much a shape of ``describe`` changed."""

    def change(views: EditViews) -> Tensor:
        after = views.shared("shapes", lambda v: describe(v.points))
        before = views.shared("shapes_before", lambda v: describe(v.points_before))
        return after[shape] - before[shape]

    return change


def _shape(shape: str, title: str, help: str, units: str = "eye distances") -> Measure:
    return Measure(f"{shape}_change", title, 3, None, units, help, _change(shape), shown_in="rows")


LANDMARK_DRIFT = Measure(
    "landmark_drift",
    "drift",
    3,
    False,
    "eye distances",
    "of eye corners and nose, in eye distances",
    lambda views: landmark_drift(views.points_before, views.points),
    same_place=True,
    shown_in="summary",
)
POSE_DRIFT = Measure(
    "pose_drift",
    "pose",
    1,
    False,
    "degrees",
    "largest change of yaw, pitch, roll, degrees",
    lambda views: pose_drift(views.points_before, views.points, side=views.crop.resolution),
    shown_in="summary",
)
EYE_OPENING_CHANGE = _shape("eye_opening", "eyes", "change of eye height over width", "1")
MOUTH_OPENING_CHANGE = _shape("mouth_opening", "mouth open", "change of the gap between the lips, in eye distances")
MOUTH_WIDTH_CHANGE = _shape("mouth_width", "mouth wide", "change of the mouth's width, in eye distances")
MOUTH_CORNERS_CHANGE = _shape("mouth_corners", "corners", "how far the mouth's corners rose, in eye distances")
INNER_BROW_CHANGE = _shape("inner_brow", "inner brow", "how far the inner brows rose, in eye distances")
OUTER_BROW_CHANGE = _shape("outer_brow", "outer brow", "how far the outer brows rose, in eye distances")

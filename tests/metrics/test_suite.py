"""What is measured of faces: landmarks, identity, expression, perceptual distance, the networks behind them, and the
suite that puts them together. Against closed forms, scipy, lpips' own formula, and hostile input.

Networks are random where only the arithmetic counts. What the embedded ones have to know is asked at the end.
"""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import Delaunay
from torch import nn

from emoedit.emotions import BASIC
from emoedit.faces.align import align
from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.networks import NAMES, EmbeddedNetwork, identity_similarity
from emoedit.metrics import landmarks as lm
from emoedit.metrics.expression import expression_change, target_classes, target_score
from emoedit.metrics.measure import measures
from emoedit.metrics.paired import expression_distance, relative_distance
from emoedit.metrics.perceptual import perceptual_distance
from emoedit.metrics.suite import SURROUNDINGS, Suite
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig, standardise
from emoedit.nn.perceptual import PerceptualNetwork, calibrate, layer_distances
from emoedit.types import CheckpointError, ImageError, UnknownNameError

EYE_WIDTH, EYE_HEIGHT = 0.4, 0.12  # of the synthetic face, in eye distances


def synthetic(*, opening=0.1, width=0.8, lift=0.05, inner=0.4, outer=0.45) -> torch.Tensor:
    """A symmetric face ``[1, 68, 2]`` whose eyes are level and 1 apart, their middle at 0: every shape by definition.

    Args:
        opening, width, lift: of the mouth.  inner, outer: height of the brows above the eyes.
    """
    p = np.zeros((68, 2))
    around = np.deg2rad(np.linspace(170, 10, 17))
    p[:17] = np.stack([1.1 * np.cos(around), 0.1 + 1.5 * np.sin(around)], 1)
    p[17:22] = [[-0.9, -outer], [-0.75, -outer], [-0.55, -0.5], [-0.35, -inner], [-0.2, -inner]]
    p[22:27] = p[21:16:-1] * [-1, 1]
    p[27:31] = [[0, 0.0], [0, 0.2], [0, 0.4], [0, 0.6]]
    p[31:36] = [[-0.2, 0.7], [-0.1, 0.73], [0, 0.75], [0.1, 0.73], [0.2, 0.7]]
    w, h = EYE_WIDTH / 2, EYE_HEIGHT / 2
    eye = np.array([[-w, 0], [-w / 3, -h], [w / 3, -h], [w, 0], [w / 3, h], [-w / 3, h]])
    p[36:42], p[42:48] = eye - [0.5, 0], eye + [0.5, 0]
    half, mouth = opening / 2, 1.1
    p[48], p[54] = [-width / 2, mouth - lift], [width / 2, mouth - lift]
    p[49:54] = [[x, mouth - half - 0.08] for x in (-0.25, -0.12, 0, 0.12, 0.25)]
    p[55:60] = [[x, mouth + half + 0.08] for x in (0.25, 0.12, 0, -0.12, -0.25)]
    p[60], p[64] = p[48] + [0.05, 0], p[54] - [0.05, 0]
    p[61:64] = [[x, mouth - half] for x in (-0.12, 0, 0.12)]
    p[65:68] = [[x, mouth + half] for x in (0.12, 0, -0.12)]
    return torch.from_numpy(p)[None]


def placed(points: torch.Tensor, scale: float, degrees: float, shift: tuple[float, float]) -> torch.Tensor:
    """A similarity transform of points."""
    a = math.radians(degrees)
    turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=points.dtype)
    return scale * points @ turn.T + torch.tensor(shift, dtype=points.dtype)


def projected(yaw: float, pitch: float, roll: float, *, side: float = 1.0, shift=(0.0, 0.0), depth=700.0):
    """Landmarks ``[1, 68, 2]`` of the rigid face under a known pose: yaw turns the nose to the right of the picture,
    pitch up, roll clockwise. A pinhole camera, nothing of OpenCV."""
    y, p, r = np.deg2rad([yaw, pitch, roll])
    to_right = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    up = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    clockwise = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    x, y, z = ((clockwise @ to_right @ up) @ lm.RIGID_FACE.T + [[shift[0]], [shift[1]], [depth]])[:3]
    points = np.full((1, 68, 2), 0.5)
    points[0, list(lm.RIGID)] = np.stack([lm.FOCAL * x / z + 0.5, lm.FOCAL * y / z + 0.5], 1)
    return torch.from_numpy(points) * side


# Landmarks


def test_a_mirrored_symmetric_face_is_itself():
    assert torch.equal(lm.MIRROR[lm.MIRROR], torch.arange(68))
    face = synthetic()
    mirrored = face * torch.tensor([-1.0, 1.0])
    assert not torch.allclose(mirrored, face)
    torch.testing.assert_close(mirrored[:, lm.MIRROR], face)


@pytest.mark.parametrize("transform", [(1, 0, (0, 0)), (43.0, 25, (120, -7)), (0.3, -170, (0.5, 0.5))])
def test_shapes_are_what_the_face_was_made_of_however_it_is_placed(transform):
    face = placed(synthetic(opening=0.13, width=0.9, lift=0.07, inner=0.35, outer=0.55), *transform)
    assert lm.eye_opening(face).item() == pytest.approx(EYE_HEIGHT / EYE_WIDTH)
    assert lm.mouth_shape(face)[0].tolist() == pytest.approx([0.13, 0.9, 0.07])
    assert lm.brow_height(face)[0].tolist() == pytest.approx([0.35, 0.55])
    assert lm.eye_distance(face).item() == pytest.approx(transform[0])
    named = {name: value.item() for name, value in lm.describe(face).items()}
    expected = [EYE_HEIGHT / EYE_WIDTH, 0.13, 0.9, 0.07, 0.35, 0.55]
    assert dict(zip(named, expected, strict=True)) == pytest.approx(named)
    torch.testing.assert_close(lm.upright(face), synthetic(opening=0.13, width=0.9, lift=0.07, inner=0.35, outer=0.55))


def test_shapes_have_the_signs_their_names_say():
    calm = lm.describe(synthetic())
    smile = lm.describe(synthetic(width=1.0, lift=0.15))
    assert smile["mouth_corners"] > calm["mouth_corners"] and smile["mouth_width"] > calm["mouth_width"]
    surprise = lm.describe(synthetic(opening=0.5, inner=0.6, outer=0.6))
    for name in ("mouth_opening", "inner_brow", "outer_brow"):
        assert surprise[name] > calm[name], name


POSES = [(0, 0, 0), (25, 0, 0), (-25, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 30), (0, 0, -30), (15, -10, 8)]


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("side", [1.0, 96.0])
def test_the_pose_of_a_projection_is_found(pose, side):
    found = lm.head_pose(projected(*pose, side=side), side)
    assert found.shape == (1, 3) and found.dtype == torch.float32
    assert found[0].tolist() == pytest.approx(pose, abs=0.1)


@pytest.mark.parametrize("pose", [(0, 0, 0), (20, -10, 5)])
def test_pose_hardly_depends_on_noise_or_on_where_the_face_is_and_how_near(pose):
    noise = 0.002 * torch.randn(1, 68, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for points in (projected(*pose, shift=(12, -9), depth=500), projected(*pose, depth=1100)):
        assert lm.head_pose(points)[0].tolist() == pytest.approx(pose, abs=0.1)
    assert lm.head_pose(projected(*pose) + noise)[0].tolist() == pytest.approx(pose, abs=5)


def test_a_nose_further_right_is_a_positive_yaw_and_a_higher_one_a_positive_pitch():
    frontal = projected(0, 0, 0)
    right, higher = frontal.clone(), frontal.clone()
    nose = [30, 31, 33, 35]
    right[:, nose] += torch.tensor([0.03, 0.0])
    higher[:, nose] -= torch.tensor([0.0, 0.03])
    assert lm.head_pose(right)[0, 0] > 3
    assert lm.head_pose(higher)[0, 1] > 3
    assert lm.head_pose(placed(frontal - 0.5, 1, 10, (0.5, 0.5)))[0].tolist() == pytest.approx([0, 0, 10], abs=0.1)


def test_drifts_are_zero_for_itself_and_grow():
    still = projected(0, 0, 0)
    assert lm.pose_drift(still, still).item() == 0
    turned = [lm.pose_drift(still, projected(angle, angle / 2, 0)).item() for angle in (2, 5, 10, 20)]
    assert turned == pytest.approx([2, 5, 10, 20], abs=0.1)
    upside_down = lm.pose_drift(projected(0, 0, 175), projected(0, 0, -175)).item()
    assert upside_down == pytest.approx(10, abs=0.1)  # not 350
    face = placed(synthetic(), 40, 10, (50, 50))
    assert lm.landmark_drift(face, face).item() == 0
    drifts = [lm.landmark_drift(face, face + torch.tensor([3.0, 4.0]) * s).item() for s in (1, 2, 4)]
    assert drifts == pytest.approx([5 / 40, 10 / 40, 20 / 40])
    grin = placed(synthetic(opening=0.4, width=1.1, lift=0.2, inner=0.6), 40, 10, (50, 50))
    assert lm.landmark_drift(face, grin).item() == pytest.approx(0, abs=1e-9)  # an expression is no drift
    assert lm.pose_drift(face, face + torch.tensor([3.0, 4.0]), side=100.0).item() == pytest.approx(0, abs=2)


def test_the_face_mask_is_the_hull_and_what_lies_near_it():
    points = placed(synthetic(), 60, 12, (140, 120))[0].numpy()
    mask = lm.face_mask(points, 260, 280)
    assert mask.shape == (260, 280) and mask.dtype == bool
    columns, rows = np.rint(points).astype(int).T
    assert mask[rows, columns].all()
    grid = np.stack(np.meshgrid(np.arange(280), np.arange(260)), -1).reshape(-1, 2)
    hull = (Delaunay(np.rint(points)).find_simplex(grid) >= 0).reshape(260, 280)
    expected = distance_transform_edt(~hull) <= 0.35 * 60
    assert (mask & expected).sum() / (mask | expected).sum() > 0.97
    other = points + [30, 12]
    both = lm.face_mask(np.stack([points, other]), 260, 280)
    assert np.array_equal(both, mask | lm.face_mask(other, 260, 280))
    assert not lm.face_mask(points + 5000, 260, 280).any()
    narrow = lm.face_mask(points, 260, 280, margin=0.1)
    assert narrow.sum() < mask.sum() and not (narrow & ~mask).any()


@pytest.mark.parametrize(
    "points",
    [torch.zeros(68, 2), torch.zeros(1, 67, 2), torch.zeros(1, 68, 3), torch.full((1, 68, 2), math.nan)]
    + [torch.full((1, 68, 2), math.inf), torch.zeros(1, 68, 2, dtype=torch.int64)],
    ids=["no batch", "67", "3d", "nan", "inf", "whole numbers"],
)
def test_what_are_no_landmarks_is_refused(points):
    for function in (lm.upright, lm.eye_opening, lm.mouth_shape, lm.brow_height, lm.head_pose, lm.describe):
        with pytest.raises(ImageError):
            function(points)
    for function in (lm.landmark_drift, lm.pose_drift, expression_distance):
        with pytest.raises(ImageError):
            function(points, points)
        with pytest.raises(ImageError):
            function(synthetic(), points)


def test_faces_are_compared_one_with_one():
    for function in (lm.landmark_drift, lm.pose_drift, expression_distance):
        with pytest.raises(ImageError, match="3 and 1"):
            function(synthetic().repeat(3, 1, 1), synthetic())
        assert function(synthetic()[:0], synthetic()[:0]).shape == (0,)


def test_a_mask_needs_points_and_a_pose_needs_them_apart():
    for points in (np.zeros((67, 2)), np.zeros(136), np.full((68, 2), np.nan), np.zeros((1, 1, 68, 2))):
        with pytest.raises(ImageError):
            lm.face_mask(points, 20, 20)
    with pytest.raises(ImageError, match="one place"):
        lm.head_pose(torch.full((1, 68, 2), 0.3))


# Identity


def embeddings(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


def test_identity_is_the_cosine():
    first, second = embeddings(5, 0), embeddings(5, 1)
    found = identity_similarity(first, second)
    expected = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(first.double(), second.double(), strict=True)]
    assert found.dtype == torch.float32 and found.tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(found, identity_similarity(second, first))
    assert identity_similarity(first, first * 7).tolist() == pytest.approx([1] * 5, abs=1e-6)
    assert identity_similarity(first, -first).tolist() == pytest.approx([-1] * 5, abs=1e-6)
    assert float(identity_similarity(first, first).max()) <= 1
    assert identity_similarity(first[:0], second[:0]).shape == (0,)


def test_what_are_no_embeddings_is_refused():
    e = embeddings(2, 0)
    for first, second in ((e, e[:1]), (e[0], e[0]), (e, e[:, :3]), (e, e * 0), (e / 0, e), (e * math.nan, e)):
        with pytest.raises(ImageError):
            identity_similarity(first, second)


# Expression


def test_target_score_sums_what_the_emotion_is_mixed_from():
    names = ("neutral", "happy", "sad", "angry", "surprised", "disgusted", "fearful", "other:sleepy")
    scores = torch.tensor([[0.05, 0.1, 0.2, 0.05, 0.1, 0.15, 0.25, 0.1]]).repeat(5, 1)
    found = target_score(scores, ["happy", "shame", "joyful", "serene", "other:sleepy"], names)
    expected = [0.1, 0.2 + 0.25 + 0.15, 0.1, 0.1, 0.1]  # serene is a little happy, and less surprised
    assert found.tolist() == pytest.approx(expected)
    assert [names[k] for k in target_classes("shame", names)] == ["sad", "fearful", "disgusted"]
    assert [names[k] for k in target_classes("happy - 0.4*surprised", names)] == ["happy"]
    assert target_score(scores[:0], [], names).shape == (0,)
    assert target_score(torch.eye(8)[:2], ["neutral", "neutral"], names).tolist() == [1, 0]


def test_targets_that_nobody_can_read_are_refused():
    scores = torch.full((1, 7), 1 / 7)
    for emotion in ("hapy", "xyzzy", "-happy"):
        with pytest.raises(UnknownNameError):
            target_score(scores, [emotion], BASIC)
    with pytest.raises(UnknownNameError):
        target_score(scores[:, :3], ["fearful"], BASIC[:3])
    with pytest.raises(ImageError, match="2 targets for 1"):
        target_score(scores, ["happy", "sad"], BASIC)


def test_expression_change_is_the_total_variation_distance():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(20, 7, generator=generator).softmax(1) for _ in range(2))
    found = expression_change(before, after)
    # The largest difference in probability of any set of classes, over all 128 sets.
    sets = torch.tensor([[n >> k & 1 for k in range(7)] for n in range(128)], dtype=torch.float32)
    torch.testing.assert_close(found, ((after - before) @ sets.T).amax(1), atol=1e-6, rtol=0)
    assert torch.equal(found, expression_change(after, before))
    assert expression_change(before, before).tolist() == [0] * 20
    assert expression_change(torch.eye(7)[:1], torch.eye(7)[1:2]).item() == 1
    steps = [expression_change(before, before.lerp(after, t)).mean() for t in (0, 0.2, 0.5, 1)]
    assert steps == sorted(steps)


def test_what_are_no_scores_is_refused():
    good = torch.full((2, 7), 1 / 7)
    for bad in (good[0], good[:, :6], good * 8, -good, good * math.nan, torch.tensor(0.5), good[:1]):
        with pytest.raises(ImageError):
            expression_change(good, bad)
        with pytest.raises(ImageError):
            expression_change(bad, good)
        with pytest.raises(ImageError):
            target_score(bad, ["happy", "happy"], BASIC)


# Distances to the truth


def test_relative_distance_is_1_for_doing_nothing_and_0_at_the_truth():
    found = relative_distance(torch.tensor([2.0, 0.0, 1.0, 6.0, 0.0, 1.0]), torch.tensor([2.0, 2, 4, 3, 0, 0]))
    assert found[:4].tolist() == [1, 0, 0.25, 2]
    assert found[4:].isnan().all()  # the source is the truth: no editor can come nearer
    for first, second in (([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]]), ([-1.0], [1.0]), ([1.0], [-1.0])):
        with pytest.raises(ImageError):
            relative_distance(torch.tensor(first), torch.tensor(second))


def test_expressions_are_compared_wherever_the_faces_are():
    calm, smile = synthetic(), synthetic(width=1.0, lift=0.2)
    elsewhere = placed(calm, 33, 70, (4, -80))
    assert expression_distance(calm, elsewhere).item() == pytest.approx(0, abs=1e-9)
    far = expression_distance(calm, smile).item()
    # Corners move by (.1, .15), as do the inner corners of the lips, which follow them: 4 of 42 points.
    assert far == pytest.approx(4 * math.hypot(0.1, 0.15) / 42)
    assert expression_distance(smile, elsewhere).item() == pytest.approx(far)
    jaw = calm.clone()
    jaw[:, :17] += 0.3
    assert expression_distance(calm, jaw).item() == 0


# Perceptual distance


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and weights that no fresh network has, so that batch normalisation does something."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point() and value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5)
        elif value.is_floating_point() and name != "layer_weights":
            value.copy_(0.1 * torch.randn(value.shape, generator=generator) + name.endswith("weight"))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trunk() -> PerceptualNetwork:
    return randomise(PerceptualNetwork(NetworkConfig({}, resolution=32, widths=(8, 12, 16))))


@pytest.fixture(scope="module")
def people() -> torch.Tensor:
    """100 faces ``[100, 1, 32, 32]`` in [-1, 1] that come with scikit-image."""
    from skimage.data import lfw_subset

    x = torch.from_numpy(lfw_subset()[:100]).float()[:, None]
    x = nn.functional.interpolate(x, (32, 32), mode="bicubic", align_corners=False)
    return (x * 2 - 1).clamp(-1, 1)


def blurred(x: torch.Tensor, steps: int) -> torch.Tensor:
    for _ in range(steps):
        x = nn.functional.avg_pool2d(nn.functional.pad(x, [1] * 4, mode="reflect"), 3, 1)
    return x


def noisy(x: torch.Tensor, level: float) -> torch.Tensor:
    return (x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)


def test_layer_distances_by_hand_and_by_lpips(trunk, people):
    lpips = pytest.importorskip("lpips")
    first, second = people[:6], people[6:12]
    found = layer_distances(trunk, first, second)
    assert found.shape == (6, 3)
    for layer, (a, b) in enumerate(zip(trunk.features(first), trunk.features(second), strict=True)):
        for n in range(6):
            total = 0.0
            for u, v in zip(a[n].flatten(1).T.double().numpy(), b[n].flatten(1).T.double().numpy(), strict=True):
                u, v = (w / max(np.linalg.norm(w), 1e-6) for w in (u, v))
                total += np.sum((u - v) ** 2)
            assert found[n, layer].item() == pytest.approx(total / a[n, 0].numel(), rel=1e-4)
        theirs = (lpips.normalize_tensor(a) - lpips.normalize_tensor(b)).square().sum(1, keepdim=True)
        torch.testing.assert_close(found[:, layer], lpips.spatial_average(theirs)[:, 0, 0, 0], atol=1e-4, rtol=1e-4)


def test_calibration_makes_two_people_1_apart_and_every_layer_as_loud(trunk, people):
    network = PerceptualNetwork(trunk.config)
    network.load_state_dict(trunk.state_dict())
    first, second = people[:50], people[50:]
    calibrate(network, first, second)
    assert perceptual_distance(first, second, network).mean().item() == pytest.approx(1, abs=1e-5)
    shares = layer_distances(network, first, second).mean(0) * network.layer_weights
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert network.distance(first, second).mean().item() == pytest.approx(1, abs=1e-5)


def test_perceptual_distance_is_0_for_itself_symmetric_and_blind_to_light(trunk, people):
    first, second = people[:8], people[8:16]
    found = perceptual_distance(first, second, trunk)
    assert found.shape == (8,) and found.dtype == torch.float32 and float(found.min()) > 0
    assert torch.equal(perceptual_distance(first, first, trunk), torch.zeros(8))
    torch.testing.assert_close(perceptual_distance(second, first, trunk), found, atol=1e-6, rtol=1e-6)
    darker = first * 0.5 - 0.2
    assert float(perceptual_distance(first, darker, trunk).max()) < 1e-4


def test_perceptual_distance_grows_with_blur_and_noise(trunk, people):
    x = people[:20]
    for changed in ([blurred(x, s) for s in range(5)], [noisy(x, 0.1 * s) for s in range(5)]):
        means = [perceptual_distance(x, y, trunk).mean().item() for y in changed]
        assert means == sorted(means) and means[4] > 1.5 * means[1] > 0


def test_perceptual_distance_refuses_other_pictures(trunk, people):
    x = people[:2]
    for first, second in ((x, x[:1]), (x * 3, x), (x.repeat(1, 3, 1, 1),) * 2, (x[..., :16, :16],) * 2, (x / 0, x)):
        with pytest.raises(ImageError):
            perceptual_distance(first, second, trunk)
    with pytest.raises(ImageError, match="32 x 32"):
        perceptual_distance(people[:1, :, :30], people[:1, :, :30], trunk)


def scores(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 7, generator=torch.Generator().manual_seed(seed)).softmax(1)


def faces(count: int, seed: int) -> torch.Tensor:
    noise = 0.01 * torch.randn(count, 68, 2, generator=torch.Generator().manual_seed(seed))
    return placed(synthetic().float(), 0.4, 5, (0.5, 0.4)) + noise


EVERY = ["identity", "target_score", "expression_change", "paired", "perceptual", "landmark_drift", "pose_drift"]


@pytest.fixture(params=EVERY)
def metric(request, trunk, people):
    """A function and what it is called with, for nine pictures."""
    emotions = np.array([*BASIC, "shame", "joyful"])
    return {
        "identity": (identity_similarity, (embeddings(9, 0), embeddings(9, 1))),
        "target_score": (lambda s, e: target_score(s, e, BASIC), (scores(9, 0), emotions)),
        "expression_change": (expression_change, (scores(9, 0), scores(9, 1))),
        "paired": (relative_distance, (torch.arange(9.0), torch.arange(9.0) + 2)),
        "perceptual": (lambda a, b: perceptual_distance(a, b, trunk), (people[:9], people[9:18])),
        "landmark_drift": (lm.landmark_drift, (faces(9, 0), faces(9, 1))),
        "pose_drift": (lm.pose_drift, (faces(9, 0), faces(9, 1))),
    }[request.param]


def test_a_batch_is_a_loop(metric):
    function, arguments = metric
    values = function(*arguments)
    assert values.shape == (9,) and values.dtype == torch.float32
    one_by_one = torch.cat([function(*(a[n : n + 1] for a in arguments)) for n in range(9)])
    torch.testing.assert_close(values, one_by_one, atol=1e-5, rtol=1e-5)


# The networks behind them

HEADS = {"person": 6, "emotion": 3, "points": 68}
SMALL = NetworkConfig(HEADS, resolution=32, widths=(8, 8), emotions=("neutral", "happy", "sad"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network rounded to half precision, and the folder it was written to."""
    network = randomise(MeasuringNetwork(SMALL))
    network.heads["points"][-1].weight *= 0.02  # inside the crop, as landmarks are
    network.half().float()
    folder = tmp_path_factory.mktemp("networks") / "small"
    network.save_pretrained(folder, card="a card", note=3)
    return network, folder


def crops(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), np.uint8)


def test_a_network_is_read_back_bit_by_bit_in_half_the_space(saved):
    network, folder = saved
    again = MeasuringNetwork.from_pretrained(folder)
    assert again.config == SMALL
    assert again.state_dict().keys() == network.state_dict().keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
        assert value.dtype == network.state_dict()[name].dtype, name
    numbers = sum(value.numel() for value in network.state_dict().values())
    assert (folder / "model.safetensors").stat().st_size < 2.5 * numbers + 8000
    assert (folder / "README.md").read_text() == "a card"
    assert json.loads((folder / "config.json").read_text())["note"] == 3
    assert not any(module.training for module in again.modules())
    assert not any(parameter.requires_grad for parameter in again.parameters())
    x = torch.rand(3, 1, 32, 32) * 2 - 1
    for name, value in again(x).items():
        assert torch.equal(value, network(x)[name]), name


def test_outputs_have_the_shapes_that_are_promised(saved):
    network, folder = saved
    out = network(torch.rand(2, 1, 32, 32))
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "person": (2, 6),
        "emotion": (2, 3),
        "points": (2, 68, 2),
    }
    assert [tuple(f.shape[1:]) for f in network.features(torch.rand(2, 1, 32, 32))] == [(8, 16, 16), (8, 8, 8)]
    shown = EmbeddedNetwork.load(folder)
    uint8 = crops(5)
    x = torch.from_numpy(uint8)[:, None].float() / 127.5 - 1
    torch.testing.assert_close(shown.embed(uint8), nn.functional.normalize(network(x)["person"]))
    torch.testing.assert_close(shown.embed(uint8).norm(dim=1), torch.ones(5))
    torch.testing.assert_close(shown.scores(uint8), network(x)["emotion"].softmax(1))
    torch.testing.assert_close(shown.points(uint8), network(x)["points"] * 32 - 0.5)  # pixel centres at whole numbers
    assert shown.emotions == SMALL.emotions and shown.name == "embedded"
    assert [len(f(uint8[:0])) for f in (shown.embed, shown.scores, shown.points)] == [0, 0, 0]


def test_a_picture_has_one_answer_whatever_stands_beside_it(saved):
    shown = EmbeddedNetwork.load(saved[1])
    uint8 = crops(130)
    for function in (shown.embed, shown.scores, shown.points):
        together = function(uint8)
        for n in (0, 63, 64, 129):
            torch.testing.assert_close(function(uint8[n : n + 1])[0], together[n], atol=1e-5, rtol=1e-5)


def test_standardised_pictures_say_nothing_of_light_and_flat_ones_stay_finite(saved):
    x = torch.rand(4, 1, 32, 32) * 2 - 1
    y = standardise(x)
    assert y.mean((1, 2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(y.square().mean((1, 2, 3)), torch.ones(4))
    torch.testing.assert_close(standardise(x * 0.3 + 0.5), y, atol=1e-5, rtol=1e-5)
    flat = torch.stack([torch.full((1, 32, 32), v) for v in (-1.0, 0.0, 1.0)])
    assert float(standardise(flat).abs().max()) < 1e-4
    shown = EmbeddedNetwork.load(saved[1])
    black = np.zeros((1, 32, 32), np.uint8)
    for function in (shown.embed, shown.scores, shown.points):
        assert bool(function(black).isfinite().all())
    with torch.no_grad():
        assert all(bool(v.isfinite().all()) for v in saved[0](flat).values())


@pytest.mark.parametrize(
    "wrong", [crops(2, 31), crops(2)[0], crops(2)[..., None], crops(2).astype(np.float32) / 255, crops(2).astype(int)]
)
def test_crops_of_another_kind_are_refused(saved, wrong):
    shown = EmbeddedNetwork.load(saved[1])
    for function in (shown.embed, shown.scores, shown.points, shown.tensor):
        with pytest.raises(ImageError, match="32"):
            function(wrong)


def test_a_network_without_the_head_says_so(trunk):
    with pytest.raises(CheckpointError, match="no 'person' head"):
        EmbeddedNetwork(trunk).embed(crops(1))
    points = MeasuringNetwork(NetworkConfig({"points": 68}, resolution=32, widths=(8, 8)))
    with pytest.raises(CheckpointError, match="only points"):
        EmbeddedNetwork(points).scores(crops(1))


def test_a_trunk_is_loaded_as_one(trunk, tmp_path):
    trunk.save_pretrained(tmp_path / "trunk", card="")
    network = EmbeddedNetwork.load(tmp_path / "trunk").network
    assert isinstance(network, PerceptualNetwork) and torch.equal(network.layer_weights, trunk.layer_weights)


def test_networks_that_are_not_there_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="'nope'.*identity, expression, landmarks, perceptual"):
        EmbeddedNetwork.load("nope")
    with pytest.raises(CheckpointError, match="no measuring network"):
        EmbeddedNetwork.load(tmp_path)
    with pytest.raises(CheckpointError, match="missing"):
        MeasuringNetwork.from_pretrained(tmp_path / "gone")


CONFIGS = [
    {"heads": 3},
    {"heads": {"person": "many"}},
    {"heads": {"person": -1, "emotion": 3, "points": 68}},
    {"heads": {"person": 7, "emotion": 3, "points": 68}},
    {"resolution": None},
    {"resolution": math.inf},
    {"resolution": 2},
    {"resolution": 64},
    {"scale": "large"},
    {"widths": 4},
    {"widths": []},
    {"widths": [4, 9]},
    {"widths": [4, 8, 16]},
    {"widths": [4, 2**62]},
    {"emotions": None},
    {"emotions": ["neutral"]},
]


@pytest.mark.parametrize("change", CONFIGS, ids=[str(change) for change in CONFIGS])
def test_a_config_of_another_network_is_refused(saved, tmp_path, change):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((saved[1] / name).read_bytes())
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | change))
    with pytest.raises(CheckpointError):
        EmbeddedNetwork.load(tmp_path)


def test_damaged_files_are_refused(saved, tmp_path, trunk):
    from safetensors.torch import load_file, save_file

    config, weights = ((saved[1] / name).read_bytes() for name in ("config.json", "model.safetensors"))
    state = load_file(saved[1] / "model.safetensors")
    broken = {
        "half": (config, weights[: len(weights) // 2]),
        "empty": (config, b""),
        "text": (config, b"not weights at all"),
        "no json": (b"{", weights),
        "a list": (b"[]", weights),
        "an empty object": (b"{}", weights),
    }
    for name, (a, b) in broken.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(a)
        (tmp_path / name / "model.safetensors").write_bytes(b)
    first = "stem.0.weight"
    states = {
        "nan": state | {first: state[first] * math.nan},
        "lacks one": {name: value for name, value in state.items() if name != first},
        "has one more": state | {"more": torch.zeros(1)},
    }
    for name, tensors in states.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(config)
        save_file(tensors, tmp_path / name / "model.safetensors")
    for name in (*broken, *states):
        with pytest.raises(CheckpointError):
            EmbeddedNetwork.load(tmp_path / name)


# The suite


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """With the embedded networks, whatever weights this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        yield Suite()


@pytest.fixture(scope="module")
def portrait(_astronaut) -> tuple[np.ndarray, Face]:
    """The portrait, reduced, and its face."""
    photo = cv2.resize(_astronaut, (384, 384), interpolation=cv2.INTER_AREA)
    return photo, FaceDetector()(photo)[0]


@pytest.fixture(scope="module")
def subject(suite, portrait):
    return suite.subject(*portrait)


def in_face(photo: np.ndarray, face: Face, change) -> np.ndarray:
    """A photograph whose face was changed."""
    x0, y0, x1, y1 = (round(v) for v in face.box)
    edited = photo.copy()
    edited[y0:y1, x0:x1] = change(edited[y0:y1, x0:x1])
    return edited


def blur(sigma: float):
    return lambda part: cv2.GaussianBlur(part, (0, 0), sigma)


def test_a_photograph_against_itself(suite, subject):
    (row,) = suite.measure(subject, [subject.photo.copy()], ["happy"])
    for key, expected in {"identity": 1, "ssim": 1, "ms_ssim": 1, "sharpness_kept": 1, "fold_free": 1}.items():
        assert row[key] == pytest.approx(expected, abs=1e-5), key
    changes = [m.key for m in measures() if m.key.endswith("_change")] + ["perceptual", "landmark_drift", "pose_drift"]
    for key in changes:
        assert row[key] == pytest.approx(0, abs=1e-4), key
    assert row["psnr"] == 100 and row["background_change"] == 0
    assert row["confidence"] > 0.9
    assert row["paired_perceptual"] is row["paired_identity"] is row["paired_landmarks"] is None


def test_a_row_has_every_measure_says_who_spoke_and_is_json(suite, subject):
    emotions = ["happy", "shame", "neutral"]
    rows = suite.measure(subject, [subject.photo] * 3, emotions)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    for row, emotion in zip(rows, emotions, strict=True):
        assert {m.key for m in measures()} <= row.keys()
        assert row["identity_backend"] == row["perceptual_backend"] == row["expression_backend"] == "embedded"
        read = {name: row[f"score_{name}"] for name in suite.emotions}
        assert sum(read.values()) == pytest.approx(1, abs=1e-4)
        assert row["top1"] == max(read, key=read.get)
        assert row["hit"] == (None if emotion == "shame" else int(row["top1"] == emotion))
        target, identity = row["target_score"], row["identity"]
        assert row["hes"] == pytest.approx(2 * target * identity / (target + identity), abs=1e-4)
    assert rows[0]["target_score"] == pytest.approx(rows[0]["score_happy"], abs=1e-6)
    parts = ("sad", "fearful", "disgusted")
    assert rows[1]["target_score"] == pytest.approx(sum(rows[1][f"score_{p}"] for p in parts), abs=1e-5)


def test_a_blurred_face_loses_sharpness_and_likeness(suite, subject):
    edits = [in_face(subject.photo, subject.face, blur(s)) for s in (0.5, 1, 2, 4)]
    rows = suite.measure(subject, edits, ["happy"] * 4)
    for key in ("sharpness_kept", "ssim", "ms_ssim", "psnr"):
        values = [row[key] for row in rows]
        assert values == sorted(values, reverse=True) and values[0] > values[-1], key
    perceptual = [row["perceptual"] for row in rows]
    assert perceptual == sorted(perceptual) and perceptual[0] > 0
    assert rows[-1]["sharpness_kept"] < 0.5


def test_what_changes_far_from_the_face_is_background_and_nothing_else(suite, subject):
    photo = subject.photo
    x0, y0, x1, y1 = subject.face.box
    reach = SURROUNDINGS / 2 * max(x1 - x0, y1 - y0)
    assert max(x0 + x1, y0 + y1) / 2 + reach < 330  # the corner is outside of what is looked at
    edited = photo.copy()
    edited[330:, 330:] = np.where(edited[330:, 330:] < 128, edited[330:, 330:] + 50, edited[330:, 330:] - 50)
    same, changed = suite.measure(subject, [photo, edited], ["happy"] * 2)
    assert same["background_change"] == 0
    # Where the face lies is for the landmarks to say: it covers nothing, or as much as leaves a fifth.
    least = 50 * math.sqrt(54 * 54 / (384 * 384))
    assert least - 0.01 <= changed["background_change"] <= least * math.sqrt(5)
    for key, value in same.items():
        if key != "background_change":
            assert changed[key] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), key


@pytest.mark.slow
def test_edits_in_one_call_are_edits_one_by_one(suite, subject):
    rng = np.random.default_rng(0)
    edits = []
    for n in range(20):
        noise = rng.normal(0, 1 + 3 * n / 4, subject.photo.shape)
        edits.append((subject.photo + noise).clip(0, 255).astype(np.uint8))
    emotions = [BASIC[n % 7] for n in range(20)]
    together = suite.measure(subject, edits, emotions)
    assert len(together) == 20
    for n in range(0, 20, 6):
        (alone,) = suite.measure(subject, [edits[n]], [emotions[n]])
        assert alone.pop("pose_drift") == pytest.approx(together[n].pop("pose_drift"), abs=1e-3), n  # degrees
        assert alone == pytest.approx(together[n], abs=1e-5), n
    assert len({row["noise"] for row in together}) == 20
    assert suite.measure(subject, [], []) == []


def test_the_truth_is_0_away_from_itself_and_the_source_1(suite, portrait, subject):
    photo, face = portrait
    truth = in_face(photo, face, lambda part: part[:, ::-1])
    paired = suite.subject(photo, face, (truth, face))
    rows = suite.measure(paired, [photo, truth], ["happy"] * 2)
    for key in ("paired_perceptual", "paired_identity", "paired_landmarks"):
        assert [row[key] for row in rows] == pytest.approx([1, 0], abs=1e-4), key
    (row,) = suite.measure(suite.subject(photo, face, (photo, face)), [truth], ["happy"])
    assert row["paired_perceptual"] is None
    assert json.dumps(row, allow_nan=False)
    other = suite.measure_other(paired, truth, face, "happy")
    assert other["paired_perceptual"] == pytest.approx(0, abs=1e-5)
    assert other["ssim"] is other["psnr"] is other["background_change"] is None
    assert other.keys() == rows[0].keys()


def test_edits_of_another_size_or_kind_are_refused(suite, subject):
    photo = subject.photo
    for wrong in (
        photo[:-1],
        photo[..., 0],
        photo.astype(np.float32),
        photo[..., [0, 1, 2, 2]],
        photo.astype(np.int16),
    ):
        with pytest.raises(ImageError, match="an edit has the size"):
            suite.measure(subject, [photo, wrong], ["happy", "happy"])
    with pytest.raises(ImageError, match="1 emotions for 2"):
        suite.measure(subject, [photo, photo], ["happy"])
    outside = Face((900.0, 900.0, 990.0, 990.0), subject.face.landmarks + 800, 1.0)
    with pytest.raises(ImageError, match="too little"):
        suite.subject(photo, outside)


def test_an_unknown_emotion_is_refused(suite, subject):
    with pytest.raises(UnknownNameError, match="did you mean 'happy'"):
        suite.measure(subject, [subject.photo], ["hapy"])
    for emotion in ("hapy", "xyzzy"):
        with pytest.raises(UnknownNameError):
            suite.check_emotions(["happy", emotion])
    suite.check_emotions([*BASIC, "shame"])


def test_networks_that_are_not_on_disk_say_how_to_fetch_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"curl .*vggface2"):
        Suite(identity="vggface2")
    for wrong in ({"identity": "arcface"}, {"perceptual": "lpips-resnet"}):
        with pytest.raises(UnknownNameError, match="auto, embedded"):
            Suite(**wrong)


# What the embedded networks have to know


@pytest.fixture(scope="module")
def strangers() -> list[tuple[np.ndarray, Face]]:
    """Faces of other people, soft ones, that come with scikit-image."""
    from skimage.data import lfw_subset

    found, detector = [], FaceDetector(min_confidence=0.9)
    for small in lfw_subset()[:40:2]:
        large = cv2.resize((small * 255).clip(0, 255).astype(np.uint8), (100, 100), interpolation=cv2.INTER_CUBIC)
        photo = np.repeat(large[..., None], 3, -1)
        found += [(photo, face) for face in detector(photo)[:1]]
    assert len(found) > 12
    return found


def test_the_embedded_networks_are_what_their_names_say():
    heads = {name: dict(EmbeddedNetwork.load(name).network.config.heads) for name in NAMES}
    assert heads == {"identity": {"person": 128}, "expression": {"emotion": 7}, "landmarks": {"points": 68}} | {
        "perceptual": {}
    }
    assert set(EmbeddedNetwork.load("expression").emotions) == set(BASIC)


def test_landmarks_lie_where_the_detector_sees_eyes_nose_and_mouth(subject, suite):
    alignment = align(subject.face.landmarks, suite.landmarks.network.crop)
    points = alignment.to_photo(subject.view.points.double().numpy())
    five = np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])
    apart = np.linalg.norm(subject.face.landmarks[1] - subject.face.landmarks[0])
    away = np.linalg.norm(five - subject.face.landmarks, axis=1) / apart
    assert away.max() < 0.2 and away.mean() < 0.12
    shape = {name: value.item() for name, value in lm.describe(subject.view.points[None]).items()}
    assert 0.1 < shape["eye_opening"] < 0.6 and 0.5 < shape["mouth_width"] < 1.5
    x0, y0, x1, y1 = (round(v) for v in subject.face.box)
    mask = lm.face_mask(points, *subject.photo.shape[:2])
    assert mask[y0 + 20 : y1 - 10, x0 + 15 : x1 - 15].mean() > 0.9
    assert mask.mean() < 0.25


def test_a_smile_is_read_as_happy(suite, subject):
    (row,) = suite.measure(subject, [subject.photo], ["happy"])
    assert row["hit"] == 1 and row["score_happy"] > 0.5


def test_a_changed_picture_of_her_is_nearer_to_her_than_strangers(suite, subject, strangers):
    photo = subject.photo
    changed = [in_face(photo, subject.face, blur(1.0)), (photo * 0.7).astype(np.uint8), photo]
    changed[2] = (photo + np.random.default_rng(0).normal(0, 6, photo.shape)).clip(0, 255).astype(np.uint8)
    rows = suite.measure(subject, changed, ["happy"] * 3)
    others = [suite.views([p], face)[0] for p, face in strangers]
    e = torch.stack([view.identity for view in others])
    cosine = identity_similarity(subject.view.identity.expand_as(e), e)
    assert min(row["identity"] for row in rows) > float(cosine.max())
    assert min(row["identity"] for row in rows) > 0.6 and float(cosine.mean()) < 0.4
    distance = suite._distance([subject.view] * len(others), others)
    assert max(row["perceptual"] for row in rows) < float(distance.min())
    assert 0.3 < float(distance.mean()) < 3  # two people are 1 apart

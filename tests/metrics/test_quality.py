"""Pair and set metrics of picture quality: against independent references, closed forms, and hostile input."""

from __future__ import annotations

import math
import pickle
import sys

import cv2
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.measure import shannon_entropy
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torchmetrics.image import (
    FrechetInceptionDistance,
    KernelInceptionDistance,
    MultiScaleStructuralSimilarityIndexMeasure,
)

from emoedit.compositing.flow import jacobian
from emoedit.io import checkpoints
from emoedit.metrics import distribution, quality
from emoedit.metrics.distribution import (
    FrechetDistance,
    KernelDistance,
    frechet_distance,
    inception_features,
    kernel_distance,
)
from emoedit.metrics.quality import (
    background_change,
    fold_free,
    grey_entropy,
    ms_ssim,
    noise_sigma,
    psnr,
    sharpness,
    sharpness_kept,
    ssim,
)
from emoedit.types import CheckpointError, DataError, ImageError, MissingExtraError

WITH_MASK = [background_change, sharpness_kept, fold_free]
ALONE = [grey_entropy, noise_sigma]
PAIR = [ssim, ms_ssim, psnr, *WITH_MASK]


def tensor(*pictures: np.ndarray) -> torch.Tensor:
    """Grey ``[H, W]`` or RGB ``[H, W, 3]`` levels 0 to 255 -> ``[N, C, H, W]`` in [-1, 1]."""
    stack = np.stack([p[..., None] if p.ndim == 2 else p for p in pictures]).astype(np.float32)
    return torch.from_numpy(stack).permute(0, 3, 1, 2) / 127.5 - 1


def noisy(picture: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8)


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture


@pytest.fixture
def face(astronaut) -> np.ndarray:
    """The face of the portrait: uint8 ``[192, 180, 3]``."""
    return astronaut[10:202, 130:310]


@pytest.fixture
def grey(face) -> np.ndarray:
    """uint8 ``[192, 180]``."""
    return cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)


@pytest.fixture
def disc(grey) -> torch.Tensor:
    """A soft mask of the face ``[192, 180]``, exactly 0 outside."""
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    return torch.from_numpy(np.clip((75 - np.hypot(x - 90, y - 96)) / 15, 0, 1).astype(np.float32))


# Likeness


@pytest.mark.parametrize("change", [lambda p: noisy(p, 12), lambda p: blurred(p, 2), lambda p: 255 - p])
def test_ssim_is_that_of_scikit_image(face, grey, change) -> None:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    # scikit-image averages over the places where the window fits, as we do, so no cropping is needed to match it
    expected = structural_similarity(face, change(face), channel_axis=-1, **options)
    assert ssim(tensor(face), tensor(change(face))).item() == pytest.approx(expected, abs=1e-5)
    smooth = grey[:11, :40]  # the window fits into one row only
    expected = structural_similarity(smooth, change(smooth), **options)
    assert ssim(tensor(smooth), tensor(change(smooth))).item() == pytest.approx(expected, abs=1e-5)


def test_ssim_of_flat_pictures_is_its_luminance_term() -> None:
    a, b = torch.full((1, 1, 32, 32), 0.5), torch.full((1, 1, 32, 32), -0.25)
    light_a, light_b, c1 = 0.75, 0.375, 0.01**2  # from black = 0, which [-1, 1] is not
    expected = (2 * light_a * light_b + c1) / (light_a**2 + light_b**2 + c1)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-6)
    white = tensor(np.full((32, 32), 250))  # where float32 would leave .998
    assert ssim(white, white).item() == pytest.approx(1, abs=1e-7)


def test_ms_ssim_is_that_of_torchmetrics_picture_by_picture(face) -> None:
    source, edited = tensor(face, face, face), tensor(noisy(face, 12), blurred(face, 2), face)
    found = ms_ssim(source, edited)
    for i in range(3):
        reference = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)
        pair = (((x[i : i + 1] + 1) * 127.5).round() for x in (edited, source))
        assert found[i].item() == pytest.approx(reference(*pair).item(), abs=1e-4)
    assert found[2].item() == pytest.approx(1, abs=1e-6)


def test_ms_ssim_says_which_size_it_needs(grey) -> None:
    large = tensor(grey[:176, :176])
    assert ms_ssim(large, large).shape == (1,)
    with pytest.raises(ImageError, match="at least 176 x 176, found 175 x 176"):
        ms_ssim(large[..., :175, :], large[..., :175, :])
    with pytest.raises(ImageError, match="SSIM needs .* 11 x 11, found 176 x 10"):
        ssim(large[..., :10], large[..., :10])


def test_psnr_is_that_of_scikit_image_and_of_the_closed_form(face) -> None:
    found = psnr(tensor(face, face), tensor(noisy(face, 3), noisy(face, 30)))
    for i, sigma in enumerate((3, 30)):
        assert found[i].item() == pytest.approx(peak_signal_noise_ratio(face, noisy(face, sigma)), abs=1e-4)
    flat = torch.zeros(1, 3, 8, 8)
    assert psnr(flat, flat + 0.2).item() == pytest.approx(20, abs=1e-4)  # a tenth of the peak
    assert psnr(-torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).item() == pytest.approx(0, abs=1e-6)


def test_equal_pictures_do_not_swallow_a_mean_of_psnr() -> None:
    flat = torch.zeros(2, 1, 8, 8)
    other = flat.clone()
    other[1] += 0.2
    assert psnr(flat, other).tolist() == pytest.approx([100, 20], abs=1e-4)


@pytest.mark.parametrize("measure", [ssim, ms_ssim, psnr])
@pytest.mark.parametrize("change", [noisy, blurred])
def test_likeness_falls_as_a_picture_departs(grey, measure, change) -> None:
    edited = tensor(*(change(grey, amount) for amount in (0.5, 1, 2, 4, 8)))
    source = tensor(grey).expand_as(edited)
    values = measure(source, edited)
    assert (values.diff() < 0).all()
    assert torch.allclose(values, measure(edited, source), atol=1e-5)


# Background


def test_background_change_is_exact_and_only_outside(face, disc) -> None:
    source = tensor(face)
    edited = source.clone()
    edited[..., disc > 0] = 0
    assert background_change(source, edited, disc).item() == 0
    outside = disc == 0
    moved = source * 0.5
    moved[..., outside] += 10 / 127.5
    assert background_change(source * 0.5, moved, disc).item() == pytest.approx(10, abs=1e-4)
    changed = tensor(noisy(face, 9))
    difference = (np.float64(noisy(face, 9)) - face)[outside.numpy()]
    expected = math.sqrt((difference**2).mean())
    assert background_change(source, changed, disc).item() == pytest.approx(expected, abs=1e-4)


def test_every_picture_may_have_its_own_mask(grey) -> None:
    source = tensor(grey, grey)
    edited = source.clone()
    edited[:, :, :96] = source[:, :, :96] * 0.9
    masks = torch.zeros(2, 1, *grey.shape)
    masks[0, :, :96] = 1
    masks[1, :, 96:] = 1
    found = background_change(source, edited, masks)
    assert found[0] == 0 and found[1] > 1


def test_a_mask_that_leaves_nothing_is_refused(grey, disc) -> None:
    x = tensor(grey)
    for all_covered in (torch.ones(grey.shape), disc.clamp_min(1e-3)):
        with pytest.raises(ImageError, match="no background"):
            background_change(x, x, all_covered)
    for measure in (sharpness_kept, fold_free):
        with pytest.raises(ImageError, match="0 everywhere"):
            measure(x, x, torch.zeros(grey.shape))
    half = torch.stack([disc[None], torch.ones_like(disc)[None]])  # one good mask does not excuse the other
    with pytest.raises(ImageError, match="no background"):
        background_change(torch.cat([x, x]), torch.cat([x, x]), half)


# Sharpness, entropy, noise


def test_sharpness_is_the_variance_of_opencvs_laplacian(face, grey) -> None:
    expected = cv2.Laplacian(grey.astype(np.float64), cv2.CV_64F).var()
    assert sharpness(tensor(grey)).item() == pytest.approx(expected, rel=1e-4)
    luminance = face.astype(np.float64) @ [0.299, 0.587, 0.114]
    expected = cv2.Laplacian(luminance, cv2.CV_64F).var()
    assert sharpness(tensor(face)).item() == pytest.approx(expected, rel=1e-4)
    mask = torch.zeros(grey.shape)
    mask[50:100, 40:90] = 1
    expected = cv2.Laplacian(grey.astype(np.float64), cv2.CV_64F)[50:100, 40:90].var()
    assert sharpness(tensor(grey), mask).item() == pytest.approx(expected, rel=1e-4)


def test_sharpness_kept_falls_with_blur_and_looks_inside_the_mask_only(grey, disc) -> None:
    edited = tensor(*(blurred(grey, sigma) for sigma in (0, 0.5, 1, 1.5, 2, 3, 5)))
    kept = sharpness_kept(tensor(grey).expand_as(edited), edited, disc)
    assert kept[0] == 1 and (kept.diff() < 0).all() and kept[-1] < 0.05
    source = tensor(grey)
    outside = source.clone()
    outside[..., torch.from_numpy(cv2.dilate((disc > 0).numpy().astype(np.uint8), np.ones((3, 3)))) == 0] = 0
    assert sharpness_kept(source, outside, disc).item() == 1
    assert sharpness_kept(source, outside).item() < 1
    assert sharpness_kept(source, tensor(noisy(grey, 10)), disc).item() > 1  # noise passes for detail


def test_flat_pictures_are_as_sharp_as_each_other() -> None:
    flat = torch.zeros(1, 3, 16, 16)
    assert sharpness(flat).item() == 0
    assert sharpness_kept(flat, flat + 0.5).item() == pytest.approx(1, abs=1e-6)
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(60.0, 200, 256), (256, 1)) + rng.normal(0, 0.7, (256, 256))
    # what rounding alone makes of a smooth picture is the constant in the ratio
    rounding = sharpness(tensor(ramp.round())).item() - sharpness(tensor(ramp)).item()
    assert rounding == pytest.approx(quality.ROUNDING, rel=0.1)


def test_entropy_is_that_of_scikit_image(face, grey) -> None:
    found = grey_entropy(tensor(grey, blurred(grey, 5), grey // 64 * 64))
    for i, picture in enumerate((grey, blurred(grey, 5), grey // 64 * 64)):
        assert found[i].item() == pytest.approx(shannon_entropy(picture), abs=1e-4)
    luminance = (face.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])).round().astype(np.uint8)
    assert grey_entropy(tensor(face)).item() == pytest.approx(shannon_entropy(luminance), abs=2e-3)
    every_level = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert grey_entropy(tensor(every_level)).item() == 8
    assert grey_entropy(torch.ones(1, 3, 5, 5)).item() == 0


@pytest.mark.parametrize("sigma", [2, 5, 10, 20])
def test_noise_sigma_recovers_added_noise(sigma) -> None:
    y, x = np.mgrid[:256, :256] / 255
    smooth = 128 + 30 * np.sin(2 * x + y) + 10 * x * y
    picture = smooth + np.random.default_rng(sigma).normal(0, sigma, smooth.shape)
    assert noise_sigma(tensor(picture)).item() == pytest.approx(sigma, rel=0.03)
    assert noise_sigma(tensor(smooth)).item() < 0.05


def test_noise_sigma_rises_with_noise_and_is_exact_on_an_impulse(grey) -> None:
    values = noise_sigma(tensor(*(noisy(grey, sigma) for sigma in (0, 2, 4, 8, 16))))
    assert (values.diff() > 0).all()
    impulse = np.zeros((9, 9))
    impulse[4, 4] = 100  # the mask's absolute values sum to 16
    expected = math.sqrt(math.pi / 2) / (6 * 7 * 7) * 1600
    assert noise_sigma(tensor(impulse)).item() == pytest.approx(expected, rel=1e-5)
    assert noise_sigma(torch.zeros(1, 1, 3, 3)).item() == 0


# Folds


def warped(picture: np.ndarray, amount: float, seed: int, smooth: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """The picture after a smooth random warp of at most ``amount`` pixels, and where the warp does not fold."""
    rng = np.random.default_rng(seed)
    height, width = picture.shape
    flow = np.stack([cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), smooth) for _ in "xy"], -1)
    flow = (flow * (amount / np.abs(flow).max())).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return moved, jacobian(flow) > 0


def test_a_moved_noisy_or_relit_face_has_no_folds(grey, disc) -> None:
    x = tensor(grey)
    assert fold_free(x, x, disc).item() == 1
    shifted = np.roll(grey, (3, -4), (0, 1))
    gentle = [warped(grey, amount, seed, 14)[0] for amount in (3, 6) for seed in (0, 1)]
    edited = tensor(shifted, *gentle, noisy(grey, 5), blurred(grey, 1.5), (grey * 0.7).astype(np.uint8))
    assert (fold_free(x.expand_as(edited), edited, disc) > 0.995).all()


def test_torn_faces_have_folds(grey, disc) -> None:
    x = tensor(grey)
    upside_down = grey.copy()
    upside_down[60:90] = grey[60:90][::-1]
    shuffled = grey.copy()
    rng = np.random.default_rng(1)
    for _ in range(12):
        (y0, x0), (y1, x1) = rng.integers(40, 120, (2, 2))
        shuffled[y0 : y0 + 20, x0 : x0 + 20] = grey[y1 : y1 + 20, x1 : x1 + 20]
    edited = tensor(upside_down, shuffled, grey[:, ::-1], warped(grey, 18, 1)[0])
    assert (fold_free(x.expand_as(edited), edited, disc) < 0.99).all()
    # what happens outside the face is not its concern
    mask = torch.zeros(grey.shape)
    mask[120:] = 1
    assert fold_free(x, tensor(upside_down), mask).item() > 0.999


def test_folds_are_found_in_the_share_there_is(grey, disc) -> None:
    truth, found, disc64 = [], [], disc.double().numpy()
    for seed in range(6):
        for amount in (4, 12, 18, 24):
            moved, whole = warped(grey, amount, seed)
            truth.append(float((whole * disc64).sum() / disc64.sum()))
            found.append(fold_free(tensor(grey), tensor(moved), disc).item())
    truth, found = np.array(truth), np.array(found)
    assert truth.min() < 0.95 and truth.max() == 1
    assert abs(found - truth).mean() < 0.015 and abs(found - truth).max() < 0.06
    assert np.corrcoef(truth, found)[0, 1] > 0.75


@pytest.mark.parametrize("size", [(64, 64), (96, 80), (300, 260)])
def test_folds_do_not_depend_on_light_size_or_batch(grey, disc, size) -> None:
    moved, _ = warped(grey, 18, 1)

    def resized(p: np.ndarray) -> np.ndarray:
        return cv2.resize(p, size[::-1], interpolation=cv2.INTER_AREA)

    pair, mask = [tensor(resized(p)) for p in (grey, moved)], torch.from_numpy(resized(disc.numpy()))
    whole = fold_free(tensor(grey), tensor(moved), disc).item()
    found = fold_free(*pair, mask).item()
    assert found == pytest.approx(whole, abs=0.02)
    dark = fold_free(*(0.2 * x - 0.8 for x in pair), mask).item()  # a fifth of the light
    assert dark == pytest.approx(found, abs=0.01)
    batch = fold_free(torch.cat([pair[0], pair[0]]), torch.cat([pair[0], pair[1]]), mask)
    assert batch.tolist() == pytest.approx([1, found], abs=1e-6)


# What all functions have in common


def arguments(kind, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (y,) if kind in ALONE else (x, y, mask) if kind in WITH_MASK else (x, y)


@pytest.mark.parametrize("kind", [*PAIR, *ALONE])
def test_a_batch_is_a_loop(kind, face, disc) -> None:
    x, y = tensor(face, face, face), tensor(noisy(face, 4), blurred(face, 1), face)
    values = kind(*arguments(kind, x, y, disc))
    assert values.shape == (3,) and values.dtype == torch.float32
    alone = torch.cat([kind(*arguments(kind, x[n : n + 1], y[n : n + 1], disc)) for n in range(3)])
    assert values.tolist() == pytest.approx(alone.tolist(), rel=1e-5)


@pytest.mark.parametrize("kind", [*PAIR, *ALONE])
def test_what_is_no_picture_is_refused(kind, grey, disc) -> None:
    x = tensor(grey)
    nan = x.clone()
    nan[..., 3, 3] = math.nan
    hostile = [x[0], x.expand(-1, 2, -1, -1), x[:0], x * 1.5, nan, x.to(torch.int16)]
    for bad in hostile:
        with pytest.raises(ImageError):
            kind(*arguments(kind, bad, bad, disc))
    if kind not in ALONE:
        with pytest.raises(ImageError, match="one shape"):
            kind(*arguments(kind, x, torch.cat([x, x]), disc))
    if kind in WITH_MASK:
        for mask in (disc[:-1], disc[None], disc.expand(2, 1, -1, -1), disc * 2, disc - 0.5, disc * math.nan):
            with pytest.raises(ImageError, match="mask is"):
                kind(x, x, mask)


def test_small_pictures_are_refused_where_nothing_can_be_measured() -> None:
    with pytest.raises(ImageError, match="at least 3 x 3"):
        noise_sigma(torch.zeros(1, 1, 2, 9))
    with pytest.raises(ImageError, match="at least 2 x 2"):
        sharpness(torch.zeros(1, 1, 1, 9))


# Distances of sets


class Projection(nn.Module):
    """Some features: a fixed random linear map of the pixels and a bend."""

    def __init__(self, pixels: int = 3 * 8 * 8, features: int = 16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.num_features = features  # torchmetrics asks for it
        self.weight = nn.Parameter(torch.randn(pixels, features, generator=generator) / pixels**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ self.weight).tanh() + 1.5


def pictures(count: int, seed: int, spread: float = 0.4, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, 3, 8, 8, generator=generator) * spread + shift).clamp(-1, 1)


def filled(metric, real: torch.Tensor, edited: torch.Tensor, batch: int = 50):
    for x, side in ((real, True), (edited, False)):
        for part in x.split(batch):
            metric.update(part, real=side)
    return metric


def test_frechet_distance_is_that_of_torchmetrics_and_scipy() -> None:
    network = Projection()
    real, edited = pictures(300, 0), pictures(240, 1, 0.6, 0.2)
    found = filled(FrechetDistance(network), real, edited).compute().item()
    reference = FrechetInceptionDistance(feature=network)
    reference.update(real, real=True)
    reference.update(edited, real=False)
    assert found == pytest.approx(reference.compute().item(), rel=1e-4)
    with torch.no_grad():
        a, b = (network(x).double().numpy() for x in (real, edited))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert found == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_has_its_closed_forms() -> None:
    mean, zero = torch.tensor([3.0, 4.0]), torch.zeros(2)
    unit = torch.eye(2)
    assert frechet_distance(mean, unit, zero, unit).item() == pytest.approx(25)
    wide = torch.diag(torch.tensor([4.0, 9.0]))  # of commuting covariances: the sum of (s1 - s2)^2
    assert frechet_distance(zero, wide, zero, unit).item() == pytest.approx(1 + 4)
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    turned = turn @ wide @ turn.T
    assert frechet_distance(zero, turned, mean, wide) == pytest.approx(frechet_distance(mean, wide, zero, turned))
    singular = torch.outer(mean, mean)  # of rank 1, as that of two pictures is
    assert frechet_distance(zero, singular, zero, torch.zeros(2, 2)).item() == pytest.approx(25)
    assert 0 <= frechet_distance(zero, singular, zero, singular).item() < 1e-6


@pytest.mark.parametrize("kind", [FrechetDistance, KernelDistance])
def test_sets_that_depart_are_further_apart(kind) -> None:
    network, real = Projection(), pictures(200, 0)
    values = [filled(kind(network), real, pictures(200, 1, 0.4, s)).compute().item() for s in (0, 0.1, 0.2, 0.4)]
    assert values == sorted(values) and values[-1] > 10 * abs(values[0])
    there, back = (
        filled(kind(network), *sets).compute().item()
        for sets in ((real, pictures(150, 2, 0.6)), (pictures(150, 2, 0.6), real))
    )
    assert there == pytest.approx(back, rel=1e-5)


def test_a_set_is_at_no_frechet_distance_from_itself_however_few() -> None:
    few = pictures(5, 0)  # covariances of rank 4 in 16 dimensions
    assert filled(FrechetDistance(Projection()), few, few).compute().item() == pytest.approx(0, abs=1e-6)


def test_frechet_state_does_not_grow_and_batches_do_not_matter() -> None:
    network, real, edited = Projection(), pictures(600, 0), pictures(600, 1, 0.5)
    metric = FrechetDistance(network)
    sizes = []
    for part in real.split(100):
        metric.update(part, real=True)
        sizes.append(sum(getattr(metric, name).numel() for name in metric._defaults))
    assert len(set(sizes)) == 1
    large, small = (filled(FrechetDistance(network), real, edited, n).compute().item() for n in (600, 7))
    assert large == pytest.approx(small, rel=1e-6)


def test_frechet_keeps_its_digits_where_the_mean_is_large() -> None:
    shifted = [x.double() for x in (pictures(100, 0), pictures(100, 1, 0.6))]
    plain = filled(FrechetDistance(lambda x: x.double()[:, 0, 0]), *shifted).compute().item()
    far = filled(FrechetDistance(lambda x: x.double()[:, 0, 0] + 1e4), *shifted).compute().item()
    assert far == pytest.approx(plain, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_kernel_distance_is_that_of_torchmetrics() -> None:
    network = Projection()
    real, edited = pictures(120, 0), pictures(120, 1, 0.6, 0.2)
    found = filled(KernelDistance(network), real, edited).compute().item()
    reference = KernelInceptionDistance(feature=network, subsets=1, subset_size=120)  # every picture in the one subset
    reference.update(real, real=True)
    reference.update(edited, real=False)
    assert found == pytest.approx(reference.compute()[0].item(), rel=1e-4)


def test_kernel_distance_is_the_sum_over_pairs_of_other_pictures() -> None:
    x, y = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double(), torch.eye(3).double()

    def k(a, b) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / 12
    within += sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / 6
    expected = within - 2 * sum(k(a, b) for a in x for b in y) / 12
    assert kernel_distance(x, y).item() == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased() -> None:
    draws = torch.randn(400, 2, 12, 4, generator=torch.Generator().manual_seed(1))
    values = torch.stack([kernel_distance(a, b) for a, b in draws])
    assert values.min() < 0 < values.max()
    assert abs(values.mean()) < 3 * values.std() / 20


def test_subsets_agree_with_the_whole(monkeypatch) -> None:
    network, real, edited = Projection(), pictures(300, 0), pictures(280, 1, 0.6, 0.2)
    whole = filled(KernelDistance(network), real, edited).compute().item()
    monkeypatch.setattr(distribution, "SUBSET_SIZE", 60)
    metric = filled(KernelDistance(network), real, edited)
    assert metric.compute().item() == pytest.approx(whole, rel=0.05)
    again = filled(KernelDistance(network), real, edited)
    assert again.compute() == metric.compute()


def test_the_reservoir_is_bounded_fair_and_blind_to_batches(monkeypatch) -> None:
    monkeypatch.setattr(distribution, "RESERVOIR", 100)

    def number(x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 0, 0] * 1000

    numbered = (torch.arange(1000) / 1000).view(-1, 1, 1, 1)
    kept = []
    for batch in (1000, 33):
        metric = filled(KernelDistance(number), numbered, numbered, batch)
        (real,), (edited,) = metric.real_features, metric.edited_features
        assert real.shape == edited.shape == (100, 1)
        assert int(metric.real_count) == 1000
        kept.append((real, edited))
    assert torch.equal(kept[0][0], kept[1][0]) and torch.equal(kept[0][1], kept[1][1])
    real, edited = kept[0]
    assert len(real.unique()) == 100 and not torch.equal(real, edited)
    assert 400 < real.mean() < 600 and (real < 500).sum() > 30 and (real > 900).sum() > 2


@pytest.mark.parametrize("kind", [FrechetDistance, KernelDistance])
def test_set_metrics_refuse_what_they_cannot_use(kind) -> None:
    network, x = Projection(), pictures(6, 0)
    for real, edited in ((x[:1], x), (x, x[:1])):
        with pytest.raises(DataError, match="2 pictures of each"):
            filled(kind(network), real, edited).compute()
    metric = kind(network)
    with pytest.raises(DataError, match="6 real and 0 edited"):
        metric.update(x, real=True)
        metric.compute()
    broken = {
        "not finite": lambda x: x.flatten(1) / 0,
        r"\[6, D\], found \(6, 3, 8, 8\)": lambda x: x,
        r"found \(3, 384\)": lambda x: x.reshape(3, -1),
        r"found \(6, 0\)": lambda x: x.flatten(1)[:, :0],
        "found ndarray": lambda x: x.flatten(1).numpy(),
    }
    for message, features in broken.items():
        with pytest.raises(DataError, match=message):
            kind(features).update(x, real=True)
    with pytest.raises(ImageError):
        kind(network).update(x * 3, real=True)
    changing = kind(lambda x: x.flatten(1))
    changing.update(x, real=True)
    with pytest.raises(DataError, match="48 numbers a picture, those before had 192"):
        changing.update(x[..., :4, :4], real=False)


@pytest.mark.parametrize("kind", [FrechetDistance, KernelDistance])
def test_set_metrics_start_anew_after_reset_and_calling_is_updating(kind) -> None:
    network, real, edited = Projection(), pictures(40, 0), pictures(40, 1, 0.6)
    metric = filled(kind(network), pictures(30, 5), pictures(30, 6))
    metric.reset()
    for x, side in ((real, True), (edited, False)):
        assert metric(x, real=side) is None
    assert metric.compute() == pytest.approx(filled(kind(network), real, edited).compute().item(), rel=1e-6)
    assert metric.name in ("frechet_distance", "kernel_distance") and not metric.higher_is_better


# Inception: a random file in the format of the published one

NAME = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """torchvision's Inception v3 with FID's 1008 classes has the names and shapes of the published file."""
    pytest.importorskip("torch_fidelity")
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch hub's cache of weights, empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_inception_is_read_and_gives_torch_fidelitys_features(inception_file, face) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    features = inception_features(inception_file)
    reference = FeatureExtractorInceptionV3("reference", ["2048"], feature_extractor_weights_path=str(inception_file))
    expected = reference(torch.from_numpy(face.copy()).permute(2, 0, 1)[None])[0]
    metric = FrechetDistance(features).train()
    found = features(tensor(face))
    assert metric.name == "fid" and KernelDistance(features).name == "kid"
    assert found.shape == (1, 2048) and found.std() > 0 and not features.training
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    grey = tensor(face[..., 0])
    assert torch.equal(features(grey), features(grey.expand(-1, 3, -1, -1)))


def test_the_published_file_is_looked_for_in_the_cache_and_has_to_be_the_published_one(
    inception_file, cache, monkeypatch
) -> None:
    with pytest.raises(CheckpointError, match=rf"curl .*{cache}/{NAME} https://github.com/toshas/.*{NAME}"):
        inception_features()
    torch.save({"fc.bias": torch.zeros(1008)}, cache / "pt_inception-2015-12-05-6726825d.pth")
    with pytest.raises(CheckpointError, match="pt_inception.* is not the published file"):
        inception_features()
    (cache / NAME).symlink_to(inception_file)
    with pytest.raises(CheckpointError, match="weights-inception.* is not the published file"):
        inception_features()
    monkeypatch.setattr(distribution, "INCEPTION_SHA256", checkpoints.sha256(inception_file))
    assert isinstance(inception_features(), distribution.InceptionFeatures)


class Payload:
    """Pickled, it makes a file when it is read back."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path) -> None:
    pytest.importorskip("torch_fidelity")
    marker, path = tmp_path / "ran", tmp_path / "hostile.pth"
    torch.save({"fc.weight": torch.zeros(1), "x": Payload(marker)}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        inception_features(path)
    path.write_bytes(pickle.dumps(Payload(marker), protocol=2))
    with pytest.raises(CheckpointError, match="cannot be read"):
        inception_features(path)
    assert not marker.exists()


def test_damaged_and_foreign_files_are_refused(inception_file, tmp_path) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(inception_file.read_bytes()[:1_000_000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        inception_features(path)
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, path)
    with pytest.raises(CheckpointError, match="does not fit FID's Inception"):
        inception_features(path)
    torch.save({"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.full((1008,), math.nan)}, path)
    with pytest.raises(CheckpointError, match="not finite, in fc.bias"):
        inception_features(path)
    with pytest.raises(CheckpointError, match="missing"):
        inception_features(tmp_path / "none.pth")


def test_without_torch_fidelity_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingExtraError, match=r"torch-fidelity.*emoedit\[metrics\]"):
        inception_features()

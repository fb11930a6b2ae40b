"""Pair and set metrics of picture quality: against independent references, closed forms, and hostile input."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from skimage.measure import shannon_entropy
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.image import (
    MultiScaleStructuralSimilarityIndexMeasure,
)

from emoedit.faces.warp import jacobian
from emoedit.metrics import quality
from emoedit.metrics.quality import (
    fold_free,
    grey_entropy,
    ms_ssim,
    noise_sigma,
    psnr,
    sharpness,
    sharpness_kept,
    ssim,
)
from emoedit.types import ImageError

WITH_MASK = [sharpness_kept, fold_free]
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


def test_every_picture_may_have_its_own_mask(grey) -> None:
    source = tensor(grey, grey)
    edited = source.clone()
    edited[:, :, :96] = torch.from_numpy(cv2.GaussianBlur(source[0, 0, :96].numpy(), (0, 0), 2))
    masks = torch.zeros(2, 1, *grey.shape)
    masks[0, :, 100:] = 1
    masks[1, :, :92] = 1
    found = sharpness_kept(source, edited, masks)
    assert found[0] == 1 and found[1] < 0.5


def test_a_mask_that_leaves_nothing_is_refused(grey, disc) -> None:
    x = tensor(grey)
    for measure in (sharpness_kept, fold_free):
        with pytest.raises(ImageError, match="0 everywhere"):
            measure(x, x, torch.zeros(grey.shape))
    half = torch.stack([disc[None], torch.zeros_like(disc)[None]])  # one good mask does not excuse the other
    with pytest.raises(ImageError, match="0 everywhere"):
        fold_free(torch.cat([x, x]), torch.cat([x, x]), half)


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

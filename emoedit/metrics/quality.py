"""Picture quality: similarity to the source, sharpness, noise, and folds of the face.

None of these measures whether an edit succeeds. An editor that does nothing has the best similarity, and a torn or
blurred face can fool a recogniser: read each beside the others.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
)

from emoedit.faces.align import align
from emoedit.faces.warp import jacobian
from emoedit.metrics.base import check_pictures
from emoedit.metrics.landmarks import face_mask
from emoedit.metrics.measure import EditViews, Measure
from emoedit.models.luminance import in_luminance
from emoedit.types import ImageError

WINDOW = 11  # taps of SSIM's Gaussian window, sigma 1.5
MS_SSIM_SIDE = WINDOW * 2**4  # five scales, each half of the last: the smallest still has to hold the window
MAX_PSNR = 100.0  # dB; two pictures that differ in rounding only are near 59 dB
ROUNDING = 20 / 12  # squared grey levels: what rounding to 8 bits (variance 1/12) adds to a Laplacian (1, 1, -4, 1, 1)
FOLD_SIDE = 192  # flow is found at this side: DIS matches 8-pixel patches


def _unit_range(x: Tensor) -> Tensor:
    """The pictures in [0, 1]: SSIM compares mean levels by their ratio, so black has to be 0."""
    return (x + 1) / 2


def _windowed(x: Tensor) -> Tensor:
    """Means under SSIM's Gaussian window wherever it fits, ``[..., H, W]`` -> ``[..., H - 10, W - 10]``."""
    taps = torch.exp(-(torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2).square() / (2 * 1.5**2))
    for axis in (-2, -1):
        length = x.shape[axis] - WINDOW + 1
        x = sum(tap * x.narrow(axis, k, length) for k, tap in enumerate((taps / taps.sum()).tolist()))
    return x


def _grey(x: Tensor) -> Tensor:
    """Luminance (ITU-R BT.601) in grey levels 0 to 255, float32 ``[N, 1, H, W]``."""
    return in_luminance((x.float() + 1) * 127.5)


def _check_mask(mask: Tensor, x: Tensor) -> Tensor:
    """The mask as float32 ``[N, 1, H, W]`` on the pictures' device.

    Raises:
        ImageError: neither ``[H, W]`` nor ``[N, 1, H, W]`` of the pictures, or not in [0, 1].
    """
    size = tuple(x.shape[-2:])
    if tuple(mask.shape) not in (size, (len(x), 1, *size)):
        raise ImageError(f"a mask is [H, W] or [N, 1, H, W]; these pictures need {size}, found {tuple(mask.shape)}")
    mask = mask.to(device=x.device, dtype=torch.float32)
    if not bool(((mask > -0.001) & (mask < 1.001)).all()):  # also refuses NaN; resizing a mask leaves it at 1.0000001
        raise ImageError("a mask is between 0 and 1 everywhere")
    return mask.clamp(0, 1).expand(len(x), 1, *size)


def _check_inside(mask: Tensor) -> Tensor:
    """How much each mask holds, float64 ``[N]``; refuses an empty one."""
    inside = mask.double().sum((1, 2, 3))
    if not bool((inside > 0).all()):
        raise ImageError("the mask is 0 everywhere: there is nothing to measure inside it")
    return inside


def _check_side(x: Tensor, least: int, what: str) -> None:
    if min(x.shape[-2:]) < least:
        raise ImageError(f"{what} needs pictures of at least {least} x {least}, found {x.shape[-2]} x {x.shape[-1]}")


def ssim(source: Tensor, edited: Tensor) -> Tensor:
    """Structural similarity, -1 to 1, 1 for equal pictures (Wang et al. 2004, equation 13).

    Gaussian window of 11 x 11 with sigma 1.5, K1 = .01, K2 = .03; the mean over all places where the window fits, and
    over the channels.

    Args:
        source: ``[N, C, H, W]`` in [-1, 1], sides of at least 11.
        edited: as ``source``.

    Returns:
        ``[N]`` float32.

    Raises:
        ImageError: no such pictures, or smaller.
    """
    check_pictures(source, edited)
    _check_side(source, WINDOW, "SSIM")
    # In float64, as the variances are differences of squares: torchmetrics' float32 gives a white wall .998 of itself.
    a, b = _unit_range(source.double()), _unit_range(edited.double())
    mean_a, mean_b, square_a, square_b, product = _windowed(torch.stack((a, b, a * a, b * b, a * b)))
    spread = square_a + square_b - mean_a.square() - mean_b.square()
    luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a.square() + mean_b.square() + 0.01**2)
    structure = (2 * (product - mean_a * mean_b) + 0.03**2) / (spread + 0.03**2)
    return (luminance * structure).mean((1, 2, 3)).float()


def ms_ssim(source: Tensor, edited: Tensor) -> Tensor:
    """Structural similarity over five scales, 0 to 1, 1 for equal pictures (Wang et al. 2003, equation 7).

    Windows and constants are ``ssim``'s. As torchmetrics has it: a scale at which the structures are opposed counts
    0, as a negative number has no such power; the mean at the coarsest scale takes in its mirrored border; and float32
    takes up to .003 from pictures that are flat and bright, equal ones too.

    Args:
        source: ``[N, C, H, W]`` in [-1, 1], sides of at least ``MS_SSIM_SIDE`` (176): smaller ones cannot be halved
            four times and still hold the window, and fewer scales would be another measure.
        edited: as ``source``.

    Returns:
        ``[N]`` float32.

    Raises:
        ImageError: no such pictures, or smaller.
    """
    check_pictures(source, edited)
    _check_side(source, MS_SSIM_SIDE, "MS-SSIM, which halves a picture four times,")
    return multiscale_structural_similarity_index_measure(
        _unit_range(edited.float()), _unit_range(source.float()), data_range=1.0, reduction="none"
    )


def psnr(source: Tensor, edited: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB: ``10 log10(peak^2 / mean squared difference)``, over all pixels and channels.

    Equal pictures have infinitely many dB, which would swallow any mean they enter: no picture gets more than
    ``MAX_PSNR`` (100).

    Args:
        source: ``[N, C, H, W]`` in [-1, 1]; the peak is 2.
        edited: as ``source``.

    Returns:
        ``[N]`` float32, 0 to 100.

    Raises:
        ImageError: no such pictures.
    """
    check_pictures(source, edited)
    value = peak_signal_noise_ratio(
        edited.float(), source.float(), data_range=2.0, dim=(1, 2, 3), reduction="none", base=10.0
    )
    return value.clamp(0, MAX_PSNR)


def sharpness(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Variance of the Laplacian of the luminance (Pech-Pacheco et al. 2000; LAPV in Pertuz et al. 2013).

    High for fine detail, and for noise too: read it beside ``noise_sigma``. It depends on the subject and on the
    resolution, so only pictures of one subject at one size compare.

    Args:
        x: ``[N, C, H, W]`` in [-1, 1], sides of at least 2.
        mask: ``[H, W]`` or ``[N, 1, H, W]`` in [0, 1]: the weight of each pixel; none weighs all alike.

    Returns:
        ``[N]`` float32 in squared grey levels, 0 for a flat picture.

    Raises:
        ImageError: no such pictures or mask, or a mask that is 0 everywhere.
    """
    check_pictures(x)
    _check_side(x, 2, "sharpness")
    weight = _check_mask(torch.ones(x.shape[-2:]) if mask is None else mask, x)
    inside = _check_inside(weight)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=x.device)
    response = F.conv2d(F.pad(_grey(x), (1, 1, 1, 1), mode="reflect"), kernel.view(1, 1, 3, 3)).double()
    mean = (response * weight).sum((1, 2, 3)) / inside
    spread = (response - mean.view(-1, 1, 1, 1)).square()
    return ((spread * weight).sum((1, 2, 3)) / inside).float()


def sharpness_kept(source: Tensor, edited: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sharpness of the edited picture, that of the source being 1.

    Below 1 is blur; above 1 is new detail, sharpening, or noise. What rounding to 8 bits alone gives
    (``ROUNDING``, 1.7 squared grey levels) is added to both, so that two flat pictures are as sharp as each other.

    Args:
        source: see ``sharpness``.
        edited: as ``source``.
        mask: as ``source``.

    Returns:
        ``[N]`` float32, above 0.

    Raises:
        ImageError: no such pictures or mask, or a mask that is 0 everywhere.
    """
    check_pictures(source, edited)
    return (sharpness(edited, mask) + ROUNDING) / (sharpness(source, mask) + ROUNDING)


def grey_entropy(x: Tensor) -> Tensor:
    """Shannon entropy of the histogram of the luminance, rounded to 256 grey levels (Shannon 1948).

    Args:
        x: ``[N, C, H, W]`` in [-1, 1].

    Returns:
        ``[N]`` float32 in bits: 0 for a flat picture, 8 if every level is as frequent.

    Raises:
        ImageError: no such pictures.
    """
    check_pictures(x)
    levels = _grey(x).round().clamp(0, 255).long().flatten(1)
    first = 256 * torch.arange(len(x), device=x.device).unsqueeze(1)
    counts = torch.bincount((levels + first).flatten(), minlength=256 * len(x)).view(len(x), 256)
    share = counts.double() / levels.shape[1]
    return torch.special.entr(share).sum(1).div(math.log(2)).float()


def noise_sigma(x: Tensor) -> Tensor:
    """Standard deviation of the noise in the luminance (Immerkaer 1996, "Fast noise variance estimation").

    ``sqrt(pi / 2) / (6 (W - 2) (H - 2)) * sum |x * N|`` with ``N = [1 -2 1; -2 4 -2; 1 -2 1]``, which is blind to
    constants, slopes and straight edges along the axes. Thin lines and fine texture count as noise, so a sharp
    photograph without any has three or four levels: compare with the source's value, not with 0.

    Args:
        x: ``[N, C, H, W]`` in [-1, 1], sides of at least 3.

    Returns:
        ``[N]`` float32 in grey levels.

    Raises:
        ImageError: no such pictures, or smaller.
    """
    check_pictures(x)
    _check_side(x, 3, "an estimate of noise")
    kernel = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], device=x.device)
    response = F.conv2d(_grey(x), kernel.view(1, 1, 3, 3))
    return response.abs().mean((1, 2, 3)) * (math.sqrt(math.pi / 2) / 6)


def fold_free(before: Tensor, after: Tensor, mask: Tensor) -> Tensor:
    """Share of the face that was moved without a fold: where the flow's Jacobian is above 0.

    Each pixel of ``after`` has a place in ``before`` that it came from. Where that map turns over (Jacobian at or below
    0), a part of the face appears mirrored or twice: it was torn. The flow is dense inverse search (Kroeger et al.
    2016, arXiv 1603.03590) at ``FOLD_SIDE``, as found: without the variational refinement, which would smooth folds
    away, and after a 5-pixel median, which drops single mismatches. On 120 random warps of a portrait, .87 to 1 of
    which did not fold, it was .01 off on average and .05 at most; noise, blur and a change of light cost next to
    nothing. A part with no likeness in ``before`` (teeth that were not seen) is matched with something and can count as
    a fold; one that looks like ``before`` all the same (a mirrored mouth) does not.

    Args:
        before: ``[N, C, H, W]`` in [-1, 1], aligned crops.
        after: as ``before``.
        mask: ``[H, W]`` or ``[N, 1, H, W]`` in [0, 1]: the face, the weight of each pixel.

    Returns:
        ``[N]`` float32, 0 to 1; 1 is no fold.

    Raises:
        ImageError: no such pictures or mask, or a mask that is 0 everywhere.
    """
    check_pictures(before, after)
    weight = _check_mask(mask, before)
    _check_inside(weight)
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    finder.setVariationalRefinementIterations(0)
    # Averaged where crops are larger, so that a face of few pixels does not fall between the samples.
    resize = cv2.INTER_AREA if min(before.shape[-2:]) > FOLD_SIDE else cv2.INTER_CUBIC
    shares = []
    for first, last, face in zip(*(x[:, 0].cpu().numpy() for x in (_grey(before), _grey(after), weight)), strict=True):
        # DIS reads 8 bits: use all of them, or a dark photograph has too few grey levels for sub-pixel motion.
        low, high = np.percentile(first[face > 0], (1, 99))
        first, last, face = (cv2.resize(x, (FOLD_SIDE, FOLD_SIDE), interpolation=resize) for x in (first, last, face))
        stretch = 220 / max(high - low, 1)
        first, last = (((x - low) * stretch + 18).clip(0, 255).astype(np.uint8) for x in (first, last))
        flow = cv2.medianBlur(finder.calc(last, first, None), 5)
        shares.append(np.average(jacobian(flow) > 0, weights=face.clip(0, 1).astype(np.float64)))
    return torch.tensor(np.array(shares), dtype=torch.float32, device=before.device)


def background_of_photographs(views: EditViews) -> list[float] | None:
    """Root mean square change of whole photographs where no face is, in grey levels; None where the face fills them.

    Args:
        views: outputs of the networks for source and edits.
    """
    alignment = align(views.face.landmarks, views.crop)
    placed = alignment.to_photo(views.source.points.double().numpy())
    outside = ~face_mask(placed, *views.photo.shape[:2])
    if views.photos is None or not outside.any():
        return None
    differences = (picture.astype(np.float32) - views.photo for picture in views.photos)
    return [float(np.sqrt(np.square(difference).mean(-1)[outside].mean())) for difference in differences]


SSIM = Measure(
    "ssim",
    "SSIM",
    3,
    True,
    "1",
    "to the source, in the face crop (Wang et al. 2004)",
    lambda views: ssim(views.luminance_before, views.luminance),
    same_place=True,
    shown_in="rows",
)
MS_SSIM = Measure(
    "ms_ssim",
    "MS-SSIM",
    3,
    True,
    "1",
    "to the source, in the face crop (Wang et al. 2003)",
    lambda views: ms_ssim(views.luminance_before, views.luminance),
    same_place=True,
    shown_in="rows",
)
PSNR = Measure(
    "psnr",
    "PSNR",
    1,
    True,
    "dB",
    "dB to the source, in the face crop, at most 100",
    lambda views: psnr(views.luminance_before, views.luminance),
    same_place=True,
    shown_in="rows",
)
BACKGROUND_CHANGE = Measure(
    "background_change",
    "background",
    2,
    False,
    "grey levels",
    "root mean square change outside the face, grey levels",
    background_of_photographs,
    same_place=True,
    shown_in="summary",
)
SHARPNESS_KEPT = Measure(
    "sharpness_kept",
    "sharpness",
    2,
    None,
    "1",
    "variance of the Laplacian, the source's is 1",
    lambda views: sharpness_kept(views.luminance_before, views.luminance, views.inside),
    same_place=True,
    shown_in="summary",
)
FOLD_FREE = Measure(
    "fold_free",
    "no folds",
    3,
    True,
    "1",
    "share of the face whose implied flow does not fold, 0 to 1",
    lambda views: fold_free(views.luminance_before, views.luminance, views.inside),
    same_place=True,
    shown_in="summary",
)
ENTROPY = Measure(
    "entropy",
    "entropy",
    2,
    None,
    "bits",
    "of the grey levels in the face crop, bits, 0 to 8",
    lambda views: grey_entropy(views.luminance),
    shown_in="rows",
)
NOISE = Measure(
    "noise",
    "noise",
    2,
    None,
    "grey levels",
    "noise estimate in the face crop, grey levels (Immerkaer 1996)",
    lambda views: noise_sigma(views.luminance),
    shown_in="rows",
)

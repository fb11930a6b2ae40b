"""Ratio images of smiles and neutral faces, for training the network that removes a smile's light from a face.

Two photographs of a person also differ in their illumination. Smooth differences are therefore fitted and subtracted,
and in training the input is lit at random. So the network cannot learn to remove a photograph's own illumination, and
predicts what smiles have in common and what fine lines show.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import swa_utils
from tqdm import tqdm

from emoedit.compositing.relaxing import find_smile, relax
from emoedit.faces.analysis import FaceAnalysis, Finders, analyse
from emoedit.faces.landmarks import landmark_finder
from emoedit.faces.masks import face_masks
from emoedit.faces.tone import LUMA, Tone
from emoedit.faces.warp import landmark_flow, sample
from emoedit.nn.relaxation import RelaxationNetwork
from emoedit.nn.relighting import DIM, RelightingNetwork
from emoedit.training.data import CropSet
from emoedit.training.relaxation import Pair, crop_as_photo
from emoedit.types import CropSpec

SMOOTH = 0.02  # in crop sides: ratios are smoothed by this; finer detail is landmark error and not light
LARGEST = 1.0  # logarithms of ratios are clipped here: larger ones are hair and objects in front of a face
REACH, NOISE = 0.1, 0.02  # of ``landmark_flow``; less noise than in compositing/relaxing.py trusts landmarks more
# Random light of the network's input: cells across a crop, and deviation of the logarithm.
LIGHT = ((3, 0.3), (5, 0.25), (9, 0.15))
CONTRAST = (0.7, 1.3)  # of the input's logarithms
SHIFT = 2  # largest random shift in pixels, about the error of landmarks on other people
AVERAGED = 0.99  # decay of the moving average of weights
TOLERANCE = 0.1  # beta of the smooth L1 loss


def analyse_crop(crop: np.ndarray, spec: CropSpec) -> FaceAnalysis:
    """Analyse the face in a prepared crop.

    Args:
        crop: uint8 ``[R, R, 3]``.
        spec: the crop's alignment.
    """
    face, alignment = crop_as_photo(len(crop), spec)
    masks = face_masks(CropSpec(len(crop), spec.style, spec.scale, spec.down))
    return analyse(crop, face, alignment, masks, Tone(), Finders.on("cpu"))


def ratio_images(
    crops: CropSet, points: np.ndarray, pairs: list[Pair], network: RelaxationNetwork, spec: CropSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training data of the relighting network.

    Args:
        crops: prepared crops in colour.
        points: ``[N, 68, 2]`` landmarks in fractions of the side from its centre.
        pairs: pairs of smiles and neutral faces.
        network: network that predicts neutral landmarks.
        spec: the relighting network's crop.

    Returns:
        Logarithms of levels of smiles after ``relax``, float32 ``[M, 1, S, S]``; logarithms of the ratio of the neutral
        photograph's light to theirs, of the same shape; the row of the smile ``[M]``. Pictures in which ``find_smile``
        finds none are left out.
    """
    side = crops.crops.shape[1]
    inside = face_masks(spec).face > 0.5
    face, alignment = crop_as_photo(side, spec)
    x, y, rows = [], [], []
    neutral: dict[int, list[int]] = {}
    for pair in pairs:
        neutral.setdefault(pair.smiling, []).append(pair.neutral)
    for row, others in tqdm(neutral.items(), desc="ratio images", leave=False):
        crop = np.ascontiguousarray(crops.crops[row])
        analysis = analyse_crop(crop, spec)
        smile = find_smile(analysis, network)
        if smile is None:
            continue
        relaxed = relax(crop, analysis, smile)
        after = landmark_finder("cpu")([relaxed.astype(np.float32)], alignment, face)[0]
        levels = _levels(relaxed, spec.resolution)
        for other in others:
            before = (points[other] + 0.5) * side - 0.5
            flow, _ = landmark_flow(before, after, slice(None), side, side, reach=REACH, noise=NOISE)
            target = sample(np.asarray(crops.crops[other], np.float32), flow)
            x.append(levels - np.median(levels[inside]))
            y.append(_ratio(_levels(target, spec.resolution) - levels, inside))
            rows.append(row)
    return np.array(x, np.float32)[:, None], np.array(y, np.float32)[:, None], np.array(rows)


def _levels(rgb: np.ndarray, side: int) -> np.ndarray:
    """Logarithms of grey levels, resized to ``[side, side]``."""
    luma = np.clip(rgb.astype(np.float32) @ LUMA, 0, 255)
    return np.log(cv2.resize(luma, (side, side), interpolation=cv2.INTER_AREA) + DIM)


def _ratio(difference: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A ratio's logarithm less the quadratic surface that fits it inside the face, smoothed."""
    side = len(difference)
    v, u = np.mgrid[0:side, 0:side] / side - 0.5
    surface = np.stack([np.ones_like(u), u, v, u * v, u * u, v * v], -1)
    wanted = difference[inside]
    wanted = np.clip(wanted, *np.quantile(wanted, (0.1, 0.9)))  # limits the influence of hair and glasses
    fitted = surface @ np.linalg.lstsq(surface[inside], wanted, rcond=None)[0]
    return cv2.GaussianBlur(np.clip(difference - fitted, -LARGEST, LARGEST), (0, 0), SMOOTH * side)


def fit_relighting(
    network: RelightingNetwork,
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> None:
    """Train the network in place; its weights are a moving average.

    Args:
        network: network with fresh weights.
        x: ``[N, 1, S, S]`` from [ratio_images][emoedit.training.relighting.ratio_images].
        y: the ratios, of the same shape.
        weights: ``[N]``: relative frequency of each pair.
        steps: number of steps of AdamW; the learning rate rises over a hundred and falls over the second half.
        batch_size: pairs a step.
        learning_rate: highest learning rate.
        seed: seed of batches, mirror images and light.
    """
    torch.manual_seed(seed)
    spec = network.crop
    mask = torch.from_numpy(face_masks(spec).face).float()
    trained = type(network)(network.config)
    averaged = swa_utils.AveragedModel(trained, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(AVERAGED))
    optimiser = torch.optim.AdamW(trained.parameters(), learning_rate, weight_decay=0.05)
    for step in tqdm(range(steps), desc="relighting", leave=False):
        pick = torch.multinomial(weights, batch_size, replacement=True)
        mirrored = (torch.rand(batch_size) < 0.5)[:, None, None, None]
        shift = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
        seen, wanted = (torch.where(mirrored, v[pick].flip(-1), v[pick]).roll(shift, (2, 3)) for v in (x, y))
        error = F.smooth_l1_loss(trained(_relit(seen)), wanted, beta=TOLERANCE, reduction="none")
        loss = (error * mask).sum() / mask.sum() / batch_size
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100, 2 * (1 - step / steps))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(trained)
    network.load_state_dict(averaged.module.state_dict())


def _relit(x: Tensor) -> Tensor:
    """Logarithms of levels ``[B, 1, S, S]`` in random light and contrast."""
    size = x.shape[-2:]
    low, high = CONTRAST
    x = x * (low + (high - low) * torch.rand(len(x), 1, 1, 1))
    for cells, deviation in LIGHT:
        light = deviation * torch.randn(len(x), 1, cells, cells)
        x = x + F.interpolate(light, size, mode="bicubic", align_corners=True)
    return x

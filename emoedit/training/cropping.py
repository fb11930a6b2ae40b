"""One labelled picture becomes an aligned crop, or a reason why it is left out; by as many processes as wanted.

Detections are kept by the content of pictures, so that the same pictures at another size or crop cost only the
resampling.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from emoedit.faces.align import Alignment, align
from emoedit.faces.detect import Face, FaceDetector
from emoedit.training.readers import Sample
from emoedit.types import CropSpec, ImageError

FIELDS = (
    *("data", "name", "emotion", "person", "split", "votes", "group", "age", "gender", "colour"),
    *("confidence", "yaw", "coverage", "detail", "matrix"),
)
GREY = 2  # levels by which the channels of a grey picture may differ: what JPEG leaves
Detection = list[Any]  # box, landmarks and confidence, as json has them; empty where there is no face


@dataclass(frozen=True)
class Filter:
    """What is kept.

    Args:
        min_confidence: lowest confidence of the detector, 0 to 1.
        max_yaw: largest [Face.yaw][emoedit.faces.detect.Face.yaw]; 0.45 is about 35 degrees.
        min_coverage: share of the crop that lies inside the picture, 0 to 1.
        min_contrast: standard deviation of the crop's luminance, 0 to 127.
    """

    min_confidence: float = 0.95
    max_yaw: float = 0.45
    min_coverage: float = 0.5
    min_contrast: float = 12.0


@dataclass(frozen=True)
class Crop:
    """An aligned crop.

    Args:
        pixels: uint8 ``[R, R, 3]``, RGB.
        row: what is known of it, text by ``FIELDS``; ``data`` is empty.
    """

    pixels: np.ndarray
    row: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """The result of preparing one picture.

    Args:
        result: the crop, or the reason why there is none.
        key: key of the picture's content; None for one that cannot be read.
        detection: detection of its face.
    """

    result: Crop | str
    key: str | None = None
    detection: Detection | None = None


def _pixels(sample: Sample) -> np.ndarray:
    """uint8 ``[H, W, 3]`` of a sample."""
    if isinstance(sample.picture, np.ndarray):
        return np.repeat(sample.picture[..., None], 3, -1) if sample.picture.ndim == 2 else sample.picture
    from emoedit.io.images import load_picture

    return load_picture(sample.picture).rgb


def _central(faces: list[Face], height: int, width: int) -> Face:
    """The face a labelled picture is about: large and near the middle."""
    middle = np.array([width, height]) / 2

    def merit(face: Face) -> float:
        centre = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
        return face.area / (height * width) - float(np.hypot(*(centre - middle))) / max(height, width)

    return max(faces, key=merit)


class _Process:
    """What a process has once: MTCNN takes longer to build than to run, the cache longer to send than to look up in."""

    detector: FaceDetector
    cached: Mapping[str, Detection]


def _start(cached: Mapping[str, Detection]) -> None:
    _Process.detector, _Process.cached = FaceDetector(min_confidence=0.5), cached


def _start_worker(cached: Mapping[str, Detection]) -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _start(cached)


@contextmanager
def worker_map(count: int, cached: Mapping[str, Detection]) -> Iterator[Callable[..., Iterator[Outcome]]]:
    """A ``map`` of ``crop_sample`` over so many processes, one thread each; with 1 in this process.

    Args:
        count: how many.
        cached: detections by content.
    """
    if count == 1:
        _start(cached)
        yield map
        return
    # Not forked: a child of a process whose threads hold locks would wait for them for ever.
    how = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, how, initializer=_start_worker, initargs=(dict(cached),)) as pool:
        yield partial(pool.map, chunksize=32)


def _detect(key: str, rgb: np.ndarray) -> Detection:
    if key in _Process.cached:
        return _Process.cached[key]
    faces = _Process.detector(rgb)
    if not faces:
        return []
    face = _central(faces, *rgb.shape[:2])
    return [[*face.box], face.landmarks.round(3).tolist(), face.confidence]


def crop_sample(sample: Sample, spec: CropSpec, keep: Filter) -> Outcome:
    """The crop of one picture, or why there is none.

    Args:
        sample: the picture and its labels.
        spec: the crop.
        keep: what is kept.
    """
    try:
        rgb = _pixels(sample)
    except ImageError as error:
        return Outcome(f"unreadable: {error}")
    key = hashlib.sha1(np.ascontiguousarray(rgb).data).hexdigest()
    found = _detect(key, rgb)
    return Outcome(_crop(sample, rgb, found, spec, keep) if found else "no face", key, found)


def _crop(sample: Sample, rgb: np.ndarray, found: Detection, spec: CropSpec, keep: Filter) -> Crop | str:
    import cv2

    face = Face(tuple(found[0]), np.array(found[1]), found[2])
    if face.confidence < keep.min_confidence:
        return "unsure face"
    if abs(face.yaw) > keep.max_yaw:
        return "extreme pose"
    alignment = align(face.landmarks, spec)
    coverage = alignment.coverage(*rgb.shape[:2])
    if coverage < keep.min_coverage:
        return "cut off"
    pixels = alignment.crop(rgb)
    if cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).std() < keep.min_contrast:
        return "no contrast"
    return Crop(pixels, _row(sample, face, alignment, coverage, pixels))


def _row(sample: Sample, face: Face, alignment: Alignment, coverage: float, pixels: np.ndarray) -> dict[str, str]:
    """What is known of a crop, as ``index.csv`` has it."""
    return {
        "data": "",
        "name": sample.name,
        "emotion": sample.emotion,
        "person": sample.person or "",
        "split": sample.split or "",
        "votes": " ".join(map(str, sample.votes or ())),
        **{name: sample.traits.get(name, "") for name in ("group", "age", "gender")},
        "colour": str(int(np.ptp(pixels.astype(np.int16), axis=-1).max() > GREY)),
        "confidence": f"{face.confidence:.4f}",
        "yaw": f"{face.yaw:.3f}",
        "coverage": f"{coverage:.3f}",
        "detail": f"{1 / alignment.zoom:.3f}",
        "matrix": " ".join(f"{value:.6g}" for value in alignment.matrix.ravel()),
    }


def fingerprint(crop: np.ndarray) -> bytes:
    """256-bit difference hash: equal for re-encoded copies of one picture, different for two pictures of one person.

    Args:
        crop: uint8 ``[R, R, 3]``, RGB.
    """
    import cv2

    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def chunks(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    """The samples, so many at a time.

    Args:
        samples: all samples.
        size: samples in a chunk.
    """
    for start in range(0, len(samples), size):
        yield samples[start : start + size]

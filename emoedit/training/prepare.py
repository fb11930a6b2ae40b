"""Prepares labelled pictures as aligned crops in colour on disk, with a report of what was dropped and why.

Written to the output folder:

- ``crops.npy``: uint8 ``[N, R, R, 3]``, RGB (three equal channels where the picture is grey), read with
  ``mmap_mode="r"`` so that a set larger than memory streams;
- ``index.csv``: a row a crop: data set, name, emotion, person, split, votes, group, age, gender, whether it has colour,
  confidence, yaw, coverage, detail, and the six numbers of the matrix from picture to crop, so that labels in picture
  pixels can follow; what is not known is empty;
- ``report.json``: how many were kept (and of them grey, and of which group), how many dropped for which reason, and
  the names.

Detections are cached by content, so preparing again at another size or crop costs only the resampling.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emoedit.faces.align import align
from emoedit.faces.detect import Face, FaceDetector
from emoedit.training.readers import Sample, read
from emoedit.types import CropSpec, DataError, ImageError

FIELDS = (
    *("data", "name", "emotion", "person", "split", "votes", "group", "age", "gender", "colour"),
    *("confidence", "yaw", "coverage", "detail", "matrix"),
)
GREY = 2  # levels by which the channels of a grey picture may differ: what JPEG leaves


@dataclass(frozen=True)
class Filter:
    """What is kept.

    Args:
        min_confidence: lowest confidence of the detector, 0 to 1.
        max_yaw: largest value of ``emoedit.faces.detect.Face.yaw``; 0.45 is about 35 degrees.
        min_coverage: share of the crop that lies inside the picture, 0 to 1.
        min_contrast: standard deviation of the crop's luminance, 0 to 127.
    """

    min_confidence: float = 0.95
    max_yaw: float = 0.45
    min_coverage: float = 0.5
    min_contrast: float = 12.0


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


# Both once a worker process: MTCNN takes longer to build than to run, and the cache longer to send than to look up in.
_detector: FaceDetector | None = None
_cached: Mapping[str, list] = {}


def _start(cached: Mapping[str, list]) -> None:
    global _detector, _cached
    _detector = FaceDetector(min_confidence=0.5)
    _cached = cached


def _start_worker(cached: Mapping[str, list]) -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _start(cached)


def _prepare_one(sample: Sample, spec: CropSpec, keep: Filter) -> tuple:
    """(content key, detection or None, reason it was dropped or None, crop or None, row or None)."""
    import cv2

    assert _detector is not None
    try:
        rgb = _pixels(sample)
    except ImageError as error:
        return None, None, f"unreadable: {error}", None, None
    key = hashlib.sha1(np.ascontiguousarray(rgb)).hexdigest()
    if key in _cached:
        found = _cached[key]
    else:
        faces = _detector(rgb)
        found = []
        if faces:
            face = _central(faces, *rgb.shape[:2])
            found = [[*face.box], face.landmarks.round(3).tolist(), face.confidence]
    if not found:
        return key, found, "no face", None, None
    face = Face(tuple(found[0]), np.array(found[1]), found[2])
    if face.confidence < keep.min_confidence:
        return key, found, "unsure face", None, None
    if abs(face.yaw) > keep.max_yaw:
        return key, found, "extreme pose", None, None
    alignment = align(face.landmarks, spec)
    coverage = alignment.coverage(*rgb.shape[:2])
    if coverage < keep.min_coverage:
        return key, found, "cut off", None, None
    crop = alignment.crop(rgb)
    if cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).std() < keep.min_contrast:
        return key, found, "no contrast", None, None
    row = {
        "data": "",
        "name": sample.name,
        "emotion": sample.emotion,
        "person": sample.person or "",
        "split": sample.split or "",
        "votes": " ".join(map(str, sample.votes or ())),
        **{name: sample.traits.get(name, "") for name in ("group", "age", "gender")},
        "colour": str(int(np.ptp(crop.astype(np.int16), axis=-1).max() > GREY)),
        "confidence": f"{face.confidence:.4f}",
        "yaw": f"{face.yaw:.3f}",
        "coverage": f"{coverage:.3f}",
        "detail": f"{1 / alignment.zoom:.3f}",
        "matrix": " ".join(f"{value:.6g}" for value in alignment.matrix.ravel()),
    }
    return key, found, None, crop, row


def _hash(crop: np.ndarray) -> bytes:
    """256-bit difference hash: equal for re-encoded copies of one picture, different for two pictures of one person."""
    import cv2

    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def split_of(data: str, name: str, person: str | None, *, valid: float = 0.05) -> str:
    """``"train"`` or ``"valid"``: by person where one is known, by picture else; the same on every machine.

    Args:
        data: name of a data set.
        name: name of the picture.
        person: who it shows; None where that is unknown.
        valid: share of the people or pictures in ``valid``.
    """
    return "valid" if _drawn(data, person or name) < valid else "train"


def _drawn(data: str, unit: str) -> float:
    """A number from 0 to below 1 of a person or picture, the same on every machine."""
    digest = hashlib.sha1(f"{data}/{unit}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def _on_both_sides(data: str, rows: Sequence[dict[str, str]], units: Sequence[str]) -> None:
    """Ensures that a small data set is on both sides of its split: one person, or picture, changes sides if need be.

    Args:
        data: its name.
        rows: rows of its crops; ``split`` may be changed.
        units: units of each crop, what is not divided: the person where one is known, else the picture.
    """
    order = sorted(set(units), key=lambda unit: (_drawn(data, unit), unit))
    sides = {row["split"] for row in rows}
    if len(sides) != 1 or len(order) < 2:
        return
    moved, side = (order[0], "valid") if sides == {"train"} else (order[-1], "train")
    for row, unit in zip(rows, units, strict=True):
        if unit == moved:
            row["split"] = side


def _chunks(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def prepare(
    sets: Mapping[str, Sequence[Sample]],
    output: str | Path,
    spec: CropSpec,
    *,
    keep: Filter | Mapping[str, Filter] = Filter(),  # noqa: B008 - frozen
    by_content: Collection[str] = (),
    workers: int | None = None,
) -> dict:
    """Detect, align, filter and write the crops of several data sets.

    Args:
        sets: samples by data set name.
        output: folder; created.
        spec: the crop.
        keep: what is kept; or one for each data set.
        by_content: data sets that are split by what their pictures show instead of by name, where no person is known:
            a copy under another name stays on its side. A data set without splits of its own has at least one person,
            or picture, on each side.
        workers: processes, one thread each; default: one a core. With 1 the work is done in this process.

    Returns:
        The report: ``kept`` {data: n}, ``grey`` {data: n of these}, ``emotions`` {data: {emotion: n}}, ``groups``
        {data: {group: n}}, ``dropped`` {reason: {data: n}}, ``names`` {reason: [data/name]}.

    Raises:
        DataError: nothing was left.
    """
    from tqdm import tqdm

    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    cache_file = output / "detections.jsonl"
    cached: dict[str, list] = {}
    if cache_file.is_file():
        for line in cache_file.read_text(encoding="utf-8").splitlines():
            try:
                key, found = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was killed while writing it: detected again below
            cached[key] = found
    workers = workers or os.cpu_count() or 1
    total = sum(map(len, sets.values()))
    temporary = output / "crops.part.npy"
    crops = np.lib.format.open_memmap(temporary, "w+", np.uint8, (total, spec.resolution, spec.resolution, 3))
    rows: list[dict] = []
    dropped: dict[str, Counter] = {}
    names: dict[str, list[str]] = {}
    seen: set[bytes] = set()
    units: dict[str, list[str]] = {}  # of each data set, who or what must not be on both sides of its split
    own_split: set[str] = set()
    new_names: Counter = Counter()
    with (
        ExitStack() as stack,
        cache_file.open("a", encoding="utf-8") as cache,
        tqdm(total=total, unit="picture", smoothing=0.05) as bar,
    ):
        if workers == 1:
            _start(cached)
            run = map
        else:
            # Not forked: a child of a process whose threads hold locks would wait for them for ever.
            how = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, how, initializer=_start_worker, initargs=(dict(cached),))
            run = partial(stack.enter_context(pool).map, chunksize=32)
        for data, samples in sets.items():
            job = partial(_prepare_one, spec=spec, keep=keep if isinstance(keep, Filter) else keep[data])
            for chunk in _chunks(samples, 2048):
                results = run(job, chunk)
                for sample, (key, found, reason, crop, row) in zip(chunk, results, strict=True):
                    bar.update()
                    if key is not None and key not in cached:
                        cached[key] = found
                        cache.write(json.dumps([key, found]) + "\n")
                    if reason is None and (fingerprint := _hash(crop)) in seen:
                        reason = "duplicate"
                    if reason is not None:
                        kind = reason.split(":")[0]
                        dropped.setdefault(kind, Counter())[data] += 1
                        names.setdefault(kind, []).append(f"{data}/{sample.name}")
                        continue
                    seen.add(fingerprint)
                    crops[len(rows)] = crop
                    row["data"] = data
                    name = fingerprint.hex() if data in by_content else sample.name
                    units.setdefault(data, []).append(sample.person or name)
                    if row["split"]:
                        own_split.add(data)
                    row["split"] = row["split"] or split_of(data, name, sample.person)
                    rows.append(row)
                    new_names[data] += 1
    if not rows:
        reasons = ", ".join(f"{sum(c.values())} {kind}" for kind, c in dropped.items()) or "no pictures given"
        raise DataError(f"no usable picture in {', '.join(sets) or 'no data set'}: {reasons}")
    for data in units.keys() - own_split:
        _on_both_sides(data, [row for row in rows if row["data"] == data], units[data])
    crops.flush()
    del crops
    _shrink(temporary, output / "crops.npy", len(rows), spec.resolution)
    with (output / "index.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    report = {
        "crop": spec.__dict__,
        "kept": dict(new_names),
        "grey": dict(Counter(row["data"] for row in rows if row["colour"] == "0")),
        "emotions": _counted(rows, "emotion"),
        "groups": _counted(rows, "group"),
        "dropped": {kind: dict(counts) for kind, counts in dropped.items()},
        "names": names,
    }
    (output / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _counted(rows: Sequence[Mapping[str, str]], column: str) -> dict[str, dict[str, int]]:
    """How often each value of a column comes in each data set, the most frequent first; what is empty is left out."""
    found: dict[str, Counter] = {}
    for row in rows:
        if row[column]:
            found.setdefault(row["data"], Counter())[row[column]] += 1
    return {data: dict(counts.most_common()) for data, counts in found.items()}


def prepare_config(data: Mapping[str, Any]) -> dict:
    """Calls ``prepare`` with a ``configs/data`` file.

    The file has ``root``, ``crops``, ``sets``, ``resolution``, ``scale``, ``down`` and ``filter``. An entry of ``sets``
    has a ``reader`` and a ``path``, and may have ``options`` of the reader, changes of the ``filter``, and
    ``split: content``.

    Args:
        data: contents of a ``configs/data`` file.
    """
    root, sets, keep = Path(data["root"]), {}, {}
    for name, how in data["sets"].items():
        sets[name] = read(how["reader"], root / how["path"], **how.get("options", {}))
        keep[name] = Filter(**{**data["filter"], **how.get("filter", {})})
    spec = CropSpec(data["resolution"], "stable", data["scale"], data["down"])
    by_content = [name for name, how in data["sets"].items() if how.get("split") == "content"]
    return prepare(sets, data["crops"], spec, keep=keep, by_content=by_content)


def _shrink(source: Path, target: Path, count: int, resolution: int) -> None:
    """The first ``count`` crops of a memory-mapped file, under the final name."""
    full = np.load(source, mmap_mode="r")
    shrunk = target.with_suffix(".new.npy")
    out = np.lib.format.open_memmap(shrunk, "w+", np.uint8, (count, resolution, resolution, 3))
    for start in range(0, count, 4096):
        out[start : start + 4096] = full[start : min(start + 4096, count)]
    out.flush()
    del out, full
    shrunk.replace(target)
    source.unlink()

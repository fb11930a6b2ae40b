"""Prepares labelled pictures as aligned crops in colour on disk, with a report of what was dropped and why.

Written to the output folder:

- ``crops.npy``: uint8 ``[N, R, R, 3]``, RGB (three equal channels where the picture is grey), read with
  ``mmap_mode="r"`` so that a set larger than memory streams;
- ``index.csv``: a row a crop: data set, name, emotion, person, split, votes, group, age, gender, whether it has colour,
  confidence, yaw, coverage, detail, and the six numbers of the matrix from picture to crop, so that labels in picture
  pixels can follow; what is not known is empty;
- ``report.json``: how many were kept (and of them grey, and of which group), how many dropped for which reason, and
  the names.

Detections are cached by content (``detections.jsonl``).
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emoedit.training.cropping import FIELDS, Crop, Detection, Filter, chunks, crop_sample, fingerprint, worker_map
from emoedit.training.readers import Sample, read
from emoedit.types import CropSpec, DataError


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


class _Kept:
    """Crops that are kept, and what was dropped, while pictures come in.

    Args:
        crops: uint8 ``[N, R, R, 3]``, filled from the front.
        by_content: data sets that are split by what their pictures show.
    """

    def __init__(self, crops: np.ndarray, by_content: Collection[str]) -> None:
        self.crops, self.by_content = crops, by_content
        self.rows: list[dict[str, str]] = []
        self.dropped: dict[str, Counter[str]] = {}
        self.names: dict[str, list[str]] = {}
        self.units: dict[str, list[str]] = {}  # of each data set, who or what must not be on both sides of its split
        self._seen: set[bytes] = set()
        self._own_split: set[str] = set()

    def add(self, data: str, sample: Sample, result: Crop | str) -> None:
        """Add the result of preparing a picture of a data set."""
        known = fingerprint(result.pixels) if isinstance(result, Crop) else b""
        if known in self._seen:
            result = "duplicate"
        if isinstance(result, str):
            reason = result.split(":")[0]
            self.dropped.setdefault(reason, Counter())[data] += 1
            self.names.setdefault(reason, []).append(f"{data}/{sample.name}")
            return
        self._seen.add(known)
        self.crops[len(self.rows)] = result.pixels
        name = known.hex() if data in self.by_content else sample.name
        self.units.setdefault(data, []).append(sample.person or name)
        if result.row["split"]:
            self._own_split.add(data)
        side = result.row["split"] or split_of(data, name, sample.person)
        self.rows.append({**result.row, "data": data, "split": side})

    def divide(self) -> None:
        """Put every data set without splits of its own on both sides."""
        for data in self.units.keys() - self._own_split:
            _on_both_sides(data, [row for row in self.rows if row["data"] == data], self.units[data])

    def report(self, spec: CropSpec) -> dict[str, Any]:
        """What ``prepare`` returns."""
        return {
            "crop": spec.__dict__,
            "kept": dict(Counter(row["data"] for row in self.rows)),
            "grey": dict(Counter(row["data"] for row in self.rows if row["colour"] == "0")),
            "emotions": _counted(self.rows, "emotion"),
            "groups": _counted(self.rows, "group"),
            "dropped": {kind: dict(counts) for kind, counts in self.dropped.items()},
            "names": self.names,
        }


def prepare(
    sets: Mapping[str, Sequence[Sample]],
    output: str | Path,
    spec: CropSpec,
    *,
    keep: Filter | Mapping[str, Filter] = Filter(),  # noqa: B008 - frozen
    by_content: Collection[str] = (),
    workers: int | None = None,
) -> dict[str, Any]:
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
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    temporary, total = output / "crops.part.npy", sum(map(len, sets.values()))
    crops = np.lib.format.open_memmap(temporary, "w+", np.uint8, (total, spec.resolution, spec.resolution, 3))
    kept = _Kept(crops, by_content)
    _fill(kept, sets, spec, keep, output / "detections.jsonl", workers or os.cpu_count() or 1)
    if not kept.rows:
        reasons = ", ".join(f"{counts.total()} {kind}" for kind, counts in kept.dropped.items()) or "no pictures given"
        raise DataError(f"no usable picture in {', '.join(sets) or 'no data set'}: {reasons}")
    kept.divide()
    crops.flush()
    del kept.crops, crops
    _shrink(temporary, output / "crops.npy", len(kept.rows), spec.resolution)
    with (output / "index.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(kept.rows)
    report = kept.report(spec)
    (output / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _fill(
    kept: _Kept,
    sets: Mapping[str, Sequence[Sample]],
    spec: CropSpec,
    keep: Filter | Mapping[str, Filter],
    cache_file: Path,
    workers: int,
) -> None:
    """Crop all pictures; what is detected is written down at once, for a run that is stopped."""
    from tqdm import tqdm

    cached, total = _read_detections(cache_file), sum(map(len, sets.values()))
    with (
        cache_file.open("a", encoding="utf-8") as cache,
        worker_map(workers, cached) as run,
        tqdm(total=total, unit="picture", smoothing=0.05) as bar,
    ):
        for data, samples in sets.items():
            job = partial(crop_sample, spec=spec, keep=keep if isinstance(keep, Filter) else keep[data])
            for chunk in chunks(samples, 2048):
                for sample, outcome in zip(chunk, run(job, chunk), strict=True):
                    bar.update()
                    if outcome.key is not None and outcome.detection is not None and outcome.key not in cached:
                        cached[outcome.key] = outcome.detection
                        cache.write(json.dumps([outcome.key, outcome.detection]) + "\n")
                    kept.add(data, sample, outcome.result)


def _read_detections(file: Path) -> dict[str, Detection]:
    """Detections by content, of runs before."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            key, detection = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed while writing it: detected again
        found[key] = detection
    return found


def _counted(rows: Sequence[Mapping[str, str]], column: str) -> dict[str, dict[str, int]]:
    """How often each value of a column comes in each data set, the most frequent first; what is empty is left out."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        if row[column]:
            found.setdefault(row["data"], Counter())[row[column]] += 1
    return {data: dict(counts.most_common()) for data, counts in found.items()}


def prepare_config(data: Mapping[str, Any]) -> dict[str, Any]:
    """``prepare`` from a ``configs/data`` file.

    Args:
        data: ``root``, ``crops``, ``sets``, ``resolution``, ``scale``, ``down``, ``filter``. An entry of ``sets`` has a
            ``reader`` and a ``path``, and may have ``options`` of the reader, changes of the ``filter``, and ``split:
            content``.

    Returns:
        The report of ``prepare``.
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

"""Prepared crops as training batches.

The batch of a step is a pure function of (seed, step, process): a resumed or a distributed training gets the batches
of an uninterrupted one without stored state.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.models.luminance import in_luminance
from emoedit.types import LUMA_WEIGHTS, DataError


class CropSet:
    """The crops that ``emoedit.training.prepare.prepare`` wrote; pixels are memory-mapped.

    Args:
        folder: folder of prepared crops.

    Attributes:
        rows: the index, a dict a crop.
        crops: uint8 ``[N, R, R, 3]``, or ``[N, R, R]`` of a set in luminance alone.

    Raises:
        DataError: there are none, or its files do not fit each other.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "crops.npy").is_file() or not (folder / "index.csv").is_file():
            raise DataError(f"{folder}: no prepared crops there (crops.npy, index.csv); run the preparation first")
        self.crops = np.load(folder / "crops.npy", mmap_mode="r")
        with (folder / "index.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            self.rows = list(csv.DictReader(file))
        if len(self.rows) != len(self.crops):
            raise DataError(f"{folder}: index.csv has {len(self.rows)} rows for {len(self.crops)} crops; prepare again")

    def column(self, name: str) -> np.ndarray:
        """One column of the index, ``[N]`` of str."""
        return np.array([row[name] for row in self.rows])

    def where(self, **equal: str) -> np.ndarray:
        """Positions of the rows whose columns equal these values."""
        hit = np.ones(len(self.rows), bool)
        for name, value in equal.items():
            hit &= self.column(name) == value
        return np.flatnonzero(hit)

    def luminance(self, position: int) -> np.ndarray:
        """One crop as it is on disk, in luminance: uint8 ``[R, R]``."""
        crop = np.asarray(self.crops[position])
        return crop if crop.ndim == 2 else np.rint(crop @ np.array(LUMA_WEIGHTS)).astype(np.uint8)

    def pixels(self, positions: np.ndarray, resolution: int, channels: int = 1) -> Tensor:
        """Crops at a resolution.

        Args:
            positions: ``[N]``.
            resolution: R.
            channels: C: 1 for luminance, 3 for RGB; grey pictures have three equal channels.

        Returns:
            Float ``[N, C, R, R]`` in [-1, 1].
        """
        order = np.argsort(positions)  # reading forwards keeps a memory-mapped file on a slow disk fast
        raw = np.empty((len(positions), *self.crops.shape[1:]), np.uint8)
        raw[order] = self.crops[positions[order]]
        x = torch.from_numpy(raw).float()
        x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
        if channels == 1:
            x = in_luminance(x)
        elif channels == 3:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[-1] != resolution:
            x = F.interpolate(x, size=(resolution, resolution), mode="bilinear", antialias=True, align_corners=False)
        return x.contiguous() / 127.5 - 1


def available_weights(crops: CropSet, weights: Mapping[str, float], what: str = "trainer.shares") -> dict[str, float]:
    """The weights of a configuration for the data sets that are prepared; a message names missing ones.

    Configurations name the data sets that this package's models are trained on. If none of these is prepared, all
    prepared sets get the same weight.

    Args:
        crops: prepared crops.
        weights: data set name -> its share of a batch, or what one of its pictures counts; 0 leaves it out.
        what: the name of ``weights`` in the configuration.

    Raises:
        DataError: a negative number, or nothing but zeros.
    """
    if wrong := [name for name, value in weights.items() if not value >= 0]:
        raise DataError(f"{what}: what {wrong[0]} counts is 0 or more, not {weights[wrong[0]]!r}")
    weights = {name: value for name, value in weights.items() if value}
    if not weights:
        raise DataError(f"{what}: at least one data set counts more than 0")
    there = sorted(set(crops.column("data").tolist()))
    found = {name: float(weights[name]) for name in weights if name in there}
    gone = [name for name in weights if name not in there]
    if gone:
        found = found or dict.fromkeys(there, 1.0)
        told = ", ".join(f"{name} {value / sum(found.values()):.0%}" for name, value in found.items())
        print(f"{what}: no pictures of {', '.join(gone)} are prepared; taken instead: {told}", flush=True)
    return found


class MixtureBatches:
    """Batches in which every data set has a fixed share, flipped at random.

    Args:
        crops: prepared crops.
        shares: data set name -> share of every batch (normalised to sum to 1).
        batch_size: pictures a batch.
        resolution: their side.
        split: name of the split to draw from, or several.
        seed: seed of the draws.
        balance: an emotion with n pictures in a data set is drawn as often as n ** balance: 1 leaves its pictures as
            frequent as they are, 0 gives all emotions the same share.
        balance_groups: the same for the groups of people that a data set records.
        channels: 1 for luminance, 3 for RGB.

    Raises:
        DataError: a data set without a crop in these splits.
    """

    def __init__(
        self,
        crops: CropSet,
        shares: Mapping[str, float],
        *,
        batch_size: int,
        resolution: int,
        split: str | Sequence[str],
        seed: int,
        balance: float = 1.0,
        balance_groups: float = 1.0,
        channels: int = 1,
    ) -> None:
        self.crops, self.batch_size, self.resolution, self.seed = crops, batch_size, resolution, seed
        self.channels = channels
        splits = [split] if isinstance(split, str) else list(split)
        usable = np.isin(crops.column("split"), splits)
        self.pools = [np.flatnonzero(usable & (crops.column("data") == name)) for name in shares]
        empty = [name for name, pool in zip(shares, self.pools, strict=True) if not len(pool)]
        if empty:
            counted = Counter((row["data"], row["split"]) for row in crops.rows)
            there = ", ".join(f"{name} {part}: {n}" for (name, part), n in sorted(counted.items()))
            raise DataError(
                f"no crop of {', '.join(empty)} in split {' or '.join(splits)}; there are {there}. Add pictures of "
                "other people, or say which split pictures belong to, and prepare again"
            )
        weights = np.array(list(shares.values()), float)
        self.weights = weights / weights.sum()
        exponents = {"emotion": balance, "group": balance_groups}
        used = {name: value - 1.0 for name, value in exponents.items() if value != 1.0}
        columns = {name: np.array([row.get(name, "") for row in crops.rows]) for name in used}
        self.chances = []
        for pool in self.pools:
            chance = np.ones(len(pool))
            for name, exponent in used.items():
                _, member, count = np.unique(columns[name][pool], return_inverse=True, return_counts=True)
                chance *= count[member] ** exponent
            self.chances.append(chance / chance.sum() if used else None)

    def draw(self, step: int, process: int = 0) -> tuple[np.ndarray, Tensor]:
        """Positions of a step's crops, ``[B]``, and which of them are flipped, ``[B]`` of bool.

        Args:
            step: number of the training step.
            process: number of the process, in a distributed training.
        """
        rng = np.random.default_rng((self.seed, step, process))
        counts = rng.multinomial(self.batch_size, self.weights)
        drawn = zip(self.pools, counts, self.chances, strict=True)
        chosen = np.concatenate([rng.choice(pool, n, p=chance) for pool, n, chance in drawn])
        return chosen, torch.from_numpy(rng.random(self.batch_size) < 0.5)

    def __call__(self, step: int, process: int = 0) -> Tensor:
        """Batch of a step: float ``[B, C, R, R]`` in [-1, 1]."""
        chosen, flip = self.draw(step, process)
        x = self.crops.pixels(chosen, self.resolution, self.channels)
        return torch.where(flip[:, None, None, None], x.flip(-1), x)

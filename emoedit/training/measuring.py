"""The training task of the measuring networks, and their labelled batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.training.augment import Augment, augment
from emoedit.training.data import CropSet
from emoedit.types import DataError

UNKNOWN = -1  # a label that is not known: the picture does not train that head


@dataclass(frozen=True)
class Labels:
    """What is known of N crops.

    Args:
        emotion: ``[N]`` class numbers, :data:`UNKNOWN` where there is none; or ``[N, E]`` distributions over the
            classes, zeros where there is none.
        person: ``[N]`` class numbers, ``UNKNOWN`` where there is none.
        points: ``[N, 68, 2]`` as fractions of the crop's side, NaN where there are none.
        batch_size: pictures in a batch.
        resolution: side of the network's crops in pixels.
        how: settings of the augmentation.
        seed: seed of the draws.

    Raises:
        DataError: no crop has a label.
    """

    emotion: np.ndarray
    person: np.ndarray
    points: np.ndarray


class LabelledBatches:
    """Batches of augmented crops with what is known of each.

    Args:
        crops: N of them.
        weights: ``[N]``, one a crop: how often each is drawn, relative to the others.
        labels: labels of the crops.
        batch_size: crops a batch.
        resolution: their side.
        how: they are augmented.
        seed: seed of the draws.

    Raises:
        DataError: every weight is 0.
    """

    def __init__(
        self,
        crops: CropSet,
        weights: np.ndarray,
        labels: Labels,
        *,
        batch_size: int,
        resolution: int,
        how: Augment,
        seed: int,
    ) -> None:
        if not weights.sum() > 0:
            raise DataError("no crop has a label that this network could learn from")
        self.crops, self.batch_size, self.resolution = crops, batch_size, resolution
        self.chosen = np.flatnonzero(weights)
        self.ladder = np.cumsum(weights[self.chosen])
        emotion = labels.emotion.astype(np.float32) if labels.emotion.ndim == 2 else labels.emotion
        self.labels = {"emotion": torch.from_numpy(emotion), "person": torch.from_numpy(labels.person)}
        self.points = torch.from_numpy(labels.points).float()
        self.how, self.seed = how, seed

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """The batch of a step.

        ``x`` ``[B, 1, R, R]`` in [-1, 1], ``emotion`` ``[B]`` or ``[B, E]``, ``person`` ``[B]``, ``points``
        ``[B, 68, 2]``.
        """
        rng = np.random.default_rng((self.seed, step, process))
        drawn = np.searchsorted(self.ladder, rng.random(self.batch_size) * self.ladder[-1], side="right")
        positions = self.chosen[np.minimum(drawn, len(self.chosen) - 1)]
        x = self.crops.pixels(positions, self.crops.crops.shape[1])
        x, points = augment(x, self.points[positions], self.resolution, self.how, rng)
        return {"x": x, "points": points, **{name: label[positions] for name, label in self.labels.items()}}


def balanced(labels: np.ndarray, usable: np.ndarray, power: float = 0.5) -> np.ndarray:
    """Sampling weights under which a class is drawn as often as ``size ** power``, ``[N]``; 0 where not usable.

    Args:
        labels: ``[N]`` class numbers.
        usable: ``[N]`` bool.
        power: 1 leaves the frequencies, 0 makes them equal.
    """
    weights = np.zeros(len(labels))
    for label in np.unique(labels[usable]):
        members = usable & (labels == label)
        weights[members] = members.sum() ** (power - 1.0)
    return weights / max(weights.sum(), 1e-12)


class MeasuringTask(nn.Module):
    """The sum of the heads' losses.

    For expressions cross entropy with smoothed labels, or with the distribution of votes (Barsoum et al. 2016, arXiv
    1608.01041, section 4.4); for people a softmax with a margin in the cosine (CosFace, Wang et al. 2018, arXiv
    1801.09414, eq. 4); absolute distance for landmarks.

    Args:
        config: config of the network.
        people: number of people in training.
        parts: head -> weight of its loss.
        scale: CosFace's s.
        margin: CosFace's m.
        smoothing: smoothing of the labels, 0 to 1.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        people: int,
        parts: Mapping[str, float],
        scale: float = 20.0,
        margin: float = 0.1,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        self.network = MeasuringNetwork(config)
        self.parts, self.scale, self.margin, self.smoothing = dict(parts), scale, margin, smoothing
        if "person" in parts:
            # Short vectors at first: a step rotates them further.
            self.centres = nn.Parameter(0.05 * torch.randn(people, config.heads["person"]))

    def _emotion(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross entropy and accuracy over the pictures whose emotion is known.

        Args:
            logits: ``[N, E]``.
            label: see ``LabelledBatches``. Distributions are not smoothed.
        """
        if label.ndim == 2:
            there, loss = label.sum(1) > 0, F.cross_entropy(logits, label, reduction="sum")
            truth = label.argmax(1)
        else:
            there, truth = label != UNKNOWN, label
            loss = F.cross_entropy(logits, label, ignore_index=UNKNOWN, label_smoothing=self.smoothing, reduction="sum")
        known = there.sum().clamp_min(1)
        return loss / known, ((logits.argmax(1) == truth) & there).sum() / known

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss and what it consists of, for a batch of ``LabelledBatches``.

        Args:
            batch: ``x``, ``emotion``, ``person`` and ``points``.
        """
        out = self.network(batch["x"])
        losses, report = [], {}
        with torch.autocast(batch["x"].device.type, enabled=False):
            if "emotion" in self.parts:
                loss, report["accuracy"] = self._emotion(out["emotion"], batch["emotion"])
                losses.append(self.parts["emotion"] * loss)
            if "person" in self.parts:
                label = batch["person"]
                cosine = F.normalize(out["person"]) @ F.normalize(self.centres).T
                known = label != UNKNOWN
                target = F.one_hot(label.clamp_min(0), len(self.centres)).to(cosine)
                logits = self.scale * (cosine - self.margin * target)
                loss = F.cross_entropy(logits, label, ignore_index=UNKNOWN, reduction="sum")
                losses.append(self.parts["person"] * loss / known.sum().clamp_min(1))
                report["person"] = ((cosine.argmax(1) == label) & known).sum() / known.sum().clamp_min(1)
            if "points" in self.parts:
                truth = batch["points"]
                known = truth.isfinite()
                distance = torch.where(known, (out["points"] - truth.nan_to_num()).abs(), 0)
                error = distance.sum() / known.sum().clamp_min(1)
                losses.append(self.parts["points"] * 100 * error)
                report["points"] = error
        return {"loss": torch.stack(losses).sum(), **{name: value.detach() for name, value in report.items()}}

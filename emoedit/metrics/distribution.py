"""How far a set of edited pictures is from a set of real ones, in the feature space of any network.

Both distances belong to the features they are taken in: only with ``inception_features`` are they FID and KID, and
only then do they compare with published numbers. Both need sets, not pairs, and say nothing about one picture.
"""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from emoedit.io import checkpoints
from emoedit.metrics.base import check_pictures
from emoedit.metrics.published import PublishedFile
from emoedit.types import CheckpointError, DataError, MissingExtraError

SUBSETS, SUBSET_SIZE = 100, 1000  # as KID is usually reported
RESERVOIR = 10_000  # feature vectors kept of each set: 82 MB at 2048 features
INCEPTION = PublishedFile(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_TWIN = "pt_inception-2015-12-05-6726825d.pth"  # the same bytes as pytorch-fid publishes them
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def frechet_distance(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> Tensor:
    """Squared Fréchet distance of two Gaussians: ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``.

    Dowson and Landau 1982; equation 6 of Heusel et al. 2017 (arXiv 1706.08500). The root's trace is that of
    ``(C1^(1/2) C2 C1^(1/2))^(1/2)``, which is symmetric: the singular covariances of few pictures need no
    help.

    Args:
        mean_1: ``[D]``.
        cov_1: ``[D, D]``, symmetric and not negative.
        mean_2: as ``mean_1``.
        cov_2: as ``cov_1``.

    Returns:
        float64 scalar, 0 or above.
    """
    mean_1, cov_1, mean_2, cov_2 = (x.double() for x in (mean_1, cov_1, mean_2, cov_2))
    values, vectors = torch.linalg.eigh(cov_1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root @ cov_2 @ root
    trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    distance = (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * trace
    return distance.clamp_min(0)  # equal sets would be at -1e-10, by rounding


def kernel_distance(real: Tensor, edited: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy with the kernel ``(x.y / D + 1)^3``.

    Binkowski et al. 2018 (arXiv 1801.01401), section 4; the estimate is Gretton et al. 2012, equation 3.

    Args:
        real: ``[N, D]``.
        edited: ``[M, D]``. At least 2 rows each; N x M numbers are held.

    Returns:
        float64 scalar; unbiased, hence a little below 0 now and then where the sets are alike.

    Raises:
        DataError: fewer than two rows.
    """
    real, edited = real.double(), edited.double()
    _check_counts(len(real), len(edited))

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        k = kernel(x, x)
        return (k.sum() - k.trace()) / (len(x) * (len(x) - 1))

    return within(real) + within(edited) - 2 * kernel(real, edited).mean()


def _check_counts(real: int, edited: int) -> None:
    if min(real, edited) < 2:
        raise DataError(f"a distance of sets needs 2 pictures of each, found {real} real and {edited} edited")


class _SetMetric(Metric):
    """Two sets of pictures, as features.

    Args:
        features: ``[N, C, H, W]`` in [-1, 1] -> ``[N, D]``, finite. A module moves with the metric.
    """

    name: str
    fid_name: ClassVar[str]
    higher_is_better = False
    range: ClassVar[tuple[float, float]]
    units: ClassVar[str]
    source: ClassVar[str]
    is_differentiable = False
    full_state_update = False

    def __init__(self, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.features = features
        if isinstance(features, InceptionFeatures):
            self.name = self.fid_name
        for side in ("real", "edited"):
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def forward(self, pictures: Tensor, *, real: bool) -> None:
        """The same as ``update``: a batch of one set has no distance."""
        self.update(pictures, real=real)

    @torch.no_grad()
    def update(self, pictures: Tensor, *, real: bool) -> None:
        """Add a batch ``[N, C, H, W]`` in [-1, 1] to the real or to the edited pictures.

        Raises:
            ImageError: no such pictures.
            DataError: the features are not finite, not ``[N, D]``, or of another D than before.
        """
        check_pictures(pictures)
        found = self.features(pictures)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(pictures) or 0 in found.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"features of {len(pictures)} pictures are [{len(pictures)}, D], found {shape}")
        if not bool(found.isfinite().all()):
            raise DataError("the features of these pictures are not finite: the network that makes them is broken")
        dimension = self._dimension()
        if dimension not in (None, found.shape[1]):
            raise DataError(f"these features have {found.shape[1]} numbers a picture, those before had {dimension}")
        side = "real" if real else "edited"
        self._add(side, found)
        setattr(self, f"{side}_count", getattr(self, f"{side}_count") + len(found))

    def compute(self) -> Tensor:
        """The distance of the two sets, float32.

        Raises:
            DataError: fewer than two pictures in either.
        """
        _check_counts(int(self.real_count), int(self.edited_count))
        return self._distance().float()

    @abstractmethod
    def _dimension(self) -> int | None:
        """Length of the features so far; None before the first."""

    @abstractmethod
    def _add(self, side: str, features: Tensor) -> None:
        """Take in features ``[N, D]`` of one side, ``"real"`` or ``"edited"``."""

    @abstractmethod
    def _distance(self) -> Tensor:
        """Of the two sides as they are now."""


class FrechetDistance(_SetMetric):
    """``frechet_distance`` of two sets of pictures.

    Keeps sums and sums of outer products in float64, so memory stays flat over any number of pictures. Its bias falls
    only slowly with their number (published FIDs use 10,000 to 50,000): compare sets of one size.

    Args:
        features: ``[N, C, H, W]`` in [-1, 1] -> ``[N, D]``.
    """

    name = "frechet_distance"
    fid_name = "fid"
    range = (0.0, math.inf)
    units = "squared feature units"
    source = "Heusel et al. 2017 (arXiv 1706.08500), equation 6"

    def __init__(self, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__(features)
        for side in ("real", "edited"):  # the first batch says how many features there are: zero fits any
            self.add_state(f"{side}_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_outer", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _dimension(self) -> int | None:
        return next((len(total) for total in (self.real_sum, self.edited_sum) if total.ndim), None)

    def _add(self, side: str, features: Tensor) -> None:
        features = features.double()
        setattr(self, f"{side}_sum", getattr(self, f"{side}_sum") + features.sum(0))
        setattr(self, f"{side}_outer", getattr(self, f"{side}_outer") + features.T @ features)

    def _distance(self) -> Tensor:
        moments = []
        for side in ("real", "edited"):
            count, total, outer = (getattr(self, f"{side}_{part}") for part in ("count", "sum", "outer"))
            mean = total / count
            moments += [mean, (outer - count * torch.outer(mean, mean)) / (count - 1)]
        return frechet_distance(*moments)


class KernelDistance(_SetMetric):
    """Mean of ``kernel_distance`` over random subsets of two sets of pictures: unbiased, so few pictures will do.

    100 subsets of 1,000 of each set; a set that has no more is taken whole. Of each set at most ``RESERVOIR``
    pictures are kept, every picture with the same chance (the lowest of random keys that depend on a picture's number
    alone), so memory is bounded and the result does not depend on the batch size.

    Args:
        features: ``[N, C, H, W]`` in [-1, 1] -> ``[N, D]``.
    """

    name = "kernel_distance"
    fid_name = "kid"
    range = (-math.inf, math.inf)  # of the estimate; what it estimates is 0 or above
    units = "1"
    source = "Binkowski et al. 2018 (arXiv 1801.01401), section 4"

    def __init__(self, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__(features)
        for side in ("real", "edited"):
            self.add_state(f"{side}_features", [], dist_reduce_fx="cat")
            self.add_state(f"{side}_keys", [], dist_reduce_fx="cat")

    def _dimension(self) -> int | None:
        kept = [*self.real_features, *self.edited_features]
        return kept[0].shape[1] if kept else None

    def _add(self, side: str, features: Tensor) -> None:
        # Other keys for the other set: pairs of source and edit would otherwise be kept or dropped together.
        stream = np.random.PCG64([0, side == "real"]).advance(int(getattr(self, f"{side}_count")))
        keys = torch.from_numpy(np.random.Generator(stream).random(len(features))).to(features.device)
        for part, new in (("features", features.float()), ("keys", keys)):
            setattr(self, f"{side}_{part}", [torch.cat([*getattr(self, f"{side}_{part}"), new])])
        (all_keys,) = getattr(self, f"{side}_keys")
        if len(all_keys) > RESERVOIR:
            lowest = all_keys.topk(RESERVOIR, largest=False).indices.sort().values
            for part in ("features", "keys"):
                setattr(self, f"{side}_{part}", [getattr(self, f"{side}_{part}")[0][lowest]])

    def _distance(self) -> Tensor:
        real, edited = dim_zero_cat(self.real_features), dim_zero_cat(self.edited_features)
        if max(len(real), len(edited)) <= SUBSET_SIZE:
            return kernel_distance(real, edited)  # every subset would be the same
        random = np.random.default_rng(0)

        def subset(x: Tensor) -> Tensor:
            return x[torch.from_numpy(random.choice(len(x), min(SUBSET_SIZE, len(x)), replace=False))]

        return torch.stack([kernel_distance(subset(real), subset(edited)) for _ in range(SUBSETS)]).mean()


class InceptionFeatures(nn.Module):
    """The 2048 features of FID's Inception: ``[N, C, H, W]`` in [-1, 1] -> ``[N, 2048]`` float32.

    Pictures are rounded to 8 bits, as the network's own resizing expects; luminance is given to all three channels.
    Made by ``inception_features``. Always in inference mode, whatever ``train()`` asks for.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        check_pictures(pictures)
        levels = ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return self.network(levels.expand(-1, 3, -1, -1))[0]


def inception_features(path: str | Path | None = None) -> InceptionFeatures:
    """The Inception that FID and KID are defined with (Szegedy et al. 2015 as of 2015-12-05), from a local file.

    Args:
        path: of the weights that torch-fidelity and pytorch-fid publish; default: their file in torch.hub's cache.
            Under either of its published names it has to have its checksum. Nothing is downloaded or executed.

    Raises:
        MissingExtraError: torch-fidelity, which has the network, is not installed.
        CheckpointError: no such file, with the command that fetches it; damaged; of another network; not finite.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MissingExtraError("torch-fidelity", "metrics") from error

    twin = INCEPTION.cached.with_name(INCEPTION_TWIN)
    if path is None and twin.is_file() and not INCEPTION.cached.is_file():
        path = twin
    path, state = INCEPTION.read(path)
    if path.name in (INCEPTION.cached.name, INCEPTION_TWIN) and checkpoints.sha256(path) != INCEPTION_SHA256:
        raise CheckpointError(
            f"{path} is not the published file (its sha256 is not {INCEPTION_SHA256}): delete it and fetch it again"
        )
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"{path} holds values that are not finite, in {', '.join(broken[:4])}")
    # torch-fidelity unpickles whatever it is given, which can run code: it gets a copy written here, of tensors alone.
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=safe)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit FID's Inception: {str(error)[:300]}") from error
    return InceptionFeatures(network)

"""What every metric says of itself, and how values of many pictures become one."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from emoedit.types import ImageError


class MeanMetric(Metric):
    """The mean of a value a picture has. Keeps a sum and a count, so memory stays flat over any number of pictures.

    A subclass implements :meth:`values`; ``metric(a, b)`` and ``metric.update(a, b)`` take the same arguments.

    Attributes:
        name: key in results.
        higher_is_better: None where neither end is good in itself.
        range: lowest and highest value there can be.
        units: of a value; ``"1"`` for a plain ratio or score.
        source: paper and equation.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool | None]
    range: ClassVar[tuple[float, float]]
    units: ClassVar[str] = "1"
    source: ClassVar[str]
    is_differentiable = False
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, *arguments: Any) -> Tensor:
        """One value a picture, ``[N]``."""

    @torch.no_grad()
    def update(self, *arguments: Any) -> None:
        """Add a batch."""
        values = self.values(*arguments)
        self.total += values.double().sum()
        self.count += len(values)

    def compute(self) -> Tensor:
        """The mean over all pictures so far; NaN before the first."""
        return (self.total / self.count).float()


def check_pictures(*pictures: Tensor, channels: tuple[int, ...] = (1, 3)) -> None:
    """Refuse what is no batch of pictures, or batches that do not match.

    Args:
        pictures: ``[N, C, H, W]`` float in [-1, 1] each, all of one shape.

    Raises:
        ImageError: says what was found.
    """
    for x in (picture.detach() for picture in pictures):
        if x.ndim != 4 or x.shape[1] not in channels or 0 in x.shape:
            wanted = " or ".join(map(str, channels))
            raise ImageError(f"pictures are [N, {wanted}, H, W], found {tuple(x.shape)}")
        if x.shape != pictures[0].shape:
            shapes = f"{tuple(pictures[0].shape)} and {tuple(x.shape)}"
            raise ImageError(f"two batches of one shape are compared, found {shapes}")
        if not x.is_floating_point() or not bool(x.isfinite().all()) or float(x.abs().max()) > 1.001:
            raise ImageError("pictures as tensors are finite floats in [-1, 1]")

"""What metrics of pictures have in common."""

from __future__ import annotations

from torch import Tensor

from emoedit.types import ImageError


def check_pictures(*pictures: Tensor, channels: tuple[int, ...] = (1, 3)) -> None:
    """Refuse what is no batch of pictures, or batches that do not match.

    Args:
        channels: numbers of channels that are allowed.
        *pictures: ``[N, C, H, W]`` float in [-1, 1] each, all of one shape.

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

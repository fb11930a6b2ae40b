"""Aligned crops in any form as a backbone is given them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from emoedit.io.images import load_picture
from emoedit.models.base import Backbone
from emoedit.types import ImageError


def as_crops(images: Any, backbone: Backbone) -> Tensor:
    """Aligned crops in any form as ``[N, C, R, R]`` in [-1, 1] on the backbone's device.

    Args:
        images: a tensor ``[N, C, R, R]`` or ``[C, R, R]`` in [-1, 1], or a PIL picture, an array or a path, or a list
            of those.
        backbone: the model that draws.

    Raises:
        ImageError: a tensor of another shape or range.
    """
    resolution, channels = backbone.crop.resolution, backbone.channels
    if isinstance(images, Tensor):
        x = images[None] if images.ndim == 3 else images
        if x.shape[1:] != (channels, resolution, resolution):
            raise ImageError(f"crops are {tuple(images.shape)}, expected [N, {channels}, {resolution}, {resolution}]")
        if not x.is_floating_point() or not bool(x.isfinite().all()) or float(x.abs().max()) > 1.001:
            raise ImageError("crops as tensors are floats in [-1, 1]")
        return x.to(backbone.device, torch.float32)
    single = not isinstance(images, list | tuple)
    rows = []
    for image in [images] if single else images:
        picture = load_picture(image).to_pil().convert("L" if channels == 1 else "RGB")
        rows.append(np.asarray(picture.resize((resolution, resolution), Image.Resampling.LANCZOS), np.float32))
    if not rows:
        raise ImageError("no picture given")
    stack = torch.from_numpy(np.stack(rows)).view(len(rows), resolution, resolution, channels)
    return (stack.permute(0, 3, 1, 2) / 127.5 - 1).to(backbone.device)

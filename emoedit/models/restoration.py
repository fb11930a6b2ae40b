"""Upscaling and restoration of finished pictures by a model of your own, read by spandrel (Real-ESRGAN and its kin).

Restoration redraws skin and eyes and so alters people: nothing here runs unless a model is named, and what it does to
the identity is measured.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from emoedit.faces.detect import Face
from emoedit.faces.networks import EmbeddedNetwork, identity_similarity
from emoedit.io.images import load_picture
from emoedit.types import CheckpointError, ImageError, MissingExtraError

MAX_PIXELS = 2048 * 2048  # of a picture that is restored: a model needs some kilobytes a pixel


class Restorer:
    """A model that takes a whole picture and gives one back, larger or of the same size.

    Args:
        path: a weight file that spandrel reads (``.pth``, ``.safetensors``); nothing in it is executed.
        device: device of the model.

    Raises:
        MissingExtraError: spandrel is not installed.
        CheckpointError: no such file, one that spandrel does not read, or a model of another kind.
    """

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cpu") -> None:
        try:
            from spandrel import ImageModelDescriptor, ModelLoader
        except ImportError:
            raise MissingExtraError("spandrel", "restore") from None
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise CheckpointError(f"there is no model file {self.path}")
        try:
            model: Any = ModelLoader(device=device).load_from_file(self.path)
        except Exception as error:  # a damaged or unknown file can fail in any way
            raise CheckpointError(
                f"spandrel cannot read {self.path} ({type(error).__name__}: {str(error)[:200]})"
            ) from error
        whole = (
            isinstance(model, ImageModelDescriptor)
            and model.input_channels == 3
            and model.purpose in ("SR", "Restoration")
        )
        if not whole:
            raise CheckpointError(
                f"{self.path} is a model of {model.architecture.name} ({model.purpose}); models that restore whole "
                "colour pictures (Real-ESRGAN, say) can be used here, models of aligned faces cannot"
            )
        self.model = model.eval()
        self.scale = int(model.scale)
        self.name = str(model.architecture.name)

    @torch.no_grad()
    def __call__(self, picture: Image.Image) -> Image.Image:
        """The picture restored, ``scale`` times as large.

        Args:
            picture: RGB.

        Raises:
            ImageError: it is too large.
        """
        rgb = load_picture(picture).rgb
        if rgb.shape[0] * rgb.shape[1] > MAX_PIXELS:
            raise ImageError(
                f"a picture of {rgb.shape[1]} x {rgb.shape[0]} is too large to restore; make it smaller first"
            )
        x = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        out = self.model(x.to(self.model.device))[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(np.rint(out * 255).astype(np.uint8))


def identity_kept(source: Image.Image, pictures: list[Image.Image], face: Face, *, device: str = "cpu") -> list[float]:
    """Cosine between the face of a photograph and that of other pictures of it, in [-1, 1].

    Args:
        source: the photograph.
        pictures: pictures of any size; they are brought to the source's.
        face: where the face is in the source.
        device: device of the network.
    """
    network = EmbeddedNetwork.load("identity", device=device)
    same = [picture.convert("RGB").resize(source.size, Image.Resampling.LANCZOS) for picture in (source, *pictures)]
    people = network.embed(np.stack([network.faces(np.asarray(picture), face) for picture in same]))
    return identity_similarity(people[:1].expand(len(pictures), -1), people[1:]).tolist()

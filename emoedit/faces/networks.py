"""The embedded measuring networks by name, each with the crop that it takes."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emoedit.faces.align import align
from emoedit.faces.detect import Face
from emoedit.io import checkpoints
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.types import CheckpointError, ImageError

NAMES = ("identity", "expression", "landmarks", "perceptual")  # those that measure edits
GUIDANCE = "guidance"  # finetuned edits and so measures none; ranks candidates


class EmbeddedNetwork:
    """A measuring network and the crop it wants of a photograph.

    Args:
        network: see ``emoedit.nn.measuring.MeasuringNetwork``.

    Attributes:
        name: ``"embedded"``: what results call it.
    """

    name = "embedded"

    def __init__(self, network: MeasuringNetwork) -> None:
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, name_or_folder: str | os.PathLike[str], *, device: str = "cpu") -> EmbeddedNetwork:
        """Load a network of this package by name, or one from a folder.

        Args:
            name_or_folder: such as ``identity``; or a folder of ``save_pretrained``.
            device: a name that ``torch.device`` takes.

        Raises:
            CheckpointError: no such network, or a damaged one.
        """
        text = os.fspath(name_or_folder)
        folder = checkpoints.embedded_root() / text if text in (*NAMES, GUIDANCE) else Path(text).expanduser()
        if not (folder / checkpoints.CONFIG).is_file():
            raise CheckpointError(
                f"no measuring network {text!r}; there are {', '.join((*NAMES, GUIDANCE))}, or a folder of one"
            )
        heads = checkpoints.read_json(folder / checkpoints.CONFIG).get("heads")
        network = (MeasuringNetwork if heads else PerceptualNetwork).from_pretrained(folder)
        return cls(network.to(device).to(memory_format=torch.channels_last))

    def faces(self, photo: np.ndarray, face: Face) -> np.ndarray:
        """The aligned luminance crop, uint8 ``[R, R]``, of a photograph uint8 ``[H, W, 3]``.

        Args:
            photo: uint8 ``[H, W, 3]``.
            face: which face.
        """
        alignment = align(face.landmarks, self.network.crop)
        return cv2.cvtColor(alignment.crop(photo), cv2.COLOR_RGB2GRAY)

    def tensor(self, faces: np.ndarray) -> Tensor:
        """uint8 ``[N, R, R]`` as float ``[N, 1, R, R]`` in [-1, 1].

        Raises:
            ImageError: another type or shape.
        """
        side = self.network.config.resolution
        faces = np.asarray(faces)
        if faces.dtype != np.uint8 or faces.ndim != 3 or faces.shape[1:] != (side, side):
            raise ImageError(f"this network sees crops uint8 [N, {side}, {side}], found {faces.dtype} {faces.shape}")
        device = next(self.network.parameters()).device
        return torch.from_numpy(np.ascontiguousarray(faces)).to(device)[:, None].float() / 127.5 - 1

    @torch.no_grad()
    def _head(self, faces: np.ndarray, head: str) -> Tensor:
        if head not in self.network.heads:
            heads = ", ".join(self.network.heads) or "a trunk"
            raise CheckpointError(f"this network has no {head!r} head, only {heads}")
        return torch.cat([self.network(part)[head] for part in self.tensor(faces).split(64)]).cpu()

    def embed(self, faces: np.ndarray) -> Tensor:
        """Who it is: ``[N, D]`` of unit length, for faces uint8 ``[N, R, R]``."""
        return F.normalize(self._head(faces, "person"))

    def scores(self, faces: np.ndarray) -> Tensor:
        """Probabilities of ``emotions``, ``[N, E]``."""
        return self._head(faces, "emotion").softmax(1)

    def points(self, faces: np.ndarray) -> Tensor:
        """68 landmarks ``[N, 68, 2]`` in pixels of the crop (pixel centres at whole numbers)."""
        return self._head(faces, "points") * self.network.config.resolution - 0.5

    @property
    def emotions(self) -> tuple[str, ...]:
        """What ``scores`` scores."""
        return self.network.config.emotions


def identity_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of two embeddings, ``[N]`` in [-1, 1]: 1 the same picture; symmetric.

    What a value means depends on the network: its model card says what two pictures of one person and pictures of two
    people give.

    Args:
        first: ``[N, D]``, from ``EmbeddedNetwork.embed`` or ``emoedit.metrics.facenet.FaceNet.embed``.
        second: as ``first``.

    Raises:
        ImageError: other shapes, or an embedding that is zero or not finite.
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ImageError(f"embeddings are [N, D] each, found {tuple(first.shape)} and {tuple(second.shape)}")
    lengths = torch.cat([first, second]).norm(dim=1)
    if not bool(lengths.isfinite().all()) or not bool((lengths > 0).all()):
        raise ImageError("an embedding is zero or not finite")
    cosine = torch.cosine_similarity(first.double(), second.double())
    return cosine.clamp(-1, 1).float()

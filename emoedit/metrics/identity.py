"""Is it still the same person? The cosine of two faces in a face-recognition network's space."""

from __future__ import annotations

import torch
from torch import Tensor

from emoedit.metrics.base import MeanMetric
from emoedit.types import ImageError


def identity_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of two embeddings, ``[N]`` in [-1, 1]: 1 the same picture; symmetric.

    What a value means depends on the network: its model card says what two pictures of one person and pictures of two
    people give.

    Args:
        first, second: ``[N, D]``, from :meth:`emoedit.metrics.embedded.EmbeddedNetwork.embed` or
            :meth:`emoedit.metrics.facenet.FaceNet.embed`.

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


class IdentitySimilarity(MeanMetric):
    """Module of :func:`identity_similarity`; called with embeddings of source and edit."""

    name = "identity"
    higher_is_better = True
    range = (-1.0, 1.0)
    units = "cosine"
    source = "FaceNet, Schroff et al. 2015 (arXiv 1503.03832): the cosine of unit embeddings"

    def values(self, first: Tensor, second: Tensor) -> Tensor:
        return identity_similarity(first, second)

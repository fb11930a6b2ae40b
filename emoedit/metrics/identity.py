"""Is it still the same person? The cosine of two faces in a face-recognition network's space."""

from __future__ import annotations

from torch import Tensor

from emoedit.faces.networks import identity_similarity
from emoedit.metrics.base import MeanMetric


class IdentitySimilarity(MeanMetric):
    """Module of :func:`identity_similarity`; called with embeddings of source and edit."""

    name = "identity"
    higher_is_better = True
    range = (-1.0, 1.0)
    units = "cosine"
    source = "FaceNet, Schroff et al. 2015 (arXiv 1503.03832): the cosine of unit embeddings"

    def values(self, first: Tensor, second: Tensor) -> Tensor:
        return identity_similarity(first, second)

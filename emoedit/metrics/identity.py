"""Identity: the cosine of two faces in a face-recognition network's space."""

from __future__ import annotations

from torch import Tensor

from emoedit.faces.networks import identity_similarity
from emoedit.metrics.measure import EditViews, Measure


def identity(views: EditViews) -> Tensor:
    """Cosine of source and edit, ``[N]`` in [-1, 1] (FaceNet, Schroff et al. 2015, arXiv 1503.03832)."""
    return views.shared("identity", lambda v: identity_similarity(v.repeated(v.source.identity), v.identity))


IDENTITY = Measure(
    "identity",
    "identity",
    2,
    True,
    "cosine",
    "cosine to the source, -1 to 1; 1 the same picture",
    identity,
)

"""Directions in StyleGAN's W and W+, in all layers or a range of them.

Class means, linear boundaries (InterFaceGAN: Shen et al. 2020, arXiv 1907.10786) and principal components (GANSpace:
Härkönen et al. 2020, arXiv 2004.02546).

Directions are fitted on w, one vector a picture, and then used in a range of layers. They are fitted on w of the
generator's own samples, scored by a recogniser (``score_samples``, ``select``), which needs no labelled photograph, or
on ``pooled`` w+ of inverted photographs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from emoedit.io import checkpoints
from emoedit.io.arrays import read_array
from emoedit.io.images import write_atomic
from emoedit.io.weights import read_torch
from emoedit.models.base import Backbone, Callback
from emoedit.steering.base import are_names
from emoedit.steering.boundaries import linear_svm, principal_axes
from emoedit.steering.directions import PARTS, LatentDirections
from emoedit.types import CheckpointError, Control, DataError, Edit, EditError, Inversion

if TYPE_CHECKING:
    from emoedit.models.stylegan2.backbone import StyleGAN2Backbone

Layers = tuple[int, int]  # from the first to before the second
UNIT = 1e-3  # how far from 1 the length of a boundary's normal may be


class WDirections(LatentDirections):
    """Directions in w+: ``LatentDirections`` with all layers concatenated as one vector.

    Layers that an edit may not change hold zeros.

    Args:
        latent_shape: ``(L, D)`` of w+.
        emotions: as of ``LatentDirections``.
        directions: ``[E, L * D]``.

    Raises:
        CheckpointError: directions of another shape.
    """

    def __init__(
        self, latent_shape: Sequence[int], emotions: Sequence[str], directions: Tensor, *parts: Tensor | None
    ) -> None:
        super().__init__(emotions, directions, *parts)
        self.latent_shape = tuple(latent_shape)
        if len(self.latent_shape) != 2 or directions.shape[1] != self.latent_shape[0] * self.latent_shape[1]:
            raise CheckpointError(
                f"directions {tuple(directions.shape)} for w+ of {self.latent_shape}; expected [E, L * D]"
            )

    @classmethod
    def in_layers(cls, fitted: LatentDirections, layers: int, where: Layers | None = None) -> Self:
        """Directions in w (or ``pooled`` w+), used in a range of layers.

        Args:
            fitted: its directions are ``[E, D]``.
            layers: L.
            where: default: all layers.

        Raises:
            EditError: no such layers.
        """
        first, last = checked_layers(where, layers)
        mask = torch.zeros(layers, 1)
        mask[first:last] = 1

        def put(part: Tensor, share: float = 1.0) -> Tensor:
            return (share * mask * part[:, None]).flatten(1)

        # What the source shows is read from the mean of the layers that are moved.
        means = None if fitted.means is None else put(fitted.means)
        readout = None if fitted.readout is None else put(fitted.readout, 1 / (last - first))
        shape, rest = (layers, fitted.directions.shape[1]), (means, readout, fitted.offset, fitted.distance)
        return cls(shape, fitted.emotions, put(fitted.directions), fitted.gain, *rest).eval()

    def within(self, where: Layers) -> Self:
        """The same directions in a range of layers only; the source's expression is still read from all.

        Args:
            where: range of layers.

        Raises:
            EditError: no such layers.
        """
        first, last = checked_layers(where, self.latent_shape[0])
        mask = torch.zeros(*self.latent_shape)
        mask[first:last] = 1
        kept = mask.flatten().to(self.directions)
        return self.with_parts(self.directions * kept, means=None if self.means is None else self.means * kept)

    def with_parts(self, directions: Tensor | None = None, **parts: Tensor | None) -> Self:
        """The same steering with other tensors.

        Args:
            directions: default: its own.
            **parts: parts of ``PARTS``; those that are not given are its own.
        """
        held = {name: getattr(self, name) for name in PARTS[1:]} | parts
        directions = self.directions if directions is None else directions
        return type(self)(self.latent_shape, self.emotions, directions, *held.values()).eval()

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """See ``Steering.control``.

        Raises:
            CheckpointError: the backbone's latent is no w+ of this shape.
        """
        found = tuple(inversion.latent.shape[1:])
        if found != self.latent_shape:
            raise CheckpointError(
                f"these directions are for w+ of {self.latent_shape} (layers, width), the backbone's latent is {found}"
            )
        flat = replace(inversion, latent=inversion.latent.flatten(1))
        return Control(shift=self.shift(flat, edits).unflatten(1, self.latent_shape))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the weights (safetensors)."""
        config = {"emotions": list(self.emotions), "latent_shape": list(self.latent_shape)}
        checkpoints.write_part(folder, config, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or does not fit this class.
        """
        folder = Path(folder)
        path = folder / checkpoints.CONFIG
        config = checkpoints.read_json(path)
        emotions, shape = config.get("emotions"), config.get("latent_shape")
        if not are_names(emotions):
            raise CheckpointError(f"{path}: 'emotions' must be a list of names, found {emotions!r}")
        if not isinstance(shape, list) or not all(isinstance(length, int) for length in shape):
            raise CheckpointError(f"{path}: 'latent_shape' must be a list of whole numbers, found {shape!r}")
        state = checkpoints.read_weights(folder / checkpoints.WEIGHTS)
        if "directions" not in state:
            raise CheckpointError(
                f"{folder / checkpoints.WEIGHTS} holds no 'directions', only {', '.join(state) or 'nothing'}"
            )
        model = cls(shape, emotions, state["directions"], *(state.get(name) for name in PARTS[1:]))
        checkpoints.check_state(model.state_dict(), state, folder / checkpoints.WEIGHTS)
        return model.eval()


def checked_layers(where: Layers | None, layers: int) -> Layers:
    """The range, or all layers for None.

    Args:
        where: range of layers; None for all.
        layers: number of layers.

    Raises:
        EditError: it is empty or reaches beyond them.
    """
    if where is None:
        return 0, layers
    first, last = where
    if not 0 <= first < last <= layers:
        raise EditError(f"layers {first} to {last} of {layers}; expected a first from 0 on and a larger last")
    return first, last


def pooled(w_plus: Tensor, where: Layers | None = None) -> Tensor:
    """One w a picture: the mean of w+ ``[N, L, D]`` over a range of layers, ``[N, D]``.

    Args:
        w_plus: ``[N, L, D]``.
        where: range of layers; None for all.
    """
    first, last = checked_layers(where, w_plus.shape[1])
    return w_plus[:, first:last].mean(1)


# Boundaries


def condition(normal: Tensor, *others: Tensor) -> Tensor:
    """InterFaceGAN's conditional boundary: the normal without what lies in the span of the others, of unit length.

    Args:
        normal: ``[D]`` each.
        *others: as ``normal``.

    Raises:
        DataError: nothing is left of it, or the widths differ.
    """
    if any(other.shape != normal.shape for other in others):
        raise DataError(f"boundaries of widths {[len(each) for each in (normal, *others)]} do not go together")
    if not others:
        return normal / normal.norm()
    basis = torch.linalg.qr(torch.stack(others, 1).double()).Q
    left = normal.double() - basis @ (basis.T @ normal.double())
    if float(left.norm()) < 1e-4 * float(normal.norm()):
        raise DataError("the boundary lies in the span of those it is conditioned on: nothing of it is left")
    return (left / left.norm()).to(normal.dtype)


def read_boundary(path: str | os.PathLike[str], *, width: int | None = None) -> Tensor:
    """The normal of a boundary: float ``[1, D]``, of unit length.

    Args:
        path: path of the file: ``.npy``, as InterFaceGAN publishes them, or ``.pt``, as e4e does.
        width: D that is needed, if it is known.

    Raises:
        CheckpointError: missing, damaged, no such array (arrays of objects are never unpickled); of another width; not
            of unit length.
    """
    found = _read_tensor(Path(path).expanduser()) if str(path).endswith((".pt", ".pth")) else read_array(path)
    if found.ndim != 2 or len(found) != 1 or found.dtype.kind != "f":
        raise CheckpointError(
            f"{path} holds {found.dtype} {found.shape}; expected a boundary, float [1, {width or 'D'}]"
        )
    normal = torch.from_numpy(found[0].astype(np.float32))
    if width is not None and len(normal) != width:
        raise CheckpointError(f"{path} is a boundary of width {len(normal)}; the backbone's w has {width}")
    if not abs(float(normal.norm()) - 1) < UNIT:  # NaN too
        raise CheckpointError(f"{path}: the normal has length {float(normal.norm()):.4g}; expected 1")
    return normal


def _read_tensor(path: Path) -> np.ndarray:
    """The one tensor of a file of ``torch.save``.

    Raises:
        CheckpointError: missing, damaged, or holding something else.
    """
    found = read_torch(path)
    if not isinstance(found, Tensor):
        raise CheckpointError(f"{path} holds a {type(found).__name__}; expected a boundary, one tensor [1, D]")
    return found.float().numpy() if found.is_floating_point() else found.numpy()


def write_boundary(path: str | os.PathLike[str], normal: Tensor, *, overwrite: bool = False) -> None:
    """Write InterFaceGAN's file: float32 ``[1, D]``, of unit length.

    Args:
        path: path of the file.
        normal: ``[D]``.
        overwrite: whether a file that exists is replaced.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    row = (normal / normal.norm()).detach().float().cpu().numpy()[None]
    write_atomic(path, lambda file: np.save(file, row, allow_pickle=False), overwrite=overwrite)


def from_boundaries(normals: Mapping[str, Tensor], gains: Mapping[str, float]) -> LatentDirections:
    """Boundaries as directions in w, for ``WDirections.in_layers``.

    Args:
        normals: emotion -> ``[D]``.
        gains: emotion -> how far along the normal strength 1 goes; InterFaceGAN draws 3.

    Raises:
        DataError: the widths differ.
    """
    if len({tuple(normal.shape) for normal in normals.values()}) != 1:
        raise DataError(f"boundaries of shapes {[tuple(n.shape) for n in normals.values()]} do not go together")
    return LatentDirections(list(normals), torch.stack([*normals.values()]), torch.tensor([gains[e] for e in normals]))


def fit_boundaries(
    w: Tensor, labels: Sequence[str], emotions: Sequence[str], *, conditional: bool = False
) -> LatentDirections:
    """A boundary between neutral and each emotion (``linear_svm``).

    Strength 1 goes as far along its normal as the classes' means lie apart.

    Args:
        w: ``[N, D]``.
        labels: N names; ``"neutral"`` is one.
        emotions: the targets; ``"neutral"``, with no direction, is put first.
        conditional: condition each boundary on all others.

    Raises:
        DataError: no w of an emotion or of neutral, or nothing tells them apart.
    """
    targets = [name for name in emotions if name != "neutral"]
    kinds = {name: w[torch.tensor([label == name for label in labels])] for name in set(labels)}
    if missing := [name for name in ("neutral", *targets) if name not in kinds]:
        raise DataError(f"no w of {', '.join(missing)} among {len(labels)} labels")
    normals = {}
    for name in targets:
        rows = torch.cat([kinds[name], kinds["neutral"]])
        normals[name] = linear_svm(rows, torch.arange(len(rows)) < len(kinds[name])).normal
    if conditional:
        others = {name: [normals[other] for other in targets if other != name] for name in targets}
        normals = {name: condition(normals[name], *others[name]) for name in targets}
    gains = {name: float((kinds[name].mean(0) - kinds["neutral"].mean(0)) @ normals[name]) for name in targets}
    if nothing := [name for name, gain in gains.items() if not gain > 0]:
        raise DataError(f"no direction in w separates {', '.join(nothing)} from neutral")
    return from_boundaries({"neutral": torch.zeros(w.shape[1]), **normals}, {"neutral": 1.0, **gains})


# Samples and components


def score_samples(
    backbone: StyleGAN2Backbone,
    scorer: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    count: int,
    *,
    truncation: float = 0.7,
    batch_size: int = 16,
    callback: Callback | None = None,
) -> tuple[Tensor, Tensor]:
    """The w of random samples ``[count, D]``, and a recogniser's scores of their pictures ``[count, E]``.

    Args:
        backbone: the model that draws.
        scorer: pictures ``[n, C, R, R]`` at the model's mean and contrast -> scores ``[n, E]``.
        generator: draws the noise; a model that draws none ignores it.
        count: how many.
        truncation: truncation of the samples: 1 none, 0 the mean.
        batch_size: pictures in one pass of the model.
        callback: called with (samples done, count).
    """
    latents, scores = [], []
    for done in range(0, count, batch_size):
        w_plus = backbone.latents(generator, min(batch_size, count - done), truncation=truncation)
        with torch.no_grad():
            scores.append(scorer(backbone.synthesis(w_plus, dtype=backbone.dtype)).cpu())
        latents.append(w_plus[:, 0].cpu())
        if callback is not None:
            callback(done + len(w_plus), count)
    return torch.cat(latents), torch.cat(scores)


def select(scores: Tensor, emotions: Sequence[str], *, share: float = 0.05) -> tuple[Tensor, list[str]]:
    """The samples that show each emotion most plainly: which ones, and their labels.

    Args:
        scores: ``[N, E]``, one column an emotion.
        emotions: names of emotions.
        share: share of all samples for each emotion (InterFaceGAN takes the outer 2 %). A sample that is among the
            first of several emotions goes to the one it scores highest for.

    Raises:
        DataError: no sample for an emotion is left.
    """
    if scores.ndim != 2 or scores.shape[1] != len(emotions):
        raise DataError(f"scores {tuple(scores.shape)} for {len(emotions)} emotions; expected [N, E]")
    count = max(1, round(share * len(scores)))
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen.scatter_(0, scores.topk(count, 0).indices, True)
    best = scores.masked_fill(~chosen, -torch.inf).argmax(1)
    rows = chosen.any(1).nonzero()[:, 0]
    labels = [emotions[i] for i in best[rows].tolist()]
    if missing := [name for name in emotions if name not in labels]:
        raise DataError(
            f"no sample shows {', '.join(missing)} more than something else; score more than {len(scores)} samples, or "
            f"take a larger share than {share:g}"
        )
    return rows, labels


@dataclass(frozen=True)
class Components:
    """Principal components of w.

    Args:
        mean: ``[D]``.
        directions: ``[K, D]``, orthonormal, the widest first.
        deviations: ``[K]``: standard deviation along each, which is GANSpace's unit of an edit.
    """

    mean: Tensor
    directions: Tensor
    deviations: Tensor

    def coordinates(self, w: Tensor) -> Tensor:
        """The w ``[N, D]`` in standard deviations along each component, ``[N, K]``."""
        return (w - self.mean.to(w)) @ self.directions.to(w).T / self.deviations.to(w)

    def step(self, component: int, sigmas: float) -> Tensor:
        """``[D]``: so many standard deviations along a component.

        Args:
            component: its number.
            sigmas: standard deviations.
        """
        return sigmas * self.deviations[component] * self.directions[component]


def principal_components(w: Tensor, count: int) -> Components:
    """GANSpace's components of w ``[N, D]``: its ``emoedit.steering.boundaries.principal_axes`` and mean.

    Args:
        w: ``[N, D]``.
        count: how many.

    Raises:
        DataError: fewer samples than are needed.
    """
    return Components(w.double().mean(0).float(), *principal_axes(w, count))

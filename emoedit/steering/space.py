"""Edits by points of the emotion space: every point has a direction, or a word, of its own.

Yang et al., CVPR 2024 (arXiv 2401.04608) map an emotion space into the text encoder's space, to generate pictures. Here
a point is mapped to an edit of an existing picture: a direction in the latent space of a backbone
(``SpaceDirections``) or a pseudo-word of a Stable Diffusion (``SpaceWords``). An algebra on names is a point (the
weighted sum of their places) with one edit, while mixtures add the edits of basic emotions.
"""

from __future__ import annotations

import copy
import math
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from emoedit.emotions import canonical, get, list_emotions
from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.models.precision import versions
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.text import encode, fill, with_tokens
from emoedit.nn.space import PointMap
from emoedit.registry import STEERINGS
from emoedit.steering.base import Steering, are_names
from emoedit.steering.directions import LatentDirections
from emoedit.steering.tokens import TEMPLATE
from emoedit.steering.words import TextSteering, text_backbone
from emoedit.types import CheckpointError, Control, Edit, EditError, Inversion

MIXED = "mixed"  # the folder of the basic directions
TOO_FAR = 10.0  # coordinates: emotions lie within 2 of the origin
LARGEST = 2**26  # numbers of a map


class SpaceDirections(Steering):
    """``shift`` = direction of the point - the source's own expression.

    Args:
        names: E names that have a place.
        places: ``[E, D]``; neutral is the origin.
        shares: ``[E, B]``: weight of each basic emotion in a name, for the source's own expression.
        directions: from points to latents, flattened.
        mixed: directions of the B basic emotions, which measure the source's own expression.

    Raises:
        CheckpointError: parts of shapes that do not go together.
    """

    places: Tensor
    shares: Tensor

    def __init__(
        self, names: Sequence[str], places: Tensor, shares: Tensor, directions: PointMap, mixed: LatentDirections
    ) -> None:
        super().__init__()
        self.emotions = tuple(names)
        expected = (len(self.emotions), directions.sizes["dims"]), (len(self.emotions), len(mixed.emotions))
        if (tuple(places.shape), tuple(shares.shape)) != expected:
            raise CheckpointError(
                f"places {tuple(places.shape)} and shares {tuple(shares.shape)} of {len(self.emotions)} names; "
                f"expected {expected[0]} and {expected[1]}"
            )
        if directions.sizes["out"] != mixed.directions.shape[1]:
            raise CheckpointError(
                f"a map to {directions.sizes['out']} numbers beside directions of {mixed.directions.shape[1]}; "
                "expected one latent for both"
            )
        self.register_buffer("places", places.float())
        self.register_buffer("shares", shares.float())
        self.directions, self.mixed = directions, mixed

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """See ``Steering.control``.

        Raises:
            CheckpointError: the backbone's latent is of another shape.
        """
        shape = inversion.latent.shape[1:]
        flat = inversion.latent.flatten(1)
        if flat.shape[1] != self.directions.sizes["out"]:
            raise CheckpointError(
                f"this map gives latents of {self.directions.sizes['out']} numbers, the backbone's is {tuple(shape)}"
            )
        weights = self.weights(replace(inversion, latent=flat), edits)
        shift = self.directions(weights @ self.places) - self.mixed.shown_part(flat, weights @ self.shares)
        return Control(shift=shift.unflatten(1, shape))

    def with_point(self, name: str, point: Tensor) -> Self:
        """The same steering with a further name, for a point that was read from a face or chosen.

        Args:
            name: name in edits; a name that is there already is moved.
            point: ``[D]``.

        Raises:
            EditError: a point of another width, not finite, or far outside of what was learned.
        """
        point = checked_point(point, self.places.shape[1])
        basic = torch.stack([self.places[self.emotions.index(each)] for each in self.mixed.emotions])
        shares = (torch.linalg.pinv(basic.double()).T @ point.double()).float().clamp_min(0)
        kept = [n for n, each in enumerate(self.emotions) if each != name]
        return type(self)(
            (*(self.emotions[n] for n in kept), name),
            torch.cat([self.places[kept], point[None]]),
            torch.cat([self.shares[kept], shares[None]]),
            self.directions,
            self.mixed,
        ).eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the weights (safetensors), and the basic directions in a folder of their own.

        Raises:
            CheckpointError: the basic directions are of a class that is not registered.
        """
        folder = Path(folder)
        kinds = [name for name in STEERINGS.names() if STEERINGS.get(name) is type(self.mixed)]
        if not kinds:
            raise CheckpointError(f"{type(self.mixed).__name__} is not registered, so a folder could not name it")
        (folder / MIXED).mkdir(parents=True, exist_ok=True)
        self.mixed.save_pretrained(folder / MIXED)
        sizes = {**self.directions.sizes, "width": self.directions.width}
        config = {"emotions": list(self.emotions), "map": sizes, "mixed": kinds[0]}
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("mixed.")}
        checkpoints.write_part(folder, config, state, eight_bits=True)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or does not fit this class.
        """
        folder = Path(folder)
        config, names, directions = _read_map(folder)
        kind = config.get("mixed")
        if not isinstance(kind, str):
            raise CheckpointError(f"{folder / checkpoints.CONFIG}: 'mixed' must name a steering, found {kind!r}")
        mixed = STEERINGS.get(kind).from_pretrained(folder / MIXED)
        if not isinstance(mixed, LatentDirections):
            raise CheckpointError(f"{folder / checkpoints.CONFIG}: {kind!r} holds no directions")
        size = len(names)
        model = cls(names, torch.zeros(size, directions.sizes["dims"]), torch.zeros(size, len(mixed.emotions)),
                    directions, mixed)  # fmt: skip
        state = checkpoints.read_weights(folder / checkpoints.WEIGHTS)
        expected = {name: value for name, value in model.state_dict().items() if not name.startswith("mixed.")}
        checkpoints.check_state(expected, state, folder / checkpoints.WEIGHTS)
        model.load_state_dict(state, strict=False)
        return model.eval()


class SpaceWords(TextSteering):
    """A pseudo-word for every point, in a prompt (``TextSteering``).

    The context moves in a straight line from the neutral prompt's to that of the prompt with the word of the edit's
    point, in proportion to the weights.

    Args:
        names: E names that have a place.
        places: ``[E, D]``; neutral is the origin.
        words: from points to what is added to ``start``, ``n * W`` numbers.
        start: ``[n, W]``: the vectors at the origin.
        template: the prompt, with ``{}`` where the word goes.
        gain: multiple of the step from neutral to the text at strength 1, ``[E]``.
        spans: as ``TextSteering`` has them.

    Raises:
        CheckpointError: parts of shapes that do not go together.
        EditError: a template without the word.
    """

    TOKEN = "<emotion-{}>"
    places: Tensor
    start: Tensor

    def __init__(
        self,
        names: Sequence[str],
        places: Tensor,
        words: PointMap,
        start: Tensor,
        *,
        template: str = TEMPLATE,
        gain: Tensor | None = None,
        spans: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(names, gain=gain, spans=spans)
        fill(template, "", 1)
        if tuple(places.shape) != (len(self.emotions), words.sizes["dims"]) or start.numel() != words.sizes["out"]:
            raise CheckpointError(
                f"places {tuple(places.shape)} of {len(self.emotions)} names, a start {tuple(start.shape)} and a map "
                f"from {words.sizes['dims']} to {words.sizes['out']} numbers; they do not go together"
            )
        self.template, self.words = template, words
        self.register_buffer("places", places.float())
        self.register_buffer("start", start.float())
        self._contexts: tuple[Any, Tensor] | None = None

    def vectors(self, points: Tensor, limit: float) -> Tensor:
        """The words of points ``[N, D]``: ``[N, n, W]``; those longer than ``limit`` are shortened to it.

        Args:
            points: ``[N, D]``.
            limit: longest vector.
        """
        found = self.start + self.words(points).unflatten(1, tuple(self.start.shape))
        return found * (limit / found.norm(dim=2, keepdim=True).clamp_min(1e-9)).clamp_max(1)

    @torch.no_grad()
    def contexts_at(self, backbone: StableDiffusionBackbone, points: Tensor) -> Tensor:
        """Contexts of the prompts with the words of points ``[N, D]``: ``[N, T, D]``; the last ones are kept.

        Args:
            backbone: the model.
            points: ``[N, D]``.
        """
        weights = [*backbone.text_encoder.parameters(), *self.words.parameters(), self.start]
        key = weakref.ref(backbone.text_encoder), versions(weights), points.detach().cpu().numpy().tobytes()
        if self._contexts is None or self._contexts[0] != key:
            limit = float(backbone.text_encoder.get_input_embeddings().weight.detach().float().norm(dim=1).max())
            found = {self.TOKEN.format(n): rows for n, rows in enumerate(self.vectors(points, limit))}
            tokenizer, text_encoder = with_tokens(backbone.tokenizer, backbone.text_encoder, found)
            prompts = [fill(self.template, token, len(rows)) for token, rows in found.items()]
            self._contexts = key, encode(tokenizer, text_encoder, prompts)
        return self._contexts[1]

    def contexts(self, backbone: StableDiffusionBackbone, used: Sequence[int] | None = None) -> Tensor:
        """Contexts of the words at the places of names (``TextSteering.contexts``)."""
        return self.contexts_at(backbone, self.places if used is None else self.places[list(used)])

    def moved(self, backbone: Backbone, weights: Tensor) -> Tensor:
        """The neutral context, moved towards the word of each row's point: ``[N, T, D]``; see ``TextSteering.moved``.

        Args:
            backbone: a Stable Diffusion.
            weights: ``[N, E]``: the point is the weighted mean of the places; the sum of absolute weights is the
                distance, negative where negative weights prevail.

        Raises:
            CheckpointError: a backbone without text.
        """
        backbone = text_backbone(backbone)
        neutral = backbone.context()
        size = weights.abs().sum(1) * torch.where(weights.sum(1) < 0, -1.0, 1.0)
        if not bool(size.any()):
            return neutral.expand(len(weights), -1, -1)
        points = (weights / size.where(size != 0, 1.0)[:, None]) @ self.places.to(weights)
        each, rows = points.unique(dim=0, return_inverse=True)  # a word is read once, however many pictures want it
        towards = self.contexts_at(backbone, each).to(neutral)[rows] - neutral
        return neutral + size.to(neutral)[:, None, None] * towards

    def with_point(self, name: str, point: Tensor) -> Self:
        """As ``SpaceDirections.with_point``.

        Args:
            name: name in edits.
            point: ``[D]``.
        """
        point = checked_point(point, self.places.shape[1])
        kept = [n for n, each in enumerate(self.emotions) if each != name]
        return type(self)(
            (*(self.emotions[n] for n in kept), name),
            torch.cat([self.places[kept], point[None]]),
            copy.deepcopy(self.words),
            self.start,
            template=self.template,
            gain=torch.cat([self.gain[kept], self.gain.mean()[None]]),
            spans={each: span for each, span in self.spans.items() if each != name},
        ).eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the weights (safetensors)."""
        config = {
            "emotions": list(self.emotions),
            "map": {**self.words.sizes, "width": self.words.width},
            "start": list(self.start.shape),
            "template": self.template,
            "spans": {name: list(span) for name, span in self.spans.items()},
        }
        checkpoints.write_part(folder, config, self.state_dict(), eight_bits=True)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or does not fit this class.
        """
        folder = Path(folder)
        config, names, words = _read_map(folder)
        path = folder / checkpoints.CONFIG
        with checkpoints.entries_of(path):
            rows, width = (int(value) for value in config["start"])
            spans = {str(name): tuple(span) for name, span in config.get("spans", {}).items()}
            places, start = torch.zeros(len(names), words.sizes["dims"]), torch.zeros(rows, width)
            model = cls(names, places, words, start, template=str(config["template"]), spans=spans)
        state = checkpoints.read_weights(folder / checkpoints.WEIGHTS)
        checkpoints.check_state(model.state_dict(), state, folder / checkpoints.WEIGHTS)
        model.load_state_dict(state)
        return model.eval()


def checked_point(point: Tensor, dims: int) -> Tensor:
    """A point of the space as float32 ``[D]``.

    Args:
        point: ``[D]``.
        dims: D.

    Raises:
        EditError: a point of another width, not finite, or far outside of what was learned.
    """
    point = torch.as_tensor(point).detach().float().cpu()
    if point.shape != (dims,):
        raise EditError(f"a point of this space is [{dims}], found {list(point.shape)}")
    if not bool((point.abs() <= TOO_FAR).all()):  # NaN too
        raise EditError(f"a point has finite coordinates within ±{TOO_FAR:g}, found {point.tolist()}")
    return point


def basic_shares(names: Sequence[str], basic: Sequence[str]) -> Tensor:
    """How much of each basic emotion a name of the vocabulary holds, ``[E, B]``; what ``basic`` lacks is left out.

    Args:
        names: names of the vocabulary, E of them.
        basic: names of basic emotions, B of them.
    """
    rows = torch.zeros(len(names), len(basic))
    order = [canonical(name) for name in basic]
    for row, name in zip(rows, names, strict=True):
        entry = get(name)
        for part, weight in (entry.mixture or {entry.name: 1.0}).items():
            if part in order:
                row[order.index(part)] = weight
    return rows


def placed_names(basic: Sequence[str]) -> tuple[str, ...]:
    """The vocabulary's names whose parts are all among these basic emotions, neutral first.

    Args:
        basic: names of basic emotions.
    """
    known = {canonical(name) for name in basic}
    return tuple(name for name in list_emotions() if set(get(name).mixture or {name: 1.0}) <= known)


def _read_map(folder: Path) -> tuple[dict[str, Any], tuple[str, ...], PointMap]:
    """``config.json``, the names, and a map of the shape that it says."""
    path = folder / checkpoints.CONFIG
    config = checkpoints.read_json(path)
    names, sizes = config.get("emotions"), config.get("map")
    if not names or not are_names(names):
        raise CheckpointError(f"{path}: 'emotions' must be a list of names, found {names!r}")
    wanted = ("dims", "out", "rank", "centres")
    if not isinstance(sizes, Mapping) or any(
        isinstance(sizes.get(name), bool) or not isinstance(sizes.get(name), int) or not 0 < sizes[name] <= 2**20
        for name in wanted
    ):
        raise CheckpointError(f"{path}: 'map' must hold whole numbers {', '.join(wanted)}, found {sizes!r}")
    width = sizes.get("width")
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < math.inf:
        raise CheckpointError(f"{path}: the map's 'width' must be a number above 0, found {width!r}")
    dims, out, rank, centres = (sizes[name] for name in wanted)
    if dims * (rank + centres) + rank * (out + centres) > LARGEST:
        raise CheckpointError(f"{path}: a map of {dict(sizes)} is larger than any that is shipped")
    return config, tuple(names), PointMap(dims, out, rank=rank, centres=centres, width=float(width))

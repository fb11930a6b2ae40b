"""Emotions as text for Stable Diffusion: a context that moves from the neutral prompt's towards an emotion's.

The text is a prompt of the vocabulary, which needs no fitting (``Words``), or one with a word that was learned
from pictures (``emoedit.steering.tokens.EmotionTokens``).
"""

from __future__ import annotations

import os
import weakref
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from emoedit.emotions import get, list_emotions
from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.models.precision import versions
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.steering.base import Steering
from emoedit.types import CheckpointError, Control, Edit, Inversion


def text_backbone(backbone: Backbone) -> StableDiffusionBackbone:
    """The backbone, if it reads text.

    Args:
        backbone: any backbone.

    Raises:
        CheckpointError: it does not.
    """
    if not isinstance(backbone, StableDiffusionBackbone):
        raise CheckpointError(
            f"{type(backbone).__name__} has no text input: prompts and learned tokens need a Stable Diffusion"
        )
    return backbone


class TextSteering(Steering):
    """Context = neutral + sum of strength x gain x (context of the emotion's text - neutral).

    The neutral context is the backbone's own, under which pictures are inverted. Strength 0 is exactly that, and
    strength 1 of one emotion is exactly its text.

    Args:
        emotions: E names.
        gain: ``[E]``: multiple of the step from neutral to the text at strength 1; default: 1 each.
        spans: emotion -> first and last timestep at which its text is used, in place of the backbone's
            ``t_text_min`` and ``t_text_max``. A mixture is used from the first to the last timestep of its emotions.

    Raises:
        CheckpointError: gains of another number than emotions, or limits that are none.
    """

    gain: Tensor

    def __init__(
        self,
        emotions: Sequence[str],
        *,
        gain: Tensor | None = None,
        spans: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        self.emotions = tuple(emotions)
        gain = torch.ones(len(self.emotions)) if gain is None else gain.float()
        if gain.shape != (len(self.emotions),) or not bool(gain.isfinite().all()):
            raise CheckpointError(f"gains {gain.tolist()} for {len(self.emotions)} emotions; expected one number each")
        self.spans = {emotion: tuple(span) for emotion, span in (spans or {}).items()}
        for emotion, span in self.spans.items():
            whole = len(span) == 2 and all(isinstance(t, int) for t in span)
            if emotion not in self.emotions or not whole or not 0 <= span[0] <= span[1]:
                raise CheckpointError(
                    f"timesteps {list(span)} for {emotion!r}; expected the first and the last one of an emotion that "
                    "there is a text for"
                )
        self.register_buffer("gain", gain)

    @abstractmethod
    def contexts(self, backbone: StableDiffusionBackbone, used: Sequence[int] | None = None) -> Tensor:
        """Contexts of the emotions' texts.

        Args:
            backbone: backbone whose text encoder reads them.
            used: numbers of the emotions that are needed; default: all E.

        Returns:
            ``[E or len(used), T, D]``.

        Raises:
            CheckpointError: this text encoder cannot read them.
            EditError: a prompt that is too long.
        """

    def moved(self, backbone: Backbone, weights: Tensor) -> Tensor:
        """The neutral context, moved towards the emotions' texts: ``[N, T, D]``.

        Args:
            backbone: a Stable Diffusion.
            weights: ``[N, E]``, how far.

        Raises:
            CheckpointError: a backbone without text, or what ``contexts`` refuses.
            EditError: a prompt that is too long.
        """
        backbone = text_backbone(backbone)
        neutral = backbone.context()
        used = weights.ne(0).any(0).nonzero()[:, 0].tolist()
        if not used:
            return neutral.expand(len(weights), -1, -1)
        towards = self.contexts(backbone, used).to(neutral) - neutral
        return neutral + torch.einsum("ne,etd->ntd", weights[:, used].to(towards), towards)

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """See ``Steering.control``.

        Raises:
            CheckpointError: a backbone without text, or one whose text encoder cannot read the emotions' texts.
            EditError: a prompt that is too long.
        """
        weights = self.weights(inversion, edits) * self.gain
        return Control(context=self.moved(backbone, weights), spans=self._spans(backbone, weights))

    def _spans(self, backbone: Any, weights: Tensor) -> Tensor | None:
        """First and last timestep of each picture's emotions, ``[N, 2]``."""
        if not self.spans:
            return None
        usual = (backbone.config.t_text_min, backbone.config.t_text_max)
        limits = torch.tensor([self.spans.get(name, usual) for name in self.emotions], device=weights.device)
        used = weights != 0
        used |= ~used.any(1, keepdim=True)  # nothing asked for: any limits do
        top = limits.max() + 1
        first = torch.where(used, limits[:, 0], top).amin(1)
        last = torch.where(used, limits[:, 1], -1).amax(1)
        return torch.stack([first, last], 1)


class Words(TextSteering):
    """Prompts of the vocabulary, which need no fitting and work with any Stable Diffusion.

    Args:
        prompts: emotion -> prompt; default: every name of ``emoedit.emotions`` and its caption.
        gain: as ``TextSteering`` has them.
        spans: as ``gain``.

    Raises:
        CheckpointError: no emotion, a prompt that is no text, or what ``TextSteering`` refuses.
    """

    def __init__(
        self,
        prompts: Mapping[str, str] | None = None,
        *,
        gain: Tensor | None = None,
        spans: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        prompts = {name: get(name).prompt for name in list_emotions()} if prompts is None else dict(prompts)
        if not prompts or not all(isinstance(prompt, str) and prompt for prompt in prompts.values()):
            raise CheckpointError(f"prompts must be texts, at least one, not {list(prompts.values())[:3]!r}")
        super().__init__(tuple(prompts), gain=gain, spans=spans)
        self.prompts = tuple(prompts.values())
        self._kept: tuple[Any, dict[str, Tensor]] | None = None

    @torch.no_grad()
    def contexts(self, backbone: StableDiffusionBackbone, used: Sequence[int] | None = None) -> Tensor:
        """See ``TextSteering.contexts``; kept while no weight of the text encoder changes."""
        key = weakref.ref(backbone.text_encoder), versions(backbone.text_encoder.parameters())
        if self._kept is None or self._kept[0] != key:
            self._kept = key, {}
        kept = self._kept[1]
        prompts = self.prompts if used is None else [self.prompts[number] for number in used]
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in kept]:
            kept.update(zip(new, backbone.context(*new), strict=True))
        return torch.stack([kept[prompt] for prompt in prompts])

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json``; there are no weights."""
        config = {
            "prompts": dict(zip(self.emotions, self.prompts, strict=True)),
            "gain": self.gain.tolist(),
            "spans": {emotion: list(span) for emotion, span in self.spans.items()},
        }
        checkpoints.write_config(folder, config)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or does not fit this class.
        """
        folder = Path(folder)
        path = folder / checkpoints.CONFIG
        config = checkpoints.read_json(path)
        with checkpoints.entries_of(path):
            gain = torch.tensor([float(value) for value in config["gain"]])
            return cls(config["prompts"], gain=gain, spans=config["spans"]).eval()

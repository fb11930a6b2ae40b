"""Emotions as instructions for a pipeline that edits by words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch

from emoedit.emotions import get, list_emotions
from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.steering.base import Steering
from emoedit.types import CheckpointError, Control, Edit, EditError, Inversion

TEMPLATE = "make this {}, the same person, everything else unchanged"
DESCRIPTION = "a photo of {}"  # for a model whose prompt describes the picture that is to come out


class Instructions(Steering):
    """An instruction for each picture, and how strongly it is followed.

    A mixture names all its emotions, the strongest first; how strongly it is followed is the strength times the largest
    weight. An instruction cannot express a negative weight.

    Args:
        phrases: emotion -> target text ("smiling face"); default: the vocabulary's.
        template: the instruction, with ``{}`` for the target text.

    Raises:
        CheckpointError: no emotion, or a phrase that is no text.
        EditError: a template without ``{}``.
    """

    def __init__(self, phrases: Mapping[str, str] | None = None, *, template: str = TEMPLATE) -> None:
        super().__init__()
        phrases = {name: get(name).phrase for name in list_emotions()} if phrases is None else dict(phrases)
        if not phrases or not all(isinstance(phrase, str) and phrase for phrase in phrases.values()):
            raise CheckpointError(f"phrases must be texts, at least one, not {list(phrases.values())[:3]!r}")
        if template.count("{}") != 1:
            raise EditError(f"the instruction {template!r} needs one {{}}, where what is to be seen goes")
        self.emotions, self.phrases, self.template = tuple(phrases), dict(phrases), template

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """See ``Steering.control``.

        Raises:
            EditError: an emotion is subtracted, or the strength is below 0.
        """
        prompts, strengths = [], []
        for edit, row in zip(edits, self.weights(inversion, edits).tolist(), strict=True):
            asked = {name: weight for name, weight in zip(self.emotions, row, strict=True) if weight}
            if any(weight < 0 for weight in asked.values()):
                raise EditError(
                    f"{edit.emotion!r} at strength {edit.strength:g} takes something away, which an instruction cannot "
                    "say: name what is to be seen, with a strength above 0"
                )
            describes = getattr(backbone, "describes", False)
            prompts.append(self.instruction(asked, describes=describes) if asked else "")
            strengths.append(max(asked.values(), default=0.0))
        return Control(prompt=tuple(prompts), prompt_strength=torch.tensor(strengths).to(inversion.latent))

    def instruction(self, weights: Mapping[str, float], *, describes: bool = False) -> str:
        """The instruction for some emotions.

        Args:
            weights: emotion -> weight above 0; the larger ones are named first.
            describes: whether to describe the result instead.
        """
        names = sorted(weights, key=lambda name: -weights[name])
        phrases = [self.phrases[name] for name in names]
        joined = " and ".join([*(phrase.removesuffix(" face") for phrase in phrases[:-1]), phrases[-1]])
        template = DESCRIPTION if describes else self.template
        return template.replace("{}", f"{'an' if joined[0].lower() in 'aeiou' else 'a'} {joined}")

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json``; there are no weights."""
        checkpoints.write_config(folder, {"phrases": self.phrases, "template": self.template})

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
            return cls(config["phrases"], template=config["template"]).eval()

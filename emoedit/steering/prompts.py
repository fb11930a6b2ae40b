"""Emotions in words, for models that read a prompt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch

from emoedit.emotions import BASIC, get, parse
from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.steering.base import Steering
from emoedit.types import Control, Edit, EditError, Inversion

TEMPLATE = "{prompt}, the same person, hair, head pose, clothes, light and background as in the picture"


class Prompts(Steering):
    """The vocabulary's words as a prompt. Every name has words, so that nuanced emotions need no mixture.

    Args:
        template: ``{prompt}`` is replaced by the words of the emotion.
    """

    emotions = BASIC

    def __init__(self, template: str = TEMPLATE) -> None:
        super().__init__()
        self.template = template

    def words(self, edit: Edit) -> tuple[str, float]:
        """Prompt and strength, 0 to 1, for an edit.

        Args:
            edit: one emotion.

        Returns:
            The prompt, and the strength: 0 for the source itself to 1 for a picture independent of it.

        Raises:
            UnknownNameError: no such emotion.
            EditError: more than one emotion; a strength outside 0 to 1.
        """
        weights = {name: weight for name, weight in parse(edit.emotion).items() if weight} if edit.strength else {}
        if not weights:
            return "", 0.0
        if len(weights) > 1:
            raise EditError(
                f"a prompt says one emotion at a time, in words, not {' and '.join(weights)}; ask for one of them"
            )
        ((name, weight),) = weights.items()
        strength = edit.strength * weight
        if not 0 <= strength <= 1:
            raise EditError(f"strength {strength:g}: a prompt takes 0, the photograph, to 1, as if there were none")
        return self.template.format(prompt=get(name).prompt), strength

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """Prompt and strength for each picture.

        Args:
            backbone: reads ``Control.prompt``.
            inversion: N pictures.
            edits: one for each.

        Raises:
            UnknownNameError: no such emotion.
            EditError: not one edit a picture; more than one emotion; a strength outside 0 to 1.
        """
        if len(edits) != len(inversion):
            raise EditError(f"{len(edits)} edits for {len(inversion)} pictures; one edit a picture is needed")
        prompts, strengths = zip(*(self.words(edit) for edit in edits), strict=True)
        return Control(prompt=prompts, prompt_strength=torch.tensor(strengths, dtype=torch.float64))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the template; nothing is fitted."""
        checkpoints.write_part(folder, {"template": self.template}, {})

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        folder = Path(folder)
        return cls(str(checkpoints.read_json(folder / checkpoints.CONFIG).get("template", TEMPLATE)))

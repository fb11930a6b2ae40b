"""Textual inversion and Asyrp together, on one Stable Diffusion.

Both act on the same inversion. The learned token changes the context, for P_t and D_t alike; a shift of h acts in P_t
alone (Kwon et al. 2023, arXiv 2210.10960, eq. 5). The shift is fitted (``emoedit.steering.hspace.HSpace``), or it is
the change of h that the token causes (``TokenShift``), which needs no fitting.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from emoedit.io import checkpoints
from emoedit.models.base import Backbone
from emoedit.registry import STEERINGS
from emoedit.steering.base import Steering
from emoedit.steering.words import TextSteering, text_backbone
from emoedit.types import CheckpointError, Control, Edit, HState, Inversion


class TokenShift(Steering):
    """delta_h = gain x (h under the prompt with the token - h under the neutral prompt), at the same x_t.

    This is the change of h that the word causes, without the word in the context.

    A mixture of emotions is one interpolated context, so that any mixture costs one more pass of the down path. The
    size of delta_h is linear in the strength.

    Args:
        tokens: the texts: learned tokens, or prompts of the vocabulary.
        gain: ``[E]``: how many of these differences strength 1 is; default 1 each.
        train_steps: number of decoding steps for which the gains were chosen: shifts act once a step, so fewer steps
            need larger ones.

    Raises:
        CheckpointError: gains of another number than emotions, or no whole number of ``train_steps``.
    """

    gain: Tensor

    def __init__(self, tokens: TextSteering, *, train_steps: int, gain: Tensor | None = None) -> None:
        super().__init__()
        self.tokens, self.emotions = tokens, tokens.emotions
        gain = torch.ones(len(self.emotions)) if gain is None else gain.float()
        if gain.shape != (len(self.emotions),) or not bool(gain.isfinite().all()):
            raise CheckpointError(f"gains {gain.tolist()} for {len(self.emotions)} emotions; expected one number each")
        if not isinstance(train_steps, int) or train_steps < 1:
            raise CheckpointError(f"train_steps must be a whole number above 0, found {train_steps!r}")
        self.train_steps = train_steps
        self.register_buffer("gain", gain)

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """See ``Steering.control``.

        Raises:
            CheckpointError: a backbone without text, or one that the tokens do not fit.
        """
        weights = self.weights(inversion, edits) * self.gain
        size = weights.abs().sum(1)
        if not bool(size.any()):
            return Control()
        backbone = text_backbone(backbone)
        context = self.tokens.moved(backbone, weights / size.where(size > 0, 1)[:, None])
        factor = (size * (self.train_steps / backbone.steps))[:, None, None, None]

        def delta_h(state: HState) -> Tensor:
            # The state's own h may stand under another context: the difference is taken from neutral.
            return factor.to(state.h) * (state.h_under(context) - state.h_under(None))

        return Control(delta_h=delta_h)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the tokens in a folder of their own."""
        folder = Path(folder)
        (folder / "tokens").mkdir(parents=True, exist_ok=True)
        self.tokens.save_pretrained(folder / "tokens")
        config = {"gain": self.gain.tolist(), "train_steps": self.train_steps, "tokens": _registered(self.tokens)}
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
            gain, train_steps = torch.tensor([float(value) for value in config["gain"]]), config["train_steps"]
        return cls(_texts(config, folder), train_steps=train_steps, gain=gain).eval()


class TokenAndShift(Steering):
    """The token in the context and a shift in h, each with a strength of its own.

    With ``h_strength`` 0 it is textual inversion alone, with ``token_strength`` 0 Asyrp alone, to the bit: a part whose
    strength is 0 is not computed.

    Args:
        tokens: move the context: learned tokens, or prompts of the vocabulary.
        shift: moves h.
        token_strength: what an edit's strength is multiplied by for each.
        h_strength: as ``token_strength``.

    Raises:
        CheckpointError: parts without a common emotion, or a strength that is not finite.
    """

    def __init__(
        self, tokens: TextSteering, shift: Steering, *, token_strength: float = 1.0, h_strength: float = 1.0
    ) -> None:
        super().__init__()
        self.tokens, self.shift = tokens, shift
        self.emotions = tuple(name for name in tokens.emotions if name in shift.emotions)
        if not self.emotions:
            raise CheckpointError(
                f"no emotion in common: tokens for {', '.join(tokens.emotions)}, shifts for {', '.join(shift.emotions)}"
            )
        for name, value in (("token_strength", token_strength), ("h_strength", h_strength)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise CheckpointError(f"{name} must be a finite number, found {value!r}")
        self.token_strength, self.h_strength = float(token_strength), float(h_strength)

    def scaled(self, *, token_strength: float | None = None, h_strength: float | None = None) -> Self:
        """The same parts at other strengths.

        Args:
            token_strength: strength of the token; None for the present one.
            h_strength: strength of the shift; None for the present one.
        """
        return type(self)(
            self.tokens,
            self.shift,
            token_strength=self.token_strength if token_strength is None else token_strength,
            h_strength=self.h_strength if h_strength is None else h_strength,
        ).train(self.training)

    def control(self, backbone: Backbone, inversion: Inversion, edits: Sequence[Edit]) -> Control:
        """See ``Steering.control``; emotions that only one part knows resolve to mixtures in the other."""
        total = Control()
        for part, share in ((self.tokens, self.token_strength), (self.shift, self.h_strength)):
            if share:
                scaled = [replace(edit, strength=share * edit.strength) for edit in edits]
                total = total + part.control(backbone, inversion, scaled)
        return total

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and each part in a folder of its own."""
        folder = Path(folder)
        kind, texts = _registered(self.shift), _registered(self.tokens)
        for name, part in (("tokens", self.tokens), ("shift", self.shift)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            part.save_pretrained(folder / name)
        config = {"tokens": texts, "shift": kind, "token_strength": self.token_strength, "h_strength": self.h_strength}
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
        if lacking := sorted({"shift", "token_strength", "h_strength"} - set(config)):
            raise CheckpointError(f"{path} lacks {', '.join(lacking)}")
        shift = STEERINGS.get(config["shift"]).from_pretrained(folder / "shift")
        return cls(
            _texts(config, folder),
            shift,
            token_strength=config["token_strength"],
            h_strength=config["h_strength"],
        ).eval()


def _registered(part: Steering) -> str:
    """The registered name of a steering's class."""
    for name in STEERINGS.names():
        if STEERINGS.get(name) is type(part):
            return name
    raise CheckpointError(f"{type(part).__name__} is not registered, so a folder could not name it")


def _texts(config: Mapping[str, Any], folder: Path) -> TextSteering:
    """The texts of a folder, learned tokens where its ``config.json`` does not say which."""
    kind = config.get("tokens", "tokens")
    if not isinstance(kind, str):
        raise CheckpointError(f"{folder / checkpoints.CONFIG}: 'tokens' must name a steering, found {kind!r}")
    found = STEERINGS.get(kind).from_pretrained(folder / "tokens")
    if not isinstance(found, TextSteering):
        raise CheckpointError(f"{folder / checkpoints.CONFIG}: {kind!r} is no steering by text")
    return found

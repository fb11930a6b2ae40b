"""The values that the stages of an edit pass on, and the errors a caller can expect.

No type here depends on a model. Every error derives from ``EmoEditError``, says what was found, and says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


MAX_STRENGTH = 100  # far beyond any picture; keeps weights finite in 32 bits
LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue in luminance: ITU-R BT.601, as OpenCV's grey


class EmoEditError(Exception):
    """Base of every error this package raises on purpose."""


class ImageError(EmoEditError, ValueError):
    """The picture cannot be read: not an image, truncated, too large, too small, or of an unknown kind."""


class NoFaceError(EmoEditError, ValueError):
    """The picture holds no face that the detector is sure of, or not the one that was asked for."""


class UnknownNameError(EmoEditError, KeyError):
    """A name (emotion, editor, model) that does not exist; the message lists the nearest ones."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]) if self.args else ""


class EditError(EmoEditError, ValueError):
    """An edit that makes no sense: an expression that does not parse, a strength that is not finite."""


class OutputError(EmoEditError, OSError):
    """A result could not be written; no half-written file is left behind."""


class CheckpointError(EmoEditError, ValueError):
    """A weight file or folder is not what it should be: missing, of another shape, damaged or unsafe."""


class DataError(EmoEditError, ValueError):
    """A data set cannot be used as it is: a missing column, an unknown label, no picture left after filtering."""


class DeviceMemoryError(EmoEditError, RuntimeError):
    """A model or a picture does not fit into the memory of the device; the message says what would help."""


class MissingExtraError(EmoEditError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it.

    Args:
        package: that is not installed.
        extra: that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        checkout = Path(__file__).resolve().parents[1]
        here = (checkout / "setup.py").is_file()  # then pip has to be given this folder
        what, where = (f".[{extra}]", f" in {checkout}") if here else (f"emoedit[{extra}]", "")
        super().__init__(f"this needs {package}, which is not installed: pip install '{what}'{where}")


@dataclass(frozen=True)
class Edit:
    """One edit: an emotion and its strength.

    Args:
        emotion: a name (``"happy"``, ``"shame"``) or algebra on names (``"happy - 0.4*surprised"``).
        strength: 0 is the source itself, 1 the fitted effect; more, less and negative are allowed, up to 100.
    """

    emotion: str
    strength: float = 1.0

    def __post_init__(self) -> None:
        strength = float(self.strength)
        if not abs(strength) <= MAX_STRENGTH:  # also refuses NaN
            raise EditError(f"strength must be within ±{MAX_STRENGTH}, not {self.strength!r}; 0.5 to 2 is usual")


@dataclass(frozen=True)
class CropSpec:
    """The aligned crop that a backbone is trained on.

    Args:
        resolution: side of the crop in pixels.
        style: ``"ffhq"`` or ``"stable"`` (``emoedit.faces.align``).
        scale: side of the crop as a fraction of FFHQ's square; 1 is FFHQ itself, smaller is tighter.
        down: how far the crop's centre lies below FFHQ's, as a fraction of FFHQ's side.
    """

    resolution: int
    style: Literal["ffhq", "stable"] = "stable"
    scale: float = 1.0
    down: float = 0.0


@dataclass(frozen=True)
class Inversion:
    """The latents of a batch of pictures in one backbone: a value to be cached and passed on, never state of an editor.

    Args:
        latent: ``[N, *latent_shape]``: x_T, w+, or z.
        extras: ``[N, ...]`` each: what else ``decode`` needs (noise maps, luminance statistics), and the ``source`` and
            ``reconstruction`` that the editor keeps beside it.
        fingerprint: identifies pixels, backbone and invert arguments.
    """

    latent: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    fingerprint: str = ""

    def __len__(self) -> int:
        return int(self.latent.shape[0])

    def _repr_html_(self) -> str:
        from emoedit.report.display import inversion_html

        return inversion_html(self)

    def __getitem__(self, index: slice) -> Inversion:
        """The same inversion for a part of the batch (a slice keeps the batch dimension)."""
        return replace(self, latent=self.latent[index], extras={k: v[index] for k, v in self.extras.items()})

    def repeat(self, count: int) -> Inversion:
        """Every picture ``count`` times in a row (one inversion, many edits)."""
        return replace(
            self,
            latent=self.latent.repeat_interleave(count, 0),
            extras={k: v.repeat_interleave(count, 0) for k, v in self.extras.items()},
        )


@dataclass(frozen=True)
class Change:
    """The flow and light with which a backbone changes one crop.

    Args:
        flow: float32 ``[R, R, 2]``: the pixel that lands at p comes from ``p + flow[p]``, in pixels of the crop.
        remainder: float32 ``[R, R]``: luminance to add after the flow, in grey levels.
        points: ``[2, 68, 2]`` landmarks before and after, in pixels of the crop; None from a backbone that does not
            move landmarks.
    """

    flow: np.ndarray
    remainder: np.ndarray
    points: np.ndarray | None = None


def _without_text(context: Tensor | None) -> Tensor:
    raise EditError("this model knows no text: h under a text context needs Stable Diffusion")


@dataclass
class HState:
    """The input of ``delta_h`` at one denoising step.

    Args:
        x_t: ``[N, C, R, R]`` noisy picture.
        t: ``[N]`` timesteps.
        h: ``[N, Ch, r, r]`` mid-block output.
        temb: ``[N, D]`` timestep embedding.
        h_under: mid-block output at the same x_t under another text context, ``[N or 1, T, D]``, or (None) the neutral
            one; a model without text raises ``EditError``.
    """

    x_t: Tensor
    t: Tensor
    h: Tensor
    temb: Tensor
    h_under: Callable[[Tensor | None], Tensor] = _without_text


@dataclass(frozen=True)
class Control:
    """How a steering controls a backbone. Controls of one backbone add.

    Args:
        shift: ``[N, *latent_shape]``, added to the latent.
        context: ``[N, T, D]`` text embeddings.
        spans: ``[N, 2]``: first and last timestep at which each picture's context is used; None: where the backbone
            uses any.
        delta_h: ``HState -> [N, Ch, r, r]``, added to the mid-block output for P_t only.
        prompt: N instructions in words, one a picture ("make the person smile"), for a backbone that reads text itself,
            such as a pipeline that edits by instruction or a service.
        prompt_strength: ``[N]``: how strongly each instruction is followed, 1 as the backbone does by default; None: 1
            for all.
        displacements: ``[N, 68, 2]``: where the landmarks of each face go, in fractions of the crop's side, for a
            backbone that moves landmarks.
    """

    shift: Tensor | None = None
    context: Tensor | None = None
    delta_h: Callable[[HState], Tensor] | None = None
    spans: Tensor | None = None
    prompt: tuple[str, ...] | None = None
    prompt_strength: Tensor | None = None
    displacements: Tensor | None = None

    def __add__(self, other: Control) -> Control:
        if self.context is not None and other.context is not None:
            raise EditError("two controls both bring a text context; only one steering of an editor may do so")
        if self.prompt is not None and other.prompt is not None:
            raise EditError("two controls both bring a prompt; only one steering of an editor may do so")
        shift = self.shift if other.shift is None else other.shift if self.shift is None else self.shift + other.shift
        first, second = self.delta_h, other.delta_h
        delta_h = (lambda state: first(state) + second(state)) if first and second else first or second
        text = self if self.context is not None else other
        said = self if self.prompt is not None else other
        moves = [c.displacements for c in (self, other) if c.displacements is not None]
        displacements = sum(moves[1:], moves[0]) if moves else None
        return Control(shift, text.context, delta_h, text.spans, said.prompt, said.prompt_strength, displacements)

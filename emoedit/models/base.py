"""The base class of all backbones."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.types import Change, CheckpointError, Control, CropSpec, EditError, Inversion

Callback = Callable[[int, int], None]  # (steps done, steps in all)


def check_settings(backbone: Backbone, given: Iterable[str]) -> None:
    """Whether a backbone has settings of these names.

    Args:
        backbone: the model.
        given: names of settings.

    Raises:
        EditError: it has not; the message holds the nearest names, and all there are.
    """
    known = backbone.settings
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    near = dict.fromkeys(match for name in unknown for match in get_close_matches(name, known, n=2))
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    has = f"{hint}It has {', '.join(known)}" if known else "it has none"
    raise EditError(f"{', '.join(unknown)}: no settings of sampling of {type(backbone).__name__}; {has}")


class Backbone(nn.Module, ABC):
    """A generative model that inverts pictures to latents and decodes latents to pictures.

    Attributes:
        crop: the aligned crop it was trained on.
        channels: 1 for luminance (ITU-R BT.601), 3 for RGB.
        batches_edits: whether different edits are drawn in one batch, so that one that fails takes others with it.
        batch_size: how many pictures it draws at once if nothing else is said.
        source: where its weights came from, if that was a model of others: a folder that names it need not hold it.
        settings: names of what ``with_sampling`` may change.
        unsupported: way of computing (``offload``, ``compile``) -> why it would gain nothing here.
    """

    crop: CropSpec
    channels: int
    batches_edits: bool = True
    settings: tuple[str, ...] = ()
    batch_size: int = 8
    source: Mapping[str, Any] | None = None
    unsupported: Mapping[str, str] = {
        "offload": "it is small, and nothing in it waits for another part",
        "compile": "it draws in less time than compiling takes",
    }

    @property
    def edits_whole(self) -> bool:
        """Whether it redraws whole photographs (``edit_photo``) and not crops of faces."""
        return False

    def edit_photo(self, photo: np.ndarray, inversion: Inversion, control: Control) -> np.ndarray:
        """A photograph, redrawn; for a model that ``edits_whole``.

        Args:
            photo: uint8 ``[H, W, 3]``; not modified.
            inversion: inversion of one face in it, which has the seed.
            control: control of the decoding.

        Returns:
            uint8 ``[H, W, 3]``.

        Raises:
            TypeError: this backbone edits crops.
        """
        raise TypeError(f"{type(self).__name__} edits crops of faces")

    @property
    def normalises_luminance(self) -> bool:
        """Whether it brings every crop to one contrast, so that dark faces are lifted (``emoedit.faces.tone``)."""
        return False

    @property
    def compositor(self) -> str:
        """Name of the compositor for its drawings, where an ``editor.json`` names no other.

        ``"drawn"`` for models of luminance, ``"coloured"`` for small ones of colour, ``"rgb"`` for full-size ones
        ([emoedit.compositing.compositors][]).
        """
        return "drawn" if self.channels == 1 else "rgb"

    @abstractmethod
    def invert(
        self, x: Tensor, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Inversion:
        """The latent that decodes to ``x``.

        Args:
            x: ``[N, C, R, R]`` in [-1, 1].
            generator: random generator, for backbones whose inversion draws noise; one that does not ignores it.
            callback: called with (steps done, steps in all).
        """

    @abstractmethod
    def decode(self, inversion: Inversion, control: Control = Control(), *, callback: Callback | None = None) -> Tensor:  # noqa: B008
        """``[N, C, R, R]`` in about [-1, 1]: the reconstruction, or the edit that ``control`` asks for.

        Args:
            inversion: inversion of ``invert``.
            control: sum of the steerings' controls; by default nothing.
            callback: called with (steps done, steps in all).
        """

    def changes(self, inversion: Inversion, control: Control) -> list[Change] | None:
        """Changes of geometry and light by ``control``, one a picture, from a backbone that computes them.

        None from a backbone that only draws pictures, between which it has to be found.

        Args:
            inversion: inversion of ``invert``.
            control: sum of the steerings' controls.
        """
        return None

    def with_sampling(self, **settings: Any) -> Self:
        """This model at other settings of sampling; the weights are shared.

        Args:
            **settings: by name, of ``settings``.

        Raises:
            EditError: a name that this model does not have (the message lists those it has), or a value that makes no
                sense to it.
        """
        check_settings(self, settings)
        return self

    def to_device(self, device: str, precision: str = "auto", *, offload: bool = False) -> Self:
        """Move the weights to where they are used, held once, in the type they are used in.

        Args:
            device: as for ``emoedit.models.devices.choose_device``.
            precision: as for ``emoedit.models.devices.choose_precision``; a model that computes in float32 alone
                ignores it.
            offload: keep parts that are not at work on the CPU, where the model has such parts.

        Returns:
            Itself.
        """
        return self.to(device)

    def identity(self) -> str:
        """Identifies the model an inversion belongs to: its kind, settings, and a sample of its weights.

        A few dozen numbers of each tensor are read: reading billions would take seconds, and training changes all.
        """
        has_settings = type(self).to_config is not Backbone.to_config
        digest = hashlib.sha256(json.dumps(self.to_config(), sort_keys=True).encode() if has_settings else b"")
        for name, value in self.state_dict().items():
            rows = value.detach()[None] if value.ndim < 2 else value.detach()[:: max(1, len(value) // 4)][:4]
            flat = rows.flatten(1) if rows.ndim > 1 else rows[None]
            few = flat[:, :: max(1, flat.shape[1] // 16)].cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(few.view(torch.uint8).numpy().tobytes())
        return f"{type(self).__name__} {digest.hexdigest()}"

    def compiled_parts(self) -> Sequence[nn.Module]:
        """What ``torch.compile`` is worth its time for: parts that are called again and again at one shape."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a model without any."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def to_config(self) -> dict[str, Any]:
        """What ``from_config`` needs to build the same architecture, as json.

        Raises:
            TypeError: a backbone that is loaded from files of its own.
        """
        raise TypeError(f"{type(self).__name__} is loaded from its own files and has no folder layout to save to")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The architecture with fresh weights.

        Args:
            config: as ``to_config`` gives it.

        Raises:
            TypeError: a backbone that is loaded from files of its own.
        """
        raise TypeError(f"{cls.__name__} is loaded from its own files, see its from_file")

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and the weights (safetensors).

        Args:
            folder: an existing folder.
        """
        checkpoints.write_part(folder, self.to_config(), self.state_dict(), eight_bits=True)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Args:
            folder: folder of ``save_pretrained``.

        Raises:
            CheckpointError: a file is missing, damaged, or of another shape.
        """
        folder = Path(folder)
        config = checkpoints.read_json(folder / checkpoints.CONFIG)
        try:
            with torch.device("meta"):  # neither random numbers nor memory before the file is known to fit
                skeleton = cls.from_config(config)
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{folder / checkpoints.CONFIG} lacks or garbles an entry: {error!r}") from error
        checkpoints.check_shapes(skeleton.state_dict(), folder / checkpoints.WEIGHTS)
        model = cls.from_config(config)
        state = checkpoints.read_weights(folder / checkpoints.WEIGHTS)
        checkpoints.check_state(model.state_dict(), state, folder / checkpoints.WEIGHTS)
        model.load_state_dict(state)
        return model.eval()

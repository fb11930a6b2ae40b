"""Weight files that their authors publish: found on disk, read without running anything, never downloaded here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emoedit.io.checkpoints import read_weights
from emoedit.io.weights import read_torch
from emoedit.types import CheckpointError


@dataclass(frozen=True)
class PublishedFile:
    """A weight file that its authors publish, looked for in torch.hub's cache.

    Args:
        url: address where it is published; its last part is its name in the cache.
    """

    url: str

    @property
    def cached(self) -> Path:
        """Where torch.hub keeps it."""
        return Path(torch.hub.get_dir(), "checkpoints", self.url.rsplit("/", 1)[1])

    def read(self, path: str | Path | None = None) -> tuple[Path, dict[str, Tensor]]:
        """The file's path and its state dict, floating-point tensors as float32. Nothing in the file is executed.

        Args:
            path: path of another copy: ``.safetensors``, or as ``torch.save`` writes it.

        Raises:
            CheckpointError: it is not there (the message holds the command that fetches it), it is damaged, or it is no
                state dict.
        """
        path = self.cached if path is None else Path(path)
        if not path.is_file():
            command = f"curl -fL --create-dirs -o {shlex.quote(str(self.cached))} {self.url}"
            raise CheckpointError(
                f"{path} is missing; this fetches the published file to where it is found without a path: {command}"
            )
        state = read_weights(path) if path.suffix.lower() == ".safetensors" else read_torch(path)
        if not isinstance(state, Mapping) or not state:
            raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a state dict (names -> tensors)")
        for name, value in state.items():
            if not isinstance(name, str) or not _plain(value):
                raise CheckpointError(
                    f"{path} holds at {str(name)[:60]!r} a {type(value).__name__}; expected a state dict (names -> "
                    "dense floating-point tensors)"
                )
        return path, {k: v.detach().float() if v.is_floating_point() else v for k, v in state.items()}


def _plain(value: Any) -> bool:
    """Whether it is an ordinary tensor with all its numbers in memory: floating-point, or a counter."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and (value.is_floating_point() or (value.dtype is torch.int64 and value.ndim == 0))
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )

"""Small networks that measure faces: identity, expression, landmarks and perceptual distance.

One residual trunk (He et al. 2016, arXiv 1512.03385) with batch normalisation and a head for each task. Their input is
an aligned luminance crop, normalised to mean 0 and deviation 1, so that brightness and contrast have no effect.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.types import CheckpointError, CropSpec

WEIGHTS = "model.safetensors"
# On processors with AVX2 and nothing newer, oneDNN's backward pass of a 1 x 1 convolution with stride 2 writes outside
# its memory when it has fewer input channels (torch 2.14.1, channels-last).
NARROWEST = 8


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture and input of a measuring network.

    Args:
        heads: head -> number of outputs: ``person`` (length of the embedding), ``emotion`` (classes), ``points``
            (landmarks). None for a trunk alone.
        resolution: side of its crop (``emoedit.types.CropSpec``, style ``stable``).
        scale: scale of that crop.
        down: vertical offset of that crop.
        widths: channels at strides 2, 4, 8, 16; all but the last at least ``NARROWEST``.
        emotions: names of the emotion head's classes.

    Raises:
        CheckpointError: a width below ``NARROWEST``.
    """

    heads: dict[str, int]
    resolution: int = 96
    scale: float = 0.66
    down: float = 0.074
    widths: tuple[int, ...] = (24, 48, 96, 160)
    emotions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        narrow = [width for width in self.widths[:-1] if width < NARROWEST]
        if narrow:
            raise CheckpointError(f"widths {tuple(self.widths)}: all but the last need {NARROWEST} channels or more")


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        shortcut = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def standardise(x: Tensor) -> Tensor:
    """Pictures ``[N, 1, R, R]`` at mean 0 and deviation 1 each; noise in flat ones is not amplified."""
    x = x - x.mean((1, 2, 3), keepdim=True)
    return x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(0.02)


class StoredNetwork(nn.Module, ABC):
    """A network that is stored as a folder: ``config.json``, ``model.safetensors`` and a card.

    Args:
        config: a dataclass whose fields are the entries of ``config.json``.
    """

    config: Any

    @classmethod
    @abstractmethod
    def read_config(cls, raw: Mapping[str, Any]) -> Any:
        """The configuration in a json object.

        Args:
            raw: contents of ``config.json``.
        """

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str, **info: Any) -> None:
        """Write ``config.json``, ``model.safetensors`` and ``README.md``; the folder appears when it is complete.

        Args:
            folder: path of the new folder.
            card: text of ``README.md``.
            **info: entries of ``config.json``.

        Raises:
            OutputError: the folder cannot be written; an older one of that name is kept.
        """
        with checkpoints.new_folder(Path(folder)) as new:
            checkpoints.write_part(
                new, {**asdict(self.config), **info}, self.state_dict(), weights=WEIGHTS, eight_bits=True
            )
            (new / "README.md").write_text(card, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Args:
            folder: folder of ``save_pretrained``.

        Raises:
            CheckpointError: a file is missing, damaged, or of another shape.
        """
        folder = Path(folder)
        raw = checkpoints.read_json(folder / checkpoints.CONFIG)
        try:
            config = cls.read_config(raw)
            with torch.device("meta"):  # neither random numbers nor memory before the file is known to fit
                skeleton = cls(config)
            checkpoints.check_shapes(skeleton.state_dict(), folder / WEIGHTS)
            model = cls(config)
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{folder / checkpoints.CONFIG} lacks or garbles an entry: {error!r}") from error
        state = checkpoints.read_weights(folder / WEIGHTS)
        checkpoints.check_state(model.state_dict(), state, folder / WEIGHTS)
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)


class MeasuringNetwork(StoredNetwork):
    """A trunk and its heads.

    Args:
        config: see ``NetworkConfig``.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.crop = CropSpec(config.resolution, "stable", config.scale, config.down)
        widths = config.widths
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        inputs = [widths[0], *widths[:-1]]
        self.stages = nn.ModuleList(
            _Block(i, o, 1 if n == 0 else 2) for n, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        side, last = config.resolution // 2 ** len(widths), widths[-1]
        self.heads = nn.ModuleDict()
        if "person" in config.heads:
            # A depthwise convolution over the whole map (MobileFaceNets, Chen et al. 2018, arXiv 1804.07573) weights
            # places of the face, which an average does not.
            wide = 2 * last
            self.heads["person"] = nn.Sequential(
                nn.Conv2d(last, wide, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
                nn.Conv2d(wide, wide, side, groups=wide, bias=False),
                nn.BatchNorm2d(wide),
                nn.Flatten(),
                nn.Linear(wide, config.heads["person"], bias=False),
            )
        if "emotion" in config.heads:
            self.heads["emotion"] = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(last, config.heads["emotion"])
            )
        if "points" in config.heads:
            self.heads["points"] = nn.Sequential(
                nn.Conv2d(last, 64, 1, bias=False),
                nn.BatchNorm2d(64),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(64 * side * side, 2 * config.heads["points"]),
            )

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps at strides 2, 4, 8, 16 of crops ``[N, 1, R, R]`` in [-1, 1]."""
        x = self.stem(standardise(x).contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def trunk_fingerprint(self) -> str:
        """Identifies the weights that ``features`` uses, 16 hexadecimal digits; heads make no difference."""
        trunk = {name: value for name, value in self.state_dict().items() if name.startswith(("stem.", "stages."))}
        return hashlib.sha256(b"".join(checkpoints.tensor_bytes(trunk))).hexdigest()[:16]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Every head's output for crops ``[N, 1, R, R]`` in [-1, 1].

        ``person`` ``[N, D]`` (not normalised), ``emotion`` logits ``[N, E]``, ``points`` ``[N, P, 2]`` as fractions of
        the crop's side (0, 0 is its upper left corner).
        """
        last = self.features(x)[-1]
        out = {name: head(last).float() for name, head in self.heads.items()}
        if "points" in out:
            out["points"] = out["points"].unflatten(1, (-1, 2)) + 0.5
        return out

    @classmethod
    def read_config(cls, raw: Mapping[str, Any]) -> NetworkConfig:
        """The configuration of a folder.

        Args:
            raw: contents of ``config.json``.
        """
        return NetworkConfig(
            heads={str(k): int(v) for k, v in raw["heads"].items()},
            resolution=int(raw["resolution"]),
            scale=float(raw["scale"]),
            down=float(raw["down"]),
            widths=tuple(int(v) for v in raw["widths"]),
            emotions=tuple(str(v) for v in raw["emotions"]),
        )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote; the outputs of the emotion head have to be named.

        Args:
            folder: path of the folder.

        Raises:
            CheckpointError: the names of emotions do not fit the outputs.
        """
        model = super().from_pretrained(folder)
        named, outputs = len(model.config.emotions), model.config.heads.get("emotion", 0)
        if named != outputs:
            raise CheckpointError(f"{Path(folder) / checkpoints.CONFIG} names {named} emotions for {outputs} outputs")
        return model

"""The steerings of full-size editors, from their files: tokens, shifts of h, boundaries, attribute vectors.

These small files are read before the model, so that their errors are found first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoedit.types import CheckpointError

if TYPE_CHECKING:
    from emoedit.models.base import Backbone
    from emoedit.steering.base import Steering

Files = Mapping[str, Any]  # emotion -> file, or (file, gain)
GAIN = 3.0  # how far along a boundary strength 1 goes: the range that InterFaceGAN draws
HOW_TO_FIT = {
    "shifts": "fit one to your own pictures: emoedit fit shift --emotion NAME --pictures FOLDER --neutral FOLDER",
    "boundaries": "fit one to the model's own samples: emoedit fit direction --emotion happy --model FILE",
}


@dataclass(frozen=True)
class Parts:
    """The parts of an editor beside its model.

    Args:
        files: option (``tokens``, ``shifts``, ``boundaries``) -> emotion -> file.
        layers: layers of W+ that boundaries may change, from the first to before the second; None: all.
    """

    files: Mapping[str, Files]
    layers: tuple[int, ...] | None = None


def path_of(part: Any) -> Path:
    """The file of a part, which may be a pair of file and gain.

    Args:
        part: a path, or a pair of path and gain.
    """
    return Path(part[0] if isinstance(part, tuple | list) else part).expanduser()


Made = Callable[["Backbone"], "list[Steering]"]  # the steerings of a backbone that has been loaded


def _texts(parts: Parts) -> Any:
    from emoedit.steering.tokens import EmotionTokens
    from emoedit.steering.words import Words

    tokens = parts.files.get("tokens")
    return Words() if tokens is None else EmotionTokens.from_files(tokens)


def _by_text(parts: Parts, settings: Mapping[str, Any]) -> Made:
    texts = _texts(parts)
    return lambda backbone: [texts]


def _by_text_and_shift(parts: Parts, settings: Mapping[str, Any]) -> Made:
    """Fitted shifts of h where there are some, else the change of h that the text causes."""
    from emoedit.steering.combined import TokenAndShift, TokenShift

    texts = _texts(parts)
    fitted = parts.files.get("shifts")
    shift = TokenShift(texts, train_steps=int(settings["steps"])) if fitted is None else _read_shifts(fitted)
    return lambda backbone: [TokenAndShift(texts, shift)]


def _by_shift(parts: Parts, settings: Mapping[str, Any]) -> Made:
    shifts = _read_shifts(parts.files["shifts"])
    return lambda backbone: [shifts]


def _read_shifts(files: Files) -> Any:
    """Shifts of h of one family: Asyrp's files, or folders that ``emoedit fit shift`` wrote.

    Raises:
        CheckpointError: damaged, of another kind, or a mixture of both.
    """
    from emoedit.steering.hspace import HSpace

    paths = {emotion: path_of(part) for emotion, part in files.items()}
    inside = {emotion: path / "steering_0" for emotion, path in paths.items()}  # of an editor that was fitted
    paths |= {emotion: path for emotion, path in inside.items() if path.is_dir()}
    folders = [emotion for emotion, path in paths.items() if path.is_dir()]
    if not folders:
        return HSpace.from_asyrp(paths)
    if len(folders) != len(paths):
        raise CheckpointError("shifts are files of Asyrp, or folders of emoedit fit shift, not both at once")
    return HSpace.joined({emotion: HSpace.from_pretrained(path) for emotion, path in paths.items()})


def _by_boundary(parts: Parts, settings: Mapping[str, Any]) -> Made:
    from emoedit.steering.wspace import WDirections, from_boundaries, read_boundary

    files = parts.files["boundaries"]
    gains = {name: float(part[1]) if isinstance(part, tuple | list) else GAIN for name, part in files.items()}
    normals = {name: read_boundary(path_of(part)) for name, part in files.items()}

    def made(backbone: Any) -> list[Steering]:
        count, width = backbone.latent_shape
        for part in files.values():
            read_boundary(path_of(part), width=width)  # says which width is needed
            if "stylegan_" in path_of(part).name:
                warnings.warn(
                    f"{path_of(part).name} has the name of a boundary of StyleGAN1, whose W is another space: its "
                    f"numbers load here and mean nothing. {HOW_TO_FIT['boundaries']}",
                    stacklevel=2,
                )
        where = None if parts.layers is None else (parts.layers[0], parts.layers[1])
        return [WDirections.in_layers(from_boundaries(normals, gains), count, where)]

    return made


def _by_vector(parts: Parts, settings: Mapping[str, Any]) -> Made:
    from emoedit.steering.faceflex import directions_from_faceflex

    steering = directions_from_faceflex({name: path_of(part) for name, part in parts.files["boundaries"].items()})
    return lambda backbone: [steering]


def _by_instruction(parts: Parts, settings: Mapping[str, Any]) -> Made:
    from emoedit.steering.instructions import Instructions

    return lambda backbone: [Instructions()]


STEERINGS_OF: Mapping[str, Callable[[Parts, Mapping[str, Any]], Made]] = {
    "sd15": _by_text,
    "sd15-asyrp": _by_text_and_shift,
    "celebahq": _by_shift,
    "stylegan2": _by_boundary,
    "face-flex": _by_vector,
    "instruct": _by_instruction,
}

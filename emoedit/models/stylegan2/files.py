"""StyleGAN2 weight files of others, read into this package's names: NVIDIA's ``.pkl`` and rosinality's ``.pt``.

A pickle is a program: it names functions to be called. NVIDIA's moreover carry the source code of their classes, which
their own reader executes. Here a pickle is interpreted as data (``emoedit.io.pickles``): it may name only what stands
in ``ALLOWED``, for each of which a tensor, a number or a plain container is built; the code in it is thrown away
unread, and anything else that is named ends the reading.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from emoedit.io import pickles
from emoedit.io.pickles import NamedError, PickleError, mapping, members
from emoedit.io.weights import Tensors, read_torch
from emoedit.models.stylegan2.network import FIR, sides
from emoedit.types import CheckpointError

NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "i4": "i", "i8": "q", "u1": "B", "b1": "?"}  # NumPy's names -> struct's
DEEPEST = 8  # modules inside modules; what goes deeper is no StyleGAN2
MOST = 2000  # modules; those of the largest published generator are 50
SHOWN = 3  # names that an error lists


class Record(NamedTuple):
    """An object of a NVIDIA pickle: the name of its class, and what it held. Nothing of it can be called."""

    class_name: str
    state: dict[str, Any]


class _Number:
    """A NumPy type, as far as single numbers need it; pickles set its byte order after it was made."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = NUMBERS[code]

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Its byte order, as NumPy's ``__setstate__`` is given it."""
        if state[1] not in ("<", "|", "="):
            raise PickleError(f"it has numbers of byte order {str(state[1])[:5]!r}")


def _record(meta: Mapping[str, Any]) -> Record:
    if meta["type"] != "class" or not isinstance(meta["state"], dict):
        raise PickleError("it holds a module of another kind than a class")
    return Record(str(meta["class_name"])[:80], meta["state"])


def _number(kind: _Number, data: bytes) -> Any:
    return struct.unpack("<" + kind.code, data)[0]


class _Storages:
    """Files in the file, written by torch.save, with the numbers of one tensor each.

    Args:
        size: size of the whole file, bytes: a pickle may hand over the same bytes any number of times.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def __call__(self, data: bytes) -> Any:
        self._left -= len(data)
        if self._left < 0:
            raise PickleError("its tensors claim more bytes than the file has")
        try:
            return read_torch(data, "a tensor in it")
        except CheckpointError as error:
            raise PickleError(str(error)) from error


ALLOWED = (  # what a pickle may name
    "collections.OrderedDict",
    "builtins.set",
    "__builtin__.set",
    "dnnlib.util.EasyDict",
    "torch_utils.persistence._reconstruct_persistent_obj",
    "torch.storage._load_from_bytes",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)


def _builders(size: int) -> dict[str, Callable[..., Any]]:
    """What is built for each of ``ALLOWED``, for a file of ``size`` bytes."""
    tensors = Tensors(size)
    found = (
        *(mapping, members, members, mapping, _record, _Storages(size), tensors.view, lambda data, *_: data),
        *(_Number, _number, _number),
    )
    return dict(zip(ALLOWED, found, strict=True))


def read_pickle(path: Path) -> Any:
    """A pickle as NVIDIA's training writes it, as tensors, ``Record`` s and plain containers.

    Args:
        path: path of the file.

    Raises:
        CheckpointError: missing, damaged, or naming anything but what such a file needs; nothing of it was executed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        with path.open("rb") as file:
            return pickles.read_pickle(file, _builders(path.stat().st_size))
    except NamedError as error:
        if error.name.startswith("dnnlib.tflib."):
            raise CheckpointError(
                f"{path} is a pickle of the TensorFlow version ({error.name}); convert it with legacy.py of "
                "NVlabs/stylegan2-ada-pytorch, on a machine that may run its code"
            ) from None
        raise CheckpointError(
            f"{path} asks for {error.name}, which a StyleGAN2 generator does not need: it is a pickle of something "
            "else, or made to run code. Nothing of it was executed"
        ) from None
    except (PickleError, OSError, struct.error, MemoryError) as error:
        raise CheckpointError(f"{path} is damaged, or no pickle of a StyleGAN2 ({str(error)[:200]})") from error


def read_generator(path: Path, contents: Any = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A generator's architecture and weights.

    Args:
        path: ``.pkl`` (NVIDIA, ``G_ema``), or what ``torch.save`` wrote (rosinality, ``g_ema``; pSp and e4e, whose
            ``decoder`` has rosinality's names).
        contents: contents of what ``torch.save`` wrote, if it has been read.

    Returns:
        The entries of ``StyleGAN2Config`` that the file holds, and the state dict of ``mapping``
        and ``synthesis``, float32. rosinality's files may lack the mean of w (``mapping.w_avg``) and the noise maps
        (``synthesis.noise``); tensors are compared with what is expected by whoever loads them.

    Raises:
        CheckpointError: missing, damaged, unsafe; another network; a variant that this package does not draw.
    """
    if is_pickle(path):
        config, state = _from_nvidia(path)
    else:
        config, state = _from_rosinality(path, read_torch(path) if contents is None else contents)
    return config, {name: value.float() for name, value in state.items()}


def is_pickle(path: Path) -> bool:
    """Whether it has the suffix of NVIDIA's files.

    Args:
        path: path of the file.
    """
    return path.suffix.lower() in (".pkl", ".pickle")


def _from_nvidia(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    contents = read_pickle(path)
    record = contents.get("G_ema") if isinstance(contents, dict) else None
    if not isinstance(record, Record):
        held = ", ".join(map(str, list(contents)[:SHOWN])) if isinstance(contents, dict) else type(contents).__name__
        raise CheckpointError(f"{path} holds {held or 'nothing'}; expected a generator under 'G_ema'")
    modules: dict[str, Record] = {}
    for name, part in _modules(record, path):
        modules[name] = part
        if len(modules) > MOST:  # a module that holds itself many times over
            raise CheckpointError(f"{path} holds more than {MOST:,} modules; this is no StyleGAN2")
    state = {f"{at}{name}": value for at, part in modules.items() for name, value in _tensors(part).items()}
    if record.class_name != "Generator" or "synthesis.b4.const" not in state:
        listed = ", ".join(list(state)[:SHOWN]) or "no tensors"
        raise CheckpointError(
            f"{path} holds a {record.class_name} with {listed}; expected StyleGAN2's Generator (synthesis.b4.const, "
            "synthesis.b4.conv1.weight, ...)"
        )
    _check_variant(modules, path)
    last = max(int(found[1]) for name in state if (found := re.match(r"synthesis\.b(\d{1,4})\.", name)))
    config = _config(
        path,
        resolution=last,
        widths=[_shape(state, f"synthesis.b{side}.conv1.weight", 4, path)[0] for side in sides(last)],
        shown=_shape(state, f"synthesis.b{last}.torgb.weight", 4, path),
        mapping=[_shape(state, f"mapping.fc{i}.weight", 2, path) for i in _count(state, r"mapping\.fc(\d+)\.weight")],
    )
    mapping = modules["mapping.fc0."].state
    config |= {"clamp": modules["synthesis.b4.conv1."].state.get("conv_clamp")}
    config |= {"mapping_rate": float(mapping.get("bias_gain", 1.0))}
    wanted = {name: value for name, value in state.items() if not name.endswith(".resample_filter")}
    noise = [f"synthesis.b{side}.{conv}.noise_const" for side in sides(last) for conv in ("conv0", "conv1")][1:]
    converted = {_nvidia_name(name): _plain(name, value) for name, value in wanted.items() if name not in noise}
    return config, {**converted, **_joined(state, noise, path)}


def _modules(record: Record, path: Path, at: str = "", depth: int = 0) -> Iterator[tuple[str, Record]]:
    """Dotted name (with a dot behind it) -> module."""
    if depth > DEEPEST:
        raise CheckpointError(f"{path}: modules lie more than {DEEPEST} deep in each other; this is no StyleGAN2")
    yield at, record
    inner = record.state.get("_modules")
    for name, part in inner.items() if isinstance(inner, dict) else ():
        if isinstance(part, Record):
            yield from _modules(part, path, f"{at}{name}.", depth + 1)


def _tensors(record: Record) -> dict[str, Tensor]:
    groups = [record.state.get(name) for name in ("_parameters", "_buffers")]
    pairs = [pair for group in groups if isinstance(group, dict) for pair in group.items()]
    return {str(name): value for name, value in pairs if isinstance(value, Tensor)}


def _check_variant(modules: Mapping[str, Record], path: Path) -> None:
    """Refuse options that tensor shapes do not show and ``Synthesis`` does not support."""
    faults = []
    if classes := modules[""].state.get("c_dim"):
        faults.append(f"it is conditioned on {classes} classes (expected none)")
    for name, part in modules.items():
        state = part.state
        if state.get("architecture", "skip") != "skip":
            faults.append(f"{name[:-1]} of architecture {state['architecture']!r} (expected 'skip')")
        if state.get("activation", "lrelu") not in ("lrelu", "linear"):
            faults.append(f"{name[:-1]} with activation {state['activation']!r} (expected 'lrelu')")
        kernel = _tensors(part).get("resample_filter")
        if kernel is not None and not _is_fir(kernel):
            faults.append(f"{name[:-1]} with another filter than {list(FIR)}")
    if faults:
        raise CheckpointError(f"{path}: this generator cannot be drawn: {'; '.join(faults[:SHOWN])}")


def _is_fir(kernel: Tensor) -> bool:
    taps = torch.tensor(FIR)
    expected = torch.outer(taps, taps)
    shape = kernel.shape == expected.shape
    return shape and torch.allclose(kernel.float() / kernel.float().sum(), expected / expected.sum(), atol=1e-5)


def _nvidia_name(name: str) -> str:
    if found := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
        return f"mapping.layers.{found[1]}.{found[2]}"
    if found := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name):
        level = int(found[1]).bit_length() - 3
        if found[2] == "torgb":
            return f"synthesis.to_images.{level}.{found[3]}"
        return f"synthesis.convs.{2 * level - (found[2] == 'conv0')}.{found[3]}"
    return {"synthesis.b4.const": "synthesis.const"}.get(name, name)


def _plain(name: str, value: Tensor) -> Tensor:
    """A tensor of either naming in the shape that it has here."""
    if re.search(r"torgb\.weight$", name) and value.ndim == 4:
        return value[:, :, 0, 0]
    if re.search(r"to_rgb\w*(\.\d+)?\.conv\.weight$", name) and value.ndim == 5:
        return value[0, :, :, 0, 0]
    if name.endswith("conv.weight") and value.ndim == 5:
        return value[0]
    if re.search(r"to_rgb\w*(\.\d+)?\.bias$", name):
        return value.flatten()
    if name.endswith("noise.weight") and value.numel() == 1:
        return value.reshape(())
    return value[None] if name == "synthesis.b4.const" and value.ndim == 3 else value


def _joined(state: Mapping[str, Tensor], names: list[str], path: Path) -> dict[str, Tensor]:
    """All noise maps as one row."""
    for k, name in enumerate(names):
        side = 2 ** ((k + 5) // 2)
        if name not in state or state[name].numel() != side**2:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise CheckpointError(f"{path}: {name} is {found}, expected a noise map of {side} x {side}")
    return {"synthesis.noise": torch.cat([state[name].flatten() for name in names])[None]}


def _decoder(contents: Any) -> Any:
    """The generator in a checkpoint of pSp or e4e; None in other files."""
    state = contents.get("state_dict") if isinstance(contents, Mapping) else None
    if not isinstance(state, Mapping) or "decoder.input.input" not in state:
        return None
    return {name[8:]: value for name, value in state.items() if str(name).startswith("decoder.")}


def _from_rosinality(path: Path, contents: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    state = contents.get("g_ema") if isinstance(contents, Mapping) else None
    state = _decoder(contents) if state is None else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        held = ", ".join(map(str, list(contents)[:SHOWN])) if isinstance(contents, Mapping) else type(contents).__name__
        raise CheckpointError(f"{path} holds {held or 'nothing'}; expected a generator's tensors under 'g_ema'")
    state = {str(name): value for name, value in state.items()}
    if "input.input" not in state or "conv1.conv.modulation.weight" not in state:
        listed = ", ".join(list(state)[:SHOWN]) or "no tensors"
        raise CheckpointError(
            f"{path} holds {listed} under 'g_ema'; expected StyleGAN2's generator (input.input, conv1.conv.weight, ...)"
        )
    kernels = [name for name in state if name.endswith(".kernel")]
    if odd := [name for name in kernels if not _is_fir(state[name])]:
        raise CheckpointError(f"{path}: this generator cannot be drawn: {odd[0]} is another filter than {list(FIR)}")
    count = len(list(_count(state, r"to_rgbs\.(\d+)\.bias")))
    config = _config(
        path,
        resolution=4 * 2**count,
        widths=[_shape(state, "conv1.conv.weight", 5, path)[1]]
        + [_shape(state, f"convs.{2 * k + 1}.conv.weight", 5, path)[1] for k in range(count)],
        shown=_shape(state, "to_rgb1.conv.weight", 5, path)[1:],
        mapping=[_shape(state, f"style.{i}.weight", 2, path) for i in _count(state, r"style\.(\d+)\.weight")],
    )
    noise = [f"noises.noise_{k}" for k in range(2 * count + 1)]
    wanted = {name: value for name, value in state.items() if name not in {*kernels, *noise}}
    converted = {_rosinality_name(name): _plain(name, value) for name, value in wanted.items()}
    if any(name in state for name in noise):  # files written before 2020-03 have none
        converted |= _joined(state, noise, path)
    mean = contents.get("latent_avg")
    if isinstance(mean, Tensor):  # [D], or [L, D] with rows that are alike
        converted["mapping.w_avg"] = mean.reshape(-1, mean.shape[-1] if mean.ndim else 1)[0]
    return config, converted


def _rosinality_name(name: str) -> str:
    tails = {
        "conv.weight": "weight",
        "conv.modulation.weight": "affine.weight",
        "conv.modulation.bias": "affine.bias",
        "noise.weight": "noise_strength",
        "activate.bias": "bias",
        "bias": "bias",
    }
    if found := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
        return f"mapping.layers.{int(found[1]) - 1}.{found[2]}"  # the first of its layers only normalises
    found = re.fullmatch(r"(conv1|convs\.(\d+)|to_rgb1|to_rgbs\.(\d+))\.(.+)", name)
    if not found or found[4] not in tails:
        return {"input.input": "synthesis.const"}.get(name, name)
    kind = "to_images" if found[1].startswith("to_rgb") else "convs"
    number = found[2] or found[3]
    return f"synthesis.{kind}.{0 if number is None else int(number) + 1}.{tails[found[4]]}"


def _config(
    path: Path, *, resolution: int, widths: list[int], shown: tuple[int, ...], mapping: list[tuple[int, ...]]
) -> dict[str, Any]:
    if resolution < 16 or math.log2(resolution) % 1 or not mapping or shown[0] not in (1, 3):
        raise CheckpointError(
            f"{path}: {resolution} pixels, {shown[0]} channels and {len(mapping)} layers of mapping; expected a power "
            "of two of 16 at least, 1 or 3 channels, and at least one layer"
        )
    return {
        "resolution": resolution,
        "channels": shown[0],
        "z_dim": mapping[0][1],
        "w_dim": mapping[-1][0],
        "mapping_layers": len(mapping),
        "widths": tuple(widths),
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted(int(found[1]) for name in state if (found := re.fullmatch(pattern, name)))


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int, path: Path) -> tuple[int, ...]:
    found = state.get(name)
    if found is None or found.ndim != dimensions:
        what = "is missing" if found is None else f"is {tuple(found.shape)}, expected {dimensions} dimensions"
        raise CheckpointError(f"{path}: {name} {what}; the file is damaged, or of another network")
    return tuple(found.shape)

"""Tensors in ``.safetensors`` files: read and checked before they take memory, written as small as loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoedit.types import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"  # the name diffusers gives them
STEP = ":step"  # ends the name of what an 8-bit tensor's rows are multiplied by
MAX_JSON = 2**24  # bytes of a description or a header; the largest published ones have 2 MB
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # safetensors' names


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header alone.

    Args:
        path: path of the file.

    Raises:
        CheckpointError: missing, damaged, a header of more than 16 MB, or complex, quantised or 8-bit floating numbers.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: this is no model folder, or its download stopped half-way")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_JSON, path.stat().st_size - 8):
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
        found = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in header.items() if name[:2] != "__"}
    except (ValueError, OSError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read: damaged or no safetensors file ({error})") from error
    if odd := [f"{name[:60]} ({kind})" for name, (kind, _) in found.items() if kind not in DTYPES]:
        raise CheckpointError(f"{path} cannot be read: it holds {odd[0]}; expected one of {', '.join(DTYPES)}")
    return {name: shape for name, (_, shape) in found.items()}


def check_shapes(expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare a safetensors file's header with what a model expects, before either takes memory.

    Args:
        expected: the state dict of the model, on the meta device.
        path: the file.

    Raises:
        CheckpointError: as ``check_state`` says it, or the file cannot be read.
    """
    found = read_shapes(path)
    bare = {name: shape for name, shape in found.items() if name.removesuffix(STEP) not in found or name[-5:] != STEP}
    _refuse(_misfits({name: tuple(value.shape) for name, value in expected.items()}, bare), path)


def check_size(skeleton: nn.Module, folder: Path) -> None:
    """Refuse a description whose network is far larger than the weights beside it.

    What a file lacks would be filled with random numbers.

    Args:
        skeleton: the network, on the meta device.
        folder: folder of the ``.safetensors`` files.

    Raises:
        CheckpointError: it has more than four times the numbers that the files can hold in half precision.
    """
    wanted = sum(value.numel() for value in skeleton.state_dict().values())
    have = sum(path.stat().st_size for path in folder.glob("*.safetensors")) // 2
    if wanted > 4 * have + 10_000_000:
        raise CheckpointError(
            f"{folder / CONFIG} describes a network of {wanted:,} numbers, and the weights beside it hold {have:,}"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; what ``write_part`` stored in 8 bits as the float32 it was.

    Args:
        path: path of the file.

    Raises:
        CheckpointError: missing, truncated, or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_shapes(path)  # refuses what the library would take
    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: damaged or no safetensors file ({error})") from error
    for name in [name for name in found if name + STEP in found]:
        step = found.pop(name + STEP).float()
        if step.shape != found[name].shape[:1]:
            raise CheckpointError(f"{path}: {name} is {tuple(found[name].shape)}, its steps are {tuple(step.shape)}")
        found[name] = found[name].float() * step.view(-1, *[1] * (found[name].ndim - 1))
    return found


def check_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path | str) -> None:
    """Compare a state dict with the one a model expects.

    Args:
        expected: names and tensors of the model.
        found: names and tensors of the file.
        path: path of the file, for messages.

    Raises:
        CheckpointError: keys missing, unexpected, of another shape, or not finite, with the first few of each.
    """
    problems = _misfits(*({name: tuple(value.shape) for name, value in state.items()} for state in (expected, found)))
    for name in sorted(expected.keys() & found.keys()):
        if expected[name].shape == found[name].shape and not bool(found[name].isfinite().all()):
            problems.append(f"{name} holds values that are not finite")
    _refuse(problems, path)


def tensor_bytes(state: Mapping[str, Tensor]) -> Iterator[bytes]:
    """Names and contents of tensors, for a checksum: in the order of names, the same on every device.

    Args:
        state: tensors by name.
    """
    import torch

    for name, value in sorted(state.items()):
        yield name.encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _misfits(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    problems = []
    for title, names in (("missing", expected.keys() - found.keys()), ("unexpected", found.keys() - expected.keys())):
        if names:
            told = ", ".join(name[:80] for name in sorted(names)[:4])
            problems.append(f"{len(names)} {title} ({told}{', …' if len(names) > 4 else ''})")
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            problems.append(f"{name} is {found[name]}, expected {expected[name]}")
    return problems


def _refuse(problems: list[str], path: Path | str) -> None:
    if problems:
        rest = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise CheckpointError(f"{path} does not fit: {'; '.join(problems[:6])}{rest}")


def write_config(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """``config.json`` in a folder (made if need be).

    Args:
        folder: path of the folder.
        config: contents of the file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@contextmanager
def entries_of(path: Path) -> Iterator[None]:
    """Within it, an entry that is missing or of another kind is an error that names the file.

    Args:
        path: path of the description whose entries are used.

    Raises:
        CheckpointError: what went wrong.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} lacks or garbles an entry: {error}") from error


def write_part(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    weights: str = WEIGHTS,
    eight_bits: bool = False,
) -> None:
    """``config.json`` and the weights (safetensors, of that file name) in a folder (made if need be).

    Args:
        folder: path of the folder.
        config: how it is made.
        state: tensors by name.
        weights: tensors by name.
        eight_bits: what ``round_rows`` rounded takes a quarter of the space; for files that only ``read_weights`` is to
            read.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    write_config(folder, config)
    compact = {k: part for name, v in state.items() for k, part in _compact(name, v.detach().cpu(), eight_bits).items()}
    save_file(compact, folder / weights, {"format": "pt"})
    (folder / weights).chmod(0o644)  # safetensors writes for the owner alone


def round_rows(tensor: Tensor) -> Tensor:
    """Weights rounded to 255 equal steps a row (an output channel), symmetric around 0.

    Jacob et al. 2018 (arXiv 1712.05877), section 2.1. ``write_part`` then stores them in 8 bits. What is rounded once
    stays as it is.

    Args:
        tensor: ``[O, ...]`` floats.

    Returns:
        float32 of the same shape.
    """
    steps, unit = _rows(tensor)
    return steps * unit


def round_weights(module: nn.Module) -> None:
    """Round a trained model once and for all.

    Matrices and convolutions as ``round_rows`` does, all else (biases, norms, buffers) to half precision.

    Args:
        module: changed in place.
    """
    weights = {id(value) for value in module.parameters() if value.ndim > 1}
    for value in (*module.parameters(), *module.buffers()):
        if value.is_floating_point():
            value.data = (round_rows(value) if id(value) in weights else value.half()).to(value.dtype)


def _rows(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, ``[O, ...]``, and their unit a row, ``[O, 1, ...]``; both float32."""
    weights = tensor.detach().float()
    # In bfloat16, so that unit times step is exact and the unit of what is rounded already is found again.
    unit = (weights.flatten(1).abs().amax(1) / 127).bfloat16().float().view(-1, *[1] * (weights.ndim - 1))
    return (weights / unit.where(unit > 0, 1)).round().clamp(-127, 127), unit


def _compact(name: str, tensor: Tensor, eight_bits: bool) -> dict[str, Tensor]:
    """The tensor as it is stored, in half precision or 8 bits if that loses nothing.

    With 8 bits the rows' steps stand beside it. Weights that were rounded on purpose take half or a quarter of the
    space.
    """
    if tensor.is_floating_point():
        half = tensor.half()
        if bool((half.to(tensor.dtype) == tensor).all()):
            tensor = half
        elif eight_bits and tensor.ndim > 1:
            steps, unit = _rows(tensor)
            if bool((steps * unit == tensor).all()):
                return {name: steps.char().contiguous(), name + STEP: unit.flatten().bfloat16()}
    return {name: tensor.contiguous().clone()}  # two names of one tensor are refused by safetensors

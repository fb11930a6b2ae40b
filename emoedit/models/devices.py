"""Where a model computes, in which precision, and what happens when it does not fit there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from emoedit.models.precision import supports_bfloat16
from emoedit.types import DeviceMemoryError, EditError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
NAMES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}  # other spellings
HELP = (
    "fewer pictures at once (--batch 1), --precision float16 or bfloat16, --offload, fewer or smaller faces, or "
    "--device cpu"
)


def choose_device(device: str = "auto") -> str:
    """The torch device for ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``.

    Args:
        device: ``auto`` is CUDA where there is one, else Apple's MPS, else the CPU; which one is logged. Under
            ``accelerate launch`` or ``torchrun``, ``auto`` and ``cuda`` are each process's own card.

    Returns:
        A name that ``torch.device`` takes.

    Raises:
        EditError: none of these, or a device that is not there.
    """
    mps = torch.backends.mps.is_available()
    if device == "auto":
        chosen = _of_this_process() if torch.cuda.is_available() else "mps" if mps else "cpu"
        logger.info("computing on %s", chosen)
        return chosen
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "mps", "cuda") or (number and (kind != "cuda" or not number.isdecimal())):
        raise EditError(f"device is auto, cpu, mps, cuda or cuda:N, not {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EditError(f"device {device!r} was asked for, but torch finds no CUDA device; use cpu or auto")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise EditError(f"device {device!r} was asked for, but torch finds {torch.cuda.device_count()} CUDA devices")
    if kind == "mps" and not mps:
        raise EditError("device 'mps' was asked for, but torch finds none; use cpu or auto")
    return _of_this_process() if device == "cuda" else device


def _of_this_process() -> str:
    """CUDA; under ``accelerate launch`` or ``torchrun`` the card of this process."""
    rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{rank}" if rank.isdecimal() and int(rank) < torch.cuda.device_count() else "cuda"


def choose_precision(precision: str, device: str) -> torch.dtype:
    """In which type a full-size network's weights are held and computed with.

    Args:
        precision: ``float32``, ``float16``, ``bfloat16`` or ``auto``: on CUDA bfloat16 where the device multiplies in
            it, else float16; on a CPU bfloat16 only where it multiplies in it; else float32.
        device: as for ``choose_device``.

    Raises:
        EditError: none of these.
    """
    name = NAMES.get(precision, precision)
    kind = torch.device(device).type
    if name == "auto":
        name = "bfloat16" if supports_bfloat16(kind) else "float16" if kind == "cuda" else "float32"
    if name not in ("float32", "float16", "bfloat16"):
        raise EditError(f"precision must be auto, float32, float16 or bfloat16, not {precision!r}")
    return getattr(torch, name)


def check_compute(name: str, unsupported: Mapping[str, str], **asked: bool) -> None:
    """Refuse ways of computing that a model gains nothing from, before its weights are read.

    Args:
        name: name of the editor.
        unsupported: as ``emoedit.models.base.Backbone.unsupported``.
        **asked: ``offload`` and ``compile``.

    Raises:
        EditError: the model does not support one that is asked for.
    """
    for option, wanted in asked.items():
        if wanted and option in unsupported:
            raise EditError(f"{name} takes no --{option} ({option}=True in Python): {unsupported[option]}")


def compile_parts(parts: Sequence[nn.Module], device: str) -> None:
    """Have ``torch.compile`` translate modules when they are first called, in place.

    Args:
        parts: called at few shapes, as each new one is translated again.
        device: their device.

    Raises:
        EditError: ``torch.compile`` does not work here, such as without a C++ compiler (CPU) or Triton (CUDA).
    """
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))
    except Exception as error:  # which of many parts of the compiler is missing
        raise EditError(f"torch.compile does not work on this machine, leave it out ({str(error)[:300]})") from error
    for part in parts:
        part.compile()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory does not suffice.

    Args:
        error: error of torch.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))


@contextmanager
def fitting(what: str) -> Iterator[None]:
    """Turn a device's lack of memory into an error that says what would help.

    Args:
        what: what needed it, for the message.

    Raises:
        DeviceMemoryError: the memory does not suffice.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(f"{what} does not fit into the memory of the device; what helps: {HELP}") from error


def in_batches(
    count: int, size: int, run: Callable[[slice], Result], *, halved: Callable[[int], None] = lambda size: None
) -> Iterator[Result]:
    """Work through pictures in batches; a batch that does not fit is halved, and so are those after it.

    Args:
        count: how many pictures.
        size: how many at once, at first.
        run: does a slice of them.
        halved: called with the new size when a batch was halved.

    Yields:
        What ``run`` gave.

    Raises:
        DeviceMemoryError: one picture does not fit.
    """
    done = 0
    while done < count:
        try:
            result = run(slice(done, done + size))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if size == 1 or count - done == 1:
                raise DeviceMemoryError(
                    f"not even one picture at a time fits into the memory of the device; what helps: {HELP}"
                ) from error
            size = min(size, count - done) // 2
            logger.warning("out of memory: going on with %d pictures at a time", size)
            halved(size)
            _free()
            continue
        done += size
        yield result


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def describe(device: Any) -> str:
    """A device in a few words, with its name and memory where it is a GPU.

    Args:
        device: a name that ``torch.device`` takes.
    """
    found = torch.device(device)
    if found.type != "cuda":
        return str(found)
    properties = torch.cuda.get_device_properties(found)
    return f"{found} ({properties.name}, {properties.total_memory / 1e9:.0f} GB)"

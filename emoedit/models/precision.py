"""The precision in which a U-Net's passes run.

Small models keep their weights in float32 beside a copy that computes in fewer bits; full-size ones are held once, in
the type they compute in.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from emoedit.types import EditError

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "float16", "bfloat16")
HALVES = (torch.float16, torch.bfloat16)
EMBEDDING = "time_embedding"
Found = TypeVar("Found", bound=tuple[Tensor | None, ...])
Network = TypeVar("Network", bound=nn.Module)


def check_precision(precision: object) -> None:
    """Refuse a precision that does not exist or that a device cannot compute in.

    Args:
        precision: any value.

    Raises:
        EditError: none of ``PRECISIONS``.
    """
    if precision not in PRECISIONS:
        raise EditError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision!r}")


def versions(weights: Iterable[Tensor]) -> list[tuple[int, Any]]:
    """What changes when a weight does; always, for weights of inference mode, which do not count their changes.

    Args:
        weights: tensors of a network.
    """
    return [(w.data_ptr(), object() if w.is_inference() else w._version) for w in weights]


def finite_or_float32(
    run: Callable[[Network], Found], working: Network, full: Network, t: int
) -> tuple[Found, Network]:
    """What a pass finds, and the network to go on with.

    It is the one in float32 from where bfloat16 gives values that are not finite, which is logged.

    Args:
        run: the pass, with the network it is given.
        working: the network in the working precision.
        full: the network in float32.
        t: the timestep, for messages.

    Raises:
        EditError: not finite in float32 either.
    """
    found = run(working)
    if working is not full and not _finite(found):
        logger.warning("%s gave values that are not finite at timestep %d; going on in float32", _name(working), t)
        working = full
        found = run(full)
    if not _finite(found):
        if (held := weight_dtype(working)) in HALVES:
            raise EditError(
                f"the U-Net gave values that are not finite at timestep {t}, in {_name(working)}: load it in another "
                f"precision ({'bfloat16 or ' if held is torch.float16 else ''}float32)"
            )
        raise EditError(
            f"the U-Net gave values that are not finite at timestep {t}: the strength is too large, or its weights are "
            "damaged"
        )
    return found, working


def weight_dtype(network: nn.Module) -> torch.dtype:
    """The type of a U-Net's weights, its timestep embedding left aside.

    Args:
        network: network with the weights.
    """
    names = ((name, value) for name, value in network.named_parameters() if not name.startswith(EMBEDDING))
    return next(names)[1].dtype


def _name(network: nn.Module) -> str:
    return str(weight_dtype(network)).removeprefix("torch.")


def cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Bring a U-Net's weights to a type, in place: no second copy is kept.

    The timestep embedding, which costs nothing, stays in float32 so that timesteps stay apart.

    Args:
        network: network with the weights.
        dtype: dtype of the weights.
    """
    for name, part in network.named_children():
        if name != EMBEDDING:
            part.to(dtype)


def _finite(found: Iterable[Tensor | None]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in found if tensor is not None)


@cache
def supports_bfloat16(kind: str) -> bool:
    """Whether a kind of device multiplies in bfloat16 itself, so that it is faster than float32 there.

    AVX-512 BF16 or AMX; CUDA from Ampere on. Torch before 2.10 cannot say so of a processor: no.

    Args:
        kind: ``torch.device.type``.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "get_capabilities", None)
    if kind != "cpu" or ask is None:
        return False
    found = ask()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


class PrecisionCopy(Generic[Network]):
    """A network in the precision that was asked for.

    ``auto`` is bfloat16 where the device computes it itself, else float32. The copy in fewer bits is made once, and
    again when the weights have changed. A network that is held in fewer bits (``cast_weights``) is its own copy.

    Args:
        prepare: called with a new copy, to suit it to bfloat16.
    """

    def __init__(self, prepare: Callable[[Network], None] = lambda copied: None) -> None:
        self._prepare = prepare
        self._made: tuple[Any, Network] | None = None

    def of(self, network: Network, precision: str) -> Network:
        """The network itself, or its copy.

        Args:
            network: network with its weights in float32, or held in fewer bits.
            precision: one of ``PRECISIONS``.

        Raises:
            EditError: a network that is held in fewer bits is asked for another precision.
        """
        held = weight_dtype(network)
        if held in HALVES:
            if precision not in ("auto", _name(network)):
                raise EditError(f"the weights are held in {_name(network)}: load the model with precision={precision}")
            return network
        if precision == "auto":
            precision = "bfloat16" if supports_bfloat16(next(network.parameters()).device.type) else "float32"
        if precision == "float32":
            return network
        key = precision, network.training, versions(network.parameters())
        if self._made is None or self._made[0] != key:
            low = copy.deepcopy(network)
            cast_weights(low, getattr(torch, precision))
            self._prepare(low)
            self._made = key, low
        return self._made[1]

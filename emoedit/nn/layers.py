"""Helpers for layers that several networks use."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from torch import nn

M = TypeVar("M", bound=nn.Module)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Generic

    class ModuleList(nn.ModuleList, Generic[M]):
        """``nn.ModuleList`` with the type of its modules, for type checkers only."""

        def __init__(self, modules: Iterable[M] = ()) -> None:
            """Hold modules of one type."""

        def __iter__(self) -> Iterator[M]:
            """Over the modules."""

        @overload
        def __getitem__(self, idx: slice) -> ModuleList[M]: ...

        @overload
        def __getitem__(self, idx: int) -> M: ...

        def __getitem__(self, idx: int | slice) -> M | ModuleList[M]:
            """One of them, or several."""

else:
    ModuleList = nn.ModuleList


def zeroed(layer: M) -> M:
    """The layer with all parameters at 0, so that a residual branch that ends with it starts as zero.

    Args:
        layer: changed in place.
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

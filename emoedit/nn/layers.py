"""What several networks make their layers with."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from torch import nn

M = TypeVar("M", bound=nn.Module)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Generic

    class ModuleList(nn.ModuleList, Generic[M]):
        """``nn.ModuleList`` as it is; type checkers know which modules it holds."""

        def __init__(self, modules: Iterable[M] = ()) -> None:
            """From modules of one kind."""

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
    """The same layer with weights and bias at 0: what it is added to begins as if it were not there.

    Args:
        layer: changed in place.
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

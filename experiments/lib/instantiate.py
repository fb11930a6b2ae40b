"""Objects described by a config: ``_target_`` and arguments, of the package's own names only.

A config can come from anywhere, and ``_target_: os.system`` would be a program. Hydra's own ``instantiate`` calls
whatever is importable; this one calls what is defined in this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass, isroutine
from types import ModuleType
from typing import Any

from emoedit.types import EmoEditError

TARGET = "_target_"
PACKAGE = "emoedit"


class TargetError(EmoEditError, ValueError):
    """A ``_target_`` that is not this package's, does not exist, or does not take the arguments beside it."""


def instantiate(config: Any) -> Any:
    """What a config describes: mappings with a ``_target_`` are called, those inside them first; the rest stays.

    Args:
        config: config of plain values, lists and mappings.

    Raises:
        TargetError: see there. What a target itself raises on purpose (``emoedit.types.EmoEditError``) goes on.
    """
    check_targets(config)
    return _make(config)


def check_targets(config: Any) -> None:
    """Look at every ``_target_`` of a config, and call nothing.

    Raises:
        TargetError: one is not this package's, or does not exist.
    """
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == TARGET:
                find(value)
            elif TARGET in config and (not isinstance(key, str) or key.startswith("_")):
                raise TargetError(f"{config[TARGET]}: {key!r} is no argument; only {TARGET} and names are understood")
            else:
                check_targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            check_targets(value)


def find(name: str) -> Callable[..., Any]:
    """The class or function of a dotted name (``"emoedit.editors.load_editor"``).

    Raises:
        TargetError: it is not defined in this package (what a module here imported from elsewhere is not), is private,
            cannot be called, or does not exist.
    """
    parts = name.split(".") if isinstance(name, str) else []
    if not all(part.isidentifier() for part in parts) or parts[:1] != [PACKAGE] or len(parts) < 2:
        raise TargetError(f"{TARGET} {name!r} is refused: only names of this package ({PACKAGE}.…) are called")
    if any(part.startswith("_") for part in parts):
        raise TargetError(f"{TARGET} {name!r} is refused: a name that starts with _ is private")
    value: Any = import_module(PACKAGE)
    for number, part in enumerate(parts[1:], 2):
        path = ".".join(parts[:number])
        if isinstance(value, ModuleType) and hasattr(value, "__path__") and find_spec(path) is not None:
            value = import_module(path)
        elif hasattr(value, part):
            value = getattr(value, part)
        else:
            raise TargetError(f"{TARGET} {name!r}: {'.'.join(parts[: number - 1])} has no {part!r}")
        home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        known = isclass(value) or isroutine(value) or isinstance(value, ModuleType)
        if not known or not isinstance(home, str) or home.partition(".")[0] != PACKAGE:
            raise TargetError(f"{TARGET} {name!r} is refused: {path} is no class and no function of this package")
    if isinstance(value, ModuleType):
        raise TargetError(f"{TARGET} {name!r} is no class and no function")
    return value


def _make(config: Any) -> Any:
    if isinstance(config, Mapping):
        values = {key: _make(value) for key, value in config.items() if key != TARGET}
        if TARGET not in config:
            return values
        try:
            return find(config[TARGET])(**values)
        except TypeError as error:
            raise TargetError(f"{config[TARGET]} does not take {', '.join(values) or 'nothing'}: {error}") from error
    if isinstance(config, list | tuple):
        return [_make(value) for value in config]
    return config

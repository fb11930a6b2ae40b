"""Names of action units; this module loads no model.

The units are those of the Facial Action Coding System (P. Ekman and W. Friesen 1978; Ekman, Friesen and Hager 2002).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from emoedit.types import EditError, UnknownNameError

UNITS: Mapping[int, str] = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    14: "dimpler",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
    27: "mouth stretch",
    43: "eyes closed",
}
SIDED = (1, 2, 4, 5, 6, 7, 10, 12, 14, 15, 20, 43)  # whose halves move alone: "AU12L" is the person's own left
CONTRADICTIONS = ((5, 43), (24, 25), (24, 26), (24, 27))
LOWEST, HIGHEST = -1.0, 1.5  # 1 is the strongest that FACS codes (E); below 0 is the opposite movement
_NAME = re.compile(r"(?:au)?\s*0*(\d+)\s*([lr]?)", re.IGNORECASE)


def unit_name(text: str) -> str:
    """The name of a unit as algebra has it: ``"12"``, ``"au12"`` and ``"AU 12"`` give ``"AU12"``.

    Args:
        text: number, with or without ``AU`` before it and ``L`` or ``R`` behind it (the person's own left or right).

    Raises:
        UnknownNameError: no such unit, or one whose halves do not move alone.
    """
    found = _NAME.fullmatch(text.strip())
    if found is None or int(found[1]) not in UNITS:
        raise UnknownNameError(f"no action unit {text!r}; there are {', '.join(map(str, UNITS))}")
    if found[2] and int(found[1]) not in SIDED:
        sided = ", ".join(map(str, SIDED))
        raise UnknownNameError(f"AU{found[1]} moves both halves of a face together; one half alone moves of {sided}")
    return f"AU{int(found[1])}{found[2].upper()}"


def is_unit(name: str) -> bool:
    """Whether a name of an editor's is a unit's (``"AU12"``, ``"AU6L"``), and no emotion's.

    Args:
        name: as an editor spells it.
    """
    found = _NAME.fullmatch(name)
    return found is not None and name[:2].upper() == "AU" and int(found[1]) in UNITS


def unit_of(name: str) -> str:
    """What a unit is, in words: ``"action unit: lip corner puller, left"`` for ``"AU12L"``.

    Args:
        name: name of a unit, as editors spell it.
    """
    side = {"L": ", left", "R": ", right"}.get(name[-1], "")
    return f"action unit: {UNITS[int(name[2:].rstrip('LR'))]}{side}"


def unit_algebra(units: Mapping[str, float] | Iterable[str]) -> str:
    """Units as an emotion's algebra: ``{"12": .8, "6L": .5}`` is ``"0.8*AU12 + 0.5*AU6L"``.

    Args:
        units: unit -> how strong, -1 to 1.5; or texts such as ``"12=.8"`` (``"12"`` is ``"12=1"``).

    Raises:
        UnknownNameError: no such unit.
        EditError: no unit at all, a unit twice, one that is too strong or no number, or units that contradict each
            other.
    """
    pairs = list(units.items()) if isinstance(units, Mapping) else [_split(text) for text in units]
    weights: dict[str, float] = {}
    for text, value in pairs:
        name = unit_name(text)
        if name in weights:
            raise EditError(f"{name} is given twice")
        if not LOWEST <= value <= HIGHEST:
            raise EditError(f"{name} goes from {LOWEST:g} to {HIGHEST:g}, not {value:g}")
        weights[name] = float(value)
    if not weights:
        raise EditError("no action unit given; write 12=.8, say")
    check_units(weights)
    terms = [f"{'-' if value < 0 else '+'} {abs(value)!r}*{name}" for name, value in weights.items()]
    return " ".join(terms).removeprefix("+ ")


def _split(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        return name, float(value) if equals else 1.0
    except ValueError:
        raise EditError(f"expected a unit and a number, as in 12=.8, not {text!r}") from None


def check_units(weights: Mapping[str, float]) -> None:
    """Refuse units that contradict each other.

    Args:
        weights: name -> how strong; names that are no units are passed over.

    Raises:
        EditError: two units of opposite movements are both above 0.
    """
    numbers = {int(found[1]): name for name, w in weights.items() if w > 0 and (found := _NAME.fullmatch(name))}
    for first, second in CONTRADICTIONS:
        if first in numbers and second in numbers:
            raise EditError(
                f"{numbers[first]} ({UNITS[first]}) and {numbers[second]} ({UNITS[second]}) contradict each other; "
                "leave one out"
            )

"""The settings of the Edit tab's controls."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import Edit

Weights = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Settings:
    """One edit as the controls describe it.

    Args:
        weights: pairs of an emotion's name and its weight; 1 is the full expression.
        strength: strength of the whole edit, 0 to 2; 0 is the photograph itself.
        editor: name or folder of the editor.
        min_identity: how much of the person has to be kept, 0 to 1; 0 switches the limit off.
        face: number of the face, 0 the largest; None for all.
        units: pairs of an action unit's name (``"AU12"``) and how strong it is, -1 to 1.5.
    """

    weights: Weights = ()
    strength: float = 1.0
    editor: str = DEFAULT_EDITOR
    min_identity: float = 0.0
    face: int | None = 0
    units: Weights = ()

    @property
    def expression(self) -> str:
        """Weights and units as algebra on names (`emoedit.emotions`), such as ``"happy - 0.4*surprised"``."""
        return algebra((*self.weights, *self.units))

    @property
    def changes(self) -> bool:
        """Whether the settings change the photograph."""
        return bool(self.expression and self.strength)

    def parts(self, known: Collection[str]) -> tuple[Edit, Weights]:
        """What the editor draws, and the units that are added to its picture.

        An editor that supports units draws them with the emotions.

        Args:
            known: names that the editor has learned.

        Returns:
            The edit, which changes nothing where no emotion is asked for; and the units at this strength.

        Raises:
            EditError: a strength that is not finite.
        """
        own = [(name, weight) for name, weight in self.units if name in known]
        expression = algebra((*self.weights, *own))
        edit = Edit(expression, self.strength) if expression else Edit("neutral", 0.0)
        added = [(name, weight * self.strength) for name, weight in self.units if name not in known and weight]
        return edit, tuple(added) if self.strength else ()

    @property
    def label(self) -> str:
        """The edit in a few words, for a thumbnail."""
        if not self.changes:
            return "the photograph"
        return self.expression if self.strength == 1 else f"{self.expression} at {self.strength:g}"


def algebra(weights: Iterable[tuple[str, float]]) -> str:
    """Weights as algebra on names; to two decimals, and nothing of what is 0.

    Args:
        weights: pairs of a name and its weight.
    """
    terms = []
    for name, weight in weights:
        size = round(abs(weight), 2)
        if size:
            terms.append(f"{'-' if weight < 0 else '+'} {name if size == 1 else f'{size:g}*{name}'}")
    return " ".join(terms).removeprefix("+ ")

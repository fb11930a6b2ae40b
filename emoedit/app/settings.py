"""What the controls of the Edit tab say, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import Edit


@dataclass(frozen=True)
class Settings:
    """One edit as the controls describe it.

    Args:
        weights: pairs of an emotion's name and its weight; 1 is the full expression.
        strength: of the whole edit, 0 to 2; 0 is the photograph itself.
        editor: name or folder of the editor.
        min_identity: how much of the person has to be kept, 0 to 1; 0 switches the limit off.
        face: number of the face, 0 the largest; None for all.
    """

    weights: tuple[tuple[str, float], ...] = ()
    strength: float = 1.0
    editor: str = DEFAULT_EDITOR
    min_identity: float = 0.0
    face: int | None = 0

    @property
    def expression(self) -> str:
        """The weights as algebra on names (`emoedit.emotions`), such as ``"happy - 0.4*surprised"``."""
        terms = []
        for name, weight in self.weights:
            size = round(abs(weight), 2)
            if size:
                terms.append(f"{'-' if weight < 0 else '+'} {name if size == 1 else f'{size:g}*{name}'}")
        return " ".join(terms).removeprefix("+ ")

    @property
    def edit(self) -> Edit:
        """The edit; with all sliders at 0 it changes nothing.

        Raises:
            EditError: a strength that is not finite.
        """
        expression = self.expression
        return Edit(expression, self.strength) if expression else Edit("neutral", 0.0)

    @property
    def label(self) -> str:
        """The edit in a few words, for a thumbnail."""
        edit = self.edit
        if not edit.strength:
            return "the photograph"
        return edit.emotion if edit.strength == 1 else f"{edit.emotion} at {edit.strength:g}"

"""In place of a suite where edits are only made, as of a hundred thousand photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class NullSuite:
    """Takes the place of a suite and measures nothing.

    Rows say what was made, how long it took, and what went wrong.
    """

    backends = {"identity_backend": None, "perceptual_backend": None, "expression_backend": None}

    def check_emotions(self, emotions: Sequence[str]) -> None:
        """Every emotion will do."""

    def subject(self, *photograph: Any) -> None:
        """Nothing is looked at."""

    def measure(self, subject: None, edited: Sequence[Any], emotions: Sequence[str]) -> list[dict[str, Any]]:
        """A row without numbers for each edit."""
        return [{} for _ in edited]

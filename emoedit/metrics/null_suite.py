"""A suite without metrics, for runs that only edit, such as of a hundred thousand photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emoedit.faces.detect import Face


class NullSuite:
    """Takes the place of a suite and measures nothing.

    Rows say what was made, how long it took, and what went wrong.
    """

    backends: Mapping[str, str | None] = {
        "identity_backend": None,
        "perceptual_backend": None,
        "expression_backend": None,
    }

    def check_emotions(self, emotions: Sequence[str]) -> None:
        """Accept every emotion.

        Args:
            emotions: ignored.
        """

    def subject(self, photo: np.ndarray, face: Face, truth: tuple[np.ndarray, Face] | None = None) -> Any:
        """Do nothing.

        Args:
            photo: ignored.
            face: ignored.
            truth: ignored.
        """

    def measure(self, subject: Any, edited: Sequence[np.ndarray], emotions: Sequence[str]) -> list[dict[str, Any]]:
        """A row without numbers for each edit.

        Args:
            subject: ignored.
            edited: photographs.
            emotions: ignored.
        """
        return [{} for _ in edited]

    def measure_other(self, subject: Any, photo: np.ndarray, face: Face, emotion: str) -> dict[str, Any]:
        """A row without numbers.

        Args:
            subject: ignored.
            photo: ignored.
            face: ignored.
            emotion: ignored.
        """
        return {}

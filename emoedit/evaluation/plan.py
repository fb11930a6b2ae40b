"""What an evaluation does with every photograph, and which cells its table has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from emoedit.evaluation.cases import Case
from emoedit.evaluation.entries import NOTHING, PHOTOGRAPH, Entry, check_known
from emoedit.io import checkpoints
from emoedit.io.results import Key
from emoedit.metrics.null_suite import NullSuite
from emoedit.metrics.suite import Suite
from emoedit.types import Edit


@dataclass(frozen=True)
class Plan:
    """What is done with every photograph.

    Args:
        entries: the editors.
        edits: every one of them, by every entry; emotions in canonical form.
        suite: the metric networks.
        references: whether doing nothing, and true photographs where there are any, are measured too.
        seed: seed of the noise that an editor draws.
        pictures: also save every edited photograph, in ``pictures/``, in the format of this suffix (``".jpg"``); its
            row then says where (``picture``).
    """

    entries: Sequence[Entry]
    edits: Sequence[Edit]
    suite: Suite | NullSuite
    references: bool = True
    seed: int = 0
    pictures: str | None = None

    @cached_property
    def emotions(self) -> tuple[str, ...]:
        """Each emotion of the edits once."""
        return tuple(dict.fromkeys(edit.emotion for edit in self.edits))

    @cached_property
    def asked(self) -> list[tuple[str, str, float]]:
        """Editor, emotion and strength of every edit of a photograph; references are asked only for what they know."""
        unknown = {
            (entry.name, emotion)
            for entry in self.entries
            for emotion in self.emotions
            if entry.reference and not entry.supports(emotion)
        }
        every = [(entry.name, edit.emotion, edit.strength) for entry in self.entries for edit in self.edits]
        return [cell for cell in every if cell[:2] not in unknown]

    def cells(self, case: Case) -> list[Key]:
        """The keys of a photograph's rows.

        Args:
            case: a photograph of the data set.
        """
        keys: list[Key] = [(case.name, *cell) for cell in self.asked]
        if self.references:
            keys += [(case.name, NOTHING, name, None) for name in self.emotions]
            keys += [(case.name, PHOTOGRAPH, name, None) for name in self.emotions if name in case.truth]
        return keys

    def count(self, case: Case) -> int:
        """How many ``cells`` a photograph has.

        Args:
            case: a photograph of the data set.
        """
        true = sum(name in case.truth for name in self.emotions)
        return len(self.asked) + (len(self.emotions) + true if self.references else 0)

    def check(self) -> None:
        """Refuse what could not be edited or measured, before any work is done.

        Raises:
            UnknownNameError: an emotion that an editor or the recogniser does not know.
        """
        check_known(self.entries, self.emotions)
        self.suite.check_emotions(self.emotions)

    def settings(self) -> dict[str, Any]:
        """What rows of one folder have in common; earlier rows would have no pictures, or others."""
        networks = {} if isinstance(self.suite, NullSuite) else _networks()
        return {"seed": self.seed, "pictures": self.pictures, **self.suite.backends, "networks": networks}


def _networks() -> dict[str, str]:
    """Checksums of the embedded metric networks: results of a retrained one are not comparable."""
    from emoedit.faces.networks import NAMES
    from emoedit.nn.measuring import WEIGHTS

    return {name: checkpoints.sha256(checkpoints.embedded_root() / name / WEIGHTS)[:16] for name in NAMES}

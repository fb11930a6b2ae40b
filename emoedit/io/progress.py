"""How far a long run is and when it will be done: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

from tqdm import tqdm

EVERY = 30.0  # seconds between lines


class Lines(tqdm):
    """``tqdm`` for a file: a line for each state, at most one in ``EVERY`` seconds, and the last.

    Args: as ``tqdm``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        how = {"mininterval": EVERY, "maxinterval": 4 * EVERY, "ncols": 100, "ascii": True}
        self._told: int | float | None = None
        super().__init__(*args, **{**how, **options, "leave": False})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write the state, if it is another than before.

        Args:
            msg: ignored.
            pos: ignored.
        """
        if msg is None and self.n != self._told:
            self._told = self.n
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def close(self) -> None:
        """The last state is always written."""
        if not self.disable:
            self.display()
        super().close()


def progress(**options: Any) -> tqdm:
    """A bar on standard error where that is a terminal and this process has it for itself, else ``Lines``.

    Args: as ``tqdm``.
    """
    alone = multiprocessing.current_process().name == "MainProcess"
    return tqdm(**options) if alone and sys.stderr.isatty() else Lines(**options)

"""Ranked candidates of which some are kept: the base classes for edits of a photograph and for new pictures."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from PIL import Image

from emoedit.io.images import save_picture, write_json
from emoedit.report.display import png

CELL = 256  # pixels of a picture on the contact sheet


class Kept(Protocol):
    """One picture of a ranking."""

    @property
    def image(self) -> Image.Image | None:
        """The picture; None where it could not be made."""

    @property
    def kept(self) -> bool:
        """Whether it is one of those that are returned."""


C = TypeVar("C", bound=Kept)


class Ranking(ABC, Generic[C]):
    """Candidates, best first."""

    candidates: tuple[C, ...]

    @property
    def kept(self) -> tuple[C, ...]:
        """The best ones; empty where none is good enough."""
        return tuple(candidate for candidate in self.candidates if candidate.kept)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """For JSON: every candidate with its numbers and the reason."""

    @abstractmethod
    def sheet(self, columns: int = 4) -> Image.Image:
        """All candidates that were made, best first.

        Args:
            columns: pictures in a row.
        """

    @abstractmethod
    def stem(self, candidate: C) -> str:
        """The name of a candidate in its file name.

        Args:
            candidate: a candidate that is kept.
        """

    def _repr_png_(self) -> bytes:
        """The contact sheet, for notebooks."""
        return png(self.sheet())

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the kept pictures (``1_STEM.png``), ``sheet.png`` and ``candidates.json``.

        Args:
            folder: folder of the files; created if missing.
            overwrite: whether files that exist are replaced.

        Returns:
            The files.

        Raises:
            OutputError: a file exists and ``overwrite`` is not set, or cannot be written.
        """
        folder = Path(folder)
        pictures = {f"{n}_{self.stem(c)}.png": c.image for n, c in enumerate(self.kept, 1) if c.image is not None}
        for name, picture in {**pictures, "sheet.png": self.sheet()}.items():
            save_picture(picture, folder / name, overwrite=overwrite)
        write_json(folder / "candidates.json", self.to_dict(), overwrite=overwrite)
        return [folder / name for name in (*pictures, "sheet.png", "candidates.json")]

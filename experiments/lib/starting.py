"""Models of luminance that trainings in colour start from."""

from __future__ import annotations

from pathlib import Path

from emoedit.types import DataError


def luminance_folder(folder: str, *, setting: str, command: str) -> Path:
    """The folder of a model of luminance.

    Args:
        folder: what the configuration names.
        setting: name of its entry.
        command: what trains such a model.

    Raises:
        DataError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise DataError(
            f"{setting}={folder}: training in colour starts from a model of luminance, and there is none. Train it "
            f"with {command}; {setting}=null starts from nothing"
        )
    return Path(folder)

"""How checkpoints, configs and experiments travel inside the wheel; everything else is in pyproject.toml."""

from __future__ import annotations

import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ("checkpoints", "configs", "experiments")

# A build folder that stays would put what an earlier build left in it, a renamed module say, into the next wheel.
BUILD = tempfile.TemporaryDirectory(prefix="emoedit-build-")


class BuildWithData(build_py):
    """Puts the top-level folders ``checkpoints``, ``configs`` and ``experiments`` into the package.

    An editable installation gets no copy: it goes on using the folders beside the package.
    """

    def _data(self) -> list[tuple[Path, Path]]:
        """Source and target of every file that is not hidden (a model being written is)."""
        if self.editable_mode:
            return []
        names = [path.relative_to(ROOT) for folder in SHIPPED for path in (ROOT / folder).rglob("*")]
        hidden = (".", "__pycache__")
        shown = [n for n in names if (ROOT / n).is_file() and not any(part.startswith(hidden) for part in n.parts)]
        return [(ROOT / name, Path(self.build_lib, "emoedit", name)) for name in sorted(shown)]

    def run(self) -> None:
        super().run()
        for source, target in self._data():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._data())]


setup(cmdclass={"build_py": BuildWithData}, options={"build": {"build_base": BUILD.name}})

"""Change the emotion a face shows in an existing photograph.

    import emoedit

    emoedit.edit("me.jpg", "happy").save("me_happy.png")

Importing this package loads neither torch nor any model; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "edit": "emoedit.photo",
    "edit_many": "emoedit.batch",
    "BatchResult": "emoedit.batch",
    "best": "emoedit.evaluation.best",
    "Best": "emoedit.evaluation.best",
    "Floors": "emoedit.evaluation.best",
    "compare": "emoedit.evaluation.compare",
    "Comparison": "emoedit.evaluation.compare",
    "evaluate": "emoedit.evaluation.evaluate",
    "Evaluation": "emoedit.evaluation.evaluate",
    "PhotoEditor": "emoedit.photo",
    "PhotoEdit": "emoedit.photo",
    "load_editor": "emoedit.editors",
    "list_editors": "emoedit.editors",
    "Editor": "emoedit.editors",
    "EditOutput": "emoedit.editors",
    "list_emotions": "emoedit.emotions",
    "list_models": "emoedit.full_size",
    "Edit": "emoedit.types",
    "Inversion": "emoedit.types",
    "Control": "emoedit.types",
    "EmoEditError": "emoedit.types",
}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604

if TYPE_CHECKING:
    from emoedit.batch import BatchResult, edit_many
    from emoedit.editors import Editor, EditOutput, list_editors, load_editor
    from emoedit.emotions import list_emotions
    from emoedit.evaluation.best import Best, Floors, best
    from emoedit.evaluation.compare import Comparison, compare
    from emoedit.evaluation.evaluate import Evaluation, evaluate
    from emoedit.full_size import list_models
    from emoedit.photo import PhotoEdit, PhotoEditor, edit
    from emoedit.types import Control, Edit, EmoEditError, Inversion


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

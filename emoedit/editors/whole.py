"""Edits of whole photographs, by models that redraw them: a baseline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from emoedit.types import Edit, Inversion

if TYPE_CHECKING:
    from emoedit.editors import Editor

NOTE = "the whole photograph was redrawn at the model's own resolution, not the face alone"
Result = tuple[np.ndarray, float, tuple[str, ...]]


def edit_whole(
    editor: Editor, photo: np.ndarray, inversion: Inversion, batch: Sequence[int], edits: Sequence[Edit]
) -> Mapping[int, Result]:
    """A photograph with each of some edits; one instruction is for all faces.

    Args:
        editor: editor whose backbone ``edits_whole``.
        photo: uint8 ``[H, W, 3]``; not modified.
        inversion: inversion of its faces, which has the seed.
        batch: numbers of the edits to be made.
        edits: emotions and strengths; strength 0 is the photograph itself.

    Returns:
        For each number the photograph uint8 ``[H, W, 3]``, seconds, and notes.

    Raises:
        EditError: an edit that the model cannot be told.
    """
    results: dict[int, Result] = {}
    for number in batch:
        start, edit = time.perf_counter(), edits[number]
        if not edit.strength:
            results[number] = photo.copy(), time.perf_counter() - start, ()
            continue
        first = inversion[:1]
        made = editor.backbone.edit_photo(photo, first, editor.control(first, [edit]))
        results[number] = made, time.perf_counter() - start, (NOTE,)
    return results

"""Use as a server does it: one editor for many threads, editors in forked and spawned processes, many photographs."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys

import numpy as np
import pytest
import torch

import emoedit
from emoedit.types import Edit
from tests.fixtures.editors import tiny_vae

EDITS = [Edit("happy")]


@pytest.fixture(scope="module")
def photos() -> emoedit.PhotoEditor:
    return emoedit.PhotoEditor(tiny_vae())


def results(photo_editor: emoedit.PhotoEditor, picture: np.ndarray) -> list[np.ndarray]:
    opened = photo_editor.open(picture)
    return [np.asarray(result.image) for result in photo_editor.edit(opened, EDITS)]


def crops(astronaut: np.ndarray, count: int) -> list[np.ndarray]:
    """Photographs of different sizes with the same face."""
    return [np.ascontiguousarray(astronaut[: 260 + 9 * n, 90 + 3 * n : 370]) for n in range(count)]


def test_eight_threads_get_what_one_gets(photos, astronaut):
    pictures = crops(astronaut, 8)
    alone = [results(photos, picture) for picture in pictures]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda picture: results(photos, picture), pictures))
    for one, other in zip(alone, together, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _child(picture: np.ndarray, queue) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    queue.put(results(emoedit.PhotoEditor(tiny_vae()), picture))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_get_what_their_parent_gets(photos, astronaut, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{sys.platform} does not {method}")
    (picture,) = crops(astronaut, 1)
    here = results(photos, picture)  # the parent has used its threads before it forks
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_child, args=(picture, queue))
    child.start()
    there = queue.get(timeout=240)
    child.join(60)
    assert child.exitcode == 0
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_flat_over_photographs_of_different_sizes(photos, astronaut):
    def resident() -> float:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024

    pictures = crops(astronaut, 4)
    for picture in pictures:
        results(photos, picture)
    before = resident()
    for _ in range(2):
        for picture in pictures:
            results(photos, picture)
    assert resident() - before < 60  # MB; a picture that stays takes 1.5 of them each time

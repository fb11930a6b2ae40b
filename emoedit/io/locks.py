"""One process at a time in a folder of results, whatever became of the one before."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from emoedit.types import OutputError

PLACE = 1 << 30  # of the byte that Windows locks: far behind what the file holds, so that others can read it


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock while the body runs.

    The lock is the operating system's (``flock``; on Windows a locked byte), not the file: when a process ends in
    whatever way, ``kill -9`` included, its lock is gone with it. The file stays and names the last holder. It is not
    removed, because somebody else may be about to lock it.

    Args:
        path: of the lock file; folders above it are made.

    Raises:
        OutputError: another process holds it; the file cannot be written, or its file system knows no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    with file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            holder = file.read(200).decode("utf-8", "replace").strip() or "another process"
            raise OutputError(
                f"{path.parent} is being written by {holder}; wait until it is done, or choose another folder"
            ) from error
        except OSError as error:
            raise OutputError(
                f"{path} cannot be locked ({error.strerror or error}): this file system has no locks; "
                "choose a folder on another"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield  # closing the file unlocks it


def _lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

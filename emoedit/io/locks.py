"""A lock for folders of results: one process at a time."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from emoedit.types import OutputError


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock while the body runs.

    The lock is the operating system's, not the file: when a process ends in whatever way, its lock is gone with it. A
    file beside it names who holds it.

    Args:
        path: path of the lock file; folders above it are made.

    Raises:
        OutputError: another process holds it; the file cannot be written, or its file system knows no locks.
    """
    holder = path.with_name(f"{path.name}.holder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    lock = FileLock(path, timeout=0, fallback_to_soft=False)  # a soft lock would outlive a killed process
    try:
        lock.acquire()
    except Timeout as error:
        held = ""
        with suppress(FileNotFoundError):  # it was just released
            held = holder.read_text("utf-8")
        raise OutputError(
            f"{path.parent} is being written by {held or 'another process'}; wait until it is done, or choose another "
            "folder"
        ) from error
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} cannot be locked ({why}); choose a folder that can be written, on a file system with locks"
        ) from error
    try:
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        except OSError as error:
            raise OutputError(f"{holder} cannot be written: {error.strerror or error}") from error
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@cache
def end_with_parent() -> bool:
    """End this process as soon as the process that started it as a worker is gone, however that one ended.

    A worker of a pool would otherwise go on with its job, and hold its lock, after somebody killed the sweep. It ends
    as if it was killed too, in the middle of whatever it does: results are written so that nothing is lost by that.

    Returns:
        Whether it is a worker that is watched from now on; False for a process that a shell or a scheduler started, and
        on Windows, where a process is not told of its parent's end.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or os.name == "nt":
        return False

    def watch(pid: int) -> None:
        while os.getppid() == pid:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, args=(parent.pid,), name="end-with-parent", daemon=True).start()
    return True

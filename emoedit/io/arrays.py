"""NumPy's array files, read as numbers only: a false header allocates no memory, and no object is unpickled."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from emoedit.types import CheckpointError

MAX_HEADER = 10_000  # bytes: NumPy's own limit for files that are not trusted


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an ``.npy`` file.

    Args:
        path: path of the file.

    Returns:
        An array of booleans, whole numbers or floating-point numbers.

    Raises:
        CheckpointError: missing, damaged; a shape that the file has not the bytes for; complex numbers, records or
            objects.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            version = np.lib.format.read_magic(file)
            length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
            if version not in ((1, 0), (2, 0), (3, 0)) or length > MAX_HEADER:
                raise ValueError(f"version {version} with a header of {length:,} bytes")
            file.seek(8)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file, max_header_size=MAX_HEADER)
            if dtype.kind not in "biuf":
                raise ValueError(f"it holds {dtype}; expected plain numbers")
            if not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > 32:
                raise ValueError("a shape of something else than whole numbers")
            if math.prod(shape) * dtype.itemsize != size - file.tell():
                raise ValueError(f"its header announces {str(shape)[:60]}, and {size - file.tell():,} bytes follow")
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False, max_header_size=MAX_HEADER)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except Exception as error:  # a header is Python, whose parser fails on hostile text in every way there is
        raise CheckpointError(f"{path} is damaged, or no array of plain numbers: {str(error)[:200]}") from error

"""face-flex's attribute vectors as directions, for ``emoedit.models.faceflex.backbone.FaceFlexVAE``.

A file such as ``Smiling.pkl`` holds the mean latents of K groups of CelebA pictures with the attribute (``pos``) and of
K groups without it (``neg``); a direction is their difference (Larsen et al. 2016, arXiv 1512.09300).

``joblib.dump`` wrote it: a pickle with the bytes of every array right behind the instruction that completes the array's
description. Unpickling could run anything, so the instructions are read here and the few that such a file needs are
interpreted; no name in a file is ever imported or called.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from emoedit.steering.directions import LatentDirections
from emoedit.types import CheckpointError, EditError

MAX_BYTES = 2**24  # 160 times the original files; what is larger is something else
WRAPPER, NDARRAY, DTYPE = "joblib.numpy_pickle NumpyArrayWrapper", "numpy ndarray", "numpy dtype"


def directions_from_faceflex(
    paths: Mapping[str, str | Path], *, factor: float = 3.0, variant: int | None = None
) -> LatentDirections:
    """Directions, one a file.

    Args:
        paths: ``{emotion: file}``, such as ``{"happy": "Smiling.pkl"}``.
        factor: how many attribute vectors strength 1 adds; face-flex offers 0 to 4, and 3 is typical.
        variant: as in ``read_attribute_vectors``.

    Raises:
        CheckpointError: no file is given, one cannot be used, or they are for latents of different lengths.
        EditError: the factor is not finite.
    """
    if not math.isfinite(factor):
        raise EditError(f"factor must be a finite number, not {factor!r}")
    vectors = {emotion: read_attribute_vectors(path, variant=variant) for emotion, path in paths.items()}
    lengths = {emotion: len(vector) for emotion, vector in vectors.items()}
    if len(set(lengths.values())) != 1:
        raise CheckpointError(f"attribute files for one latent length are needed, not {lengths or 'none at all'}")
    return LatentDirections(tuple(vectors), factor * torch.stack(list(vectors.values())))


def read_attribute_vectors(path: str | Path, *, variant: int | None = None) -> Tensor:
    """The attribute vector of a file: ``[D]`` float32, in units of the latent, not normalised.

    Args:
        path: ``.npz`` or ``.safetensors`` with float32 ``pos`` and ``neg`` of ``[K, D]``, or with any other suffix
            face-flex's uncompressed joblib file with K arrays of ``[D]`` each. Nothing in the file is executed.
        variant: ``pos[variant] - neg[variant]``, one group of pictures, as face-flex uses it; ``None`` is the mean over
            all groups, which is less noisy.

    Raises:
        CheckpointError: no such file, damaged, unsafe, too large, of another layout or not finite; no such variant.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".safetensors": safetensors.numpy.load}
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _Refused(f"it is larger than {MAX_BYTES} bytes")
        pos, neg = _groups(readers.get(path.suffix.lower(), _read_joblib)(data))
    except _Refused as refusal:
        raise CheckpointError(f"{path} holds no attribute vectors that can be used: {refusal}") from None
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
    if variant is not None and not 0 <= variant < len(pos):
        raise CheckpointError(f"{path} has the variants 0 to {len(pos) - 1}, not {variant}")
    differences = pos - neg
    return torch.from_numpy((differences.mean(0) if variant is None else differences[variant]).astype(np.float32))


class _Refused(ValueError):
    """Readable, but not what it should be."""


def _groups(contents: object) -> tuple[np.ndarray, np.ndarray]:
    """``pos`` and ``neg``, ``[K, D]`` float64 each."""
    if not isinstance(contents, dict) or set(contents) != {"pos", "neg"}:
        raise _Refused("it is no mapping of exactly 'pos' and 'neg'")
    tables = []
    for name in ("pos", "neg"):
        rows = contents[name]
        if isinstance(rows, list):
            arrays = [row.values for row in rows if isinstance(row, _Array) and row.values is not None]
            if len(arrays) != len(rows):
                raise _Refused(f"{name!r} holds something else than arrays")
            if len({array.shape for array in arrays}) != 1:
                raise _Refused(f"{name!r} is not one or more arrays of one shape")
            if sum(array.nbytes for array in arrays) > MAX_BYTES:  # the file can hold one array and refer to it often
                raise _Refused(f"{name!r} unpacks to more than {MAX_BYTES} bytes")
            rows = np.stack(arrays)
        if not isinstance(rows, np.ndarray) or rows.dtype != np.float32 or rows.ndim != 2 or not rows.size:
            found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "no array"
            raise _Refused(f"{name!r} is {found}; expected float32 [groups, latent]")
        if not (np.abs(rows) < np.finfo(np.float32).max / 2).all():  # false for NaN, and no difference overflows
            raise _Refused(f"{name!r} has values that are not finite")
        tables.append(rows.astype(np.float64))
    if tables[0].shape != tables[1].shape:
        raise _Refused(f"'pos' is {tables[0].shape} and 'neg' is {tables[1].shape}; they have to be alike")
    return tables[0], tables[1]


def _read_npz(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        if sum(entry.file_size for entry in archive.zip.infolist()) > MAX_BYTES:  # compressed, it can be anything
            raise _Refused(f"it unpacks to more than {MAX_BYTES} bytes")
        return {name: archive[name] for name in archive.files}


# joblib's format: a little machine of our own for pickle instructions. All that a file can make is plain containers and
# the three inert classes below. Keys must be text, and refusals print nothing nested: hash and repr of tuples that hold
# each other several times over take exponential time.


class _Name:
    """One of the three classes a file may name."""

    def __init__(self, name: str) -> None:
        if name not in (WRAPPER, NDARRAY, DTYPE):
            raise _Refused(f"it names {name[:60]!r}, which has no place in such a file; nothing of it was run")
        self.name = name


class _Type:
    """numpy's float32, once its byte order has been read."""

    complete = False


class _Array:
    """An array, once its description has been read."""

    values: np.ndarray | None = None


class _Machine:
    """Interprets a file's instructions, on a stack as pickle's own.

    Args:
        file: the whole of it; arrays are read from where the instructions stand.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[Any, Any] = {}

    def pop(self, count: int) -> list[Any]:
        """The last values put, down to the last mark at most."""
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise _Refused("its instructions take more than they put")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def pop_to_mark(self) -> list[Any]:
        """All values since the last mark, which is removed."""
        taken = self.stack[self.marks[-1] :]
        del self.stack[self.marks.pop() :]
        return taken

    def top(self, kind: type) -> Any:
        """The last value put, which is of exactly this type."""
        if not self.stack or type(self.stack[-1]) is not kind:
            raise _Refused("its instructions do not fit together")
        return self.stack[-1]

    def put(self, name: str, argument: Any) -> bool:
        """Instructions that put plain values, marks and names; whether this was one."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "BININT" | "BININT1" | "BININT2" | "BINUNICODE" | "SHORT_BINUNICODE":
                self.stack.append(argument)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                self.stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
            case "MARK":
                self.marks.append(len(self.stack))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "GLOBAL":
                self.stack.append(_Name(argument))
            case "STACK_GLOBAL":
                self.stack.append(_Name(" ".join(self.pop(2))))
            case _:
                return False
        return True

    def combine(self, name: str) -> bool:
        """Instructions that make something of what was put; whether this was one."""
        match name:
            case "TUPLE":
                self.stack.append(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self.pop(int(name[-1]))))
            case "APPEND" | "APPENDS":
                items = self.pop(1) if name == "APPEND" else self.pop_to_mark()
                self.top(list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self.pop(2) if name == "SETITEM" else self.pop_to_mark()
                if not all(type(key) is str for key in items[::2]):
                    raise _Refused("a mapping in it has keys that are not text")
                self.top(dict).update(zip(items[::2], items[1::2], strict=True))
            case "NEWOBJ":
                named, arguments = self.pop(2)
                _expect(isinstance(named, _Name) and named.name == WRAPPER and arguments == ())
                self.stack.append(_Array())
            case "REDUCE":
                named, arguments = self.pop(2)
                _expect(isinstance(named, _Name) and named.name == DTYPE and type(arguments) is tuple)
                _expect(len(arguments) == 3 and all(type(part) in (str, int, bool) for part in arguments))
                if arguments[0] != "f4":
                    raise _Refused(f"it has numbers of the type {str(arguments[0])[:20]!r}; expected 'f4' (float32)")
                self.stack.append(_Type())
            case "BUILD":
                (state,) = self.pop(1)
                if self.stack and type(self.stack[-1]) is _Array:
                    _complete(self.top(_Array), state, self.file)
                else:
                    # Version, byte order, and what only structured types have.
                    _expect(type(state) is tuple and state[:5] == (3, "<", None, None, None))
                    self.top(_Type).complete = True
            case _:
                return False
        return True


def _read_joblib(data: bytes) -> object:
    """What joblib dumped, with an ``_Array`` for each array."""
    if data[:1] != b"\x80":
        raise _Refused("it is no uncompressed joblib file, nor named .npz or .safetensors")
    file = io.BytesIO(data)
    machine = _Machine(file)
    for instruction, argument, position in pickletools.genops(file):
        name = instruction.name
        if name == "STOP":
            break
        if not machine.put(name, argument) and not machine.combine(name):
            raise _Refused(f"it has the instruction {name} at byte {position}, which has no place in such a file")
    if len(machine.stack) != 1 or machine.marks:
        raise _Refused("its instructions do not end in one object")
    if file.read(1):
        raise _Refused("more bytes follow its end")
    return machine.stack[0]


def _expect(holds: bool) -> None:
    if not holds:
        raise _Refused("it makes objects that have no place in such a file")


def _complete(array: _Array, state: Any, file: BinaryIO) -> None:
    """Give an array its numbers, which stand in the file at the present position."""
    _expect(array.values is None and type(state) is dict)
    needed, optional = {"subclass", "shape", "order", "dtype"}, {"allow_mmap", "numpy_array_alignment_bytes"}
    _expect(needed <= set(state) <= needed | optional)
    subclass, shape, order, kind = (state[name] for name in ("subclass", "shape", "order", "dtype"))
    _expect(isinstance(subclass, _Name) and subclass.name == NDARRAY)
    _expect(isinstance(kind, _Type) and kind.complete and type(order) is str)
    if type(shape) is not tuple or len(shape) != 1 or type(shape[0]) is not int or shape[0] < 1 or order != "C":
        raise _Refused("its arrays are not one-dimensional")
    if state.get("numpy_array_alignment_bytes") is not None:  # joblib 1.2 and later: padding, its length first
        padding = file.read(file.read(1)[0])
        _expect(not padding.strip(b"\xff"))
    numbers = file.read(4 * shape[0])
    if len(numbers) != 4 * shape[0]:
        raise _Refused("it ends inside an array")
    array.values = np.frombuffer(numbers, "<f4").astype(np.float32)

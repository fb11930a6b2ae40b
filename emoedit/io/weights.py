"""Weight files that ``torch.save`` wrote, read as tensors in plain containers: the one reader of every loader.

Nothing in a file is executed (``emoedit.io.pickles``), and no file makes the reader use more memory than about three
times its own size. ``torch.load(weights_only=True)`` promises the first only: a file of 2 KB can hold a tensor that
repeats one number a billion times (stride 0), a zip archive can inflate its entries, a header can ask for any size.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from emoedit.io.pickles import NamedError, PickleError, Record, mapping, members, read_pickle
from emoedit.types import CheckpointError

if TYPE_CHECKING:
    import torch

MAGIC = 0x1950A86A20F9469CFC6C  # the first object of a file of PyTorch before 1.6
MAX_SCRIPT = 2**26  # bytes of the pickle that describes the tensors; those of published files have 1 MB at most
MAX_DIRECTORY = 2**24  # bytes of the list of an archive's entries: 150,000 of them
CHUNK = 2**24  # bytes that are read at a time
SHARED = 4  # tensors may be views of the same numbers, but no more than this many times over

STORAGES = {  # names of the classes of torch -> dtype; quantised, complex and 8-bit floating ones are left out
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
OTHER_KINDS = {  # what else torch.save writes as a tensor, in a reader's words
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no numbers",
    "_rebuild_device_tensor_from_numpy": "a tensor of a device that is not known here",
    "_rebuild_wrapper_subclass": "a tensor of a class of its own",
    "ComplexFloatStorage": "a complex tensor",
    "ComplexDoubleStorage": "a complex tensor",
    "QInt8Storage": "a quantised tensor",
    "QUInt8Storage": "a quantised tensor",
    "QInt32Storage": "a quantised tensor",
}


@dataclass(frozen=True)
class Storage:
    """The numbers of one or more tensors.

    Args:
        values: one-dimensional, of the storage's own dtype.
    """

    values: torch.Tensor


class Tensors:
    """What tensors in a pickle are built as, within the size of the file.

    Args:
        size: size of the file, bytes.
        numbers: whether they are read.
    """

    def __init__(self, size: int, *, numbers: bool = True) -> None:
        self.size, self.numbers = size, numbers
        self._left = SHARED * size

    def names(self) -> dict[str, Callable[..., Any]]:
        """What a pickle of tensors may name, for ``emoedit.io.pickles.read_pickle``."""
        kinds: dict[str, Callable[..., Any]] = {f"torch.{name}": _marker(dtype) for name, dtype in STORAGES.items()}
        kinds |= {f"torch.{name}": _marker(name) for name in {*STORAGES.values()}}
        kinds["torch.storage.UntypedStorage"] = kinds["torch.UntypedStorage"]
        return kinds | {
            "collections.OrderedDict": mapping,
            "collections.Counter": mapping,
            "builtins.set": members,
            "__builtin__.set": members,
            "torch.Size": lambda sides=(): tuple(sides),
            "torch.device": lambda *parts: str(parts[0])[:20],
            "_codecs.encode": _encoded,
            "argparse.Namespace": Record,
            "torch.nn.modules.container.ParameterDict": Record,
            "torch._utils._rebuild_tensor_v2": self.view,
            "torch._utils._rebuild_tensor": self.view,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
        }

    def view(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
        """The tensor of a storage.

        Args:
            storage: its numbers.
            offset: first number.
            size: size of the tensor.
            stride: in numbers.

        Raises:
            PickleError: it reaches outside of the storage, or holds more numbers than the storage.
        """
        import torch

        if not isinstance(storage, Storage):
            raise PickleError(f"a tensor in it is made of a {type(storage).__name__}")
        size, stride = tuple(size), tuple(stride)
        if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)) or len(size) != len(stride):
            raise PickleError("a tensor in it has a shape of something else than whole numbers")
        have, last, count = len(storage.values), offset, 1
        for sides, step in zip(size, stride, strict=True):
            last += (sides - 1) * step
            count *= sides
        if count and last >= have:
            raise PickleError(f"a tensor of shape {_shape(size)} in it reaches to {last:,} of {have:,} numbers")
        if count > have:
            raise PickleError(
                f"a tensor of shape {_shape(size)} in it has only {have:,} numbers in the file, each used many times "
                "over; save it with .contiguous()"
            )
        self._left -= count * storage.values.element_size()
        if self._left < 0:
            raise PickleError(f"its tensors use the same numbers more than {SHARED} times over; save each but once")
        return torch.as_strided(storage.values, size, stride, offset)

    def empty(self, kind: Any, count: Any) -> Storage:
        """A storage to be filled.

        Args:
            kind: as the pickle names it.
            count: count of its numbers, or (``UntypedStorage``) of its bytes.

        Raises:
            PickleError: it would be larger than the file.
        """
        import torch

        if not isinstance(kind, _Kind):
            raise PickleError("a storage in it has no type")
        dtype = getattr(torch, kind.dtype)
        if type(count) is not int or not 0 <= count * dtype.itemsize <= self.size:
            raise PickleError(f"a storage in it claims {str(count)[:30]} numbers, more than the file has bytes")
        return Storage(torch.empty(count, dtype=dtype, device="cpu" if self.numbers else "meta"))


@dataclass(frozen=True)
class _Kind:
    dtype: str


def _marker(dtype: str) -> Callable[..., Any]:
    """A class of torch that is only ever named, never called."""
    return _Named(dtype)


class _Named:
    def __init__(self, dtype: str) -> None:
        self.kind = _Kind(dtype)

    def __call__(self, *_: Any) -> Any:
        raise PickleError("it calls a type of storage")


def _kind_of(named: Any) -> Any:
    """The kind of a storage, of what ``emoedit.io.pickles`` puts for its name."""
    build = getattr(named, "build", None)
    return build.kind if isinstance(build, _Named) else None


def _encoded(text: Any, *_: Any) -> bytes:
    """Bytes, as Python 2's protocol writes them."""
    return str(text).encode("latin-1")


def _shape(size: Iterable[int]) -> str:
    return str(tuple(size))[:60]


def read_torch(
    source: Path | bytes, label: str | None = None, *, names: Mapping[str, Any] | None = None, numbers: bool = True
) -> Any:
    """What ``torch.save`` wrote, in either of its formats: tensors in plain containers, on the CPU.

    Args:
        source: a file, or the bytes of one.
        label: name of the file in errors; default: the path.
        names: what a pickle may name beside tensors, for ``emoedit.io.pickles.read_pickle``.
        numbers: whether they are read; without, tensors have names, shapes and types, and are on the device ``meta``.

    Returns:
        Dictionaries, lists, tuples, numbers, texts and dense tensors with all their numbers in memory. An
        ``OrderedDict`` comes back as ``dict``; a ``ParameterDict`` and an ``argparse.Namespace`` as a mapping of their
        attributes. Where a storage was saved by itself, a ``Storage``.

    Raises:
        CheckpointError: missing, damaged, compressed; it holds more than that, or tensors of another kind (sparse,
            quantised, complex, nested, meta), or tensors with fewer numbers in the file than their shape says.
    """
    if isinstance(source, Path) and not source.is_file():
        raise CheckpointError(f"{source}: there is no such file")
    label = label or (str(source) if isinstance(source, Path) else "the file")
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(4)
            file.seek(0)
            tensors = Tensors(size, numbers=numbers)
            allowed = {**tensors.names(), **(names or {})}
            return _read_zip(file, tensors, allowed) if head[:2] == b"PK" else _read_old(file, tensors, allowed)
    except NamedError as error:
        kind = OTHER_KINDS.get(error.name.rpartition(".")[2])
        if kind is not None:
            raise CheckpointError(f"{label} cannot be read: it holds {kind}; save dense floating-point ones") from None
        raise CheckpointError(
            f"{label} cannot be read: it holds more than tensors ({error}; a whole pickled module is refused, as "
            "reading one runs code); save the weights alone, with torch.save(model.state_dict(), path). Nothing of it "
            "was executed"
        ) from None
    except (PickleError, OSError, EOFError, ValueError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise CheckpointError(f"{label} cannot be read: it is damaged, or no file of torch.save ({error})") from error
    except (KeyError, MemoryError, RuntimeError, RecursionError) as error:
        raise CheckpointError(f"{label} cannot be read: it is damaged ({type(error).__name__}: {error})") from error


def _read_zip(file: BinaryIO, tensors: Tensors, names: Mapping[str, Any]) -> Any:
    """The format of PyTorch 1.6 and later: an archive of ``NAME/data.pkl`` and ``NAME/data/0``, ``1``, ..."""
    _check_directory(file, tensors.size)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise PickleError("its entries are compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries.values()) > tensors.size:
            raise PickleError("its entries claim more bytes than the file has")
        scripts = [name for name in entries if name.endswith("/data.pkl")]
        if len(scripts) != 1 or entries[scripts[0]].file_size > MAX_SCRIPT:
            raise PickleError(f"it has {len(scripts)} entries named data.pkl, or one that is too large")
        root = scripts[0].removesuffix("data.pkl")
        order = archive.read(entries[root + "byteorder"]) if root + "byteorder" in entries else b"little"
        if order.strip() != b"little":
            raise PickleError(f"its numbers are stored in the byte order {order[:10]!r}")
        found: dict[str, Storage] = {}

        def persistent(pid: Any) -> Storage:
            kind, key, count = _identity(pid)
            if key not in found:
                found[key] = storage = tensors.empty(kind, count)
                entry = entries[f"{root}data/{key}"]
                if tensors.numbers:
                    with archive.open(entry) as part:
                        _fill(storage, part, entry.file_size)
            return found[key]

        script = io.BytesIO(archive.read(entries[scripts[0]]))
        return read_pickle(script, names, persistent)


def _check_directory(file: BinaryIO, size: int) -> None:
    """Refuse a list of entries that would take far more memory than the file is long.

    PKWARE's APPNOTE, 4.3.14 to 4.3.16.
    """
    file.seek(max(0, size - 98))
    end = file.read(98)
    file.seek(0)
    if end[-22:-18] != b"PK\5\6":
        raise PickleError("it does not end as an archive of torch.save does")
    listed = struct.unpack("<I", end[-10:-6])[0]
    if end[-42:-38] == b"PK\6\7" and end[:4] == b"PK\6\6":
        listed = struct.unpack("<Q", end[40:48])[0]
    if listed > min(size, MAX_DIRECTORY):
        raise PickleError(f"its list of entries takes {listed:,} bytes")


def _read_old(file: BinaryIO, tensors: Tensors, names: Mapping[str, Any]) -> Any:
    """The format before PyTorch 1.6.

    Pickles of a number, the version, the system, the object and the keys of its storages, and the storages.
    """
    if read_pickle(file, {}) != MAGIC:
        raise PickleError("it does not begin as such a file does")
    read_pickle(file, {})
    system = read_pickle(file, {})
    if not isinstance(system, dict) or not system.get("little_endian", True):
        raise PickleError("its numbers are stored with the high byte first")
    found: dict[str, Storage] = {}
    claimed = 0

    def persistent(pid: Any) -> Storage:
        nonlocal claimed
        kind, key, count = _identity(pid)
        if key not in found:
            found[key] = tensors.empty(kind, count)
            claimed += found[key].values.nbytes
            if claimed > tensors.size:
                raise PickleError("its storages claim more bytes than the file has")
        return found[key]

    contents = read_pickle(file, names, persistent)
    keys = read_pickle(file, {})
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(found):
        raise PickleError("its storages are not those that its tensors are made of")
    for key in keys if tensors.numbers else ():
        storage = found[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != len(storage.values):
            raise PickleError(f"a storage has {count:,} numbers, and {len(storage.values):,} were announced")
        _fill(storage, file, storage.values.nbytes)
    return contents


def _identity(pid: Any) -> tuple[Any, str, Any]:
    """Kind, key and count of a storage, of what a pickle says of it."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[2], str):
        raise PickleError("it refers to something outside of itself that is no storage")
    if len(pid) > 5 and pid[5] is not None:
        raise PickleError("its storages are parts of each other, as PyTorch before 0.4 wrote them; save it anew")
    return _kind_of(pid[1]), pid[2], pid[4]


def _fill(storage: Storage, file: Any, size: int) -> None:
    """Reads the numbers of a storage."""
    import torch

    if size != storage.values.nbytes:
        raise PickleError(f"a storage has {size:,} bytes, and {storage.values.nbytes:,} were announced")
    if not size:
        return
    target = memoryview(storage.values.view(torch.uint8).numpy().data)
    read = 0
    while read < size:
        got = file.readinto(target[read : read + CHUNK])
        if not got:
            raise PickleError("it ends inside a tensor")
        read += got

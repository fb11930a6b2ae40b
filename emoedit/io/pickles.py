"""Pickles as data: the instructions are interpreted here, and nothing that they name is ever imported or called.

A pickle is a program. Weight files of others are pickles, and both of Python's readers trust the program too far: its
memo is an array as long as the largest index (2 GB for nine bytes), its containers may be referred to any number of
times, and a tuple inside a tuple inside a tuple has a hash and a ``repr`` that take exponential time. This reader takes
the instructions that weight files consist of. A file can make plain containers with names (text or whole numbers) as
keys, and what the caller builds for the names that it lists.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

MAX_INSTRUCTIONS = 500_000  # published files have 100,000 at most; each can make an object of about 250 bytes
MAX_TEXT = 2**25  # characters, all texts together; NVIDIA's files carry the source code of their modules
MAX_DEPTH = 64  # containers inside containers

Build = Callable[..., Any]


class PickleError(Exception):
    """A pickle that is damaged, or that asks for more than a weight file does; the message says what."""


class NamedError(PickleError):
    """A pickle names something that is not among what the caller builds.

    Args:
        name: ``module.name``, cut to 80 characters.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"it asks for {name[:80]}")
        self.name = name[:80]


class Record(dict[str, Any]):
    """An object of a class that the caller lists: its attributes, under the name of its class.

    Attributes:
        kind: ``module.name``.
    """

    kind: str = ""


def mapping(items: Any = ()) -> dict[Any, Any]:
    """What ``OrderedDict`` and its kin are built as, for ``read_pickle``.

    Args:
        items: a mapping, or pairs.

    Raises:
        PickleError: keys that are neither text nor whole numbers.
    """
    pairs = list(items.items() if isinstance(items, dict) else items)
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and type(pair[0]) in (str, int) for pair in pairs):
        raise PickleError("a mapping in it has keys that are neither text nor whole numbers")
    return dict(pairs)


def members(items: Any = ()) -> list[Any]:
    """What a set is built as, for ``read_pickle``: a list, so that nothing has to be hashed.

    Args:
        items: items of the set.

    Raises:
        PickleError: not a list.
    """
    if not isinstance(items, list | tuple):
        raise PickleError("a set in it is made of something else than a list")
    return list(items)


class _Name:
    """A class or function that a pickle names, and what is built in its place."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Build) -> None:
        self.name, self.build = name, build


class _Part:
    """The file from its present position on, never read past its end: a false length allocates no memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        position = file.tell()
        self._left = file.seek(0, os.SEEK_END) - position
        file.seek(position)

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            raise PickleError(f"an instruction asks for {size} bytes, and {self._left} are left")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(min(self._left, 1000))
        self._left -= len(line)
        return line


_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_NUMBERS = frozenset(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"))
_TEXTS = frozenset(
    ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING", "STRING", "UNICODE")
)
_BYTES = frozenset(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"))


class _Machine:
    """The stack and the memo of one pickle.

    Args:
        names: see ``read_pickle``.
        persistent: see ``read_pickle``.
    """

    def __init__(self, names: Mapping[str, Build], persistent: Build | None) -> None:
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.depths: dict[int, int] = {}  # of containers, by identity: all of them live until the reading ends
        self.kept: list[Any] = []
        self.text = 0

    # --- the stack ---------------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int = 1) -> list[Any]:
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise PickleError("its instructions take more than they put")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise PickleError("its instructions take more than they put")
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def top(self, *kinds: type) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or not isinstance(self.stack[-1], kinds):
            raise PickleError("its instructions do not fit together")
        return self.stack[-1]

    # --- containers --------------------------------------------------------------------------------------------------

    def keep(self, container: Any, parts: list[Any]) -> Any:
        """Notes how deep a container is; a container that holds itself gets deeper each time."""
        depth = 1 + max((self.depths.get(id(part), 0) for part in parts), default=0)
        if depth > MAX_DEPTH:
            raise PickleError(f"its containers lie more than {MAX_DEPTH} deep in each other")
        if id(container) not in self.depths:
            self.kept.append(container)  # so that no other object gets its identity
        self.depths[id(container)] = max(depth, self.depths.get(id(container), 0))
        return container

    def add(self, items: list[Any]) -> None:
        target = self.top(list)
        target.extend(items)
        self.keep(target, [target, *items] if any(item is target for item in items) else items)

    def set(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise PickleError("a mapping in it has a key without a value")
        if not all(type(key) in (str, int) for key in items[::2]):
            raise PickleError("a mapping in it has keys that are neither text nor whole numbers")
        target.update(zip(items[::2], items[1::2], strict=True))
        self.keep(target, items[1::2])

    # --- names -------------------------------------------------------------------------------------------------------

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise PickleError("it names something by other than text")
        full = f"{module}.{name}"
        if full not in self.names:
            raise NamedError(full)
        self.push(_Name(full, self.names[full]))

    def call(self) -> None:
        named, arguments = self.pop(2)
        if not isinstance(named, _Name) or type(arguments) is not tuple:
            raise PickleError("it calls something that is no name")
        built = named.build(*arguments)
        if isinstance(built, dict | list | tuple):
            if isinstance(built, Record):
                built.kind = named.name
            parts = built.values() if isinstance(built, dict) else built
            self.keep(built, [*parts, *arguments])
        self.push(built)

    def build(self) -> None:
        (state,) = self.pop()
        target = self.top(object)
        if isinstance(target, Record) and isinstance(state, dict):
            target.update({str(key): value for key, value in state.items()})
            self.keep(target, [state])
        elif hasattr(target, "set_state"):
            target.set_state(state)
        elif not isinstance(target, dict):  # attributes of an OrderedDict (``_metadata``) are of no use
            raise PickleError(f"it gives attributes to a {type(target).__name__}")

    # --- one instruction ---------------------------------------------------------------------------------------------

    def literal(self, name: str, argument: Any) -> bool:
        """Whether the instruction put a value of its own."""
        if name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _EMPTY:
            self.push(self.keep(_EMPTY[name](), []) if name != "EMPTY_TUPLE" else ())
        elif name in _NUMBERS or name in _BYTES:
            self.push(argument)
        elif name in _TEXTS:
            self.text += len(argument)
            if self.text > MAX_TEXT:
                raise PickleError(f"it holds more than {MAX_TEXT:,} characters of text")
            self.push(argument)
        else:
            return False
        return True

    def step(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "TUPLE":
                items = self.pop_to_mark()
                self.push(self.keep(tuple(items), items) if items else ())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = self.pop(int(name[-1]))
                self.push(self.keep(tuple(items), items))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top(object)
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top(object)
            case "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise PickleError("it refers to what it has not made")
                self.push(self.memo[argument])
            case "APPEND" | "APPENDS" | "ADDITEMS":
                self.add(self.pop() if name == "APPEND" else self.pop_to_mark())
            case "SETITEM" | "SETITEMS":
                self.set(self.pop(2) if name == "SETITEM" else self.pop_to_mark())
            case "GLOBAL" | "INST":
                module, _, named = argument.partition(" ")
                self.name(module, named)
            case "STACK_GLOBAL":
                self.name(*self.pop(2))
            case "REDUCE" | "NEWOBJ":
                self.call()
            case "BUILD":
                self.build()
            case "BINPERSID" | "PERSID":
                (pid,) = self.pop() if argument is None else (argument,)
                if self.persistent is None:
                    raise NamedError(f"something outside of the file, {str(pid)[:40]!r}" if type(pid) is str else "it")
                self.push(self.persistent(pid))
            case _:
                raise PickleError(f"it has the instruction {name}, which weight files do not have")


def read_pickle(file: BinaryIO, names: Mapping[str, Build], persistent: Build | None = None) -> Any:
    """The object that a pickle makes, from the file's position to the end of the pickle.

    Args:
        file: open for reading and seekable.
        names: ``module.name`` -> what is called with the arguments that the pickle gives (``Record``, ``mapping``,
            ``members``, or the caller's). Nothing else can be named. What is built may have a method ``set_state``,
            which is given what ``__setstate__`` would be.
        persistent: what is called with the identity of something outside of the pickle, where there is such a thing.

    Returns:
        Dictionaries, lists, tuples, ``Record`` s, texts, numbers, bytes, and what ``names`` and ``persistent``
        build. A set comes back as a list.

    Raises:
        PickleError: damaged, too many instructions, too much text, too deep, or an instruction of another kind.
        NamedError: it names something else.
    """
    machine = _Machine(names, persistent)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(cast("BinaryIO", _Part(file)))):
            if count > MAX_INSTRUCTIONS:
                raise PickleError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            if instruction.name == "STOP":
                break
            if not machine.literal(instruction.name, argument):
                machine.step(instruction.name, argument)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, UnicodeError, AttributeError) as error:
        what = f"{type(error).__name__}: {str(error)[:80]}"
        raise PickleError(f"its instructions do not fit together ({what})") from error
    if len(machine.stack) != 1 or machine.marks:
        raise PickleError("its instructions do not end in one object")
    return machine.stack[0]

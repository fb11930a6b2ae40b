"""Every public name of the package has a docstring that names each of its arguments and the errors it raises."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTER = {"classmethod", "staticmethod"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(tree: ast.AST, owner: str = "", inside: str = "") -> Iterator[tuple[str, Function, str]]:
    """Public functions and methods: their names, nodes, and docstrings; of a constructor that of its class.

    Args:
        tree: a module, or a class of it.
        owner: name of the class, with a dot.
        inside: docstring of the class.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node, f"{node.name}.", ast.get_docstring(node) or "")
        elif isinstance(node, Function):
            if node.name == "__init__" and owner:
                yield owner.removesuffix("."), node, inside
            elif not node.name.startswith("_"):
                yield owner + node.name, node, ast.get_docstring(node) or ""


def arguments(node: Function, method: bool) -> list[str]:
    """Names of a function's arguments, without the instance or class of a method."""
    given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
    return [each.arg for each in given[method and not static :]]


def raised(node: Function) -> set[str]:
    """Names of the errors that a function's own statements raise."""
    own: set[str] = set()
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        each = waiting.pop()
        if isinstance(each, Function | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call) and isinstance(each.exc.func, ast.Name):
            own.add(each.exc.func.id)
        waiting.extend(ast.iter_child_nodes(each))
    return own


def described(text: str) -> set[str]:
    """Names of the arguments that a docstring describes: an entry of ``Args:``, or a name in backticks."""
    return set(re.findall(r"^ *\*{0,2}(\w+):", text, re.M)) | set(re.findall(r"``\*{0,2}(\w+)", text))


@cache
def inherited(root: Path) -> dict[str, set[str]]:
    """``Class.method`` -> the arguments that the same method of a base class in the package describes."""
    bases, own = {}, {}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                plain = (
                    getattr(base, "value", base) if isinstance(base, ast.Subscript) else base for base in node.bases
                )
                names = (getattr(base, "id", getattr(base, "attr", "")) for base in plain)
                bases[node.name] = [name for name in names if name != node.name]
                own.update({name: described(text) for name, _, text in public(node, f"{node.name}.")})
    found: dict[str, set[str]] = {}
    for name in own:
        owner, _, method = name.rpartition(".")
        waiting, found[name] = list(bases.get(owner, [])), set()
        while waiting:
            base = waiting.pop()
            found[name] |= own.get(f"{base}.{method}", set())
            waiting += bases.get(base, [])
    return found


def faults(path: Path) -> list[str]:
    """What the docstrings of a module lack."""
    tree, found = ast.parse(path.read_text("utf-8")), []
    module = str(path.relative_to(ROOT))
    if not ast.get_docstring(tree) and path.read_text("utf-8").strip():
        found.append(f"{module}: no docstring")
    for name, node, text in public(tree):
        where = f"{module}:{node.lineno} {name}"
        if any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list):
            continue
        if not text:
            found.append(f"{where}: no docstring")
            continue
        named = described(text) | inherited(ROOT / "emoedit").get(name, set())
        given = arguments(node, "." in name or node.name == "__init__")
        alone = len(given) == 1 and "``[" in text.split("\n\n")[0]  # a tensor whose shape the first line gives
        lacking = [each for each in given if each not in named and not alone]
        found += [f"{where}: {each} is not described" for each in lacking]
        errors = {each for each in raised(node) if re.fullmatch(r"[A-Z]\w+Error", each) and not hasattr(builtins, each)}
        found += [f"{where}: {each} is not under Raises" for each in sorted(errors) if f"{each}:" not in text]
    return found


def modules() -> list[Path]:
    """The package's modules."""
    return sorted((ROOT / "emoedit").rglob("*.py"))


def test_arguments_and_errors_of_public_names_are_described():
    found = [fault for path in modules() for fault in faults(path)]
    assert not found, "\n".join([f"{len(found)} faults", *found])


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""A."""\ndef f(x):\n    """B."""\n', "f: x is not described"),
        ('"""A."""\ndef f():\n    """B."""\n    raise EditError("c")\n', "f: EditError is not under Raises"),
        ('"""A."""\ndef f():\n    pass\n', "f: no docstring"),
        ('def f():\n    """A."""\n', "no docstring"),
        ('"""A."""\nclass C:\n    """B."""\n    def __init__(self, x):\n        pass\n', "C: x is not described"),
    ],
)
def test_faults_are_found(source, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "module.py"
    path.write_text(source)
    (found,) = faults(path)
    assert fault in found

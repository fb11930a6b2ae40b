"""Which folder may import which, and how long modules and functions are: docs/architecture.md and CONTRIBUTING.md."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "emoedit"
ORDER = (  # a module imports only from its own row and from rows above
    ("types", "emotions", "registry"),
    ("io", "nn", "sampling"),
    ("faces",),
    ("models", "steering"),
    ("editors", "full_size"),
    ("compositing",),
    ("photo", "guard", "batch", "parts"),
    ("metrics",),
    ("evaluation", "report"),
    ("training",),
    ("cli", "app"),
    ("__init__", "__main__"),  # the public names, offered lazily; `python -m emoedit`
)
# What a notebook shows of a value is drawn where the notebook asks for it, in a function: the value itself needs no
# report. (module, what it imports)
LAZY = {
    ("types", "emoedit.report.display"),
    ("editors", "emoedit.report.display"),
    ("photo", "emoedit.report.display"),
}
MODULES_AT_THE_TOP, LINES, FUNCTION = 12, 450, 60


@cache
def parsed(text):
    return ast.parse(text)


def modules(package):
    return {path.relative_to(package).as_posix(): parsed(path.read_text("utf-8")) for path in package.rglob("*.py")}


def name_of(path, package):
    """``emoedit.io.images`` of ``io/images.py``."""
    parts = [package.name, *Path(path).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree, module, *, is_package=False):
    """(imported name, whether inside a function) of every import that runs; those for type checkers do not."""

    def walk(node, inside):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from walk(other, inside)
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = module.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
                base = ".".join([*around, *([base] if base else [])])
            yield base, inside
            yield from ((f"{base}.{alias.name}", inside) for alias in node.names)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    return list(walk(tree, False))


def wrong_imports(package):
    """Imports of what stands below the importing module."""
    row = {name: number for number, names in enumerate(ORDER) for name in names}
    wrong = []
    for path, tree in modules(package).items():
        room = path.partition("/")[0].removesuffix(".py")
        if room not in row:
            wrong.append(f"{path} stands in no row of ORDER")
            continue
        for name, inside in imports(tree, name_of(path, package), is_package=path.endswith("__init__.py")):
            first, _, rest = name.partition(".")
            if first in ("experiments", "lib", "tests", "benchmarks"):
                wrong.append(f"{path} imports {name}, which is not installed")
            below = first == package.name and row.get(rest.partition(".")[0], -1) > row[room]
            shown = inside and any(room == who and f"{name}.".startswith(f"{what}.") for who, what in LAZY)
            if below and not shown:
                wrong.append(f"{path} imports {name}")
    return wrong


def circle(package):
    """Modules that import each other while they are being imported; None where there are none."""
    trees = {name_of(path, package): (path, tree) for path, tree in modules(package).items()}
    graph = {}
    for name, (path, tree) in trees.items():
        found = imports(tree, name, is_package=path.endswith("__init__.py"))
        graph[name] = {other for other, inside in found if not inside and other in trees and other != name}
    for name, others in graph.items():  # `from a.b import c`, c a module, is an import of c; of a.b only where it has c
        graph[name] = {one for one in others if not any(two.startswith(f"{one}.") for two in others)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return None


def long_modules(package):
    counts = {path: len((package / path).read_text("utf-8").splitlines()) for path in modules(package)}
    return {path: count for path, count in counts.items() if count > LINES}


def long_functions(package):
    found = {}
    for path, tree in modules(package).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION:
                    found[f"{path}: {node.name}"] = length
    return found


def test_modules_import_only_what_stands_above_them():
    assert wrong_imports(PACKAGE) == []


def test_modules_import_each_other_in_no_circle():
    assert circle(PACKAGE) is None


def test_only_commands_and_the_page_import_their_frameworks():
    found = {
        (path, name.partition(".")[0])
        for path, tree in modules(PACKAGE).items()
        for name, _ in imports(tree, name_of(path, PACKAGE))
        if path.partition("/")[0] not in ("cli", "app")
    }
    assert [one for one in sorted(found) if one[1] in ("hydra", "omegaconf", "gradio")] == []


def test_few_modules_stand_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= MODULES_AT_THE_TOP


def test_modules_are_short():
    assert long_modules(PACKAGE) == {}


def test_functions_are_short():
    assert long_functions(PACKAGE) == {}


@pytest.fixture
def package(tmp_path):
    """Writes a package of a few modules."""

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path / "emoedit" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, "utf-8")
        return tmp_path / "emoedit"

    return write


@pytest.mark.parametrize(
    "source",
    [
        "from emoedit.editors import Editor",
        "import emoedit.editors",
        "from emoedit import editors",
        "from ..editors import Editor",
        "from .. import editors",
        "def later():\n    from emoedit.editors import Editor",
        "from tests.fixtures import faces",
    ],
)
def test_an_import_from_below_is_found(package, source):
    assert wrong_imports(package(steering__shifts=source, editors="")) != []


@pytest.mark.parametrize(
    "source",
    [
        "from emoedit.types import Edit",
        "import torch",
        "from . import base",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from emoedit.editors import Editor",
    ],
)
def test_other_imports_are_not(package, source):
    assert wrong_imports(package(steering__shifts=source, steering__base="", editors="")) == []


def test_a_module_in_no_row_and_a_display_at_the_top_are_found(package):
    assert wrong_imports(package(helpers=""))
    assert wrong_imports(package(types="def show():\n    from emoedit.report.display import png")) == [
        "helpers.py stands in no row of ORDER"
    ]
    assert len(wrong_imports(package(types="from emoedit.report.display import png"))) > 1


def test_a_circle_is_found(package):
    folder = package(io__a="from emoedit.io import b", io__b="def f():\n    from emoedit.io.a import x")
    assert circle(folder) is None
    assert circle(package(io__b="from emoedit.io.a import x")) is not None


def test_what_is_too_long_is_found(package):
    folder = package(io__a="def f():\n" + "    pass\n" * FUNCTION, io__b="pass\n" * (LINES + 1))
    assert long_functions(folder) == {"io/a.py: f": FUNCTION + 1}
    assert long_modules(folder) == {"io/b.py": LINES + 1}

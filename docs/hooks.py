"""What the site is built from beside the pages in this folder: model cards and the reference.

mkdocs calls these functions. Cards stay beside their weights, in ``checkpoints/NAME/README.md``; links to them from the
pages, which work on GitHub as they are, point to the copies on the site.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "emoedit"
CARDS = sorted(path.parent.name for path in (ROOT / "checkpoints").glob("*/README.md"))
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


def public_names() -> dict[str, str]:
    """The names of ``emoedit.__all__`` with the modules that they live in, read without importing the package."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOME":
            return ast.literal_eval(node.value)
    raise ValueError("emoedit/__init__.py assigns no _HOME")


def definition(module: str, name: str) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
    """Where a public name is defined: its module, or the one that this module imports it from.

    Args:
        module: dotted.
        name: of a class or function.
    """
    folder = ROOT / module.replace(".", "/")
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    tree = ast.parse(source.read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
            return definition(node.module, name)
    raise ValueError(f"{module} defines no {name}")


def summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    """The first paragraph of a docstring, on one line.

    Args:
        node: of a class or function.
    """
    text = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return " ".join(re.sub(r":\w+:`([^`]*)`", r"`\1`", text).split()).replace("|", "\\|")


def reference() -> dict[str, str]:
    """The pages of the reference: the public names, the modules beside the rooms, and one page a room."""
    lines = []
    for name, home in public_names().items():
        module, node = definition(home, name)
        lines.append(f"| [`emoedit.{name}`][{module}.{name}] | {summary(node)} |")
    rows = "\n".join(lines)
    text = f"# Public names\n\nEach is an attribute of `emoedit`.\n\n| name | what it is |\n|---|---|\n{rows}\n"
    pages = {"reference/index.md": text}
    for module in MODULES:
        pages[f"reference/{module}.md"] = f"# emoedit.{module}\n\n::: emoedit.{module}\n"
    for room in ROOMS:
        inner = sorted(path for path in (PACKAGE / room).rglob("*.py") if not path.stem.startswith("__"))
        dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in inner]
        body = "\n\n".join(f"::: {name}" for name in [f"emoedit.{room}", *dotted])
        pages[f"reference/{room}/index.md"] = f"# emoedit.{room}\n\n{body}\n"
    return pages


def on_config(config: Any) -> Any:
    """Adds the generated pages, and the pages of decisions, to the navigation."""
    decisions = [f"decisions/{path.name}" for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    for group in config["nav"]:
        if "How it works" in group:
            group["How it works"] = [*group["How it works"], {"Decisions": decisions}]
    rooms = [{f"emoedit.{room}": f"reference/{room}/index.md"} for room in ROOMS]
    modules = [{f"emoedit.{module}": f"reference/{module}.md"} for module in MODULES]
    config["nav"] = [
        *config["nav"],
        {"Model cards": [{name: f"cards/{name}.md"} for name in CARDS]},
        {"Reference": ["reference/index.md", *modules, *rooms]},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages."""
    pages = reference() | {
        f"cards/{name}.md": (ROOT / "checkpoints" / name / "README.md").read_text("utf-8") for name in CARDS
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads links between pages, cards and the repository to where they are on the site."""
    depth = page.file.src_uri.count("/")
    up = "../" * depth
    text = re.sub(r"\]\((?:\.\./)+checkpoints/(\w+)/README\.md", rf"]({up}cards/\1.md", markdown)
    if page.file.src_uri.startswith("cards/"):
        text = re.sub(r"\]\(\.\./\.\./docs/", "](../", text)
        text = re.sub(r"\]\(\.\./(\w+)/README\.md", r"](\1.md", text)
    return text

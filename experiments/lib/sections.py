"""A Markdown page that several programs write, each its own section, so that one can be made anew alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from emoedit.io.images import write_atomic
from emoedit.types import DataError

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MARK = re.compile(r"^<!-- (begin|end) ([^\n]*) -->$", re.MULTILINE)


def read_sections(text: str) -> dict[str, str]:
    """Name -> text of a page's sections, in their order. What stands before the first belongs to none.

    Raises:
        DataError: a section that is not closed, or stands twice; text between sections, which would be lost.
    """
    sections: dict[str, str] = {}
    opened: tuple[str, int] | None = None
    last = None
    for mark in _MARK.finditer(text):
        kind, name = mark.groups()
        if kind == "begin":
            if opened or name in sections:
                raise DataError(f"section {name!r} begins inside {opened[0]!r}" if opened else f"two sections {name!r}")
            if last is not None and text[last : mark.start()].strip():
                raise DataError(
                    f"text before section {name!r} belongs to no section: {text[last : mark.start()]!r:.80}"
                )
            opened = name, mark.end()
        else:
            if opened is None or opened[0] != name:
                raise DataError(f"section {name!r} ends where it has not begun")
            sections[name] = text[opened[1] : mark.start()].strip()
            opened, last = None, mark.end()
    if opened:
        raise DataError(f"section {opened[0]!r} does not end")
    if last is not None and text[last:].strip():
        raise DataError(f"text after the last section belongs to none: {text[last:].strip()!r:.80}")
    return sections


def write_section(page: Path, name: str, text: str, *, head: str, order: Sequence[str]) -> None:
    """Put one section into a page, in place of its older version; the others stay unchanged, to the byte.

    Programs that write one page have to do so one after the other.

    Args:
        page: made if need be.
        name: name of small letters, digits and hyphens.
        text: Markdown.
        head: what stands above all sections.
        order: names as they are to stand; a name that begins with one of them and a hyphen stands behind it, and others
            come last.

    Raises:
        DataError: a name of another form; text that holds a section's marks; a page whose marks are damaged.
        OutputError: it cannot be written; the older page is still there.
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"a section's name is small letters, digits and hyphens, not {name!r}")
    if _MARK.search(text):
        raise DataError(f"the text of section {name!r} holds the mark of a section")
    try:
        sections = read_sections(page.read_text(encoding="utf-8")) if page.is_file() else {}
    except DataError as error:
        raise DataError(f"{page}: {error}; mend it or remove the page") from error
    sections[name] = text.strip()

    def place(each: str) -> tuple[int, str]:
        homes = [k for k, first in enumerate(order) if each == first or each.startswith(first + "-")]
        return (homes[-1] if homes else len(order)), each

    parts = [f"<!-- begin {n} -->\n\n{sections[n]}\n\n<!-- end {n} -->" for n in sorted(sections, key=place)]
    data = "\n\n".join([head.strip(), *parts]).encode() + b"\n"
    write_atomic(page, lambda file: file.write(data), overwrite=True)

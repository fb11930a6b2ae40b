"""A table as Markdown, for pages that are read as text."""

from __future__ import annotations

import math
from numbers import Integral

from emoedit.report.html import Table, printable


def markdown(table: Table) -> str:
    """Title, table and help, as the page shows them: floats with three digits, a dash where there is no number.

    Args:
        table: table of a report.
    """
    rows = [[_cell(cell) for cell in row] for row in (table.header, ["---"] * len(table.header), *table.rows)]
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return "\n\n".join(part for part in (f"## {_cell(table.title)}", lines, printable(table.help)) if part) + "\n"


def _cell(cell: str | float | None) -> str:
    if isinstance(cell, str):
        return printable(" ".join(cell.split())).replace("|", "\\|")
    if cell is None or math.isnan(cell):
        return "–"
    return str(cell) if isinstance(cell, Integral) else f"{cell:.3f}"

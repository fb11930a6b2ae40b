"""Lines over a common axis, in panels side by side."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from emoedit.report.html import printable
from emoedit.types import DataError, MissingExtraError

# Okabe & Ito 2008, "Color Universal Design", without black and yellow, which are too near to text and to white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", ":")


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        lines: name -> (x, y), of one length; a name looks alike in all panels.
        x_label: label of the x axis.
        y_label: as ``x_label``.
        across: heights at which a grey line is drawn, with what is written on it.
    """

    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    x_label: str
    y_label: str
    across: Mapping[str, float] = field(default_factory=dict)


def line_plot(panels: Mapping[str, Panel]) -> str:
    """Panels side by side, by their titles.

    Returns:
        An SVG element (text is text; no date, no links), the same bytes for the same arguments.

    Raises:
        DataError: no line, or one whose x and y differ in length.
        MissingExtraError: matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel.lines))
    if not names:
        raise DataError("a plot needs at least one line")
    for panel in panels.values():
        for name, (x, y) in panel.lines.items():
            if len(x) != len(y):
                raise DataError(f"line {name!r} has {len(x)} places and {len(y)} heights")
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "metrics") from error

    # The user's own settings would change the bytes, and so would the random salt of the ids in the drawing.
    with matplotlib.style.context(["default", {"svg.hashsalt": repr(panels), "svg.fonttype": "none"}]):
        figure = Figure(figsize=(4.2 * len(panels), 3.4))
        figure.set_layout_engine("constrained")
        axes = figure.subplots(1, len(panels), squeeze=False).ravel()
        for ax, (title, panel) in zip(axes, panels.items(), strict=True):
            ax.set_title(printable(title), fontsize=10, parse_math=False)
            ax.grid(color="#e4e4e4", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.spines[["top", "right"]].set_visible(False)
            for label, height in panel.across.items():
                ax.axhline(height, color="#6e6e6e", linewidth=0.9, linestyle="--")
                ax.annotate(
                    printable(label), (1, height), (-2, 2), ("axes fraction", "data"), textcoords="offset points",
                    ha="right", fontsize=7, color="#6e6e6e",
                )  # fmt: skip
            for name, (x, y) in panel.lines.items():
                lap, place = divmod(names.index(name), len(_COLOURS))
                style = _STYLES[lap % len(_STYLES)]
                ax.plot(x, y, color=_COLOURS[place], linestyle=style, linewidth=1.4, label=printable(name))
            ax.set_xlabel(printable(panel.x_label), fontsize=9, parse_math=False)
            ax.set_ylabel(printable(panel.y_label), fontsize=9, parse_math=False)
            ax.tick_params(labelsize=8)
            if len(panel.lines) > 1:
                for text in ax.legend(frameon=False, fontsize=8).get_texts():
                    text.set_parse_math(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    return re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])

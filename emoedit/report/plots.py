"""Target score against identity: the gain of an editor at each strength, and its cost.

An editor is a curve through its strengths; further right and further up is better (the Pareto front of editing, as in
PixelSmile, arXiv 2603.25728).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emoedit.report.html import printable
from emoedit.types import DataError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# Okabe & Ito 2008, "Color Universal Design", without black and yellow, which are too near to text and to white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_GREYS = ("#6e6e6e", "#8f8f8f")
_REFERENCE_MARKERS = "X*hds<>p"
_MOST_ACROSS = 3  # panels


X_LABEL, Y_LABEL = "identity to the source", "target score"


@dataclass(frozen=True)
class Curve:
    """One editor: a point a strength, each with its interval.

    Args:
        name: name of the editor.
        strengths: written beside the points; the line goes through them in this order. None for a point without one.
        x: means over pictures. A point that is NaN in either is left out.
        y: as ``x``.
        x_low: ends of their intervals (bootstrap, say); NaN for none.
        x_high: as ``x_low``.
        y_low: as ``x_low``.
        y_high: as ``x_low``.
        reference: whether it is a reference, drawn grey and dashed.
    """

    name: str
    strengths: Sequence[float | None]
    x: Sequence[float]
    y: Sequence[float]
    x_low: Sequence[float]
    x_high: Sequence[float]
    y_low: Sequence[float]
    y_high: Sequence[float]
    reference: bool = False


def pareto_grid(panels: Mapping[str, Sequence[Curve]], *, title: str) -> str:
    """One panel an emotion, on the same axes, with one legend: a curve of the same name looks alike in all of them.

    Args:
        panels: title of a panel -> its curves.
        title: above all panels; empty for none.

    Returns:
        An SVG element (text is text; no date, no links), the same bytes for the same arguments.

    Raises:
        DataError: no curve, or sequences of one curve that differ in length.
        MissingExtraError: matplotlib is not installed.
    """
    curves = [curve for panel in panels.values() for curve in panel]
    if not curves:
        raise DataError("a plot needs at least one curve")
    for curve in curves:
        _check(curve)
    try:
        return _draw(panels, curves, title)
    except ImportError as error:
        raise MissingExtraError("matplotlib", "metrics") from error


def _draw(panels: Mapping[str, Sequence[Curve]], curves: Sequence[Curve], title: str) -> str:
    import matplotlib.style
    from matplotlib.figure import Figure

    across = 2 if len(panels) == 4 else min(_MOST_ACROSS, len(panels))
    down = -(-len(panels) // across)
    names = list(dict.fromkeys(curve.name for curve in curves))
    looks = _line_styles(curves)
    # The user's own settings would change the bytes, and so would the random salt of the ids in the drawing. One that
    # depends on what is drawn keeps the ids of two drawings on a page apart.
    salt = repr((panels, title, X_LABEL, Y_LABEL))
    with matplotlib.style.context(["default", {"svg.hashsalt": salt, "svg.fonttype": "none"}]):
        width = 6.4 if across == 1 else 3.4 * across
        legend_columns = max(1, min(len(names), int(width / 1.6)))
        legend_rows = -(-len(names) // legend_columns)
        figure = Figure(figsize=(width, (4.4 if across == 1 else 3.0) * down + 0.4 + 0.22 * legend_rows))
        figure.set_layout_engine("constrained")
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        handles: dict[str, Line2D] = {}
        for ax, (heading, panel) in zip(axes, panels.items(), strict=False):
            ax.set_title(printable(heading), fontsize=10, parse_math=False)
            ax.grid(color="#e4e4e4", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.spines[["top", "right"]].set_visible(False)
            for curve in sorted(panel, key=lambda curve: not curve.reference):  # references lie underneath
                handles.setdefault(curve.name, _curve(ax, curve, **looks[curve.name]))
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        for ax in axes[max(0, len(panels) - across) : len(panels)]:
            ax.xaxis.set_tick_params(labelbottom=True)  # also over the empty places of a last row
            ax.set_xlabel(X_LABEL, fontsize=10, parse_math=False)
        for ax in axes[::across]:
            ax.set_ylabel(Y_LABEL, fontsize=10, parse_math=False)
        if title:
            figure.suptitle(printable(title), fontsize=11, fontweight="bold", parse_math=False)
        legend = figure.legend(
            [handles[name] for name in names],
            [printable(name) for name in names],
            loc="outside lower center",
            ncols=legend_columns,
            frameon=False,
            fontsize=9,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # an XML declaration and a DOCTYPE have no place inside a page
    return re.sub(r'<g id="[^"]*"', "<g", svg)  # "axes_1" in every drawing; nothing refers to it


def _check(curve: Curve) -> None:
    fields = ("strengths", "x", "y", "x_low", "x_high", "y_low", "y_high")
    lengths = {field: len(getattr(curve, field)) for field in fields}
    if len(set(lengths.values())) > 1:
        raise DataError(f"curve {curve.name!r}: all of these need one number a point, found {lengths}")


def _line_styles(curves: Sequence[Curve]) -> dict[str, dict[str, str]]:
    """Colour, marker and line of each name; where colours come round again, they do so with other markers."""
    looks: dict[str, dict[str, str]] = {}
    counts = {True: 0, False: 0}
    for curve in curves:
        if curve.name in looks:
            continue
        number = counts[curve.reference]
        counts[curve.reference] += 1
        if curve.reference:
            marker = _REFERENCE_MARKERS[number % len(_REFERENCE_MARKERS)]
            looks[curve.name] = {"colour": _GREYS[number % len(_GREYS)], "marker": marker, "line": "--"}
        else:
            lap, place = divmod(number, len(_COLOURS))
            marker = _MARKERS[(place + lap) % len(_MARKERS)]
            looks[curve.name] = {"colour": _COLOURS[place], "marker": marker, "line": "-"}
    return looks


def _curve(ax: Axes, curve: Curve, *, colour: str, marker: str, line: str) -> Line2D:
    """Line, intervals and strengths of one curve; returns what its legend shows."""
    (handle,) = ax.plot(
        curve.x, curve.y, color=colour, marker=marker, linestyle=line, linewidth=1.4, markersize=5, markeredgewidth=0
    )
    ax.hlines(curve.y, curve.x_low, curve.x_high, color=colour, linewidth=0.9, alpha=0.55)
    ax.vlines(curve.x, curve.y_low, curve.y_high, color=colour, linewidth=0.9, alpha=0.55)
    for strength, x, y in zip(curve.strengths, curve.x, curve.y, strict=True):
        if strength is not None and math.isfinite(x) and math.isfinite(y):
            ax.annotate(
                f"{strength:g}", (x, y), (3.5, 3.5), textcoords="offset points", fontsize=7, color=colour, clip_on=True
            )
    return handle

"""The valence-arousal pad: a point between named emotions, as weights of an editor's emotions.

Named emotions lie at their valence and arousal (`emoedit.emotions`). Between them weights are interpolated by inverse
distances (D. Shepard, "A two-dimensional interpolation function for irregularly-spaced data", ACM 1968), so that a
point on a name gives exactly that emotion's mixture, and the middle, which is neutral, changes nothing.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from emoedit.emotions import get, list_emotions, place, resolve
from emoedit.types import UnknownNameError

POWER = 4  # of the distance: high, so that a point near a name is nearly that emotion
STATIC = Path(__file__).parent / "static"
SHOWN = (  # the names that are written on the pad, chosen so that none covers another
    "happy",
    "excited",
    "surprised",
    "awe",
    "fearful",
    "angry",
    "disgusted",
    "sad",
    "grief",
    "worried",
    "tired",
    "melancholy",
    "serene",
    "content",
    "amused",
    "hopeful",
    "pensive",
)


@dataclass(frozen=True)
class Anchors:
    """Emotions on the plane.

    Args:
        names: A names of the vocabulary.
        points: ``[A, 2]`` valence and arousal, -1 to 1.
        weights: ``[A, E]`` of the editor's emotions.
        emotions: the E names.
    """

    names: tuple[str, ...]
    points: np.ndarray
    weights: np.ndarray
    emotions: tuple[str, ...]


@lru_cache(maxsize=16)
def anchors(emotions: tuple[str, ...]) -> Anchors:
    """The named emotions that an editor can show.

    Args:
        emotions: names of the editor's emotions.
    """
    names, points, rows = [], [], []
    for name in list_emotions():
        try:
            weights = {} if name == "neutral" else resolve(name, emotions)
        except UnknownNameError:
            continue
        entry = get(name)
        names.append(name)
        points.append((entry.valence, entry.arousal))
        rows.append([weights.get(emotion, 0.0) for emotion in emotions])
    return Anchors(tuple(names), np.array(points), np.array(rows), emotions)


def weights_at(valence: float, arousal: float, emotions: Collection[str]) -> dict[str, float]:
    """The weights of a point.

    Args:
        valence: -1 unpleasant to 1 pleasant; what lies outside counts as the edge.
        arousal: -1 sleepy to 1 activated; likewise.
        emotions: names of the editor's emotions.

    Returns:
        A weight for each of them, to two decimals.
    """
    known = anchors(tuple(emotions))
    point = np.clip(np.array([valence, arousal], float), -1, 1)
    distances = np.hypot(*(known.points - point).T)
    exact = distances < 1e-6
    share = exact.astype(float) if exact.any() else distances**-POWER
    weights = share @ known.weights / share.sum()
    return {name: round(float(weight), 2) + 0.0 for name, weight in zip(known.emotions, weights, strict=True)}


def nearest(valence: float, arousal: float, emotions: Collection[str]) -> str:
    """The named emotion closest to a point, for screen readers.

    Args:
        valence: -1 to 1.
        arousal: -1 to 1.
        emotions: names of the editor's emotions.
    """
    known = anchors(tuple(emotions))
    return known.names[int(np.hypot(*(known.points - np.array([valence, arousal])).T).argmin())]


def place_of(weights: Mapping[str, float]) -> tuple[float, float]:
    """Valence and arousal of a mixture: the weighted sum of its emotions', clipped to [-1, 1].

    Args:
        weights: emotion -> weight; names that are not in the vocabulary have no place and do not count.
    """
    known = set(list_emotions())
    valence, arousal = np.clip(place({n: w for n, w in weights.items() if n in known}), -1, 1).round(3) + 0.0
    return float(valence), float(arousal)


def markup() -> str:
    """The pad's HTML. Its script (`static/pad.js`) moves the knob; nothing in it depends on a value."""
    buttons = "".join(
        f'<button type="button" class="pad-name" data-v="{get(name).valence}" data-a="{get(name).arousal}" '
        f'style="left:{50 + 50 * get(name).valence:.1f}%;top:{50 - 50 * get(name).arousal:.1f}%">'
        f"{html.escape(name)}</button>"
        for name in SHOWN
    )
    return (
        '<div class="pad-frame"><span class="pad-axis pad-top">activated</span>'
        '<span class="pad-axis pad-bottom">sleepy</span><span class="pad-axis pad-left">unpleasant</span>'
        '<span class="pad-axis pad-right">pleasant</span>'
        '<div class="pad-plane" tabindex="0" role="application" aria-roledescription="two-dimensional slider" '
        'aria-label="Valence and arousal. Arrow keys move the point; the names on the plane are buttons.">'
        f'<span class="pad-line pad-h"></span><span class="pad-line pad-v"></span>{buttons}'
        '<span class="pad-now" hidden></span><span class="pad-knob"></span></div></div>'
        '<p class="pad-key">Dot: the edit. Dashed ring: what the photograph shows.</p>'
    )


def script() -> str:
    """The pad's JavaScript."""
    return (STATIC / "pad.js").read_text("utf-8")

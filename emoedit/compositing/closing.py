"""Lips brought together over the teeth: what lies above and below the line where they meet moves towards it.

All pixels are the photograph's own; only the shadow in the line is drawn.
"""

from __future__ import annotations

import cv2
import numpy as np

from emoedit.faces.curves import smoothstep
from emoedit.faces.opening import Opening
from emoedit.faces.teeth import MouthGrid
from emoedit.faces.warp import sample

SIDE = 192  # of the crop in which movements are found
# in crop sides: lips are taken from this far above and below the opening; nearer, teeth show in the line between them
MARGIN = 0.008, 0.012
UPPER = 0.4  # share of the distance that the upper lip moves; the lower lip and the chin move the rest
ABOVE, BELOW = 0.11, 0.24  # in crop sides: how far the skin above and below moves with its lip
ENDS = 0.05  # in crop sides: width over which that movement ends beside the corners
SHADOW, LINE, OPEN = 0.7, 0.005, 0.03  # the line's opacity; its width and a whole opening, in crop sides


def closing_flows(opening: Opening, flow: np.ndarray, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Backward flows of what lies above and below the line between the lips.

    Args:
        opening: what shows teeth.
        flow: ``[S, S, 2]`` in pixels of the crop: movement of the face once its lips are together.
        amount: in [0, 1]: how far they are closed.

    Returns:
        ``[S, S, 2]`` each, in pixels of the crop.
    """
    side = len(flow)
    u, v = np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE] * 2)
    top, bottom, line, within = _edges(opening, u)
    flows = []
    for reach, way in ((ABOVE, top - line), (BELOW, bottom - line)):
        down = amount * side * within * way * np.exp(-(((v - line) / reach) ** 2))
        closing = np.zeros_like(flow)
        closing[..., 1] = cv2.resize(down, (side, side), interpolation=cv2.INTER_AREA)
        flows.append(flow + sample(closing, flow))
    return flows[0], flows[1]


def lip_line(opening: Opening, flow: np.ndarray, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the lower lip is shown, and the shadow in the line between the lips: ``[h, w]`` on the mouth grid each.

    Args:
        opening: as in [closing_flows][emoedit.compositing.closing.closing_flows].
        flow: likewise.
        amount: likewise.
    """
    side, grid = len(flow), MouthGrid(len(flow))
    width, height = grid.size
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    moved = grid.enlarge(flow)
    u, v = (
        (grid.to_crop[i, i] * at + grid.to_crop[i, 2] + moved[..., i] + 0.5) / side
        for i, at in ((0, columns), (1, rows))
    )
    top, bottom, line, within = _edges(opening, u)
    soft = 0.3 * LINE
    below = smoothstep(v - line, -soft, soft)
    shade = SHADOW * np.exp(-(((v - line) / LINE) ** 2)) * np.clip(amount * (bottom - top) / OPEN, 0, 1) * (within == 1)
    return below.astype(np.float32), shade.astype(np.float32)


def _edges(opening: Opening, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At columns ``u``: upper and lower edge of the opening, the line where lips meet, and a weight in [0, 1]."""
    top, bottom = np.interp(u, opening.x, opening.top), np.interp(u, opening.x, opening.bottom)
    within = np.clip((bottom - top) / OPEN, 0, 1)  # near the corners lips are thin, and no teeth are between them
    top, bottom = top - MARGIN[0] * within, bottom + MARGIN[1] * within
    outside = np.maximum(np.maximum(opening.x[0] - u, u - opening.x[-1]), 0)
    middle = np.polyfit(opening.x, opening.top + UPPER * (opening.bottom - opening.top), 2)
    line = np.clip(np.polyval(middle, np.clip(u, opening.x[0], opening.x[-1])), top, bottom)
    return top, bottom, line, np.clip(1 - outside / ENDS, 0, 1)

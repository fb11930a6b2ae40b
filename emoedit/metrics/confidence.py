"""The face detector's confidence after an edit."""

from __future__ import annotations

from emoedit.metrics.measure import Measure

CONFIDENCE = Measure(
    "confidence",
    "face sure",
    2,
    True,
    "1",
    "the detector's probability that this is a face, 0 to 1",
    lambda views: [view.confidence for view in views.edits],
    shown_in="summary",
)

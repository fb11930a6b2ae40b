"""Which of a face's 68 landmarks are where: iBUG's layout (Sagonas et al. 2013, 300 Faces in-the-Wild).

0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 lips; what lies left in the picture comes first.
"""

from __future__ import annotations

POINTS = 68
JAW = slice(0, 17)
BROWS = (slice(17, 22), slice(22, 27))
EYES = (slice(36, 42), slice(42, 48))
LIPS, OUTER, INNER = slice(48, 68), slice(48, 60), slice(60, 68)  # lips: around both, and around what is between them
CORNERS = (48, 54)
UPPER_EDGE, LOWER_EDGE = [60, 61, 62, 63, 64], [60, 67, 66, 65, 64]  # inner ones, from one corner to the other
UPPER, LOWER = [*range(48, 55), *UPPER_EDGE], [*range(54, 60), 48, *LOWER_EDGE]
UPPER_MIDDLE, LOWER_MIDDLE = [50, 51, 52], [56, 57, 58]  # outer ones of both lips
PAIRS = ((61, 67), (62, 66), (63, 65))  # upper and lower inner lip, one above the other

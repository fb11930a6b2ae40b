"""Reproduce one number of docs/benchmark.md: how often the default editor's smile is read as happy.

    EMOEDIT_DATA=/path/to/data python experiments/example.py

Takes about two minutes on two CPU cores.
"""

import os
from pathlib import Path

import numpy as np

import emoedit
from emoedit.evaluation.cases import read_cases
from emoedit.metrics.suite import Suite

# Face Research Lab London Set, DeBruine & Jones 2017, CC BY 4.0
LONDON = Path(os.environ["EMOEDIT_DATA"], "london-pairs")

photos = emoedit.PhotoEditor("stylegan")
suite = Suite(identity="embedded", perceptual="embedded", expression="embedded")
scores = []
for case in read_cases(LONDON, split="test")[:15]:  # held-out people
    opened = photos.open(case.photo)
    subject = suite.subject(opened.picture.rgb, opened.faces[0])
    (edited,) = photos.edit(opened, [emoedit.Edit("happy", 1.0)])
    (row,) = suite.measure(subject, [np.asarray(edited.image.convert("RGB"))], ["happy"])
    scores.append((row["target_score"], row["identity"]))
target, identity = np.mean(scores, 0)
print(f"{len(scores)} people: target score {target:.2f}, identity {identity:.2f}")  # .75 and .89

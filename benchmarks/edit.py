"""What one warm edit of a photograph costs, and what one inversion for many edits saves. Ratios come from one run.

python -m benchmarks.edit [--editor stylegan] [--size 768]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from skimage.data import astronaut

from emoedit.photo import PhotoEditor
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import Edit


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Median time of a call, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=768, help="side of the photograph in pixels")
    parser.add_argument("--editor", default=DEFAULT_EDITOR, help="default: %(default)s")
    args = parser.parse_args()
    size = args.size
    photo = np.asarray(Image.fromarray(astronaut()).resize((size, size), Image.Resampling.LANCZOS))
    start = time.perf_counter()
    photos = PhotoEditor(args.editor)
    load = time.perf_counter() - start
    many = [
        Edit(name, s) for name in ("happy", "sad", "angry", "surprised", "fearful") for s in (0.5, 0.75, 1, 1.25, 1.5)
    ]
    opened = photos.open(photo)
    one = seconds(lambda: list(photos.edit(photos.open(photo), [Edit("happy")])))
    detect = seconds(lambda: photos.detector(photo))
    invert = seconds(lambda: photos.editor.invert(opened.inversion.extras["source"]))
    paste = seconds(lambda: list(photos.edit(opened, [Edit("happy")])))
    together = seconds(lambda: list(photos.edit(photos.open(photo), many)), 2)
    apart = seconds(lambda: [list(photos.edit(photos.open(photo), [e])) for e in many], 1)
    print(f"photograph {size} px; loading the editor, with its imports' first use: {load:.2f} s")
    print(f"one warm edit: {one:.3f} s = detect {detect:.3f} + invert {invert:.3f} + decode and composite {paste:.3f}")
    print(f"{len(many)} edits, one inversion: {together:.2f} s; {len(many)} separate edits: {apart:.2f} s")
    print(f"ratio: {apart / together:.1f} times faster together")


if __name__ == "__main__":
    main()

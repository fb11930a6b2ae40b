"""Makes the golden pictures anew, and a page that shows what changed.

    python tests/golden/make.py [--page outputs/golden.html]

Look at the page before the pictures are committed: a picture that changed without a reason is a fault.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.golden.cases import CASES, Difference, golden, path, pictures

HEAD = """<!doctype html><meta charset="utf-8"><title>Golden pictures</title>
<style>body{font:14px sans-serif;margin:2em}figure{display:inline-block;margin:.5em}figcaption{max-width:400px}</style>
<h1>Golden pictures: before and after</h1>
"""


def embedded(picture: np.ndarray) -> str:
    """An img element that holds the picture."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "webp", lossless=True)
    return f'<img alt="" src="data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def main() -> None:
    """Make all of them, and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=Path("outputs/golden.html"), help="where the page goes")
    page = parser.parse_args().page
    changed: list[tuple[float, str]] = []
    kept, names = 0, set()
    for case in CASES:
        for name, picture in pictures(case):
            names.add(name)
            before = golden(name) if path(name).is_file() else None
            if before is not None and np.array_equal(before, picture):
                kept += 1
                continue
            path(name).parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(path(name), "webp", lossless=True, method=6)
            how, old = "new", ""
            mean = float("inf")
            if before is not None:
                found = Difference.between(before, picture)
                mean, old = found.mean, embedded(before)
                how = f"CIEDE2000 {found.mean:.2f}, 99th percentile {found.high:.1f}, similarity {found.similar:.3f}"
            figure = f"<figure>{old}{embedded(picture)}<figcaption>{name}: {how}</figcaption></figure>"
            changed.append((mean, figure))
            print(f"{name}: {how}")
    for file in path("x").parent.glob("*.webp"):
        if file.stem not in names:
            file.unlink()
            print(f"{file.stem}: no longer a case")
    page.parent.mkdir(parents=True, exist_ok=True)
    rows = "\n".join(figure for _, figure in sorted(changed, key=lambda each: -each[0]))
    page.write_text(f"{HEAD}<p>{len(changed)} changed, most changed first; {kept} as they were.</p>\n{rows}\n")
    print(f"{len(changed)} changed, {kept} as they were; see {page}")


if __name__ == "__main__":
    main()

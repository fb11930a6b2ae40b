"""Fuzzing that is guided by coverage: files that reach code which none before reached are changed further.

    pip install atheris
    python benchmarks/coverage_fuzzing.py pictures --minutes 10
    python benchmarks/coverage_fuzzing.py weights --minutes 10 --corpus corpus/

Any error but a typed refusal ends the run with a traceback, the input in ``--findings`` and an exit status above 0; it
is to be kept as a case of ``tests/fuzz``. ``tests/fuzz`` itself needs no atheris, whose builds are for Linux and macOS
and for some versions of Python only.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["emoedit.io", "emoedit.types"]):
    from emoedit.io import checkpoints
    from emoedit.io.arrays import read_array
    from emoedit.io.images import load_picture
    from emoedit.io.metadata import clean_xmp, mark_edited, read_source_type
    from emoedit.io.pickles import PickleError, read_pickle
    from emoedit.io.results import Results
    from emoedit.io.weights import read_torch
    from emoedit.types import CheckpointError, DataError, ImageError

from tests.fixtures import damage  # noqa: E402

MAX_PIXELS = 1_000_000
LONGEST = 8192  # bytes of an input


def pictures(data: bytes, _: Path) -> None:
    """``load_picture``, of whatever format."""
    try:
        picture = load_picture(data, max_pixels=MAX_PIXELS)
    except ImageError:
        return
    assert picture.rgb.ndim == 3 and picture.rgb.shape[2] == 3 and picture.rgb[..., 0].size <= MAX_PIXELS


def weights(data: bytes, folder: Path) -> None:
    """Every reader of weights; the first byte says which."""
    kind, data = data[:1], data[1:]
    path = folder / "file.safetensors"
    try:
        if kind == b"p":
            read_pickle(io.BytesIO(data), {})
        elif kind == b"t":
            read_torch(data)
        else:
            path = folder / checkpoints.CONFIG if kind == b"j" else path
            path.write_bytes(data)
            read = {b"j": checkpoints.read_json, b"n": read_array}.get(kind, checkpoints.read_weights)
            read(path)
    except (CheckpointError, PickleError):
        return


def texts(data: bytes, folder: Path) -> None:
    """XMP packets and files of results."""
    read_source_type(data)
    assert read_source_type(mark_edited(clean_xmp(data, "x"))) is not None
    path = folder / "results.jsonl"
    path.write_bytes(data)
    try:
        with Results(path) as kept:
            kept.found()
    except DataError:
        return


KINDS = {"torch": b"t", "torch old": b"t", "safetensors": b"s", "npy": b"n", "pickle": b"p", "json": b"j"}
TARGETS: dict[str, tuple[Callable[[bytes, Path], None], Callable[[], list[bytes]]]] = {
    "pictures": (pictures, lambda: list(damage.pictures().values())),
    "weights": (weights, lambda: [KINDS[name] + data for name, data in damage.weights().items()]),
    "texts": (texts, lambda: [damage.XMP, *damage.results().values()]),
}


def main() -> int:
    """Until the time is over, or something is found; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--runs", type=int, default=-1, help="inputs at most; default: as many as the time allows")
    parser.add_argument("--corpus", type=Path, help="folder of inputs that is begun with and added to; default: none")
    parser.add_argument("--findings", type=Path, default=Path("."), help="folder for what is found")
    args = parser.parse_args()
    target, sound = TARGETS[args.target]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        corpus, seeds, work = args.corpus or Path(name) / "corpus", Path(name) / "seeds", Path(name) / "work"
        for folder in (corpus, seeds, work, args.findings):
            folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(sound()):
            (seeds / str(number)).write_bytes(data)
        limits = [f"-max_total_time={int(60 * args.minutes)}", f"-runs={args.runs}", f"-max_len={LONGEST}"]
        limits += ["-timeout=30", "-rss_limit_mb=4096", f"-artifact_prefix={args.findings}/"]
        child = os.fork()  # libFuzzer ends its process without a word to Python, and the folder would stay
        if child == 0:
            atheris.Setup([sys.argv[0], str(corpus), str(seeds), *limits], lambda data: target(data, work))
            atheris.Fuzz()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())

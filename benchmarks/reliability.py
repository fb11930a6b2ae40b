"""The long run behind docs/reliability.md: fuzzing, runs that are killed, memory over many photographs.

    python benchmarks/reliability.py --fuzz-minutes 60 --kills 50 --photos 1000

Writes docs/reliability.md. Exit status 1 where anything was found; what fuzzing found is printed with the input that
shows it, to be kept as an ``@example`` of its test.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
EDIT = "emoedit edit --emotion happy sad --strength 0.5 1"


@dataclass
class Fuzzed:
    """What fuzzing came to.

    Args:
        seconds: it ran.
        counts: test and outcome -> inputs.
        failures: the end of what each failed round said.
    """

    seconds: float = 0.0
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)


@dataclass
class Killed:
    """What came of runs that were killed.

    Args:
        killed: runs that ended by the signal.
        finished: runs that were done before it came.
        seen: pictures that were there after a run, all runs together.
        broken: pictures that were there and could not be read.
        lost: pictures that a later run without a kill did not bring.
        litter: files under temporary names that were left.
    """

    killed: int = 0
    finished: int = 0
    seen: int = 0
    broken: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    litter: int = 0


def fuzz(minutes: float, examples: int) -> Fuzzed:
    """Rounds of tests/fuzz with new seeds until the time is over."""
    found, start, seed = Fuzzed(), time.monotonic(), random.SystemRandom().randrange(2**31)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "counts.json"
        environment = {
            **os.environ,
            "EMOEDIT_FUZZ_PROFILE": "long",
            "EMOEDIT_FUZZ_EXAMPLES": str(examples),
            "EMOEDIT_FUZZ_REPORT": str(report),
            "OMP_NUM_THREADS": "1",
        }
        while time.monotonic() - start < 60 * minutes:
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:xdist",
                "-o",
                "addopts=",
                f"--hypothesis-seed={seed}",
            ]
            done = subprocess.run(
                [*command, f"--hypothesis-seed={seed}", f"--basetemp={folder}/tests", "tests/fuzz"],
                cwd=ROOT, env=environment, capture_output=True, text=True,
            )  # fmt: skip
            if report.is_file():
                found.counts.update(json.loads(report.read_text("utf-8")))
            if done.returncode:
                found.failures.append(f"seed {seed}:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")
            seed += 1
    found.seconds = time.monotonic() - start
    return found


def photographs(folder: Path, count: int) -> list[Path]:
    """The portrait of the demo at different sizes and crops, as JPEG."""
    from skimage.data import astronaut

    picture, paths, rng = Image.fromarray(astronaut()), [], random.Random(0)
    for number in range(count):
        left, top = rng.randrange(0, 100), rng.randrange(0, 30)
        side = rng.randrange(320, 1200)
        cut = picture.crop((left, top, left + 400, top + 400)).resize((side, side))
        paths.append(folder / f"photo{number}.jpg")
        cut.save(paths[-1], quality=90)
    return paths


def kill(times: int, photos: int = 4) -> Killed:
    """Edits of photographs, killed at random moments, and one run to the end."""
    from emoedit.io.images import load_picture
    from emoedit.types import ImageError

    found, rng = Killed(), random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, output = photographs(folder, photos), folder / "edits"
        command = [sys.executable, "-m", *EDIT.split(), "--output", f"{output}/"]
        command[4:4] = map(str, paths)  # photos come before --emotion
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        start = time.monotonic()
        subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True)
        longest = time.monotonic() - start  # a whole run, so that the signal comes anywhere in it
        for attempt in range(times):
            with subprocess.Popen([*command, "--overwrite"], env=environment, stderr=subprocess.DEVNULL) as run:
                try:
                    run.wait(rng.uniform(0.1, 1.1) * longest)
                except subprocess.TimeoutExpired:
                    run.kill()
            if run.returncode == -9:
                found.killed += 1
            else:
                found.finished += 1
            for path in output.glob("*.png"):
                found.seen += 1
                try:
                    load_picture(path)
                except ImageError as error:
                    found.broken.append(str(error))
            if attempt % 2:
                for path in output.glob("*.png"):
                    path.unlink()
        subprocess.run([*command, "--overwrite"], env=environment, stderr=subprocess.DEVNULL, check=False)
        wanted = {f"{p.stem}_{e}{s}.png" for p in paths for e in ("happy", "sad") for s in ("", "_0.5")}
        found.lost = sorted(wanted - {path.name for path in output.glob("*.png")})
        found.litter = len(list(output.glob(".emoedit-*.tmp")))
    return found


def memory(photos: int) -> list[tuple[int, float]]:
    """Photographs edited, and megabytes in memory after them."""
    import emoedit

    def resident() -> float:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    rows, editor = [], emoedit.PhotoEditor()
    with tempfile.TemporaryDirectory() as name:
        paths = photographs(Path(name), 40)
        for number in range(photos):
            opened = editor.open(paths[number * 7 % len(paths)])
            for result in editor.edit(opened, [emoedit.Edit("happy")]):
                result.save(Path(name) / "edited.png", overwrite=True)
            if number in (9, 19) or number % max(1, photos // 10) == max(1, photos // 10) - 1:
                rows.append((number + 1, resident()))
    return rows


def table_of(fuzzed: Fuzzed) -> list[str]:
    """What became of the inputs of each test."""
    rows = ["| test | inputs | of them refused by a typed error |", "|---|---|---|"]
    for test in sorted({name.partition(": ")[0] for name in fuzzed.counts}):
        outcomes = {n.partition(": ")[2]: count for n, count in fuzzed.counts.items() if n.startswith(f"{test}: ")}
        rows.append(f"| `{test}` | {sum(outcomes.values()):,} | {outcomes.get('refused', 0):,} |")
    return rows


def page(fuzzed: Fuzzed, killed: Killed, rows: list[tuple[int, float]]) -> str:
    """docs/reliability.md."""
    count, minutes = sum(fuzzed.counts.values()), fuzzed.seconds / 60
    raw = f"{len(fuzzed.failures)} rounds failed" if fuzzed.failures else "No round failed: no other error came out"
    machine = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"
    paragraphs = [
        "Written by `benchmarks/reliability.py`, which says how each number is measured. What is promised stands in "
        "`SECURITY.md`. Every run of the tests repeats a few seconds of it (`tests/fuzz`, `tests/io`, "
        f"`tests/test_server.py`). This run: {machine}, shared with other work.",
        "## Damaged and hostile input",
        f"{count:,} inputs in {minutes:.0f} minutes of one process, made by Hypothesis: small sound files of every "
        "kind with bytes changed, cut, doubled and put in, programs of random pickle instructions, command lines, "
        f"expressions, descriptions of networks. {raw}.",
        "\n".join(table_of(fuzzed)),
        "## Runs that are killed",
        f"`{EDIT}` of four photographs, ended by `kill -9` at random moments: {killed.killed} runs were killed and "
        f"{killed.finished} were done before. Of {killed.seen} pictures that were there {len(killed.broken)} "
        f"could not be read; a last run without a kill left {len(killed.lost)} missing. Files under temporary names "
        f"(`.emoedit-*.tmp`) that a killed process could not remove: {killed.litter}; they can be deleted.",
        "## Memory",
        "One `PhotoEditor` with the default editor, photographs of 320 to 1,200 pixels in turn:",
        "\n".join(
            ["| photographs edited | MB in memory |", "|---|---|", *(f"| {n:,} | {mb:,.0f} |" for n, mb in rows)]
        ),
    ]
    wrapped = [text if text[0] in "#|" else textwrap.fill(text, 118, break_long_words=False) for text in paragraphs]
    return "\n\n".join(["# Reliability", *wrapped]) + "\n"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz-minutes", type=float, default=60)
    parser.add_argument("--fuzz-examples", type=int, default=2000, help="inputs of each test in a round")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "reliability.md")
    args = parser.parse_args()
    fuzzed = fuzz(args.fuzz_minutes, args.fuzz_examples)
    for failure in fuzzed.failures:
        print(failure)
    killed, rows = kill(args.kills), memory(args.photos)
    args.output.write_text(page(fuzzed, killed, rows), encoding="utf-8")
    print(f"wrote {args.output}")
    return 1 if fuzzed.failures or killed.broken or killed.lost else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())

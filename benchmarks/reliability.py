"""The long run behind docs/reliability.md: fuzzing, runs that a signal ends, memory over many photographs.

    python benchmarks/reliability.py --fuzz-minutes 60 --kills 50 --photos 1000

The three parts run at the same time. Writes docs/reliability.md. Exit status 1 where
anything was found; what fuzzing found is printed with the input that shows it, to be kept as an ``@example`` of its
test.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from emoedit.io.output import write_json  # noqa: E402
from tests.fixtures import kills  # noqa: E402
from tests.fixtures.kills import Outcome, photographs  # noqa: E402

PHOTOS = 2  # that a run edits which a signal ends
COMMANDS = {
    "edit": "`emoedit edit`, two emotions at two strengths",
    "evaluate": "`emoedit evaluate`, the same",
    "sweep": "`experiments/sweep.py`, the same in two shards, with pictures",
    "train": "learning a token, 100 steps, its state saved every second one",
}


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
class Ended:
    """Runs of a command that a signal ended.

    Args:
        command: of ``COMMANDS``.
        how: name of the signal.
        outcome: what came of them.
    """

    command: str
    how: str
    outcome: Outcome


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """What a file of JSON holds; made and written first where it is not there."""
    if not file.is_file():
        write_json(file, make())
    return json.loads(file.read_text("utf-8"))


def fuzz(minutes: float, examples: int, work: Path) -> Fuzzed:
    """Rounds of tests/fuzz with new seeds until the time is over; what came of them is kept after every round."""
    found, file = Fuzzed(), work / "fuzzed.json"
    if file.is_file():
        found = Fuzzed(**json.loads(file.read_text("utf-8")))
        found.counts = collections.Counter(found.counts)
    before, start, seed = found.seconds, time.monotonic(), random.SystemRandom().randrange(2**31)
    while found.seconds < 60 * minutes:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "counts.json"
            long = {"EMOEDIT_FUZZ_PROFILE": "long", "EMOEDIT_FUZZ_EXAMPLES": str(examples)}
            options = ["-q", "--tb=short", "-p", "no:logging", "-p", "no:xdist", "-o", "addopts="]
            options += [f"--hypothesis-seed={seed}", f"--basetemp={folder}/tests", "tests/fuzz"]
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options],
                env={**os.environ, **long, "EMOEDIT_FUZZ_REPORT": str(report), "OMP_NUM_THREADS": "1"},
                cwd=ROOT, capture_output=True, text=True,
            )  # fmt: skip
            if report.is_file():
                found.counts.update(json.loads(report.read_text("utf-8")))
        if done.returncode:
            found.failures.append(f"seed {seed}:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")
            print(found.failures[-1], flush=True)
        seed += 1
        found.seconds = before + time.monotonic() - start
        write_json(file, {**vars(found), "counts": dict(found.counts)}, overwrite=True)
    return found


def ended(kill: int, terminate: int, work: Path) -> list[Ended]:
    """Every command, ended by ``kill -9`` and by SIGTERM."""
    found = []
    for how, times in ((signal.SIGKILL, kill), (signal.SIGTERM, terminate)):
        for command in COMMANDS:
            made = kept(work / f"{command}-{how.name}.json", partial(ended_runs, command, how, times))
            found.append(Ended(command, how.name, Outcome(**made)))
            print(f"{command}: {how.name}: {found[-1].outcome}", flush=True)
    return found


def ended_runs(command: str, how: signal.Signals, times: int) -> dict[str, Any]:
    """What came of runs of one command under one signal."""
    with tempfile.TemporaryDirectory() as name, kills.Forks() as forks:
        folder = Path(name)
        photos = photographs(folder, PHOTOS, (320, 480))
        case = kills.training(folder) if command == "train" else getattr(kills, command)(folder, photos)
        return asdict(kills.interrupt(case, times, how, forks=forks))


def memory(photos: int, work: Path) -> list[tuple[int, float]]:
    """Photographs edited, and megabytes in memory after them."""
    return [(count, megabytes) for count, megabytes in kept(work / "memory.json", partial(memory_rows, photos))]


def memory_rows(photos: int) -> list[tuple[int, float]]:
    """The same, measured."""
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


def table_of_ends(ends: Sequence[Ended]) -> list[str]:
    """What came of each command under each signal."""
    rows = ["| command | signal | ended by it | done before | files read | half-written | lost or other | temporary |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for each in ends:
        o = each.outcome
        counts = (o.ended, o.finished, f"{o.seen:,}", len(o.broken), len(o.lost), o.litter)
        rows.append(f"| {COMMANDS[each.command]} | {each.how} | {' | '.join(map(str, counts))} |")
    return rows


def page(fuzzed: Fuzzed, ends: Sequence[Ended], rows: list[tuple[int, float]]) -> str:
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
        f"expressions, descriptions of networks, requests to the app. {raw}.",
        "\n".join(table_of(fuzzed)),
        "## Runs that are ended",
        f"Photographs, {PHOTOS} a run. Each run is the fork of a process that has imported torch and others. The "
        "signal comes at a random moment between its start and a little after its end; the same command then goes on "
        "with what is there. After each run every file is read: pictures, rows, tables, states, weights. Rows that "
        "were there once have to stay. A run that is done has to have the results of one that nothing ended: the "
        "same pictures and the same learned token to the byte, every cell of an evaluation and of a sweep once.",
        "A process that is killed cannot remove its temporary files (`.emoedit-*.tmp`, `*.part`); these can be "
        "deleted, and no run reads them.",
        "\n".join(table_of_ends(ends)),
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
    parser.add_argument("--fuzz-examples", type=int, default=500, help="inputs of each test in a round")
    parser.add_argument("--kills", type=int, default=50, help="runs of each command that kill -9 ends")
    parser.add_argument("--terms", type=int, default=20, help="runs of each command that SIGTERM ends")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "reliability.md")
    parser.add_argument("--work", type=Path, help="folder that keeps what is done, so that the same command goes on")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return write_report(args, args.work or Path(name))


def write_report(args: argparse.Namespace, work: Path) -> int:
    """The exit status."""
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(1) as thread, ProcessPoolExecutor(1, spawn) as process:
        fuzzing = thread.submit(fuzz, args.fuzz_minutes, args.fuzz_examples, work)
        remembering = process.submit(memory, args.photos, work)
        ends = ended(args.kills, args.terms, work)
        rows, fuzzed = remembering.result(), fuzzing.result()
    args.output.write_text(page(fuzzed, ends, rows), encoding="utf-8")
    print(f"wrote {args.output}")
    found = [*fuzzed.failures, *(text for each in ends for text in (*each.outcome.broken, *each.outcome.lost))]
    for text in found:
        print(text)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

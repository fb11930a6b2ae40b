"""What a sweep found: its jobs put together into tables, plots and a page, and how far it is.

    python experiments/report.py outputs/sweep      # writes outputs/sweep/report/DATA/report.html and more

Also while the sweep is running.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from emoedit.types import EmoEditError


def line(state: dict) -> str:
    """How far a job is, in words."""
    left = state["left"]
    when = "" if not left else f", {left / 60:.0f} min left" if left > 90 else f", {left:.0f} s left"
    failed = f", {state['failed']} failed" if state["failed"] else ""
    return f"{state['job']}: {state['done']} of {state['cells']} cells{failed}{when}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="FOLDER", help="the sweep's output")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write; default: FOLDER/report")
    parser.add_argument(
        "--photographs", type=int, default=6, metavar="N", help="of how many to show the edits, where they were kept"
    )
    args = parser.parse_args(argv)
    if not args.sweep.is_dir():  # said before anything that takes seconds to import
        print(f"report: error: {args.sweep}: there is no such folder", file=sys.stderr)
        return 1
    from emoedit.evaluation.merging import find_parts, job_states, write_merged

    try:
        for state in job_states(find_parts(args.sweep)):
            print(line(state))
        for place in write_merged(args.sweep, args.output or args.sweep / "report", photographs=args.photographs):
            print(f"wrote {place / 'report.html'}")
    except EmoEditError as error:
        print(f"report: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

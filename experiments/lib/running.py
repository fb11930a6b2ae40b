"""How a script starts Hydra."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def run(main: Callable[[], object]) -> None:
    """Run a function that ``hydra.main`` made.

    From Python 3.14 on, argparse looks into each text of help when its argument is added. One of Hydra 1.3's is no text
    but an object that makes it when it is printed, and argparse refuses it: the check is skipped for such objects.

    Args:
        main: the function.
    """
    check = getattr(argparse.ArgumentParser, "_check_help", None)
    if check is not None:

        def check_text(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
            if isinstance(action.help, str):
                check(parser, action)

        argparse.ArgumentParser._check_help = check_text  # type: ignore[attr-defined]
    main()

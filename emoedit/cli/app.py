"""``emoedit app``: the page in a browser."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib.util import find_spec

from emoedit.cli.common import CommandParser, UsageError, add_device, describe, load, say, usage
from emoedit.cli.model_options import add_compute_options, add_model_options
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import MissingExtraError


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Adds the command and its options to ``commands``."""
    parser = commands.add_parser(
        "app",
        help="edit in the browser",
        description="Serve a page on this machine on which photographs are edited with sliders. Nothing leaves the "
        "machine, and nothing is kept when the page is closed. Ctrl-C stops it.",
        editors=True,
    )
    parser.add_argument(
        "--editor",
        default=DEFAULT_EDITOR,
        metavar="NAME",
        help="that is chosen at first: an embedded editor (listed below), a full-size one, a folder or file of a "
        "model, or OWNER/NAME on the hub; default: %(default)s",
    )
    parser.add_argument("--port", type=_port, default=7860, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on; default: %(default)s, this machine only"
    )
    parser.add_argument(
        "--auth", metavar="USER:FILE", help="ask for this name and for the password on the first line of the file"
    )
    parser.add_argument(
        "--i-know", action="store_true", help="with --host: whoever reaches the port may use it, without a password"
    )
    parser.add_argument("--browser", action="store_true", help="open the page in the system's browser")
    add_model_options(parser)
    add_device(parser)
    add_compute_options(parser)
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, not {text!r}")


def run(args: argparse.Namespace) -> int:
    """The exit status.

    Args:
        args: the parsed options.

    Raises:
        MissingExtraError: gradio is not installed.
        UsageError: options that make no sense.
    """
    from emoedit.app.privacy import Access, HostError, check_host, check_port, read_auth
    from emoedit.full_size import Request

    with usage():
        request, name, _ = describe(args.editor, args)
    try:
        auth = read_auth(args.auth) if args.auth is not None else None
        check_host(args.host, auth, args.i_know)
    except HostError as error:
        raise UsageError(str(error)) from error
    if find_spec("gradio") is None:
        raise MissingExtraError("gradio", "app")
    check_port(args.host, args.port)
    say("emoedit: loading the models")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder of pictures goes then, too
    from emoedit.app.launch import launch
    from emoedit.app.studio import OwnEditor
    from emoedit.io.checkpoints import editor_names

    embedded = args.editor in editor_names() and request == Request(args.editor)
    launch(
        editor=args.editor if embedded else name,
        own=None if embedded else OwnEditor(name, lambda: load(request, args)),
        access=Access(args.host, args.port, auth, args.i_know),
        device=args.device,
        browser=args.browser,
        ready=lambda address: say(f"open {address} in a browser; Ctrl-C stops it"),
    )
    return 0

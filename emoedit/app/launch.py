"""Starts the page: who may connect, where files lie, and only then gradio, which makes a folder when it is imported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from emoedit.app.privacy import check_host, check_port, password_check, private_folder
from emoedit.app.studio import OwnEditor
from emoedit.registry import DEFAULT_EDITOR


def launch(
    *,
    editor: str = DEFAULT_EDITOR,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, Path] | None = None,
    allow_anybody: bool = False,
    device: str = "auto",
    own: OwnEditor | None = None,
    browser: bool = False,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        editor: name of the editor that is selected at first.
        host: address to listen on.
        port: port to listen on.
        auth: user and password file, where the page asks for them.
        allow_anybody: whether the caller knows that anybody who reaches the port can use it.
        device: device of the models.
        own: an editor beside the embedded ones.
        browser: whether to open the page in the system's browser.
        ready: called with the address when the page can be opened.
        stop: stops the server when it is set; None to serve until Ctrl-C.

    Raises:
        HostError: an address that others can reach, without `auth` or `allow_anybody`; a password file
            that cannot be used.
        UnknownNameError: no such editor.
        CheckpointError: damaged weights.
        OutputError: the port is taken.
    """
    check_host(host, auth, allow_anybody)
    check_port(host, port)
    check = password_check(*auth) if auth is not None else None
    with private_folder() as folder:
        from emoedit.app.server import serve

        serve(
            folder,
            editor=editor,
            host=host,
            port=port,
            check=check,
            device=device,
            own=own,
            browser=browser,
            ready=ready,
            stop=stop,
        )

"""Starts the page: who may connect, where files lie, and only then gradio, which makes a folder when it is imported."""

from __future__ import annotations

import threading
from collections.abc import Callable

from emoedit.app.privacy import THIS_MACHINE, Access, check_host, check_port, password_check, private_folder
from emoedit.app.studio import OwnEditor, Studio
from emoedit.registry import DEFAULT_EDITOR


def launch(
    *,
    access: Access = THIS_MACHINE,
    editor: str = DEFAULT_EDITOR,
    device: str = "auto",
    own: OwnEditor | None = None,
    browser: bool = False,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        access: where the page listens, and who may use it.
        editor: name of the editor that is selected at first.
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
    check_host(access.host, access.auth, access.allow_anybody)
    check_port(access.host, access.port)
    check = password_check(*access.auth) if access.auth is not None else None
    with private_folder() as folder:
        from emoedit.app.server import serve

        studio = Studio(folder / "sessions", device=device, own=own)
        serve(studio, access, check, editor=editor, browser=browser, ready=ready, stop=stop)

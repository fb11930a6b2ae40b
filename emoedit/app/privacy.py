"""Keeps photographs on this machine: a temporary folder, no calls to other machines, and access control."""

from __future__ import annotations

import hmac
import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoedit.types import EmoEditError, OutputError

MAX_UPLOAD = "40mb"
PREFIX = "emoedit-app-"  # of folders in the system's temporary one, followed by the process

Scope = dict[str, Any]
Handler = Callable[..., Awaitable[Any]]


class HostError(EmoEditError, ValueError):
    """An address that others can reach without access control; or a password file that cannot be used."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Args:
        host: a name or an IP address.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """Where the page listens, and who may use it.

    Args:
        host: address to listen on.
        port: port to listen on.
        auth: user and password file, where the page asks for them.
        allow_anybody: whether the caller knows that anybody who reaches the port can use it.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth: tuple[str, Path] | None = None
    allow_anybody: bool = False


THIS_MACHINE = Access()


def check_host(host: str, auth: tuple[str, Path] | None, allow_anybody: bool) -> None:
    """Refuse an address that others can reach where neither a password is set nor the caller says that this is meant.

    Args:
        host: address to listen on.
        auth: user and password file.
        allow_anybody: whether the caller knows that anybody who reaches the port can use it.

    Raises:
        HostError: it is refused.
    """
    if not is_loopback(host) and auth is None and not allow_anybody:
        raise HostError(
            f"others can reach {host}: give --auth USER:FILE (a file with the password), or --i-know if everybody who "
            "reaches the port may use it; the page is not encrypted, so put a TLS proxy in front of it"
        )


def check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be listened on, before models are loaded.

    Args:
        host: address to listen on.
        port: port to listen on.

    Raises:
        OutputError: it is taken, or not allowed; or no such address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        why = error.strerror or error
        raise OutputError(f"port {port} of {host} cannot be used: {why}; choose another with --port") from error


def read_auth(text: str) -> tuple[str, Path]:
    """User and password file of ``USER:FILE``.

    Args:
        text: as it was given.

    Raises:
        HostError: another form.
    """
    user, colon, path = text.partition(":")
    if not (user and colon and path):
        raise HostError(f"--auth takes USER:FILE, a name and a file that holds the password, not {text!r}")
    return user, Path(path).expanduser()


def password_check(user: str, path: Path) -> Callable[[str, str], bool]:
    """The check of a user and a password.

    Args:
        user: the only one.
        path: path of a file whose first line is the password.

    Raises:
        HostError: the file cannot be read, or holds no password.
    """
    try:
        password = path.read_text("utf-8").splitlines()[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"the password file {path} cannot be read: {error}") from error
    except IndexError:
        password = ""
    if not password:
        raise HostError(f"the password file {path} is empty: write the password on its first line")

    def check(given_user: str, given_password: str) -> bool:
        same_user = hmac.compare_digest(given_user.encode(), user.encode())
        return hmac.compare_digest(given_password.encode(), password.encode()) and same_user

    return check


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can read, for uploads and results; it is deleted in the end.

    While it is there, gradio is told to keep its files in it, and to send nothing to other machines. Folders of apps
    that were killed before they could delete theirs go as well.
    """
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))  # mode 0700
    told = {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),  # PyTorch makes one, although nothing is compiled
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield folder
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Delete this user's folders of processes that are no longer there."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not number.isdecimal() or folder.is_symlink() or not _is_own(folder):
            continue
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another user's process has that number: whether the app still runs is unknown


def _is_own(folder: Path) -> bool:
    """Whether a folder is this user's, where the system knows users by number."""
    return hasattr(os, "getuid") and folder.stat().st_uid == os.getuid()


class LocalOnly:
    """ASGI middleware: the server fetches no addresses for the page, and the page may load nothing from elsewhere.

    Only those interfaces of gradio are open that the page itself uses.

    Args:
        app: the application behind it.
    """

    # Scripts and styles are gradio's own; a report is shown in a frame without an address.
    POLICY = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: "
        "data:; worker-src 'self' blob:; frame-src 'self' blob: data:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'self'"
    )

    # Calls beside the queue, and tools of developers; gradio answers malformed ones with tracebacks.
    CLOSED = tuple(
        f"/gradio_api/{name}"
        for name in "run api/ call/ dev/ vibe undo-vibe process_recording stream profiling deep_link openapi".split()
    )

    def __init__(self, app: Handler) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Handler, send: Handler) -> None:
        """Answers a request, or passes it on; see the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].lower()
        if "proxy=" in path or "file=http" in path.replace("%3a", ":"):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this server fetches nothing from other machines"})
            return
        if path.startswith(self.CLOSED):
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this server answers its own page"})
            return

        async def answer(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = {
                    b"content-security-policy": self.POLICY.encode(),
                    b"referrer-policy": b"no-referrer",
                    b"x-content-type-options": b"nosniff",
                    b"cache-control": b"no-store" if "file=" in path else None,
                }
                headers = [(k, v) for k, v in message.get("headers", []) if extra.get(k.lower()) is None]
                message["headers"] = [*headers, *((k, v) for k, v in extra.items() if v is not None)]
            await send(message)

        await self.app(scope, receive, answer)

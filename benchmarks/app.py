"""The page under many visitors at once: each uploads a photograph of its own, edits it, and must get back its own.

    python -m benchmarks.app [--visitors 50]

Visitors speak the page's own protocol, without a browser. The app is then ended by SIGTERM, and its folder of pictures
has to be gone. Exits with 1 where anything failed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

PATIENCE = 1200.0  # seconds that a visitor waits for an answer


@dataclass
class Served:
    """A running app.

    Args:
        address: of the page, with a slash at its end.
        process: that serves it.
        root: the folder that is its temporary one.
        messages: what it said so far.
    """

    address: str
    process: subprocess.Popen[str]
    root: Path
    messages: list[str] = field(default_factory=list)

    def memory(self) -> float:
        """Resident megabytes."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024


@contextmanager
def served(
    root: Path, *options: str, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Served]:
    """``emoedit app`` as a process of its own, until the end of the block.

    Args:
        root: the folder that is its temporary one.
        *options: of the command.
        environment: variables; default: those of this process.
        cwd: where it runs; default: here.

    Raises:
        RuntimeError: it ends before it serves.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "emoedit", "app", "--port", str(port), "--device", "cpu", *options]
    variables = {**(os.environ if environment is None else environment), "TMPDIR": str(root)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables, cwd=cwd)
    found = Served(f"http://127.0.0.1:{port}/", process, root)
    ready = threading.Event()

    def listen() -> None:
        for line in process.stderr:
            found.messages.append(line.rstrip())
            if line.startswith("open http"):
                ready.set()
        ready.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        ready.wait(PATIENCE)
        if process.poll() is not None or not any(line.startswith("open http") for line in found.messages):
            raise RuntimeError("the app does not start: " + "\n".join(found.messages))
        yield found
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        listener.join(10)


def end(app: Served, patience: float = 60) -> tuple[int, list[str]]:
    """Ask an app to end, as a service manager does.

    Args:
        app: that runs.
        patience: seconds that it may take.

    Returns:
        Its exit status, and the names of what it leaves in its temporary folder.
    """
    app.process.send_signal(signal.SIGTERM)
    status = app.process.wait(patience)
    return status, sorted(path.name for path in app.root.iterdir())


class Visitor:
    """One open page, as the server sees it.

    Args:
        address: of the app.
    """

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, timeout=PATIENCE)
        self.key = secrets.token_hex(6)
        config = self.client.get("config").json()
        self.parts = {part["id"]: part for part in config["components"]}
        self.ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        self.calls = config["dependencies"]
        self.values = {number: part["props"].get("value") for number, part in self.parts.items()}

    def call(self, element: str, event: str, **given: Any) -> None:
        """What a control's event does; what it changes is remembered.

        Args:
            element: id of the control.
            event: its name.
            **given: id of a control -> its value.

        Raises:
            RuntimeError: the server says that it failed.
        """
        target = [self.ids[element], event]
        found = next(call for call in self.calls if target in [list(each) for each in call["targets"]])
        self.values |= {self.ids[name]: value for name, value in given.items()}
        data = [self.values[number] for number in found["inputs"]]
        body = {"data": data, "fn_index": found["id"], "session_hash": self.key, "trigger_id": self.ids[element]}
        self.client.post("gradio_api/queue/join", json=body).raise_for_status()
        with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": self.key}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    break
            else:
                raise RuntimeError(f"{element}: no answer")
        if not message["success"]:
            raise RuntimeError(f"{element}: {message['output']}")
        for number, value in zip(found["outputs"], message["output"]["data"], strict=True):
            update = isinstance(value, dict) and value.get("__type__") == "update"
            if not update or "value" in value:
                self.values[number] = value["value"] if update else value

    def open(self, photo: bytes, name: str) -> None:
        """Upload a photograph, which is edited at once."""
        sent = self.client.post("gradio_api/upload", files={"files": (name, photo)}).raise_for_status()
        file = {"path": sent.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        self.call("photo", "input", photo=file)

    def pictures(self) -> list[np.ndarray]:
        """The photograph and its edit, as the page shows them."""
        shown = self.values[self.ids["result"]]
        if not shown:
            raise RuntimeError(f"no result: {self.values[self.ids['message']]}")
        found = [self.client.get(f"gradio_api/file={each['path']}").raise_for_status().content for each in shown]
        return [np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int) for content in found]


def photograph(number: int) -> np.ndarray:
    """The astronaut in a light of a visitor's own, which tells visitors' pictures apart."""
    from skimage.data import astronaut

    tint = 0.75 + 0.25 * np.random.default_rng(number).random(3)
    return (astronaut()[:320, 64:384] * tint).astype(np.uint8)


def visit(address: str, number: int) -> tuple[float, str]:
    """Upload, edit, and look whose picture came back.

    Returns:
        Seconds, and what went wrong.
    """
    start = time.perf_counter()
    try:
        visitor, photo = Visitor(address), photograph(number)
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "PNG")
        visitor.open(buffer.getvalue(), f"{number}.png")
        visitor.call("close", "input", close=False)
        visitor.call("name", "input", name="surprised")
        before, after = visitor.pictures()
    except (httpx.HTTPError, RuntimeError) as error:
        return time.perf_counter() - start, f"{type(error).__name__}: {error}"
    wrong = ""
    if before.shape != photo.shape or np.abs(before - photo).mean() > 3:
        wrong = "another photograph than its own"
    elif (np.abs(after - before).max(-1) > 12).mean() < 0.001:
        wrong = "no edit"
    elif np.abs(after - photo).mean() > 12:
        wrong = "an edit of another photograph"
    return time.perf_counter() - start, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=50, metavar="N", help="at once; default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as app:
        before = app.memory()
        with ThreadPoolExecutor(args.visitors) as pool:
            found = list(pool.map(lambda number: visit(app.address, number), range(args.visitors)))
        seconds = sorted(each for each, _ in found)
        failed = [f"{number}: {wrong}" for number, (_, wrong) in enumerate(found) if wrong]
        print(f"{args.visitors} visitors at once: {len(failed)} failed {failed[:3] or ''}")
        print(f"upload and two edits: median {seconds[len(seconds) // 2]:.1f} s, longest {seconds[-1]:.1f} s")
        print(f"memory: {before:.0f} MB before, {app.memory():.0f} MB after")
        status, left = end(app)
        print(f"SIGTERM: status {status}, left behind: {left or 'nothing'}")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())

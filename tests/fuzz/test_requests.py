"""What is sent to the app: answered or refused, and never with an error of the server or with a file of the machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")
if os.name == "nt":
    pytest.skip("Windows has no SIGTERM", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
SECRET = "what nobody asked for by its name"
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
FIELDS = {
    "fn_index": st.one_of(st.integers(-3, 80), JSON),
    "data": st.one_of(st.lists(JSON, max_size=8), JSON),
    "session_hash": st.one_of(st.just("visitor"), st.text(max_size=12), JSON),
    "event_data": JSON,
    "trigger_id": JSON,
    "api_name": st.one_of(st.text(max_size=8), JSON),
}
BODIES = st.one_of(
    st.fixed_dictionaries({}, optional=FIELDS).map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=80),
)
PLACES = st.one_of(
    st.sampled_from(
        "/ /config /info /gradio_api/info /gradio_api/queue/join /gradio_api/queue/data?session_hash=x "
        "/gradio_api/upload "
        "/gradio_api/run/predict /gradio_api/call/predict /gradio_api/run/0 /gradio_api/reset /gradio_api/heartbeat "
        "/gradio_api/cancel /gradio_api/queue/status /gradio_api/startup-events /login /logout /token /theme.css "
        "/gradio_api/component_server /gradio_api/vibe-code/ /monitoring /docs /openapi.json".split()
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#?"), max_size=24).map("/".__add__),
    st.tuples(
        st.sampled_from(["/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/", "/proxy="]),
        st.sampled_from(["", "../", "..%2f", "%2e%2e/", "/", "//", "file://", "http://127.0.0.1:1/", "\\", "~/"]),
        st.sampled_from(["SECRET", "/etc/hostname", "etc/passwd", "me.jpg", "."]),
    ).map("".join),
)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The app as a process, and a file of the machine's that it may not give away."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "temporary").mkdir()
    (folder / "secret.txt").write_text(SECRET)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {**os.environ, "TMPDIR": str(folder / "temporary"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "emoedit", "app", "--port", str(port), "--device", "cpu"]
    messages = folder / "messages"
    with messages.open("wb") as said, subprocess.Popen(command, cwd=folder, env=where, stderr=said, stdout=said) as run:
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(600):
                if f"open {address}" in messages.read_text("utf-8") or run.poll() is not None:
                    break
                time.sleep(0.2)
            assert run.poll() is None, messages.read_text("utf-8")
            with httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
                yield client, folder
            assert run.poll() is None, "the app ended"
        finally:
            run.terminate()
    assert "Traceback" not in messages.read_text("utf-8"), messages.read_text("utf-8")[-4000:]
    assert [path for path in (folder / "temporary").rglob("*") if path.is_file()] == []


@pytest.mark.slow
@given(method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE"]), place=PLACES, body=BODIES)
@example(method="POST", place="/gradio_api/run/predict", body=b'{"data": []}')
@example(method="GET", place="/gradio_api/file=SECRET", body=b"")
@example(method="GET", place="/gradio_api/file=/etc/passwd", body=b"")
def test_requests(method, place, body, app, counted):
    client, folder = app
    if "heartbeat" in place or "queue/data" in place:
        method = "POST"  # the answer to a GET goes on as long as its visitor stays
    place = place.replace("SECRET", str(folder / "secret.txt"))
    try:
        answer = client.request(method, place, content=body, headers={"content-type": "application/json"})
    except httpx.InvalidURL:
        counted("never sent")
        return
    assert answer.status_code < 500, (method, place, body)
    assert SECRET not in answer.text and "root:x:" not in answer.text
    counted("answered" if answer.status_code < 400 else "refused")

"""Who may connect, where files lie, and that nothing is asked of other machines."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

from emoedit.app.privacy import (
    HostError,
    LocalOnly,
    check_host,
    check_port,
    is_loopback,
    password_check,
    private_folder,
    read_auth,
)
from emoedit.cli import main
from emoedit.types import OutputError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_needs_no_password(host) -> None:
    assert is_loopback(host)
    check_host(host, None, False)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_others_need_one_or_a_word_that_it_is_meant(host, tmp_path) -> None:
    with pytest.raises(HostError, match="--auth USER:FILE"):
        check_host(host, None, False)
    check_host(host, ("me", tmp_path / "password"), False)
    check_host(host, None, True)


def test_the_command_refuses_before_anything_is_loaded(capsys) -> None:
    assert main(["app", "--host", "0.0.0.0"]) == 2
    assert "--i-know" in capsys.readouterr().err
    assert main(["app", "--auth", "nobody"]) == 2
    assert main(["app", "--editor", "nosuch"]) == 2


def test_a_password_is_the_first_line_of_its_file(tmp_path) -> None:
    path = tmp_path / "password"
    path.write_text("opän sesame\nsecond line\n", "utf-8")
    user, file = read_auth(f"me:{path}")
    check = password_check(user, file)
    assert check("me", "opän sesame")
    assert not check("me", "second line") and not check("you", "opän sesame") and not check("", "")


@pytest.mark.parametrize("content", ["", "\n", "   \nlater\n", None, b"\xff\xfe"])
def test_no_password_is_refused(content, tmp_path) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(HostError, match="password"):
        password_check("me", path)
    with pytest.raises(HostError, match="USER:FILE"):
        read_auth("me")


def test_the_folder_is_the_user_s_alone_and_goes(monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/before")
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    with private_folder() as folder:
        (folder / "picture").write_bytes(b"x")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder) and os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "/before" and "GRADIO_ANALYTICS_ENABLED" not in os.environ


def test_folders_of_apps_that_were_killed_go(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, alive = tmp_path / "emoedit-app-999999999-x", tmp_path / f"emoedit-app-{os.getpid()}-x"
    for folder in (dead, alive, tmp_path / "emoedit-app-notes"):
        folder.mkdir()
    with private_folder():
        assert not dead.exists()
    assert {path.name for path in tmp_path.iterdir()} == {alive.name, "emoedit-app-notes"}


def test_a_port_that_is_taken_is_refused_before_models_are_loaded(capsys) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match="--port"):
            check_port("127.0.0.1", port)
        assert main(["app", "--port", str(port)]) == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err


def answer(path: str) -> tuple[int, dict[bytes, bytes]]:
    """What the middleware says, in front of an application that answers everything."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"image/png")]})

    async def send(message):
        sent.append(message)

    asyncio.run(LocalOnly(app)({"type": "http", "path": path}, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=http://a.example/x", "/gradio_api/file=HTTPS%3a//a", "/proxy=http://a"]
)
def test_the_server_fetches_nothing_from_elsewhere(path) -> None:
    assert answer(path)[0] == 403


@pytest.mark.parametrize("path", ["/gradio_api/run/predict", "/gradio_api/call/predict/x", "/gradio_api/Vibe-Edit/"])
def test_what_the_page_does_not_use_is_closed(path) -> None:
    assert answer(path)[0] == 404
    assert answer("/gradio_api/queue/join")[0] == 200


def test_answers_forbid_the_page_to_load_from_elsewhere_and_pictures_to_be_cached() -> None:
    status, headers = answer("/gradio_api/file=/tmp/x.png")
    assert status == 200 and headers[b"content-type"] == b"image/png" and headers[b"cache-control"] == b"no-store"
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy

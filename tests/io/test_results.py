"""The file of results that grows, and the lock of its folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emoedit.io.locks import exclusive
from emoedit.io.results import Results, Rows, key_of, last_rows, read_rows
from emoedit.types import DataError, OutputError

ROOT = Path(__file__).resolve().parents[2]
ROW = {"photo": "a.png", "editor": "one", "emotion": "happy", "strength": 1.0, "error": None, "content": "0a"}


@pytest.mark.parametrize("length", [0, 1, 17, 60, 94, 95, 96, 97, 120, 190])
def test_a_file_that_ends_anywhere_is_cut_to_whole_lines(tmp_path, length):
    path = tmp_path / "new" / "results.jsonl"
    with Results(path) as results:
        assert not results.found()
        results.append([ROW, {**ROW, "strength": 0.5}])
    data = path.read_bytes()
    whole = data[:length].rfind(b"\n") + 1
    path.write_bytes(data[:length])
    with Results(path) as results:
        assert path.read_bytes() == data[:whole]
        assert len(results.found()) == data[:whole].count(b"\n")
        results.append([{**ROW, "emotion": "sad"}])
        assert [key_of(row) for row in read_rows(path)][-1] == ("a.png", "one", "sad", 1.0)
    assert path.read_bytes().startswith(data[:whole])


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"1",
        b"\x00" * 40,
        b'{"photo": "a"}',
        b'"text"',
        b"\xff\xfe",
        b"",
        b"null",
        json.dumps({key: value for key, value in ROW.items() if key != "error"}).encode(),
    ],
)
def test_lines_that_are_no_rows(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match="line 2 is no row of results .* move the file away"):
        Results(path)
    assert path.read_bytes().endswith(line + b"\n")


def test_rows_of_older_versions_have_the_names_of_today(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({**ROW, "identity_by": "embedded", "expression_by": "other"}) + "\n")
    (row,) = Rows(path)
    assert row == {**ROW, "identity_backend": "embedded", "expression_backend": "other"}


def test_names_of_any_bytes_come_back(tmp_path):
    names = [os.fsdecode(b"caf\xe9.png") if os.name == "posix" else "café.png", 'a"\n</script>', "写真 \u2028.png"]
    with Results(tmp_path / "results.jsonl") as results:
        results.append([{**ROW, "photo": name} for name in names])
    assert (tmp_path / "results.jsonl").read_bytes().count(b"\n") == 3
    with Results(tmp_path / "results.jsonl") as again:
        assert [row["photo"] for row in read_rows(again.path)] == names
        assert {key[0] for key in again.found()} == set(names)
        assert {key[0] for key in again.found(names[1:])} == set(names[1:])


def test_results_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        Results(tmp_path / "file" / "results.jsonl")
    with Results(tmp_path / "results.jsonl") as results:
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match="No space left on device"):
            results.append([ROW])


def test_what_failed_counts_as_done_unless_it_is_to_be_tried_again(tmp_path):
    sad, angry = ({**ROW, "emotion": emotion, "error": "no face"} for emotion in ("sad", "angry"))
    with Results(tmp_path / "results.jsonl") as results:
        results.append([ROW, sad, angry])
    with Results(tmp_path / "results.jsonl") as results:
        assert [key[2] for key in results.found()] == ["happy", "sad", "angry"]
        assert [key[2] for key in results.found(retry=True)] == ["happy"]
        results.append([{**sad, "error": None}, {**angry, "error": "again"}])
    with Results(tmp_path / "results.jsonl") as results:
        assert [key[2] for key in results.found(retry=True)] == ["happy", "sad"]
    # Nothing was taken out of the file, and whoever reads results sees each cell once, as it was last.
    path = tmp_path / "results.jsonl"
    assert sum(1 for _ in read_rows(path)) == 5
    rows = list(last_rows(path))
    assert [(row["emotion"], row["error"]) for row in rows] == [("happy", None), ("sad", None), ("angry", "again")]
    assert list(Rows(path)) == rows == list(Rows([path]))
    assert len(Rows([path, path])) == 6 and rows[1] in Rows(path) and sad not in Rows(path)
    assert list(Rows(path, {key_of(sad)})) == rows[1:2]


def test_a_success_that_was_followed_by_a_failure_is_not_believed(tmp_path):
    """Two runs of which the second was told to try again cannot do this; a file that was put together by hand can."""
    with Results(tmp_path / "results.jsonl") as results:
        results.append([ROW, {**ROW, "error": "late"}])
    assert [row["error"] for row in last_rows(tmp_path / "results.jsonl")] == ["late"]
    with Results(tmp_path / "results.jsonl") as results:
        assert not results.found(retry=True)


# --- the lock -------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from emoedit.io.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run" / "lock")]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()


def test_another_process_is_kept_out_and_told_by_whom(tmp_path, holder):
    with pytest.raises(OutputError, match=f"run is being written by process {holder.pid} on .*; wait until it is done"):
        with exclusive(tmp_path / "run" / "lock"):
            pytest.fail("two processes hold one lock")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_killed_process_leaves_no_lock_behind(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    with exclusive(tmp_path / "run" / "lock"):
        assert f"process {os.getpid()} " in (tmp_path / "run" / "lock.holder").read_text()
    with exclusive(tmp_path / "run" / "lock"):
        pass


def test_a_lock_is_let_go_after_an_error_and_keeps_out_its_own_process(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "lock"):
        with pytest.raises(OutputError, match=f"process {os.getpid()}"), exclusive(tmp_path / "lock"):
            pytest.fail("held twice")
        raise ZeroDivisionError
    with exclusive(tmp_path / "lock"):
        pass


def test_a_lock_that_cannot_be_had(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"), exclusive(tmp_path / "file" / "lock"):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(OutputError, match="cannot be locked .Operation not supported.; choose"):
        with exclusive(tmp_path / "lock"):
            pass


def _enter(path: Path, inside, most) -> None:
    """Take the lock twenty times, as often as it has to be tried; how many were inside at once, at most."""
    times = 0
    while times < 20:
        try:
            with exclusive(path):
                times += 1
                with inside.get_lock():
                    inside.value += 1
                    most.value = max(most.value, inside.value)
                with inside.get_lock():
                    inside.value -= 1
        except OutputError:
            pass


def test_never_two_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    inside, most = context.Value("i", 0), context.Value("i", 0)
    children = [context.Process(target=_enter, args=(tmp_path / "lock", inside, most)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * 3
    assert most.value == 1

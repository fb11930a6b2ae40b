"""Where weights come from: embedded, a folder, the hub; written whole or not at all; never more than they say."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from test_editors import tiny_pixels, tiny_vae

from emoedit import hub
from emoedit.editors import Editor, choose_device, list_editors, load_editor
from emoedit.types import CheckpointError, EditError, OutputError


def test_an_editor_of_the_hub_is_downloaded_by_name(tmp_path, monkeypatch):
    folder = tiny_vae().save_pretrained(tmp_path / "snapshot")
    asked = []

    def download(name, revision=None, local_files_only=False):
        asked.append((name, revision))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    editor = Editor.from_pretrained("someone/their-editor", revision="v2")
    assert editor.name == "tiny"
    assert asked == [("someone/their-editor", "v2")]


def test_without_a_network_the_error_names_what_needs_none(monkeypatch):
    def download(*args, **kwargs):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match="no folder 'someone/editor' here.*embedded editors"):
        Editor.from_pretrained("someone/editor")


def test_push_to_hub_uploads_a_folder_that_loads(tmp_path, monkeypatch):
    seen = {}

    class Api:
        def __init__(self, token=None):
            seen["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            seen["repo"] = (repo_id, private, exist_ok)

        def upload_folder(self, repo_id, folder_path):
            seen["emotions"] = Editor.from_pretrained(folder_path).emotions
            seen["card"] = (Path(folder_path) / "README.md").read_text()
            return "https://example.org/commit"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    editor = tiny_vae()
    assert editor.push_to_hub("me/mine", private=True, token="t", card="# mine") == "https://example.org/commit"
    assert seen["repo"] == ("me/mine", True, True)
    assert seen["emotions"] == editor.emotions
    assert seen["card"] == "# mine"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(RuntimeError), hub.new_folder(target) as new:
        (new / "half").write_text("x")
        raise RuntimeError("the process is stopped here")
    assert list(tmp_path.iterdir()) == []
    for content in ("one", "two"):
        with hub.new_folder(target) as new:
            (new / "a").write_text(content)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (target / "a").read_text() == "two"
    with pytest.raises(KeyboardInterrupt), hub.new_folder(target) as new:
        raise KeyboardInterrupt
    assert (target / "a").read_text() == "two"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), hub.new_folder(tmp_path / "file" / "model"):
        pass


def test_weights_that_were_rounded_take_half_the_space_and_lose_nothing(tmp_path):
    rounded, exact = torch.randn(50).half().float(), torch.randn(50)
    hub.write_part(tmp_path, {}, {"rounded": rounded, "exact": exact, "count": torch.arange(3)})
    state = hub.read_weights(tmp_path / hub.WEIGHTS)
    assert state["rounded"].dtype == torch.float16
    assert torch.equal(state["rounded"].float(), rounded)
    assert torch.equal(state["exact"], exact)
    assert state["count"].dtype == torch.int64
    assert (tmp_path / hub.WEIGHTS).stat().st_mode & 0o044 == 0o044


def test_check_state_lists_everything_that_does_not_fit():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    found = {"b": torch.zeros(4), "c": torch.tensor([float("nan")]), "d": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        hub.check_state(expected, found, "file")
    for part in ("1 missing (a)", "1 unexpected (d)", "b is (4,), expected (3,)", "c holds values that are not finite"):
        assert part in str(error.value)


def test_every_embedded_model_is_small_licensed_and_described():
    total = 0
    for info in hub.list_models():
        assert info.licence and info.source and info.size > 0
    for name in hub.embedded_names():
        folder = hub.embedded_root() / name
        assert len((folder / "README.md").read_text()) > 500
        description = json.loads((folder / hub.EDITOR).read_text())
        assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors")} == set(description["sha256"])
        for path in folder.rglob("*"):
            assert path.suffix in {".json", ".safetensors", ".md", ""}, f"{path}: weights are safetensors"
            total += path.stat().st_size if path.is_file() else 0
            assert path.stat().st_size <= 16 * 2**20
    assert total <= 40 * 2**20


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """Embedded models of another installation: an editor and two references."""
    for name, info in (
        ("own", {}),
        ("first", {"reference": True, "role": "reference to compare with"}),
        ("second", {"reference": True}),
    ):
        tiny_pixels(name).save_pretrained(tmp_path / name, **info)
    monkeypatch.setattr(hub, "embedded_root", lambda: tmp_path)
    return tmp_path


def test_references_are_embedded_but_no_editors_to_choose(shelf):
    assert hub.embedded_names() == ("first", "own", "second")
    assert hub.reference_names() == ("first", "second")
    assert list_editors() == ("own",)
    assert load_editor("first").name == "first"  # by name they load like any other
    roles = {info.name: (info.role, info.here) for info in hub.list_models()}
    assert roles["first"] == ("reference to compare with", True)
    assert roles["own"] == ("emotion editor", True)


def test_a_damaged_description_is_told_and_not_taken_for_an_editor(shelf):
    (shelf / "second" / hub.EDITOR).write_text("{")
    for ask in (hub.reference_names, list_editors, hub.list_models):
        with pytest.raises(CheckpointError, match="second.*editor.json cannot be read as json"):
            ask()


def test_the_references_of_this_package_are_among_its_models():
    names = hub.reference_names()
    assert set(names) <= set(hub.embedded_names())
    assert set(list_editors()) == set(hub.embedded_names()) - set(names)
    roles = {info.name: info.role for info in hub.list_models()}
    assert all("reference" in roles[name] for name in names)
    assert not any("reference" in roles[name] for name in list_editors())


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert choose_device("auto") == "cpu"
        with pytest.raises(EditError, match="no CUDA device"):
            choose_device("cuda")

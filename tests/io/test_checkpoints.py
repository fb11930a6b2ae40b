"""Where weights come from: embedded, a folder, the hub; written whole or not at all; never more than they say."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from emoedit.editors import Editor, list_editors, load_editor
from emoedit.io import checkpoints
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.types import CheckpointError, OutputError, UnknownNameError
from tests.fixtures.editors import TINY, tiny_asyrp, tiny_pixels, tiny_vae


class Repository:
    """A repository of a hub that is a dictionary: gives what is asked for, under the hub's own rules for patterns.

    Args:
        files: path -> contents.  cache: where snapshots go, in a folder named after the commit.
    """

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, files: dict[str, bytes], cache: Path) -> None:
        self.files, self.folder = files, cache / "snapshots" / self.COMMIT
        self.asked: list[tuple[str, str | None]] = []

    def download(self, name: str, *, revision: str | None = None, allow_patterns: list[str]) -> str:
        self.asked.append((name, revision))
        for path in filter_repo_objects(self.files, allow_patterns=allow_patterns):
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.files[path])
        return str(self.folder)

    def here(self) -> set[str]:
        return contents(self.folder).keys()


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Makes a repository of files, and the only one there is."""

    def make(files: dict[str, bytes]) -> Repository:
        repository = Repository(files, tmp_path / f"cache{len(list(tmp_path.iterdir()))}")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", repository.download)
        return repository

    return make


LEFT = (  # what training and other programs leave in repositories
    "optimizer.bin",
    "optimizer.safetensors",
    "scheduler.bin",
    "random_states_0.pkl",
    "pytorch_model.bin",
    "model.ckpt",
    "v1-5-pruned.safetensors",
    "training_args.bin",
    "flax_model.msgpack",
    "checkpoint-500/config.json",
    f"checkpoint-500/{checkpoints.WEIGHTS}",
    f"checkpoint-500/unet/{checkpoints.WEIGHTS}",
    "unet/diffusion_flax_model.msgpack",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/model.onnx",
    "backbone/optimizer.pt",
    "logs/events.out.tfevents.1",
    "images/sample.png",
    "sample.py",
)


@pytest.mark.parametrize("kind", ["tiny-vae", "tiny-asyrp"])
def test_an_editor_of_the_hub_is_downloaded_by_name(serve, tmp_path, kind):
    editor = TINY[kind]()
    files = contents(editor.save_pretrained(tmp_path / "pushed"))
    repository = serve({**files, **dict.fromkeys(LEFT, b"left")})
    again = Editor.from_pretrained("someone/their-editor", revision="v2")
    assert again.name == editor.name
    assert repository.asked == [("someone/their-editor", "v2")]
    assert repository.here() == files.keys()


def old_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(name: str) -> str:
        for new, before in names.items():
            name = name.replace(f".{new}.", f".{before}.")
        return name

    return {old(name): value for name, value in weights.items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[DDPMBackbone, dict[str, bytes]]:
    """A small U-Net, and its files as ``google/ddpm-ema-celebahq-256`` has them: at the top, weights in both forms."""
    backbone = tiny_asyrp(1, channels=3, std=None).backbone
    folder = tmp_path_factory.mktemp("published")
    backbone.unet.save_pretrained(folder)
    torch.save(old_names(backbone.unet.state_dict()), folder / "diffusion_pytorch_model.bin")
    files = contents(folder)
    scheduler = {"_class_name": "DDPMScheduler", "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    more = {"scheduler_config.json": scheduler, "model_index.json": index}
    return backbone, {**files, **{name: json.dumps(value).encode() for name, value in more.items()}}


SAMPLING = {"steps": 6, "t_last": 600, "t_edit": 300, "t_boost": 0}


@pytest.mark.parametrize("folder", ["", "unet/"])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_model_of_diffusers_is_downloaded_without_what_is_not_needed(serve, published, suffix, folder):
    """A pickle of tensors only where there are no safetensors, and of the same commit."""
    backbone, files = published
    moved = {"config.json", *(name for name in files if name.startswith("diffusion"))}
    files = {folder * (name in moved) + name: data for name, data in files.items()}
    old = f"{folder}diffusion_pytorch_model.bin"
    needed = files.keys() - {old} if suffix == ".safetensors" else files.keys() - {f"{folder}{checkpoints.WEIGHTS}"}
    offered = files if suffix == ".safetensors" else {name: files[name] for name in needed}
    left = dict.fromkeys((name for name in LEFT if not name.endswith(".fp16.safetensors")), b"left")
    repository = serve({**left, "README.md": b"card", **offered})
    for _ in range(2):
        loaded = DDPMBackbone.load("google/ddpm", revision="v1", **SAMPLING)
        assert repository.here() == needed | {"README.md"}
    first, second = ("google/ddpm", "v1"), ("google/ddpm", Repository.COMMIT)
    asked = [first, first] if suffix == ".safetensors" else [first, second, second, second, first]
    assert repository.asked == asked  # without safetensors: for each form of the weights, until one is there
    state = loaded.unet.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in backbone.unet.state_dict().items())


STABLE_DIFFUSION = {
    "README.md",
    "LICENSE.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    f"unet/{checkpoints.WEIGHTS}",
    "vae/config.json",
    f"vae/{checkpoints.WEIGHTS}",
}


@pytest.mark.parametrize("lacking", [set(), {f"unet/{checkpoints.WEIGHTS}"}], ids=["whole", "without safetensors"])
def test_stable_diffusion_is_downloaded_without_what_is_not_needed(serve, lacking):
    others = {
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "safety_checker/pytorch_model.bin",
        "feature_extractor/preprocessor_config.json",
        "text_encoder/pytorch_model.bin",
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "v1-variants-scores.jpg",
    }
    files = dict.fromkeys({*STABLE_DIFFUSION, *others, *LEFT}, b"{}")
    files["unet/config.json"] = b'{"_class_name": "UNet2DConditionModel"}'
    repository = serve({name: data for name, data in files.items() if name not in lacking})
    assert checkpoints.locate("someone/stable-diffusion") == repository.folder
    half = {"unet/diffusion_pytorch_model.fp16.safetensors"} if lacking else set()  # sooner than a pickle
    assert repository.here() == STABLE_DIFFUSION - lacking | half
    assert len(repository.asked) == (3 if lacking else 1)


class Refused(HTTPError):
    """As the hub's client has it when a connection breaks: no ``OSError``, in versions built on httpx."""

    def __init__(self) -> None:
        Exception.__init__(self, "connection reset\nand so on")

    def __str__(self) -> str:
        return "connection reset\nand so on"


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no network"), OSError("disk full"), Refused()])
def test_without_a_network_the_error_names_what_needs_none(monkeypatch, error):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match="no folder 'someone/editor' is here.*mbedded editors") as caught:
        Editor.from_pretrained("someone/editor")
    assert "\n" not in str(caught.value) and type(error).__name__ in str(caught.value)


def test_a_name_that_is_nothing_is_told_with_the_nearest(shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    for name in ("onw", "OWN", "own "):
        with pytest.raises(UnknownNameError, match="did you mean 'own'.*no folder of that name"):
            checkpoints.locate(name)
    with pytest.raises(UnknownNameError, match="known: first, own, second"):
        checkpoints.locate("stylegan")
    (tmp_path / "weights.pt").write_bytes(b"")
    for path, match in (
        ("weights.pt", "weights.pt is a file; expected the folder"),
        ("./gone", "there is no folder './gone'"),
        ("a/b/c", "there is no folder 'a/b/c'"),
        ("~/gone", "there is no folder '~/gone'"),
        (tmp_path / "gone", "there is no folder '.*gone'"),
    ):
        with pytest.raises(CheckpointError, match=match):
            checkpoints.locate(path)
    (tmp_path / "own").mkdir(exist_ok=True)
    assert checkpoints.locate("own") == shelf / "own" and checkpoints.locate("./own") == Path("own")
    monkeypatch.setattr(checkpoints, "embedded_root", lambda: tmp_path / "nowhere")
    with pytest.raises(UnknownNameError, match="unknown model 'vae'; known: sd15"):
        load_editor("vae")


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
    with pytest.raises(RuntimeError), checkpoints.new_folder(target) as new:
        (new / "half").write_text("x")
        raise RuntimeError("the process is stopped here")
    assert list(tmp_path.iterdir()) == []
    for content in ("one", "two"):
        with checkpoints.new_folder(target) as new:
            (new / "a").write_text(content)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (target / "a").read_text() == "two"
    with pytest.raises(KeyboardInterrupt), checkpoints.new_folder(target) as new:
        raise KeyboardInterrupt
    assert (target / "a").read_text() == "two"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), checkpoints.new_folder(tmp_path / "file" / "model"):
        pass


def test_weights_that_were_rounded_take_half_the_space_and_lose_nothing(tmp_path):
    rounded, exact = torch.randn(50).half().float(), torch.randn(50)
    checkpoints.write_part(tmp_path, {}, {"rounded": rounded, "exact": exact, "count": torch.arange(3)})
    state = checkpoints.read_weights(tmp_path / checkpoints.WEIGHTS)
    assert state["rounded"].dtype == torch.float16
    assert torch.equal(state["rounded"].float(), rounded)
    assert torch.equal(state["exact"], exact)
    assert state["count"].dtype == torch.int64
    assert (tmp_path / checkpoints.WEIGHTS).stat().st_mode & 0o044 == 0o044


def test_weights_rounded_by_the_row_take_a_quarter_of_the_space_and_lose_nothing(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Conv2d(6, 5, 3)
    module.register_buffer("kernel", torch.randn(3, 3))  # part of the architecture: it has no rows
    module.register_buffer("count", torch.arange(3))
    module.weight.data *= torch.tensor([1e-6, 0.01, 0.3, 20.0, 0.0])[:, None, None, None]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    checkpoints.round_weights(module)
    rounded = {name: value.clone() for name, value in module.state_dict().items()}
    # Half a step of the row at most, and the unit itself is off by what bfloat16 loses.
    largest = before["weight"].abs().amax((1, 2, 3))
    off = (rounded["weight"] - before["weight"]).abs().amax((1, 2, 3))
    assert bool((off <= largest * (0.5 / 127 + 2**-8)).all())
    assert rounded["weight"][4].abs().max() == 0 and torch.equal(rounded["count"], before["count"])
    for name in ("bias", "kernel"):
        assert torch.equal(rounded[name], before[name].half().float())
    checkpoints.round_weights(module)
    assert all(torch.equal(value, rounded[name]) for name, value in module.state_dict().items())
    checkpoints.write_part(tmp_path, {}, rounded, eight_bits=True)
    raw = load_file(tmp_path / checkpoints.WEIGHTS)
    assert raw["weight"].dtype == torch.int8 and raw["bias"].dtype == raw["kernel"].dtype == torch.float16
    found = checkpoints.read_weights(tmp_path / checkpoints.WEIGHTS)
    assert found.keys() == rounded.keys()
    assert all(torch.equal(found[name].to(value.dtype), value) for name, value in rounded.items())
    checkpoints.write_part(tmp_path, {}, rounded)  # a layout that others read
    assert load_file(tmp_path / checkpoints.WEIGHTS)["weight"].dtype == torch.float32
    save_file({"weight": raw["weight"], "weight:step": raw["weight:step"][:3].clone()}, tmp_path / checkpoints.WEIGHTS)
    with pytest.raises(CheckpointError, match=r"weight is \(5, 6, 3, 3\), its steps are \(3,\)"):
        checkpoints.read_weights(tmp_path / checkpoints.WEIGHTS)


def test_check_state_lists_everything_that_does_not_fit():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    found = {"b": torch.zeros(4), "c": torch.tensor([float("nan")]), "d": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        checkpoints.check_state(expected, found, "file")
    for part in ("1 missing (a)", "1 unexpected (d)", "b is (4,), expected (3,)", "c holds values that are not finite"):
        assert part in str(error.value)


def test_every_embedded_model_is_small_licensed_and_described():
    total = 0
    for info in checkpoints.list_small_models():
        assert info.licence and info.source and info.size > 0
    for name in checkpoints.embedded_names():
        folder = checkpoints.embedded_root() / name
        assert len((folder / "README.md").read_text()) > 500
        description = json.loads((folder / checkpoints.EDITOR).read_text())
        # clip/, the text encoder's other half, is for fitting and no part of the editor.
        own = {p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors") if p.parent.name != "clip"}
        assert own == set(description["sha256"])
        for path in folder.rglob("*"):
            assert path.suffix in {".json", ".safetensors", ".md", ""} or path.name == "merges.txt", path
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
    monkeypatch.setattr(checkpoints, "embedded_root", lambda: tmp_path)
    return tmp_path


def test_references_are_embedded_but_no_editors_to_choose(shelf):
    assert checkpoints.embedded_names() == ("first", "own", "second")
    assert checkpoints.reference_names() == ("first", "second")
    assert list_editors() == ("own",)
    assert load_editor("first").name == "first"  # by name they load like any other
    roles = {info.name: (info.role, info.here) for info in checkpoints.list_small_models()}
    assert roles["first"] == ("reference to compare with", True)
    assert roles["own"] == ("emotion editor", True)


def test_a_folder_more_is_an_editor_more(shelf):
    tiny_asyrp(name="asyrp").save_pretrained(shelf / "asyrp", role="emotion editor (diffusion)")
    assert list_editors() == ("asyrp", "own") and load_editor("asyrp").name == "asyrp"
    assert "emotion editor (diffusion)" in {info.role for info in checkpoints.list_small_models()}
    with pytest.raises(UnknownNameError, match="did you mean 'asyrp'"):
        load_editor("asryp")


def test_a_damaged_description_is_told_and_not_taken_for_an_editor(shelf):
    (shelf / "second" / checkpoints.EDITOR).write_text("{")
    for ask in (checkpoints.reference_names, list_editors, checkpoints.list_small_models):
        with pytest.raises(CheckpointError, match="second.*editor.json cannot be read as json"):
            ask()


def test_the_references_of_this_package_are_among_its_models():
    names = checkpoints.reference_names()
    assert set(names) <= set(checkpoints.embedded_names())
    assert set(list_editors()) == set(checkpoints.embedded_names()) - set(names)
    roles = {info.name: info.role for info in checkpoints.list_small_models()}
    assert all("reference" in roles[name] for name in names)
    assert not any("reference" in roles[name] for name in list_editors())

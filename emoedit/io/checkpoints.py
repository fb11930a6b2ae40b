"""Where weights come from: embedded in this package, a local folder, or the Hugging Face hub; never by running code.

Weights are read from ``.safetensors`` only (``emoedit.io.tensors``); whoever has to read another format does it with a
reader that builds tensors and plain containers and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoedit.emotions import fold_name, unknown_name
from emoedit.io.tensors import CONFIG as CONFIG
from emoedit.io.tensors import MAX_JSON as MAX_JSON
from emoedit.io.tensors import WEIGHTS as WEIGHTS
from emoedit.io.tensors import check_shapes as check_shapes
from emoedit.io.tensors import check_size as check_size
from emoedit.io.tensors import check_state as check_state
from emoedit.io.tensors import entries_of as entries_of
from emoedit.io.tensors import read_shapes as read_shapes
from emoedit.io.tensors import read_weights as read_weights
from emoedit.io.tensors import round_rows as round_rows
from emoedit.io.tensors import round_weights as round_weights
from emoedit.io.tensors import tensor_bytes as tensor_bytes
from emoedit.io.tensors import write_config as write_config
from emoedit.io.tensors import write_part as write_part
from emoedit.registry import EDITORS
from emoedit.types import CheckpointError, OutputError, UnknownNameError

EDITOR = "editor.json"
LARGEST = {  # endings of names in a config.json -> the largest number that published networks are described by, doubled
    "layers": 256,
    "blocks": 256,
    "per_block": 256,
    "heads": 1024,
    "resolution": 4096,
    "sample_size": 4096,
    "image_size": 4096,
    "patch": 64,
    "side": 4096,
    "widths": 32768,
    "width": 32768,
    "channels": 32768,
    "_dim": 65536,
    "neck": 32768,
    "latent": 65536,
    "shape": 65536,
    "hidden_size": 65536,
    "intermediate_size": 262144,
    "vocab_size": 1048576,
}
FETCHED = (  # of a repository on the hub: no pickles, no other formats or precisions, nothing that training left there
    "README.md",
    "LICENSE*",
    # An editor.
    EDITOR,
    *(f"{part}/*{suffix}" for part in ("backbone", "steering_*") for suffix in (".json", ".txt", ".safetensors")),
    # A model or pipeline of diffusers.
    "model_index.json",
    CONFIG,
    "scheduler_config.json",
    "scheduler/scheduler_config.json",
    WEIGHTS,
    *(f"{part}/{name}" for part in ("unet", "vae") for name in (CONFIG, WEIGHTS)),
    f"text_encoder/{CONFIG}",
    "text_encoder/model.safetensors",
    "tokenizer/*.json",
    "tokenizer/merges.txt",
)
TELLING = (EDITOR, "model_index.json", CONFIG)  # what says which kind of model a repository holds
_IN_ORDER = (WEIGHTS, WEIGHTS.replace(".safetensors", ".fp16.safetensors"), WEIGHTS.replace(".safetensors", ".bin"))
PART_WEIGHTS: Mapping[str, Sequence[str]] = {  # a part's folder -> what its weights may be called, the best first
    "": _IN_ORDER,
    "unet": (*_IN_ORDER, WEIGHTS.replace(".safetensors", ".fp16.bin")),
    "vae": (*_IN_ORDER, WEIGHTS.replace(".safetensors", ".fp16.bin")),
    "text_encoder": (
        *("model.safetensors", "model.fp16.safetensors"),
        *("pytorch_model.bin", "pytorch_model.fp16.bin"),
    ),
}
VGGFACE2, ALEX = "20180402-114759-vggface2.pt", "alexnet-owt-7be5be79.pth"  # as their authors publish them
PUBLISHED = "published by its authors; the error without it names the command that fetches it"


def embedded_root() -> Path:
    """The folder of the embedded models: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "checkpoints"
    return inside if inside.is_dir() else package.parent / "checkpoints"


def embedded_names() -> tuple[str, ...]:
    """Names of the embedded editors."""
    return tuple(sorted(path.parent.name for path in embedded_root().glob(f"*/{EDITOR}")))


def reference_names() -> tuple[str, ...]:
    """Names of the embedded reference editors (``"reference": true`` in their ``editor.json``)."""
    return tuple(name for name in embedded_names() if read_json(embedded_root() / name / EDITOR).get("reference"))


def editor_names() -> tuple[str, ...]:
    """Names of the embedded editors to choose from: without the references."""
    references = reference_names()
    return tuple(name for name in embedded_names() if name not in references)


def locate(name_or_path: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """The folder of an editor or of a model in diffusers' layout.

    ``name_or_path`` is an embedded editor's name, a local folder, or ``owner/name`` on the hub (what of it is of use,
    ``FETCHED``, is downloaded and cached).

    Args:
        name_or_path: name of an embedded one, a folder, or ``owner/name`` on the hub.
        revision: branch, tag or commit on the hub.

    Raises:
        UnknownNameError: a name that is neither embedded nor a folder; the message holds the nearest ones.
        CheckpointError: there is no such folder, or the hub does not give it.
    """
    text = os.fspath(name_or_path)
    if text in embedded_names():
        return embedded_root() / text
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{text} is a file; expected the folder of an editor or model")
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _fetch(text, revision)
    if not text or folder.name != text:
        raise CheckpointError(f"there is no folder {text!r}")
    if text in EDITORS.names():
        raise UnknownNameError(f"the editor {text!r} has no folder; emoedit.load_editor({text!r}) gives it")
    error = unknown_name("model", text, {fold_name(name): name for name in embedded_names()})
    raise UnknownNameError(
        f"{error} (There is no folder of that name either; models of the hub are owner/name; registered editors "
        f"are {', '.join(EDITORS.names())})"
    )


def peek(name: str, *, revision: str | None = None) -> tuple[str, dict[str, Any]]:
    """The kind of a hub repository, before its weights are downloaded: the first of ``TELLING`` it has.

    Args:
        name: ``owner/name``.
        revision: default: the newest.

    Returns:
        The file's name, and what it says.

    Raises:
        CheckpointError: it has none of them, or the hub does not give it.
    """
    folder = _snapshot(name, revision, TELLING)
    for file in TELLING:
        if (folder / file).is_file():
            return file, read_json(folder / file)
    raise CheckpointError(f"{name} is no editor and no model: it has none of {', '.join(TELLING)}")


def fetch_files(name: str, patterns: Sequence[str], *, revision: str | None = None) -> Path:
    """Some files of a repository of the hub, downloaded once and cached.

    Args:
        name: ``owner/name``.
        patterns: patterns of paths in it, with ``*``.
        revision: default: the newest.

    Returns:
        The folder they lie in.

    Raises:
        CheckpointError: the hub does not give them.
    """
    return _snapshot(name, revision, patterns)


def _fetch(name: str, revision: str | None) -> Path:
    """The snapshot of a repository of the hub, in the hub's cache.

    It holds one file of weights for each part, the best there is: safetensors, in half precision if there is no other,
    a pickle of tensors if there is nothing else.
    """
    folder = _snapshot(name, revision, FETCHED)
    for part, names in PART_WEIGHTS.items():
        place = folder / part if part else folder
        if not (place / CONFIG).is_file() or (not part and not _is_unet(place)):
            continue
        for file in names:
            if any((place / other).is_file() for other in names):
                break
            # A snapshot is named after its commit: all parts are of the same one.
            _snapshot(name, folder.name, [f"{part}/{file}" if part else file])
    return folder


def _is_unet(folder: Path) -> bool:
    return read_json(folder / CONFIG).get("_class_name") == "UNet2DModel"


def _snapshot(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """What of a repository of the hub matches patterns, in the hub's cache.

    Raises:
        CheckpointError: the hub does not give it; the message says how to do without.
    """
    from huggingface_hub import snapshot_download

    # HTTPError is the base of what its client for HTTP raises, which is another one in other versions of the hub.
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"no folder {name!r} is here, and the hub did not give it either ({type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}). Where there is a network, "
            f"'hf download {name} --local-dir FOLDER' fetches it; give that folder in its place (--model FOLDER, "
            f"model=FOLDER in Python). The embedded editors, which need no network: "
            f"{', '.join(embedded_names()) or 'none in this installation'}"
        ) from error


def sha256(path: Path) -> str:
    """Hex digest of a file.

    Args:
        path: path of the file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A json object.

    Args:
        path: path of the file.

    Raises:
        CheckpointError: missing, not json, or not an object.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise CheckpointError(f"{path} is larger than {MAX_JSON:,} bytes: this describes no model")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: this is no model folder, or its download stopped half-way") from None
    except CheckpointError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as json: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, expected an object")
    if path.name == CONFIG:
        check_config(value, path)
    return value


def check_config(config: Mapping[str, Any], path: Path | str, depth: int = 0) -> None:
    """Refuse the description of a network that is far larger than any published one, before anything is built.

    Args:
        config: contents of a ``config.json``.
        path: path of the file, for errors.
        depth: depth of objects around it.

    Raises:
        CheckpointError: a side, width or number of layers beyond ``LARGEST``, or objects nested more than 20 deep.
    """
    if depth > 20:
        raise CheckpointError(f"{path}: objects lie more than 20 deep in each other; this describes no network")
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_config(value, path, depth + 1)
            continue
        limit = next((most for ending, most in LARGEST.items() if name.endswith(ending)), None)
        numbers = value if isinstance(value, list) else [value]
        if limit is None or not all(isinstance(number, int) for number in numbers):
            continue
        if len(numbers) > 256 or max(map(abs, numbers), default=0) > limit:
            told = str(numbers[:4])[1:-1] if isinstance(value, list) else value
            raise CheckpointError(f"{path}: {name} is {told}, and no network is built with more than {limit:,}")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is whole; an existing one is replaced.

    Args:
        path: where it appears.

    Raises:
        OutputError: it cannot be written; what was there before is still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        old = None
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            os.replace(path, old / "x")
        os.replace(temporary, path)
        if old is not None:
            shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


@dataclass(frozen=True)
class ModelInfo:
    """One line of ``emoedit models``.

    Args:
        name: name on the command line.
        role: its purpose.
        size: bytes.
        licence: SPDX or a short phrase.
        source: where it comes from.
        here: whether it can be used now without a network.
        memory: gigabytes of weights on a GPU; None for small models.
        needs: further arguments that it requires.
    """

    name: str
    role: str
    size: int
    licence: str
    source: str
    here: bool
    memory: float | None = None
    needs: str = ""


def list_small_models() -> list[ModelInfo]:
    """The embedded models, and the networks that measure and detect."""
    from importlib.util import find_spec

    models = []
    for name in embedded_names():
        folder = embedded_root() / name
        info = read_json(folder / EDITOR)
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        role, licence = info.get("role", "editor"), info.get("licence", "?")
        models.append(ModelInfo(name, role, size, licence, "embedded, trained by this project", True))
    for path in sorted(embedded_root().glob(f"*/{CONFIG}")):  # networks that measure; an editor's lie a folder deeper
        info = read_json(path)
        size = sum(part.stat().st_size for part in path.parent.glob("*.safetensors"))
        role, licence = info.get("role", "measuring network"), info.get("licence", "?")
        models.append(ModelInfo(path.parent.name, role, size, licence, "embedded, trained by this project", True))
    found = find_spec("facenet_pytorch")
    models.append(
        ModelInfo("mtcnn", "face detector", 1_994_000, "MIT", "inside the package facenet-pytorch", found is not None)
    )
    models += [
        ModelInfo("vggface2", "identity metric (full-size)", 111_900_000, "MIT", PUBLISHED, _fetched(VGGFACE2)),
        ModelInfo("lpips-alex", "perceptual distance (full-size)", 244_400_000, "BSD", PUBLISHED, _fetched(ALEX)),
    ]
    return models


def _fetched(name: str) -> bool:
    """Whether torch.hub's cache holds a file, without importing torch."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return (Path(home).expanduser() / "hub" / "checkpoints" / name).is_file()


def is_cached(repository: str) -> bool:
    """Whether the hub's cache holds weights of a model in the layout of diffusers.

    Args:
        repository: ``owner/name``.
    """
    from huggingface_hub import try_to_load_from_cache

    names = [
        f"{part}/{name}" if part else name for part in ("", "unet", "transformer") for name in PART_WEIGHTS["unet"]
    ]
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)

"""Where weights come from: embedded in this package, a local folder, or the Hugging Face hub; never by running code.

Weights are read from ``.safetensors`` only here; whoever has to read another format does it with a reader that builds
tensors and plain containers and nothing else.
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
from typing import TYPE_CHECKING, Any

from emoedit.emotions import fold_name, unknown_name
from emoedit.registry import EDITORS
from emoedit.types import CheckpointError, OutputError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"  # the name diffusers gives them
STEP = ":step"  # ends the name of what an 8-bit tensor's rows are multiplied by
EDITOR = "editor.json"
MAX_JSON = 2**24  # bytes of a description or a header; the largest published ones have 2 MB
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # safetensors' names
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
    """Names of the embedded editors that others are held against (``"reference": true`` in their ``editor.json``)."""
    return tuple(name for name in embedded_names() if read_json(embedded_root() / name / EDITOR).get("reference"))


def editor_names() -> tuple[str, ...]:
    """Names of the embedded editors to choose from: without the references."""
    references = reference_names()
    return tuple(name for name in embedded_names() if name not in references)


def locate(name_or_path: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """The folder of an editor or of a model in diffusers' layout.

    ``name_or_path`` is an embedded editor's name, a local folder, or ``owner/name`` on the hub (what of it is of use,
    ``FETCHED``, is downloaded and cached).

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
    """What a repository of the hub is, before its weights are downloaded: the first of ``TELLING`` it has.

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
        patterns: of paths in it, with ``*``.
        revision: default: the newest.

    Returns:
        The folder they lie in.

    Raises:
        CheckpointError: the hub does not give them.
    """
    return _snapshot(name, revision, patterns)


def _fetch(name: str, revision: str | None) -> Path:
    """The snapshot of a repository of the hub, in the hub's cache.

    Of each part's weights it holds one file, the best there is: safetensors, in half precision if there is no other, a
    pickle of tensors if there is nothing else.
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
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A json object.

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
        config: what a ``config.json`` holds.
        path: what errors call it.
        depth: of objects around it.

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


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header alone.

    Raises:
        CheckpointError: missing, damaged, a header of more than 16 MB, or complex, quantised or 8-bit floating numbers.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: this is no model folder, or its download stopped half-way")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_JSON, path.stat().st_size - 8):
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
        found = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in header.items() if name[:2] != "__"}
    except (ValueError, OSError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read: damaged or no safetensors file ({error})") from error
    if odd := [f"{name[:60]} ({kind})" for name, (kind, _) in found.items() if kind not in DTYPES]:
        raise CheckpointError(f"{path} cannot be read: it holds {odd[0]}; expected one of {', '.join(DTYPES)}")
    return {name: shape for name, (_, shape) in found.items()}


def check_shapes(expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare a safetensors file's header with what a model expects, before either takes memory.

    Args:
        expected: the state dict of the model, on the meta device.
        path: the file.

    Raises:
        CheckpointError: as ``check_state`` says it, or the file cannot be read.
    """
    found = read_shapes(path)
    bare = {name: shape for name, shape in found.items() if name.removesuffix(STEP) not in found or name[-5:] != STEP}
    _refuse(_misfits({name: tuple(value.shape) for name, value in expected.items()}, bare), path)


def check_size(skeleton: nn.Module, folder: Path) -> None:
    """Refuse a description whose network is far larger than the weights beside it.

    What a file lacks would be filled with random numbers.

    Args:
        skeleton: the network, on the meta device.
        folder: of the ``.safetensors`` files.

    Raises:
        CheckpointError: it has more than four times the numbers that the files can hold in half precision.
    """
    wanted = sum(value.numel() for value in skeleton.state_dict().values())
    have = sum(path.stat().st_size for path in folder.glob("*.safetensors")) // 2
    if wanted > 4 * have + 10_000_000:
        raise CheckpointError(
            f"{folder / CONFIG} describes a network of {wanted:,} numbers, and the weights beside it hold {have:,}"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; what ``write_part`` stored in 8 bits as the float32 it was.

    Raises:
        CheckpointError: missing, truncated, or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_shapes(path)  # refuses what the library would take
    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: damaged or no safetensors file ({error})") from error
    for name in [name for name in found if name + STEP in found]:
        step = found.pop(name + STEP).float()
        if step.shape != found[name].shape[:1]:
            raise CheckpointError(f"{path}: {name} is {tuple(found[name].shape)}, its steps are {tuple(step.shape)}")
        found[name] = found[name].float() * step.view(-1, *[1] * (found[name].ndim - 1))
    return found


def check_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path | str) -> None:
    """Compare a state dict with the one a model expects.

    Raises:
        CheckpointError: keys missing, unexpected, of another shape, or not finite, with the first few of each.
    """
    problems = _misfits(*({name: tuple(value.shape) for name, value in state.items()} for state in (expected, found)))
    for name in sorted(expected.keys() & found.keys()):
        if expected[name].shape == found[name].shape and not bool(found[name].isfinite().all()):
            problems.append(f"{name} holds values that are not finite")
    _refuse(problems, path)


def _misfits(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    problems = []
    for title, names in (("missing", expected.keys() - found.keys()), ("unexpected", found.keys() - expected.keys())):
        if names:
            told = ", ".join(name[:80] for name in sorted(names)[:4])
            problems.append(f"{len(names)} {title} ({told}{', …' if len(names) > 4 else ''})")
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            problems.append(f"{name} is {found[name]}, expected {expected[name]}")
    return problems


def _refuse(problems: list[str], path: Path | str) -> None:
    if problems:
        rest = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise CheckpointError(f"{path} does not fit: {'; '.join(problems[:6])}{rest}")


def write_part(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    weights: str = WEIGHTS,
    eight_bits: bool = False,
) -> None:
    """``config.json`` and the weights (safetensors, of that file name) in a folder (made if need be).

    Args:
        folder: where it is.
        config: how it is made.
        state: tensors by name.
        weights: tensors by name.
        eight_bits: what ``round_rows`` rounded takes a quarter of the space; for files that only ``read_weights`` is to
            read.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    compact = {k: part for name, v in state.items() for k, part in _compact(name, v.detach().cpu(), eight_bits).items()}
    save_file(compact, folder / weights, {"format": "pt"})
    (folder / weights).chmod(0o644)  # safetensors writes for the owner alone


def round_rows(tensor: Tensor) -> Tensor:
    """Weights rounded to 255 equal steps a row (an output channel), symmetric around 0.

    Jacob et al. 2018 (arXiv 1712.05877), section 2.1. ``write_part`` then stores them in 8 bits. What is rounded once
    stays as it is.

    Args:
        tensor: ``[O, ...]`` floats.

    Returns:
        float32 of the same shape.
    """
    steps, unit = _rows(tensor)
    return steps * unit


def round_weights(module: nn.Module) -> None:
    """Round a trained model once and for all.

    Matrices and convolutions as ``round_rows`` does, all else (biases, norms, buffers) to half precision.
    """
    weights = {id(value) for value in module.parameters() if value.ndim > 1}
    for value in (*module.parameters(), *module.buffers()):
        if value.is_floating_point():
            value.data = (round_rows(value) if id(value) in weights else value.half()).to(value.dtype)


def _rows(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, ``[O, ...]``, and their unit a row, ``[O, 1, ...]``; both float32."""
    weights = tensor.detach().float()
    # In bfloat16, so that unit times step is exact and the unit of what is rounded already is found again.
    unit = (weights.flatten(1).abs().amax(1) / 127).bfloat16().float().view(-1, *[1] * (weights.ndim - 1))
    return (weights / unit.where(unit > 0, 1)).round().clamp(-127, 127), unit


def _compact(name: str, tensor: Tensor, eight_bits: bool) -> dict[str, Tensor]:
    """The tensor as it is stored, in half precision or 8 bits if that loses nothing.

    With 8 bits the rows' steps stand beside it. Weights that were rounded on purpose take half or a quarter of the
    space.
    """
    if tensor.is_floating_point():
        half = tensor.half()
        if bool((half.to(tensor.dtype) == tensor).all()):
            tensor = half
        elif eight_bits and tensor.ndim > 1:
            steps, unit = _rows(tensor)
            if bool((steps * unit == tensor).all()):
                return {name: steps.char().contiguous(), name + STEP: unit.flatten().bfloat16()}
    return {name: tensor.contiguous().clone()}  # two names of one tensor are refused by safetensors


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is whole; an existing one is replaced.

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
        name: what to ask for.
        role: what it does.
        size: bytes.
        licence: SPDX or a short phrase.
        source: where it comes from.
        here: whether it can be used now without a network.
        memory: gigabytes of weights on a GPU; None for small models.
        needs: what has to be given with it.
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
        ModelInfo("vggface2", "judge of identity (full-size)", 111_900_000, "MIT", PUBLISHED, _fetched(VGGFACE2)),
        ModelInfo("lpips-alex", "perceptual distance (full-size)", 244_400_000, "BSD", PUBLISHED, _fetched(ALEX)),
    ]
    return models


def _fetched(name: str) -> bool:
    """Whether torch.hub's cache holds a file, without importing torch."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return (Path(home).expanduser() / "hub" / "checkpoints" / name).is_file()


def is_cached(repository: str) -> bool:
    """Whether the hub's cache holds weights of a model in the layout of diffusers."""
    from huggingface_hub import try_to_load_from_cache

    names = [
        f"{part}/{name}" if part else name for part in ("", "unet", "transformer") for name in PART_WEIGHTS["unet"]
    ]
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)

"""Editors as folders: ``editor.json`` says what an editor is made of, a folder beside it holds each part."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emoedit.io import checkpoints
from emoedit.registry import BACKBONES, STEERINGS, Registry
from emoedit.types import CheckpointError, EditError, EmoEditError

if TYPE_CHECKING:
    from emoedit.editors import Editor
    from emoedit.models.base import Backbone
    from emoedit.steering.base import Steering


def write_editor(
    editor: Editor,
    folder: Path,
    *,
    card: str | None,
    backbone_of: str | os.PathLike[str] | None,
    info: Mapping[str, Any],
) -> Path:
    """Write what ``read_parts`` reads; arguments, result and errors are ``Editor.save_pretrained``'s.

    Args:
        editor: the editor that is written.
        folder: path of the folder.
        card: the model card (Markdown).
        backbone_of: another editor with the same backbone.
        info: more entries of ``editor.json``.

    Returns:
        The folder.

    Raises:
        EditError: a part of no registered class; another backbone than that of ``backbone_of``.
        OutputError: it cannot be written.
    """
    backbone = editor.backbone
    part: dict[str, Any] = {"kind": _kind(BACKBONES, backbone), "folder": "backbone"}
    if backbone.source is not None:
        part = {"kind": part["kind"], **backbone.source, "settings": _settings(backbone)}
    if backbone_of is not None:
        part = {"kind": part["kind"], "editor": os.fspath(backbone_of), "settings": _beside(backbone, backbone_of)}
    with checkpoints.new_folder(folder) as new:
        if part.get("folder"):
            backbone.save_pretrained(new / "backbone")
        kinds = []
        for number, steering in enumerate(editor.steerings):
            kinds.append({"kind": _kind(STEERINGS, steering), "folder": f"steering_{number}"})
            steering.save_pretrained(new / f"steering_{number}")
        description = {
            "name": editor.name,
            "backbone": part,
            "steerings": kinds,
            "compositor": editor.compositor,
            **({} if editor.units is None else {"units": editor.units.sums}),
            "emotions": list(editor.emotions),
            "role": "emotion editor",
            "licence": "unknown",
            **info,
            "sha256": {
                p.relative_to(new).as_posix(): checkpoints.sha256(p) for p in sorted(new.rglob("*.safetensors"))
            },
        }
        text = card or f"# {editor.name}\n\nAn emoedit editor: {description['role']}.\n"
        (new / "README.md").write_text(text, encoding="utf-8")
        (new / checkpoints.EDITOR).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return folder


def read_parts(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, backbone: str | None = None
) -> tuple[Backbone, list[Steering], dict[str, Any]]:
    """The parts of an editor that lies in a folder; arguments and errors are ``Editor.from_pretrained``'s.

    Args:
        name_or_path: an embedded name, a folder, or ``owner/name`` on the hub.
        revision: revision of a repository on the hub.
        backbone: where the weights are, of an editor that names a model.

    Returns:
        The backbone, the steerings, and what ``editor.json`` says (``name``, ``compositor``, ...).

    Raises:
        UnknownNameError: no such name.
        CheckpointError: not there, damaged, or another format.
    """
    folder = checkpoints.locate(name_or_path, revision=revision)
    description = _checked(folder)
    try:
        steerings = [STEERINGS.get(p["kind"]).from_pretrained(folder / p["folder"]) for p in description["steerings"]]
        part, _ = description["backbone"], description["name"]
        model = _backbone(folder, part if backbone is None else {**part, "source": backbone})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / checkpoints.EDITOR} lacks or garbles an entry: {error}") from error
    return model, steerings, description


def upload(editor: Editor, repo_id: str, *, private: bool, token: str | None, card: str | None) -> str:
    """Upload an editor to the Hugging Face hub.

    Args:
        editor: the editor that is uploaded.
        repo_id: ``owner/name``.
        private: whether a new repository is.
        token: token of the hub; None for the one that is stored.
        card: the model card (Markdown).

    Returns:
        The address of the commit.
    """
    import tempfile

    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        editor.save_pretrained(Path(folder) / "editor", card=card)
        return str(api.upload_folder(repo_id=repo_id, folder_path=Path(folder) / "editor"))


def _settings(backbone: Backbone) -> dict[str, Any]:
    """A backbone's settings of sampling, and those its weights were read with."""
    config = backbone.to_config()
    read_with = (backbone.source or {}).get("settings", {})
    sampled = {name: config[name] for name in backbone.settings if name in config and name != "precision"}
    return {**read_with, **sampled}


def _beside(backbone: Backbone, other: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of sampling in which a backbone differs from another editor's.

    Raises:
        EditError: the backbones differ in more.
    """
    shared = read_parts(other)[0]
    own, found = backbone.state_dict(), shared.state_dict()
    same = type(shared) is type(backbone) and own.keys() == found.keys()
    if not same or not all(torch.equal(own[name].cpu(), found[name]) for name in own):
        raise EditError(f"the backbone of {other} has other weights: save this editor with its own")
    before, now = shared.to_config(), backbone.to_config()
    changes = {name: now[name] for name in now if now[name] != before[name]}
    shared.with_sampling(**changes)  # refuses what is no setting of sampling
    return changes


def _checked(folder: Path) -> dict[str, Any]:
    """What a folder's ``editor.json`` says, its weights compared with their checksums.

    Raises:
        CheckpointError: missing or damaged.
    """
    description = checkpoints.read_json(folder / checkpoints.EDITOR)
    sums = description.get("sha256", {})
    if not isinstance(sums, dict):
        raise CheckpointError(f"{folder / checkpoints.EDITOR}: 'sha256' must be an object, found {sums!r}")
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: the folder or its download is incomplete")
        if checkpoints.sha256(path) != expected:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 differs from the one in {checkpoints.EDITOR}; get it again"
            )
    return description


def _backbone(folder: Path, part: dict[str, Any]) -> Backbone:
    """A backbone of its own, or another editor's at other settings.

    Raises:
        CheckpointError: missing or damaged; the other editor shares one itself; settings that it does not have.
    """
    if "source" in part:
        from emoedit.full_size import load_backbone  # only where weights are not the folder's own

        return load_backbone(part["kind"], part["source"], part.get("settings", {}), revision=part.get("revision"))
    if "editor" not in part:
        return BACKBONES.get(part["kind"]).from_pretrained(folder / part["folder"])
    owner = checkpoints.locate(part["editor"])
    found = _checked(owner)["backbone"]
    if "editor" in found or found["kind"] != part["kind"]:
        raise CheckpointError(
            f"{folder / checkpoints.EDITOR} needs the {part['kind']} of {part['editor']}, which has none"
        )
    backbone = BACKBONES.get(part["kind"]).from_pretrained(owner / found["folder"])
    try:
        return backbone.with_sampling(**part["settings"])
    except EditError as error:
        raise CheckpointError(f"{folder / checkpoints.EDITOR}: {error}") from error


def _kind(registry: Registry[type], part: Any) -> str:
    """The registered name of a part's class."""
    for name in registry.names():
        try:
            if registry.get(name) is type(part):
                return name
        except EmoEditError:  # a plugin that cannot be imported: not this part's class, which has been
            continue
    raise EditError(f"{type(part).__name__} is not registered (emoedit.registry), so a folder could not name it")

"""Asyrp's smiling direction on CelebA-HQ, trained in the published order (Kwon et al. 2023, arXiv 2210.10960).

    python experiments/reproduce_asyrp_celebahq.py pictures=/path/to/celeba-hq
    python experiments/reproduce_asyrp_celebahq.py pictures=/path published=smiling_...pth   # compares the two
    python experiments/reproduce_asyrp_celebahq.py pictures=/path emotion=surprised t_edit=null
    python experiments/reproduce_asyrp_celebahq.py pictures=/path count=8 held_out=0   # a short trial

It writes a file of the authors' layout, which ``emoedit edit --editor celebahq --shift happy=FILE`` takes, and
``report.json`` beside it. The authors' run takes 20 minutes on three RTX 3090; the paper trains on 1000 pictures, their
script on 100.

Expected with ``published``: a cosine of the two shifts far above 0. The ``directional`` similarity is the raw cosine in
CLIP's space, which stays far below the paper's S_dir (docs/metrics.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from emoedit.editors import Editor
from emoedit.emotions import get
from emoedit.evaluation.shifts import record_shifts
from emoedit.full_size import load_backbone
from emoedit.io.output import write_json
from emoedit.metrics.clip import Clip, directional_similarity
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.models.devices import choose_device
from emoedit.steering.hspace import HSpace
from emoedit.training.asyrp import (
    SOURCE,
    AsyrpTraining,
    block_name,
    find_interval,
    text_cosine,
    train_block,
    write_block,
)
from emoedit.training.tokens import read_faces
from emoedit.types import DataError, Edit
from lib.running import run


def interval_of(backbone: DDPMBackbone, x: Tensor, cosine: float, trunk: str | None) -> int:
    """``t_edit`` by LPIPS (alex) on pictures ``[N, C, R, R]``."""
    from emoedit.metrics.lpips import LPIPSDistance

    lpips = LPIPSDistance("alex", trunk)
    return find_interval(backbone, x, lambda a, b: lpips(a.clamp(-1, 1).cpu(), b.clamp(-1, 1).cpu()), cosine)


def read_lines(path: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return [line.strip() for line in Path(path).expanduser().read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"templates={path} cannot be read: {error}") from error


def measure_editor(editor: Editor, clip: Clip, emotion: str, x: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Measure an editor on held-out pictures.

    Args:
        editor: shifts h.
        clip: the CLIP that measures.
        emotion: its name.
        x: ``[N, C, R, R]`` in [-1, 1].

    Returns:
        The mean shift at each timestep ``[T, Ch, h, w]``; and ``directional``, the raw cosine in CLIP's space.
    """
    _, shifts, drawn = record_shifts(editor, editor.invert(x), Edit(emotion))
    texts = clip.text_embeddings([SOURCE, get(emotion).phrase])
    with torch.no_grad():
        before, after = (clip.image_embeddings(p.clamp(-1, 1)) for p in (x, drawn))
    count = len(x)
    found = directional_similarity(before, after, texts[:1].expand(count, -1), texts[1:].expand(count, -1))
    return shifts.mean(0), {"directional": float(found.mean())}


def reproduce(config: dict[str, Any]) -> Path:
    """Train, write and measure the shifts; returns the file."""
    emotion, how, output = get(config["emotion"]).name, AsyrpTraining(**config["training"]), Path(config["output"])
    device = choose_device(config["device"])
    settings = {name: config[name] for name in ("steps", "t_last", "t_boost")}
    settings["t_edit"] = 0 if config["t_edit"] is None else config["t_edit"]
    backbone = load_backbone("ddpm", config["model"], settings).to(device).eval().requires_grad_(False)
    clip = Clip.from_pretrained(config["clip"]).to(device)
    x = read_faces(config["pictures"], backbone, limit=config["count"] + config["held_out"]).to(device)
    if len(x) <= config["held_out"]:
        raise DataError(f"{len(x)} pictures, of which {config['held_out']} are held out: none is left to train on")
    seen, held = x[: len(x) - config["held_out"]], x[len(x) - config["held_out"] :]
    cosine = text_cosine(clip, emotion)
    if config["t_edit"] is None:
        backbone = backbone.with_sampling(t_edit=interval_of(backbone, seen[:100], cosine, config["lpips_trunk"]))
    templates = ["{}"] if config["templates"] is None else read_lines(config["templates"])
    with tqdm(total=how.epochs * -(-len(seen) // how.batch_size), desc="train", disable=None) as bar:
        block, history = train_block(
            *(backbone, clip, emotion, seen, how),
            templates=templates,
            callback=lambda done, _: bar.update(done - bar.n),
        )
    file = output / block_name(emotion, backbone, how.epochs)
    write_block(file, block, overwrite=True)
    report = {
        "emotion": emotion,
        "texts": [SOURCE, get(emotion).phrase],
        "templates": len(templates),
        "text_cosine": cosine,
        "t_edit": backbone.config.t_edit,
        "pictures": len(seen),
        "losses": history,
    }
    if len(held):
        report |= measured(backbone, clip, emotion, held, {"trained": file, "published": config["published"]})
    write_json(output / "report.json", report, overwrite=True)
    print(f"wrote {file}: emoedit edit PHOTO --editor celebahq --model {config['model']} --shift {emotion}={file}")
    return file


def measured(
    backbone: DDPMBackbone, clip: Clip, emotion: str, x: Tensor, files: dict[str, Any]
) -> dict[str, float | dict[str, float]]:
    """Measures of files of shifts on held-out pictures, by name; and the cosine of the two."""
    shifts, found = {}, {}
    for name, file in files.items():
        if file is not None:
            editor = Editor(backbone, [HSpace.from_asyrp({emotion: file}).to(backbone.device)], name=name)
            shifts[name], found[name] = measure_editor(editor, clip, emotion, x)
    if "published" in shifts:
        rows = (shifts[name].flatten(1) for name in ("trained", "published"))
        found["cosine_of_shifts"] = float(F.cosine_similarity(*rows).mean())
    return found


@hydra.main(version_base="1.3", config_path="../configs", config_name="reproduce_asyrp_celebahq")
def main(config: DictConfig) -> None:
    reproduce(OmegaConf.to_container(config, resolve=True))


if __name__ == "__main__":
    run(main)

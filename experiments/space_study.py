"""The emotion space beside mixtures of basic emotions, on held-out people.

    python experiments/space_study.py data.root=/path/to/data      # writes docs/emotion-space.md

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from emoedit.editors import load_editor
from emoedit.emotions import BASIC, canonical
from emoedit.evaluation.cases import Case, read_cases
from emoedit.faces.align import align
from emoedit.faces.detect import Face
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io import checkpoints
from emoedit.io.images import load_picture, save_picture
from emoedit.photo import OpenPhoto, PhotoEditor
from emoedit.report.grid import labelled_grid
from emoedit.training.prepare import split_of
from emoedit.training.recipes import HELD_OUT
from emoedit.training.space import js_divergence, mixture_votes, nearest_votes
from emoedit.training.votes import FERPLUS, distribution, read_ferplus
from emoedit.types import CropSpec, Edit
from lib.running import run

LEAST_CONTEMPT = 4  # of ten people who have to see contempt for a picture to show it
SMOOTH = 3.0  # times the median step of a path that its largest step may be
CELL = 224


def votes_for(config: DictConfig, targets: Sequence[str]) -> dict[str, Tensor]:
    """Target -> the mean votes to be reached, ``[7]`` in the order of ``BASIC``."""
    path = Path(config.data.root) / config.data.sets.fer2013.path
    samples = read_ferplus(path)
    held = [s for s in samples if split_of("fer2013", s.name, s.person) in HELD_OUT]
    shares = torch.tensor(np.array([distribution(sample.votes) for sample in held]), dtype=torch.float32)
    shares = shares[shares.sum(1) > 0]
    found = {}
    for name in targets:
        if canonical(name) == "contempt":  # people could vote for it
            found[name] = contempt_votes(path)
        else:
            found[name] = shares[nearest_votes(shares, mixture_votes(name), config.votes)].mean(0)
    return found


def contempt_votes(path: Path) -> Tensor:
    """What else people saw in the pictures in which at least ``LEAST_CONTEMPT`` of them saw contempt."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["contempt"]) >= LEAST_CONTEMPT]
    counts = torch.tensor([[float(row[name]) for name in FERPLUS] for row in rows])
    return (counts / counts.sum(1, keepdim=True).clamp_min(1)).mean(0)


class Reader:
    """What is read of photographs: votes, identity, and the face's own pixels."""

    def __init__(self) -> None:
        self.expression, self.identity = EmbeddedNetwork.load("expression"), EmbeddedNetwork.load("identity")
        self.order = [list(self.expression.emotions).index(name) for name in BASIC]

    def votes(self, photo: np.ndarray, face: Face) -> Tensor:
        """``[7]``."""
        return self.expression.scores(self.expression.faces(photo, face)[None])[0, self.order].cpu()

    def person(self, photo: np.ndarray, face: Face) -> Tensor:
        """``[D]``, of length 1."""
        found = self.identity.embed(self.identity.faces(photo, face)[None])[0].cpu()
        return found / found.norm()


def people(config: DictConfig) -> list[Case]:
    root = Path(config.data.root)
    london = read_cases(root / "london-pairs", split="test")[: config.people.london]
    return london + read_cases(root / "portraits")[: config.people.portraits]


def measured(
    config: DictConfig, name: str, targets: dict[str, Tensor], cases: list[Case], strengths: Sequence[float]
) -> list[dict]:
    """A row for every person, target and strength; rows that are there already are not made again."""
    path = Path(config.work) / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    done = {row["person"] for row in rows}
    photo_editor, reader = PhotoEditor(load_editor(name, device="cpu")), Reader()
    edits = [Edit(target, float(strength)) for target in targets for strength in strengths]
    for case in cases:
        if str(case.photo) in done:
            continue
        opened = photo_editor.open(case.photo, edits=edits)
        face, source = opened.faces[0], opened.picture.rgb
        before, person = reader.votes(source, face), reader.person(source, face)
        fresh = []
        for edit, result in zip(edits, photo_editor.edit(opened, edits), strict=True):
            photo = load_picture(result.image).rgb
            wanted = targets[edit.emotion]
            fresh.append({
                "person": str(case.photo),
                "target": edit.emotion,
                "strength": edit.strength,
                "divergence": float(js_divergence(reader.votes(photo, face), wanted)),
                "before": float(js_divergence(before, wanted)),
                "identity": float(reader.person(photo, face) @ person),
            })  # fmt: skip
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in fresh)
        rows += fresh
        print(name, case.photo, flush=True)
    return rows


def steps_of(photo_editor: PhotoEditor, opened: OpenPhoto, edits: Sequence[Edit]) -> np.ndarray:
    """How much each picture of a path differs from the one before it: mean absolute difference in the face's crop."""
    crop = align(opened.faces[0].landmarks, CropSpec(192, "stable", 0.66, 0.074))
    frames = [crop.crop(load_picture(result.image).rgb).astype(float) for result in photo_editor.edit(opened, edits)]
    return np.array([np.abs(b - a).mean() for a, b in zip(frames, frames[1:], strict=False)])


def paths(config: DictConfig, name: str, cases: list[Case]) -> dict[str, list[float]]:
    """Largest step over median step, of every path from neutral to a target and from each target to the next."""
    path = Path(config.work) / f"{name}-paths.json"
    if path.is_file():
        return json.loads(path.read_text())
    photo_editor, targets, ratios = PhotoEditor(load_editor(name, device="cpu")), list(config.targets), {}
    share = np.linspace(0, 1, config.paths.steps + 1)
    for case in cases[: config.paths.people]:
        opened = photo_editor.open(case.photo)
        walks = {f"neutral to {one}": [Edit(one, float(s)) for s in share] for one in targets}
        walks |= {
            f"{one} to {two}": [Edit(f"{1 - s:.4f} * {one} + {s:.4f} * {two}") for s in share]
            for one, two in zip(targets, targets[1:], strict=False)
        }
        for walk, edits in walks.items():
            found = steps_of(photo_editor, opened, edits)
            ratios.setdefault(walk, []).append(float(found.max() / max(np.median(found), 1e-6)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ratios))
    return ratios


def interval(values: np.ndarray) -> str:
    """The 95 % interval of the mean over people (bootstrap)."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(2000, len(values)))].mean(1)
    return f"[{np.percentile(means, 2.5):+.3f}, {np.percentile(means, 97.5):+.3f}]"


def at_identity(rows: list[dict], person: str, target: str, identity: float) -> float:
    """The divergence of a person's edits where so much of the person is kept, linear between strengths."""
    own = sorted((r for r in rows if (r["person"], r["target"]) == (person, target)), key=lambda r: r["strength"])
    points = [(1.0, own[0]["before"]), *((row["identity"], row["divergence"]) for row in own)]
    order = sorted(points)
    return float(np.interp(identity, [p[0] for p in order], [p[1] for p in order]))


def table(mixed: list[dict], points: list[dict], targets: Sequence[str], strength: float) -> list[str]:
    """Divergence and identity by target, and the difference at equal identity."""
    lines = ["| target | source | mixture | point | point at the mixture's identity | difference |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    everybody: dict[str, list[float]] = {}
    for target in targets:
        pair = [[r for r in rows if r["target"] == target and r["strength"] == strength] for rows in (mixed, points)]
        mean = [(np.mean([r["divergence"] for r in rows]), np.mean([r["identity"] for r in rows])) for rows in pair]
        equal = np.array([at_identity(points, r["person"], target, r["identity"]) for r in pair[0]])
        differences = equal - np.array([r["divergence"] for r in pair[0]])
        for row, difference in zip(pair[0], differences, strict=True):
            everybody.setdefault(row["person"], []).append(float(difference))
        before = np.mean([r["before"] for r in pair[0]])
        lines.append(
            f"| {target} | {before:.3f} | {mean[0][0]:.3f} / {mean[0][1]:.2f} | {mean[1][0]:.3f} / {mean[1][1]:.2f} "
            f"| {equal.mean():.3f} | {differences.mean():+.3f} {interval(differences)} |"
        )
    overall = np.array([np.mean(values) for values in everybody.values()])
    lines.append(f"| mean | | | | | {overall.mean():+.3f} {interval(overall)} |")
    return lines


def sheet(config: DictConfig, editors: Sequence[str], path: Path) -> None:
    """People who may be shown: the photograph, and each target as a mixture and as a point of the space."""
    root, pictures, labels = Path(config.data.root) / "london-pairs" / "neutral", [], []
    for person in config.shown:
        for editor in editors:
            photo_editor = PhotoEditor(load_editor(editor, device="cpu"))
            opened = photo_editor.open(root / f"{person}.jpg")
            crop = align(opened.faces[0].landmarks, CropSpec(CELL, "stable", 1.0, 0.0))
            pictures.append(Image.fromarray(crop.crop(opened.picture.rgb)))
            labels.append(editor)
            for result in photo_editor.edit(opened, [Edit(target) for target in config.targets]):
                pictures.append(Image.fromarray(crop.crop(load_picture(result.image).rgb)))
                labels.append(result.edit.emotion)
    grid = labelled_grid(pictures, labels, columns=1 + len(config.targets), cell=CELL)
    save_picture(grid, path, overwrite=True, quality=82)


def page(config: DictConfig, found: dict[str, Any], targets: dict[str, Tensor], counts: dict[str, int]) -> str:
    """``docs/emotion-space.md``, by the template beside the cards."""
    text = (Path(__file__).parent / "cards" / "emotion_space_page.md").read_text("utf-8")
    votes = ["| target | " + " | ".join(BASIC) + " |", "|---|" + "---|" * len(BASIC)]
    votes += [f"| {name} | " + " | ".join(f"{v:.2f}" for v in row.tolist()) + " |" for name, row in targets.items()]
    parts = []
    for base, point in config.pairs.items():
        rows = [found[name] for name in (base, point)]
        parts += ["", f"`{base}` (mixture) and `{point}` (point), {counts[base]} people:", ""]
        parts += table(*rows, list(targets), 1.0)
    smooth = ["| editor | paths | largest step over median, median | worst | above three |", "|---|---|---|---|---|"]
    for name, ratios in found["paths"].items():
        values = np.array([value for each in ratios.values() for value in each])
        smooth.append(f"| `{name}` | {len(values)} | {np.median(values):.2f} | {values.max():.2f} "
                      f"| {int((values > SMOOTH).sum())} |")  # fmt: skip
    card = (checkpoints.embedded_root() / "emotion_space" / "README.md").read_text("utf-8")
    held_out = "\n".join(line for line in card.splitlines() if line.startswith("- "))
    filled = {"{votes}": votes, "{tables}": parts, "{paths}": smooth, "{space}": [held_out]}
    for mark, lines in filled.items():
        text = text.replace(mark, "\n".join(lines))
    return text


@hydra.main(version_base="1.3", config_path="../configs", config_name="space_study")
def main(config: DictConfig) -> None:
    targets, everybody, found, counts = votes_for(config, config.targets), people(config), {"paths": {}}, {}
    for base, point in config.pairs.items():
        slow = config.slow.get(base, {})
        some, strengths = slow.get("people", len(everybody)), list(slow.get("strengths", config.strengths))
        cases = everybody[:: -(-len(everybody) // some)][:some]  # of both sets
        for name in (base, point):
            found[name], counts[name] = measured(config, name, targets, cases, strengths), len(cases)
    for name in ("stylegan", "space"):
        found["paths"][name] = paths(config, name, everybody)
    sheet(config, ("stylegan", "space"), Path(config.pictures) / "emotion-space.jpg")
    Path(config.output).write_text(page(config, found, targets, counts), encoding="utf-8")


if __name__ == "__main__":
    run(main)

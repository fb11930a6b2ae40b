"""Ablation of the compositor: every part is left out in turn.

On held-out people, two things are measured. Edits of a real editor: how surely the emotion
is read at the identity that the whole compositor keeps, how sharp the face stays, and how long it takes. And an oracle
editor, whose output is the same person's true smile: how far the result is from the true photograph.

    python experiments/compositor_ablation.py data.root=/path/to/data      # writes docs/compositing.md

Expected: without `movement` the target falls or sharpness does; without `mouth` smiles are blurs; times below 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
from omegaconf import DictConfig
from PIL import Image

from emoedit.compositing.compositors import Compositor, compositor
from emoedit.evaluation.oracle import composite_errors, oracle_scene
from emoedit.io.images import load_picture, write_atomic
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.training.readers import read_pairs
from emoedit.types import CropSpec, Edit
from lib.running import run

WHOLE = "whole"
ROLES = {
    "movement": "moves the photograph's pixels as the drawing's move: near landmarks by these, elsewhere by flow",
    "skin": "restores edges that a soft drawing loses, and limits new ones to the strength of creases",
    "eyes": "keeps the light of irises and brows",
    "mouth": "keeps the lips' own light; draws the dark, a tongue and teeth where they part",
    "light": "gives a change of luminance its colours, at the photograph's own tones",
    "colour": "adds the change of colour of drawings in colour",
    "new_edges": "shows the drawing where it has edges that the photograph lacks",
    "front": "keeps what is in front of the face",
}
PANEL, COLUMNS = 240, 4  # pixels of a panel of the picture; panels in a row


def variants(made: Compositor) -> dict[str, Compositor]:
    """The compositor, the same without each of its parts, and the drawing in the photograph's place."""
    without = {f"without {name}": made.without(name) for name, _ in made.parts}
    return {WHOLE: made, **without, "replace": compositor("replace")}


def measure(
    editor: PhotoEditor, made: Mapping[str, Compositor], photo: Path, edits: Sequence[Edit], suite: Suite
) -> Iterator[dict[str, Any]]:
    """A row for every compositor and edit of a photograph."""
    picture = load_picture(photo)
    opened = editor.open(picture)
    subject = suite.subject(picture.rgb, opened.faces[0])
    for name, each in made.items():
        photos = PhotoEditor(editor.editor, detector=editor.detector, compositor=each)
        results = list(photos.edit(opened, edits))
        rows = suite.measure(subject, [np.asarray(r.image)[..., :3] for r in results], [e.emotion for e in edits])
        for edit, result, row in zip(edits, results, rows, strict=True):
            kept = {key: float(row[key]) for key in ("target_score", "identity", "sharpness_kept")}
            yield {
                "way": name,
                "emotion": edit.emotion,
                "strength": edit.strength,
                "seconds": result.seconds,
                **kept,
            }


def at_identity(rows: Sequence[Mapping[str, Any]], identity: float) -> float:
    """The target score where the mean identity is this one, between the strengths that were measured, and 0."""
    strengths = sorted({row["strength"] for row in rows})
    means = {
        key: [np.mean([row[key] for row in rows if row["strength"] == s]) for s in strengths]
        for key in ("identity", "target_score")
    }
    # From the strongest edit, which keeps least, to the weakest: identity grows.
    return float(np.interp(identity, means["identity"][::-1], means["target_score"][::-1]))


def ablation(rows: Sequence[Mapping[str, Any]], emotions: Sequence[str], names: Sequence[str]) -> list[str]:
    """A line for every compositor."""

    def of(name: str, **more: Any) -> list[Mapping[str, Any]]:
        return [row for row in rows if row["way"] == name and all(row[key] == value for key, value in more.items())]

    seconds = {name: np.mean([row["seconds"] for row in of(name)]) for name in names}
    floors = {e: np.mean([row["identity"] for row in of(WHOLE, emotion=e, strength=1.0)]) for e in emotions}
    lines = [f"| compositor | {' | '.join(emotions)} | sharpness kept | time |", "|---|" + "---|" * (len(emotions) + 2)]
    for name in names:
        scores = " | ".join(f"{at_identity(of(name, emotion=e), floors[e]):.2f}" for e in emotions)
        sharp = np.mean([row["sharpness_kept"] for row in of(name, strength=1.0)])
        lines.append(f"| {name} | {scores} | {sharp:.2f} | {seconds[name] / seconds[WHOLE]:.2f} |")
    found = ", ".join(f"{e} {floors[e]:.2f}" for e in emotions)
    return [*lines, "", f"Identity at which targets are compared: {found}."]


def oracle_lines(pairs: Sequence[Mapping[str, Path]], name: str, spec: CropSpec, channels: int) -> list[str]:
    """A line for every compositor, measured with an oracle editor."""
    ways = {"nothing": compositor(name).without(*[n for n, _ in compositor(name).parts]), **variants(compositor(name))}
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for pair in pairs:
        neutral, smile = (load_picture(pair[key]).rgb for key in ("neutral", "happy"))
        scene, true = oracle_scene(neutral, smile, spec, channels=channels)
        for way, made in ways.items():
            errors = composite_errors(made(neutral, scene)[0], neutral, true, scene.face.alignment, scene.face.masks)
            found[way].append((errors.colour_error, errors.error, errors.sharpness))
    lines = ["| compositor | colour error in the mouth | error | sharpness kept |", "|---|---|---|---|"]
    for way, values in found.items():
        colour, error, sharp = np.mean(values, 0)
        lines.append(f"| {way} | {colour:.2f} | {error:.2f} | {sharp:.2f} |")
    return lines


def layers(editor: PhotoEditor, edit: Edit) -> Image.Image:
    """The layers of one edit of a public portrait, side by side: after every part, what is in the photograph."""
    from skimage.data import astronaut

    photo = astronaut()
    opened = editor.open(photo, edits=[edit])
    x0, y0, x1, y1 = opened.faces[0].box
    middle, half = np.array([x0 + x1, y0 + y1]) / 2, 0.65 * max(x1 - x0, y1 - y0)
    panels = [photo]
    if opened.relaxed is not None:
        panels.append(opened.relaxed.rgb)
    parts = editor.compositor.parts
    for count in range(1, len(parts) + 1):
        made = replace(editor.compositor, parts=parts[:count])
        some = PhotoEditor(editor.editor, detector=editor.detector, compositor=made)
        panels.append(np.asarray(next(some.edit(opened, [edit])).image))
    left, top = (middle - half).round().astype(int).clip(0)
    cut = [p[top : top + round(2 * half), left : left + round(2 * half)] for p in panels]
    small = [cv2.resize(c, (PANEL, PANEL), interpolation=cv2.INTER_AREA) for c in cut]
    small += [np.full_like(small[0], 255)] * (-len(small) % COLUMNS)
    return Image.fromarray(np.vstack([np.hstack(small[n : n + COLUMNS]) for n in range(0, len(small), COLUMNS)]))


def description(config: DictConfig, parts: Sequence[str], shown: Edit) -> str:
    """What a compositor is and what its parts do, with the picture.

    Args:
        config: the ablation's.
        parts: names of the editor's own parts, in their order.
        shown: the edit that the picture shows.
    """
    picture = Path(config.picture).relative_to(Path(config.output).parent)
    roles = [f"| `{name}` | {ROLES[name]} |" for name in dict.fromkeys([*parts, "colour", "new_edges"])]
    return "\n".join(
        [
            "# Compositing",
            "",
            "A compositor puts a model's edit into a photograph. Its input is the photograph, the analysis of the",
            "face (`emoedit/faces/analysis.py`), and the model's reconstruction and edit. Its parts work one",
            "after the other on one value (`emoedit/compositing/composite.py`): a flow, a change of light, and layers.",
            "Then the result is rendered into the photograph's own pixels inside the face mask (`window.py`): the",
            "photograph's pixels move along the flow, the change is added, the layers are blended over them. Outside",
            "the mask no bit changes.",
            "",
            "A model's `editor.json` names its compositor and may change settings of its parts. `drawn` is for small",
            "models of luminance: all colour and detail are the photograph's, mouths are drawn by anatomy. `rgb` is",
            "for models of colour: the photograph plus the edit less the reconstruction. `moved` is for references",
            "that give their own flow; `replace` shows the model's output in the photograph's place; `added` adds the",
            "edit less the reconstruction to the photograph as it is, which compares models without the parts of a",
            "compositor (`--stage crop` of `compare` and `evaluate`).",
            "",
            "| part | what it does |",
            "|---|---|",
            *roles,
            "",
            "An edit that ends a smile starts from the photograph without it (`relaxing.py`): lips are brought",
            "together over the teeth (`closing.py`), and a small network tells how the same person's neutral face is",
            "made of the photograph's pixels: how they move, how their light changes, and the little that is drawn.",
            "",
            f"![The layers of one edit]({picture.as_posix()})",
            "",
            f"*One edit ({shown.emotion}, strength {shown.strength:g}): the photograph; the photograph without its",
            f"smile; and the result after each part in turn: {', '.join(parts)}. (NASA's portrait of Eileen",
            "Collins, public domain.)*",
            "",
        ]
    )


def results(config: DictConfig, tables: Mapping[str, Sequence[str]]) -> str:
    """The tables, with what they measure.

    Args:
        config: the ablation's.
        tables: lines of ``edits``, ``rgb`` and ``drawn``.
    """
    return "\n".join(
        [
            "## What each part is worth",
            "",
            f"Generated by `experiments/compositor_ablation.py` from {config.people} people marked `{config.split}`",
            "of the Face Research Lab London Set (DeBruine & Jones 2017, CC BY 4.0), held out of all training.",
            f"Edits of `{config.editor}`: the probability of the target, interpolated between strengths at the",
            "identity that the whole compositor keeps at strength 1; sharpness at strength 1, the photograph's",
            "being 1; time of an edit, the whole compositor's being 1, in the same run.",
            "",
            *tables["edits"],
            "",
            "## With an oracle editor",
            "",
            f"The same person's true smile is what the model draws ({config.perfect} of these people): what differs",
            "from the true photograph is the compositor's own error. Colour error: mean difference of a and b (CIE",
            "Lab) inside the mouth; error: mean absolute difference inside the mask, in grey levels.",
            "",
            f"A model of colour at {config.crops.colour} px, compositor `rgb`:",
            "",
            *tables["rgb"],
            "",
            f"A model of luminance at {config.crops.luminance} px, compositor `drawn`:",
            "",
            *tables["drawn"],
            "",
        ]
    )


@hydra.main(version_base="1.3", config_path="../configs", config_name="compositor_ablation")
def main(config: DictConfig) -> None:
    """Run the ablation and write its page and picture."""
    people: dict[str, dict[str, Path]] = {}
    for sample in read_pairs(Path(config.data.root) / "london-pairs"):
        if sample.split == config.split:
            people.setdefault(str(sample.person), {})[sample.emotion] = Path(sample.picture)
    chosen = [people[name] for name in sorted(people)[: config.people]]
    editor, suite = PhotoEditor(config.editor), Suite(identity="embedded", perceptual="embedded")
    edits = [Edit(emotion, strength) for emotion in config.emotions for strength in config.strengths]
    made = variants(editor.compositor)
    list(measure(editor, made, chosen[0]["neutral"], edits[:1], suite))  # what is loaded once is loaded before times
    rows = [row for pair in chosen for row in measure(editor, made, pair["neutral"], edits, suite)]
    luminance = CropSpec(config.crops.luminance, "stable", config.data.scale, config.data.down)
    tables = {
        "edits": ablation(rows, list(config.emotions), list(made)),
        "rgb": oracle_lines(chosen[: config.perfect], "rgb", CropSpec(config.crops.colour, "ffhq"), 3),
        "drawn": oracle_lines(chosen[: config.perfect], "drawn", luminance, 1),
    }
    shown = Edit("surprised")
    Path(config.picture).parent.mkdir(parents=True, exist_ok=True)
    layers(editor, shown).save(config.picture, quality=88)
    text = description(config, [name for name, _ in editor.compositor.parts], shown) + "\n" + results(config, tables)
    write_atomic(config.output, lambda file: file.write(text.encode()), overwrite=True)
    print(text)


if __name__ == "__main__":
    run(main)

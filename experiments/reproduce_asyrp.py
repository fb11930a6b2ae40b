"""Asyrp (Kwon et al. 2023, arXiv 2210.10960): the strips of its figure 1, how its interval is chosen (section 4), and
what it claims of h (section 5.3): one shift does the same to every face, a multiple does the multiple, and over the
timesteps it is nearly one direction.

    python experiments/reproduce_asyrp.py                      # the embedded model; a section of docs/reproductions.md
    python experiments/reproduce_asyrp.py models=full_size     # CelebA-HQ at 256 pixels and the published shifts
    python experiments/reproduce_asyrp.py people=photos        # other faces than drawn ones: numbers only
    python experiments/reproduce_asyrp.py parts=[interval]     # one part; the others stay as they are

Expected of the published models: t_edit 513 (smiling, sad, angry) with CLIP's cosines, 538 without; t_boost 167; strips
in which the same person smiles, is sad, angry, surprised and disgusted; for the shift of other faces the same
expression; for a random one of its length none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from emoedit import sampling
from emoedit.editors import Editor, list_editors
from emoedit.emotions import get
from emoedit.evaluation.compare import Entry, head_of
from emoedit.evaluation.shifts import (
    mean_cosine,
    pairwise_cosines,
    projection_onto,
    random_directions,
    record_shifts,
    with_directions,
)
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.metrics.suite import Suite
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.photo import OpenPhoto, PhotoEdit, PhotoEditor
from emoedit.steering.hspace import Directions
from emoedit.types import DataError, Edit, EditError, Inversion
from lib.lines import Panel, line_plot
from lib.reproductions import DRAWN, MissingEditorError, Page, open_editor, people, portrait, table
from lib.running import run

Row = dict[str, Any]
PUBLISHED = {"t_edit": 538, "t_boost": 167}  # CelebA-HQ at 256 pixels, LPIPS


def joined(opened: Sequence[OpenPhoto]) -> Inversion:
    """One inversion of many photographs."""
    extras = {name: torch.cat([o.inversion.extras[name] for o in opened]) for name in opened[0].inversion.extras}
    return Inversion(torch.cat([o.inversion.latent for o in opened]), extras)


def measured(editor: Editor, opened: Sequence[OpenPhoto], edits: Sequence[Edit], suite: Suite) -> list[list[Row]]:
    """For each photograph a row an edit, with its ``image``; one that fails has none, and its ``error``."""
    photos, found = PhotoEditor(editor), []
    for each in opened:
        subject, rows = suite.subject(each.picture.rgb, each.faces[0]), []
        for edit, made in zip(edits, photos.attempt(each, edits), strict=True):
            if not isinstance(made, PhotoEdit):
                rows.append({"image": None, "error": str(made)})
                continue
            (row,) = suite.measure(subject, [np.asarray(made.image.convert("RGB"))], [edit.emotion])
            rows.append({**row, "image": made.image, "error": None})
        found.append(rows)
    return found


@dataclass(frozen=True)
class Recording:
    """What one emotion at strength 1 adds to h of N faces, and changes of their pictures.

    Args:
        timesteps: T.  shifts: ``[N, T, C, h, w]``.  changes: ``[N, C, R, R]``.
    """

    timesteps: tuple[int, ...]
    shifts: Tensor
    changes: Tensor

    def mean(self, faces: int) -> Directions:
        """The mean shift of the first faces, at each timestep."""
        return Directions(self.shifts[:faces].mean(0).cpu(), self.timesteps)


class Faces:
    """Editor, photographs and metrics that all parts share.

    Args:
        editor: shifts h of a DDPM.  opened: the photographs, one face each.  suite: measures.
        emotions: names of the edited emotions.
    """

    def __init__(self, editor: Editor, opened: Sequence[OpenPhoto], suite: Suite, emotions: Sequence[str]) -> None:
        self.editor, self.opened, self.suite, self.emotions = editor, list(opened), suite, tuple(emotions)

    @cached_property
    def inversion(self) -> Inversion:
        """Of all of them."""
        return joined(self.opened)

    @cached_property
    def recordings(self) -> dict[str, Recording]:
        """What each of the emotions does at strength 1."""
        found = {}
        for name in self.emotions:
            times, shifts, drawn = record_shifts(self.editor, self.inversion, Edit(name))
            found[name] = Recording(times, shifts, drawn - self.inversion.extras["reconstruction"])
        return found

    def described(self, config: Mapping[str, Any]) -> str:
        """A sentence that names editor, faces and metric networks."""
        backbone, who = self.editor.backbone, self.suite.backends
        return (
            f" with `{self.editor.name}` ({backbone.crop.resolution} pixels, {backbone.steps} steps), on "
            f"{len(self.opened)} {whose(config)}. Expressions are read by the {who['expression_backend']} network, "
            f"identity by the {who['identity_backend']} one. More of this editor: [asyrp.md](asyrp.md)."
        )


def whose(config: Mapping[str, Any]) -> str:
    return "drawn people" if config["people"] == DRAWN else "photographs"


def mean(rows: Sequence[Row], key: str) -> float:
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else float("nan")


def strips(faces: Faces, config: Mapping[str, Any], page: Page) -> str:
    """Figure 1: every emotion on the same faces; numbers of all, pictures of those that may be shown."""
    edits, editor = [Edit(name) for name in config["emotions"]], faces.editor
    rows = measured(editor, faces.opened, edits, faces.suite)
    astronaut = [PhotoEditor(editor).open(portrait())]
    shown = list(zip(faces.opened, rows, strict=True))[: config["shown"]] if config["people"] == DRAWN else []
    cells: list[tuple[str, Image.Image]] = []
    for each, own in [*zip(astronaut, measured(editor, astronaut, edits, faces.suite), strict=True), *shown]:
        source, face = each.picture.to_pil(), each.faces[0]
        cells.append(("source", head_of(source, face)))
        for edit, row in zip(edits, own, strict=True):
            made = row["error"] is None
            label = edit.emotion if made else f"{edit.emotion}: failed"
            cells.append((label, head_of(row["image"] if made else source.convert("L"), face)))
    keys = ("target_score", "hit", "identity", "fold_free", "sharpness_kept")
    lines = [[edit.emotion, *(mean([own[k] for own in rows], key) for key in keys)] for k, edit in enumerate(edits)]
    return "\n\n".join(
        [
            "### Strips",
            f"{', '.join(get(edit.emotion).phrase for edit in edits)} at strength 1 (figure 1 of the paper). "
            f"Expected: the same person with each expression. Numbers are means over the {len(rows)} "
            f"{whose(config)}; of these, the "
            f"first {len(shown)} are shown, below the astronaut.",
            page.grid("strips", cells, columns=1 + len(edits)),
            table(["emotion", "target score", "read as it", "identity", "no folds", "sharpness kept"], lines),
        ]
    )


# The interval


def distance_of(name: str) -> tuple[str, Callable[[Tensor, Tensor], Tensor]]:
    """Who measures, and the distance of two batches ``[N, C, R, R]`` at the model's contrast."""
    from emoedit.metrics.lpips import LPIPSDistance

    if name == "lpips-alex" or name == "auto" and LPIPSDistance.available("alex"):
        lpips = LPIPSDistance("alex")
        return "LPIPS, alex", lambda a, b: lpips(a.clamp(-1, 1).cpu(), b.clamp(-1, 1).cpu())
    network = EmbeddedNetwork.load("perceptual").network
    side = network.config.resolution

    def distance(a: Tensor, b: Tensor) -> Tensor:
        grey = [x.clamp(-1, 1).mean(1, keepdim=True).cpu() for x in (a, b)]
        return network.distance(*(F.interpolate(x, (side, side), mode="bilinear", antialias=True) for x in grey))

    return "the embedded perceptual network", distance


def interval(faces: Faces, config: Mapping[str, Any], page: Page) -> str:
    """Section 4: LPIPS of the picture to P_t and to x_t over t, and where that puts the ends of editing."""
    editor, x = faces.editor, faces.inversion.extras["source"]
    who, distance = distance_of(config["perceptual"])
    backbone = editor.backbone
    times, predicted, noisy = backbone.distance_curves(x, distance)
    cosine = dict.fromkeys(config["emotions"], 1.0)
    if config["clip"] is not None:
        from emoedit.metrics.clip import Clip

        clip = Clip.from_pretrained(config["clip"])
        texts = clip.text_embeddings(["face", *(get(name).phrase for name in cosine)])
        cosine = {name: float(texts[0] @ text) for name, text in zip(cosine, texts[1:], strict=True)}

    def where(find: Callable[..., int], *arguments: Any) -> int | str:
        try:
            return find(times, *arguments)
        except EditError:
            return "never reached"

    lines = [["t_edit", name, value, 0.33 * value, where(sampling.find_t_edit, predicted, value)]
             for name, value in (cosine.items() if config["clip"] else [("all", 1.0)])]  # fmt: skip
    lines.append(["t_boost", "all", None, 1.2, where(sampling.find_t_boost, noisy)])
    across = {"0.33: t_edit": 0.33}
    drawing = line_plot(
        {
            "x and P_t": Panel({"P_t": (times, predicted)}, "t", "distance from the picture", across),
            "x and x_t": Panel({"x_t": (times, noisy)}, "t", "distance from the picture", {"1.2: t_boost": 1.2}),
        }
    )
    cosines_from = "of CLIP's text embeddings" if config["clip"] else "1, as no CLIP was given (`clip=`)"
    settings = backbone.config
    scale = (
        ""
        if who.startswith("LPIPS")
        else " The thresholds are LPIPS's, whose scale this is not (1 is the mean distance of two people): the curves "
        "have the shape, and the timesteps are no advice."
    )
    return "\n\n".join(
        [
            "### Where editing ends",
            f"Mean distance ({who}) between a face and P_t, and between it and x_t, over {len(x)} faces while they are "
            f"inverted (section 4 of the paper). Cosines: {cosines_from}.{scale} Published, "
            f"for CelebA-HQ at 256 pixels: t_edit "
            f"{PUBLISHED['t_edit']}, t_boost {PUBLISHED['t_boost']}. This editor ships with t_edit "
            f"{settings.t_edit} and t_boost {settings.t_boost}.",
            page.drawing("curves", drawing),
            table(["end", "emotion", "cosine", "threshold", "timestep"], lines),
        ]
    )


# Properties of h


def homogeneity(faces: Faces, config: Mapping[str, Any], page: Page) -> str:
    """The shift of some faces added to others; over time its mean; and a random one of its length."""
    editor, opened, suite, emotions = faces.editor, faces.opened, faces.suite, config["emotions"]
    half = len(opened) // 2
    seen = faces.recordings
    fitted = {name: each.mean(half) for name, each in seen.items()}
    generator = torch.Generator().manual_seed(0)
    averaged = {name: Directions(d.directions.mean(0, keepdim=True)) for name, d in fitted.items()}
    kinds = {
        "of other faces": fitted,
        "their mean over t": averaged,
        "random, as long": {name: random_directions(d, generator) for name, d in fitted.items()},
    }
    edits, others = [Edit(name) for name in emotions], opened[half:]
    results = {"its own": measured(editor, others, edits, suite)}
    for kind, directions in kinds.items():
        results[kind] = measured(with_directions(editor, directions, name=kind), others, edits, suite)
    before = [suite.measure(suite.subject(o.picture.rgb, o.faces[0]), [o.picture.rgb] * len(edits), emotions)
              for o in others]  # fmt: skip
    lines = []
    for k, name in enumerate(emotions):
        lines.append([name, "none", mean([rows[k] for rows in before], "target_score"), None, None])
        for kind, rows in results.items():
            column = [row[k] for row in rows]
            lines.append([name, kind, *(mean(column, key) for key in ("target_score", "hit", "identity"))])
    same = [[name, mean_cosine(each.shifts), mean_cosine(each.changes)] for name, each in seen.items()]
    apart = torch.stack([each.changes.mean(0) for each in seen.values()])
    return "\n\n".join(
        [
            "### The same shift on other faces",
            f"Shifts recorded on {half} faces and averaged, added to the other {len(others)} as they are. Expected: "
            "what "
            "a face's own shift does; a random direction of the same length does nothing of the kind.",
            table(["emotion", "shift", "target score", "read as it", "identity"], lines),
            "How alike are the shifts of different faces, and the changes they make (mean cosine between faces)? Where "
            "shifts are directions in closed form they are the same for all by construction, and 1. Between the mean "
            f"changes of different emotions the mean cosine is {mean_cosine(apart):.2f}.",
            table(["emotion", "shifts", "changes of the picture"], same),
        ]
    )


def linearity(faces: Faces, config: Mapping[str, Any], page: Page) -> str:
    """Changes at multiples of the shift, along the change at strength 1; and of two emotions at once."""
    editor, inversion = faces.editor, joined(faces.opened[: config["linear_faces"]])
    backbone = editor.backbone
    plain = Editor(backbone.with_sampling(t_boost=0), editor.steerings, name=editor.name)
    inversion = plain.invert(inversion.extras["source"])
    reconstruction = inversion.extras["reconstruction"]
    emotions, strengths = config["emotions"], config["strengths"]
    ones = dict(zip(emotions, plain.decode(inversion, [Edit(name) for name in emotions]), strict=True))
    lines = []
    for strength in strengths:
        drawn = plain.decode(inversion, [Edit(name, strength) for name in emotions])
        parts = [
            projection_onto(x - reconstruction, ones[e] - reconstruction) for e, x in zip(emotions, drawn, strict=True)
        ]
        cosine, length = (torch.cat(each) for each in zip(*parts, strict=True))
        lines.append([f"{strength:g}", float(cosine.mean()), float(length.mean())])
    first, *rest = emotions
    sums = []
    for other in rest:
        both = next(plain.decode(inversion, [Edit(f"{first} + {other}")])) - reconstruction
        cosine, length = projection_onto(both, ones[first] + ones[other] - 2 * reconstruction)
        sums.append([f"{first} + {other}", float(cosine.mean()), float(length.mean())])
    return "\n\n".join(
        [
            "### Multiples and sums of shifts",
            f"What an edit changes at each strength, beside what it changes at 1: cosine, and the length along it as a "
            f"multiple. Means over {len(inversion)} faces and {len(emotions)} emotions, without noise. Expected of a "
            "linear space: 1 (-1 for a negative one), and the strength.",
            table(["strength", "cosine", "length"], lines),
            "Two emotions at once, beside the sum of what each does. Expected: 1 and 1.",
            table(["edit", "cosine", "length"], sums),
        ]
    )


def over_time(faces: Faces, config: Mapping[str, Any], page: Page) -> str:
    """How the shift changes over the timesteps."""
    lengths, alike, lines = {}, {}, []
    for name, each in faces.recordings.items():
        directions = each.mean(len(faces.opened))
        moved = directions.directions.flatten(1).norm(dim=1) > 0  # some emotions end before the schedule's t_edit
        times, shifts = directions.timesteps[moved].int().tolist(), directions.directions[moved]
        to_mean = F.cosine_similarity(shifts.flatten(1), shifts.mean(0).flatten()[None], dim=1)
        lengths[name], alike[name] = (times, shifts.flatten(1).norm(dim=1).tolist()), (times, to_mean.tolist())
        table_ = pairwise_cosines(shifts)
        neighbours = float(table_.diagonal(1).mean()) if len(table_) > 1 else None
        lines.append([name, len(times), f"{times[0]} to {times[-1]}", neighbours, float(table_[0, -1]),
                      float(to_mean.mean())])  # fmt: skip
    drawing = line_plot(
        {
            "to the mean over t": Panel(alike, "t", "cosine"),
            "length": Panel(lengths, "t", "length of the shift of h"),
        }
    )
    header = ["emotion", "timesteps", "from", "neighbours", "first and last", "to the mean over t"]
    return "\n\n".join(
        [
            "### The shift over t",
            "Cosines between the shifts of one emotion at different timesteps. Expected: near 1 between neighbours, "
            "and the mean over t in place of all of them does nearly the same (the table above).",
            page.drawing("curves", drawing),
            table(header, lines),
        ]
    )


PARTS = {
    "strips": strips,
    "interval": interval,
    "other-faces": homogeneity,
    "linearity": linearity,
    "over-t": over_time,
}


def sections(config: dict[str, Any], page: Page) -> Iterator[tuple[Page, str]]:
    """Each wanted part with its place on the page: ``asyrp`` with the strips, ``asyrp-interval`` and so on."""
    intro = "## Asyrp\n\nBy `experiments/reproduce_asyrp.py`"
    if unknown := [name for name in config["parts"] if name not in PARTS]:
        raise DataError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    try:
        editor = open_editor(config["models"].get(config["editor"], config["editor"]), device=config["device"])
    except MissingEditorError as error:
        yield page, f"{intro}. The editor is {error}."
        return
    knows = Entry(editor.name, PhotoEditor(editor)).supports
    config["emotions"] = [name for name in config["emotions"] if knows(name)]
    if not config["emotions"] or not isinstance(editor.backbone, DDPMBackbone):
        yield page, f"{intro}. {editor.name} shows none of the emotions, or is no diffusion model of pictures."
        return
    drawing = open_editor("asyrp").backbone if "asyrp" in list_editors() else None
    cases = people(config["people"], config["count"], Path(config["work"]), backbone=drawing)
    if len(cases) < 2:
        raise DataError(f"{len(cases)} face: adding the shifts of one face to another needs two")
    photos = PhotoEditor(editor)
    faces = Faces(
        editor, [photos.open(case.photo) for case in cases], Suite(**config["metric_networks"]), config["emotions"]
    )
    for name in PARTS:
        if name in config["parts"]:
            start = intro + faces.described(config) if name == "strips" else ""
            own = Page(page.path, page.images, page.section if name == "strips" else f"{page.section}-{name}")
            yield own, "\n\n".join(part for part in (start, PARTS[name](faces, config, own)) if part)


@hydra.main(version_base="1.3", config_path="../configs", config_name="reproduce_asyrp")
def main(config: DictConfig) -> None:
    plain = OmegaConf.to_container(config, resolve=True)
    for page, text in sections(plain, Page(Path(plain["page"]), Path(plain["images"]), "asyrp")):
        page.write(text)


if __name__ == "__main__":
    run(main)

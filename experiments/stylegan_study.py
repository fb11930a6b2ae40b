"""Errors of StyleGAN inversion on new photographs, by stage: closed eyes, changed background, lost identity.

Three stages of inverting: the encoder, w+ optimised from there, pivotal tuning of a copy after that. Three ways to look
at each: what is drawn of the photograph without any edit, pasted into it as a whole square; edits pasted like that,
as GAN editors do; and edits pasted back as :class:`emoedit.PhotoEditor` does.

    python experiments/stylegan_study.py data.root=/path/to/data      # writes docs/stylegan-inversion.md

Stop it whenever you like; the same command goes on where it stopped.

Expected: squares close some eyes and change whatever background lies in them, at every stage; pasting does neither.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
from omegaconf import DictConfig

from emoedit.editors import Editor, load_editor
from emoedit.evaluation.cases import Case, read_cases
from emoedit.faces.align import Alignment
from emoedit.faces.tone import LUMA
from emoedit.io import checkpoints
from emoedit.io.images import load_picture, write_atomic, write_json
from emoedit.metrics.statistics import bootstrap
from emoedit.metrics.suite import Suite
from emoedit.models.stylegan2.inversion import InversionError, Losses
from emoedit.models.stylegan2.tuning import tune
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.photo import OpenPhoto, PhotoEditor
from emoedit.training.prepare import split_of
from emoedit.training.stylegan import inversion_losses
from emoedit.types import Edit, NoFaceError
from lib.running import run

STAGES = {"encoder": "encoder", "w_plus": "w+ optimised", "tuned": "pivotal tuning"}
WAYS = {"redrawn": "no edit, square", "square": "edits, square", "pasted": "edits, pasted"}
CLOSED = 0.1  # of eye height over width: eyes that lose more than this have closed (open ones have about .3)
WIDTH = 116  # of lines of the page
KEPT = ("eye_opening_change", "landmark_drift", "background_change", "identity", "perceptual", "target_score")


def embedded_losses() -> Losses:
    root = checkpoints.embedded_root()
    perceptual = PerceptualNetwork.from_pretrained(root / "perceptual")
    return inversion_losses(perceptual, MeasuringNetwork.from_pretrained(root / "identity"))


def paste_square(photo: np.ndarray, alignment: Alignment, drawn: np.ndarray) -> np.ndarray:
    """The photograph with the whole generated square pasted in; a grey square keeps the photograph's colour.

    Args:
        photo: uint8 ``[H, W, 3]``.  drawn: float32 ``[R, R]`` or ``[R, R, 3]``, 0 to 255.
    """
    size = photo.shape[1], photo.shape[0]
    inside = cv2.warpAffine(np.ones(drawn.shape[:2], np.float32), alignment.inverse, size, flags=cv2.INTER_NEAREST)
    new = cv2.warpAffine(drawn, alignment.inverse, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if new.ndim == 2:
        new = photo + (new - photo.astype(np.float32) @ LUMA)[..., None]
    return np.where(inside[..., None] > 0, np.rint(new).clip(0, 255), photo).astype(np.uint8)


def opened_stages(
    editor: Editor, picture: Any, face: Any, losses: Losses, steps: Mapping[str, int]
) -> Iterator[tuple[str, PhotoEditor, OpenPhoto, float]]:
    """Each stage: its name, an editor for it, the photograph opened with it, and the seconds it took.

    Raises:
        InversionError: w+ was not found, or tuning did not lower the loss; the earlier stages have been yielded.
    """
    backbone = editor.backbone.with_inversion(optimise_steps=0)
    for name, found in (
        ("encoder", backbone),
        ("w_plus", backbone.with_inversion(losses, optimise_steps=steps["w_plus"])),
    ):
        photos = PhotoEditor(Editor(found, editor.steerings, name=editor.name, compositor=editor.compositor))
        opened = photos.open(picture, face)
        yield name, photos, opened, opened.seconds
    start, inversion = time.perf_counter(), opened.inversion
    tuning = tune(backbone, inversion.extras["source"], inversion, losses=losses, steps=steps["tuning"])
    own = tuning.apply(backbone).requires_grad_(False)
    extras = {**inversion.extras, "reconstruction": own.decode(inversion)}
    seconds = opened.seconds + time.perf_counter() - start
    photos = PhotoEditor(Editor(own, editor.steerings, name=editor.name, compositor=editor.compositor))
    source = replace(opened.source, inversion=replace(inversion, extras=extras))
    yield "tuned", photos, replace(opened, source=source, relaxed=None), seconds


def study(
    editor: Editor, photo: Any, suite: Suite, losses: Losses, edits: Sequence[Edit], steps: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Rows of one photograph: a stage, a way, an emotion, numbers. A stage that fails is a row with ``error``.

    Raises:
        NoFaceError: there is none.
    """
    picture = load_picture(photo)
    rows: list[dict[str, Any]] = []
    face = PhotoEditor(editor).detector.choose(picture.rgb)[0]
    subject = suite.subject(picture.rgb, face)
    try:
        for stage, photos, opened, seconds in opened_stages(editor, picture.rgb, face, losses, steps):
            drawn = {
                "redrawn": [opened.inversion.extras["reconstruction"]],
                "square": list(photos.editor.decode(opened.inversion, edits)),
            }
            (alignment,), tone = opened.alignments, opened.source.faces[0].tone
            lifted = tone.lifted(picture.rgb)
            pictures = {
                way: [tone.restored(picture.rgb, lifted, paste_square(lifted, alignment, levels(x))) for x in found]
                for way, found in drawn.items()
            }
            start = time.perf_counter()
            pictures["pasted"] = [np.asarray(result.image)[..., :3] for result in photos.edit(opened, edits)]
            pasting = (time.perf_counter() - start) / len(edits)
            for way, found in pictures.items():
                meant = ["neutral"] if way == "redrawn" else [edit.emotion for edit in edits]
                for emotion, row in zip(meant, suite.measure(subject, found, meant), strict=True):
                    numbers = {key: row[key] for key in KEPT}
                    rows.append({"stage": stage, "way": way, "emotion": emotion, **numbers})
            rows.append({"stage": stage, "way": "time", "inversion": seconds, "edit": pasting})
    except InversionError as error:
        done = {row["stage"] for row in rows}
        rows += [{"stage": stage, "way": "error", "error": str(error)} for stage in STAGES if stage not in done]
    return rows


def levels(x: Any) -> np.ndarray:
    """``[1, C, R, R]`` in [-1, 1] as float32 ``[R, R]`` or ``[R, R, 3]``, 0 to 255."""
    found = ((x[0].float() + 1) * 127.5).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(found[..., 0] if found.shape[-1] == 1 else found)


def format_interval(rows: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    """Mean and 95 % interval over people."""
    values = [np.nan if row[key] is None else float(row[key]) for row in rows]
    found = bootstrap(values, [row["photo"] for row in rows])
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each stage and way."""
    lines = [
        "| stage | what is looked at | eyes closed | eyes, change | landmark drift | background | identity | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stage, title in STAGES.items():
        for way, what in WAYS.items():
            group = [
                {**row, "closed": float(row["eye_opening_change"] < -CLOSED)}
                for row in rows
                if (row["stage"], row["way"]) == (stage, way)
            ]
            if not group:
                continue
            cells = [
                f"{np.mean([row['closed'] for row in group]):.1%}",
                format_interval(group, "eye_opening_change", 3),
                format_interval(group, "landmark_drift", 3),
                format_interval(group, "background_change", 2),
                format_interval(group, "identity", 2),
                format_interval(group, "target_score", 2) if way != "redrawn" else "",
            ]
            lines.append(f"| {title} | {what} | {' | '.join(cells)} |")
    return lines


def page(rows: Sequence[Mapping[str, Any]], who: Mapping[str, str], config: Mapping[str, Any], editor: Editor) -> str:
    """The page, from the rows of all photographs."""
    photos = len({row["photo"] for row in rows})
    steps, times = config["steps"], [row for row in rows if row["way"] == "time"]
    failed = {
        title: len({row["photo"] for row in rows if (row["stage"], row["way"]) == (stage, "error")})
        for stage, title in STAGES.items()
    }
    about = (
        f"Generated by `experiments/stylegan_study.py` with `{editor.name}` ({editor.backbone.crop.resolution} px) "
        f"from {photos} neutral photographs of held-out people. Edits are "
        f"{', '.join(config['emotions'])} at strength {config['strength']:g}. w+ is optimised for {steps['w_plus']} "
        "steps from where the encoder starts (squared difference, embedded perceptual distance and identity); tuning "
        f"takes {steps['tuning']} steps."
    )
    columns = (
        "*Square*: the whole drawn crop replaces the photograph's pixels, as GAN editors do. *Pasted*: only the change "
        "is, through the face's mask. Eyes are closed where their height over width falls by more than "
        f"{CLOSED:g} (open ones have about .3); drift is of eye corners and nose, in eye distances; background is the "
        "root mean square change outside the face, in grey levels; identity a cosine; target the probability of the "
        "intended emotion. Means with 95 % intervals over people. Networks: "
        f"{', '.join(f'{name} {value}' for name, value in who.items())}."
    )
    failures = ", ".join(f"{title} {count} of {photos}" for title, count in failed.items())
    spent = []
    for stage, title in STAGES.items():
        inversion, edit = ([row[key] for row in times if row["stage"] == stage] for key in ("inversion", "edit"))
        if inversion:
            words = f"{np.median(inversion):.2f} s to open a photograph, {np.median(edit):.2f} s an edit after that"
            spent.append(f"- {title}: {words}")
    parts = [
        "# Inverting photographs with StyleGAN2, stage by stage",
        textwrap.fill(about, WIDTH),
        textwrap.fill(columns, WIDTH),
        "\n".join(table(rows)),
        f"Not found (an `InversionError`): {failures}.",
        "\n".join(["Median seconds:", "", *spent]),
    ]
    return "\n\n".join(parts) + "\n"


def people(config: DictConfig) -> Iterator[tuple[str, Case]]:
    """Neutral photographs of held-out people, each with a name for its file."""
    root = Path(config.data.root)
    folders = {name: root / config.data.sets[name].path for name in config.people}
    for name, folder in folders.items():
        count = config.people[name]
        if name == "london":
            cases = read_cases(folder, split="test")
        else:
            seen: dict[str, Case] = {}
            for case in read_cases(folder.parent if folder.suffix else folder):
                if split_of(name, case.name, case.person) == "valid":
                    seen.setdefault(case.person, case)
            cases = [seen[person] for person in sorted(seen)]
        for case in cases[:count]:
            yield f"{name}_{Path(case.name).stem}", case


@hydra.main(version_base="1.3", config_path="../configs", config_name="stylegan_study")
def main(config: DictConfig) -> None:
    from tqdm import tqdm

    editor, suite, losses = load_editor(config.editor), Suite(), embedded_losses()
    edits = [Edit(name, config.strength) for name in config.emotions]
    rows, work = [], Path(config.work)
    for name, case in tqdm(list(people(config)), unit="photo"):
        file = work / f"{name}.json"
        if not file.is_file():
            try:
                found = study(editor, case.photo, suite, losses, edits, config.steps)
            except NoFaceError:
                found = []
            write_json(file, {"rows": found})
        rows += [{**row, "photo": name} for row in checkpoints.read_json(file)["rows"]]
    text = page(rows, suite.backends, config, editor)
    write_atomic(config.output, lambda file: file.write(text.encode()), overwrite=True)
    print(text)


if __name__ == "__main__":
    run(main)

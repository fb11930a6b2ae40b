"""The figures 3.1 to 3.6 of the report that this project began with ("Emotion driven Image Synthesis", IIT Bombay, May
2024), each way of editing on one photograph.

    python experiments/reproduce_seed_report.py                      # embedded models; writes to docs/reproductions.md
    python experiments/reproduce_seed_report.py models=full_size     # published ones, from files in weights/
    python experiments/reproduce_seed_report.py photo=me.jpg page=me/page.md images=me

An editor that is not here yet has a section that says so, and so has the remote service (3.3, docs/remote.md) without a
key in STABILITY_API_KEY. With one, it is sent the faces, and every picture is paid for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from emoedit.editors import Editor, list_editors
from emoedit.evaluation.compare import Entry, compare, unedited_row
from emoedit.io.images import load_picture
from emoedit.metrics.suite import Suite
from emoedit.models.stability.client import KEY
from emoedit.photo import PhotoEditor
from lib.reproductions import DRAWN, MissingEditorError, Page, open_editor, people, portrait, table
from lib.running import run


@dataclass(frozen=True)
class Figure:
    """One of the report's.

    Args:
        number, title: in the report.
        editor: which of the configured models makes it.
        emotions: names of the edited emotions.
        expected: what the report shows, and what is to be seen here.
        strengths: how far; None for those of the config.
        key: environment variable of a service's key, without which it is skipped.
    """

    number: str
    title: str
    editor: str
    emotions: tuple[str, ...]
    expected: str
    strengths: tuple[float, ...] | None = None
    key: str | None = None


ALL = ("happy", "sad", "angry", "surprised", "fearful", "disgusted")
# `expected` is the picture to be seen, beside what the report shows.
FIGURES = (
    Figure("3.1", 'Textual inversion, "irritated"', "ti", ("irritated",),
           "The report's learned word is weak: the face hardly changes. Here the same person, mildly annoyed."),
    Figure("3.2", 'Textual inversion, "angry"', "ti", ("angry",),
           "The report's is good, as its model knew the word before. Here the same person with lowered brows."),
    Figure("3.3", "A remote service", "stability", ("happy",),
           "The report's best quality, by Stability AI's paid service: the same person smiling, nothing torn.",
           strengths=(0.4, 0.6, 0.8), key=KEY),  # 1 would ask for anybody's smile
    Figure("3.4", "Asyrp", "asyrp", ALL,
           "The report's is precise, with softened eyes. Here each expression on the same person, eyes as sharp as in "
           "the photograph.", strengths=(1.0,)),
    Figure("3.5", "StyleGAN, for different emotions", "stylegan", ALL,
           "The report's closes eyes, corrupts the background and jumbles features. Here the background is the "
           "photograph's own, and no face folds.", strengths=(1.0,)),
    Figure("3.6", "A VAE's smile", "vae", ("happy",),
           "The report's (face-flex) is distorted or blurred. Here the same person smiling more with the strength."),
)  # fmt: skip


def skipped(figure: Figure) -> str | None:
    """Why a service is skipped."""
    if figure.key and not os.environ.get(figure.key):
        return f"Skipped: the environment variable {figure.key} holds no key."
    return None


def reproduce(
    figure: Figure, editor: Editor, photos: Mapping[str, Any], strengths: Sequence[float], suite: Suite, page: Page
) -> list[str]:
    """Paragraphs: a strip of each photograph, and a line of numbers for each of its pictures."""
    photo_editor = PhotoEditor(editor)
    knows = Entry(editor.name, photo_editor).supports
    emotions = [emotion for emotion in figure.emotions if knows(emotion)]
    parts = []
    if left_out := [emotion for emotion in figure.emotions if emotion not in emotions]:
        parts.append(f"This editor has no {', '.join(left_out)}.")
    if not emotions:
        return parts
    strengths = figure.strengths or strengths
    cells, lines = [], []
    for name, photo in photos.items():
        found = compare(photo, emotions, editors=[photo_editor], strengths=strengths, references=False, suite=suite)
        picture = load_picture(photo)
        subject = suite.subject(picture.rgb, photo_editor.detector.choose(picture.rgb)[0])
        before = {emotion: unedited_row(suite, picture, subject, emotion)[0]["target_score"] for emotion in emotions}
        cells.append((name, found.source))
        for row, image in zip(found.rows, found.images, strict=True):
            head = [name, row["emotion"], row["strength"]]
            if image is None:
                lines.append([*head, f"could not be edited: {row['error']}", *[None] * 5])
                cells.append((f"{row['emotion']}: failed", found.source.convert("L")))
                continue
            cells.append((f"{row['emotion']} {row['strength']:g}", image))
            keys = ("target_score", "top1", "identity", "fold_free", "sharpness_kept")
            lines.append([*head, before[row["emotion"]], *(row[key] for key in keys)])
    columns = 1 + len(emotions) * len(strengths)
    parts.append(page.grid(figure.number.replace(".", "-"), cells, columns=columns, cell=min(190, 1000 // columns)))
    header = [
        "of",
        "emotion",
        "strength",
        "target before",
        "target",
        "read as",
        "identity",
        "no folds",
        "sharpness kept",
    ]
    return [*parts, table(header, lines)]


def subjects(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is edited, by what it is called: one photograph of the user's, or the astronaut and somebody drawn."""
    if config["photo"] is not None:
        return {"photograph": config["photo"]}
    found: dict[str, Any] = {"the astronaut": portrait()}
    if "asyrp" in list_editors():
        drawn = people(DRAWN, 1, Path(config["work"]), backbone=open_editor("asyrp").backbone)
        found["drawn"] = drawn[0].photo
    return found


def section(config: Mapping[str, Any], page: Page) -> str:
    """The section's Markdown."""
    photos, suite = subjects(config), Suite(**config["metric_networks"])
    who = suite.backends
    parts = [
        "## The seed report's figures 3.1 to 3.6\n\nBy `experiments/reproduce_seed_report.py`. Identity is read by the "
        f"{who['identity_backend']} network, expressions by the {who['expression_backend']} one; a mixture's target "
        "score is that of all it is mixed from. What each number means: [metrics.md](metrics.md). The astronaut smiles "
        "already, so that an editor has to take a smile away before it can show anything else."
    ]
    for figure in FIGURES:
        parts += [f"### {figure.number} {figure.title}", f"Expected: {figure.expected}"]
        reason = skipped(figure)
        if reason is None:
            try:
                editor = open_editor(config["models"].get(figure.editor, figure.editor), device=config["device"])
                parts += reproduce(figure, editor, photos, config["strengths"], suite, page)
                continue
            except MissingEditorError as error:
                reason = f"The editor is {error}."
        parts.append(reason)
    return "\n\n".join(parts)


@hydra.main(version_base="1.3", config_path="../configs", config_name="reproduce_seed_report")
def main(config: DictConfig) -> None:
    plain = OmegaConf.to_container(config, resolve=True)
    page = Page(Path(plain["page"]), Path(plain["images"]), "seed-report")
    page.write(section(plain, page))


if __name__ == "__main__":
    run(main)

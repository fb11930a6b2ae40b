"""The benchmark page: every embedded editor on held-out people.

    python experiments/benchmark.py data.root=/path/to/data      # writes docs/benchmark.md, about a quarter of an hour

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from emoedit.evaluation.cases import Case, read_cases
from emoedit.evaluation.compare import NOTHING, PHOTOGRAPH
from emoedit.evaluation.evaluate import evaluate
from emoedit.evaluation.summary import Evaluation, format_interval, people_interval
from emoedit.metrics.statistics import curve_at
from emoedit.report.plots import pareto_grid
from emoedit.training.prepare import split_of
from lib.running import run

SHOWN = ("target_score", "hit", "identity", "hes", "perceptual", "fold_free", "sharpness_kept", "confidence")
TITLES = ("target", "read as it", "identity", "HES", "perceptual", "no folds", "sharpness", "face sure")
TOLD = (("Read as something else", "hit", lambda row: row["hit"] == 0),
        ("Folds in more than 2 % of the face", "fold_free", lambda row: row["fold_free"] < 0.98),
        ("Less than .8 of the sharpness kept", "sharpness_kept", lambda row: row["sharpness_kept"] < 0.8),
        ("Detector less sure than .98", "confidence", lambda row: row["confidence"] < 0.98),
        ("Eyes closed by more than .1", "eye_opening_change", lambda row: row["eye_opening_change"] < -0.1),
        ("Head turned by more than 5 degrees", "pose_drift", lambda row: row["pose_drift"] > 5))  # fmt: skip


def wild_cases(folder: Path, count: int) -> list[Case]:
    """One neutral picture of each held-out person: the largest."""
    best: dict[str, tuple[int, Case]] = {}
    for case in read_cases(folder):
        if split_of("wild", case.name, case.person) == "valid":
            with Image.open(case.photo) as picture:
                size = picture.width * picture.height
            if size > best.get(case.person, (0, case))[0]:
                best[case.person] = size, case
    return [case for _, (_, case) in sorted(best.items())][:count]


def line(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Means with intervals, in words."""
    cells = []
    for key in SHOWN:
        found = people_interval(rows, key)
        cells.append(format_interval(found.value, found.low, found.high))
    return cells


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def main_table(found: Evaluation, strength: float, emotions: Sequence[str]) -> str:
    """At one strength, beside the references."""
    groups, rows = found.groups(), []
    for emotion in emotions:
        for (editor, name, s), group in groups.items():
            if name == emotion and s in (strength, None):
                rows.append([emotion, editor, *line(group)])
    return table(["emotion", "editor", *TITLES], rows)


def drawn_table(found: Evaluation, drawn: Evaluation, strength: float, emotions: Sequence[str]) -> str:
    """Edits as the models draw them beside edits as they are put into photographs."""
    photo, crop = found.groups(), drawn.groups()
    rows = []
    for emotion in emotions:
        for (editor, name, s), group in crop.items():
            if name == emotion and s == strength:
                both = (photo[editor, name, s], group)
                cells = [people_interval(part, key) for key in ("target_score", "identity") for part in both]
                rows.append([emotion, editor, *(format_interval(c.value, c.low, c.high) for c in cells)])
    return table(["emotion", "editor", "target, photo", "target, crop", "identity, photo", "identity, crop"], rows)


def paired_table(found: Evaluation) -> str:
    """Distance to the person's own smile, relative to doing nothing."""
    rows = []
    for (editor, emotion, strength), group in found.groups().items():
        group = [row for row in group if row["paired_perceptual"] is not None]
        if not group:
            continue
        cells = [people_interval(group, key) for key in ("paired_perceptual", "paired_identity", "paired_landmarks")]
        words = "" if strength is None else f"{strength:g}"
        rows.append([editor, emotion, words, *(format_interval(c.value, c.low, c.high) for c in cells)])
    return table(["editor", "emotion", "strength", "perceptual", "identity", "brows, eyes and lips"], rows)


def same_identity_table(found: Evaluation, emotions: Sequence[str], at: Sequence[float]) -> str:
    """Target score read off each curve at one identity: strengths need not mean the same."""
    rows = []
    for emotion, curves in found.curves().items():
        for curve in curves:
            if curve.name not in (NOTHING, PHOTOGRAPH):
                # Strength 0 is the source itself: identity 1, and what doing nothing is read as.
                nothing = next(c for c in curves if c.name == NOTHING)
                x, y = [1.0, *curve.x], [nothing.y[0], *curve.y]
                rows.append([emotion, curve.name, *(format_interval(v, np.nan, np.nan) for v in curve_at(x, y, at))])
    return table(["emotion", "editor", *(f"at identity {v:g}" for v in at)], rows)


def control(found: Evaluation) -> str:
    """FFE-Bench's measures."""
    keys = ("target_score", "identity", "hes", "acc", "mscr", "cls")
    rows = [
        [entry["editor"], str(entry["emotions"]), *(format_interval(entry[k], np.nan, np.nan) for k in keys)]
        for entry in found.control()
    ]
    return table(["editor", "emotions", "target", "identity", "HES", "Acc", "mSCR", "CLS"], rows)


def subgroup_table(found: Evaluation, editor: str, strength: float) -> str:
    """Means by the attributes of people in ``info.csv``, with intervals."""
    rows = [r for r in found.rows if r["editor"] == editor and r["strength"] == strength and r["error"] is None]

    def age(row: dict[str, Any]) -> str:
        value = row.get("face_age", "")
        return "not said" if not value.isdecimal() else "under 30" if int(value) < 30 else "30 and more"

    lines = []
    by: dict[str, Callable[[dict[str, Any]], str]] = {
        "gender": lambda row: row.get("face_gender", ""),
        "age": age,
        "ethnicity": lambda row: row.get("face_eth", "").replace("_", " "),
    }
    for title, group_of in by.items():
        for name in sorted({group_of(row) for row in rows}):
            group = [row for row in rows if group_of(row) == name]
            people = len({row["person"] for row in group})
            cells = [people_interval(group, key) for key in ("hit", "identity", "fold_free")]
            lines.append([title, name, str(people), *(format_interval(c.value, c.low, c.high) for c in cells)])
    return table(["", "", "people", "read as it", "identity", "no folds"], lines)


def failures(sets: dict[str, Evaluation], editor: str, strength: float) -> str:
    """Failures, counted and described."""
    lines = []
    for name, found in sets.items():
        for emotion in found.emotions:
            rows = [
                r
                for r in found.rows
                if (r["editor"], r["emotion"], r["strength"]) == (editor, emotion, strength) and r["error"] is None
            ]
            told = []
            for title, key, fails in TOLD:
                bad = [row for row in rows if row[key] is not None and fails(row)]
                if bad and key == "hit":
                    instead = Counter(row["top1"] for row in bad).most_common(3)
                    told.append(
                        f"{title}: {len(bad)} of {len(rows)} (" + ", ".join(f"{w} {n}" for w, n in instead) + ")"
                    )
                elif bad:
                    told.append(f"{title}: {len(bad)} of {len(rows)}")
            lines.append(f"- **{emotion}**, {name}: " + ("; ".join(told) if told else "none of these") + ".")
        for row in found.errors[:5]:
            lines.append(f"- {name}: one photograph could not be edited: {row['error']}")
    return "\n".join(lines)


def held_out_people(config: DictConfig) -> dict[str, list[Case]]:
    """By set, the first ``config.people`` of held-out people."""
    root = Path(config.data.root)
    return {
        "London": read_cases(root / config.data.sets.london.path, split="test")[: config.people.london],
        "wild": wild_cases((root / config.data.sets.wild.path).parent, config.people.wild),
    }


def evaluated(
    config: DictConfig, sets: dict[str, list[Case]]
) -> tuple[dict[str, Evaluation], dict[str, Evaluation], float]:
    """By set, the edited photographs and what the models themselves draw; minutes that both took."""
    work, emotions, start = Path(config.work), list(config.emotions), time.monotonic()
    crops = {"editors": list(config.drawn), "strengths": [config.fitted], "references": False, "stage": "crop"}
    drawn = {
        name: evaluate(cases, emotions, output=work / f"{name.lower()}-crop", **crops) for name, cases in sets.items()
    }
    how = {
        "editors": config.editors if isinstance(config.editors, str) else OmegaConf.to_container(config.editors),
        "strengths": OmegaConf.to_container(config.strengths),
    }
    found = {name: evaluate(cases, emotions, output=work / name.lower(), **how) for name, cases in sets.items()}
    return found, drawn, (time.monotonic() - start) / 60


def save_plots(found: dict[str, Evaluation], folder: Path) -> None:
    """The target score against identity, one drawing a set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, evaluation in found.items():
        svg = pareto_grid(evaluation.curves(), title="")
        (folder / f"pareto-{name.lower()}.svg").write_text(svg, encoding="utf-8")


def introduction(sets: dict[str, list[Case]], london: Evaluation) -> str:
    """Who was edited, by which networks edits are read, and what the references are."""
    who = next(row for row in london.rows if row["error"] is None)
    return f"""# Benchmark

Generated by `experiments/benchmark.py`; no number here was typed. Embedded editors on people that none was fitted
on: {len(sets["London"])} people marked `test` of the Face Research Lab London Set, and {len(sets["wild"])}
held-out people of expressions-in-the-wild, one neutral picture each. Brackets are 95 % intervals over people
(bootstrap).

Identity is read by the **{who["identity_backend"]}** network, perceptual distance by **{who["perceptual_backend"]}**,
expressions by **{who["expression_backend"]}**: the embedded ones are small, and their cards say how good they are
([identity](../checkpoints/identity/README.md), [perceptual](../checkpoints/perceptual/README.md),
[expression](../checkpoints/expression/README.md)). No editor was fitted with the recogniser of this page, but both
learned from the same training pictures. The compositor of the VAE was tuned by eye on London people of both
splits (its card says so): the wild people are the cleaner test. A recogniser can be fooled by a torn face: read its
score beside folds, sharpness and the detector's confidence.

References: *nothing* (the source itself), *pixel_mean* (a class-mean difference added), *mean_warp* (one smile for
everybody) and, for London, *photograph* (the same person really smiling). The HES of *nothing* is above 0 too, because
a neutral face is read as a little of everything: what counts is the target score beside it."""


def set_section(name: str, found: Evaluation, drawn: Evaluation, config: DictConfig) -> list[str]:
    """The tables of one set of people."""
    emotions = list(config.emotions)
    return [
        f"## {name}, strength {config.fitted:g}\n\n" + main_table(found, config.fitted, emotions),
        f"![Target score against identity, {name}](images/pareto-{name.lower()}.svg)",
        "Strength need not mean the same to two editors; identity does. Target score where a curve passes an "
        "identity (–: it does not reach it):\n\n" + same_identity_table(found, emotions, [0.9, 0.8, 0.7]),
        "What the models draw, added to the photograph as it is (`--stage crop`), beside what the compositor makes "
        "of it:\n\n" + drawn_table(found, drawn, config.fitted, emotions),
        "Control, as FFE-Bench defines it (PixelSmile, arXiv 2603.25728):\n\n" + control(found),
    ]


def failure_section(found: dict[str, Evaluation], strength: float) -> list[str]:
    """What goes wrong with each editor, and with whom."""
    london = found["London"]
    parts = ["## What goes wrong\n\nAt the same strength, counted:"]
    for editor in dict.fromkeys(row["editor"] for row in london.rows if not row["reference"]):
        parts += [
            f"### {editor}\n\n" + failures(found, editor, strength),
            "Who it fails on (London, all emotions together). These are few people: most intervals overlap, and no "
            "difference found is no proof that there is none.\n\n" + subgroup_table(london, editor, strength),
        ]
    return parts


@hydra.main(version_base="1.3", config_path="../configs", config_name="benchmark")
def main(config: DictConfig) -> None:
    """Evaluate, or go on evaluating, and write the page."""
    sets = held_out_people(config)
    found, drawn, minutes = evaluated(config, sets)
    save_plots(found, Path(config.plots))
    london = found["London"]
    parts = [introduction(sets, london)]
    for name, evaluation in found.items():
        parts += set_section(name, evaluation, drawn[name], config)
    parts.append(
        "## How near to the true smile, London\n\nDistance to the same person's own smile, that of the unedited "
        "photograph being 1; 0 is the true photograph.\n\n" + paired_table(london)
    )
    parts += failure_section(found, config.fitted)
    Path(config.output).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"wrote {config.output} ({minutes:.1f} min)")


if __name__ == "__main__":
    run(main)

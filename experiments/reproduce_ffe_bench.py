"""FFE-Bench's table (PixelSmile, arXiv 2603.25728): mSCR, Acc, CLS, HES and ID of embedded editors and the source.

    python experiments/reproduce_ffe_bench.py                                              # drawn people
    python experiments/reproduce_ffe_bench.py people=london data.root=/path/to/data        # a section of its own
    python experiments/reproduce_ffe_bench.py models=full_size                             # published models

Stop it whenever you like; the same command goes on where it stopped.

Expected: the published best has mSCR .055, Acc-6 .863, CLS-6 .808, HES .472 at ID .652 (other people, other
metric networks and a model of another kind, 300 times the size). The source has an ID of 1, a HES above 0 and no CLS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from emoedit.editors import Editor, list_editors
from emoedit.evaluation.cases import Case
from emoedit.evaluation.compare import NOTHING, PHOTOGRAPH, Entry
from emoedit.evaluation.evaluate import evaluate
from emoedit.evaluation.summary import Evaluation, format_interval, people_interval
from emoedit.metrics.control import CONFUSABLE, binary_confusion_rate, confusion
from emoedit.metrics.suite import Suite
from emoedit.photo import PhotoEditor
from emoedit.types import DataError
from lib.reproductions import DRAWN, MissingEditorError, Page, open_editor, people, table
from lib.running import run

PUBLISHED = {"mscr": 0.055, "acc": 0.863, "cls": 0.808, "hes": 0.472, "identity": 0.652}
LONDON = "london"


def where(config: Mapping[str, Any]) -> str:
    """Where the people are.

    Raises:
        DataError: a data set without the folder that holds them.
    """
    if config["people"] != LONDON:
        return config["people"]
    if not config["data"]["root"]:
        raise DataError("people=london needs data.root=/path/to/data, or EMOEDIT_DATA")
    return str(Path(config["data"]["root"]) / "london-pairs")


def opened(config: Mapping[str, Any]) -> tuple[list[Editor], dict[str, str]]:
    """The editors that are here, and why the others are not."""
    found, missing = [], {}
    for name in config["editors"]:
        try:
            found.append(open_editor(config["models"].get(name, name), device=config["device"]))
        except MissingEditorError as error:
            missing[name] = str(error)
    return found, missing


def main_table(found: Evaluation, missing: Mapping[str, str]) -> str:
    """One line an editor, with 95 % intervals over people where a mean over people is one."""
    keys = ("target_score", "identity", "hes")
    lines = []
    for entry in found.control():
        if entry["editor"] == PHOTOGRAPH:
            continue
        rows = [
            row
            for (editor, _, strength), group in found.groups().items()
            if (editor, strength) == (entry["editor"], entry["strength"])
            for row in group
        ]
        cells = [people_interval(rows, key) for key in ("hit", *keys)]
        acc, *rest = (format_interval(c.value, c.low, c.high) for c in cells)
        lines.append([entry["editor"], entry["emotions"], entry["mscr"], acc, entry["cls"], *rest])
    lines += [[name, why, *[None] * 6] for name, why in missing.items()]
    published = [f"{PUBLISHED[key]:.3f}" for key in ("mscr", "acc", "cls", "identity", "hes")]
    lines.append(["best published", 6, *published[:3], None, *published[3:]])
    return table(["editor", "emotions", "mSCR", "Acc", "CLS", "target score", "ID", "HES"], lines)


def by_emotion(found: Evaluation, emotions: list[str]) -> str:
    """How often each emotion is read as itself, at the strength nearest to 1."""
    lines = []
    for entry in found.control():
        line: list[Any] = [entry["editor"]]
        for emotion in emotions:
            rows = found.groups().get((entry["editor"], emotion, entry["strength"]), [])
            line.append(people_interval(rows, "hit").value if rows else None)
        lines.append(line)
    return table(["editor", *emotions], lines)


def confused(found: Evaluation) -> str:
    """The two pairs of mSCR, one by one."""
    lines = []
    for entry in found.control():
        groups = [(e, rows) for (name, e, s), rows in found.groups().items()
                  if (name, s) == (entry["editor"], entry["strength"])]  # fmt: skip
        names = sorted({e for e, _ in groups} | {row["top1"] for _, rows in groups for row in rows})
        intended = [names.index(e) for e, rows in groups for _ in rows]
        read = [names.index(row["top1"]) for _, rows in groups for row in rows]
        C = confusion(intended, read, len(names))
        known = [set(pair) <= set(names) for pair in CONFUSABLE]
        if entry["editor"] != NOTHING and any(known):
            rates = [binary_confusion_rate(C, *map(names.index, pair)) if ok else None
                     for pair, ok in zip(CONFUSABLE, known, strict=True)]  # fmt: skip
            lines.append([entry["editor"], *rates])
    return table(["editor", *(" and ".join(pair) for pair in CONFUSABLE)], lines)


def evaluated(
    cases: Sequence[Case], editors: Sequence[Editor], config: Mapping[str, Any], folder: Path, suite: Suite
) -> Evaluation:
    """Every editor with those of the emotions that it has, and the references with those of the first."""
    groups: dict[tuple[str, ...], list[Editor]] = {tuple(config["emotions"]): []}
    for editor in editors:
        knows = Entry(editor.name, PhotoEditor(editor)).supports
        groups.setdefault(tuple(name for name in config["emotions"] if knows(name)), []).append(editor)
    rows: list[dict[str, Any]] = []
    for names, some in groups.items():
        if names and some:
            found = evaluate(
                cases,
                names,
                editors=some,
                strengths=config["strengths"],
                references=not rows,
                output=folder / "-".join(names),
                suite=suite,
            )
            rows += found.rows
    return Evaluation(rows, tuple(config["emotions"]))


def section(config: Mapping[str, Any]) -> str:
    """The section's Markdown."""
    drawing = open_editor("asyrp").backbone if "asyrp" in list_editors() else None
    work = Path(config["work"])
    cases = people(where(config), config["count"], work, backbone=drawing)
    editors, missing = opened(config)
    suite = Suite(**config["metric_networks"])
    name = config["people"]
    shown = {DRAWN: "drawn people", LONDON: "people marked `test` of the Face Research Lab London Set"}.get(
        name, "photographs"
    )
    intro = (
        f"## FFE-Bench, {shown}\n\nBy `experiments/reproduce_ffe_bench.py`, on {len(cases)} {shown}, "
        f"{len(config['emotions'])} emotions and strengths {', '.join(f'{s:g}' for s in config['strengths'])}. "
    )
    if not editors:
        return intro + "No editor is here."
    folder = work / f"ffe-bench-{slug(name)}" / (str(len(cases)) if name == DRAWN else "all")  # others are drawn
    found = evaluated(cases, editors, config, folder, suite)
    who = suite.backends
    return "\n\n".join(
        [
            intro
            + "mSCR is the mean confusion of fear with surprise and of anger with disgust (low is better), Acc the "
            "share read as the target (at the strength nearest to 1, as are target score, ID and HES), CLS the mean "
            "correlation of strength and target score, HES the harmonic mean of target score and ID. Brackets are 95 % "
            "intervals over people. FFE-Bench's ID is a mean over ArcFace, AdaFace and FaceNet; here it is read by "
            f"the {who['identity_backend']} network, expressions by the {who['expression_backend']} one, so that "
            "the published line is no rival but a scale. *mean_warp* knows one emotion; mSCR and Acc are over the "
            "emotions an editor has.",
            main_table(found, missing),
            "Read as the target, by emotion:",
            by_emotion(found, list(found.emotions)),
            "Taken for each other (the parts of mSCR):",
            confused(found),
            *(f"{len(found.errors)} edits could not be made; the first: {e['error']}" for e in found.errors[:1]),
        ]
    )


def slug(name: str) -> str:
    """For a section's name and a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", Path(name).name.lower()).strip("-") or "photographs"


@hydra.main(version_base="1.3", config_path="../configs", config_name="reproduce_ffe_bench")
def main(config: DictConfig) -> None:
    plain = OmegaConf.to_container(config, resolve=True)
    page = Page(Path(plain["page"]), Path(plain["page"]).parent, f"ffe-bench-{slug(plain['people'])}")
    page.write(section(plain))


if __name__ == "__main__":
    run(main)

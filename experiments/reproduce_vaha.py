"""VAHA's loop: the recogniser on FER-2013, candidates that are read as the target, and the gain by ranking.

    python experiments/reproduce_vaha.py data.root=/path/to/data
    python experiments/reproduce_vaha.py data.root=/path/to/data second=/path/to/network   # not used for ranking

VAHA (a project of NYU's deep learning for media) reads a webcam's face with a VGG16 fine-tuned on FER-2013 for 20
epochs, draws many pictures for the emotion, keeps the best three by a classifier, and enlarges them. Here the pictures
are edits of the face.

Expected: on FER-2013's own labels, on which people agree to about 65 %, networks reach .65 to .75; on what most of
FER+'s ten people saw more. Three ranked candidates are read as the target more often than three that are not ranked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf

from emoedit.emotions import BASIC, canonical
from emoedit.faces.detect import FaceDetector
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io.images import load_picture
from emoedit.training.prepare import split_of
from emoedit.training.readers import Sample, read
from emoedit.training.votes import read_ferplus
from emoedit.types import DataError
from lib.candidates import IndependentRecogniser, Row, bootstrapped, candidate_rows, people
from lib.reproductions import Page, table
from lib.running import run

HELD_OUT = ("valid", "test")
MAJORITY = 0.5  # of the votes, from which on a picture shows what most people saw


def held_out(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """The pictures that no network of this package was trained on, the same on every machine."""
    found = [s for s in samples if split_of("fer2013", s.name, s.person) in HELD_OUT]
    order = np.random.default_rng(0).permutation(len(found))[:limit]
    return [found[k] for k in np.sort(order)]


def recognised(samples: Sequence[Sample], path: Path) -> list[dict[str, str]]:
    """For each picture its label and what the embedded recogniser reads first, empty where no face is found."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    network, detector, rows = EmbeddedNetwork.load("expression"), FaceDetector(min_confidence=0.5), []
    for sample in samples:
        photo, read_as = load_picture(sample.picture).rgb, ""
        if faces := detector(photo):
            scores = network.scores(network.faces(photo, max(faces, key=lambda face: face.area))[None])[0]
            read_as = network.emotions[int(scores.argmax())]
        rows.append({"name": sample.name, "label": canonical(sample.emotion), "read": read_as})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def accuracy(rows: Sequence[Mapping[str, str]]) -> list[Any]:
    """Pictures, faces found, accuracy on these and on all, and the mean over classes of the former."""
    seen = [row for row in rows if row["read"]]
    right = [row["read"] == row["label"] for row in seen]
    classes = [np.mean([row["read"] == name for row in seen if row["label"] == name])
               for name in BASIC if any(row["label"] == name for row in seen)]  # fmt: skip
    return [len(rows), len(seen), float(np.mean(right)), sum(right) / len(rows), float(np.mean(classes))]


def recogniser_table(config: Mapping[str, Any]) -> str:
    """How often the recogniser is right on held-out pictures of FER-2013."""
    root, work = Path(config["data"]["root"]), Path(config["work"])
    folder = root / config["fer"]
    lines = []
    own = held_out(read("class_folders", folder), config["pictures"])
    lines.append(["the data set's own labels", *accuracy(recognised(own, work / "vaha-fer2013.json"))])
    if config["votes"]:
        voted = held_out(read_ferplus(root / config["votes"], agreement=MAJORITY), config["pictures"])
        lines.append(["what most of ten people saw (FER+)", *accuracy(recognised(voted, work / "vaha-ferplus.json"))])
    header = [
        "labels",
        "pictures",
        "faces found",
        "accuracy on these",
        "accuracy, no face is wrong",
        "mean over classes",
    ]
    return table(header, lines)


def by_person(rows: Sequence[Row], chosen: Callable[[list[Row]], list[Row]], value: Callable[[Row], float]) -> str:
    """The mean over people of a value of the candidates that are chosen, with its interval; nothing chosen is 0."""
    people: dict[str, list[float]] = {}
    for person, emotion in dict.fromkeys((row["person"], row["emotion"]) for row in rows):
        some = chosen([row for row in rows if (row["person"], row["emotion"]) == (person, emotion) and row["rank"]])
        people.setdefault(person, []).append(float(np.mean([value(row) for row in some])) if some else 0.0)
    mean, low, high = bootstrapped([float(np.mean(each)) for each in people.values()])
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def ranking_table(rows: Sequence[Row], keep: int, *, independent: bool) -> str:
    """All candidates, the first three that were made, and the three best, as each recogniser reads them."""
    choices: dict[str, Callable[[list[Row]], list[Row]]] = {
        "all, and so any three on average": lambda some: some,
        f"the first {keep} that are made": lambda some: sorted(some, key=lambda row: row["order"])[:keep],
        f"the {keep} best by target score alone": lambda some: sorted(some, key=lambda r: -r["target_score"])[:keep],
        f"the {keep} best as `emoedit best` ranks": lambda some: sorted(some, key=lambda row: row["rank"])[:keep],
        "the best": lambda some: sorted(some, key=lambda row: row["rank"])[:1],
    }
    values: dict[str, Callable[[Row], float]] = {
        "read as the target": lambda row: float(row["top"] == row["emotion"]),
        "target score": lambda row: row["target_score"],
        "identity": lambda row: row["identity"],
    }
    if independent:
        values |= {
            "read as the target, independent recogniser": lambda row: float(row["independent_top"] == row["emotion"]),
            "target score, independent recogniser": lambda row: row["independent_score"],
        }
    lines = [[name, *(by_person(rows, chosen, value) for value in values.values())] for name, chosen in choices.items()]
    return table(["candidates", *values], lines)


def section(config: Mapping[str, Any]) -> str:
    """The section's Markdown.

    Raises:
        DataError: no data.
    """
    if not config["data"]["root"]:
        raise DataError("this needs data.root=/path/to/data, or EMOEDIT_DATA: FER-2013, FER+ and people to edit")
    cases = people(Path(config["data"]["root"]), config["people"])
    independent = IndependentRecogniser(config["gradients"], Path(config["work"]))
    path = Path(config["work"]) / "vaha-candidates.jsonl"
    rows = candidate_rows(cases, config["emotions"], config, path, independent)
    read_by = "A recogniser that ranks also reads them here, so that its columns are upper bounds"
    read_by += (
        "; the last columns are those of a recogniser that took no part (histograms of oriented gradients)."
        if independent.network
        else ", and no independent recogniser was given."
    )
    return "\n\n".join([
        "## VAHA's loop: many candidates, the best three kept\n\nBy `experiments/reproduce_vaha.py`. VAHA reads a "
        "webcam's face with a VGG16 that was fine-tuned on FER-2013 for 20 epochs, draws many pictures for it, and "
        "keeps three by a classifier.",
        "The embedded recogniser on held-out pictures of FER-2013:",
        recogniser_table(config),
        f"{config['candidates']} candidates for each of {', '.join(config['emotions'])} of {len(cases)} held-out "
        f"people, by {', '.join(f'`{name}`' for name in config['editors'])}; the numbers are means over "
        f"people with 95 % intervals. {read_by}",
        ranking_table(rows, config["keep"], independent=independent.network is not None),
    ])  # fmt: skip


@hydra.main(version_base="1.3", config_path="../configs", config_name="reproduce_vaha")
def main(config: DictConfig) -> None:
    plain = OmegaConf.to_container(config, resolve=True)
    page = Page(Path(plain["page"]), Path(plain["page"]).parent, "vaha")
    page.write(section(plain))


if __name__ == "__main__":
    run(main)

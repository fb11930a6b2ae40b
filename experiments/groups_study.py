"""One editor on held-out everyday faces, by groups of people; writes docs/groups.md.

    emoedit reproduce groups_study data.root=/path/to/data data.crops=/path/to/crops    # about ten minutes on one core

Stop it whenever you like; the same command goes on where it stopped. Edits are made anew where the
weights of the editor have changed, in another folder below ``work``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf

from emoedit.emotions import BASIC
from emoedit.evaluation.cases import Case
from emoedit.evaluation.entries import Entry, load_entries
from emoedit.evaluation.evaluate import RESULTS, complete_results, fingerprint
from emoedit.evaluation.plan import Plan
from emoedit.evaluation.summary import format_interval, people_interval
from emoedit.faces.align import align
from emoedit.faces.detect import Face
from emoedit.faces.masks import face_masks
from emoedit.faces.networks import GUIDANCE, EmbeddedNetwork
from emoedit.io.images import write_atomic
from emoedit.io.results import Rows
from emoedit.metrics.suite import QUALITY_CROP, Subject, Suite
from emoedit.training.data import CropSet
from emoedit.training.matching import read_crops
from emoedit.training.readers import GROUPS
from emoedit.training.recipes import HELD_OUT, choose
from emoedit.types import DataError, Edit
from lib.candidates import CROP, IndependentRecogniser
from lib.gradients import GradientRecogniser
from lib.groups import ATTRIBUTES, THIRDS, Row, cause, emotion_table, gap, group_table, with_groups
from lib.reproductions import table
from lib.running import run

SOURCES = {"neutral": "neutral", "happy": "smiling"}  # what is read first in a photograph -> what its folder is called
ORDERS = {"group": GROUPS, "light": THIRDS}
TARGET_BAR, IDENTITY_BAR = 0.10, 0.05  # largest gaps between groups that are aimed at


class TwoRecognisers(Suite):
    """Target scores of two recognisers, before and after an edit, identity, and the light of the face.

    Args:
        gradients: the second recogniser.
    """

    def __init__(self, gradients: GradientRecogniser) -> None:
        super().__init__(identity="embedded", perceptual="embedded")
        self.gradients = gradients
        self._inside_face = face_masks(QUALITY_CROP).face > 0.5

    @property
    def backends(self) -> dict[str, str]:
        """Which networks measure, and ``second_backend``."""
        return super().backends | {"second_backend": "gradients"}

    def _second(self, photos: Sequence[np.ndarray], face: Face) -> np.ndarray:
        """Scores of the second recogniser, ``[N, 7]``."""
        alignment = align(face.landmarks, CROP)
        grey = np.stack([cv2.cvtColor(alignment.crop(photo), cv2.COLOR_RGB2GRAY) for photo in photos])
        return self.gradients.scores(torch.from_numpy(grey)[:, None].float() / 127.5 - 1).numpy()

    @torch.no_grad()
    def measure(
        self,
        subject: Subject,
        edited: Sequence[np.ndarray],
        emotions: Sequence[str],
        *,
        only: Collection[str] | None = None,
    ) -> list[dict[str, Any]]:
        """A row for each edit.

        Args:
            subject: the source.
            edited: photographs of the source's size, uint8 ``[H, W, 3]``.
            emotions: target emotion of each edit, a basic one.
            only: keys of the metrics that are computed; None: ``target_score`` and ``identity``.

        Returns:
            The metrics, and ``first``, ``second`` (target score, 0 to 1), ``first_before``, ``second_before``,
            ``first_smile``, ``second_smile`` (of happiness in the source) and ``brightness`` (0 to 255).
        """
        rows = super().measure(subject, edited, emotions, only=only or ("target_score", "identity"))
        source, *after = self._second([subject.photo, *edited], subject.face)
        grey = subject.view.luminance[0].numpy()[self._inside_face]
        names, own = self.emotions, list(self.gradients.emotions)
        first = subject.view.scores
        for row, scores, emotion in zip(rows, after, emotions, strict=True):
            row |= {
                "first": row["target_score"],
                "second": float(scores[own.index(emotion)]),
                "first_before": float(first[names.index(emotion)]),
                "second_before": float(source[own.index(emotion)]),
                "first_smile": float(first[names.index("happy")]),
                "second_smile": float(source[own.index("happy")]),
                "brightness": float((grey.mean() + 1) * 127.5),
            }
        return rows


def held_out(crops: CropSet, how: Mapping[str, Any]) -> list[Case]:
    """Held-out photographs with group, gender and age, and ``read``: what the guidance classifier reads first.

    Args:
        crops: prepared crops.
        how: ``data``, ``folder`` (of the photographs), ``count`` (the most).

    Raises:
        DataError: there are none, or the index does not say who they are.
    """
    positions = choose(crops, how["data"], [""], how["count"], HELD_OUT)
    if not len(positions):
        raise DataError(f"no held-out crops of {how['data']} are prepared; prepare them with data=agreed")
    if not all(crops.rows[position].get("group") for position in positions):
        raise DataError(f"the index of {how['data']} does not name the groups of people; prepare it again")
    network = EmbeddedNetwork.load(GUIDANCE).network
    top = read_crops(network, crops, positions).scores.argmax(1).tolist()
    cases = []
    for position, first in zip(positions, top, strict=True):
        row = crops.rows[position]
        info = {key: row[key] for key in ("group", "gender", "age")} | {"read": network.config.emotions[first]}
        cases.append(Case(Path(how["folder"]) / row["name"], row["name"], row["name"], {}, info))
    return cases


@torch.no_grad()
def alike(crops: CropSet, how: Mapping[str, Any]) -> dict[str, float]:
    """By group, the mean cosine of the identity network between different faces of the group."""
    network = EmbeddedNetwork.load("identity").network
    positions = choose(crops, how["data"], [""], how["count"], HELD_OUT)
    person = F.normalize(network(crops.pixels(positions, network.config.resolution))["person"])
    groups = np.array([crops.rows[position]["group"] for position in positions])
    found = {}
    for name in set(groups.tolist()):
        own = person[torch.from_numpy(groups == name)]
        pairs = len(own) * (len(own) - 1)
        found[name] = float((own @ own.T).sum() - len(own)) / pairs if pairs else float("nan")
    return found


def people_table(cases: Sequence[Case], near: Mapping[str, float]) -> str:
    """Markdown: how many faces of each group there are, what is read in them, and how alike they are."""
    lines = []
    for name in [name for name in GROUPS if name in near]:
        own = [case.info["read"] for case in cases if case.info["group"] == name]
        neutral, happy = own.count("neutral"), own.count("happy")
        other = len(own) - neutral - happy
        lines.append([name, str(len(own)), str(neutral), str(happy), f"{other} ({other / len(own):.2f})",
                      format_interval(near[name], np.nan, np.nan)])  # fmt: skip
    header = ["group", "faces", "read as neutral", "as happy", "as something else (share)", "cosine of two people"]
    return table(header, lines)


def edited_rows(cases: Sequence[Case], entry: Entry, suite: Suite, strength: float, folder: Path) -> list[Row]:
    """Rows of all edits of all photographs, made as far as they are not there; those with an error included.

    Args:
        cases: photographs that are read alike.
        entry: the editor.
        suite: measures.
        strength: of every edit.
        folder: of the results.
    """
    emotions = [name for name in BASIC if name != cases[0].info["read"] and entry.supports(name)]
    plan = Plan([entry], [Edit(name, strength) for name in emotions], suite, references=False)
    complete_results(folder, cases, plan)
    return list(Rows(folder / RESULTS, {key for case in cases for key in plan.cells(case)}))


def smiles(rows: Sequence[Row], least: int) -> str:
    """The part of the page about what either recogniser reads in untouched smiling photographs, by group."""
    sound = list({row["person"]: row for row in rows if row["error"] is None}.values())
    lines, told = [], []
    for name in [name for name in GROUPS if any(row["group"] == name for row in sound)]:
        own = [row for row in sound if row["group"] == name]
        found = [people_interval(own, key) for key in ("first_smile", "second_smile")]
        lines.append([name, str(len(own)), *(format_interval(each.value, each.low, each.high) for each in found)])
    for title, key in (("first", "first_smile"), ("second", "second_smile")):
        between = gap(sound, "group", key, least)
        if between is not None:
            told.append(
                f"The {title} recogniser reads {between.value:.2f} less in `{between.worst}` than in `{between.best}` "
                f"(by chance up to {between.chance:.2f})."
            )
    return (
        "## What recognisers read in real smiles\n\nThe probability of happiness in the untouched smiling photographs, "
        "all of which the guidance classifier reads as happy.\n\n"
        f"{' '.join(told)} A recogniser that reads less in the real smiles of a group may read less in its edits, too: "
        "this is the part of a gap that no edit made.\n\n"
        + table(["group", "faces", "first recogniser", "second recogniser"], lines)
    )


def aims(rows: Sequence[Row], least: int) -> str:
    """Whether the gaps between ethnic groups stay within the aims, in a sentence each."""
    told = []
    for key, title, bar in (("target", "target score", TARGET_BAR), ("identity", "identity", IDENTITY_BAR)):
        found = gap(rows, "group", key, least)
        if found is not None:
            verdict = "within" if found.value <= bar else "above"
            told.append(
                f"The gap of the {title} between {found.best} and {found.worst} is {found.value:.3f} "
                f"[{found.low:.3f}, {found.high:.3f}], {verdict} the aim of {bar:.2f}."
            )
    return " ".join(told)


def section(rows: Sequence[Row], word: str, how: Mapping[str, Any]) -> str:
    """The part of the page about neutral or about smiling photographs."""
    failed = [row for row in rows if row["error"] is not None]
    sound = with_groups([row for row in rows if row["error"] is None], how["first_only"])
    least = how["least"]
    causes = "\n".join(f"- By {name}: {cause(sound, name, least)}" for name in ATTRIBUTES)
    emotions = ", ".join(dict.fromkeys(row["emotion"] for row in sound))
    parts = [
        f"## {word.capitalize()} photographs\n\nMeans over {emotions}. {aims(sound, least)}",
        group_table(sound, ORDERS, least),
        f"Where the gaps of the target score come from:\n\n{causes}",
        "By emotion and group, target score / what is read as this emotion before the edit. A gap in one emotion is "
        "one of many that were looked at, so that a few above chance are expected:",
        emotion_table(sound, "group", ORDERS, least),
    ]
    if failed:
        people = sorted({(row["group"], row["photo"]) for row in failed})
        counts = ", ".join(f"{name} {sum(group == name for group, _ in people)}" for name in GROUPS)
        parts.append(f"{len(people)} photographs have edits that failed ({counts}), the first: {failed[0]['error']}")
    return "\n\n".join(parts)


def page(cases: Sequence[Case], near: Mapping[str, float], found: Mapping[str, Sequence[Row]], how: Row) -> str:
    """The whole page, in Markdown."""
    first_only = " and ".join(how["first_only"])
    head = f"""# By groups of people

Generated by `experiments/groups_study.py`; no number here was typed:

```sh
emoedit reproduce groups_study data.root=/path/to/data data.crops=/path/to/crops
```

Editor `{how["editor"]}` at strength {how["strength"]:g} on photographs of UTKFace (everyday faces of adults in any
light) that no model was trained on. Group, gender and age are those of the data set: the judgement of other people or
of a model, not what people say of themselves. *Light* is the mean luminance of the photograph inside the face. Nobody
labelled the expressions: a photograph counts as neutral or smiling as the
[guidance classifier](../checkpoints/guidance/README.md) reads it.

- *First recogniser*: the [expression network](../checkpoints/expression/README.md), which fitted no editor. *Second
  recogniser*: no network, softmax regression on histograms of oriented gradients, fitted to what people agree on in
  FER-2013 (FER+).
- *Target*: probability of the emotion that was asked for; for {first_only} the first recogniser's, since the second is
  weak at surprise, for the others the mean of both. *Before the edit*: the same number in the untouched photograph.
- *Identity*: cosine of the [identity network](../checkpoints/identity/README.md) between photograph and edit; an
  untouched photograph has 1.
- Brackets are 95 % intervals over people (bootstrap). *Best less worst* is the gap between groups of at least
  {how["least"]} faces; smaller ones are shown and not compared. It is above 0 even where groups do not differ: *by
  chance, up to* is what 95 % of random divisions of the same people stay below.

These are few people a group: no difference found is no proof that there is none."""
    who = (
        "## Who is in the photographs\n\nWhat the guidance classifier reads in untouched photographs, by group. The "
        "last column is the identity network's mean cosine between different people of a group: where it is higher, "
        "the network tells people of this group apart less well, and identity is flattered.\n\n"
        + people_table(cases, near)
    )
    parts = [section(found[read], word, how) for read, word in SOURCES.items() if found.get(read)]
    if found.get("happy"):
        parts.insert(0, smiles(found["happy"], how["least"]))
    return "\n\n".join([head, who, *parts]) + "\n"


def study(how: Row) -> str:
    """Edit, or go on editing, and make the page.

    Args:
        how: the configuration.

    Raises:
        DataError: no crops, none held out, or none that is read as neutral or happy.
    """
    crops, work = CropSet(how["data"]["crops"]), Path(how["work"])
    cases = held_out(crops, how["faces"])
    gradients = IndependentRecogniser(how["gradients"], work).network
    if gradients is None:
        raise DataError("the second recogniser needs gradients.crops=/path/to/crops")
    suite = TwoRecognisers(gradients)
    (entry,) = load_entries([how["editor"]], references=False, device="cpu")
    state = work / f"{entry.name}-{fingerprint(entry.photo_editor)}-{how['strength']:g}"
    found = {}
    for read, word in SOURCES.items():
        own = [case for case in cases if case.info["read"] == read]
        if own:
            print(f"{len(own)} {word} photographs", flush=True)
            found[read] = edited_rows(own, entry, suite, how["strength"], state / word)
    if not found:
        raise DataError("no held-out photograph is read as neutral or as happy")
    return page(cases, alike(crops, how["faces"]), found, how)


@hydra.main(version_base="1.3", config_path="../configs", config_name="groups_study")
def main(config: DictConfig) -> None:
    plain: Row = OmegaConf.to_container(config, resolve=True)
    torch.manual_seed(0)
    data = study(plain).encode()
    Path(plain["output"]).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(Path(plain["output"]), lambda file: file.write(data), overwrite=True)
    print(f"wrote {plain['output']}")


if __name__ == "__main__":
    run(main)

"""Learned words, shifts of h, and both together: one Stable Diffusion, held-out people.

    python experiments/ti_asyrp_study.py data.root=/path/to/data      # writes docs/ti-asyrp.md

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from benchmark import control, held_out_people, main_table, paired_table, table
from omegaconf import DictConfig, OmegaConf

from emoedit.editors import Editor, load_editor
from emoedit.evaluation.cases import Case, read_cases
from emoedit.evaluation.compare import NOTHING
from emoedit.evaluation.evaluate import evaluate
from emoedit.evaluation.summary import Evaluation, format_interval, people_interval
from emoedit.faces.detect import FaceDetector
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io.images import load_picture
from emoedit.metrics.calibration import calibrating_temperature, temperature_scale
from emoedit.metrics.statistics import bootstrap, curve_at
from emoedit.report.plots import pareto_grid
from emoedit.steering.combined import TokenAndShift, TokenShift
from emoedit.steering.hspace import HSpace
from emoedit.training.prepare import split_of
from emoedit.types import Edit
from lib.running import run

REFERENCES = ("mean_warp", "pixel_mean")  # compared too, where they know the emotion
HAPPY = "happy"
COSTS = 5  # edits a variant is timed with, after one that is not


def variant(model: Editor, name: str, how: Mapping[str, Any]) -> Editor:
    """The model with other strengths of its parts, other shifts, or other settings of sampling.

    Args:
        how: ``token_strength``, ``h_strength``, ``token_shift`` (the words' own shifts in place of the fitted ones),
            ``shift`` (a folder with others), ``words`` (the editor whose words are meant, with what strength 1 is
            there), ``of`` (in words, where the shifts come from), ``sampling``.
    """
    (steering,) = model.steerings
    tokens, shift = steering.tokens, steering.shift
    if how.get("words"):
        (tokens,) = load_editor(how["words"], device=str(model.device)).steerings
    if how.get("token_shift"):
        shift = TokenShift(tokens, train_steps=model.backbone.steps)
    if how.get("shift"):
        shift = HSpace.from_pretrained(Path(how["shift"]))
    strengths = {key: float(how.get(key, getattr(steering, key))) for key in ("token_strength", "h_strength")}
    part = TokenAndShift(tokens, shift, **strengths)
    return Editor(model.backbone.with_sampling(**how.get("sampling", {})), [part], name=name)


def cube(found: Evaluation, editors: Sequence[str], emotions: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Identity and target score ``[P, editors, emotions, strengths + 1, 2]`` of every person with all of them; strength
    0 is the source itself: identity 1, and what doing nothing is read as."""
    rows = [row for row in found.rows if row["error"] is None]
    strengths = sorted({row["strength"] for row in rows if row["editor"] in editors})
    at = {(r["person"], r["editor"], r["emotion"], r["strength"]): (r["identity"], r["target_score"]) for r in rows}
    nothing = {(r["person"], r["emotion"]): r["target_score"] for r in rows if r["editor"] == NOTHING}
    people, cells = [], []
    for person in dict.fromkeys(row["person"] for row in rows):
        wanted = [[[(person, v, e, s) for s in strengths] for e in emotions] for v in editors]
        if all(key in at for one in wanted for line in one for key in line):
            people.append(person)
            cells.append([[[(1.0, nothing[person, k[0][2]]), *(at[key] for key in k)] for k in one] for one in wanted])
    return np.array(cells), people


def at_identity(cells: np.ndarray, identity: float) -> np.ndarray:
    """Target score of every editor at one identity, ``[editors]``: read off the curve of people's means, then the mean
    over emotions; NaN where a curve does not reach it.

    Args:
        cells: ``[P, editors, emotions, strengths + 1, 2]``.
    """
    curves = cells.mean(0)
    return np.array([[curve_at(c[:, 0], c[:, 1], [identity])[0] for c in editor] for editor in curves]).mean(1)


def same_identity(found: Evaluation, editors: Sequence[str], default: str, at: Sequence[float]) -> str:
    """Target score at one identity, and how far the default lies above each, with intervals over people."""
    groups = {emotion: (emotion,) for emotion in found.emotions} | {"mean of all": found.emotions}
    rows = []
    for title, emotions in groups.items():
        known = {(row["editor"], row["emotion"]) for row in found.rows if row["strength"] is not None}
        present = [name for name in (*editors, *REFERENCES) if all((name, emotion) in known for emotion in emotions)]
        cells, people = cube(found, present, emotions)
        own = present.index(default)
        for number, name in enumerate(present):
            both, line = cells[:, [number, own]], [title, name]
            flat = both.reshape(len(both), -1)
            for identity in at:

                def above(rows: np.ndarray, i: float = identity, shape: tuple[int, ...] = both.shape[1:]) -> float:
                    its, scores = at_identity(rows.reshape(-1, *shape), i)
                    return float(scores - its)

                value = format_interval(at_identity(both, identity)[0], np.nan, np.nan)
                if name != default:
                    gap = bootstrap(flat, people, above, resamples=300)
                    value += f" ({format_interval(gap.value, gap.low, gap.high)})"
                line.append(value)
            rows.append(line)
    return table(["emotion", "variant", *(f"at identity {v:g}" for v in at)], rows)


def recognised_photographs(config: DictConfig, without: set[str]) -> tuple[EmbeddedNetwork, np.ndarray, np.ndarray]:
    """The recogniser; its scores ``[N, E]`` of held-out photographs of the wild set, without some people; labels."""
    recogniser, detector = EmbeddedNetwork.load("expression"), FaceDetector("cpu")
    folder = (Path(config.data.root) / config.data.sets.wild.path).parent
    crops, labels = [], []
    for number, emotion in enumerate(recogniser.emotions):
        for case in read_cases(folder, source=emotion):
            if case.person in without or split_of("wild", case.name, case.person) != "valid":
                continue
            photo = load_picture(case.photo).rgb
            faces = detector(photo)
            if faces:
                crops.append(recogniser.faces(photo, faces[0]))
                labels.append(number)
    return recogniser, recogniser.scores(np.stack(crops)).numpy(), np.array(labels)


def calibrated(found: Evaluation, emotions: Sequence[str], temperature: float) -> Evaluation:
    """The rows with target scores at another temperature of the recogniser."""
    rows = []
    for row in found.rows:
        if row["error"] is None:
            scores = temperature_scale([row[f"score_{name}"] for name in emotions], temperature)
            row = row | {"target_score": float(scores[emotions.index(row["emotion"])])}
        rows.append(row)
    return replace(found, rows=rows)


def calibrated_section(config: DictConfig, sets: Mapping[str, Sequence[Case]], found: Mapping[str, Evaluation]) -> str:
    """Target scores of happy by the recogniser, calibrated on held-out photographs."""
    recogniser, scores, labels = recognised_photographs(config, {case.person for case in sets["wild"]})
    temperature = calibrating_temperature(scores, labels)
    happy = labels == recogniser.emotions.index(HAPPY)
    means = [
        temperature_scale(scores[happy], t)[:, recogniser.emotions.index(HAPPY)].mean() for t in (1.0, temperature)
    ]
    rows = []
    for name, evaluation in found.items():
        evaluation = calibrated(evaluation, recogniser.emotions, temperature)
        for (editor, emotion, strength), group in evaluation.groups().items():
            if emotion != HAPPY or strength not in (config.fitted, None):
                continue
            curve = next((c for c in evaluation.curves()[HAPPY] if c.name == editor), None)
            nothing = next(c for c in evaluation.curves()[HAPPY] if c.name == NOTHING)
            passed = ["–"] * len(config.calibrated_at)
            if strength is not None and curve is not None:
                x, y = [1.0, *curve.x], [nothing.y[0], *curve.y]
                passed = [format_interval(v, np.nan, np.nan) for v in curve_at(x, y, list(config.calibrated_at))]
            cells = [people_interval(group, key) for key in ("target_score", "identity")]
            rows.append([name, editor, *passed, *(format_interval(c.value, c.low, c.high) for c in cells)])
    header = ["people", "variant", *(f"at identity {v:g}" for v in config.calibrated_at)]
    right, sure = (scores.argmax(1) == labels).mean(), scores.max(1).mean()
    return (
        "## What a score of .9 means\n\n"
        "The recogniser was trained with smoothed labels, and its probabilities are lower than its accuracy: of "
        f"{len(labels)} held-out photographs of other people of the wild set it reads {right:.2f} as their labels say, "
        f"with a mean probability of {sure:.2f}; of the {happy.sum()} that are labelled happy it says so with "
        f"{means[0]:.2f}. At a temperature of {temperature:.2f} its probabilities explain those labels best (the least "
        f"negative log likelihood, Guo et al. 2017), and happy photographs are read as happy with {means[1]:.2f}. "
        f"Happy, so read, where a curve passes an identity, and at strength {config.fitted:g}:\n\n"
        + table([*header, "target", "identity"], rows)
    )


def costs(editors: Mapping[str, Editor], emotion: str, base: str) -> str:
    """Seconds of one warm edit of one face and of ``base``, measured alternately in one run."""
    seconds: dict[str, list[float]] = {name: [] for name in editors}
    generator = torch.Generator().manual_seed(0)
    side = next(iter(editors.values())).backbone.crop.resolution
    x = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6, generator=generator), (side, side), mode="bicubic")
    opened = {name: editor.invert(x.clamp(-1, 1)) for name, editor in editors.items()}
    for turn in range(COSTS + 1):
        for name, editor in editors.items():
            start = time.perf_counter()
            list(editor.decode(opened[name], [Edit(emotion)]))
            if turn:
                seconds[name].append(time.perf_counter() - start)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    rows = [[name, f"{value:.2f}", f"{value / median[base]:.2f}"] for name, value in median.items()]
    return table(["variant", "seconds", f"times {base}"], rows)


def variants_section(
    model: Editor,
    editors: Mapping[str, Editor],
    variants: Mapping[str, Mapping[str, Any]],
    found: Evaluation,
    config: DictConfig,
) -> str:
    """What the variants consist of, how all of them sample, and which networks read their edits.

    Args:
        model: the editor that the variants are made from.
        editors: the variants, by name.
        variants: how each was made, as [variant][] takes it.
        found: an evaluation of them.
        config: the study's.
    """
    rows = []
    for name, editor in editors.items():
        how, (steering,) = variants[name], editor.steerings
        words = f" as in {how['words']}" if how.get("words") else ""
        title = f"**{name}**" if name == config.default else name
        token, h = f"{steering.token_strength:g}{words}", f"{steering.h_strength:g}"
        rows.append([title, token, h, how.get("of", "fitted here")])
    sampling = model.backbone.config
    who = next(row for row in found.rows if row["error"] is None)
    return (
        "## The variants\n\n"
        + table(["variant", "token", "h", "shift of h"], rows)
        + f"\n\nAll on one backbone: {sampling.steps} steps, the word's context from timestep {sampling.t_text_max} "
        f"down, h shifted down to {sampling.t_edit}, noise drawn where something changes below {sampling.t_boost}, "
        f"guidance {sampling.guidance:g}. The default, in bold, is `--editor {config.model}`. Identity is read by the "
        f"**{who['identity_backend']}** network, expressions by **{who['expression_backend']}**; "
        "neither was used for fitting."
    )


def set_section(name: str, found: Evaluation, names: Sequence[str], config: DictConfig) -> list[str]:
    """The tables of one set of people; its plot is saved.

    Args:
        name: name of the set.
        found: its evaluation.
        names: the editors that are compared.
        config: the study's.
    """
    plot = f"ti-asyrp-{name.lower()}.svg"
    Path(config.plots).mkdir(parents=True, exist_ok=True)
    (Path(config.plots) / plot).write_text(pareto_grid(found.curves(), title=""), encoding="utf-8")
    return [
        f"## {name}\n\n![Target score against identity, {name}](images/{plot})",
        "Target score where a curve passes an identity (–: it does not reach it), and in brackets how far "
        f"*{config.default}* lies above it, with 95 % intervals over people (bootstrap):\n\n"
        + same_identity(found, names, config.default, list(config.at)),
        f"At strength {config.fitted:g}:\n\n" + main_table(found, config.fitted, list(config.emotions)),
        "Control, as FFE-Bench defines it (PixelSmile, arXiv 2603.25728):\n\n" + control(found),
    ]


@hydra.main(version_base="1.3", config_path="../configs", config_name="ti_asyrp_study")
def main(config: DictConfig) -> None:
    """Evaluate, or go on evaluating, and write the page."""
    sets, emotions = held_out_people(config), list(config.emotions)
    model = load_editor(config.model, device="cpu")
    variants = {name: how or {} for name, how in OmegaConf.to_container(config.variants).items()}
    editors = {name: variant(model, name, how) for name, how in variants.items()}
    others = {name: load_editor(name, device="cpu") for name in config.others}
    how = {
        "editors": [*editors.values(), *others.values()],
        "strengths": OmegaConf.to_container(config.strengths),
    }
    work = Path(config.work)
    found = {name: evaluate(cases, emotions, output=work / name.lower(), **how) for name, cases in sets.items()}
    story = (Path(__file__).parent / "cards" / "ti_asyrp_study.md").read_text(encoding="utf-8").rstrip()
    parts = [
        story.replace("{london}", str(len(sets["London"]))).replace("{wild}", str(len(sets["wild"]))),
        variants_section(model, editors, variants, found["London"], config),
        "## What an edit costs\n\nOne face, inverted already, two threads or as many as there are:\n\n"
        + costs(editors, emotions[0], "asyrp_h"),
    ]
    for name, evaluation in found.items():
        parts += set_section(name, evaluation, [*editors, *others], config)
    parts.append(calibrated_section(config, sets, found))
    parts.append(
        "## How near to the true smile, London\n\nDistance to the same person's own smile, that of the unedited "
        "photograph being 1; 0 is the true photograph.\n\n" + paired_table(found["London"])
    )
    Path(config.output).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"wrote {config.output}")


if __name__ == "__main__":
    run(main)

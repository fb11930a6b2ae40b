"""Choose the action units that an embedded editor adds to what its model draws (five minutes an emotion on one core).

    python experiments/train_metrics.py network=guidance data=agreed data.root=/path stages=[prepare,train]  # judges
    python experiments/fit_units.py editor=stylegan data.root=/path/to/data

For each emotion a share of the model's own edit and a sum of units are chosen together, by coordinate ascent: two
recognisers that know nothing of each other have to read the emotion in neutral faces of the training split while the
person stays near to the source (the harmonic mean of both counts), at least as near as the model alone leaves it. One
is the guidance classifier, which also reads the person. Models that were led by it already have all that it asks for,
so the other is of another kind: softmax regression on histograms of oriented gradients (Dalal and Triggs 2005), fitted
here to pictures that people agree on. The units go into ``editor.json``, the shares into the gains of the editor's
steerings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hydra
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from emoedit.editors import Editor, load_editor
from emoedit.editors.units import AddedUnits
from emoedit.io import checkpoints
from emoedit.metrics.control import harmonic
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.steering.combined import TokenAndShift
from emoedit.training.data import CropSet
from emoedit.training.recipes import TRAINED_ON, choose, load_coach, read_as
from emoedit.types import DataError, Edit
from lib.gradients import GradientRecogniser

Units = dict[str, float]
Judge = Callable[[Tensor], tuple[float, float]]  # drawings -> worth, cosine to the source's person


def judge(coach: MeasuringNetwork, gradients: GradientRecogniser, before: Tensor, emotion: str) -> Judge:
    """What both recognisers say of drawings of some faces.

    Args:
        coach: with heads ``emotion`` and ``person``.
        gradients: the other one.
        before: their reconstructions, ``[N, C, R, R]``.
        emotion: that is to be read.
    """
    column, side = coach.config.emotions.index(emotion), coach.config.resolution

    def read(x: Tensor) -> dict[str, Tensor]:
        return coach(F.interpolate(x.mean(1, keepdim=True), (side, side), mode="bilinear", antialias=True))

    person = F.normalize(read(before)["person"], dim=1)

    def judged(drawn: Tensor) -> tuple[float, float]:
        out = read(drawn)
        near = (F.normalize(out["person"], dim=1) * person).sum(1).mean()
        scores = out["emotion"].softmax(1)[:, column], gradients.scores(drawn)[:, gradients.emotions.index(emotion)]
        score = sum(float(score.mean()) for score in scores) / 2
        return float(harmonic(score, max(float(near), 0.0))), float(near)

    return judged


def best_sum(
    emotion: str,
    drawn: Tensor,
    judged: Judge,
    added: Callable[[Units], AddedUnits],
    how: Mapping[str, Any],
    floor: float,
) -> tuple[float, Units]:
    """The sum of units that is worth most in some drawings, and what it is worth.

    Args:
        emotion: that is fitted.
        drawn: by the model, ``[N, C, R, R]``.
        judged: see [judge][].
        added: sum -> what moves drawings by it.
        how: ``emotions``, ``steps``, ``rounds``, ``worth``.
        floor: how much of the person has to be left.
    """
    units: Units = {}
    score, near = judged(drawn)
    if near < floor:
        return 0.0, {}
    for _ in range(how["rounds"]):
        for unit in how["emotions"][emotion]:
            for value in how["steps"]:
                tried = {name: w for name, w in {**units, unit: value}.items() if w}
                if tried == units:
                    continue
                found, near = judged(added(tried)(drawn, Edit(emotion)) if tried else drawn)
                more = sum(tried.values()) - sum(units.values())
                if near >= floor and found > score + how["worth"] * max(more, 0) / how["steps"][1]:
                    score, units = found, tried
    return score, units


def fit(
    editor: Editor,
    crops: CropSet,
    positions: np.ndarray,
    recognisers: tuple[MeasuringNetwork, GradientRecogniser],
    how: Mapping[str, Any],
) -> None:
    """Give an editor the units of each emotion, and change its steerings' gains by the share of its own edit."""
    backbone, chosen, shares = editor.backbone, {}, {}
    inversion = editor.invert(crops.pixels(positions, backbone.crop.resolution, backbone.channels))
    before = inversion.extras["reconstruction"]
    editor.units = None
    for emotion in (name for name in how["emotions"] if name in editor.emotions):
        judged = judge(*recognisers, before, emotion)
        strengths = sorted({1.0, *how["shares"]})
        drawings = dict(zip(strengths, editor.decode(inversion, [Edit(emotion, s) for s in strengths]), strict=True))
        plain, near = judged(drawings[1.0])

        def added(units: Units, emotion: str = emotion) -> AddedUnits:
            return AddedUnits({emotion: units}, editor.emotions, backbone)

        found = {
            share: best_sum(emotion, drawings[share], judged, added, how, near - how["slack"])
            for share in how["shares"]
        }
        share, (score, units) = max(found.items(), key=lambda item: item[1][0])
        print(
            f"{emotion}: {plain:.2f} -> {score:.2f} with {share:g} of the model and {units or 'no units'}", flush=True
        )
        if units and score > plain:
            chosen[emotion], shares[emotion] = units, share
    scale_gains(editor, shares)
    editor.units = AddedUnits(chosen, editor.emotions, backbone)


def scale_gains(editor: Editor, shares: Mapping[str, float]) -> None:
    """Strength 1 of some emotions as shares of what it was, in every steering and in the parts of combined ones."""
    for steering in editor.steerings:
        parts = (steering.tokens, steering.shift) if isinstance(steering, TokenAndShift) else (steering,)
        for part in parts:
            for emotion, share in shares.items():
                part.gain[part.emotions.index(emotion)] *= share


def neutral_faces(config: DictConfig, crops: CropSet, coach: MeasuringNetwork) -> np.ndarray:
    """Positions of neutral pictures of the training split."""
    chosen: Sequence[np.ndarray] = [
        *(choose(crops, name, ["neutral"], n, TRAINED_ON) for name, n in config.neutral.items()),
        *(read_as(coach, crops, name, "neutral", n) for name, n in config.unlabelled.items()),
    ]
    positions = np.concatenate(chosen).astype(int)
    if not len(positions):
        raise DataError(f"{config.data.crops} holds no neutral pictures of {', '.join(config.neutral)}; prepare them")
    return positions


@hydra.main(version_base="1.3", config_path="../configs", config_name="fit_units")
def main(config: DictConfig) -> None:
    torch.manual_seed(0)
    crops, editor = CropSet(config.data.crops), load_editor(config.editor, device="cpu")
    coach = load_coach(OmegaConf.to_container(config.coach.config, resolve=True), config.coach_weights)
    how: dict[str, Any] = OmegaConf.to_container(config, resolve=True)
    with torch.no_grad():
        faces = neutral_faces(config, crops, coach)
        gradients = GradientRecogniser.fitted(crops, how["gradients"])
        print(
            f"gradients read {gradients.accuracy(crops, how['gradients']):.2f} of held-out pictures right", flush=True
        )
        fit(editor, crops, faces, (coach, gradients), how)
    folder = checkpoints.locate(config.editor)
    described = checkpoints.read_json(folder / checkpoints.EDITOR)
    kept = {name: described[name] for name in ("role", "licence", "reference") if name in described}
    shared = described["backbone"].get("editor")
    card = (folder / "README.md").read_text("utf-8")
    editor.save_pretrained(config.output, card=card, backbone_of=shared, **kept)


if __name__ == "__main__":
    main()

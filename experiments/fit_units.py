"""Choose the action units that an embedded editor adds to what its model draws (a quarter of an hour on one core).

    python experiments/train_metrics.py network=guidance data=agreed data.root=/path stages=[prepare,train]  # guide
    python experiments/fit_units.py editor=stylegan data.root=/path/to/data use_chosen=false   # what the search finds
    python experiments/fit_units.py editor=stylegan data.root=/path/to/data                    # what is shipped

For each emotion a share of the model's own edit and a sum of units are chosen together, by coordinate ascent, in
photographs of the training split whose faces the guidance classifier reads as neutral. A recogniser has to read the
emotion as surely as it can, while the person stays as near to the source as the model alone leaves it; the guidance
classifier's embedding says how near that is. The model was finetuned by that classifier, so a recogniser of another
kind reads the emotion: softmax regression on histograms of oriented gradients
(Dalal and Triggs 2005), fitted here to pictures that people agree on; the guidance classifier must not read much less
than before. Neither reads all that people see, so what the search found was compared with sums near it, by the shipped
recogniser and by eye; ``chosen`` of the configuration is what was taken. The units go into ``editor.json``, the shares
into the gains of the editor's steerings. ``editor.json`` records the shares, too, as ``model_shares``, so that another
run starts from the model's own gains and running twice gives the same editor.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from emoedit.editors import Editor, load_editor
from emoedit.editors.units import AddedUnits
from emoedit.faces.align import align
from emoedit.io import checkpoints
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.photo import OpenPhoto, PhotoEditor
from emoedit.steering.combined import TokenAndShift
from emoedit.training.data import CropSet
from emoedit.training.recipes import load_classifier, read_as
from emoedit.types import CheckpointError, CropSpec, DataError, Edit, Inversion, NoFaceError
from lib.gradients import GradientRecogniser
from lib.running import run

SIDE = 128  # pixels of the crops that are read
SHARES = "model_shares"  # in editor.json: emotion -> share of the model's own edit that is in the gains
Units = dict[str, float]


@dataclass(frozen=True)
class RecogniserScores:
    """Scores of recognisers on edited photographs.

    Args:
        score: how surely the emotion is read in histograms of gradients, 0 to 1.
        guided: how surely the guidance classifier reads it, 0 to 1.
        near: cosine between its identity embeddings of source and edit.
    """

    score: float
    guided: float
    near: float


class CachingEditor(Editor):
    """Draws every edit of a photograph once, whatever units are tried with it.

    Args:
        editor: editor whose parts it has.
    """

    def __init__(self, editor: Editor) -> None:
        super().__init__(editor.backbone, editor.steerings, name=editor.name, compositor=editor.compositor)
        self._cache: dict[tuple[str, Edit], Tensor] = {}

    def _drawn(self, inversion: Inversion, edits: Sequence[Edit], batch_size: int | None) -> Iterator[Tensor]:
        for edit in edits:
            key = inversion.fingerprint, edit
            if key not in self._cache:
                (self._cache[key],) = super()._drawn(inversion, [edit], batch_size)
            yield self._cache[key]


class Trials:
    """Edits of some photographs, and their scores.

    Args:
        editor: editor whose units are tried.
        photos: photographs with one face each.
        classifier: network with heads ``emotion`` and ``person``.
        gradients: the recogniser of another kind.
    """

    def __init__(
        self, editor: CachingEditor, photos: Sequence[Any], classifier: MeasuringNetwork, gradients: GradientRecogniser
    ) -> None:
        self.editor, self.photo_editor = editor, PhotoEditor(editor)
        self.classifier, self.gradients = classifier, gradients
        self.spec = CropSpec(SIDE, "stable", classifier.config.scale, classifier.config.down)
        self.opened = list(self._opened(photos))
        if not self.opened:
            raise DataError("no face is found in any of the photographs; prepare others")
        self.person = self._read(torch.cat([self._crop(photo, photo.picture.rgb) for photo in self.opened]))["person"]

    def _opened(self, photos: Sequence[Any]) -> Iterator[OpenPhoto]:
        for photo in photos:
            try:
                yield self.photo_editor.open(photo)
            except NoFaceError:  # it was found at another size of the picture
                print(f"no face is found in {photo}")

    def _crop(self, photo: OpenPhoto, rgb: np.ndarray) -> Tensor:
        crop = cv2.cvtColor(align(photo.faces[0].landmarks, self.spec).crop(rgb), cv2.COLOR_RGB2GRAY)
        return torch.from_numpy(crop)[None, None].float() / 127.5 - 1

    def _read(self, x: Tensor) -> dict[str, Tensor]:
        side = self.classifier.config.resolution
        return self.classifier(F.interpolate(x, (side, side), mode="bilinear", antialias=True))

    def scores_of(self, emotion: str, share: float, units: Units) -> RecogniserScores:
        """Scores of a share of the model's own edit with these units added."""
        sums = {emotion: {name: weight / share for name, weight in units.items()}}
        self.editor.units = AddedUnits(sums, self.editor.emotions, self.editor.backbone) if units else None
        edits = [Edit(emotion, share)]
        results = ((photo, next(self.photo_editor.edit(photo, edits)).image) for photo in self.opened)
        x = torch.cat([self._crop(photo, np.asarray(image.convert("RGB"))) for photo, image in results])
        out = self._read(x)
        near = F.cosine_similarity(out["person"], self.person).mean()
        guided = out["emotion"].softmax(1)[:, self.classifier.config.emotions.index(emotion)].mean()
        score = self.gradients.scores(x)[:, self.gradients.emotions.index(emotion)].mean()
        return RecogniserScores(float(score), float(guided), float(near))


def best_sum(
    scores_of: Callable[[Units], RecogniserScores],
    names: Sequence[str],
    how: Mapping[str, Any],
    least: RecogniserScores,
) -> tuple[float, Units]:
    """The sum of units with which an emotion is read best, and how surely.

    Args:
        scores_of: sum of units -> the recognisers' scores.
        names: names of units, in the order in which they are tried.
        how: ``steps``, ``rounds``, ``worth``.
        least: how much of the person has to be left, and what the guidance classifier has to read.
    """
    units: Units = {}
    found = scores_of(units)
    score = found.score if found.near >= least.near else 0.0
    for _ in range(how["rounds"]):
        for name in names:
            for value in how["steps"]:
                tried = {unit: weight for unit, weight in {**units, name: value}.items() if weight}
                if tried == units:
                    continue
                found = scores_of(tried)
                more = max(sum(tried.values()) - sum(units.values()), 0) / how["steps"][1]
                allowed = found.near >= least.near and found.guided >= least.guided
                if allowed and found.score > score + how["worth"] * more:
                    score, units = found.score, tried
    return score, units


def fit(trials: Trials, how: Mapping[str, Any]) -> tuple[dict[str, Units], dict[str, float]]:
    """For every emotion that gains by units, the units and the share of the model's own edit."""
    chosen, shares = {}, {}
    for emotion in tqdm([name for name in how["emotions"] if name in trials.editor.emotions], disable=None):
        plain = trials.scores_of(emotion, 1.0, {})
        least = RecogniserScores(0.0, how["guided"] * plain.guided, plain.near - how["slack"])
        found = {}
        for share in how["shares"]:

            def scores_of(units: Units, emotion: str = emotion, share: float = share) -> RecogniserScores:
                return trials.scores_of(emotion, share, units)

            found[share] = best_sum(scores_of, how["emotions"][emotion], how, least)
        share, (score, units) = max(found.items(), key=lambda item: item[1][0])
        with_units = f"with {share:g} of the model and {units or 'no units'}"
        print(f"{emotion}: {plain.score:.2f} -> {score:.2f} {with_units}", flush=True)
        if units and score > plain.score:
            chosen[emotion], shares[emotion] = units, share
    return chosen, shares


def scale_gains(editor: Editor, factors: Mapping[str, float]) -> None:
    """Multiply strength 1 of some emotions, in every steering and in the parts of combined ones.

    Args:
        editor: its gains are changed in place.
        factors: emotion -> factor; 1 leaves a gain as it is to the bit.
    """
    for steering in editor.steerings:
        parts = (steering.tokens, steering.shift) if isinstance(steering, TokenAndShift) else (steering,)
        for part in parts:
            for emotion, factor in factors.items():
                part.gain[part.emotions.index(emotion)] *= factor


def recorded_shares(folder: Path) -> dict[str, float]:
    """Shares of the model's own edit that the gains of an editor hold already, those that are not 1 among them.

    Args:
        folder: folder of the editor.

    Raises:
        CheckpointError: shares that are no positive numbers.
        DataError: the editor has units, and nothing says of what share of the model they are an addition to.
    """
    path = folder / checkpoints.EDITOR
    described = checkpoints.read_json(path)
    if SHARES not in described:
        if described.get("units"):
            raise DataError(
                f"{path} has units and does not say which shares of the model's own edit are in its gains: write the "
                f'editor anew before, or add "{SHARES}": {{}} to it if its gains are the model\'s own'
            )
        return {}
    with checkpoints.entries_of(path):
        shares = {str(emotion): float(share) for emotion, share in described[SHARES].items()}
    if not all(math.isfinite(share) and share > 0 for share in shares.values()):
        raise CheckpointError(f"{path}: {SHARES} are positive numbers, found {described[SHARES]!r}")
    return shares


def neutral_photographs(config: DictConfig, crops: CropSet, classifier: MeasuringNetwork) -> list[Path]:
    """Photographs of the training split that the guidance classifier reads as neutral."""
    positions = read_as(classifier, crops, config.photographs.data, "neutral", config.photographs.count)
    return [Path(config.photographs.folder) / crops.rows[position]["name"] for position in positions]


def searched(config: DictConfig, how: Mapping[str, Any]) -> tuple[dict[str, Units], dict[str, float]]:
    """What [fit][] finds in photographs of the data, for the model's own gains."""
    editor = load_editor(config.editor, device="cpu")
    before = recorded_shares(checkpoints.locate(config.editor))
    scale_gains(editor, {emotion: 1 / share for emotion, share in before.items()})
    crops = CropSet(config.data.crops)
    classifier = load_classifier(
        OmegaConf.to_container(config.classifier.config, resolve=True), config.classifier_weights
    )
    gradients = GradientRecogniser.fitted(crops, how["gradients"])
    right = gradients.accuracy(crops, how["gradients"])
    print(f"histograms of gradients read {right:.2f} of held-out pictures right", flush=True)
    trials = Trials(CachingEditor(editor), neutral_photographs(config, crops, classifier), classifier, gradients)
    return fit(trials, how)


def chosen_units(
    chosen: Mapping[str, Mapping[str, Any]], emotions: Sequence[str]
) -> tuple[dict[str, Units], dict[str, float]]:
    """Units and shares that a configuration names, of the emotions that an editor knows.

    Args:
        chosen: emotion -> ``units`` and ``share``.
        emotions: names that the editor supports.
    """
    taken = {emotion: one for emotion, one in chosen.items() if emotion in emotions}
    return {name: one["units"] for name, one in taken.items()}, {name: one["share"] for name, one in taken.items()}


def write(name: str, output: str | Path, units: Mapping[str, Units], shares: Mapping[str, float]) -> Path:
    """Write an editor with these units beside these shares of its model's own edit.

    Args:
        name: embedded name or folder of the editor; what an earlier call did to it is undone.
        output: the new folder, which may be that of the editor.
        units: emotion -> unit -> how strong at strength 1.
        shares: emotion -> share of the model's own edit, above 0; 1 for those that are not named.

    Returns:
        The folder.

    Raises:
        DataError: see ``recorded_shares``.
    """
    folder = checkpoints.locate(name)
    described, before = checkpoints.read_json(folder / checkpoints.EDITOR), recorded_shares(folder)
    editor = load_editor(name, device="cpu")
    scale_gains(
        editor, {emotion: shares.get(emotion, 1.0) / before.get(emotion, 1.0) for emotion in {**before, **shares}}
    )
    editor.units = AddedUnits(units, editor.emotions, editor.backbone) if units else None
    kept = {entry: described[entry] for entry in ("role", "licence", "reference") if entry in described}
    shared = described["backbone"].get("editor")
    card = (folder / "README.md").read_text("utf-8")
    with tempfile.TemporaryDirectory() as spare:  # the folder of words also holds a CLIP, which is no part of an editor
        beside = [path for path in folder.iterdir() if path.is_dir() and path.name not in parts_of(described)]
        for path in beside:
            shutil.copytree(path, Path(spare) / path.name)
        info = {**kept, SHARES: dict(shares)}
        written = editor.save_pretrained(output, card=card, backbone_of=shared, **info)
        for path in beside:
            shutil.copytree(Path(spare) / path.name, written / path.name)
    return written


def parts_of(described: Mapping[str, Any]) -> set[str]:
    """The folders of an editor's parts, as its ``editor.json`` names them."""
    parts = [described["backbone"], *described["steerings"]]
    return {part["folder"] for part in parts if "folder" in part}


@hydra.main(version_base="1.3", config_path="../configs", config_name="fit_units")
def main(config: DictConfig) -> None:
    torch.manual_seed(0)
    how: dict[str, Any] = OmegaConf.to_container(config, resolve=True)
    chosen = how["chosen"].get(config.editor) if how["use_chosen"] else None
    if chosen is None:
        with torch.no_grad():
            units, shares = searched(config, how)
    else:
        units, shares = chosen_units(chosen, load_editor(config.editor, device="cpu").emotions)
    write(config.editor, config.output, units, shares)


if __name__ == "__main__":
    run(main)

"""New pictures for an emotion in a style, by a text-to-image model, and the best of them: VAHA's answer to a face.

No photograph is edited, so there is no identity to keep. Candidates are ranked by how
much more a CLIP takes them for the asked emotion than for the other basic ones in the same style (zero-shot
classification: Radford et al. 2021, arXiv 2103.00020), where a CLIP is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from emoedit.emotions import BASIC
from emoedit.evaluation.ranking import CELL, Ranking
from emoedit.metrics.clip import Clip
from emoedit.models.text_to_image import STYLE, TextToImage, emotion_prompt
from emoedit.report.grid import labelled_grid
from emoedit.types import EditError

SHARPNESS = 100.0  # the temperature that CLIP was trained to


@dataclass(frozen=True)
class GeneratedCandidate:
    """One picture.

    Args:
        seed: seed of the noise that it was drawn from.
        image: the picture.
        score: probability that it shows the emotion, among the basic ones, in [0, 1]; None without a CLIP.
        kept: whether it is among the results.
        reason: why it is kept, or why not.
    """

    seed: int
    image: Image.Image
    score: float | None = None
    kept: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Generated(Ranking[GeneratedCandidate]):
    """The result of [generate_best][emoedit.evaluation.generated.generate_best].

    Args:
        emotion: the requested emotion.
        prompt: the prompt.
        model: name of the text-to-image model.
        candidates: all, best first; in the order of their seeds without a CLIP.
        explanation: one sentence on the result.
    """

    emotion: str
    prompt: str
    model: str
    candidates: tuple[GeneratedCandidate, ...]
    explanation: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every candidate with its score and the reason."""
        rows = [
            {
                "seed": c.seed,
                "score": None if c.score is None else round(c.score, 4),
                "kept": c.kept,
                "reason": c.reason,
            }
            for c in self.candidates
        ]
        told = {"emotion": self.emotion, "prompt": self.prompt, "model": self.model, "explanation": self.explanation}
        return {**told, "candidates": rows}

    def sheet(self, columns: int = 4) -> Image.Image:
        """All candidates, best first.

        Args:
            columns: pictures in a row.
        """
        labels = [f"seed {c.seed}" + ("" if c.score is None else f": {c.score:.2f}") for c in self.candidates]
        pictures = [candidate.image.convert("RGB") for candidate in self.candidates]
        return labelled_grid(pictures, labels, columns=columns, cell=CELL)

    def stem(self, candidate: GeneratedCandidate) -> str:
        """Model and seed.

        Args:
            candidate: a picture that is kept.
        """
        return f"{self.model}_{candidate.seed}"


def generate_best(
    model: TextToImage,
    emotion: str,
    *,
    style: str = STYLE,
    candidates: int = 12,
    keep: int = 3,
    seed: int = 0,
    clip: Clip | None = None,
    steps: int | None = None,
) -> Generated:
    """Draw many pictures of an emotion and keep the best.

    Args:
        model: the text-to-image model.
        emotion: a name, or algebra on names.
        style: style of the picture, in words.
        candidates: how many are drawn.
        keep: how many are kept, at most.
        seed: seed of the first; the others follow.
        clip: ranks them; None keeps the first ones as they come.
        steps: number of steps of denoising; default: the model's own.

    Raises:
        UnknownNameError: no such emotion.
        EditError: numbers or a style that make no sense, or what the model refuses.
        DataError: a prompt of more words than the CLIP reads.
    """
    if keep < 1 or candidates < 1:
        raise EditError(f"at least one candidate has to be drawn and kept, not {candidates} and {keep}")
    prompt = emotion_prompt(emotion, style)
    seeds = tqdm(range(seed, seed + candidates), unit="picture", disable=None)
    drawn = [GeneratedCandidate(number, model.draw(prompt, seed=number, steps=steps)) for number in seeds]
    if clip is None:
        why = "no CLIP was given that could rank them"
        ranked = [replace(c, kept=n < keep, reason=f"number {n + 1}; {why}") for n, c in enumerate(drawn)]
        said = f"{min(keep, candidates)} of {candidates} pictures are kept as they came: {why}"
        return Generated(emotion, prompt, model.name, tuple(ranked), said)
    found = [replace(c, score=score) for c, score in zip(drawn, _scores(clip, drawn, prompt, style), strict=True)]
    found.sort(key=lambda candidate: (-(candidate.score or 0.0), candidate.seed))
    ranked = [
        replace(c, kept=n < keep, reason=f"rank {n + 1}: read as the emotion with {c.score:.2f}")
        for n, c in enumerate(found)
    ]
    said = f"{min(keep, candidates)} of {candidates} pictures are kept; the best is of seed {ranked[0].seed}"
    return Generated(
        emotion, prompt, model.name, tuple(ranked), f"{said}, read as the emotion with {ranked[0].score:.2f}"
    )


@torch.no_grad()
def _scores(clip: Clip, drawn: list[GeneratedCandidate], prompt: str, style: str) -> list[float]:
    """Probability of the prompt among those of the basic emotions in the same style."""
    others = [emotion_prompt(name, style) for name in BASIC]
    texts = [prompt, *(other for other in others if other != prompt)]
    towards = clip.text_embeddings(texts)
    rows = []
    for candidate in drawn:
        x = torch.from_numpy(np.array(candidate.image.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
        rows.append(float((SHARPNESS * clip.image_embeddings(x) @ towards.T).softmax(1)[0, 0]))
    return rows

"""Losses for fitting shifts of h: whether a picture shows the emotion, by a recogniser or by CLIP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.emotions import get
from emoedit.metrics.clip import Clip, directional_similarity
from emoedit.metrics.landmarks import eye_opening, mouth_shape
from emoedit.models.luminance import in_luminance
from emoedit.models.stable_diffusion.text import fill, token_ids, with_tokens
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.mouth import MouthNetwork, standardise
from emoedit.steering.tokens import EmotionTokens
from emoedit.training.contrastive import text_tower
from emoedit.types import DataError


class Guide(nn.Module, ABC):
    """Losses of pictures that are to show an emotion, differentiable in the edited ones. Frozen."""

    @abstractmethod
    def forward(self, plain: Tensor, edited: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Means over the batch, by name.

        Args:
            plain: ``[N, C, R, R]`` in about [-1, 1].
            edited: as ``plain``.
            rows: ``[N]``: which of the emotions each is to show.
        """


class RecogniserGuide(Guide):
    """``emotion``: cross entropy of what a recogniser reads; ``person``: 1 - cosine of its embeddings of people.

    Args:
        network: network with heads ``emotion`` and ``person``; not the network that edits are measured with.
        emotions: those that are fitted.
        jitter: how far pictures are moved before they are read, a fraction of their side; against adversarial edits
            that depend on single pixels.
        noise: highest standard deviation of the noise that is put on them.

    Raises:
        DataError: a head or an emotion that the network lacks.
    """

    labels: Tensor

    def __init__(
        self, network: MeasuringNetwork, emotions: Sequence[str], *, jitter: float = 0.03, noise: float = 0.1
    ) -> None:
        super().__init__()
        known = network.config.emotions
        lacking = [name for name in emotions if name not in known]
        lacking += [f"a head {head!r}" for head in ("emotion", "person") if head not in network.config.heads]
        if lacking:
            raise DataError(f"this recogniser lacks {', '.join(lacking)}; it reads {', '.join(known) or 'nothing'}")
        self.network = network.eval().requires_grad_(False)
        self.register_buffer("labels", torch.tensor([known.index(name) for name in emotions]), persistent=False)
        self.jitter, self.noise = jitter, noise

    def forward(self, plain: Tensor, edited: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """One pass of the network."""
        count, device = len(plain), plain.device
        both = in_luminance(torch.cat([plain, edited]))
        angle, factor = torch.randn(2, count, device=device) * 2 * self.jitter
        cos, sin = angle.cos() * factor.exp(), angle.sin() * factor.exp()
        turn = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
        theta = torch.cat([turn, torch.randn(count, 2, 1, device=device) * self.jitter], 2).repeat(2, 1, 1)
        grid = F.affine_grid(theta, list(both.shape), align_corners=False)
        both = F.grid_sample(both, grid, padding_mode="reflection", align_corners=False)
        noise = torch.randn_like(both[:count]) * torch.rand(count, 1, 1, 1, device=device) * self.noise
        side = self.network.config.resolution
        out = self.network(
            F.interpolate(both + noise.repeat(2, 1, 1, 1), (side, side), mode="bilinear", antialias=True)
        )
        before, after = F.normalize(out["person"].float(), dim=1).chunk(2)
        return {
            "emotion": F.cross_entropy(out["emotion"][count:].float(), self.labels[rows]),
            "person": 1 - (before.detach() * after).sum(1).mean(),
        }


class TeethGuide(Guide):
    """Another guide's losses, and ``teeth``: the negative log probability of visible teeth.

    A recogniser accepts a closed smile, and the identity loss closes the mouth.

    Args:
        guide: guide of emotions that show teeth, with the mouth network's crop at any resolution.
        network: finds teeth in the soft mouths that models draw.
    """

    SHARE = 0.05  # of the patch in which mouths are: what a row of teeth takes of it

    def __init__(self, guide: Guide, network: MouthNetwork) -> None:
        super().__init__()
        self.guide, self.network = guide, network.eval().requires_grad_(False)

    def forward(self, plain: Tensor, edited: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """One pass of the network."""
        side = (self.network.config.resolution,) * 2
        crops = F.interpolate(in_luminance(edited), side, mode="bicubic", align_corners=False)
        patch, _, _ = standardise(self.network.config.patch(crops).clamp(-1, 1))
        teeth = self.network(patch)[1].flatten(1)
        surest = teeth.topk(round(self.SHARE * teeth.shape[1])).values
        return {**self.guide(plain, edited, rows), "teeth": F.softplus(-surest).mean()}


class OpeningGuide(Guide):
    """Another guide's losses, and penalties on edits that fool a recogniser.

    ``opened``: by how much lips come apart, in eye distances; ``shut``: by how much eyes close, in heights over widths.
    Recognisers read a hole in the face as a shout and a dark slit as tears.

    Args:
        guide: guide of emotions with closed lips and open eyes, with the landmark network's crop at any resolution.
        network: network with a head ``points``.

    Raises:
        DataError: a network without the head ``points``.
    """

    def __init__(self, guide: Guide, network: MeasuringNetwork) -> None:
        super().__init__()
        if "points" not in network.config.heads:
            raise DataError("lips and lids are found by landmarks: this network lacks a head 'points'")
        self.guide, self.network = guide, network.eval().requires_grad_(False)

    def forward(self, plain: Tensor, edited: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """One pass of the network."""
        side = (self.network.config.resolution,) * 2
        both = in_luminance(torch.cat([plain, edited]))
        points = self.network(F.interpolate(both, side, mode="bilinear", antialias=True))["points"]
        before, after = points.chunk(2)
        before = before.detach()
        return {
            **self.guide(plain, edited, rows),
            "opened": F.relu(mouth_shape(after)[:, 0] - mouth_shape(before)[:, 0]).mean(),
            "shut": F.relu(eye_opening(before) - eye_opening(after)).mean(),
        }


class ClipGuide(Guide):
    """The loss ``emotion``: 1 - cosine of the changes of image and text embeddings.

    Gal et al. 2022 (arXiv 2108.00946), eq. 2. The text goes from "face" to the emotion's phrase ("smiling face"), as
    Asyrp is trained; or from the prompt without to the prompt with its learned word.

    Args:
        clip: Asyrp uses ViT-B/16.
        emotions: names of emotions.
        tokens: learned words, of the text encoder that is this CLIP's text tower; default: phrases are used.
    """

    before: Tensor
    after: Tensor

    def __init__(self, clip: Clip, emotions: Sequence[str], *, tokens: EmotionTokens | None = None) -> None:
        super().__init__()
        self.clip = clip
        if tokens is None:
            before, after = "face", clip.text_embeddings([get(name).phrase for name in emotions])
        else:
            before = " ".join(tokens.template.replace("{}", "").split())
            after = word_embeddings(clip, tokens, emotions)
        self.register_buffer("before", clip.text_embeddings([before] * len(emotions)), persistent=False)
        self.register_buffer("after", after, persistent=False)

    def forward(self, plain: Tensor, edited: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """One pass of the network."""
        first, second = (self.clip.image_embeddings(x.clamp(-1, 1)) for x in (plain, edited))
        return {"emotion": 1 - directional_similarity(first, second, self.before[rows], self.after[rows]).mean()}


@torch.no_grad()
def word_embeddings(clip: Clip, tokens: EmotionTokens, emotions: Sequence[str]) -> Tensor:
    """Prompts with learned words in CLIP's space of pictures and texts: ``[E, D]`` unit vectors.

    Args:
        clip: its text tower is the text encoder that the words were learned in, whose table they stand beside.
        tokens: learned words.
        emotions: names of emotions.

    Raises:
        DataError: an emotion without a word.
        CheckpointError: words of another width, or that the tokenizer knows already.
        EditError: a prompt that is too long.
    """
    if lacking := [name for name in emotions if name not in tokens.emotions]:
        raise DataError(f"no word for {', '.join(lacking)}; there are {', '.join(tokens.emotions)}")
    tower = text_tower(clip.model)
    vectors = dict(zip(tokens.tokens, tokens.vectors, strict=True))
    tokenizer, knowing = with_tokens(clip.tokenizer, tower, vectors)
    for part in knowing.modules():
        if hasattr(part, "eos_token_id"):  # OpenAI's configs have a wrong one, and the highest id is taken for the end
            part.eos_token_id = tokenizer.eos_token_id
    named = dict(zip(tokens.emotions, tokens.tokens, strict=True))
    prompts = [fill(tokens.template, named[name], len(vectors[named[name]])) for name in emotions]
    ids = token_ids(tokenizer, prompts, tower.config.max_position_embeddings)
    read = knowing(ids.to(clip.mean.device)).pooler_output
    return F.normalize(clip.model.text_projection(read), dim=1)

"""Learning a word for an emotion from pictures of it (textual inversion: Gal et al. 2022, arXiv 2208.01618, eq. 2).

Only the new rows of the text encoder's embedding table are trained: they are separate parameters beside a frozen copy
that shares the model's memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from emoedit.emotions import get
from emoedit.faces.align import align
from emoedit.faces.detect import FaceDetector
from emoedit.io.checkpoints import read_json
from emoedit.io.images import load_picture, write_json
from emoedit.models.base import Backbone
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.text import fill, frozen_copy, rows_name, token_ids, with_tokens
from emoedit.models.stable_diffusion.unet import down, up
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.photo import crop_and_normalise
from emoedit.steering.tokens import EMBEDDINGS, EmotionTokens, token_of, write_embedding
from emoedit.training.data import CropSet
from emoedit.training.loop import Shared, TrainerConfig, train
from emoedit.types import CheckpointError, DataError, Edit, ImageError, NoFaceError

TEMPLATES = (
    "a photo of a {} face",
    "a close-up photo of a {} face",
    "a portrait of a {} person",
    "a {} face",
    "a photo of a {} person",
    "a cropped photo of a {} face",
)
RUN = "token.json"  # what a working folder is about


@dataclass(frozen=True)
class TokenConfig:
    """What is learned.

    Args:
        emotion: its name.
        like: a word or words of the vocabulary, whose mean embedding the vectors start from; the nearest known emotion.
        token: the new word; default: ``<emotion>``.
        vectors: how many rows it has.
        templates: prompts with ``{}`` where the token goes, drawn at random.
        batch_size: pictures a step and process.
    """

    emotion: str
    like: str
    token: str | None = None
    vectors: int = 1
    templates: Sequence[str] = TEMPLATES
    batch_size: int = 8

    @property
    def word(self) -> str:
        """The token."""
        return self.token or token_of(self.emotion)


class TokenTask(nn.Module):
    """To find the noise in noisy latents of an emotion's pictures, under prompts with its token.

    Args:
        backbone: its weights are shared, and left as they are.
        config: see ``TokenConfig``.

    Raises:
        CheckpointError: a token that exists already.
        EditError: a template without the token, or too long.
        DataError: ``like`` is nothing the tokenizer knows.
    """

    def __init__(self, backbone: StableDiffusionBackbone, config: TokenConfig) -> None:
        super().__init__()
        start, self.limit = start_vectors(backbone, config.like, config.vectors)
        self.rows = nn.Parameter(start)
        tokenizer, text_encoder = with_tokens(backbone.tokenizer, backbone.text_encoder, {config.word: start})
        prompts = [fill(template, config.word, config.vectors) for template in config.templates]
        if not prompts:
            raise DataError("no template: give at least one prompt with {} where the token goes")
        weight = backbone.face / backbone.face.mean()
        self._shared = Shared(
            unet=frozen_copy(backbone.unet),
            text_encoder=text_encoder,
            rows_name=rows_name(text_encoder),
            ids=token_ids(tokenizer, prompts, text_encoder.config.max_position_embeddings).to(backbone.device),
            alphas=backbone.alpha_bar.float().to(backbone.device),
            weight=weight.clone(),
            v_prediction=backbone.v_prediction,
        )

    def learned(self) -> Tensor:
        """The vectors, ``[n, D]``: the rows, shortened to the longest embedding of the vocabulary.

        Longer ones swamp the rest of the prompt.
        """
        return self.rows * (self.limit / self.rows.norm(dim=1, keepdim=True)).clamp_max(1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """batch: ``latent`` ``[N, C, r, r]``, ``prompt`` ``[N]``: which template.

        Args:
            batch: batch of the task.
        """
        own = self._shared
        z, drawn = batch["latent"].to(own.ids.device), batch["prompt"].to(own.ids.device)
        prompts, which = drawn.unique(return_inverse=True)
        vectors = {own.rows_name: self.learned().to(z.device)}
        contexts = torch.func.functional_call(own.text_encoder, vectors, (own.ids[prompts],))[0]
        with torch.autocast(z.device.type, enabled=False):
            # A timestep from each N-th of the schedule: all noise levels in every batch.
            share = (torch.arange(len(z), device=z.device) + torch.rand(len(z), device=z.device)) / len(z)
            t = (share * len(own.alphas)).long().clamp_max(len(own.alphas) - 1)
            a = own.alphas[t][:, None, None, None]
            noise = torch.randn_like(z)
            x_t = a.sqrt() * z + (1 - a).sqrt() * noise
            target = a.sqrt() * noise - (1 - a).sqrt() * z if own.v_prediction else noise
        context = contexts[which]
        h, skips, temb = down(own.unet, x_t, t, context)
        error = (up(own.unet, h, skips, temb, context).float() - target).square() * own.weight
        return {"loss": error.mean(), "length": self.rows.norm(dim=1).mean().detach()}


def start_vectors(backbone: StableDiffusionBackbone, like: str, count: int) -> tuple[Tensor, float]:
    """The vectors that learning starts from, ``[n, D]``, and the length of the longest embedding there is.

    They are the mean embedding of the tokens of ``like``, ``count`` times.

    Args:
        backbone: the model.
        like: a word, or an emotion.
        count: n.

    Raises:
        DataError: ``like`` is nothing the tokenizer knows, or no vector is asked for.
    """
    ids = backbone.tokenizer(like, add_special_tokens=False)["input_ids"]
    if not ids or count < 1:
        raise DataError(f"{count} vectors that start from {like!r}: give a word that is known, and 1 to 8 vectors")
    table = backbone.text_encoder.get_input_embeddings().weight.detach()
    return table[ids].float().mean(0).expand(count, -1).clone().cpu(), float(table.float().norm(dim=1).max())


class LatentBatches:
    """Latents of pictures and their mirror images as batches; a pure function of (seed, step, process).

    Args:
        latents: ``[2, N, C, r, r]``: pictures, mirrored pictures.
        prompts: how many templates there are.
        batch_size: pictures in a batch.
        seed: seed of the draws.
    """

    def __init__(self, latents: Tensor, prompts: int, *, batch_size: int, seed: int) -> None:
        self.latents, self.prompts, self.batch_size, self.seed = latents, prompts, batch_size, seed

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """The batch of a step."""
        rng = np.random.default_rng((self.seed, step, process))
        flips, count = rng.integers(2, size=self.batch_size), self.latents.shape[1]
        # Without repeats as far as the pictures reach: a handful should all be seen.
        order = np.concatenate([rng.permutation(count) for _ in range(-(-self.batch_size // count))])
        drawn = rng.integers(self.prompts, size=self.batch_size)
        return {"latent": self.latents[flips, order[: self.batch_size]], "prompt": torch.from_numpy(drawn)}


@torch.no_grad()
def encode_pictures(backbone: StableDiffusionBackbone, crops: Tensor, *, batch_size: int = 8) -> Tensor:
    """Latents of crops and of their mirror images, once for all steps: ``[2, N, C, r, r]`` on the CPU.

    Args:
        backbone: the model that draws.
        crops: ``[N, 1 or 3, R, R]`` in [-1, 1].
        batch_size: pictures in one pass of the model.

    Raises:
        ImageError: crops of another shape.
        DataError: there is none.
    """
    if not len(crops):
        raise DataError("no picture to learn from: a handful is needed, 20 to 200 are good")
    sides = []
    for x in (crops, crops.flip(-1)):
        parts = x.to(backbone.device, torch.float32).split(batch_size)
        sides.append(torch.cat([backbone.to_latent(part)[0].cpu() for part in parts]))
    return torch.stack(sides)


def read_faces(
    folder: str | os.PathLike[str],
    backbone: Backbone,
    *,
    detector: FaceDetector | None = None,
    limit: int | None = None,
) -> Tensor:
    """Aligned crops of the faces in a folder of photographs of one emotion.

    ``[N, 1 or 3, R, R]`` in [-1, 1]: the largest face of each photograph, in the order of their names.

    Args:
        folder: path of the folder.
        backbone: the model that draws.
        detector: default: MTCNN.
        limit: only the first so many files, by name; default: all.

    Raises:
        DataError: no folder, an empty one, or one that holds anything else than pictures with a face; the message names
            what. Hidden files are left out.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give one with photographs of faces that show the emotion")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not entries:
        raise DataError(f"{folder} is empty: put photographs of faces that show the emotion there, 20 to 200 are good")
    if below := [path.name for path in entries if path.is_dir()]:
        raise DataError(
            f"{folder} holds folders ({_shown(below)}): a token is learned from the pictures of one emotion; give one "
            "folder without others in it"
        )
    entries = entries[:limit]
    detector = detector or FaceDetector()
    crops: list[Tensor] = []
    faults: dict[str, list[str]] = {"not readable as pictures": [], "without a face": []}
    for path in entries:
        try:
            rgb = load_picture(path).rgb
            (face,) = detector.choose(rgb)
        except ImageError:
            faults["not readable as pictures"].append(path.name)
        except NoFaceError:
            faults["without a face"].append(path.name)
        else:
            crops.append(crop_and_normalise(rgb, [align(face.landmarks, backbone.crop)], backbone)[0])
    if any(faults.values()):
        what = "; ".join(f"{len(names)} {kind} ({_shown(names)})" for kind, names in faults.items() if names)
        raise DataError(f"{folder}: {what}, of {len(entries)} files: take them out")
    return torch.cat(crops)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


@torch.no_grad()
def read_emotions(network: MeasuringNetwork, crops: CropSet, positions: np.ndarray) -> Tensor:
    """Log probabilities of a recogniser's emotions, the mean over a crop and its mirror image: ``[N, E]``.

    Args:
        network: network with a head ``emotion``.
        crops: prepared crops.
        positions: indices into the crops.
    """
    rows = []
    for part in np.array_split(positions, max(1, len(positions) // 128)):
        x = crops.pixels(part, network.config.resolution)
        there, back = (network(side)["emotion"].float().log_softmax(1) for side in (x, x.flip(-1)))
        rows.append((there + back) / 2)
    return torch.cat(rows)


def pick_pictures(
    scores: Tensor, known: Sequence[str], labels: np.ndarray, people: np.ndarray, emotion: str, count: int
) -> np.ndarray:
    """Which pictures show an emotion most: numbers ``[count]``, ascending; one a person, where people are known.

    For a basic emotion: only pictures labelled with it. For a nuanced one: those whose scores come nearest, in cross
    entropy, to what it is mixed from (``emoedit.emotions``), what its weights leave of 1 being neutral: a mild
    emotion is not learned from faces that shout.

    Args:
        scores: ``[N, E]`` of ``read_emotions``.
        known: the E emotions.
        labels: ``[N]`` of str; an empty one says nothing.
        people: as ``labels``.
        emotion: name of an emotion.
        count: how many.

    Raises:
        DataError: an emotion has no score, or there are fewer pictures than ``count``.
        UnknownNameError: no such emotion.
    """
    entry = get(emotion)
    mixture = {name: w for name, w in entry.mixture.items() if w > 0} or {entry.name: 1.0}
    if (left := 1 - sum(mixture.values())) > 0:
        mixture["neutral"] = left
    if lacking := [name for name in mixture if name not in known]:
        raise DataError(f"this recogniser does not read {', '.join(lacking)}; it reads {', '.join(known) or 'nothing'}")
    usable = np.arange(len(labels)) if entry.mixture else np.flatnonzero(labels == entry.name)
    parts = (weight * scores[usable, known.index(name)] for name, weight in mixture.items())
    shown = sum(parts, scores.new_zeros(len(usable)))
    best = usable[shown.argsort(descending=True, stable=True).numpy()]
    seen = np.where(people == "", [f"picture {n}" for n in range(len(people))], people)[best]
    first = np.sort(np.unique(seen, return_index=True)[1])
    if len(first) < count:
        raise DataError(f"{len(first)} people show {emotion!r}, {count} pictures are asked for: give a smaller number")
    return np.sort(best[first[:count]])


def learn_token(
    backbone: StableDiffusionBackbone,
    crops: Tensor,
    config: TokenConfig,
    folder: str | os.PathLike[str],
    trainer: TrainerConfig,
    *,
    validation: Tensor | None = None,
) -> Tensor:
    """Learn a token, or go on where the folder's last checkpoint stopped.

    Args:
        backbone: left as it is.
        crops: ``[N, 1 or 3, R, R]`` in [-1, 1], faces that show the emotion (``read_faces``).
        config: how it is made.
        folder: working folder: ``state.pt``, TensorBoard files, and at the end ``learned_embeds.safetensors``.
        trainer: configuration of ``emoedit.training.loop.train``.
        validation: ``[M, 1 or 3, R, R]`` in [-1, 1], other faces, to be edited with the token for the grids in
            TensorBoard: a row each of sources, strength 1 and strength 2.

    Returns:
        The vectors, ``[n, D]``.

    Raises:
        CheckpointError: a token that exists already; a folder in which something else was learned.
        DataError: no picture, or a ``like`` that is nothing the tokenizer knows.
        EditError: a template without the token, or too long.
        ImageError: pictures of another shape.
        DivergedError: the loss became NaN or infinite; the last good state stays in the folder.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    task = TokenTask(backbone, config)
    latents = encode_pictures(backbone, crops)
    _claim(folder, config, crops)
    batches = LatentBatches(latents, len(config.templates), batch_size=config.batch_size, seed=trainer.seed)

    def preview(averaged: TokenTask, faces: Tensor) -> Tensor:
        return validation_grid(backbone, averaged.learned(), config, faces)

    show = None if validation is None else partial(preview, faces=validation)
    vectors = train(task, batches, folder, trainer, preview=show).learned().detach()
    write_embedding(folder / EMBEDDINGS, config.word, vectors, overwrite=True)
    return vectors


def _claim(folder: Path, config: TokenConfig, crops: Tensor) -> None:
    """Note what a working folder is about; a resumed run has to be about the same."""
    pixels = hashlib.sha256(crops.detach().float().cpu().numpy().tobytes()).hexdigest()[:16]
    about = {
        "emotion": config.emotion,
        "token": config.word,
        "like": config.like,
        "vectors": config.vectors,
        "templates": list(config.templates),
        "batch_size": config.batch_size,
        "pictures": [len(crops), pixels],
    }
    if not (folder / RUN).is_file():
        write_json(folder / RUN, about, overwrite=True)  # each process of a distributed run writes the same
        return
    before = read_json(folder / RUN)
    if changed := [name for name, value in about.items() if before.get(name) != value]:
        there = "; ".join(f"{name} {before.get(name)!r}, now {about[name]!r}" for name in changed)
        raise CheckpointError(f"{folder} is the working folder of another run ({there}): give a new one")


@torch.no_grad()
def validation_grid(
    backbone: StableDiffusionBackbone, vectors: Tensor, config: TokenConfig, pictures: Tensor
) -> Tensor:
    """Sources over edits of strength 1 and 2, ``[1 or 3, 3 R, M R]`` in [0, 1].

    Args:
        backbone: the model that draws.
        vectors: ``[n, D]``.
        config: how it is made.
        pictures: ``[M, 1 or 3, R, R]`` in [-1, 1].
    """
    steering = EmotionTokens(
        {config.emotion: vectors.detach().to(backbone.device)},
        tokens={config.emotion: config.word},
        template=config.templates[0],
    )
    inversion = backbone.invert(pictures.to(backbone.device))
    rows = [pictures.to(backbone.device)]
    for strength in (1.0, 2.0):
        edits = [Edit(f"{config.emotion}", strength)] * len(pictures)
        rows.append(backbone.decode(inversion, steering.control(backbone, inversion, edits)))
    grid = torch.stack(rows).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return (grid / 2 + 0.5).clamp(0, 1).cpu()

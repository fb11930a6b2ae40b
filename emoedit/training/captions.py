"""Captions for labelled faces, and the vocabulary that reads them.

A caption names the emotion and, by data set, the kind of picture. Without the kind, words for emotions that only one
data set has would also come to mean its blur. Parts are left out at random, so that
every word is learned alone and with others; the empty caption is the negative prompt of guidance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from emoedit.emotions import get, list_emotions
from emoedit.models.stable_diffusion.text import token_ids
from emoedit.training.augment import Augment, augment
from emoedit.training.data import MixtureBatches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# fmt: off
ADJECTIVES = {
    "neutral": ("neutral", "calm", "expressionless"),
    "happy": ("happy", "smiling", "cheerful", "joyful", "glad"),
    "sad": ("sad", "unhappy", "sorrowful", "frowning"),
    "angry": ("angry", "mad", "furious", "hostile"),
    "surprised": ("surprised", "astonished", "amazed", "shocked"),
    "fearful": ("fearful", "scared", "afraid", "frightened"),
    "disgusted": ("disgusted", "revolted", "repulsed"),
}
LOOKS = {  # after "with": the words of the vocabulary's own prompts (emoedit.emotions)
    "happy": ("a smile",),
    "sad": ("lowered eyes",),
    "angry": ("lowered brows",),
    "surprised": ("raised brows", "an open mouth", "raised brows and an open mouth"),
    "fearful": ("wide eyes",),
    "disgusted": ("a wrinkled nose",),
}
# fmt: on
NOUNS = ("face", "face", "person")
START, END = "<|startoftext|>", "<|endoftext|>"
# How CLIP cuts text into words before it joins bytes (Radford et al. 2021, its published tokenizer).
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Caption:
    """A text and what it states: an emotion and a data set, empty where it leaves them out."""

    text: str
    emotion: str = ""
    data: str = ""

    def fits(self, emotion: str, data: str) -> bool:
        """Whether the caption is true of a picture with these labels.

        Args:
            emotion: emotion of the picture.
            data: the picture's data set.
        """
        return self.emotion in ("", emotion) and self.data in ("", data)


def write_caption(
    rng: np.random.Generator, emotion: str, data: str, kinds: Mapping[str, Sequence[str]], *, empty: float = 0.12
) -> Caption:
    """A caption for a picture, as ``"a small soft picture of a scared person with wide eyes"`` or ``"smiling face"``.

    Args:
        rng: draws what is random.
        emotion: a basic one; of another one nothing is said.
        data: what is known of the picture.
        kinds: data set -> phrases for the kind of picture it holds; of another one nothing is said.
        empty: share of captions that say nothing.
    """
    if rng.random() < empty:
        return Caption("")
    noun, said = str(rng.choice(NOUNS)), ""
    if emotion in ADJECTIVES and rng.random() < 0.85:
        said, look = emotion, ""
        if rng.random() < 0.15 and emotion in LOOKS:
            look = f" with {rng.choice(LOOKS[emotion])}"
        noun = f"{rng.choice(ADJECTIVES[emotion])} {noun}{look}"
    if data in kinds and rng.random() < 0.75:
        return Caption(_article(f"{rng.choice(kinds[data])} of {_article(noun)}"), said, data)
    return Caption(noun if rng.random() < 0.3 else _article(noun), said)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def vocabulary_texts(kinds: Mapping[str, Sequence[str]], count: int = 6000) -> list[str]:
    """What a tokenizer is learned from: captions, and every word of ``emoedit.emotions``, a few times each.

    Args:
        kinds: data set -> words for its kind of picture.
        count: count of captions.
    """
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(count):
        emotion, data = rng.choice(list(ADJECTIVES)), rng.choice(list(kinds))
        texts.append(write_caption(rng, str(emotion), str(data), kinds, empty=0.0).text)
    for name in list_emotions():
        entry = get(name)
        texts += [name, *entry.aliases, entry.phrase, entry.prompt] * 5
    return texts


def learn_tokenizer(
    texts: Iterable[str], folder: str | Path, *, merges: int = 350, length: int = 24
) -> PreTrainedTokenizerBase:
    """A byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909) of CLIP's kind, written as ``CLIPTokenizer`` reads it.

    Every byte is a token, inside a word and at its end, so there is no text it cannot read.

    Args:
        texts: training texts.
        folder: path of the folder.
        merges: pairs to join at most: the vocabulary has 514 tokens more.
        length: tokens a prompt can have, with those of start and end.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    bare = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bare.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    cut = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    bare.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, initial_alphabet=letters, end_of_word_suffix="</w>", min_frequency=2, show_progress=False
    )
    bare.train_from_iterator(texts, trainer)
    found = json.loads(bare.to_str())["model"]["merges"][:merges]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in found]
    tokens = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in pairs)])
    vocabulary = {token: number for number, token in enumerate([*tokens, START, END])}
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "model_max_length": length, **special}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *(" ".join(pair) for pair in pairs), ""]),
        "tokenizer_config.json": json.dumps(config, indent=2),
        "special_tokens_map.json": json.dumps(special, indent=2),
    }.items():
        (folder / name).write_text(value, encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


class CaptionedBatches:
    """Batches of crops with a caption each; a pure function of (seed, step, process).

    Args:
        batches: draws the crops.
        tokenizer: CLIP's.
        kinds: see ``write_caption``.
        empty: share of empty captions.
        how: changes to the pictures (``emoedit.training.augment.augment``); None: they are flipped, no more.
    """

    def __init__(
        self,
        batches: MixtureBatches,
        tokenizer: PreTrainedTokenizerBase,
        kinds: Mapping[str, Sequence[str]],
        *,
        empty: float = 0.12,
        how: Augment | None = None,
    ) -> None:
        self.batches, self.tokenizer, self.kinds = batches, tokenizer, kinds
        self.empty, self.how = empty, how
        self.labels = np.stack([batches.crops.column("emotion"), batches.crops.column("data")], 1)

    def __call__(self, step: int, process: int = 0) -> dict[str, Tensor]:
        """A batch of crops with captions.

        ``x`` ``[B, 1, R, R]`` in [-1, 1]; ``ids`` ``[B, T]`` of their captions; ``fits`` ``[B, B]`` of bool: whether a
        column's caption is true of a row's picture.
        """
        batches = self.batches
        chosen, _ = batches.draw(step, process)
        rng = np.random.default_rng((batches.seed, step, process, 1))
        labels = [(str(emotion), str(data)) for emotion, data in self.labels[chosen]]
        captions = [write_caption(rng, *label, self.kinds, empty=self.empty) for label in labels]
        if self.how is None:
            x = batches(step, process)
        else:
            x = batches.crops.pixels(chosen, batches.crops.crops.shape[1])
            x, _ = augment(x, torch.zeros(len(x), 68, 2), batches.resolution, self.how, rng)
        fits = [[caption.fits(*label) for caption in captions] for label in labels]
        texts = [caption.text for caption in captions]
        ids = token_ids(self.tokenizer, texts, self.tokenizer.model_max_length)
        return {"x": x, "ids": ids, "fits": torch.tensor(fits)}

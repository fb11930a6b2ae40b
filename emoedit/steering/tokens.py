"""Emotions as words of Stable Diffusion that were learned from pictures, and their files.

Textual inversion: Gal et al. 2022 (arXiv 2208.01618). Files are diffusers' own, and those of Automatic1111's web
interface.

An edit moves the context in a straight line from the neutral prompt's to that of the prompt with the learned word.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.io.images import write_atomic
from emoedit.io.pickles import Record
from emoedit.models.ddpm.files import read_file
from emoedit.models.precision import versions
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.text import encode, fill, with_tokens
from emoedit.steering.words import TextSteering
from emoedit.types import CheckpointError, EditError

EMBEDDINGS = "learned_embeds.safetensors"  # diffusers' names
OLD_EMBEDDINGS = "learned_embeds.bin"
TEMPLATE = "a photo of a {} face"


def token_of(emotion: str) -> str:
    """The usual token for an emotion: ``<happy>``, ``<pleasantly-surprised>``.

    Args:
        emotion: its canonical name.
    """
    return f"<{_slug(emotion)}>"


def _slug(emotion: str) -> str:
    return re.sub(r"[^\w]+", "-", emotion.casefold()).strip("-") or "emotion"


def write_embedding(path: str | os.PathLike[str], token: str, vectors: Tensor, *, overwrite: bool = False) -> None:
    """Write a learned token as diffusers' ``load_textual_inversion`` reads it: whole or not at all.

    Args:
        path: path of the file.
        token: the word.
        vectors: ``[n, D]``.
        overwrite: whether a file that exists is replaced.

    Raises:
        CheckpointError: vectors of another shape, or not finite.
        OutputError: it exists and ``overwrite`` is not set, or cannot be written.
    """
    from safetensors.torch import save

    _check(token, vectors)
    data = save({token: vectors.detach().float().cpu().contiguous()}, {"format": "pt"})
    write_atomic(path, lambda file: file.write(data), overwrite=overwrite)


def read_embedding(path: str | os.PathLike[str]) -> tuple[str, Tensor]:
    """A learned token and its vectors ``[n, D]``, float32.

    Read are ``learned_embeds.safetensors`` and ``.bin`` of diffusers' script (one token -> vectors) and the embeddings
    of Automatic1111: ``.pt`` (``string_to_param``) and ``.safetensors`` (``emb_params``, named by its file); and those
    of the original latent-diffusion repository, whose token is ``*`` and is renamed after the file.

    Args:
        path: a file, or a folder with one of diffusers' names in it.

    Raises:
        CheckpointError: missing, damaged, of several tokens, or of another kind; no code in a file is run.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / (
            EMBEDDINGS if (path / EMBEDDINGS).is_file() or not (path / OLD_EMBEDDINGS).is_file() else OLD_EMBEDDINGS
        )
    found = checkpoints.read_weights(path) if path.suffix == ".safetensors" else read_file(path)
    if isinstance(found, Mapping) and isinstance(found.get("string_to_param"), Mapping):
        params, name = found["string_to_param"], found.get("name")
        if isinstance(params, Record):  # a ParameterDict, as the original latent-diffusion repository writes it
            params = params.get("_parameters", {})
        if not isinstance(params, Mapping):
            raise CheckpointError(f"{path} holds a {type(params).__name__}; expected a token and a tensor")
        if len(params) != 1:
            raise CheckpointError(f"{path} holds {len(params)} embeddings ({_listed(params)}); expected one")
        token, vectors = name if isinstance(name, str) and name else path.stem, next(iter(params.values()))
    elif isinstance(found, Mapping) and set(found) == {"emb_params"}:
        token, vectors = path.stem, found["emb_params"]
    elif isinstance(found, Mapping) and len(found) == 1:
        token, vectors = next(iter(found.items()))
    else:
        what = f"{len(found)} keys ({_listed(found)})" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise CheckpointError(
            f"{path} holds {what}; expected one token and its vectors: an embedding of diffusers or Automatic1111 for "
            "Stable Diffusion 1.x or 2.x"
        )
    if not isinstance(token, str) or not isinstance(vectors, Tensor):
        raise CheckpointError(f"{path} holds {token!r} -> {type(vectors).__name__}; expected a token and a tensor")
    vectors = vectors.detach()
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    _check(f"{path}: {token}", vectors)
    return token, vectors.float()


def _listed(found: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, list(found)[:4])) + (", …" if len(found) > 4 else "")


def _check(name: str, vectors: Tensor) -> None:
    if vectors.ndim != 2 or not vectors.numel() or not vectors.is_floating_point():
        raise CheckpointError(
            f"{name}: vectors are {vectors.dtype} {tuple(vectors.shape)}; expected floating point [n, D]"
        )
    if not bool(vectors.isfinite().all()):
        raise CheckpointError(f"{name}: its vectors hold values that are not finite")


class EmotionTokens(TextSteering):
    """A learned word for each emotion, in a prompt (``TextSteering``).

    Tokens are put into copies: the backbone's tokenizer and text encoder stay as they are.

    Args:
        embeddings: emotion -> ``[n, D]``, the vectors of its token.
        tokens: emotion -> token; default: ``token_of``.
        template: the prompt, with ``{}`` where the token goes.
        gain: as ``TextSteering`` has them.
        spans: as ``gain``.

    Raises:
        CheckpointError: no emotion, vectors of other shapes or of several widths, two emotions with one token, limits
            that are none.
        EditError: a template without the token.
    """

    def __init__(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        tokens: Mapping[str, str] | None = None,
        template: str = TEMPLATE,
        gain: Tensor | None = None,
        spans: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(tuple(embeddings), gain=gain, spans=spans)
        self.tokens = tuple((tokens or {}).get(name) or token_of(name) for name in self.emotions)
        self.template = template
        fill(template, "", 1)
        for name, vectors in embeddings.items():
            _check(name, vectors)
        widths = {name: vectors.shape[1] for name, vectors in embeddings.items()}
        if len(set(widths.values())) != 1:
            raise CheckpointError(
                f"vectors of {', '.join(f'{name} ({width} wide)' for name, width in widths.items()) or 'no emotion'}; "
                "expected one emotion or more, all of one width"
            )
        if len(set(self.tokens)) != len(self.tokens):
            raise CheckpointError(f"two emotions have the same token: {', '.join(self.tokens)}")
        if unknown := sorted(set(tokens or {}) - set(embeddings)):
            raise CheckpointError(f"tokens for {', '.join(unknown)}, of which there are no vectors")
        self.vectors = nn.ParameterList(nn.Parameter(v.detach().float().clone()) for v in embeddings.values())
        self._contexts: tuple[Any, Tensor] | None = None

    @torch.no_grad()
    def contexts(self, backbone: StableDiffusionBackbone, used: Sequence[int] | None = None) -> Tensor:
        """Contexts of the prompts with each emotion's token (``TextSteering.contexts``); kept while no weight changes.

        Raises:
            CheckpointError: vectors of another width than the text encoder's, or a token that exists already.
            EditError: a prompt that is too long.
        """
        weights = [*backbone.text_encoder.parameters(), *self.vectors]
        key = weakref.ref(backbone.text_encoder), versions(weights)
        if self._contexts is None or self._contexts[0] != key:
            embeddings = dict(zip(self.tokens, self.vectors, strict=True))
            tokenizer, text_encoder = with_tokens(backbone.tokenizer, backbone.text_encoder, embeddings)
            prompts = [fill(self.template, token, len(vectors)) for token, vectors in embeddings.items()]
            self._contexts = key, encode(tokenizer, text_encoder, prompts)
        return self._contexts[1] if used is None else self._contexts[1][list(used)]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json``, and for each emotion a folder with its ``learned_embeds.safetensors``.

        ``StableDiffusionPipeline.load_textual_inversion`` reads each.
        """
        folder = Path(folder)
        names = [f"{n}-{_slug(emotion)}" for n, emotion in enumerate(self.emotions)]
        config = {
            "template": self.template,
            "emotions": [
                {"emotion": emotion, "folder": name, "gain": gain}
                | ({"span": list(self.spans[emotion])} if emotion in self.spans else {})
                for emotion, name, gain in zip(self.emotions, names, self.gain.tolist(), strict=True)
            ],
        }
        for name, token, vectors in zip(names, self.tokens, self.vectors, strict=True):
            write_embedding(folder / name / EMBEDDINGS, token, vectors, overwrite=True)
        checkpoints.write_config(folder, config)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what ``save_pretrained`` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or does not fit this class.
        """
        folder = Path(folder)
        path = folder / checkpoints.CONFIG
        config = checkpoints.read_json(path)
        with checkpoints.entries_of(path):
            entries = config["emotions"]
            files = {entry["emotion"]: folder / entry["folder"] for entry in entries}
            gain = torch.tensor([float(entry["gain"]) for entry in entries])
            spans = {entry["emotion"]: tuple(entry["span"]) for entry in entries if "span" in entry}
            template = str(config["template"])
        try:
            return cls.from_files(files, template=template, gain=gain, spans=spans)
        except EditError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def from_files(
        cls,
        files: Mapping[str, str | os.PathLike[str]],
        *,
        tokens: Mapping[str, str] | None = None,
        template: str = TEMPLATE,
        gain: Tensor | None = None,
        spans: Mapping[str, Sequence[int]] | None = None,
    ) -> Self:
        """Tokens that were learned anywhere (``read_embedding``).

        Args:
            files: emotion -> file or folder.
            tokens: emotion -> token, instead of the one in the file (for a name that exists already, say).
            template: the prompt; ``{}`` is replaced by the token.
            gain: times the shift at strength 1.
            spans: timesteps at which each token is used.

        Raises:
            CheckpointError: no such file, damaged, another kind.
            EditError: a template without the token.
        """
        read = {emotion: read_embedding(path) for emotion, path in files.items()}
        named = {emotion: token for emotion, (token, _) in read.items()} | dict(tokens or {})
        vectors = {emotion: found for emotion, (_, found) in read.items()}
        return cls(vectors, tokens=named, template=template, gain=gain, spans=spans).eval()

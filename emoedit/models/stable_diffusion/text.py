"""Text as Stable Diffusion reads it: prompts to contexts, and new words beside those of the vocabulary.

New words (Gal et al. 2022, arXiv 2208.01618) go into a copy: its table of embeddings is the shared one plus rows of its
own, every other weight is shared memory, and neither tokenizer nor text encoder of the model is touched.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.types import CheckpointError, EditError

if TYPE_CHECKING:
    from transformers import CLIPTextModel, PreTrainedTokenizerBase


def token_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], length: int) -> Tensor:
    """Ids of prompts, padded: ``[N, T]``.

    Args:
        tokenizer: the model's own.
        prompts: texts.
        length: positions the text encoder has; T is that, or what the tokenizer allows if that is less.

    Raises:
        EditError: a prompt is longer; the end of it would not be seen.
    """
    length = min(length, tokenizer.model_max_length)
    rows = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=False)["input_ids"]
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) > length:
            raise EditError(
                f"the prompt {prompt[:60]!r} has {len(row)} tokens with those of start and end, the text encoder reads "
                f"{length}: shorten it"
            )
    return torch.tensor(rows)


def encode(tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModel, prompts: Sequence[str]) -> Tensor:
    """Contexts of prompts: the text encoder's last hidden states, ``[N, T, D]``.

    Args:
        tokenizer: CLIP's.
        text_encoder: CLIP's.
        prompts: N texts.

    Raises:
        EditError: a prompt is too long.
    """
    ids = token_ids(tokenizer, prompts, text_encoder.config.max_position_embeddings)
    return text_encoder(ids.to(text_encoder.device))[0]


def vectors_of(token: str, count: int) -> list[str]:
    """The names of a token's vectors, as diffusers names them: ``<happy>``, ``<happy>_1``, ``<happy>_2``.

    Args:
        token: such as ``<happy>``.
        count: how many.
    """
    return [token, *(f"{token}_{n}" for n in range(1, count))]


def fill(template: str, token: str, count: int) -> str:
    """A template with a token of ``count`` vectors in place of its ``{}``.

    Args:
        template: with one ``{}``.
        token: such as ``<happy>``.
        count: vectors of the token.

    Raises:
        EditError: there is not exactly one ``{}``: the prompt would lack the token.
    """
    if template.count("{}") != 1:
        raise EditError(f"the prompt {template!r} needs one {{}}, where the token goes; it has {template.count('{}')}")
    return template.replace("{}", " ".join(vectors_of(token, count)))


class _Table(nn.Module):
    """A shared table of embeddings with new rows behind it.

    Args:
        shared: ``[V, D]``.
        rows: ``[n, D]``.
        first: id of the first new row; the tokenizer's length, which may lie below V.
    """

    def __init__(self, shared: nn.Embedding, rows: Tensor, first: int) -> None:
        super().__init__()
        self.shared, self.first = shared, first
        self.rows = nn.Parameter(rows, requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """``[first + n, D]``, as one table."""
        return torch.cat([self.shared.weight[: self.first], self.rows])

    def forward(self, ids: Tensor) -> Tensor:
        new = ids >= self.first
        known = self.shared(ids.masked_fill(new, 0))
        return torch.where(new[..., None], F.embedding((ids - self.first).clamp_min(0), self.rows), known)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy of a module whose weights are the same memory and need no gradient, in eval mode.

    What is done to the copy does not reach the module.

    Args:
        module: left unchanged.
    """
    memo: dict[int, Tensor] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    memo |= {id(b): b for b in module.buffers()}
    return copy.deepcopy(module, memo).eval()


def check_new(tokenizer: PreTrainedTokenizerBase, width: int, embeddings: Mapping[str, Tensor]) -> None:
    """Whether tokens can be added.

    Args:
        tokenizer: the model's own.
        width: D of the text encoder.
        embeddings: token -> ``[n, D]``.

    Raises:
        CheckpointError: vectors of another width, or a name that the tokenizer already has or cannot hold.
    """
    known = tokenizer.get_vocab()
    taken: set[str] = set()
    for token, rows in embeddings.items():
        if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
            raise CheckpointError(
                f"{token}: its vectors are {tuple(rows.shape)}, the text encoder's are {width} wide: it was learned on "
                f"another kind of model (Stable Diffusion 1.x has 768, 2.x 1024); expected [n, {width}]"
            )
        if not token or any(letter.isspace() for letter in token):
            raise CheckpointError(f"{token!r} cannot be a token: it is empty or holds a space; <happy> is usual")
        for name in vectors_of(token, len(rows)):
            if name in known or name in taken:
                raise CheckpointError(
                    f"the token {name!r} exists already, in the tokenizer or among those that are added: give another, "
                    "as tokens={'happy': '<happy>'} does"
                )
            taken.add(name)


def with_tokens(
    tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModel, embeddings: Mapping[str, Tensor]
) -> tuple[PreTrainedTokenizerBase, CLIPTextModel]:
    """Copies with more tokens; the originals stay as they are. The text encoder's copy shares their memory.

    Args:
        tokenizer: the model's own.
        text_encoder: the model's own.
        embeddings: token -> ``[n, D]``, its vectors.

    Raises:
        CheckpointError: vectors of another width, or a name that the tokenizer already has or cannot hold.
    """
    shared = text_encoder.get_input_embeddings()
    check_new(tokenizer, shared.embedding_dim, embeddings)
    larger, first = copy.deepcopy(tokenizer), len(tokenizer)
    names = [name for token, rows in embeddings.items() for name in vectors_of(token, len(rows))]
    larger.add_tokens(names)
    if larger.convert_tokens_to_ids(names) != list(range(first, first + len(names))):
        raise CheckpointError(f"the tokenizer does not keep {', '.join(names[:4])} apart: give other names")
    knowing: Any = frozen_copy(text_encoder)
    rows = torch.cat([rows.detach() for rows in embeddings.values()]).to(shared.weight)
    knowing.set_input_embeddings(_Table(knowing.get_input_embeddings(), rows, first))
    return larger, knowing


def rows_name(text_encoder: nn.Module) -> str:
    """The name of the new rows among the parameters of a text encoder of ``with_tokens``.

    Args:
        text_encoder: text encoder of ``with_tokens``.
    """
    return next(f"{name}.rows" for name, part in text_encoder.named_modules() if isinstance(part, _Table))

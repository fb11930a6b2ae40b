"""Names of emotions: how they are compared, looked up, and what is said of one that does not exist."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from difflib import get_close_matches

from emoedit.emotions.vocabulary import EMOTIONS, Emotion
from emoedit.types import UnknownNameError

JOINT = re.compile(r"(?<=\w)[ _-]+(?=\w)")  # what may stand between two words of a name
_VOCABULARY = {emotion.name: emotion for emotion in EMOTIONS}


def fold_name(name: str) -> str:
    """The form in which two names are compared: case, Unicode variants, spaces, hyphens and underscores do not count.

    Args:
        name: any text.

    Raises:
        UnknownNameError: it is not a string.
    """
    if not isinstance(name, str):
        raise UnknownNameError(f"a name must be a string, not {name!r}")
    return JOINT.sub(" ", fold_text(name))


def fold_text(text: str) -> str:
    """Text with one case, one form of every letter, and single spaces.

    Args:
        text: any text.
    """
    # NFKC twice: case folding can undo it, and a name must fold to itself
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


CANONICAL = {fold_name(alias): emotion.name for emotion in EMOTIONS for alias in (emotion.name, *emotion.aliases)}


def unknown_name(kind: str, name: str, known: Mapping[str, str]) -> UnknownNameError:
    """The error for a ``name`` that does not exist, with the nearest ones.

    Args:
        kind: kind of what is named ("emotion", "backbone").
        name: as the caller wrote it.
        known: folded name or alias -> the name it leads to.
    """
    shown = name if len(name) <= 60 else name[:57] + "..."
    near: dict[str, str] = {}  # the nearest spelling of each: "happiness" need not be offered beside "happy"
    for key in get_close_matches(fold_name(shown), known, n=3, cutoff=0.6):
        near.setdefault(known[key], known[key] if fold_name(known[key]) == key else key)
    if near:  # the whole vocabulary would bury them
        return UnknownNameError(f"unknown {kind} {shown!r}; did you mean {' or '.join(map(repr, near.values()))}?")
    listed = ", ".join(dict.fromkeys(known.values())) or "none"
    return UnknownNameError(f"unknown {kind} {shown!r}; known: {listed}")


def canonical(name: str) -> str:
    """The canonical form of a name or alias of the vocabulary ("Happiness" -> "happy").

    Args:
        name: name or alias, in any spelling.

    Raises:
        UnknownNameError: the vocabulary does not have it; the message holds the nearest names.
    """
    key = fold_name(name)
    if key not in CANONICAL:
        raise unknown_name("emotion", name, CANONICAL)
    return CANONICAL[key]


def get(name: str) -> Emotion:
    """The entry of a name or alias.

    Args:
        name: name or alias, in any spelling.

    Raises:
        UnknownNameError: the vocabulary does not have it.
    """
    return _VOCABULARY[canonical(name)]


def list_emotions() -> tuple[str, ...]:
    """All canonical names, the basic ones first."""
    return tuple(_VOCABULARY)

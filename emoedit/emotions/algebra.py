"""Algebra on names, "happy - 0.4*surprised": how it is read, and expressed in the emotions an editor has."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from functools import lru_cache

from emoedit.emotions.names import CANONICAL, JOINT, fold_name, fold_text, get, unknown_name
from emoedit.emotions.valence import circumplex
from emoedit.emotions.vocabulary import BASIC
from emoedit.types import EditError, UnknownNameError

UNSMILING = 0.75  # of a full expression: what takes all of a smile away
_NOT_IN_A_NAME = re.compile(r"[^\w <>']")
_FIRST_TERM = re.compile(r"[+-]?(?:w\*?n|n\*w|n)")
_NEXT_TERM = re.compile(r"[+-](?:w\*?n|n\*w|n)")
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_SPACE = re.compile(r"(?<=\w)\\ (?=\w)")  # an escaped space between words, where a name may be hyphenated instead


def parse(expression: str, extra: Collection[str] = ()) -> dict[str, float]:
    """Read algebra on names: ``"happy - 0.4*surprised"``, ``"0.5 happy + sad"``, ``"-sad"``.

    A term is ``name``, ``weight name``, ``weight*name`` or ``name*weight``; terms are joined by + and -. In place of a
    name stands ``va(0.7, 0.4)`` for a point of valence and arousal
    ([circumplex][emoedit.emotions.valence.circumplex]). The
    longest known name wins, so a hyphen is a minus unless it is part of a name. Names are not expanded (see
    ``resolve``).

    Args:
        expression: the text.
        extra: names beyond the vocabulary, such as those an editor has learned; they come back as they are spelled here
            and precede a vocabulary name that reads the same.

    Returns:
        Name -> finite weight, in order of appearance; terms of the same name are summed.

    Raises:
        UnknownNameError: a name is neither in the vocabulary nor in ``extra``.
        EditError: anything else that does not parse, or a weight that is not finite.
    """
    if not isinstance(expression, str):
        raise EditError(f"an emotion must be a string, not {expression!r}")
    names, token = _grammar(tuple(sorted(extra)))
    text = fold_text(expression)
    tokens = list(token.finditer(text))
    for found in tokens:
        if found.lastgroup == "other":
            word = found.group().strip()
            if word.split()[0] in ("nan", "inf", "infinity"):
                raise EditError(f"weights must be finite numbers, unlike {word[:60]!r} in {expression[:200]!r}")
            if _NOT_IN_A_NAME.search(word):
                raise _unparsable(expression, word)
            raise unknown_name("emotion", word, names)

    # One letter a token, n(ame), w(eight) or the operator itself, so that a regular expression is the grammar.
    letter = {"name": "n", "point": "n", "weight": "w"}
    kinds = "".join(letter.get(found.lastgroup or "", found.group()) for found in tokens)
    weights: dict[str, float] = {}
    position = 0
    while position < len(kinds) or not weights:
        term = (_NEXT_TERM if weights else _FIRST_TERM).match(kinds, position)
        if term is None:
            raise _unparsable(expression, text[tokens[position].start() :] if position < len(kinds) else "")
        weight, parts = 1.0, {}
        for found in tokens[term.start() : term.end()]:
            if found.lastgroup == "weight":
                weight *= float(found.group())
            elif found.lastgroup == "name":
                parts = {names[JOINT.sub(" ", found.group())]: 1.0}
            elif found.lastgroup == "point":
                parts = _point(found.group(), extra)
            elif found.group() == "-":
                weight = -weight
        for name, share in parts.items():
            weights[name] = weights.get(name, 0.0) + weight * share
        position = term.end()
    return _finite(weights, expression)


def _point(text: str, extra: Collection[str]) -> dict[str, float]:
    """The mixture of ``va(0.7, 0.4)``, in the basic emotions that ``extra`` has, if it has any but neutral."""
    valence, arousal = (float(number) for number in text[text.index("(") + 1 : -1].split(","))
    named = (CANONICAL.get(fold_name(name)) for name in extra)
    known = {name for name in named if name is not None and name in BASIC}
    return circumplex(valence, arousal, known if known - {"neutral"} else BASIC)


def resolve(expression: str, available: Collection[str]) -> dict[str, float]:
    """Read algebra on names and express it in the emotions an editor has.

    A name in ``available`` is used as its own, under any of its aliases (an editor that was fitted on "happiness" can
    do "happy"); any other is expanded through its mixture.

    Args:
        expression: see ``parse``.
        available: the names the editor has learned, of the vocabulary or its own.

    Returns:
        Name as spelled in ``available`` -> finite weight; zero weights are dropped.

    Raises:
        UnknownNameError: a name exists nowhere, or the editor has neither it nor all that it is mixed from.
        EditError: the expression does not parse.
    """
    spelled = {CANONICAL[fold_name(name)]: name for name in available if fold_name(name) in CANONICAL}
    spelled.update((name, name) for name in available)  # two spellings of one emotion: each is its own
    weights: dict[str, float] = {}
    for name, weight in parse(expression, extra=available).items():
        parts = {name: 1.0} if name in spelled else get(name).mixture
        missing = [part for part in parts if part not in spelled]
        if missing or not parts:
            why = f": it is mixed from {', '.join(parts)}, and {', '.join(missing)} is missing" if parts else ""
            has = ", ".join(sorted(available)) or "none"
            raise UnknownNameError(f"this editor cannot do {name!r}{why}; it has: {has}")
        for part, share in parts.items():
            weights[spelled[part]] = weights.get(spelled[part], 0.0) + weight * share
    return {name: weight for name, weight in _finite(weights, expression).items() if weight != 0}


def smile_reduction(expression: str, strength: float, available: Collection[str]) -> float:
    """How much of a smile an edit ends.

    Nothing where some of it is happy; in proportion to its other emotions, all from three quarters of one on.
    What the vocabulary does not know, an editor's own words, says nothing about smiles.

    Args:
        expression: as [resolve][emoedit.emotions.algebra.resolve] has it.
        strength: strength of the edit.
        available: names that the editor knows.

    Returns:
        From 0 to 1, in proportion to the strength.

    Raises:
        UnknownNameError: a name that does not exist.
        EditError: an expression that does not parse.
    """
    basic: dict[str, float] = {}
    for name, weight in parse(expression, extra=available).items():
        known = CANONICAL.get(fold_name(name))
        if known is None:
            return 0.0
        for part, share in (get(known).mixture or {known: 1.0}).items():
            basic[part] = basic.get(part, 0.0) + strength * weight * share
    happy, neutral = basic.pop("happy", 0.0), basic.pop("neutral", 0.0)
    if happy > 0:
        return 0.0
    others = min((sum(max(weight, 0.0) for weight in basic.values()) - happy) / UNSMILING, 1.0)
    return max(others, neutral, 0.0) if neutral < 1 else 1.0


@lru_cache(maxsize=64)
def _grammar(extra: tuple[str, ...]) -> tuple[dict[str, str], re.Pattern[str]]:
    """Folded name -> name, and the pattern of one token, for the vocabulary and ``extra``."""
    own: dict[str, str] = {}
    for name in extra:
        other = own.setdefault(fold_name(name), name)
        if other != name:
            raise EditError(f"an editor's emotions {other!r} and {name!r} cannot be told apart; rename one")
    own.pop("", None)
    names = CANONICAL | own
    # Longest first, so that "pleasantly surprised" is not read as an unknown word and "surprised".
    literals = (_SPACE.sub("(?: |[_-]+)", re.escape(name)) for name in sorted(names, key=len, reverse=True))
    token = (
        rf"(?P<point>va ?\( ?{_NUMBER} ?, ?{_NUMBER} ?\))"
        rf"|(?P<name>(?:{'|'.join(literals)})(?=[ +*-]|\Z))"
        r"|(?P<weight>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)"
        r"|(?P<operator>[+*-])"
        r"|(?P<other>[^ +*-][^+*-]*)"
    )
    return names, re.compile(token)


def _unparsable(expression: str, rest: str) -> EditError:
    where = f"stopped at {rest[:60]!r}" if rest else "nothing is there"
    return EditError(
        f"cannot read the emotion {expression[:200]!r}: {where}; write names with optional weights, joined by + or -, "
        "as in 'happy - 0.4*surprised'"
    )


def _finite(weights: dict[str, float], expression: str) -> dict[str, float]:
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise EditError(f"the weight of {name!r} in {expression[:200]!r} is not a finite number")
    return weights

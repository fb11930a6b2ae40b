"""The vocabulary: names of emotions, their mixtures, and the algebra on names.

Seven basic emotions are what editors are fitted on: Ekman's six (P. Ekman, "An argument for basic emotions", Cognition
and Emotion 6, 1992) and neutral. Every other name is *nuanced*: it resolves to a documented mixture of basic ones, so
that an editor without shame among its emotions can still edit towards it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache

from emoedit.types import EditError, UnknownNameError

NEAR = 0.22  # of valence and arousal: how far around a point emotions have a say in what is shown there
UNSMILING = 0.75  # of a full expression: what takes all of a smile away
BASIC = ("neutral", "happy", "sad", "angry", "surprised", "fearful", "disgusted")


@dataclass(frozen=True)
class Emotion:
    """One entry of the vocabulary.

    Args:
        name: the canonical name.
        aliases: other spellings, among them the labels of the usual data sets (noun forms).
        valence: valence in [-1, 1], unpleasant to pleasant.
        arousal: arousal in [-1, 1], sleepy to activated. Both are approximations, placed by hand to a tenth after the
            circumplex of J. A. Russell ("A circumplex model of affect", J. Pers. Soc. Psychol. 39, 1980). Measured
            values are in lexicons such as NRC-VAD (S. Mohammad, ACL 2018), whose numbers are not copied here because
            commercial use of them needs permission.
        prompt: a full caption for text-guided models.
        phrase: the bare target text that CLIP-guided directions are named by (Asyrp, Kwon et al., ICLR 2023, moves
            "face" to "smiling face").
        mixture: weights of basic emotions, empty for a basic one and never of neutral, which is where every weight
            starts from. 1 is the full basic expression: below 1 is milder, above 1 more intense. A negative weight of
            surprise lowers lids and brows. They say how the emotion looks and are judgements that start from R.
            Plutchik's intensities and dyads ("Emotion: a psychoevolutionary synthesis", 1980) and from the compound
            expressions of S. Du, Y. Tao and A. Martinez (PNAS 111, 2014).
    """

    name: str
    aliases: tuple[str, ...]
    valence: float
    arousal: float
    prompt: str
    phrase: str
    mixture: Mapping[str, float] = field(default_factory=dict, hash=False)


# fmt: off
_EMOTIONS = (
    Emotion("neutral", ("neutral expression", "neutral face", "neutrality", "no expression"), 0.0, 0.0,
            "a photo of a calm, neutral face", "neutral face"),
    Emotion("happy", ("happiness", "joy", "smiling", "smile", "cheerful", "glad"), 0.8, 0.4,
            "a photo of a smiling, happy face", "smiling face"),
    Emotion("sad", ("sadness", "unhappy", "unhappiness", "frowning"), -0.7, -0.3,
            "a photo of a sad, unhappy face", "sad face"),
    Emotion("angry", ("anger", "mad"), -0.6, 0.7,
            "a photo of an angry face with lowered brows", "angry face"),
    Emotion("surprised", ("surprise", "astonished", "astonishment", "amazed", "amazement"), 0.2, 0.8,
            "a photo of a surprised face with raised brows and an open mouth", "surprised face"),
    Emotion("fearful", ("fear", "afraid", "scared", "frightened"), -0.6, 0.8,
            "a photo of a fearful, scared face with wide eyes", "fearful face"),
    Emotion("disgusted", ("disgust", "revolted", "repulsed"), -0.6, 0.3,
            "a photo of a disgusted face with a wrinkled nose", "disgusted face"),

    Emotion("joyful", ("joyous", "overjoyed", "elated", "elation", "ecstatic", "euphoric"), 0.9, 0.6,
            "a photo of a joyful, beaming face", "joyful face", {"happy": 1.2}),
    Emotion("delighted", ("delight", "thrilled"), 0.9, 0.6,
            "a photo of a delighted, radiant face", "delighted face", {"happy": 0.9, "surprised": 0.3}),
    Emotion("excited", ("excitement", "enthusiastic", "enthusiasm", "eager"), 0.8, 0.8,
            "a photo of an excited, enthusiastic face", "excited face", {"happy": 0.8, "surprised": 0.5}),
    Emotion("pleasantly surprised", ("happily surprised", "pleasant surprise"), 0.6, 0.8,
            "a photo of a pleasantly surprised, smiling face", "pleasantly surprised face",
            {"happy": 0.6, "surprised": 0.7}),
    Emotion("amused", ("amusement", "entertained", "laughing", "laughter"), 0.7, 0.5,
            "a photo of an amused, laughing face", "amused face", {"happy": 0.9, "surprised": 0.2}),
    Emotion("content", ("contented", "contentment", "satisfied", "satisfaction", "pleased"), 0.7, -0.4,
            "a photo of a content, gently smiling face", "content face", {"happy": 0.4}),
    Emotion("serene", ("serenity", "calm", "calmness", "peaceful", "relaxed", "tranquil"), 0.6, -0.6,
            "a photo of a serene, relaxed face", "serene face", {"happy": 0.3, "surprised": -0.2}),
    Emotion("loving", ("love", "affectionate", "affection", "tender", "tenderness"), 0.8, 0.2,
            "a photo of a loving, tender face", "loving face", {"happy": 0.6, "sad": 0.1}),
    Emotion("hopeful", ("hope", "optimistic", "optimism"), 0.6, 0.3,
            "a photo of a hopeful, optimistic face", "hopeful face", {"happy": 0.4, "surprised": 0.3}),
    Emotion("proud", ("pride",), 0.7, 0.4,
            "a photo of a proud, confident face", "proud face", {"happy": 0.6, "angry": 0.1}),
    Emotion("relieved", ("relief",), 0.6, -0.3,
            "a photo of a relieved face", "relieved face", {"happy": 0.5, "sad": 0.2}),
    Emotion("awe", ("awed", "awestruck", "in awe", "wonder"), 0.4, 0.6,
            "a photo of an awestruck face, full of wonder", "awestruck face",
            {"surprised": 0.7, "happy": 0.3, "fearful": 0.1}),
    Emotion("interested", ("interest", "curious", "curiosity", "intrigued"), 0.4, 0.4,
            "a photo of an interested, curious face", "curious face", {"surprised": 0.4, "happy": 0.2}),

    Emotion("nostalgic", ("nostalgia", "wistful", "wistfulness", "bittersweet"), 0.1, -0.2,
            "a photo of a nostalgic, wistfully smiling face", "nostalgic face", {"happy": 0.3, "sad": 0.4}),
    Emotion("pensive", ("pensiveness", "thoughtful", "contemplative"), -0.2, -0.3,
            "a photo of a pensive, thoughtful face", "pensive face", {"sad": 0.3, "angry": 0.1}),
    Emotion("determined", ("determination", "focused", "concentrating"), 0.1, 0.5,
            "a photo of a determined, focused face", "determined face", {"angry": 0.3}),
    Emotion("confused", ("confusion", "puzzled", "perplexed", "bewildered"), -0.3, 0.3,
            "a photo of a confused, puzzled face", "confused face", {"angry": 0.3, "surprised": 0.3}),
    Emotion("skeptical", ("skepticism", "sceptical", "doubtful", "doubt", "suspicious", "suspicion"), -0.3, 0.1,
            "a photo of a skeptical, doubtful face", "skeptical face",
            {"disgusted": 0.3, "surprised": 0.2, "angry": 0.2}),
    Emotion("bored", ("boredom", "uninterested", "indifferent"), -0.4, -0.7,
            "a photo of a bored, uninterested face", "bored face", {"sad": 0.3, "disgusted": 0.2, "surprised": -0.3}),
    Emotion("tired", ("tiredness", "exhausted", "weary", "sleepy", "fatigue", "fatigued"), -0.2, -0.8,
            "a photo of a tired, sleepy face", "tired face", {"sad": 0.4, "surprised": -0.4}),

    Emotion("melancholy", ("melancholic", "gloomy", "gloom", "depressed"), -0.6, -0.5,
            "a photo of a melancholy, gloomy face", "melancholy face", {"sad": 0.6}),
    Emotion("lonely", ("loneliness", "lonesome"), -0.6, -0.4,
            "a photo of a lonely, forlorn face", "lonely face", {"sad": 0.7, "fearful": 0.1}),
    Emotion("disappointed", ("disappointment", "let down"), -0.6, -0.2,
            "a photo of a disappointed face", "disappointed face", {"sad": 0.6, "surprised": 0.2, "disgusted": 0.1}),
    Emotion("hurt", ("wounded", "upset", "sadly angry"), -0.6, 0.2,
            "a photo of a hurt, upset face", "hurt face", {"sad": 0.6, "angry": 0.3}),
    Emotion("grief", ("grieving", "sorrow", "sorrowful", "heartbroken", "despair", "miserable", "crying"), -0.9, 0.1,
            "a photo of a grieving, heartbroken face", "grieving face", {"sad": 1.1, "fearful": 0.3}),
    Emotion("shame", ("ashamed", "humiliated", "humiliation"), -0.7, 0.1,
            "a photo of an ashamed face with lowered eyes", "ashamed face",
            {"sad": 0.6, "fearful": 0.3, "disgusted": 0.2}),
    Emotion("guilty", ("guilt", "remorse", "remorseful", "regret", "regretful"), -0.7, 0.2,
            "a photo of a guilty, remorseful face", "guilty face", {"sad": 0.6, "fearful": 0.4}),
    Emotion("embarrassed", ("embarrassment", "sheepish", "bashful", "shy"), -0.4, 0.3,
            "a photo of an embarrassed face with a sheepish smile", "embarrassed face",
            {"fearful": 0.5, "happy": 0.3, "sad": 0.3}),

    Emotion("jealousy", ("jealous",), -0.7, 0.5,
            "a photo of a jealous face", "jealous face", {"angry": 0.5, "sad": 0.3, "fearful": 0.2}),
    Emotion("envy", ("envious",), -0.5, 0.3,
            "a photo of an envious face", "envious face", {"sad": 0.4, "angry": 0.4}),
    Emotion("annoyed", ("annoyance", "fed up"), -0.5, 0.4,
            "a photo of an annoyed face", "annoyed face", {"angry": 0.4}),
    Emotion("irritated", ("irritation", "irritable"), -0.5, 0.5,
            "a photo of an irritated face", "irritated face", {"angry": 0.5, "disgusted": 0.2}),
    Emotion("frustrated", ("frustration", "exasperated", "exasperation"), -0.6, 0.5,
            "a photo of a frustrated, exasperated face", "frustrated face", {"angry": 0.6, "sad": 0.3}),
    Emotion("bitter", ("bitterness", "resentful", "resentment"), -0.6, 0.2,
            "a photo of a bitter, resentful face", "bitter face", {"angry": 0.4, "sad": 0.3, "disgusted": 0.3}),
    Emotion("contempt", ("contemptuous", "scorn", "scornful", "disdain", "disdainful"), -0.6, 0.3,
            "a photo of a contemptuous, sneering face", "contemptuous face",
            {"disgusted": 0.6, "angry": 0.3, "happy": 0.1}),
    Emotion("hateful", ("hatred", "hate", "loathing"), -0.9, 0.6,
            "a photo of a hateful, hostile face", "hateful face", {"angry": 0.8, "disgusted": 0.6}),
    Emotion("furious", ("fury", "rage", "enraged", "outraged", "outrage"), -0.8, 0.9,
            "a photo of a furious, enraged face", "furious face", {"angry": 1.3}),

    Emotion("worried", ("worry", "concerned", "concern"), -0.5, 0.4,
            "a photo of a worried, concerned face", "worried face", {"fearful": 0.4, "sad": 0.4}),
    Emotion("anxious", ("anxiety", "nervous", "tense", "uneasy", "apprehensive", "stressed"), -0.5, 0.6,
            "a photo of an anxious, nervous face", "anxious face", {"fearful": 0.6, "sad": 0.2}),
    Emotion("shocked", ("shock", "stunned", "startled", "fearfully surprised"), -0.2, 0.9,
            "a photo of a shocked, stunned face", "shocked face", {"surprised": 0.8, "fearful": 0.4}),
    Emotion("appalled", ("dismayed", "dismay", "aghast"), -0.7, 0.5,
            "a photo of an appalled, dismayed face", "appalled face", {"disgusted": 0.7, "surprised": 0.4}),
    Emotion("horrified", ("horror",), -0.9, 0.8,
            "a photo of a horrified face", "horrified face", {"fearful": 0.9, "disgusted": 0.4, "surprised": 0.2}),
    Emotion("terrified", ("terror", "panic", "panicked"), -0.9, 0.9,
            "a photo of a terrified, panicking face", "terrified face", {"fearful": 1.3}),
)
# fmt: on

_VOCABULARY = {emotion.name: emotion for emotion in _EMOTIONS}
_JOINT = re.compile(r"(?<=\w)[ _-]+(?=\w)")  # what may stand between two words of a name
_NOT_IN_A_NAME = re.compile(r"[^\w <>']")
_FIRST_TERM = re.compile(r"[+-]?(?:w\*?n|n\*w|n)")
_NEXT_TERM = re.compile(r"[+-](?:w\*?n|n\*w|n)")
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_SPACE = re.compile(r"(?<=\w)\\ (?=\w)")  # an escaped space between words, where a name may be hyphenated instead


def fold_name(name: str) -> str:
    """The form in which two names are compared: case, Unicode variants, spaces, hyphens and underscores do not count.

    Args:
        name: any text.

    Raises:
        UnknownNameError: it is not a string.
    """
    if not isinstance(name, str):
        raise UnknownNameError(f"a name must be a string, not {name!r}")
    return _JOINT.sub(" ", _fold_text(name))


def _fold_text(text: str) -> str:
    # NFKC twice: case folding can undo it, and a name must fold to itself
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


_CANONICAL = {fold_name(alias): emotion.name for emotion in _EMOTIONS for alias in (emotion.name, *emotion.aliases)}


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
    if key not in _CANONICAL:
        raise unknown_name("emotion", name, _CANONICAL)
    return _CANONICAL[key]


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


def place(weights: Mapping[str, float]) -> tuple[float, float]:
    """Where a mixture of emotions lies on Russell's circumplex: the sum of their valences and arousals by weight.

    Args:
        weights: names or aliases of the vocabulary -> weight; probabilities that sum to 1 give a mean.

    Returns:
        Valence and arousal, not limited to [-1, 1].

    Raises:
        UnknownNameError: a name that the vocabulary does not have.
    """
    entries = [(get(name), weight) for name, weight in weights.items()]
    return sum(e.valence * weight for e, weight in entries), sum(e.arousal * weight for e, weight in entries)


def parse(expression: str, extra: Collection[str] = ()) -> dict[str, float]:
    """Read algebra on names: ``"happy - 0.4*surprised"``, ``"0.5 happy + sad"``, ``"-sad"``.

    A term is ``name``, ``weight name``, ``weight*name`` or ``name*weight``; terms are joined by + and -. In place of a
    name stands ``va(0.7, 0.4)`` for a point of valence and arousal ([circumplex][emoedit.emotions.circumplex]). The
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
    text = _fold_text(expression)
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
                parts = {names[_JOINT.sub(" ", found.group())]: 1.0}
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
    named = (_CANONICAL.get(fold_name(name)) for name in extra)
    known = {name for name in named if name is not None and name in BASIC}
    return circumplex(valence, arousal, known if known - {"neutral"} else BASIC)


def circumplex(valence: float, arousal: float, basic: Collection[str] = BASIC) -> dict[str, float]:
    """The emotion at a point of valence and arousal: a mean of the vocabulary around it, weighted by nearness.

    Neutral is at the middle. The mixture changes smoothly with the point.

    Args:
        valence: valence in [-1, 1], unpleasant to pleasant.
        arousal: arousal in [-1, 1], sleepy to activated.
        basic: the basic emotions to mix it from; emotions that need others have no say.

    Returns:
        Basic emotion -> weight.

    Raises:
        EditError: a point outside of the square.
    """
    if not (abs(valence) <= 1 and abs(arousal) <= 1):
        raise EditError(f"valence and arousal go from -1 to 1, not {valence:g}, {arousal:g}")
    mixture, total = dict.fromkeys((name for name in BASIC if name in basic and name != "neutral"), 0.0), 0.0
    for emotion in _EMOTIONS:
        parts = emotion.mixture or ({} if emotion.name == "neutral" else {emotion.name: 1.0})
        if not set(parts) <= set(mixture):
            continue
        squared = (emotion.valence - valence) ** 2 + (emotion.arousal - arousal) ** 2
        near = math.exp(-squared / (2 * NEAR**2)) + 1e-12  # no point is without an emotion
        total += near
        for name, weight in parts.items():
            mixture[name] += near * weight
    return {name: weight / total for name, weight in mixture.items()}


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
    spelled = {_CANONICAL[fold_name(name)]: name for name in available if fold_name(name) in _CANONICAL}
    spelled.update((name, name) for name in available)  # two spellings of one emotion: each is its own
    weights: dict[str, float] = {}
    for name, weight in parse(expression, extra=available).items():
        parts = {name: 1.0} if name in spelled else _VOCABULARY[name].mixture
        missing = [part for part in parts if part not in spelled]
        if missing or not parts:
            why = f": it is mixed from {', '.join(parts)}, and {', '.join(missing)} is missing" if parts else ""
            has = ", ".join(sorted(available)) or "none"
            raise UnknownNameError(f"this editor cannot do {name!r}{why}; it has: {has}")
        for part, share in parts.items():
            weights[spelled[part]] = weights.get(spelled[part], 0.0) + weight * share
    return {name: weight for name, weight in _finite(weights, expression).items() if weight != 0}


def smile_reduction(expression: str, strength: float, available: Collection[str]) -> float:
    """The share of a smile that an edit removes.

    0 for edits with some happiness; else in proportion to the other emotions, 1 from three quarters of one on.
    Names outside the vocabulary, an editor's own words, do not count.

    Args:
        expression: as [resolve][emoedit.emotions.resolve] has it.
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
        known = _CANONICAL.get(fold_name(name))
        if known is None:
            return 0.0
        for part, share in (_VOCABULARY[known].mixture or {known: 1.0}).items():
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
    names = _CANONICAL | own
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

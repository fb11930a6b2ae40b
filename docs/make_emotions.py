"""Write ``emotions.md``, the page of the vocabulary, from the vocabulary itself: ``python docs/make_emotions.py``."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from emoedit.emotions import BASIC, get, list_emotions, resolve

PAGE = Path(__file__).with_name("emotions.md")
EXAMPLES = ("happy - 0.4*surprised", "0.5 joy + Sadness", "shame", "2*contempt - irritated", "pleasantly-surprised")


def page() -> str:
    """The whole page as Markdown."""
    nuanced = [name for name in list_emotions() if name not in BASIC]
    mixed = [(*_row(name), _sum(get(name).mixture)) for name in nuanced]
    examples = [(f"`{text}`", _sum(resolve(text, BASIC))) for text in EXAMPLES]
    return f"""<!-- Written by docs/make_emotions.py; do not edit. -->
# Emotions

{len(BASIC)} basic emotions, which editors are fitted on, and {len(nuanced)} nuanced ones, which are mixed from them
where an editor has not learned them itself. Case, spaces, hyphens and underscores in a name do not matter.

Valence (unpleasant to pleasant) and arousal (sleepy to activated) lie in [-1, 1]. They are approximations, placed by
hand after the circumplex of Russell (1980). The mixtures are judgements about how an emotion looks; they start from the
intensities and dyads of Plutchik (1980) and the compound expressions of Du, Tao and Martinez (2014). Weight 1 is the
full basic expression; a negative weight of surprise lowers lids and brows.

## Algebra

Terms are a name with an optional weight, joined by + and -. An editor that has the basic emotions reads

{_table(("text", "as"), examples)}

`va(0.7, 0.4)` stands for a point of valence and arousal, on the command line also as `--valence .7 --arousal .4`: a
mean of the names around it, each weighted by a Gaussian of its distance (standard deviation 0.22). The mixture changes
smoothly: along straight paths of 20 steps between happy, sad, angry, surprised and the corners no step is above 2.6
times the median one.

## Basic

{_table(("name", "also", "valence", "arousal", "prompt"), map(_row, BASIC))}

## Nuanced

{_table(("name", "also", "valence", "arousal", "prompt", "mixture"), mixed)}
"""


def _row(name: str) -> tuple[str, ...]:
    emotion = get(name)
    return name, ", ".join(emotion.aliases), f"{emotion.valence:.1f}", f"{emotion.arousal:.1f}", emotion.prompt


def _sum(weights: Mapping[str, float]) -> str:
    terms = (f"{'-' if weight < 0 else '+'} {abs(weight):.3g} {name}" for name, weight in weights.items())
    return " ".join(terms).removeprefix("+ ")


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---" for _ in header], *rows))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")

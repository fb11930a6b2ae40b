"""``emoedit best`` against the default editor's single edit, at equal identity, on held-out people.

    python experiments/best_study.py data.root=/path/to/data        # writes its part of docs/best.md
    python experiments/best_study.py data.root=/path/to/data gradients.crops=/path/to/crops   # and a third recogniser

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf

from emoedit.io.images import write_atomic
from emoedit.types import DataError
from lib.candidates import NOT_RANKING, IndependentRecogniser, Row, bootstrapped, candidate_rows, people
from lib.reproductions import table
from lib.running import run

BEGIN, END = "<!-- begin best-study -->", "<!-- end best-study -->"


Pair = tuple[Row, Row]


def chosen_rows(rows: Sequence[Row]) -> dict[tuple[str, str], Pair]:
    """For each person and emotion the single edit and the best candidate.

    The single edit is itself a candidate, and those that keep less of the person are not kept: the best keeps at least
    as much. Where no candidate reaches the floors of the other numbers, the single edit is the best.
    """
    found = {}
    for key in dict.fromkeys((row["person"], row["emotion"]) for row in rows):
        own = [row for row in rows if (row["person"], row["emotion"]) == key]
        single = next(row for row in own if not row["rank"])
        first = next(row for row in own if row["rank"] == 1)
        found[key] = single, first if first["kept"] else single
    return found


def comparison(chosen: Mapping[tuple[str, str], Pair], key: str) -> str:
    """A line an emotion: means over people of a recogniser's score and of identity, and the gain of the best."""
    lines, gains = [], {}
    emotions = list(dict.fromkeys(emotion for _, emotion in chosen))
    for emotion in emotions:
        own = {person: pair for (person, each), pair in chosen.items() if each == emotion}
        cells = [
            f"{np.mean([pair[k][key] for pair in own.values()]):.3f} / "
            f"{np.mean([pair[k]['identity'] for pair in own.values()]):.3f}"
            for k in range(2)
        ]
        differences = {person: pair[1][key] - pair[0][key] for person, pair in own.items()}
        for person, difference in differences.items():
            gains.setdefault(person, []).append(difference)
        lines.append([emotion, *cells, signed(list(differences.values()))])
    lines.append(["mean", None, None, signed([float(np.mean(each)) for each in gains.values()])])
    return table(["emotion", "default", "best", "gain"], lines)


def signed(values: Sequence[float]) -> str:
    """A mean difference with its 95 % interval."""
    mean, low, high = bootstrapped(values)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def editors_of(chosen: Mapping[tuple[str, str], Pair]) -> str:
    """Which editors the best come from."""
    counts: dict[str, int] = {}
    for _, first in chosen.values():
        counts[first["editor"]] = counts.get(first["editor"], 0) + 1
    return ", ".join(f"`{name}` {count}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


def part(config: Mapping[str, Any]) -> str:
    """The page's part, in Markdown.

    Raises:
        DataError: no data.
    """
    if not config["data"]["root"]:
        raise DataError("this needs data.root=/path/to/data, or EMOEDIT_DATA: people to edit")
    cases = people(Path(config["data"]["root"]), config["people"])
    independent = IndependentRecogniser(config["gradients"], Path(config["work"]))
    rows = candidate_rows(cases, config["emotions"], config, Path(config["work"]) / "candidates.jsonl", independent)
    chosen = chosen_rows(rows)
    names = ", ".join(f"`{name}`" for name in config["editors"])
    texts = [
        f"By `experiments/best_study.py`: {len(cases)} people whom nothing was fitted to, neither editors nor the "
        f"ranking, neutral photographs, {config['candidates']} candidates each by {names}; target score / identity, "
        "means over people, and the gain with 95 % intervals over people. *Default* is one edit with the default "
        "editor at strength 1. *Best* is the first candidate: it keeps at least as much of the person.",
        "As the first of the two recognisers that rank reads them (the expression network), so that these gains are "
        "upper bounds:",
        comparison(chosen, "target_score"),
        "As the second of them reads them (the guidance classifier):",
        comparison(chosen, "second_score"),
    ]
    if independent.network is not None:
        texts += [NOT_RANKING, comparison(chosen, "independent_score")]
    return "\n\n".join([*texts, f"The best come from {editors_of(chosen)}."])


def put(page: Path, text: str) -> None:
    """Put the part between its marks.

    Raises:
        DataError: a page without them.
    """
    whole = page.read_text(encoding="utf-8")
    if whole.count(BEGIN) != 1 or whole.count(END) != 1:
        raise DataError(f"{page} lacks the marks {BEGIN} and {END}, between which this study is put")
    before, rest = whole.split(BEGIN)
    data = (before + f"{BEGIN}\n\n{text}\n\n{END}" + rest.split(END)[1]).encode()
    write_atomic(page, lambda file: file.write(data), overwrite=True)


@hydra.main(version_base="1.3", config_path="../configs", config_name="best_study")
def main(config: DictConfig) -> None:
    plain = OmegaConf.to_container(config, resolve=True)
    put(Path(plain["page"]), part(plain))


if __name__ == "__main__":
    run(main)

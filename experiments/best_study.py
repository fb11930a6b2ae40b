"""``emoedit best`` against the default editor's single edit, at equal identity, on held-out people.

    python experiments/best_study.py data.root=/path/to/data        # writes its part of docs/best.md
    python experiments/best_study.py data.root=/path/to/data second=/path/to/network   # not used for ranking

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf

from emoedit.evaluation.cases import read_cases
from emoedit.io.images import write_atomic
from emoedit.types import DataError
from lib.candidates import NOT_INDEPENDENT, Row, SecondReader, bootstrapped, candidate_rows
from lib.reproductions import table
from lib.running import run

BEGIN, END = "<!-- begin best-study -->", "<!-- end best-study -->"


def chosen_rows(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[Row, Row, Row]]:
    """For each person and emotion the single edit, the best candidate, and the best of those that keep as much.

    Where no candidate keeps as much of the person as the single edit does, the single edit itself is the last.
    """
    found = {}
    for key in dict.fromkeys((row["person"], row["emotion"]) for row in rows):
        own = [row for row in rows if (row["person"], row["emotion"]) == key]
        single = next(row for row in own if not row["rank"])
        ranked = sorted((row for row in own if row["rank"]), key=lambda row: row["rank"])
        keeping = [row for row in ranked if row["identity"] >= single["identity"] - 1e-6]
        equal = max(keeping, key=lambda row: row["score"]) if keeping else single
        found[key] = single, ranked[0], equal
    return found


def comparison(chosen: Mapping[tuple[str, str], tuple[Row, Row, Row]], key: str) -> str:
    """A line an emotion: means over people of a recogniser's score and of identity, and the gain at equal identity."""
    lines, gains = [], {}
    emotions = list(dict.fromkeys(emotion for _, emotion in chosen))
    for emotion in emotions:
        own = {person: three for (person, each), three in chosen.items() if each == emotion}
        cells = [
            f"{np.mean([three[k][key] for three in own.values()]):.3f} / "
            f"{np.mean([three[k]['identity'] for three in own.values()]):.3f}"
            for k in range(3)
        ]
        differences = {person: three[2][key] - three[0][key] for person, three in own.items()}
        for person, difference in differences.items():
            gains.setdefault(person, []).append(difference)
        lines.append([emotion, *cells, signed(list(differences.values()))])
    lines.append(["mean", None, None, None, signed([float(np.mean(each)) for each in gains.values()])])
    return table(["emotion", "default", "best", "best at equal identity", "gain at equal identity"], lines)


def signed(values: Sequence[float]) -> str:
    """A mean difference with its 95 % interval."""
    mean, low, high = bootstrapped(values)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def editors_of(chosen: Mapping[tuple[str, str], tuple[Row, Row, Row]]) -> str:
    """Which editors the best at equal identity come from."""
    counts: dict[str, int] = {}
    for _, _, equal in chosen.values():
        counts[equal["editor"]] = counts.get(equal["editor"], 0) + 1
    return ", ".join(f"`{name}` {count}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


def part(config: Mapping[str, Any]) -> str:
    """The page's part, in Markdown.

    Raises:
        DataError: no data.
    """
    if not config["data"]["root"]:
        raise DataError("this needs data.root=/path/to/data, or EMOEDIT_DATA: people to edit")
    folder, second = Path(config["data"]["root"]) / config["people"], SecondReader(config["second"])
    try:
        cases = read_cases(folder, split="test")[: config["count"]]
    except DataError:  # no csv that says so: all are meant
        cases = read_cases(folder)[: config["count"]]
    rows = candidate_rows(cases, config["emotions"], config, Path(config["work"]) / "candidates.jsonl", second)
    chosen = chosen_rows(rows)
    names = ", ".join(f"`{name}`" for name in config["editors"])
    texts = [
        f"By `experiments/best_study.py`: {len(cases)} held-out people, neutral photographs, "
        f"{config['candidates']} candidates each by {names}; target score / identity, means over people, and the gain "
        "with 95 % intervals over people. *Default* is one edit with the default editor at strength 1. *Best* is the "
        "first candidate by score. *Best at equal identity* is the first among the candidates that keep at least as "
        "much of that person as the default edit does.",
        "As the recogniser reads it that also ranks, so that these gains are upper bounds:",
        comparison(chosen, "target_score"),
        f"At equal identity the best come from {editors_of(chosen)}.",
    ]
    if second.network is not None:
        texts += [f"The same pictures, as a second recogniser reads them that ranked nothing (`{second.name}`). "
                  f"{NOT_INDEPENDENT}",
                  comparison(chosen, "second")]  # fmt: skip
    return "\n\n".join(texts)


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

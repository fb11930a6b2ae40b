"""Results by groups of people: means with intervals, gaps between groups, and what gap chance alone gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emoedit.evaluation.summary import format_interval, people_interval
from emoedit.types import DataError
from lib.reproductions import table

Row = dict[str, Any]
AGES = ((18, 29), (30, 44), (45, 59), (60, None))
THIRDS = ("darkest third", "middle third", "lightest third")
ATTRIBUTES = ("group", "gender", "age", "light")
NUMBERS = ("target", "before", "first", "second", "identity")  # columns of the table by group
TITLES = ("target", "before the edit", "first recogniser", "second recogniser", "identity")
BEST, CHANCE = "best less worst", "by chance, up to"


@dataclass(frozen=True)
class Gap:
    """Best group's mean less the worst group's.

    Args:
        value: the gap.
        low: lower end of its 95 % interval over people.
        high: upper end.
        chance: gap that 95 % of random divisions of the same people into groups of these sizes stay below.
        best: name of the best group.
        worst: name of the worst group.
    """

    value: float
    low: float
    high: float
    chance: float
    best: str
    worst: str


def age_band(age: str) -> str:
    """The band of an age: ``"30 to 44"``.

    Args:
        age: whole number of years.

    Raises:
        DataError: no whole number, or nobody of full age.
    """
    if age.isdecimal():
        for first, last in AGES:
            if int(age) >= first and (last is None or int(age) <= last):
                return f"{first} and more" if last is None else f"{first} to {last}"
    raise DataError(f"an age is a whole number of {AGES[0][0]} or more, not {age!r}")


def with_groups(rows: Sequence[Row], first_only: Sequence[str]) -> list[Row]:
    """Rows with the attributes by which they are grouped, and with ``target`` and ``before``.

    Args:
        rows: with ``group``, ``gender``, ``age``, ``brightness`` (0 to 255) and, 0 to 1, ``first``, ``second``,
            ``first_before``, ``second_before``.
        first_only: emotions whose target score is the first recogniser's; others have the mean of both.
    """
    faces = {row["person"]: row["brightness"] for row in rows}
    low, high = np.quantile(list(faces.values()), [1 / 3, 2 / 3])
    found = []
    for row in rows:
        read = ("first",) if row["emotion"] in first_only else ("first", "second")
        found.append(
            row
            | {
                "age": age_band(row["age"]),
                "light": THIRDS[int(row["brightness"] > low) + int(row["brightness"] > high)],
                "target": float(np.mean([row[name] for name in read])),
                "before": float(np.mean([row[f"{name}_before"] for name in read])),
            }
        )
    return found


def gap(rows: Sequence[Row], attribute: str, number: str, least: int) -> Gap | None:
    """The gap between groups of people; None where fewer than two groups are large enough.

    A gap is never below 0 and grows as groups get smaller, also where the groups do not differ: hence ``chance``.

    Args:
        rows: of [with_groups][].
        attribute: column that names the group.
        number: column whose means are compared.
        least: smallest number of people of a group that counts.
    """
    people: dict[str, list[float]] = {}
    group_of = {row["person"]: row[attribute] for row in rows}
    for row in rows:
        people.setdefault(row["person"], []).append(row[number])
    names = [name for name in dict.fromkeys(group_of.values()) if list(group_of.values()).count(name) >= least]
    if len(names) < 2:
        return None
    kept = [person for person in people if group_of[person] in names]
    values = np.array([np.mean(people[person]) for person in kept])
    member = np.array([names.index(group_of[person]) for person in kept])
    share = (member[:, None] == np.arange(len(names))) / np.bincount(member)  # [P, G]: values @ share are means
    rng, own = np.random.default_rng(0), [np.flatnonzero(member == k) for k in range(len(names))]
    drawn = np.empty((2000, len(values)))
    for positions in own:
        drawn[:, positions] = values[positions][rng.integers(len(positions), size=(len(drawn), len(positions)))]
    low, high = np.quantile(np.ptp(drawn @ share, axis=1), [0.025, 0.975])
    shuffled = rng.permuted(np.tile(values, (2000, 1)), axis=1)
    chance = np.quantile(np.ptp(shuffled @ share, axis=1), 0.95)
    found = values @ share
    best, worst = names[int(found.argmax())], names[int(found.argmin())]
    return Gap(float(np.ptp(found)), float(low), float(high), float(chance), best, worst)


def ordered(rows: Sequence[Row], attribute: str, orders: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of an attribute's groups, in the order in which they are shown."""
    names = {row[attribute] for row in rows}
    order = list(orders.get(attribute, ()))
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def group_table(rows: Sequence[Row], orders: Mapping[str, Sequence[str]], least: int) -> str:
    """Markdown: a line a group with intervals over people, then the gap and what chance gives.

    Args:
        rows: of [with_groups][].
        orders: attribute -> order of its groups; others stand by the alphabet.
        least: smallest number of people of a group that counts for a gap.
    """
    lines: list[list[Any]] = []
    for attribute in ATTRIBUTES:
        for name in ordered(rows, attribute, orders):
            own = [row for row in rows if row[attribute] == name]
            found = [people_interval(own, key) for key in NUMBERS]
            cells = [format_interval(each.value, each.low, each.high) for each in found]
            lines.append([attribute, name, str(len({row["person"] for row in own})), *cells])
        gaps = [gap(rows, attribute, key, least) for key in NUMBERS]
        found_gaps = [each for each in gaps if each is not None]
        if found_gaps:
            cells = [format_interval(each.value, each.low, each.high) for each in found_gaps]
            lines.append([attribute, f"**{BEST}**", None, *cells])
            lines.append([attribute, CHANCE, None, *(f"{each.chance:.2f}" for each in found_gaps)])
    return table(["by", "", "faces", *TITLES], lines)


def emotion_table(rows: Sequence[Row], attribute: str, orders: Mapping[str, Sequence[str]], least: int) -> str:
    """Markdown: target score / before the edit of every emotion, a column a group, and the gap.

    Args:
        rows: as for [group_table][].
        attribute: column that names the group.
        orders: as for [group_table][].
        least: as for [group_table][].
    """
    names, lines = ordered(rows, attribute, orders), []
    for emotion in dict.fromkeys(row["emotion"] for row in rows):
        cells: list[Any] = [emotion]
        own = [row for row in rows if row["emotion"] == emotion]
        for name in names:
            part = [row for row in own if row[attribute] == name]
            both = (f"{np.mean([row[key] for row in part]):.2f}" for key in ("target", "before"))
            cells.append(" / ".join(both) if part else None)
        found = gap(own, attribute, "target", least)
        cells += [None, None] if found is None else [
            format_interval(found.value, found.low, found.high), f"{found.chance:.2f}"
        ]  # fmt: skip
        first, second = (gap(own, attribute, key, least) for key in ("first", "second"))
        cells.append(None if first is None or second is None else f"{first.worst}, {second.worst}")
        lines.append(cells)
    return table(["emotion", *names, BEST, CHANCE, "worst by first, second"], lines)


def cause(rows: Sequence[Row], attribute: str, least: int) -> str:
    """Where a gap of the target score comes from, as far as two recognisers and untouched photographs tell.

    Args:
        rows: of [with_groups][].
        attribute: column that names the group.
        least: smallest number of people of a group that counts.
    """
    found = gap(rows, attribute, "target", least)
    first, second = (gap(rows, attribute, name, least) for name in ("first", "second"))
    if found is None or first is None or second is None:
        return "fewer than two groups are large enough to compare."
    told = f"{found.value:.2f} between `{found.best}` and `{found.worst}`: "
    if found.value <= found.chance:
        return told + f"no more than chance gives among groups of these sizes (up to {found.chance:.2f})."
    if first.worst != second.worst:
        return told + (
            f"the recognisers disagree. The first reads least in `{first.worst}`, the second in `{second.worst}`. At "
            "least a part of the gap comes from the recognisers, not from the edits."
        )
    both = [row for row in rows if row[attribute] in (found.best, found.worst)]
    before, after = (
        [np.mean([change(row) for row in both if row[attribute] == name]) for name in (found.best, found.worst)]
        for change in (lambda row: row["before"], lambda row: row["target"] - row["before"])
    )
    untouched, edited = float(before[0] - before[1]), float(after[0] - after[1])
    if untouched > edited:
        return told + (
            f"most of it is there before the edit, {untouched:.2f}: the recognisers read these groups differently in "
            f"untouched photographs. {edited:.2f} comes with the edit."
        )
    return told + (
        f"{edited:.2f} comes with the edit, {untouched:.2f} is there before it. Both recognisers read least in "
        f"`{found.worst}` (gaps of {first.value:.2f} and {second.value:.2f}). Either the edits are weaker there, or "
        "the recognisers respond less to the same expression in these faces, as they may in real smiles."
    )

"""Prompts of studies of facial expressions in generated pictures, read into their parts and into emotions.

Their form: ``facial-expressions EXPRESSION: nuances ; subject; camera; type; scene; style``.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emoedit.emotions import canonical
from emoedit.types import DataError, UnknownNameError

FORM = "facial-expressions EXPRESSION: nuances ; subject; camera; type; scene; style"
PARTS = ("nuances", "subject", "camera", "type", "scene", "style")
LONGEST = 4000  # characters; more is no prompt that any text encoder reads
_HEAD = re.compile(r"\s*facial[ _-]expressions?\s+(?P<expression>[^:;]*?)\s*:", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*,\s*|\s+and\s+|\s*&\s*", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_DENIED = {"no", "not", "never", "without"}


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Args:
        text: as it was written.
        expression: what the face is to show ("Shame").
        nuances: how ("Desolate", "lonely", "regretful"); none where the field is empty.
        subject: the other fields; empty where they are.
        camera: as ``subject``.
        type: as ``subject``.
        scene: as ``subject``.
        style: as ``subject``.
        about: what else is known of it, by column name (of ``read_prompts``).
    """

    text: str
    expression: str
    nuances: tuple[str, ...]
    subject: str
    camera: str
    type: str
    scene: str
    style: str
    about: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Reading:
    """What of a prompt the vocabulary of emotions knows.

    Args:
        emotions: canonical names, each once, the expression's first.
        unread: the expression and nuances that no name was found in.
    """

    emotions: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def algebra(self) -> str:
        """For an editor: the emotions in equal shares (``"0.5*shame + 0.5*lonely"``)."""
        if len(self.emotions) == 1:
            return self.emotions[0]
        return " + ".join(f"{1 / len(self.emotions):.3g}*{name}" for name in self.emotions)


def parse_prompt(text: str) -> Prompt:
    """Read one prompt (``FORM``). Fields may be empty, and are stripped; the expression may not be.

    Raises:
        DataError: not a string, too long, or not of this form; says what was found.
    """
    if not isinstance(text, str):
        raise DataError(f"a prompt is a string, not {text!r:.80}")
    if len(text) > LONGEST:
        raise DataError(f"a prompt of {len(text)} characters; at most {LONGEST} are read")
    if not text.isprintable():
        raise DataError(f"a prompt is one line of printable text: {text!r:.80}")
    head = _HEAD.match(text)
    if head is None or not head["expression"]:
        raise DataError(f"{text!r:.80} does not begin with an expression; expected {FORM!r}")
    fields = [part.strip() for part in text[head.end() :].split(";")]
    if len(fields) != len(PARTS):
        raise DataError(
            f"{text!r:.80} has {len(fields)} fields after the expression, expected {len(PARTS)}: {'; '.join(PARTS)}"
        )
    nuances = tuple(part.strip() for part in _BETWEEN.split(fields[0]) if part.strip())
    subject, camera, kind, scene, style = fields[1:]
    return Prompt(text, head["expression"], nuances, subject, camera, kind, scene, style)


def read_emotions(prompt: Prompt) -> Reading:
    """The emotions that a prompt's expression and nuances name.

    A whole nuance is read first, else the longest names inside it ("a sense of regret" is regret; nothing is read after
    "no" or "not").

    Raises:
        UnknownNameError: not one name was found; with the names that are nearest to the expression.
    """
    found: dict[str, None] = {}
    unread = []
    for phrase in (prompt.expression, *prompt.nuances):
        names = _names(phrase)
        found.update(dict.fromkeys(names))
        if not names:
            unread.append(phrase)
    if not found:
        canonical(prompt.expression)  # raises, with the nearest names
    return Reading(tuple(found), tuple(unread))


def _names(phrase: str) -> list[str]:
    words = _WORD.findall(phrase)
    if _DENIED & {word.lower() for word in words}:
        return []
    names, start = [], 0
    while start < len(words):
        for end in range(min(len(words), start + 3), start, -1):
            try:
                names.append(canonical(" ".join(words[start:end])))
            except UnknownNameError:
                continue
            start = end
            break
        else:
            start += 1
    return names


def read_prompts(path: str | os.PathLike[str]) -> list[Prompt]:
    """Prompts of a file: ``.csv`` in UTF-8 with a column ``prompt``, or text with one a line.

    Raises:
        DataError: it cannot be read, holds no prompt, or one that does not parse; says the row.
    """
    path = Path(path).expanduser()
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, restkey="", restval="")
                if "prompt" not in (reader.fieldnames or ()):
                    raise DataError(
                        f"{path}: no column prompt; found {', '.join(reader.fieldnames or ()) or 'nothing'}"
                    )
                rows = [{name: cell for name, cell in row.items() if name} for row in reader]
        else:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            rows = [{"prompt": line.strip()} for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as prompts: {error}") from error
    if not rows:
        raise DataError(f"{path} holds no prompt")
    prompts = []
    for number, row in enumerate(rows, 1):
        try:
            prompt = parse_prompt(row.pop("prompt"))
        except DataError as error:
            raise DataError(f"{path}, prompt {number}: {error}") from error
        prompts.append(Prompt(**{**vars(prompt), "about": row}))
    return prompts

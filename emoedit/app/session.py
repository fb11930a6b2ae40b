"""One visitor's photograph and edits.

A session's files lie in a folder of its own, which is deleted when the page is closed. The uploaded file is deleted as
soon as it has been read.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from emoedit.app.settings import Settings
from emoedit.emotions import place
from emoedit.faces.detect import Face
from emoedit.io.images import Picture
from emoedit.types import EmoEditError

if TYPE_CHECKING:
    from emoedit.evaluation.best import Best
    from emoedit.photo import OpenPhoto

MAX_KEPT = 24  # thumbnails
MAX_UNDO = 100
MAX_PREVIEWS = 24  # pictures of the page that stay on the disk while it is open
PREVIEW_QUALITY = 92  # of JPEG; only what is looked at, never what is downloaded


class SessionError(EmoEditError):
    """The session lacks what a request needs, such as an open photograph."""


@dataclass(frozen=True)
class Reading:
    """What the recogniser reads in a face.

    Args:
        scores: probability of each of the seven basic emotions.
    """

    scores: dict[str, float]

    @property
    def valence(self) -> float:
        """Unpleasant to pleasant, -1 to 1: the mean of the emotions' own values."""
        return place(self.scores)[0]

    @property
    def arousal(self) -> float:
        """Sleepy to activated, -1 to 1: the mean of the emotions' own values."""
        return place(self.scores)[1]


@dataclass(frozen=True)
class Photo:
    """A photograph that was opened.

    Args:
        full: as it was read.
        shown: the same, at most `SHOWN_SIDE` pixels on its longest side.
        faces: faces in pixels of `shown`, largest first.
        readings: one a face.
        suffix: suffix of the format that the file had, where a result can be written in it; else ``.jpg``.
    """

    full: Picture
    shown: Picture
    faces: tuple[Face, ...]
    readings: tuple[Reading, ...]
    suffix: str

    @property
    def scale(self) -> float:
        """Pixels of the photograph a pixel of what is shown."""
        return self.full.rgb.shape[1] / self.shown.rgb.shape[1]


@dataclass(frozen=True)
class Result:
    """One edit of what is shown.

    Args:
        before: the photograph, in sRGB.
        after: its edit, in sRGB.
        settings: the requested settings.
        strength: the strength that was used; less than the one of the settings where more of the person had to be kept.
        identity: lowest cosine similarity of an edited face to its source, -1 to 1.
        reading: reading of the first edited face after the edit.
        seconds: duration from the settings to the result.
        units: share of the action units that was used, 0 to 1; less than 1 where more of the person had to be kept.
    """

    before: Image.Image
    after: Image.Image
    settings: Settings
    strength: float
    identity: float
    reading: Reading
    seconds: float
    units: float = 1.0


@dataclass
class Session:
    """What belongs to one open page.

    Args:
        folder: folder of its files.
        photo: None before one is opened.
        undo: settings that were left, oldest first; the last one is in force.
        kept: results that the visitor set aside.
        last: the newest result.
        opened: inversions by editor and face, the least recently used first.
        used: when it was last asked for something, in seconds of a monotonic clock.
        previews: files of pictures that the page shows, oldest first.
        best: result of the last search for candidates.
        best_face: number of the face that was searched for.
    """

    folder: Path
    photo: Photo | None = None
    undo: list[Settings] = field(default_factory=list)
    kept: list[Result] = field(default_factory=list)
    last: Result | None = None
    opened: OrderedDict[tuple[str, int | None], OpenPhoto] = field(default_factory=OrderedDict)
    used: float = field(default_factory=time.monotonic)
    previews: list[Path] = field(default_factory=list)
    best: Best | None = None
    best_face: int = 0

    def need_photo(self) -> Photo:
        """The open photograph.

        Raises:
            SessionError: there is none.
        """
        if self.photo is None:
            raise SessionError("open a photograph first; one from before goes when the page is closed or idle for long")
        return self.photo

    def file(self, name: str) -> Path:
        """A new path in the session's folder that nobody can guess; the name is what a download is called.

        Args:
            name: name of the download.
        """
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return folder / (re.sub(r"[^\w.+-]+", "_", name).strip(".") or "picture")

    def preview(self, image: Image.Image) -> str:
        """A file of a picture for the page; the oldest ones go, as the page has loaded them long ago.

        Args:
            image: the picture to show.
        """
        path = self.file("preview.jpg")
        image.save(path, "JPEG", quality=PREVIEW_QUALITY)
        self.previews.append(path)
        while len(self.previews) > MAX_PREVIEWS:
            shutil.rmtree(self.previews.pop(0).parent, ignore_errors=True)
        return str(path)

    def close(self) -> None:
        """Clear the session and delete its files."""
        self.photo, self.last, self.undo, self.kept, self.best = None, None, [], [], None
        self.opened.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

"""The sessions of all open pages, and the models that they share."""

from __future__ import annotations

import io
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from emoedit.app.session import Photo, Reading, Result, Session, SessionError
from emoedit.app.settings import Settings, Weights, algebra
from emoedit.app.uploads import read_upload
from emoedit.faces.detect import Face
from emoedit.io import checkpoints
from emoedit.io.images import SUFFIXES, Picture, load_picture
from emoedit.report.display import to_srgb
from emoedit.types import Edit, ImageError, NoFaceError

if TYPE_CHECKING:
    from emoedit.faces.networks import EmbeddedNetwork
    from emoedit.guard import IdentityGuard
    from emoedit.metrics.suite import Suite
    from emoedit.photo import OpenPhoto, PhotoEdit, PhotoEditor

MAX_PIXELS = 60_000_000
MAX_HELD = 600_000_000  # pixels of all open photographs, 1.8 GB of memory
SHOWN_SIDE = 1280  # longest side of what is edited while controls move; what is downloaded has the photograph's size
WALK_SIDE = 640  # longest side of an animation
MAX_OPEN = 4  # inversions a session keeps, one an editor and face
MAX_IDLE = 3600.0  # seconds after which a session that was never closed is dropped
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of action units, tried in this order until enough of the person is kept


@dataclass(frozen=True)
class OwnEditor:
    """An editor beside the embedded ones: a folder, or a model of others.

    Args:
        name: name in the page's lists.
        load: reads it.
    """

    name: str
    load: Callable[[], PhotoEditor]


class Studio:
    """Sessions, and the models that they share.

    Args:
        root: folder under which sessions have theirs.
        device: device of the models.
        max_pixels: larger photographs are refused.
        own: an editor beside the embedded ones.
    """

    def __init__(
        self, root: Path, *, device: str = "auto", max_pixels: int = MAX_PIXELS, own: OwnEditor | None = None
    ) -> None:
        self.root, self.device, self.max_pixels, self.own = root, device, max_pixels, own
        self.max_held = MAX_HELD
        self.lock = threading.RLock()  # models and detector are used by one thread at a time
        self._sessions: dict[str, Session] = {}
        self._editors: dict[str, PhotoEditor] = {}
        self.comparing = threading.Lock()  # around what only comparisons use
        self._compared: dict[str, PhotoEditor] = {}

    # --- sessions

    def session(self, key: str) -> Session:
        """The session of a page, made on first use; sessions that were idle for long go.

        Args:
            key: hash of the page's session.
        """
        with self.lock:
            now = time.monotonic()
            for other in [k for k, s in self._sessions.items() if now - s.used > MAX_IDLE and k != key]:
                self._sessions.pop(other).close()
            if key not in self._sessions:
                self._sessions[key] = Session(self.root / secrets.token_hex(16))
            self._sessions[key].used = now
            return self._sessions[key]

    def end(self, key: str) -> None:
        """Delete what a page leaves behind.

        Args:
            key: hash of the page's session.
        """
        with self.lock:
            if (session := self._sessions.pop(key, None)) is not None:
                session.close()

    # --- models

    def photo_editor(self, name: str) -> PhotoEditor:
        """An editor with all around it, loaded once.

        Args:
            name: name of the editor.

        Raises:
            UnknownNameError: no such editor.
            CheckpointError: its weights are damaged.
        """
        with self.lock:
            return self._load(name, self._editors)

    def compared_editor(self, name: str) -> PhotoEditor:
        """The same for a comparison, which holds `comparing` and must not keep others from editing.

        Args:
            name: name of the editor.

        Raises:
            UnknownNameError: no such editor.
            CheckpointError: its weights are damaged.
        """
        if self.own is not None and name == self.own.name:
            return self.photo_editor(name)  # which may be too large to be held twice
        return self._load(name, self._compared)

    def editors(self) -> list[tuple[str, str]]:
        """Entries of the page's lists: a description of each editor, and its name."""
        own = self.own.name if self.own is not None else None
        found = [(f"{own}: your own", own)] if own is not None else []
        for name in checkpoints.editor_names():
            role = checkpoints.read_json(checkpoints.embedded_root() / name / checkpoints.EDITOR).get("role", "editor")
            if name != own:
                found.append((f"{name}: {role}", name))
        return found

    def _load(self, name: str, loaded: dict[str, PhotoEditor]) -> PhotoEditor:
        if name not in loaded and self.own is not None and name == self.own.name:
            loaded[name] = self.own.load()
        if name not in loaded:
            from emoedit.editors import load_editor
            from emoedit.photo import PhotoEditor

            detector = next(iter(loaded.values())).detector if loaded else None
            loaded[name] = PhotoEditor(load_editor(name, device=self.device), detector=detector)
        return loaded[name]

    @cached_property
    def recogniser(self) -> EmbeddedNetwork:
        """The expression recogniser."""
        from emoedit.faces.networks import EmbeddedNetwork

        return EmbeddedNetwork.load("expression")

    @cached_property
    def identity(self) -> EmbeddedNetwork:
        """The identity network."""
        from emoedit.faces.networks import EmbeddedNetwork

        return EmbeddedNetwork.load("identity")

    def warm_up(self, editor: str) -> None:
        """Load what the first photograph needs, and edit one, so that a visitor does not wait for it.

        Args:
            editor: name of the editor that will be used.
        """
        from skimage.data import astronaut

        session = Session(self.root / secrets.token_hex(16))
        path = session.file("astronaut.png")
        Image.fromarray(astronaut()).save(path)
        try:
            self.open(session, path, editor)
            self.edit(session, Settings((("happy", 1.0),), 1.0, editor))
        finally:
            session.close()

    @cached_property
    def suite(self) -> Suite:
        """All measures of a comparison."""
        from emoedit.metrics.suite import Suite

        return Suite()

    def read(self, rgb: np.ndarray, face: Face) -> Reading:
        """Read the expression of a face.

        Args:
            rgb: the photograph, uint8 ``[H, W, 3]``.
            face: the face, in its pixels.
        """
        with self.lock:
            scores = self.recogniser.scores(self.recogniser.faces(rgb, face)[None])[0].tolist()
        named = zip(self.recogniser.emotions, scores, strict=True)
        return Reading({name: score for name, score in named if not name.startswith("other:")})

    # --- photographs

    def open(self, session: Session, path: Path, editor: str) -> Photo:
        """Read an uploaded file, delete it, and find its faces.

        Args:
            session: session of the photograph; it replaces the one that was open.
            path: path of the upload.
            editor: name of the editor whose detector is used.

        Raises:
            ImageError: the file is no picture, damaged or too large.
            NoFaceError: no face is found.
        """
        data, full = read_upload(path, max_pixels=self.max_pixels)
        self._check_room(session, full)
        shown = reduced(full)
        with self.lock:
            faces = tuple(self.photo_editor(editor).detector.choose(shown.rgb, "all"))
            readings = tuple(self.read(shown.rgb, face) for face in faces)
        session.opened.clear()
        session.undo, session.kept, session.last, session.best = [], [], None, None
        session.photo = Photo(full, shown, faces, readings, suffix_of(data))
        return session.photo

    def _check_room(self, session: Session, full: Picture) -> None:
        """Refuse a photograph that would fill the memory beside those of other pages."""
        with self.lock:
            others = [other.photo for other in self._sessions.values() if other is not session and other.photo]
        held = sum(photo.full.rgb.size // 3 for photo in others)
        if held + full.rgb.size // 3 > self.max_held:
            raise ImageError(
                f"{len(others)} other pages hold photographs of {held / 1e6:.0f} million pixels, and there is no room "
                "for this one beside them: try again later, or with a smaller one"
            )

    def _opened(self, session: Session, editor: str, number: int | None) -> OpenPhoto:
        """The inversion of a face, or (None) of all; at most `MAX_OPEN` are kept."""
        key = editor, number
        if key not in session.opened:
            photo = session.need_photo()
            session.opened[key] = self.photo_editor(editor).open(photo.shown, _choice(photo, number))
        session.opened.move_to_end(key)
        while len(session.opened) > MAX_OPEN:
            session.opened.popitem(last=False)
        return session.opened[key]

    def edit(self, session: Session, settings: Settings) -> Result:
        """The edit that the controls describe, of what is shown.

        Args:
            session: session with the photograph.
            settings: settings of the controls.

        Raises:
            SessionError: no photograph is open.
            UnknownNameError: the editor cannot do it.
            EditError: settings that make no sense.
        """
        start = time.perf_counter()
        with self.lock:
            photo = session.need_photo()
            photos = self.photo_editor(settings.editor)
            opened = self._opened(session, settings.editor, settings.face)
            edit, units = settings.parts(photos.editor.emotions)
            if settings.min_identity > 0 and edit.strength:
                edit = self._guard(photos, settings.min_identity).limit(opened, [edit])[0]
            drawn = next(photos.edit(opened, [edit]))
            for share in SHARES if units and settings.min_identity > 0 else (1.0,):
                made = self._with_units(drawn, units, share)
                rgb = load_picture(made.image).rgb
                identity = min(self._identity(photo.shown.rgb, rgb, face) for face in opened.faces)
                if identity >= settings.min_identity:
                    break
            reading = self.read(rgb, opened.faces[0])
        seconds = time.perf_counter() - start
        strength = edit.strength if algebra(settings.weights) else settings.strength
        before, after = to_srgb(made.source), to_srgb(made.image)
        return Result(before, after, settings, strength, identity, reading, seconds, share)

    def _with_units(self, drawn: PhotoEdit, units: Weights, share: float) -> PhotoEdit:
        """An edit with a share of the action units added."""
        from emoedit.parts import add_units
        from emoedit.steering.unit_names import check_units

        check_units(dict(units))
        wanted = algebra((name, weight * share) for name, weight in units)
        return add_units(drawn, wanted, device=self.device) if wanted else drawn

    def _guard(self, photos: PhotoEditor, floor: float) -> IdentityGuard:
        from emoedit.guard import IdentityGuard

        return IdentityGuard(photos, floor, network=self.identity)

    def _identity(self, before: np.ndarray, after: np.ndarray, face: Face) -> float:
        a, b = (self.identity.embed(self.identity.faces(rgb, face)[None])[0] for rgb in (before, after))
        return float(a @ b)

    def full_size(self, session: Session, result: Result) -> PhotoEdit:
        """The same edit of the photograph at its own size.

        Args:
            session: session with the photograph.
            result: result of the edit of what is shown: its settings, and how much of them was used.

        Raises:
            SessionError: no photograph is open.
            NoFaceError: the faces that were found in what is shown are not found in the photograph.
        """
        settings = result.settings
        with self.lock:
            photo = session.need_photo()
            photos = self.photo_editor(settings.editor)
            if photo.full is photo.shown:
                opened = self._opened(session, settings.editor, settings.face)
            else:
                choice = _choice(photo, settings.face)
                opened = photos.open(photo.full, _scaled(choice, photo.scale) if isinstance(choice, Face) else choice)
            edit, units = settings.parts(photos.editor.emotions)
            if edit.strength:
                edit = replace(edit, strength=result.strength)
            return self._with_units(next(photos.edit(opened, [edit])), units, result.units)

    def walk(
        self,
        session: Session,
        settings: Settings,
        suffix: str,
        *,
        frames: int = 16,
        callback: Callable[[int, int], None] | None = None,
    ) -> Path:
        """An animation from the photograph to the edit and back.

        Args:
            session: session with the photograph.
            settings: settings of the edit at its end.
            suffix: ``.gif`` or ``.mp4``.
            frames: number of frames, from one end to the other, both included.
            callback: called with (frames done, frames in all).

        Raises:
            SessionError: no photograph is open, or the settings change nothing.
            MissingExtraError: ``.mp4`` without PyAV.
        """
        from emoedit.report.walk import Walk, check_encoder, even_strengths, walk

        if not settings.changes:
            raise SessionError("nothing is edited yet: move a slider, then make the animation")
        check_encoder(suffix)
        with self.lock:
            photos = self.photo_editor(settings.editor)
            opened = self._opened(session, settings.editor, settings.face)
            edit, units = settings.parts(photos.editor.emotions)
            strengths = even_strengths(0.0, settings.strength, frames)
            if units:
                found = Walk(*self._frames(photos, opened, settings, strengths, callback))
            else:
                found = walk(photos, opened, edit.emotion, strengths, longest=WALK_SIDE, callback=callback)
        path = session.file(f"{session.need_photo().full.name}_{settings.expression}{suffix}")
        return found.save(path)

    def _frames(
        self,
        photos: PhotoEditor,
        opened: OpenPhoto,
        settings: Settings,
        strengths: list[float],
        callback: Callable[[int, int], None] | None,
    ) -> tuple[tuple[Image.Image, ...], tuple[Edit, ...]]:
        """The frames of a walk with action units that the editor does not draw itself, and what each shows."""
        frames, edits = [], []
        for number, strength in enumerate(strengths, 1):
            edit, units = replace(settings, strength=strength).parts(photos.editor.emotions)
            frame = to_srgb(self._with_units(next(photos.edit(opened, [edit])), units, 1.0).image).convert("RGB")
            frame.thumbnail((WALK_SIDE, WALK_SIDE), Image.Resampling.LANCZOS)
            frames.append(frame)
            edits.append(replace(edit, strength=strength))
            if callback is not None:
                callback(number, len(strengths))
        return tuple(frames), tuple(edits)


def reduced(picture: Picture, longest: int = SHOWN_SIDE) -> Picture:
    """The picture at most `longest` pixels long; itself where it is no longer.

    Args:
        picture: picture of any size.
        longest: side in pixels.
    """
    height, width = picture.rgb.shape[:2]
    if max(height, width) <= longest:
        return picture
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    rgb = np.asarray(Image.fromarray(picture.rgb).resize(size, Image.Resampling.LANCZOS))
    alpha = None
    if picture.alpha is not None:
        alpha = np.asarray(Image.fromarray(picture.alpha).resize(size, Image.Resampling.LANCZOS))
    return replace(picture, rgb=rgb, alpha=alpha)


def suffix_of(data: bytes) -> str:
    """The suffix of a file's own format where results can be written in it, else ``.jpg``.

    Args:
        data: an encoded picture.
    """
    with Image.open(io.BytesIO(data)) as image:
        kind = image.format
    return next((suffix for suffix, known in SUFFIXES.items() if known == kind), ".jpg")


def _choice(photo: Photo, number: int | None) -> Face | str:
    if number is None:
        return "all" if len(photo.faces) > 1 else photo.faces[0]
    if not 0 <= number < len(photo.faces):
        raise NoFaceError(f"face {number + 1} was asked for, but the photograph has {len(photo.faces)}")
    return photo.faces[number]


def _scaled(face: Face, scale: float) -> Face:
    """A face in pixels of a picture that is `scale` times as large; pixel centres lie at whole numbers."""
    x0, y0, x1, y1 = ((value + 0.5) * scale - 0.5 for value in face.box)
    return Face((x0, y0, x1, y1), (face.landmarks + 0.5) * scale - 0.5, face.confidence)

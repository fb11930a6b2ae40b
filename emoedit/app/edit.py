"""The Edit tab's callbacks: what each control does to a session, without gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from emoedit.app import figures
from emoedit.app.pad import nearest, place_of, weights_at
from emoedit.app.session import MAX_KEPT, MAX_UNDO, Photo, Session, SessionError
from emoedit.app.settings import Settings
from emoedit.app.studio import Studio
from emoedit.emotions import resolve
from emoedit.faces.detect import Face
from emoedit.io.images import output_path
from emoedit.steering.unit_names import UNITS, is_unit

SLIDERS = 8  # emotions of an editor that have a slider; the embedded editors have at most 7
UNIT_NAMES = tuple(f"AU{number}" for number in UNITS)
ALL = "all"  # the choice of every face
HEAD = 2.2  # side of a close view, in sides of the detector's box
SMALL = 0.25  # of the photograph's longer side: a smaller face is shown close at first
SMILES = 0.5  # probability from which a face counts as smiling


@dataclass(frozen=True)
class View:
    """What the tab shows after a control was used.

    Args:
        settings: current settings of the controls.
        emotions: names of the sliders.
        pad: value of the pad: its point, and what the face shows now.
        words: about the point, as markup.
        faces: the photograph with its faces outlined.
        choices: names of the faces; one where there is only one.
        pictures: files of the photograph and its edit.
        bars: the face's expression, as markup.
        numbers: numbers of the edit, as markup.
        close: whether only the head is shown.
    """

    settings: Settings
    emotions: tuple[str, ...]
    pad: dict[str, Any]
    words: str
    faces: Image.Image
    choices: tuple[str, ...]
    pictures: tuple[str, str]
    bars: str
    numbers: str
    close: bool


@dataclass(frozen=True)
class EditTab:
    """The callbacks; each takes the session and what the controls say.

    Args:
        studio: models and sessions.
    """

    studio: Studio

    # --- a photograph

    def open(self, session: Session, path: Path, editor: str) -> View:
        """Open an uploaded photograph and edit it at once: add a smile, or remove the one it shows.

        Args:
            session: session of the page.
            path: path of the upload, which is deleted.
            editor: name of the selected editor.

        Raises:
            ImageError: the file is no picture, is damaged, or is too large.
            NoFaceError: no face is found.
        """
        photo = self.studio.open(session, path, editor)
        smiles = photo.readings[0].scores.get("happy", 0.0) >= SMILES
        known = self.emotions(editor)
        first = next((name for name in ("neutral" if smiles else "happy", *known) if name in known), known[0])
        settings = Settings(((first, 1.0),), 1.0, editor)
        session.undo = [settings]
        return self.show(session, settings, close=is_small(photo))

    def example(self, session: Session, editor: str) -> View:
        """Open the portrait of the astronaut Eileen Collins (NASA, public domain), which scikit-image brings.

        Args:
            session: session of the page.
            editor: name of the selected editor.
        """
        from skimage.data import astronaut

        path = session.file("astronaut.png")
        Image.fromarray(astronaut()).save(path)
        return self.open(session, path, editor)

    def emotions(self, editor: str) -> tuple[str, ...]:
        """The emotions with a slider.

        Args:
            editor: name of it.
        """
        known = self.studio.photo_editor(editor).editor.emotions
        return tuple(name for name in known if not is_unit(name))[:SLIDERS]

    # --- controls

    def settings(
        self,
        values: Sequence[float],
        strength: float,
        editor: str,
        min_identity: float,
        face: str,
        units: Sequence[float] = (),
    ) -> Settings:
        """The settings of the controls.

        Args:
            values: values of the sliders, in the order of the editor's emotions.
            strength: strength of the edit.
            editor: name of it.
            min_identity: how much of the person is kept.
            face: its number from 1, or `ALL`.
            units: units of the sliders of `UNIT_NAMES`; empty for none.
        """
        weights = tuple((n, float(v or 0)) for n, v in zip(self.emotions(editor), values, strict=False))
        moved = tuple((n, float(v)) for n, v in zip(UNIT_NAMES, units, strict=False) if v)
        return Settings(weights, float(strength), editor, float(min_identity), number_of(face), moved)

    def at_point(self, settings: Settings, valence: float, arousal: float) -> Settings:
        """The settings with the weights of a point of the pad.

        Args:
            settings: settings whose weights are replaced.
            valence: -1 to 1.
            arousal: -1 to 1.
        """
        return self._with(settings, weights_at(valence, arousal, self.emotions(settings.editor)))

    def named(self, settings: Settings, expression: str) -> Settings:
        """The settings with the weights of a named emotion, or of algebra on names; units among them are set, too.

        Args:
            settings: settings whose weights are replaced.
            expression: such as ``"nostalgic"``, ``"happy - 0.4*surprised"`` or ``"sad + 0.5*AU4"``.

        Raises:
            UnknownNameError: the editor cannot do it.
            EditError: it does not parse.
        """
        weights = resolve(expression, (*self.emotions(settings.editor), *UNIT_NAMES))
        if units := tuple((name, round(weights[name], 2)) for name in UNIT_NAMES if name in weights):
            settings = replace(settings, units=units)
        return self._with(settings, weights)

    def with_editor(self, settings: Settings, editor: str) -> Settings:
        """The same edit with another editor; weights of emotions that it does not have are left out.

        Args:
            settings: settings of the edit so far.
            editor: name of the new one.
        """
        return self._with(replace(settings, editor=editor), dict(settings.weights))

    def _with(self, settings: Settings, weights: dict[str, float]) -> Settings:
        known = self.emotions(settings.editor)
        return replace(settings, weights=tuple((name, round(weights.get(name, 0.0), 2)) for name in known))

    # --- results

    def show(
        self,
        session: Session,
        settings: Settings,
        *,
        close: bool = False,
        point: tuple[float, float] | None = None,
    ) -> View:
        """Edit what is shown, and describe the result.

        Args:
            session: session of the page.
            settings: settings of the controls.
            close: whether only the head is shown.
            point: point of the pad, where the weights come from it; None for where they lie.

        Raises:
            SessionError: no photograph is open.
        """
        photo = session.need_photo()
        result = self.studio.edit(session, settings)
        session.last = result
        before, after = result.before, result.after
        number = settings.face or 0
        if close and settings.face is not None:
            box = head(photo.faces[number], before.size)
            before, after = before.crop(box), after.crop(box)
        reading = photo.readings[number]
        emotions = self.emotions(settings.editor)
        valence, arousal = point or place_of(dict(settings.weights))
        text = f"Near {nearest(valence, arousal, emotions)}: valence {valence:+.2f}, arousal {arousal:+.2f}"
        return View(
            settings=settings,
            emotions=emotions,
            pad={"v": valence, "a": arousal, "now": [reading.valence, reading.arousal]},
            words=f'<p class="pad-text" aria-live="polite">{text}</p>',
            faces=figures.outlined(photo, settings.face),
            choices=choices(photo),
            pictures=(session.preview(before), session.preview(after)),
            bars=figures.bars(reading, result.reading),
            numbers=figures.numbers(result),
            close=close,
        )

    def settle(self, session: Session, settings: Settings) -> None:
        """Store the settings after a control was released, for undo.

        Args:
            session: session of the page.
            settings: settings of the controls.
        """
        if not session.undo or session.undo[-1] != settings:
            session.undo = [*session.undo, settings][-MAX_UNDO:]

    def undo(self, session: Session) -> Settings:
        """The settings before the last ones.

        Args:
            session: session of the page.

        Raises:
            SessionError: there are none.
        """
        if len(session.undo) < 2:
            raise SessionError("nothing to undo")
        session.undo = session.undo[:-1]
        return session.undo[-1]

    def keep(self, session: Session) -> list[tuple[Image.Image, str]]:
        """Set the newest result aside.

        Args:
            session: session of the page.

        Returns:
            All stored results, with their labels.

        Raises:
            SessionError: there is no result.
        """
        if session.last is None:
            raise SessionError("nothing is edited yet")
        session.kept = [*session.kept, session.last][-MAX_KEPT:]
        return self.thumbnails(session)

    def thumbnails(self, session: Session) -> list[tuple[Image.Image, str]]:
        """The stored results as thumbnails with labels.

        Args:
            session: session of the page.
        """
        found = []
        for result in session.kept:
            number = result.settings.face
            faces = session.need_photo().faces
            picture = result.after if number is None else result.after.crop(head(faces[number], result.after.size))
            picture = picture.copy()
            picture.thumbnail((240, 240))
            found.append((picture, result.settings.label))
        return found

    # --- files

    def download(self, session: Session, settings: Settings) -> Path:
        """The edit at the photograph's own size, in its format and with its metadata.

        Args:
            session: session of the page.
            settings: settings of the controls.

        Raises:
            SessionError: no photograph is open.
        """
        photo = session.need_photo()
        last = session.last
        if last is None or last.settings != settings:
            last = self.studio.edit(session, settings)
        made = self.studio.full_size(session, last)
        name = output_path(photo.full.name, settings.expression or "unchanged", many=False, suffix=photo.suffix).name
        return made.save(session.file(name))


def number_of(face: str | None) -> int | None:
    """The index of a face by its name on the page.

    Args:
        face: a number from 1, `ALL`, or None (the largest).
    """
    if face == ALL:
        return None
    return int(face) - 1 if face and face.isdecimal() and int(face) > 0 else 0


def choices(photo: Photo) -> tuple[str, ...]:
    """The names of a photograph's faces, and `ALL` where there are several.

    Args:
        photo: the open photograph.
    """
    names = tuple(str(number + 1) for number in range(len(photo.faces)))
    return (*names, ALL) if len(names) > 1 else names


def is_small(photo: Photo) -> bool:
    """Whether the largest face is so small that only the head should be shown at first.

    Args:
        photo: the open photograph.
    """
    x0, y0, x1, y1 = photo.faces[0].box
    return max(x1 - x0, y1 - y0) < SMALL * max(photo.shown.rgb.shape[:2])


def head(face: Face, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square around a face, within the picture.

    Args:
        face: the face, in its pixels.
        size: width and height.

    Returns:
        Left, top, right, bottom in whole pixels.
    """
    x0, y0, x1, y1 = face.box
    half = HEAD / 2 * max(x1 - x0, y1 - y0)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    left, top = max(0, round(cx - half)), max(0, round(cy - half))
    return left, top, max(left + 1, min(size[0], round(cx + half))), max(top + 1, min(size[1], round(cy + half)))

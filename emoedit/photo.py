"""A photograph in, a photograph out: everything around an editor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from emoedit.compositing.closing import Opening, find_opening
from emoedit.compositing.flow import Change
from emoedit.compositing.paste import DRAWN, MODES, Mode, close_mouth, loses_teeth, paste
from emoedit.editors import Editor, load_editor
from emoedit.emotions import takes_smile
from emoedit.faces.align import Alignment, align
from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.landmarks import DrawingLandmarks
from emoedit.faces.masks import regions
from emoedit.faces.tone import Tone, find_tone
from emoedit.io.images import Picture, load_picture, save_picture
from emoedit.models.base import Backbone
from emoedit.nn.mouth import MouthConfig, MouthDrawer
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import Edit, EditError, EmoEditError, Inversion


@dataclass(frozen=True)
class ClosedMouth:
    """A face whose mouth was closed before it is edited.

    Args:
        tone: of the face.  inversion: of its crop.
    """

    tone: Tone
    inversion: Inversion


@dataclass(frozen=True)
class OpenPhoto:
    """A photograph that has been read, its faces found and inverted: ready for any number of edits.

    Args:
        picture: the pixels and what came with them.
        faces: the N faces to edit, largest first.
        alignments: one a face.
        tones: what lifts the dark tones of each face while it is edited.
        openings: of each mouth that shows teeth.
        inversion: of the N aligned crops.
        seconds: what reading, detecting and inverting took.
        closed: faces by number, for edits that lose their teeth; inverted as soon as one is asked for.
    """

    picture: Picture
    faces: tuple[Face, ...]
    alignments: tuple[Alignment, ...]
    tones: tuple[Tone, ...]
    openings: tuple[Opening | None, ...]
    inversion: Inversion
    seconds: float
    closed: dict[int, ClosedMouth] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class PhotoEdit:
    """One edited photograph.

    Args:
        image: PIL picture of the photograph's own size, colour profile and metadata in ``.info``.
        source: the photograph as PIL picture.
        faces: the faces that were edited.
        edit: emotion and strength.
        editor: name of the editor.
        seed: of the noise an editor draws (one that draws none ignores it).
        seconds: what this edit took, without reading, detection and inversion.
    """

    image: Image.Image
    source: Image.Image
    faces: tuple[Face, ...]
    edit: Edit
    editor: str
    seed: int
    seconds: float

    @property
    def face(self) -> Face:
        """The largest edited face."""
        return self.faces[0]

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the picture (format by suffix); whole or not at all.

        Raises:
            OutputError: it exists and ``overwrite`` is not set, or cannot be written.
        """
        save_picture(self.image, path, overwrite=overwrite)
        return Path(path)


class PhotoEditor:
    """Detection, alignment and paste-back around an editor; built once, used for many photographs.

    Args:
        editor: an :class:`emoedit.editors.Editor` or the name of one.
        detector: default: MTCNN on the editor's device.
        mode: how the change is put back (``paste``); default: as the backbone's drawings need it.
    """

    def __init__(
        self, editor: Editor | str = DEFAULT_EDITOR, *, detector: FaceDetector | None = None, mode: Mode | None = None
    ) -> None:
        if mode is not None and mode not in MODES:
            raise EditError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        self.editor = load_editor(editor) if isinstance(editor, str | os.PathLike) else editor
        self.detector = detector or FaceDetector(str(self.editor.device))
        self.mode: Mode = mode or self.editor.backbone.paste_mode
        self._landmarks = DrawingLandmarks() if self.mode in DRAWN else None
        # Larger drawings show teeth better than the network of sharp mouths does.
        small = self.editor.backbone.crop.resolution <= MouthConfig.resolution
        self._mouths = MouthDrawer() if self.mode in DRAWN and small else None

    def open(self, photo: Any, face: str | int | Face = "largest", *, seed: int = 0) -> OpenPhoto:
        """Read a photograph, find its faces, invert them.

        Args:
            photo: a path, bytes, PIL picture, array or tensor (:func:`emoedit.io.images.load_picture`); not modified.
            face: ``"largest"``, ``"all"``, an index by size, or a face that was found before (of that photograph).

        Raises:
            ImageError, NoFaceError
        """
        start = time.perf_counter()
        picture = load_picture(photo)
        faces = [face] if isinstance(face, Face) else self.detector.choose(picture.rgb, face)
        backbone = self.editor.backbone
        alignments = tuple(align(found.landmarks, backbone.crop) for found in faces)
        x, tones = see(picture.rgb, alignments, backbone)
        inversion = self.editor.invert(x, generator=torch.Generator().manual_seed(seed))
        openings = tuple(self._opening(picture.rgb, *there) for there in zip(alignments, faces, strict=True))
        seconds = time.perf_counter() - start
        return OpenPhoto(picture, tuple(faces), alignments, tones, openings, inversion, seconds)

    def edit(self, photo: OpenPhoto, edits: Sequence[Edit], *, seed: int = 0) -> Iterator[PhotoEdit]:
        """The edits of an open photograph, one after the other.

        Strength 0 gives the photograph itself, bit for bit.
        """
        source = photo.picture.to_pil()
        # One list for all edits: their pictures are drawn in common batches.
        shut = [self._shuts_all(photo, edit) for edit in edits]
        drawn = self._draw(photo.inversion, [edit for edit, closed in zip(edits, shut, strict=True) if not closed])
        silent = [edit for edit, closed in zip(edits, shut, strict=True) if closed]
        numbers = range(len(photo.faces))
        drawn_shut = [self._draw(self._closed(photo, n, seed).inversion, silent) for n in numbers if silent]
        for edit, closed in zip(edits, shut, strict=True):
            start = time.perf_counter()
            rgb = photo.picture.rgb
            if closed:
                for n in numbers:
                    rgb = self._put_in(
                        rgb, photo, n, [f[0] for f in next(drawn_shut[n])], edit, None, seed, closed=True
                    )
            else:
                frames = next(drawn)
                known = self.editor.changes(photo.inversion, edit) if edit.strength else None
                for n in numbers if edit.strength else ():
                    rgb = self._put_in(rgb, photo, n, [f[n] for f in frames], edit, known and known[n], seed)
            image = photo.picture.to_pil(rgb)
            seconds = time.perf_counter() - start
            yield PhotoEdit(image, source, photo.faces, edit, self.editor.name, seed, seconds)

    def _shuts_all(self, photo: OpenPhoto, edit: Edit) -> bool:
        """Whether every mouth is closed before an edit: nothing needs to be drawn for the photograph as it is."""
        return (
            all(opening is not None for opening in photo.openings)
            and self._ends_smile(edit)
            and self.editor.changes(photo.inversion, edit) is None
        )

    def _ends_smile(self, edit: Edit) -> bool:
        """Whether an edit closes a mouth that shows teeth, however it is drawn. By colour alone, without the network, a
        gleam on a lip is taken for teeth too often for that."""
        return self._mouths is not None and takes_smile(edit.emotion, edit.strength, self.editor.emotions)

    def _draw(self, inversion: Inversion, edits: Sequence[Edit]) -> Iterator[list[np.ndarray]]:
        """For each edit the frames of all N faces, from the reconstruction on, float32 ``[N, R, R(, 3)]``."""
        first = _levels(inversion.extras["reconstruction"])
        steps = self.editor.backbone.path_steps if self.mode == "warp" else 1
        path = [Edit(edit.emotion, edit.strength * k / steps) for edit in edits for k in range(1, steps + 1)]
        drawn = self.editor.decode(inversion, path)
        for _ in edits:
            yield [first, *(_levels(next(drawn)) for _ in range(steps))]

    def _put_in(
        self,
        rgb: np.ndarray,
        photo: OpenPhoto,
        number: int,
        frames: Sequence[np.ndarray],
        edit: Edit,
        change: Change | None,
        seed: int,
        *,
        closed: bool = False,
    ) -> np.ndarray:
        """One face's edit in the photograph, uint8 ``[H, W, 3]``.

        Args:
            closed: whether the frames were drawn for the photograph with its mouth closed.
        """
        alignment, opening = photo.alignments[number], photo.openings[number]
        where = regions(self.editor.backbone.crop)
        led = self._led(frames, photo, number)
        if not closed and opening is not None and change is None:
            # Anger drawn so weakly that a grin stays would be no anger.
            closed = self._ends_smile(edit) or loses_teeth(opening, frames, where, **led)
            if closed:
                inversion = self._closed(photo, number, seed).inversion
                frames = [f[0] for f in next(self._draw(inversion, [edit]))]
                led = self._led(frames, photo, number)
        tone = photo.closed[number].tone if closed else photo.tones[number]
        how = {"mode": self.mode, "change": change, "opening": opening, "closed": closed, "tone": tone}
        return paste(rgb, alignment, frames, where, **how, **led)

    def _led(self, frames: Sequence[np.ndarray], photo: OpenPhoto, number: int) -> dict[str, Any]:
        """What is found in a face's frames, as pasting is told."""
        there = frames, photo.alignments[number], photo.faces[number]
        return {"points": self._landmarks and self._landmarks(*there), "mouths": self._mouths and self._mouths(*there)}

    def _opening(self, rgb: np.ndarray, alignment: Alignment, face: Face) -> Opening | None:
        """The opening of a mouth that shows teeth, where these are not drawn but the photograph's own."""
        if self.mode not in (*DRAWN, "warp"):
            return None
        crop = [alignment.crop(rgb).astype(np.float32)]
        mouth, points = (look(crop, alignment, face)[0] if look else None for look in (self._mouths, self._landmarks))
        return find_opening(rgb, alignment, regions(self.editor.backbone.crop), mouth, points)

    def _closed(self, photo: OpenPhoto, number: int, seed: int) -> ClosedMouth:
        """A face that shows teeth with its mouth closed, inverted once."""
        if number not in photo.closed:
            alignment = photo.alignments[number]
            rgb = close_mouth(photo.picture.rgb, alignment, photo.openings[number])
            x, (tone,) = see(rgb, [alignment], self.editor.backbone)
            inversion = self.editor.invert(x, generator=torch.Generator().manual_seed(seed))
            photo.closed[number] = ClosedMouth(tone, inversion)
        return photo.closed[number]

    def attempt(self, photo: OpenPhoto, edits: Sequence[Edit], *, seed: int = 0) -> Iterator[PhotoEdit | EmoEditError]:
        """For each edit its result, or its error: edits are drawn together, and one that fails takes others with it.
        What an editor does not draw together is tried once."""
        done = 0
        try:
            for result in self.edit(photo, edits if self.editor.batches_edits else [], seed=seed):
                done += 1
                yield result
        except EmoEditError:
            pass  # whose it is will be found below
        for edit in edits[done:]:
            try:
                yield next(self.edit(photo, [edit], seed=seed))
            except EmoEditError as error:
                yield error


def see(rgb: np.ndarray, alignments: Sequence[Alignment], backbone: Backbone) -> tuple[torch.Tensor, tuple[Tone, ...]]:
    """Faces as a backbone is given them.

    Args:
        rgb: the photograph, uint8 ``[H, W, 3]``.  alignments: of N faces.

    Returns:
        ``[N, C, R, R]`` in [-1, 1], and the tones that faces are lifted to.
    """

    def plane(picture: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if backbone.channels == 1 else picture

    own = plane(rgb)
    crops = [alignment.crop(own) for alignment in alignments]
    tones = [Tone()] * len(crops)
    if backbone.evens_light and backbone.channels == 1:
        face = regions(backbone.crop).face
        tones = [find_tone(crop, face) for crop in crops]
        lifted = zip(crops, tones, alignments, strict=True)
        crops = [c if tone.power == 1 else a.crop(plane(tone.lifted(rgb))) for c, tone, a in lifted]
    x = np.stack(crops).astype(np.float32).reshape(len(crops), *crops[0].shape[:2], backbone.channels)
    return torch.from_numpy(x).permute(0, 3, 1, 2) / 127.5 - 1, tuple(tones)


def _levels(x: torch.Tensor) -> np.ndarray:
    """``[N, C, R, R]`` in [-1, 1] as grey levels: float32 ``[N, R, R]`` or ``[N, R, R, 3]``, 0 to 255."""
    levels = ((x.float() + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def edit(
    photo: Any,
    emotion: str = "happy",
    *,
    editor: str | Editor | PhotoEditor = DEFAULT_EDITOR,
    strength: float = 1.0,
    face: str | int = "largest",
    seed: int = 0,
    min_identity: float | None = None,
) -> PhotoEdit:
    """Change the emotion a face shows in a photograph.

    Args:
        photo: a path, bytes, PIL picture, array or tensor.
        emotion: a name or algebra on names (``"happy - 0.4*surprised"``).
        editor: a name, or what :func:`emoedit.load_editor` returned (loaded once, used for many photographs).
        strength: 0 the photograph itself, 1 the fitted effect.
        face: ``"largest"``, ``"all"``, or an index by size.
        min_identity: weaken the edit until this much of the person is kept (:mod:`emoedit.guard`); the result's
            ``edit`` has the strength that was used.

    Raises:
        ImageError, NoFaceError, UnknownNameError, EditError, CheckpointError
    """
    edits = [Edit(emotion, strength)]
    photo_editor = editor if isinstance(editor, PhotoEditor) else PhotoEditor(editor)
    guard = None
    if min_identity is not None:
        from emoedit.guard import IdentityGuard

        guard = IdentityGuard(photo_editor, min_identity)
    opened = photo_editor.open(photo, face, seed=seed)
    if guard is not None:
        edits = guard.limit(opened, edits, seed=seed)
    return next(photo_editor.edit(opened, edits, seed=seed))

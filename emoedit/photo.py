"""A photograph in, a photograph out: everything around an editor.

``open`` reads a photograph, finds its faces, analyses and inverts them. ``edit`` chooses a source for each edit (the
photograph, or the photograph with its smile removed), decodes all edits of a source in common batches, and puts each
into the photograph with the model's compositor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from emoedit.compositing.composite import Scene
from emoedit.compositing.compositors import Compositor, compositor
from emoedit.compositing.drawing import Drawing, known_drawings, read_drawings
from emoedit.compositing.relaxing import Smile, relax, smile_finder
from emoedit.editors import Editor, load_editor
from emoedit.editors.whole import edit_whole
from emoedit.emotions import smile_reduction
from emoedit.faces.align import Alignment, align
from emoedit.faces.analysis import FaceAnalysis, Finders, analyse
from emoedit.faces.detect import Face, FaceDetector, face_detector
from emoedit.faces.masks import face_masks
from emoedit.faces.nearby import Nearby
from emoedit.io.images import Original, Picture, load_picture, save_picture
from emoedit.models.crops import crop_and_normalise as crop_and_normalise
from emoedit.models.crops import levels
from emoedit.registry import DEFAULT_EDITOR
from emoedit.types import Edit, EditError, EmoEditError, Inversion


@dataclass(frozen=True)
class Source:
    """What edits start from: a photograph, its faces, and their inversion.

    Args:
        rgb: uint8 ``[H, W, 3]``; of a large photograph, the part around its faces.
        faces: analysis of each of its N faces, in pixels of ``rgb``.
        inversion: inversion of the N aligned crops.
    """

    rgb: np.ndarray
    faces: tuple[FaceAnalysis, ...]
    inversion: Inversion


@dataclass(frozen=True)
class OpenPhoto:
    """A photograph whose faces have been found and inverted, ready for any number of edits.

    Args:
        picture: the pixels and what came with them.
        faces: the N faces to edit, largest first.
        near: the part of the photograph around the faces.
        source: the photograph as it is.
        smiles: smile of each face; None where it has none, or where the editor's compositor closes no smiles.
        relaxed: the photograph without these smiles, for edits that end them; None where there are none, or where none
            of the edits given to ``open`` ends them.
        seconds: duration of reading, detection, analysis and inversion.
    """

    picture: Picture
    faces: tuple[Face, ...]
    near: Nearby
    source: Source
    smiles: tuple[Smile | None, ...]
    relaxed: Source | None
    seconds: float

    @property
    def alignments(self) -> tuple[Alignment, ...]:
        """Alignment of each face's crop, in pixels of ``source.rgb``."""
        return tuple(face.alignment for face in self.source.faces)

    @property
    def inversion(self) -> Inversion:
        """Inversion of the crops of the photograph as it is."""
        return self.source.inversion


@dataclass(frozen=True)
class PhotoEdit:
    """One edited photograph.

    Args:
        image: PIL picture of the photograph's own size, colour profile and metadata in ``.info``.
        original: the photograph.
        faces: the faces that were edited.
        edit: emotion and strength.
        editor: name of the editor.
        seed: seed of the noise an editor draws (one that draws none ignores it).
        seconds: duration of this edit, with its share of a common batch and without reading, detection and inversion.
        notes: notes for the user, such as a mouth that is hidden.
    """

    image: Image.Image
    original: Original
    faces: tuple[Face, ...]
    edit: Edit
    editor: str
    seed: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> Image.Image:
        """The photograph as PIL picture."""
        return self.original.image

    @property
    def face(self) -> Face:
        """The largest edited face."""
        return self.faces[0]

    def _repr_png_(self) -> bytes:
        """What notebooks show: the photograph beside its edit."""
        from emoedit.report.display import photo_edit_png

        return photo_edit_png(self.source, self.image, self.edit)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the picture, in the format of the suffix; a file appears only when it is complete.

        Args:
            path: path of the picture.
            overwrite: whether a file that exists is replaced.

        Raises:
            OutputError: the file exists and ``overwrite`` is not set, or it cannot be written.
        """
        save_picture(self.image, path, overwrite=overwrite)
        return Path(path)


@dataclass(frozen=True)
class _Planned:
    """Which edits start from which source.

    Args:
        reduction: for every edit, how much of a smile is removed, in [0, 1].
        relaxed: for every edit, whether it is drawn from the photograph without its smiles.
    """

    reduction: tuple[float, ...]
    relaxed: tuple[bool, ...]


class PhotoEditor:
    """Detection, alignment and compositing around an editor; built once, used for many photographs.

    Args:
        editor: an [Editor][emoedit.editors.Editor] or the name of one.
        detector: face detector; default: MTCNN, one for each device.
        compositor: how changes are put into photographs: a name, a description, or a
            [Compositor][emoedit.compositing.compositors.Compositor]; default: the editor's own.

    Raises:
        UnknownNameError: no such editor or compositor.
        CheckpointError: a damaged model, or a description of a compositor that makes no sense.
        EditError: a compositor for an editor that redraws whole photographs.
    """

    def __init__(
        self,
        editor: Editor | str = DEFAULT_EDITOR,
        *,
        detector: FaceDetector | None = None,
        compositor: str | Mapping[str, Any] | Compositor | None = None,
    ) -> None:
        self.editor = load_editor(editor) if isinstance(editor, str | os.PathLike) else editor
        self.device = str(self.editor.device)
        self.detector = detector or face_detector(self.device)
        if self.editor.backbone.edits_whole and compositor is not None:
            raise EditError(f"{self.editor.name} redraws whole photographs (whole=true): leave out the compositor")
        self.compositor = _compositor(self.editor.compositor if compositor is None else compositor)

    def open(
        self, photo: Any, face: str | int | Face = "largest", *, seed: int = 0, edits: Sequence[Edit] | None = None
    ) -> OpenPhoto:
        """Read a photograph, find its faces, invert them.

        Args:
            photo: a path, bytes, PIL picture, array or tensor ([load_picture][emoedit.io.images.load_picture]); not
                modified.
            face: ``"largest"``, ``"all"``, an index by size, or a face that was found before (of that photograph).
            seed: seed of the noise an editor draws.
            edits: all edits that will follow, if they are known: what none of them needs is not computed.

        Raises:
            ImageError: the photograph cannot be read.
            NoFaceError: it shows no face, or not that one.
        """
        start = time.perf_counter()
        picture = load_picture(photo)
        faces = [face] if isinstance(face, Face) else self.detector.choose(picture.rgb, face)
        crop = self.editor.backbone.crop
        alignments = [align(found.landmarks, crop) for found in faces]
        near = Nearby.of(picture.rgb, faces, alignments, whole=self.editor.backbone.edits_whole)
        source = self._source(near, seed)
        smiles: tuple[Smile | None, ...] = (None,) * len(faces)
        if self.compositor.closes_smiles:
            smiles = tuple(smile_finder(self.device)(near.rgb, found) for found in source.faces)
        asked = [Edit("neutral")] if edits is None else edits
        wanted = any(smiles) and any(self._reduction(edit) for edit in asked)
        relaxed = self._relaxed(near, source, smiles, seed) if wanted else None
        return OpenPhoto(picture, tuple(faces), near, source, smiles, relaxed, time.perf_counter() - start)

    def _source(self, near: Nearby, seed: int) -> Source:
        """Analyse faces and invert their crops."""
        backbone, rgb = self.editor.backbone, near.rgb
        finders = Finders.on(self.device)
        x, tones = crop_and_normalise(rgb, near.alignments, backbone)
        inversion = self.editor.invert(x, generator=torch.Generator().manual_seed(seed))
        masks = face_masks(backbone.crop)
        faces = [
            analyse(rgb, face, alignment, masks, tone, finders, brightest=near.brightest)
            for face, alignment, tone in zip(near.faces, near.alignments, tones, strict=True)
        ]
        return Source(rgb, tuple(faces), inversion)

    def _relaxed(self, near: Nearby, source: Source, smiles: Sequence[Smile | None], seed: int) -> Source:
        """The photograph without its smiles; what is in front of its faces has not moved."""
        relaxed = self._source(near.with_pixels(_without_smiles(source, smiles, 1.0)), seed)
        faces = zip(relaxed.faces, source.faces, strict=True)
        return replace(relaxed, faces=tuple(replace(face, hidden=was.hidden) for face, was in faces))

    def edit(self, photo: OpenPhoto, edits: Sequence[Edit], *, seed: int = 0) -> Iterator[PhotoEdit]:
        """The photograph with each edit in turn; edits of one source are decoded in common batches.

        Args:
            photo: as ``open`` returned it.
            edits: emotions and strengths. Strength 0 gives the photograph itself, bit for bit.
            seed: seed that is stored with the results.

        Raises:
            UnknownNameError: an emotion that the editor does not know.
            EditError: an edit that makes no sense.
        """
        original, planned = Original(photo.picture), self._plan(photo, edits)
        sources = {False: photo.source}
        if any(planned.relaxed):  # ``photo.relaxed`` is None where it was opened for other edits
            sources[True] = photo.relaxed or self._relaxed(photo.near, photo.source, photo.smiles, seed)
        size = max(1, self.editor.batch_size // len(photo.faces)) if self.editor.batches_edits else 1
        waiting: dict[int, tuple[np.ndarray, float, tuple[str, ...]]] = {}
        for number, edit in enumerate(edits):
            if number not in waiting:
                same = [n for n in range(number, len(edits)) if planned.relaxed[n] == planned.relaxed[number]]
                batch = [n for n in same if n not in waiting][:size]
                source = sources[planned.relaxed[number]]
                waiting.update(self._edit_batch(photo, source, batch, edits, planned))
            rgb, seconds, notes = waiting.pop(number)
            start = time.perf_counter()
            image = photo.picture.to_pil(None if rgb is photo.source.rgb else rgb, photo.near.corner)
            seconds += time.perf_counter() - start
            yield PhotoEdit(image, original, photo.faces, edit, self.editor.name, seed, seconds, notes)
            del image, rgb  # before the next is made: those of 200 megapixels take 800 MB each

    def _plan(self, photo: OpenPhoto, edits: Sequence[Edit]) -> _Planned:
        """Which edit starts from the photograph, and which from the photograph without its smiles."""
        smiling = any(photo.smiles)
        reduction = tuple(self._reduction(edit) if smiling and edit.strength else 0.0 for edit in edits)
        return _Planned(reduction, tuple(amount > 0 for amount in reduction))

    def _reduction(self, edit: Edit) -> float:
        return smile_reduction(edit.emotion, edit.strength, self.editor.emotions)

    def _edit_batch(
        self, photo: OpenPhoto, source: Source, batch: Sequence[int], edits: Sequence[Edit], planned: _Planned
    ) -> Mapping[int, tuple[np.ndarray, float, tuple[str, ...]]]:
        """Number of an edit -> the edited photograph, its duration and notes, for some edits of one source."""
        if self.editor.backbone.edits_whole:
            return edit_whole(self.editor, source.rgb, source.inversion, batch, edits)
        start = time.perf_counter()
        asked = [edits[n] for n in batch]
        first = levels(source.inversion.extras["reconstruction"])
        known = [self.editor.changes(source.inversion, edit) for edit in asked]
        told = not self.compositor.reads_drawings and all(change and change[0].points is not None for change in known)
        drawn = [first] * len(asked)
        if not told:
            drawn = [levels(frame) for frame in self.editor.decode(source.inversion, asked)]
        finders = Finders.on(self.device)
        look: Callable[..., Iterator[Drawing]] = known_drawings if told else partial(read_drawings, finders=finders)
        scenes = []
        for number, face in enumerate(source.faces):
            edited = [frame[number] for frame in drawn]
            changes = [None if change is None else change[number] for change in known]
            read = look(first[number], edited, face.face, face.alignment, known=changes)
            scenes.append([Scene(face, drawing) for drawing in read])
        shared = (time.perf_counter() - start) / len(batch)
        results = {}
        for k, n in enumerate(batch):
            start = time.perf_counter()
            rgb = self._base(photo, source, planned.reduction[n])
            notes: list[str] = []
            for scene in (each[k] for each in scenes) if edits[n].strength else ():
                rgb, said = self.compositor(rgb, scene)
                notes += said
            results[n] = rgb, shared + time.perf_counter() - start, tuple(dict.fromkeys(notes))
        return results

    def _base(self, photo: OpenPhoto, source: Source, reduction: float) -> np.ndarray:
        """The photograph that an edit is put into; the stronger the edit, the less it smiles."""
        return source.rgb if reduction in (0, 1) else _without_smiles(photo.source, photo.smiles, reduction)

    def attempt(self, photo: OpenPhoto, edits: Sequence[Edit], *, seed: int = 0) -> Iterator[PhotoEdit | EmoEditError]:
        """Each edit's result or error. Where a common batch fails, its edits are tried one by one.

        An editor without common batches tries each edit once.

        Args:
            photo: as ``open`` gives it.
            edits: each for all faces.
            seed: seed of the noise that an editor draws.
        """
        done = 0
        try:
            for result in self.edit(photo, edits if self.editor.batches_edits else [], seed=seed):
                done += 1
                yield result
                del result
        except EmoEditError:
            pass  # the loop below finds the edit that fails
        for edit in edits[done:]:
            try:
                yield next(self.edit(photo, [edit], seed=seed))
            except EmoEditError as error:
                yield error


def _compositor(description: str | Mapping[str, Any] | Compositor) -> Compositor:
    return description if isinstance(description, Compositor) else compositor(description)


def _without_smiles(source: Source, smiles: Sequence[Smile | None], amount: float) -> np.ndarray:
    """The photograph with a share of its smiles removed, uint8 ``[H, W, 3]``."""
    rgb = source.rgb
    for face, smile in zip(source.faces, smiles, strict=True):
        if smile is not None:
            rgb = relax(rgb, face, smile, amount)
    return rgb


def edit(
    photo: Any,
    emotion: str = "happy",
    *,
    editor: str | os.PathLike[str] | Editor | PhotoEditor = DEFAULT_EDITOR,
    strength: float = 1.0,
    face: str | int = "largest",
    seed: int = 0,
    min_identity: float | None = None,
    device: str | None = None,
    compositor: str | Mapping[str, Any] | Compositor | None = None,
) -> PhotoEdit:
    """Change the emotion a face shows in a photograph.

    Args:
        photo: a path, bytes, PIL picture, array or tensor.
        emotion: a name or algebra on names (``"happy - 0.4*surprised"``).
        editor: a name, or what [load_editor][emoedit.editors.load_editor] returned (loaded once, used for many
            photographs).
        strength: 0 the photograph itself, 1 the fitted effect.
        face: ``"largest"``, ``"all"``, or an index by size.
        seed: seed of the noise an editor draws.
        min_identity: weaken the edit until this much of the person is kept ([emoedit.guard][]); the result's ``edit``
            has the strength that was used.
        device: where an editor that is given by name computes: ``"auto"``, ``"cpu"``, ``"mps"``, ``"cuda"`` or
            ``"cuda:1"``; default: auto.
        compositor: how changes are put into the photograph, as for [PhotoEditor][emoedit.photo.PhotoEditor]; default:
            the editor's own.

    Raises:
        ImageError: the photograph cannot be read.
        NoFaceError: it shows no face, or not that one.
        UnknownNameError: no such editor, emotion or compositor.
        EditError: an edit that makes no sense; a device for an editor that is loaded already; a compositor for a
            ``PhotoEditor``, which has one; a device that is not there.
        CheckpointError: the editor's files are damaged; a description of a compositor that makes no sense.
    """
    edits = [Edit(emotion, strength)]
    photo_editor = _photo_editor(editor, device, compositor)
    guard = None
    if min_identity is not None:
        from emoedit.guard import IdentityGuard

        guard = IdentityGuard(photo_editor, min_identity)
    opened = photo_editor.open(photo, face, seed=seed, edits=edits)
    if guard is not None:
        edits = guard.limit(opened, edits, seed=seed)
    return next(photo_editor.edit(opened, edits, seed=seed))


def _photo_editor(
    editor: str | os.PathLike[str] | Editor | PhotoEditor,
    device: str | None,
    compositor: str | Mapping[str, Any] | Compositor | None,
) -> PhotoEditor:
    """The editor for ``edit``.

    Raises:
        EditError: a device or compositor for an editor that has one.
    """
    if isinstance(editor, str | os.PathLike):
        return PhotoEditor(load_editor(editor, device=device or "auto"), compositor=compositor)
    if device is not None:
        raise EditError(
            f"device is for an editor that is given by name; this one is loaded and computes on {editor.device}: leave "
            f"device out, or load it there, load_editor(NAME, device={device!r})"
        )
    if not isinstance(editor, PhotoEditor):
        return PhotoEditor(editor, compositor=compositor)
    if compositor is not None:
        raise EditError(
            "a PhotoEditor has its compositor; leave it out, or build one with it: PhotoEditor(editor, compositor=...)"
        )
    return editor

"""What scripts that reproduce published figures and tables share.

People that may be shown, editors that may not be here yet, and the page that each script writes its own section of.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from emoedit.editors import Editor, choose_device, list_editors, load_editor
from emoedit.evaluation.cases import Case, read_cases
from emoedit.faces.detect import FaceDetector
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io import checkpoints
from emoedit.io.images import save_picture, write_atomic
from emoedit.models.luminance import in_luminance
from emoedit.report.grid import labelled_grid
from emoedit.report.html import printable
from emoedit.types import CheckpointError, DataError, EditError, EmoEditError, UnknownNameError
from lib.instantiate import instantiate
from lib.sections import write_section

if TYPE_CHECKING:
    from emoedit.models.ddpm.backbone import DDPMBackbone
    from emoedit.models.ddpm.config import DDPMConfig

ORDER = ("seed-report", "asyrp", "ffe-bench", "prompt-study", "vaha")
HEAD = """# Reproductions

Published figures and tables, made again. Every section is written by one script, which replaces nothing else on this
page; no number or picture here was typed or chosen by hand. How to run them, with these models or with full-size ones,
is in [experiments.md](experiments.md#reproductions).

The photograph is a portrait of the astronaut Eileen Collins (NASA, public domain); *drawn people* are samples of the
embedded diffusion model and do not exist."""
DRAWN, SIDE = "drawn", 384  # what drawn people are called; the side in pixels they are enlarged to
QUIET, SURE, FRONTAL = 0.85, 0.99, 0.15  # of drawn people: size of the noise, the detector's confidence, yaw
BATCH = 16


class MissingEditorError(EmoEditError):
    """An editor that is not here (yet): what to print in its place."""


def open_editor(described: str | Mapping[str, Any], *, device: str = "cpu") -> Editor:
    """An editor by name, folder or ``owner/name``, or by a mapping with a ``_target_`` of this package.

    Raises:
        MissingEditorError: a name that no embedded editor has (yet), or a file or folder that is not here.
        CheckpointError: an embedded editor that is damaged.
        TargetError: a ``_target_`` that is not this package's.
    """
    here = (*list_editors(), *checkpoints.reference_names())
    if isinstance(described, str):
        if described in here:
            return load_editor(described, device=device)
        bare = "/" not in described and os.sep not in described and not Path(described).expanduser().exists()
        if bare:
            raise MissingEditorError(f"not there yet (no embedded editor is called {described!r})")
    try:
        editor = load_editor(described, device=device) if isinstance(described, str) else instantiate(described)
    except (CheckpointError, UnknownNameError) as error:
        raise MissingEditorError(f"not here: {error}") from error
    if not isinstance(editor, Editor):
        raise EditError(f"{described!r:.80} makes a {type(editor).__name__}, not an editor")
    return editor.to(choose_device(device))


# People


def portrait() -> np.ndarray:
    """The photograph that docs may show, uint8 ``[512, 512, 3]``: the astronaut Eileen Collins (NASA)."""
    from skimage.data import astronaut

    return astronaut()


def draw_people(
    backbone: DDPMBackbone, count: int, *, seed: int = 0, candidates: int = 6, detector: FaceDetector | None = None
) -> list[np.ndarray]:
    """People who do not exist, as neutral as a model draws them.

    Drawn from noise that is a little smaller than the model's own (``QUIET``), which gives more ordinary faces, and
    without the grid that a U-Net of squares of pixels leaves. Of ``candidates`` times as many samples those are kept in
    which the detector is sure of a frontal face, and of these the ones that the embedded recogniser takes for neutral
    most.

    Returns:
        ``count`` pictures, uint8 ``[SIDE, SIDE, 3]``.

    Raises:
        EditError: fewer than ``count`` samples show a face.
    """
    detector = detector or FaceDetector(min_confidence=SURE)
    recogniser = EmbeddedNetwork.load("expression")
    neutral = list(recogniser.emotions).index("neutral")
    generator = torch.Generator().manual_seed(seed)
    config = cast("DDPMConfig", backbone.config)
    found: list[tuple[float, int, np.ndarray]] = []
    for start in range(0, candidates * count, BATCH):
        size = min(BATCH, candidates * count - start)
        x = without_grid(backbone.sample(generator, size, spread=QUIET).float(), config.patch)
        if config.std is not None:  # a model that normalises draws no colour that a photograph has
            x = in_luminance(x)
        levels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        for crop in levels:
            small = Image.fromarray(crop[..., 0] if crop.shape[-1] == 1 else crop).convert("RGB")
            photo = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            faces = [face for face in detector(photo) if face.area > 0.1 * SIDE**2 and abs(face.yaw) < FRONTAL]
            if faces:
                score = float(recogniser.scores(recogniser.faces(photo, faces[0])[None])[0, neutral])
                found.append((score, len(found), photo))
    if len(found) < count:
        raise EditError(f"the detector sees a face in {len(found)} of {candidates * count} samples; {count} are wanted")
    found.sort(key=lambda each: (-each[0], each[1]))
    return [photo for _, _, photo in found[:count]]


def without_grid(x: Tensor, side: int) -> Tensor:
    """Pictures ``[N, C, H, W]`` without what repeats every ``side`` pixels.

    Two box filters of that width, the second from the other side, so that nothing moves. For a side of 1 the pictures
    themselves.
    """
    for _ in range(2 if side > 1 else 0):
        x = F.avg_pool2d(F.pad(x, [0, side - 1] * 2, "replicate"), side, 1).flip(-1, -2)
    return x


def people(where: str, count: int, work: Path, *, backbone: DDPMBackbone | None = None, seed: int = 0) -> list[Case]:
    """Photographs to edit.

    Args:
        where: ``"drawn"``: ``draw_people``, drawn once and kept in ``work``; else a folder (``read_cases``), of which
            pictures marked ``test`` are taken where it marks any.
        count: the first so many.
        work: folder for intermediate files.
        backbone: what draws; needed for ``"drawn"`` when they are not in ``work`` yet.
        seed: seed of the noise that an editor draws.

    Raises:
        DataError: no such folder; drawn people without anything that draws them.
        EditError: too few samples show a face.
    """
    if where != DRAWN:
        try:
            return read_cases(where, split="test")[:count]
        except DataError:  # no csv that says so: all are meant
            return read_cases(where)[:count]
    folder = work / f"{DRAWN}-{seed}-{count}"
    if not folder.is_dir():
        if backbone is None:
            raise DataError(f"nothing here can draw people; give a folder of photographs instead of {DRAWN!r}")
        with checkpoints.new_folder(folder) as new:
            for number, photo in enumerate(draw_people(backbone, count, seed=seed)):
                save_picture(Image.fromarray(photo), new / f"{number}.png")
    return read_cases(folder)


# The page


@dataclass(frozen=True)
class Page:
    """A page of sections and the folder of its pictures.

    Args:
        path: path of the page.
        images: folder.
        section: the name of the one that is written.
    """

    path: Path
    images: Path
    section: str

    def write(self, text: str) -> None:
        """Replace the section (``lib.sections.write_section``)."""
        write_section(self.path, self.section, text, head=HEAD, order=ORDER)
        print(f"wrote section {self.section} of {self.path}")

    def grid(self, name: str, cells: Sequence[tuple[str, Image.Image]], *, columns: int, cell: int = 150) -> str:
        """Save a labelled grid as a JPEG named after the section; returns its line of Markdown."""
        sheet = labelled_grid([image for _, image in cells], [label for label, _ in cells], columns=columns, cell=cell)
        path = self.images / f"{self.section}-{name}.jpg"
        save_picture(sheet, path, overwrite=True, quality=82)
        return self._link(name, path)

    def drawing(self, name: str, svg: str) -> str:
        """Save an SVG named after the section; returns its line of Markdown."""
        path = self.images / f"{self.section}-{name}.svg"
        write_atomic(path, lambda file: file.write(svg.encode()), overwrite=True)
        return self._link(name, path)

    def _link(self, name: str, path: Path) -> str:
        where = os.path.relpath(path.resolve(), self.path.resolve().parent)
        return f"![{name}]({Path(where).as_posix()})"


def table(header: Sequence[str], rows: Collection[Sequence[Any]]) -> str:
    """Markdown: floats with two digits, a dash for what is not known, words on one line."""
    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any, digits: int = 2) -> str:
    """One cell of ``table``."""
    if value is None or isinstance(value, float) and np.isnan(value):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}f}"
    return printable(" ".join(str(value).split())).replace("|", "\\|")

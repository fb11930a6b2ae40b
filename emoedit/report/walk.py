"""A walk from one strength to another: the same face, edited little by little, as an animation or a strip.

One inversion serves all of it, whatever the editor.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from emoedit.io.images import SUFFIXES, save_picture, write_atomic
from emoedit.report.display import to_srgb
from emoedit.report.grid import labelled_grid
from emoedit.types import Edit, EditError, MissingExtraError, OutputError

if TYPE_CHECKING:
    from emoedit.photo import PhotoEditor

ANIMATIONS = (".gif", ".mp4")
STRIP_COLUMNS, STRIP_CELL = 8, 256
SHORTEST = 20  # milliseconds: browsers show frames with shorter delays ten times as long
MOST_FRAMES = 1000


@dataclass(frozen=True)
class Walk:
    """The frames of a walk.

    Args:
        frames: RGB in sRGB, all of one size.
        edits: edit of each frame.
    """

    frames: tuple[Image.Image, ...]
    edits: tuple[Edit, ...]

    def save(
        self, path: str | os.PathLike[str], *, seconds: float = 2.0, back: bool = True, overwrite: bool = False
    ) -> Path:
        """Write an animation (``.gif``, ``.mp4``), or all frames side by side (the suffixes of pictures).

        Args:
            path: path of the file.
            seconds: duration from the first frame to the last.
            back: whether an animation also plays in reverse.
            overwrite: whether a file that exists is replaced.

        Raises:
            OutputError: another suffix; it exists and ``overwrite`` is not set; it cannot be written.
            MissingExtraError: ``.mp4`` without PyAV.
            EditError: seconds that are not above 0.
        """
        if not 0 < seconds < float("inf"):
            raise EditError(f"a walk takes more than 0 seconds, not {seconds!r}")
        suffix = check_suffix(path)
        if suffix not in ANIMATIONS:
            labels = [f"{edit.strength:g}" for edit in self.edits]
            cell = min(STRIP_CELL, max(self.frames[0].size))
            strip = labelled_grid(self.frames, labels, columns=STRIP_COLUMNS, cell=max(16, cell))
            save_picture(strip, path, overwrite=overwrite)
            return Path(path)
        shown = [*self.frames, *self.frames[-2:0:-1]] if back else list(self.frames)
        pause = seconds / max(1, len(self.frames) - 1)
        encode = encode_gif if suffix == ".gif" else encode_mp4
        data = encode(shown, pause)
        write_atomic(path, lambda file: file.write(data), overwrite=overwrite)
        return Path(path)


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file that a walk can be saved as, in lower case.

    Args:
        path: path of the result.

    Raises:
        OutputError: another one.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in ANIMATIONS and suffix not in SUFFIXES:
        raise OutputError(
            f"{os.fspath(path)}: the name of a walk ends in {' or '.join(ANIMATIONS)} (an animation), or in one of "
            f"{', '.join(SUFFIXES)} (a strip)"
        )
    return suffix


def check_encoder(suffix: str) -> None:
    """Refuse what cannot be encoded here, before anything is computed.

    Args:
        suffix: suffix of the file, in lower case.

    Raises:
        MissingExtraError: ``.mp4`` without PyAV.
    """
    if suffix == ".mp4" and find_spec("av") is None:
        raise MissingExtraError("av", "video")


def even_strengths(first: float, last: float, count: int) -> list[float]:
    """``count`` strengths from ``first`` to ``last``, evenly.

    Raises:
        EditError: fewer than two or more than ``MOST_FRAMES``, or from a strength to itself.
    """
    if not 2 <= count <= MOST_FRAMES:
        raise EditError(f"a walk has 2 to {MOST_FRAMES} frames, not {count}")
    if first == last:
        raise EditError(f"a walk goes from one strength to another, not from {first:g} to {last:g}")
    # Rounded, so that a walk through 0 shows the photograph itself there.
    return [round(float(v), 6) + 0.0 for v in np.linspace(first, last, count)]


def walk(
    photos: PhotoEditor,
    photo: Any,
    emotion: str = "happy",
    strengths: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5),
    *,
    longest: int | None = None,
    seed: int = 0,
    callback: Callable[[int, int], None] | None = None,
) -> Walk:
    """Edit a face at many strengths, from one inversion.

    Args:
        photos: the editor with all around it.
        photo: what ``PhotoEditor.open`` gave, or what it takes.
        emotion: a name or algebra on names.
        strengths: strengths of the frames, in their order.
        longest: longest side of the frames in pixels, where the photograph is larger; None for the photograph's own.
        seed: random seed, for editors that draw noise.
        callback: called with (frames done, frames in all).

    Raises:
        ImageError: the picture cannot be read or has another shape.
        NoFaceError: there is no such face.
        UnknownNameError: a name that does not exist.
        EditError: no strength, or one that makes no sense.
    """
    from emoedit.photo import OpenPhoto

    edits = tuple(Edit(emotion, strength) for strength in strengths)
    if not edits:
        raise EditError("a walk needs at least one strength")
    opened = photo if isinstance(photo, OpenPhoto) else photos.open(photo, seed=seed)
    frames = []
    for result in photos.edit(opened, edits, seed=seed):
        image = to_srgb(result.image)
        if longest is not None:
            image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        frames.append(image)
        if callback is not None:
            callback(len(frames), len(edits))
    return Walk(tuple(frames), edits)


def encode_gif(frames: Sequence[Image.Image], pause: float) -> bytes:
    """A GIF that repeats for ever.

    All frames share one palette, and what does not change keeps its dots: else a still background would flicker.

    Args:
        frames: RGB, of one size.
        pause: seconds between two.
    """
    picked = [frames[k] for k in sorted({0, len(frames) // 2, len(frames) - 1})]
    sample = np.concatenate([np.asarray(frame) for frame in picked])
    palette = Image.fromarray(sample).quantize(256, method=Image.Quantize.MEDIANCUT)
    still = np.asarray(frames[0])
    dotted = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    first = np.asarray(dotted[0])
    pages = []
    for frame, page in zip(frames, dotted, strict=True):
        same = (np.asarray(frame) == still).all(2)
        pages.append(Image.fromarray(np.where(same, first, np.asarray(page))))
        pages[-1].putpalette(palette.getpalette() or [])
    buffer = io.BytesIO()
    duration = max(SHORTEST, 10 * round(100 * pause))  # GIF counts hundredths of a second
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=duration, loop=0, optimize=False)
    return buffer.getvalue()


def encode_mp4(frames: Sequence[Image.Image], pause: float) -> bytes:
    """H.264 in MP4, as browsers play it; sides are made even by repeating a border.

    Args:
        frames: RGB, of one size.
        pause: seconds between two.

    Raises:
        MissingExtraError: PyAV is not installed.
        OutputError: this build of it cannot encode H.264.
    """
    check_encoder(".mp4")
    import av

    width, height = frames[0].size
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(1 / pause).limit_denominator(1000))
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
            for frame in frames:
                pixels = np.pad(np.asarray(frame), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(f"the video cannot be encoded as H.264: {error}") from error
    return buffer.getvalue()

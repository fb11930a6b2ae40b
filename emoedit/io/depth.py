"""Photographs of more than eight bits: read as they are, and written back with the edit's change added to them.

Models see eight bits. What they change is a difference of eight bits, too. It is added to the sixteen-bit or floating
pixels: those that an edit leaves alone are bit for bit the photograph's, and the changed ones keep the fine tones
between two levels.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from emoedit.types import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL import Image

_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
STRIP = 256  # rows that are worked on at once
FLOAT_SLACK = 1e-3  # a quarter of a grey level: overshoot of resampling outside 0..1


@dataclass(frozen=True, eq=False)
class DeepPixels:
    """The pixels of a photograph in more than eight bits.

    Args:
        values: ``[H, W, 3]``, uint16 (0 to 65,535) or float32 (0 to 1); read-only.
        alpha: ``[H, W]`` of the same type, or None.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None

    def __post_init__(self) -> None:
        for part in (self.values, self.alpha):
            if part is not None:
                part.setflags(write=False)

    def turned(self, turn: Image.Transpose) -> DeepPixels:
        """The pixels turned as PIL's ``transpose`` turns a picture.

        Args:
            turn: a ``PIL.Image.Transpose``.
        """
        alpha = None if self.alpha is None else np.ascontiguousarray(turned(self.alpha, turn))
        return DeepPixels(np.ascontiguousarray(turned(self.values, turn)), alpha)

    def edited(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The pixels with the change between two pictures added.

        Args:
            before: uint8 ``[H, W, 3]``: the photograph in eight bits.
            after: the same, edited.

        Returns:
            ``[H, W, 3]`` of the type of ``values``; bit for bit the photograph's where ``before`` equals ``after``.
        """
        out = self.values.copy()
        rows = np.flatnonzero((before != after).any((1, 2)))
        if not rows.size:
            return out
        band = slice(int(rows[0]), int(rows[-1]) + 1)
        columns = np.flatnonzero((before[band] != after[band]).any((0, 2)))
        window = band, slice(int(columns[0]), int(columns[-1]) + 1)
        change = after[window].astype(np.int32) - before[window]
        if out.dtype == np.uint16:
            out[window] = np.clip(out[window] + 257 * change, 0, 65_535)
        else:
            moved = np.clip(out[window] + change.astype(np.float32) / 255, 0, 1)
            out[window] = np.where(change == 0, out[window], moved)
        return out


def turned(pixels: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    """A view of pixels ``[H, W]`` or ``[H, W, C]``, turned as PIL's ``transpose`` turns a picture.

    Args:
        pixels: ``[H, W]`` or ``[H, W, C]``.
        turn: a ``PIL.Image.Transpose``.
    """
    from PIL import Image

    turns = {
        Image.Transpose.FLIP_LEFT_RIGHT: lambda x: x[:, ::-1],
        Image.Transpose.FLIP_TOP_BOTTOM: lambda x: x[::-1],
        Image.Transpose.ROTATE_90: lambda x: np.rot90(x, 1),
        Image.Transpose.ROTATE_180: lambda x: np.rot90(x, 2),
        Image.Transpose.ROTATE_270: lambda x: np.rot90(x, 3),
        Image.Transpose.TRANSPOSE: lambda x: x.swapaxes(0, 1),
        Image.Transpose.TRANSVERSE: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    }
    return turns[turn](pixels)


def to_uint8(values: np.ndarray, label: str) -> np.ndarray:
    """Any supported kind of number as 0..255, rounded to the nearest level.

    Args:
        values: uint8, uint16 (full range), bool, or float in 0..1.
        label: names the picture in errors.

    Raises:
        ImageError: another kind or range.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _by_strips(values, lambda part: (part.astype(np.uint32) + 128) // 257)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK):  # also when either is NaN
            raise ImageError(
                f"{label} holds floats {low:g}..{high:g}, and 0..1 is expected: rescale -1..1 by (x + 1) / 2, "
                "0..255 by x / 255"
            )
        return _by_strips(values, lambda part: np.rint(part.astype(np.float32) * 255))
    raise ImageError(f"{label} holds {values.dtype}; uint8, uint16, bool, or float in 0..1 is expected")


def _by_strips(values: np.ndarray, levels: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What a function makes of rows, uint8: at once, its wider numbers would take many times the picture."""
    made = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), STRIP):
        made[top : top + STRIP] = levels(values[top : top + STRIP])
    return made


# --- reading --------------------------------------------------------------------------------------------------------


def read_deep(stream: BinaryIO, label: str, max_pixels: int) -> np.ndarray | None:
    """The pixels of a PNG or TIFF of more than eight bits, as the file has them.

    Args:
        stream: the file, which is read from its start and put back there.
        label: names the picture in errors.
        max_pixels: a larger picture is refused from its header.

    Returns:
        ``[H, W]`` or ``[H, W, 2 | 3 | 4]``, uint16 or float32; None for every other file.

    Raises:
        ImageError: too large, or damaged behind its header.
    """
    stream.seek(0)
    head = stream.read(32)
    stream.seek(0)
    try:
        if head.startswith(_PNG_HEAD):
            return _read_png(stream, label) if head[24:25] == b"\x10" else None
        if head[:4] in _TIFF_HEADS:
            return _read_tiff(stream, label, max_pixels)
        return None
    finally:
        stream.seek(0)


def _read_png(stream: BinaryIO, label: str) -> np.ndarray:
    found = _decoded(stream.read())
    if found is None or found.dtype != np.uint16:
        raise ImageError(f"{label} is damaged or truncated: its 16-bit pixels cannot be read")
    return found


def _decoded(data: bytes) -> np.ndarray | None:
    """What OpenCV makes of a file: ``[H, W]`` or RGB(A)."""
    import cv2

    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if found is not None and found.ndim == 3 and found.shape[2] >= 3:
        order = cv2.COLOR_BGR2RGB if found.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        if found.dtype == np.float64:
            return np.ascontiguousarray(found[..., [2, 1, 0, 3][: found.shape[2]]])
        return cv2.cvtColor(found, order, found)
    return found


def _read_tiff(stream: BinaryIO, label: str, max_pixels: int) -> np.ndarray | None:
    import tifffile

    try:
        with tifffile.TiffFile(stream) as file:
            page = file.pages.first
            kind, bits = page.sampleformat, page.bitspersample
            is_float = kind == tifffile.SAMPLEFORMAT.IEEEFP and bits in (16, 32, 64)
            if not is_float and not (kind == tifffile.SAMPLEFORMAT.UINT and bits == 16):
                return None
            if page.photometric not in (0, 1, 2) or page.samplesperpixel > 4 or page.imagedepth != 1:
                return None  # palettes, CMYK, Lab: other readers translate their colours
            if page.imagelength * page.imagewidth > max_pixels:
                return None  # other readers refuse it with a message
            inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            found: np.ndarray | None
            try:
                found = page.asarray()
                found = np.moveaxis(found, 0, -1) if page.planarconfig == 2 and found.ndim == 3 else found
            except (ValueError, RuntimeError):  # LZW and others need a further package there, and none here
                stream.seek(0)
                found = _decoded(stream.read())
            if found is None or found.shape[:2] != (page.imagelength, page.imagewidth):
                raise ImageError(f"{label} is damaged or truncated: its {bits}-bit pixels cannot be read")
            found = found if found.dtype == np.uint16 else found.astype(np.float32)
            return (65_535 if found.dtype == np.uint16 else 1.0) - found if inverted else found
    except ImageError:
        raise
    except Exception as error:  # decoders fail on hostile files in every way there is
        raise ImageError(f"{label} is damaged or truncated: {str(error)[:200]}") from error


def separate(found: np.ndarray, label: str) -> DeepPixels:
    """Colours and alpha of what ``read_deep`` gives.

    Args:
        found: ``[H, W]`` or ``[H, W, C]``.
        label: name of the file in messages.

    Raises:
        ImageError: floats outside of 0..1.
    """
    pixels = found[..., None] if found.ndim == 2 else found
    if pixels.dtype == np.float32:
        to_uint8(pixels[::7, ::7], label)  # a cheap look first, and the whole below
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK):
            to_uint8(pixels, label)
    channels = pixels.shape[2]
    alpha = np.ascontiguousarray(pixels[..., -1]) if channels in (2, 4) else None
    colours = np.repeat(pixels[..., :1], 3, 2) if channels < 3 else pixels[..., :3]
    return DeepPixels(np.ascontiguousarray(colours), alpha)


# --- writing --------------------------------------------------------------------------------------------------------


def write_png(
    pixels: np.ndarray, alpha: np.ndarray | None, *, dpi: tuple[float, float] | None, profile: bytes | None,
    exif: bytes | None, texts: Mapping[str, str],
) -> bytes:  # fmt: skip
    r"""A 16-bit PNG, which Pillow does not write.

    Args:
        pixels: uint16 ``[H, W, 3]``.
        alpha: uint16 ``[H, W]`` or None.
        dpi: dots per inch, across and down.
        profile: ICC.
        exif: with or without ``Exif\0\0`` before it.
        texts: keyword -> text, as international text.

    Raises:
        ValueError: OpenCV cannot encode the pixels.
    """
    import cv2

    bgr = pixels[..., ::-1] if alpha is None else np.dstack([pixels[..., ::-1], alpha])
    done, data = cv2.imencode(".png", np.ascontiguousarray(bgr))
    if not done:
        raise ValueError("the PNG encoder gave nothing")
    encoded = data.tobytes()
    chunks = []
    if profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(each / 0.0254) for each in dpi), 1)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    for name, text in texts.items():
        chunks.append((b"iTXt", name.encode("latin-1", "replace") + b"\0\0\0\0\0" + text.encode()))
    inserted = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return encoded[:33] + inserted + encoded[33:]  # behind the header: signature 8 and IHDR 25 bytes


def write_tiff(
    pixels: np.ndarray, alpha: np.ndarray | None, *, dpi: tuple[float, float] | None, profile: bytes | None,
    tags: Mapping[int, bytes | str],
) -> bytes:  # fmt: skip
    """A 16-bit or floating-point TIFF, which Pillow does not write in colour.

    Args:
        pixels: uint16 or float32 ``[H, W, 3]``.
        alpha: ``[H, W]`` of the same type, or None.
        dpi: dots per inch, across and down.
        profile: ICC.
        tags: number -> bytes or text of further tags.
    """
    import tifffile

    types = {str: 2, bytes: 7}
    extra = [(tag, types[type(value)], len(value), value, True) for tag, value in tags.items()]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels if alpha is None else np.dstack([pixels, alpha]),
        photometric="rgb",
        extrasamples=None if alpha is None else ["unassalpha"],
        compression="zlib",
        metadata=None,
        software=False,
        resolution=dpi,
        resolutionunit="INCH" if dpi else None,
        iccprofile=profile,
        extratags=extra,
    )
    return buffer.getvalue()

"""A picture into a file: the format by its suffix, with what the photograph said of itself, and the mark of an edit."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from emoedit.io.depth import write_png, write_tiff
from emoedit.io.metadata import IPTC_TAG, iptc_segment, mark_edited
from emoedit.io.output import SUFFIXES, write_atomic
from emoedit.types import OutputError

_JPEG_SEGMENT = 65_533  # bytes: a JPEG marker counts its own two length bytes in 16 bits
_XMP_OVERHEAD = 29  # bytes before an XMP packet in its segment
_XMP_TAG = 700  # of TIFF
_EXIF_TEXTS = {270: "ImageDescription", 271: "Make", 272: "Model", 306: "DateTime", 315: "Artist", 33432: "Copyright"}


def save_picture(
    image: Image.Image,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    quality: int = 95,
    mark: bool = True,
    signed: Callable[[bytes | memoryview, str], bytes] | None = None,
) -> None:
    """Writes a picture in the format that the suffix names, with what its ``.info`` says of it.

    Kept are the ICC profile, EXIF, resolution, XMP, IPTC and comments as far as the format has room; what is left out
    is said in a warning. A photograph of 16 bits goes into PNG and TIFF in 16 bits, one of floats into TIFF in floats.
    JPEG has no transparency: there the picture is laid on white.

    Args:
        image: PIL picture of a mode that the format can hold (RGB, RGBA and L always are); ``Picture.to_pil`` fills
            ``.info``.
        path: ends in .png, .jpg, .jpeg, .webp, .tif or .tiff; ``~`` is expanded.
        overwrite: whether an existing file may be replaced.
        quality: 1 to 100, of JPEG (without chroma subsampling) and WebP; PNG and TIFF are lossless.
        mark: whether an edited picture says so in its XMP (``emoedit.io.metadata.mark_edited``).
        signed: what makes of the encoded file and its format the one that is written (``emoedit.io.provenance.sign``).

    Raises:
        OutputError: another suffix, a picture that the format cannot hold, or whatever ``write_atomic`` meets.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise OutputError(f"{path}: the format {suffix!r} is not known; end the name in one of {', '.join(SUFFIXES)}")
    data: bytes | memoryview = encode_picture(image, SUFFIXES[suffix], quality=quality, mark=mark, label=str(path))
    if signed is not None:
        data = signed(data, SUFFIXES[suffix])

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_atomic(path, write, overwrite=overwrite)


def encode_picture(
    image: Image.Image, kind: str, *, quality: int = 95, mark: bool = True, label: str = "the picture"
) -> memoryview:
    """The file that ``save_picture`` writes, in memory.

    Pillow's encoders write past Python to a file, and then a full disk has no readable reason.

    Args:
        image: see ``save_picture``.
        kind: ``PNG``, ``JPEG``, ``WEBP`` or ``TIFF``.
        quality: see ``save_picture``.
        mark: see ``save_picture``.
        label: names the file in errors and warnings.

    Raises:
        OutputError: a picture that the format cannot hold.
    """
    info: dict[str, Any] = {str(key): value for key, value in image.info.items()}
    if mark and info.get("emoedit_edited"):
        info["xmp"] = mark_edited(info.get("xmp"))
    try:
        deep = _deep_pixels(image, kind, label)
        if deep is not None:
            return memoryview(_encode_deep(*deep, kind, info, label))
        buffer = io.BytesIO()
        (_on_white(image) if kind == "JPEG" else image).save(buffer, kind, **_options(kind, info, quality, label))
    except Exception as error:  # OSError, ValueError, struct.error, RuntimeError: each encoder has its own
        raise OutputError(f"{label} cannot be written as {kind}: {error}") from error
    return buffer.getbuffer()


# --- what each format holds -----------------------------------------------------------------------------------------


def _lost(label: str, what: str, why: str) -> None:
    warnings.warn(f"{label}: {what} of the photo {why} and is left out", stacklevel=5)


def _options(kind: str, info: dict[str, Any], quality: int, label: str) -> dict[str, Any]:
    """The arguments of Pillow's ``save``."""
    options: dict[str, Any] = {key: info[key] for key in ("icc_profile", "exif") if info.get(key)}
    if kind in ("JPEG", "WEBP"):
        options["quality"] = quality
    if info.get("dpi") and kind != "WEBP":
        options["dpi"] = info["dpi"]
    if kind == "JPEG":
        _jpeg_options(options, info, label)
    elif kind == "WEBP":
        if info.get("xmp"):
            options["xmp"] = info["xmp"]
    elif kind == "PNG":
        options["pnginfo"] = pnginfo = PngInfo()
        for name, text in _png_texts(info).items():
            pnginfo.add_itxt(name, text)
    else:
        options["exif"] = tags = Image.Exif()  # all of a TIFF's tags go this way
        if info.get("exif"):
            tags.load(info["exif"])
        tags.update({tag: info[key] for tag, key in ((_XMP_TAG, "xmp"), (IPTC_TAG, "iptc")) if info.get(key)})
    if info.get("iptc") and kind in ("PNG", "WEBP"):
        _lost(label, "the IPTC block", f"has no place in {kind}")
    return options


def _jpeg_options(options: dict[str, Any], info: dict[str, Any], label: str) -> None:
    options["subsampling"] = 0
    if len(options.get("exif", b"")) > _JPEG_SEGMENT:
        _lost(label, "the EXIF", "is too large for a JPEG")
        del options["exif"]
    xmp = info.get("xmp")
    if xmp and len(xmp) > _JPEG_SEGMENT - _XMP_OVERHEAD:
        _lost(label, "the XMP", "is too large for a JPEG")
        xmp = mark_edited(None) if info.get("emoedit_edited") else None
    if xmp:
        options["xmp"] = xmp
    comment = (info.get("texts") or {}).get("Comment", "").encode()
    if comment and len(comment) <= _JPEG_SEGMENT:
        options["comment"] = comment
    if info.get("iptc"):
        segment = iptc_segment(info["iptc"])
        if segment:
            options["extra"] = segment
        else:
            _lost(label, "the IPTC block", "is too large for a JPEG")


def _png_texts(info: dict[str, Any]) -> dict[str, str]:
    texts = {str(name): str(text) for name, text in (info.get("texts") or {}).items()}
    if info.get("xmp"):
        texts["XML:com.adobe.xmp"] = bytes(info["xmp"]).decode("utf-8", "replace")
    return texts


def _on_white(image: Image.Image) -> Image.Image:
    """The picture in a mode that JPEG has."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.copy().convert("RGBA"))
        return white.convert("RGB")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


# --- more than eight bits -------------------------------------------------------------------------------------------


def _deep_pixels(image: Image.Image, kind: str, label: str) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Pixels and alpha in the photograph's own depth, where it has more than 8 bits and the format holds them."""
    photo = image.info.get("emoedit_photo")
    if photo is None or image.mode not in ("RGB", "RGBA") or image.size != photo.rgb.shape[1::-1]:
        return None  # cut or reduced after the edit: the deep pixels are those of another picture
    floats = photo.deep.values.dtype != np.uint16
    if kind not in ("PNG", "TIFF") or (floats and kind == "PNG"):
        bits, better = ("floating-point pixels", "TIFF") if floats else ("16 bits a colour", "PNG or TIFF")
        warnings.warn(f"{label}: the photo has {bits}, of which {kind} keeps 8; {better} keeps them", stacklevel=4)
        return None
    after = np.asarray(image)
    return photo.deep.edited(photo.rgb, after[..., :3]), photo.deep.alpha


def _encode_deep(pixels: np.ndarray, alpha: np.ndarray | None, kind: str, info: dict[str, Any], label: str) -> bytes:
    dpi, profile, exif = info.get("dpi"), info.get("icc_profile"), info.get("exif")
    if kind == "PNG":
        if info.get("iptc"):
            _lost(label, "the IPTC block", "has no place in PNG")
        return write_png(pixels, alpha, dpi=dpi, profile=profile, exif=exif, texts=_png_texts(info))
    tags: dict[int, bytes | str] = {}
    if exif:
        block = Image.Exif()
        block.load(exif)
        tags |= {tag: str(block[tag]) for tag in _EXIF_TEXTS if tag in block}
        if any(block.get_ifd(folder) for folder in (0x8769, 0x8825)):
            _lost(label, "the part of the EXIF that tells of camera and place", "has no place in a 16-bit TIFF")
    for tag, value in ((_XMP_TAG, info.get("xmp")), (IPTC_TAG, info.get("iptc"))):
        if value:
            tags[tag] = bytes(value)
    return write_tiff(pixels, alpha, dpi=dpi, profile=profile, tags=tags)

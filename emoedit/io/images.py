"""Any picture in, a finished file out: nothing half-read, nothing half-written.

What is read becomes a :class:`Picture`: upright 8-bit RGB, with what a result has to give back (alpha, colour profile,
EXIF) beside it. What is written appears under its name only when it is complete.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from emoedit.types import ImageError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}

# Vector drawings: Pillow hands the first to an external Ghostscript process, which untrusted input must not reach.
_NOT_PHOTOGRAPHS = {"EPS", "WMF"}

_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}

_UPRIGHT = {  # EXIF 2.32, table 6: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The tags that tell of the photograph. All others tell how its bytes were laid out in the file it came from, which
# would be wrong in a new file (a TIFF written with a foreign ImageWidth or StripOffsets cannot be opened again).
_KEPT_TAGS = [
    ExifTags.Base[name]
    for name in (
        "ImageDescription Make Model Orientation XResolution YResolution ResolutionUnit Software DateTime Artist "
        "HostComputer Copyright Rating XPTitle XPComment XPAuthor XPKeywords XPSubject"
    ).split()
]
_KEPT_FOLDERS = [ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo]

# The colour space an ICC profile must be for (bytes 16-20 of its header) before it can translate the mode to RGB.
_PROFILE_SPACE = {"CMYK": b"CMYK", "LAB": b"Lab ", "1": b"GRAY", "L": b"GRAY", "LA": b"GRAY"}

_JPEG_SEGMENT = 65_533  # bytes: a JPEG marker counts its own two length bytes in 16 bits
_FLOAT_SLACK = 1e-3  # a quarter of a grey level: what resampling leaves outside 0..1 without any fault of the caller

_WARNING_FILTERS = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """A photograph as the package works on it. The arrays are read-only.

    Args:
        rgb: uint8 ``[H, W, 3]``, upright, in the colour space of ``icc_profile`` (sRGB where that is None).
        alpha: uint8 ``[H, W]`` or None; 255 is opaque.
        icc_profile: the RGB colour profile of the photo, or None.
        exif: an EXIF block that says "upright" (orientation 1) and holds no preview image, or None.
        name: what a result is named after: the stem of the file name, or ``"photo"``.
        path: the file it was read from, or None.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    name: str = "photo"
    path: Path | None = None

    def to_pil(self, rgb: np.ndarray | None = None) -> Image.Image:
        """The photo, or ``rgb`` in its place, with the photo's alpha, profile and EXIF.

        Args:
            rgb: uint8 ``[H, W, 3]`` of the photo's size; None for the photo itself.

        Returns:
            RGB, or RGBA where the photo has alpha; ``.info`` holds ``icc_profile`` and ``exif`` where it has them.

        Raises:
            ImageError: ``rgb`` is not uint8 of the photo's shape.
        """
        rgb = self.rgb if rgb is None else rgb
        if rgb.shape != self.rgb.shape or rgb.dtype != np.uint8:
            raise ImageError(f"expected uint8 of shape {self.rgb.shape}, found {rgb.dtype} of shape {rgb.shape}")
        image = Image.fromarray(rgb if self.alpha is None else np.dstack([rgb, self.alpha]))
        if self.icc_profile is not None:
            image.info["icc_profile"] = self.icc_profile
        if self.exif is not None:
            image.info["exif"] = self.exif
        return image


def load_picture(
    source: str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray | Tensor | Picture,
    *,
    max_pixels: int = 100_000_000,
) -> Picture:
    """Reads one picture, whatever holds it. The source is left as it was.

    Args:
        source: one of

            * a path (``~`` is expanded), the bytes of a file, or a file opened in binary mode (read from its start, and
              put back where it was);
            * a PIL picture (at its current frame; a lazily opened one gets loaded);
            * an array ``[H, W]`` or ``[H, W, 1 | 3 | 4]``: uint8, uint16 (full range), bool, or float in 0..1;
            * a torch tensor ``[1 | 3, H, W]`` or ``[1, 1 | 3, H, W]`` of the same kinds;
            * a :class:`Picture`, which is returned as it is.
        max_pixels: a larger picture is refused from its header, before anything is decoded. Pillow's own limit, twice
            ``PIL.Image.MAX_IMAGE_PIXELS`` (179 million unless changed), holds for files as well.

    Returns:
        The picture, turned upright by its EXIF orientation. Of an animation or a multi-picture file, the first frame.
        Sixteen bits and floats are scaled to 8 bit by rounding. RGB colour profiles are kept, wide gamuts included;
        CMYK, Lab and grey pictures with a profile of their own are translated to sRGB by it. A damaged profile of
        theirs, or damaged EXIF, is left out with a warning.

    Raises:
        ImageError: no such file, a folder, no permission, not a picture, damaged or truncated, empty, too large, or an
            array of another kind or range.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")
        return _decode(source, f"the {source.mode} picture", _stem(filename), None, max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, "the array", max_pixels)
    if type(source).__module__.startswith("torch"):  # so that reading a file does not import torch
        return _from_array(_tensor_to_array(source), "the tensor", max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(io.BytesIO(source), f"the picture of {len(source):,} bytes", "photo", None, max_pixels)
    if isinstance(source, str | os.PathLike):
        path = Path(os.path.expanduser(source))
        with _reading(str(path)):
            if path.is_dir():
                raise ImageError(f"{path} is a folder; name a picture in it")
            with open(path, "rb") as file:
                stream = file if file.seekable() else io.BytesIO(file.read())
                return _read(stream, str(path), _stem(path), path, max_pixels)
    if hasattr(source, "read"):
        with _reading("the open file"):
            data = _whole(source)
        return _read(io.BytesIO(data), "the open file", _stem(getattr(source, "name", "")), None, max_pixels)
    raise ImageError(
        f"a picture cannot be read from {type(source).__name__}; give a path, bytes, an open file, a PIL picture, "
        "a NumPy array or a torch tensor"
    )


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """What the operating system has against reading, as an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{label}: there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a closed file, a NUL in a path
        raise ImageError(f"{label} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _whole(file: BinaryIO) -> bytes:
    """All of an open file, which is then where it was before; of a pipe, what is left in it."""
    if not file.seekable():
        data = file.read()
    else:
        position = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(position)
    if not isinstance(data, bytes):
        raise ImageError("the file is open in text mode; open it with mode 'rb'")
    return data


def _stem(filename: object) -> str:
    """The stem of a file name; ``"photo"`` for what is not one (``""``, a descriptor number, ``"<stdin>"``)."""
    if not isinstance(filename, str | os.PathLike) or str(filename).startswith("<"):
        return "photo"
    return Path(filename).stem or "photo"


def _read(stream: BinaryIO, label: str, name: str, path: Path | None, max_pixels: int) -> Picture:
    """Identifies and decodes an encoded picture. ``label`` names it in errors."""
    head = stream.read(12)
    if not head:
        raise ImageError(f"{label} is empty")
    Image.init()
    formats = [known for known in Image.ID if known not in _NOT_PHOTOGRAPHS]
    try:
        # Pillow warns from half of its limit on; the limit that counts here is max_pixels. The filters are global to
        # the process, so two threads must not save and restore them crosswise.
        with _WARNING_FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(stream, formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{label} is too large (limit {max_pixels:,} pixels): {error}") from error
    except UnidentifiedImageError as error:
        if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
            raise ImageError(
                f"{label} is a HEIC picture: convert it to JPEG, or install pillow-heif and call "
                "pillow_heif.register_heif_opener() first"
            ) from error
        raise ImageError(f"{label} is not a picture of a known format") from error
    except Exception as error:  # decoders fail on hostile headers in every way there is
        raise ImageError(f"{label} is damaged: {error}") from error
    with image:
        return _decode(image, label, name, path, max_pixels)


def _decode(image: Image.Image, label: str, name: str, path: Path | None, max_pixels: int) -> Picture:
    """A PIL picture of any mode, decoded or not yet, as a :class:`Picture`."""
    _check_size(*image.size, label, max_pixels)
    try:
        image.load()
        orientation, exif = _read_exif(image, label)  # after load: a PNG may hold its EXIF behind the pixels
        rgb, alpha, icc_profile = _split(image, label)
    except ImageError:
        raise
    except Exception as error:  # as above, in the pixels
        raise ImageError(f"{label} is damaged or truncated: {error}") from error
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
        alpha = alpha and alpha.transpose(_UPRIGHT[orientation])
    return Picture(_frozen(rgb), None if alpha is None else _frozen(alpha), icc_profile, exif, name, path)


def _check_size(width: int, height: int, label: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{label} has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ImageError(
            f"{label} is too large: {width} x {height} = {width * height:,} pixels, and the limit is {max_pixels:,} "
            "(max_pixels)"
        )


def _frozen(pixels: Image.Image | np.ndarray) -> np.ndarray:
    copy = np.array(pixels, order="C")
    copy.setflags(write=False)
    return copy


def _read_exif(image: Image.Image, label: str) -> tuple[int, bytes | None]:
    """The orientation (1 to 8), and the EXIF block a result may carry.

    The block is rebuilt, not copied: the preview picture that cameras put behind it (IFD1) would show the face as it
    was before the edit.
    """
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        kept = Image.Exif()
        for tag in _KEPT_TAGS:
            if tag in exif:
                kept[tag] = exif[tag]
        for tag in _KEPT_FOLDERS:
            folder = dict(exif.get_ifd(tag))
            folder.pop(ExifTags.IFD.Interop, None)  # an offset into the block that is left behind
            if folder:
                kept[tag] = folder
        if not kept:
            return orientation, None
        kept[ExifTags.Base.Orientation] = 1
        return orientation, kept.tobytes()
    except Exception as error:  # the pixels are sound, and a photo is worth more than its EXIF
        warnings.warn(f"{label}: its EXIF is damaged and is left out ({error})", stacklevel=2)
        return orientation, None


def _split(image: Image.Image, label: str) -> tuple[Image.Image, Image.Image | None, bytes | None]:
    """A loaded picture of any mode as 8-bit RGB, alpha (L) or None, and the profile that still describes the RGB."""
    profile = image.info.get("icc_profile") or None
    alpha = None
    if image.mode.startswith("I") or image.mode == "F":
        image, alpha = _from_numeric(image, label)
    mode = image.mode
    if image.has_transparency_data:
        # From a copy, because Pillow writes the transparency into the palette of the picture that it converts.
        image = image.copy().convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")

    space = profile[16:20] if profile else None
    if space == b"RGB " and mode not in ("CMYK", "LAB"):
        return image.convert("RGB"), alpha, profile
    if mode == "LAB" or (space is not None and space == _PROFILE_SPACE.get(mode)):
        source = image.getchannel(0) if space == b"GRAY" and image.mode == "RGB" else image
        source = source.convert("L") if source.mode == "1" else source
        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
            intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
            srgb = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(source, own, srgb, intent, "RGB", flags=flags), alpha, None
        except (ImageCms.PyCMSError, OSError) as error:
            if mode == "LAB":  # nothing else can translate it
                raise
            warnings.warn(f"{label}: its colour profile is damaged and is not used ({error})", stacklevel=2)
    return image.convert("RGB"), alpha, None


def _from_numeric(image: Image.Image, label: str) -> tuple[Image.Image, Image.Image | None]:
    """16-bit, 32-bit and float grey as 8-bit grey, with the alpha that a transparent grey level stands for.

    Pillow's own conversion clips 16 bits at 255. Mode I holds 0..65535 whenever Pillow's readers produce it from 16
    bits (PGM, older Pillow's PNG); other ranges have no known white, and are refused.
    """
    values = np.asarray(image)
    if image.mode == "I":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise ImageError(f"{label} holds integers {low}..{high}, which have no known white; rescale to 0..65535")
        values = values.astype(np.uint16)
    alpha = None
    if "transparency" in image.info:
        alpha = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
    return Image.fromarray(_to_uint8(values, label)), alpha


def _to_uint8(values: np.ndarray, label: str) -> np.ndarray:
    """Any supported kind of number as 0..255, rounded to the nearest level."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):  # also when either is NaN
            raise ImageError(
                f"{label} holds floats {low:g}..{high:g}, and 0..1 is expected: rescale -1..1 by (x + 1) / 2, "
                "0..255 by x / 255"
            )
        return np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    raise ImageError(f"{label} holds {values.dtype}; uint8, uint16, bool, or float in 0..1 is expected")


def _from_array(array: np.ndarray, label: str, max_pixels: int) -> Picture:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{label} has shape {array.shape}; [H, W] or [H, W, 1 | 3 | 4] is expected")
    _check_size(array.shape[1], array.shape[0], label, max_pixels)
    pixels = _to_uint8(np.atleast_3d(array), label)
    rgb = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels[..., :3]
    return Picture(_frozen(rgb), _frozen(pixels[..., 3]) if pixels.shape[2] == 4 else None)


def _tensor_to_array(tensor: Any) -> np.ndarray:
    """``[1 | 3, H, W]`` or a batch of one -> ``[H, W, 1 | 3]``."""
    shape = tuple(tensor.shape)
    if len(shape) == 4 and shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ImageError(f"the tensor has shape {shape}; [1 | 3, H, W] or [1, 1 | 3, H, W] is expected")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    return tensor.permute(1, 2, 0).numpy()


def write_atomic(path: str | os.PathLike[str], write: Callable[[BinaryIO], object], *, overwrite: bool = False) -> None:
    """Writes a file that is either there and complete, or not there.

    The content goes to a temporary name in the same folder, to the disk, and then to its own name in one step. Missing
    folders above it are made. Whatever happens on the way, an interrupt included, the temporary file goes and an
    existing file stays.

    Args:
        path: the file; ``~`` is expanded. With ``overwrite``, a symbolic link is written through.
        write: is given the temporary file, open for binary writing. What it raises other than OSError is passed on.
        overwrite: whether an existing file may be replaced (it keeps its permissions).

    Raises:
        OutputError: the target exists, is not a regular file, or cannot be written; says the path and the reason.
    """
    path = Path(os.path.expanduser(path))
    if overwrite:
        path = Path(os.path.realpath(path))
    temporary = path.parent / f".emoedit-{secrets.token_hex(8)}.tmp"
    try:
        if os.path.lexists(path) and not path.is_file():
            raise OutputError(f"{path} exists and is not a regular file")
        if path.exists() and not overwrite:
            raise _exists(path)
        _make_folder(path.parent)
        try:
            with open(temporary, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if not overwrite:
                _claim(temporary, path)
            else:
                if path.exists():
                    shutil.copymode(path, temporary)
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error


def _exists(path: Path) -> OutputError:
    return OutputError(f"{path} exists already; pass overwrite=True (--overwrite on the command line) to replace it")


def _claim(temporary: Path, path: Path) -> None:
    """Gives the file its name only if the name is free, with no moment between the check and the rename."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:  # FAT and some network shares have no hard links: take the name with an empty file, then fill it
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError as error:
            raise _exists(path) from error
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink()
            raise


def save_picture(
    image: Image.Image, path: str | os.PathLike[str], *, overwrite: bool = False, quality: int = 95
) -> None:
    """Writes a picture in the format that the suffix names, with the ICC profile and EXIF of its ``.info``.

    JPEG has no transparency: there the picture is laid on white. An EXIF block larger than JPEG can hold (64 KiB) is
    left out with a warning.

    Args:
        image: of a mode that the format can hold (RGB, RGBA and L always are).
        path: ends in .png, .jpg, .jpeg, .webp, .tif or .tiff; ``~`` is expanded.
        overwrite: whether an existing file may be replaced.
        quality: 1 to 100, of JPEG (without chroma subsampling) and WebP; PNG and TIFF are lossless.

    Raises:
        OutputError: another suffix, a picture that the format cannot hold, or whatever :func:`write_atomic` meets.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise OutputError(f"{path}: the format {suffix!r} is not known; end the name in one of {', '.join(SUFFIXES)}")
    kind = SUFFIXES[suffix]
    options: dict[str, Any] = {key: image.info[key] for key in ("icc_profile", "exif") if image.info.get(key)}
    if kind in ("JPEG", "WEBP"):
        options["quality"] = quality
    if kind == "JPEG":
        options["subsampling"] = 0
        if len(options.get("exif", b"")) > _JPEG_SEGMENT:
            warnings.warn(f"{path}: the EXIF of the photo is too large for a JPEG and is left out", stacklevel=2)
            del options["exif"]

    def encode(file: BinaryIO) -> None:
        # In memory first: Pillow's encoders write past Python to the file, and then a full disk has no readable reason.
        buffer = io.BytesIO()
        try:
            (_on_white(image) if kind == "JPEG" else image).save(buffer, kind, **options)
        except Exception as error:  # OSError, ValueError, struct.error, RuntimeError: each encoder has its own
            raise OutputError(f"{path} cannot be written as {kind}: {error}") from error
        file.write(buffer.getbuffer())

    write_atomic(path, encode, overwrite=overwrite)


def _on_white(image: Image.Image) -> Image.Image:
    """The picture in a mode that JPEG has."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.copy().convert("RGBA"))
        return white.convert("RGB")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def write_json(path: str | os.PathLike[str], value: object, *, overwrite: bool = False) -> None:
    """Writes ``value`` as indented UTF-8 JSON, through :func:`write_atomic`.

    Raises:
        OutputError: JSON has no form for the value (NaN and infinity included), or the file cannot be written.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise OutputError(f"{path}: the value has no form in JSON: {error}") from error
    write_atomic(path, lambda file: file.write(text), overwrite=overwrite)


def output_path(
    name: str,
    emotion: str,
    *,
    strength: float = 1.0,
    output: str | os.PathLike[str] | None = None,
    many: bool,
    face: int | None = None,
    suffix: str = ".png",
) -> Path:
    """Where the result of one edit goes: ``NAME_happy.png``, ``NAME_face2_happy_0.5.png``.

    Args:
        name: of the photo (:attr:`Picture.name`).
        emotion: a name or algebra on names; blanks and ``*`` go, and what does not suit a file name becomes ``_``, so
            that ``"happy - 0.4*surprised"`` gives ``happy-0.4surprised``.
        strength: is part of the name where it is not 1.
        output: None for the current folder; an existing folder, or a name that ends in a separator, for that folder;
            another name for the file itself. ``~`` is expanded.
        many: whether the command gives more than one result, so that ``output`` must be a folder, existing or not.
        face: which face of the photo, where one was asked for.
        suffix: of the file name, where it is made here.

    Raises:
        OutputError: many results, and an ``output`` that names one picture file.
    """
    parts = [name]
    if face is not None:
        parts.append(f"face{face}")
    parts.append(re.sub(r"[^\w.+-]+", "_", re.sub(r"[\s*]+", "", emotion)))
    if strength != 1:
        parts.append(f"{strength:g}")
    filename = "_".join(parts) + suffix
    if output is None:
        return Path(filename)
    output = os.path.expanduser(output)
    folder = Path(output)
    if folder.is_dir() or output.endswith(("/", os.sep)):
        return folder / filename
    if not many:
        return folder
    if folder.suffix.lower() in SUFFIXES:
        raise OutputError(f"{output} names one file, and there are several results; name a folder")
    return folder / filename

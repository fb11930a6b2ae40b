"""Any picture in, a finished file out: nothing half-read, nothing half-written.

What is read becomes a ``Picture``: upright 8-bit RGB, with what a result has to give back (alpha, colour profile,
metadata, the bits beyond the eighth) beside it. How it is written stands in ``emoedit.io.saving``.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageCms

from emoedit.io.depth import DeepPixels, read_deep, separate, to_uint8, turned
from emoedit.io.formats import choose_frame, open_encoded
from emoedit.io.metadata import Metadata, read_exif, read_metadata
from emoedit.io.output import SUFFIXES as SUFFIXES
from emoedit.io.output import distinct_stems as distinct_stems
from emoedit.io.output import output_path as output_path
from emoedit.io.output import write_atomic as write_atomic
from emoedit.io.output import write_json as write_json
from emoedit.io.saving import save_picture as save_picture
from emoedit.types import ImageError

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 250_000_000  # phones make 200 megapixels; of 8 bits, each takes 8 bytes while it is read and edited

_UPRIGHT = {  # EXIF 2.32, table 6: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SWAPPING = {  # what makes height of width
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
}
_BACK = {  # what undoes a turn; the others undo themselves
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}

# The colour space an ICC profile must be for (bytes 16-20 of its header) before it can translate the mode to RGB.
_PROFILE_SPACE = {"CMYK": b"CMYK", "LAB": b"Lab ", "1": b"GRAY", "L": b"GRAY", "LA": b"GRAY"}

_STRIP = 256  # rows of a picture that are copied at once


@dataclass(frozen=True, eq=False)
class Picture:
    """A photograph as the package works on it. The arrays are read-only.

    Args:
        rgb: uint8 ``[H, W, 3]``, upright, in the colour space of ``icc_profile`` (sRGB where that is None).
        alpha: uint8 ``[H, W]`` or None; 255 is opaque.
        icc_profile: the RGB colour profile of the photo, or None.
        exif: an EXIF block that says "upright" (orientation 1) and holds no preview image, or None.
        deep: the pixels in more than 8 bits, where the file has them; or None.
        metadata: resolution, XMP, IPTC and comments.
        name: what a result is named after: the stem of the file name, or ``"photo"``.
        path: the file it was read from, or None.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    deep: DeepPixels | None = None
    metadata: Metadata = field(default_factory=Metadata)
    name: str = "photo"
    path: Path | None = None

    def to_pil(self, rgb: np.ndarray | None = None, corner: tuple[int, int] | None = None) -> Image.Image:
        """The photo, or ``rgb`` in its place, with the photo's alpha, profile and EXIF.

        Args:
            rgb: uint8 ``[H, W, 3]`` of the photo's size, or with ``corner`` a part of it; None for the photo itself.
            corner: row and column of the photo where ``rgb`` begins.

        Returns:
            RGB, or RGBA where the photo has alpha; ``.info`` holds ``icc_profile``, ``exif``, ``dpi``, ``xmp``,
            ``iptc`` and ``texts`` where it has them, ``emoedit_edited`` where ``rgb`` is another than the photo's own,
            and ``emoedit_photo`` (this object) where the photo has more than 8 bits: ``save_picture`` reads them.

        Raises:
            ImageError: ``rgb`` is not uint8, or no part of a picture of the photo's shape.
        """
        edited = rgb is not None and rgb is not self.rgb
        rgb = self.rgb if rgb is None else rgb
        y, x = (0, 0) if corner is None or rgb is self.rgb else corner
        expected = self.rgb.shape if corner is None else self.rgb[y : y + rgb.shape[0], x : x + rgb.shape[1]].shape
        if rgb.shape != expected or rgb.dtype != np.uint8:
            raise ImageError(f"expected uint8 of shape {expected}, found {rgb.dtype} of shape {rgb.shape}")
        if rgb.shape == self.rgb.shape:
            image = Image.fromarray(rgb)
        else:
            image = Image.fromarray(self.rgb)
            image.paste(Image.fromarray(rgb), (x, y))
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        if self.icc_profile is not None:
            image.info["icc_profile"] = self.icc_profile
        if self.exif is not None:
            image.info["exif"] = self.exif
        image.info.update(self.metadata.to_info())
        if edited:
            image.info["emoedit_edited"] = True
        if self.deep is not None:
            image.info["emoedit_photo"] = self
        return image


@dataclass(frozen=True, eq=False)
class Original:
    """A photo as PIL picture, made when it is asked for: of 200 megapixels it takes 800 MB.

    Args:
        picture: the photo.
    """

    picture: Picture

    @cached_property
    def image(self) -> Image.Image:
        """The picture, one for all who ask."""
        return self.picture.to_pil()


def load_picture(
    source: str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray | Tensor | Picture,
    *,
    max_pixels: int = MAX_PIXELS,
    frame: int | None = None,
) -> Picture:
    """Reads one picture, whatever holds it. The source is left as it was.

    Args:
        source: one of * a path (``~`` is expanded), the bytes of a file, or a file opened in binary mode (read from its
            start, and put back where it was); * a PIL picture (at its current frame; a lazily opened one gets loaded);
            * an array ``[H, W]`` or ``[H, W, 1 | 3 | 4]``: uint8, uint16 (full range), bool, or float in 0..1; * a
            torch tensor ``[1 | 3, H, W]`` or ``[1, 1 | 3, H, W]`` of the same kinds; * a ``Picture``, which is returned
            as it is.
        max_pixels: a larger picture is refused from its header, before anything is decoded.
        frame: frame of a file with several pictures (an animation, a TIFF of several pages), which one, from 0 on.

    Returns:
        The picture, turned upright by its EXIF orientation. Sixteen bits and floats are scaled to 8 bit by rounding;
        those of a PNG or TIFF are kept in ``deep``. RGB colour profiles are kept, wide gamuts included; CMYK, Lab and
        grey pictures with a profile of their own are translated to sRGB by it. A damaged profile of theirs, or damaged
        metadata, is left out with a warning.

    Raises:
        ImageError: no such file, a folder, no permission, not a picture, damaged or truncated, empty, too large, or an
            array of another kind or range; a file of several pictures without ``frame``; HEIC and JPEG XL without the
            package that reads them.
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
        return _read(io.BytesIO(source), f"the picture of {len(source):,} bytes", "photo", None, max_pixels, frame)
    if isinstance(source, str | os.PathLike):
        path = Path(os.path.expanduser(source))
        with _image_errors(str(path)):
            if path.is_dir():
                raise ImageError(f"{path} is a folder; name a picture in it")
            with open(path, "rb") as file:
                stream = file if file.seekable() else io.BytesIO(file.read())
                return _read(stream, str(path), _stem(path), path, max_pixels, frame)
    if hasattr(source, "read"):
        with _image_errors("the open file"):
            data = _whole(cast("BinaryIO", source))
        name = _stem(getattr(source, "name", ""))
        return _read(io.BytesIO(data), "the open file", name, None, max_pixels, frame)
    raise ImageError(
        f"a picture cannot be read from {type(source).__name__}; give a path, bytes, an open file, a PIL picture, "
        "a NumPy array or a torch tensor"
    )


@contextmanager
def _image_errors(label: str) -> Iterator[None]:
    """Turn the operating system's errors while reading into ImageError."""
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


def _read(stream: BinaryIO, label: str, name: str, path: Path | None, max_pixels: int, frame: int | None) -> Picture:
    """Identifies and decodes an encoded picture. ``label`` names it in errors."""
    image = open_encoded(stream, label)
    if image is None:  # a TIFF that Pillow does not know
        found = read_deep(stream, label, max_pixels)
        if found is None:
            raise ImageError(f"{label} is not a picture of a known format")
        return _from_deep(separate(found, label), label, name, path)
    with image:
        _check_size(*image.size, label, max_pixels)
        choose_frame(image, label, frame)
        deep = None
        if image.format in ("PNG", "TIFF") and not frame:
            position = stream.tell()
            found = read_deep(stream, label, max_pixels)
            deep = None if found is None else separate(found, label)
            stream.seek(position)  # where Pillow left it, between the header and the pixels
        return _decode(image, label, name, path, max_pixels, deep)


def _decode(
    image: Image.Image, label: str, name: str, path: Path | None, max_pixels: int, deep: DeepPixels | None = None
) -> Picture:
    """A PIL picture of any mode, decoded or not yet, as a ``Picture``."""
    _check_size(*image.size, label, max_pixels)
    try:
        image.load()
        orientation, exif = read_exif(image, label)  # after load: a PNG may hold its EXIF behind the pixels
        metadata = read_metadata(image, label)
        rgb, alpha, icc_profile = _split(image, label)
    except ImageError:
        raise
    except Exception as error:  # as above, in the pixels
        raise ImageError(f"{label} is damaged or truncated: {error}") from error
    if deep is not None and deep.values.shape[:2] != (rgb.height, rgb.width):
        raise ImageError(f"{label} is damaged: two readers find different sizes in it")
    if deep is not None and image.info.get("icc_profile") and icc_profile is None:
        warnings.warn(
            f"{label}: its colours are translated to sRGB in 8 bits; convert it to an RGB profile to keep 16",
            stacklevel=3,
        )
        deep = None
    turn = _UPRIGHT.get(orientation)
    deep = deep if deep is None or turn is None else deep.turned(turn)
    kept: dict[str, Any] = {"icc_profile": icc_profile, "exif": exif, "metadata": metadata, "name": name, "path": path}
    if deep is None:
        return Picture(_frozen(rgb, turn), None if alpha is None else _frozen(alpha, turn), **kept)
    if deep.alpha is None and alpha is not None:  # a transparent colour
        opaque = _frozen(alpha, turn)
        top = 65_535 if deep.values.dtype == np.uint16 else np.float32(1)
        deep = replace(deep, alpha=(opaque > 127).astype(deep.values.dtype) * top)
    return _from_deep(deep, label, **kept)


def _from_deep(deep: DeepPixels, label: str, name: str, path: Path | None, **kept: Any) -> Picture:
    """A picture of more than 8 bits: what models see is rounded from it."""
    rgb = _frozen(to_uint8(deep.values, label))
    alpha = None if deep.alpha is None else _frozen(to_uint8(deep.alpha, label))
    return Picture(rgb, alpha, deep=deep, name=name, path=path, **kept)


def _check_size(width: int, height: int, label: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{label} has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ImageError(
            f"{label} is too large: {width} x {height} = {width * height:,} pixels, and the limit is {max_pixels:,} "
            "(max_pixels=, --max-pixels on the command line)"
        )


def _frozen(pixels: Image.Image | np.ndarray, turn: Image.Transpose | None = None) -> np.ndarray:
    """A read-only copy, turned on the way."""
    if isinstance(pixels, np.ndarray):
        copy = np.array(pixels, order="C")
    else:  # by strips: all at once, Pillow makes two further copies on the way
        bands = len(pixels.getbands())
        sides = (pixels.width, pixels.height) if turn in _SWAPPING else (pixels.height, pixels.width)
        copy = np.empty((*sides, bands)[: 2 if bands == 1 else 3], np.uint8)
        lying = copy if turn is None else turned(copy, _BACK.get(turn, turn))  # the same memory, as the file has it
        for top in range(0, pixels.height, _STRIP):
            strip = (0, top, pixels.width, min(top + _STRIP, pixels.height))
            lying[top : top + _STRIP] = np.asarray(pixels.crop(strip))
    copy.setflags(write=False)
    return copy


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
        return _as_rgb(image), alpha, profile
    if mode == "LAB" or (space is not None and space == _PROFILE_SPACE.get(mode)):
        source = image.getchannel(0) if space == b"GRAY" and image.mode == "RGB" else image
        source = source.convert("L") if source.mode == "1" else source
        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
            intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
            srgb = ImageCms.createProfile("sRGB")
            translated = ImageCms.profileToProfile(source, own, srgb, intent, "RGB", flags=flags)
            assert translated is not None  # it is only where the source is translated in place
            return translated, alpha, None
        except (ImageCms.PyCMSError, OSError) as error:
            if mode == "LAB":  # nothing else can translate it
                raise
            warnings.warn(f"{label}: its colour profile is damaged and is not used ({error})", stacklevel=2)
    return _as_rgb(image), alpha, None


def _as_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB; itself, not a copy, where it is."""
    return image if image.mode == "RGB" else image.convert("RGB")


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
    return Image.fromarray(to_uint8(values, label)), alpha


def _from_array(array: np.ndarray, label: str, max_pixels: int) -> Picture:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{label} has shape {array.shape}; [H, W] or [H, W, 1 | 3 | 4] is expected")
    _check_size(array.shape[1], array.shape[0], label, max_pixels)
    pixels = to_uint8(np.atleast_3d(array), label)
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

"""Which format a file has, and which of its frames is meant: an encoded picture opened, its pixels not yet read."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from emoedit.types import ImageError, MissingExtraError

# Vector drawings: Pillow hands the first to an external Ghostscript process, which untrusted input must not reach.
_NOT_PHOTOGRAPHS = {"EPS", "WMF"}

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
_JXL_HEADS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_ANIMATED = {
    "GIF",
    "PNG",
    "WEBP",
    "TIFF",
    "AVIF",
    "JXL",
}  # formats whose further frames are pictures in their own right
_REDUCED = 254  # TIFF's NewSubfileType: bit 0 marks a smaller copy of another page
_WARNING_FILTERS = threading.Lock()


def open_encoded(stream: BinaryIO, label: str) -> Image.Image | None:
    """The picture with its header read; None for a TIFF of a kind that Pillow does not know.

    Args:
        stream: the encoded picture, from its start.
        label: names it in errors.

    Raises:
        ImageError: empty, damaged, or of no known format; a format whose package is not installed.
    """
    head = stream.read(12)
    stream.seek(0)
    if not head:
        raise ImageError(f"{label} is empty")
    Image.init()
    formats = [known for known in Image.ID if known not in _NOT_PHOTOGRAPHS]
    try:
        with _without_limit():
            if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
                return _open_heif(stream, label)
            if head.startswith(_JXL_HEADS):
                return _open_jxl(stream, label)
            return Image.open(stream, formats=formats)
    except UnidentifiedImageError as error:
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        raise ImageError(f"{label} is not a picture of a known format") from error
    except ImageError:
        raise
    except Exception as error:  # decoders fail on hostile headers in every way there is
        raise ImageError(f"{label} is damaged: {error}") from error


@contextmanager
def _without_limit() -> Iterator[None]:
    """Lift Pillow's own limit of pixels, which is one for the whole process, and lower than what phones make.

    The limit that counts here is checked right after the header was read. What is global to the process is changed by
    one thread at a time.
    """
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open_heif(stream: BinaryIO, label: str) -> Image.Image:
    try:
        from pillow_heif import HeifImagePlugin  # noqa: F401 - registers itself with Pillow
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise ImageError(
            f"{label} is a HEIC picture, as phones make; {MissingExtraError('pillow-heif', 'heif')}. Or convert it "
            "to JPEG (on the phone: Settings, Camera, Formats, Most Compatible)"
        ) from error
    return HeifImageFile(stream)


def _open_jxl(stream: BinaryIO, label: str) -> Image.Image:
    if "JXL" not in Image.ID:
        try:
            import pillow_jxl  # noqa: F401 - registers itself with Pillow
        except ImportError as error:
            raise ImageError(
                f"{label} is a JPEG XL picture: pip install pillow-jxl-plugin, or convert it to PNG or JPEG"
            ) from error
    return Image.open(stream, formats=("JXL",))


def choose_frame(image: Image.Image, label: str, frame: int | None) -> None:
    """Goes to the frame that is asked for; refuses to choose between several.

    Args:
        image: with its header read.
        label: names it in errors.
        frame: from 0 on; None where there is to be one only.

    Raises:
        ImageError: several frames and none chosen, no such frame, or a damaged one.
    """
    try:
        count = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    except Exception as error:  # decoders fail on hostile files in every way there is
        raise ImageError(f"{label} is damaged: its pictures cannot be counted ({error})") from error
    if frame is None:
        if count == 1 or (image.format == "TIFF" and _is_one_page(image, count)):
            return
        what = "pages" if image.format == "TIFF" else "frames"
        raise ImageError(
            f"{label} holds {count} {what}, and one picture is edited at a time: choose one with frame=0 (--frame 0 on "
            f"the command line) and so on to {count - 1}, or save the {what} as pictures of their own and edit those"
        )
    if not 0 <= frame < count:
        raise ImageError(f"{label} has the frames 0 to {count - 1}, not {frame}")
    if frame:
        try:
            image.seek(frame)
        except Exception as error:  # decoders fail on hostile files in every way there is
            raise ImageError(f"{label} is damaged: its frame {frame} cannot be read ({error})") from error


def _is_one_page(image: Image.Image, count: int) -> bool:
    """Whether all pages but the first are smaller copies of it; the first is then the current one again."""
    try:
        others = []
        for page in range(1, min(count, 100)):
            image.seek(page)
            others.append(bool(getattr(image, "tag_v2", {}).get(_REDUCED, 0) & 1))
        image.seek(0)
        return all(others)
    except Exception:  # a damaged page is a page
        return False

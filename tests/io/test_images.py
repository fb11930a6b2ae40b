"""Pictures of every kind in, results out, and what happens when either goes wrong."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import struct
import subprocess
import sys
import warnings
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps

from emoedit.io import images as pictures
from emoedit.io.images import Picture, load_picture, output_path, save_picture, write_atomic, write_json
from emoedit.types import ImageError, OutputError
from tests.fixtures.memory import peak_of

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]


def photo(height: int = 24, width: int = 37, channels: int = 3) -> np.ndarray:
    """A smooth picture with no symmetry, so that no rotation or lossy format is mistaken for another."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    planes = [255 * x, 255 * y, 255 * x * y, 100 + 155 * x]
    return np.stack(planes[:channels], 2).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A hand-written PNG; ``rows`` are unfiltered scan lines without their filter byte."""
    stride = len(rows) // height if rows else 0
    lines = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height)) if rows else b""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), *more]
    chunks += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def close(found: np.ndarray, expected: np.ndarray, mean: float) -> bool:
    return found.shape == expected.shape and np.abs(found.astype(float) - expected).mean() <= mean


# --- what a picture may come from -----------------------------------------------------------------------------------


def test_a_path(tmp_path, monkeypatch):
    path = tmp_path / "Max Mustermann.v2.png"
    Image.fromarray(photo()).save(path)
    before = path.read_bytes()
    picture = load_picture(path)
    assert np.array_equal(picture.rgb, photo()) and picture.rgb.dtype == np.uint8
    assert picture.alpha is None and picture.icc_profile is None and picture.exif is None
    assert picture.name == "Max Mustermann.v2" and picture.path == path
    assert path.read_bytes() == before
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert np.array_equal(load_picture("~/Max Mustermann.v2.png").rgb, photo())


def test_the_arrays_are_read_only_and_the_picture_is_frozen():
    picture = load_picture(photo(channels=4))
    for array in (picture.rgb, picture.alpha):
        with pytest.raises(ValueError):
            array[0, 0] = 0
    with pytest.raises(AttributeError):
        picture.name = "other"
    assert load_picture(picture) is picture


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind):
    picture = load_picture(kind(encoded(Image.fromarray(photo()))))
    assert np.array_equal(picture.rgb, photo()) and picture.name == "photo" and picture.path is None


def test_an_open_file_is_read_from_its_start_and_put_back(tmp_path):
    path = tmp_path / "anna.png"
    Image.fromarray(photo()).save(path)
    with open(path, "rb") as file:
        file.seek(5)
        assert np.array_equal(load_picture(file).rgb, photo())
        assert load_picture(file).name == "anna" and file.tell() == 5 and not file.closed
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "PNG")  # leaves the position at the end
    assert np.array_equal(load_picture(buffer).rgb, photo())
    with open(path, encoding="latin-1") as text, pytest.raises(ImageError, match="'rb'"):
        load_picture(text)
    with pytest.raises(ImageError, match="closed"):
        load_picture(file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe():
    read, write = os.pipe()
    os.write(write, encoded(Image.fromarray(photo())))
    os.close(write)
    with os.fdopen(read, "rb") as file:
        picture = load_picture(file)
    assert np.array_equal(picture.rgb, photo()) and picture.name == "photo"  # its .name is a number


def test_a_pil_picture_is_not_modified(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "eva.jpg"
    Image.fromarray(photo()).save(path, exif=exif, icc_profile=SRGB)
    with Image.open(path) as image:
        image.load()
        before = image.tobytes(), dict(image.info), image.size, image.mode, dict(image.getexif())
        picture = load_picture(image)
        assert (image.tobytes(), dict(image.info), image.size, image.mode, dict(image.getexif())) == before
    assert picture.rgb.shape == (37, 24, 3) and picture.name == "eva" and picture.path is None
    assert np.array_equal(picture.rgb, load_picture(path).rgb)

    palette = Image.fromarray(photo()).quantize(8)
    palette.info["transparency"] = bytes([0, 128, 255])
    before = palette.tobytes(), palette.getpalette("RGBA"), dict(palette.info)
    assert set(np.unique(load_picture(palette).alpha)) == {0, 128, 255}
    assert (palette.tobytes(), palette.getpalette("RGBA"), dict(palette.info)) == before


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_every_pil_mode(mode):
    alpha = mode in ("LA", "PA", "RGBA", "RGBa")
    image = Image.new("RGBA", (3, 2), (255, 255, 255, 255)).convert(
        "P" if mode == "PA" else "RGB" if not alpha else "RGBA"
    )
    image = image.convert(mode)
    picture = load_picture(image)
    assert (picture.rgb >= 254).all() and picture.rgb.shape == (2, 3, 3)
    assert (picture.alpha is not None) == alpha


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_arrays(channels):
    array = photo(channels=max(channels, 1))
    array = array[..., 0] if channels == 0 else array
    before = array.copy()
    picture = load_picture(array)
    assert np.array_equal(array, before) and not np.shares_memory(array, picture.rgb)
    colour = array if array.ndim == 3 and array.shape[2] >= 3 else np.repeat(np.atleast_3d(array), 3, 2)
    assert np.array_equal(picture.rgb, colour[..., :3]) and picture.rgb.flags.c_contiguous
    if channels == 4:
        assert np.array_equal(picture.alpha, array[..., 3])
    else:
        assert picture.alpha is None


def test_array_kinds_are_scaled_and_rounded():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for same in (
        levels.astype(np.uint16) * 257,
        (levels.astype(np.uint16) * 257).astype(">u2"),
        levels / 255,
        (levels / 255).astype(np.float32),
        (levels / 255).astype(np.float16),
    ):
        assert np.array_equal(load_picture(same).rgb[..., 0], levels), same.dtype
    assert load_picture(np.array([[128, 129, 65535]], np.uint16)).rgb[0, :, 0].tolist() == [0, 1, 255]
    assert load_picture(np.array([[0.5, 1.0000004, -1e-7]])).rgb[0, :, 0].tolist() == [128, 255, 0]
    assert load_picture(np.array([[True, False]])).rgb[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4, 3), np.nan),
        np.array([[0.5, np.inf]]),
        np.full((4, 4, 3), -1.0),
        np.full((4, 4, 3), 255.0),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 3), complex),
        np.zeros((4, 4), object),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.float32),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_that_are_no_picture(array):
    with pytest.raises(ImageError):
        load_picture(array)


def test_tensors():
    torch = pytest.importorskip("torch")
    array = photo()
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    before = tensor.clone()
    for same in (
        tensor,
        tensor[None],
        tensor / 255,
        (tensor / 255).double().requires_grad_(),
        tensor.to(torch.float16) / 255,
    ):
        picture = load_picture(same)
        assert np.array_equal(picture.rgb, array) and picture.rgb.flags.c_contiguous
    assert torch.equal(tensor, before)
    assert close(load_picture((tensor / 255).bfloat16()).rgb, array, 0.5)
    assert np.array_equal(load_picture(tensor[:1]).rgb, np.repeat(array[..., :1], 3, 2))
    with pytest.raises(ImageError, match=r"\(x \+ 1\) / 2"):
        load_picture(tensor / 127.5 - 1)
    for wrong in (tensor[:2], tensor[0], tensor[None].repeat(2, 1, 1, 1), tensor.permute(1, 2, 0), tensor.long()):
        with pytest.raises(ImageError):
            load_picture(wrong)


def test_reading_does_not_import_torch(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(photo()).save(path)
    code = (
        "import sys; from emoedit.io.images import load_picture, save_picture\n"
        "save_picture(load_picture(sys.argv[1]).to_pil(), sys.argv[1], overwrite=True)\n"
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(pictures.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, timeout=120).returncode == 0


@pytest.mark.parametrize("source", [None, 3, [1, 2], object()])
def test_other_objects(source):
    with pytest.raises(ImageError, match="cannot be read from"):
        load_picture(source)


# --- what a file may hold -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, kind, orientation):
    upright = Image.fromarray(photo())
    # A picture that looks upright when the orientation is applied, made by the inverse turn.
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = inverse
    stored = ImageOps.exif_transpose(_with_exif(upright, exif))
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    data = encoded(stored, kind, exif=exif.tobytes(), **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    picture = load_picture(data)
    assert close(picture.rgb, photo(), 0 if kind in ("PNG", "TIFF") else 3)

    # The result says "upright", and stays upright when it is saved and read by another program.
    kept = Image.Exif()
    kept.load(picture.exif)
    assert kept[0x0112] == 1 and kept[0x010F] == "Maker" and kept.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        save_picture(picture.to_pil(), tmp_path / f"out{suffix}")
        with Image.open(tmp_path / f"out{suffix}") as again:
            again.load()
            assert again.getexif()[0x010F] == "Maker"
            assert close(np.asarray(ImageOps.exif_transpose(again)), photo(), 5)


def _with_exif(image: Image.Image, exif: Image.Exif) -> Image.Image:
    image = image.copy()
    image.info["exif"] = exif.tobytes()
    return image


def test_exif_loses_what_only_held_for_the_old_file(tmp_path):
    exif = Image.Exif()
    exif[0x0100], exif[0x0101] = 9999, 8888  # ImageWidth, ImageLength: some phones write them
    exif[0x0111], exif[0x0103], exif[0x0106] = 12345, 7, 6  # strip offsets, compression, photometric
    exif[0x8298] = "Somebody"
    data = bytearray(exif.tobytes()[6:])
    entries = struct.unpack_from(">H" if data[:2] == b"MM" else "<H", data, 8)[0]
    order = ">" if data[:2] == b"MM" else "<"
    preview = encoded(Image.new("RGB", (16, 16), "red"), "JPEG")
    end = len(data) + len(data) % 2
    struct.pack_into(order + "I", data, 10 + 12 * entries, end)
    ifd1 = struct.pack(order + "HHHIIHHII", 2, 0x0201, 4, 1, end + 30, 0x0202, 4, 1, len(preview)) + b"\0\0\0\0"
    block = b"Exif\0\0" + bytes(data).ljust(end, b"\0") + ifd1 + preview
    source = encoded(Image.fromarray(photo()), "JPEG", exif=block)
    with Image.open(io.BytesIO(source)) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[0x0201] == end + 30  # the preview is there

    picture = load_picture(source)
    kept = Image.Exif()
    kept.load(picture.exif)
    assert (
        dict(kept) == {0x0112: 1, 0x8298: "Somebody"}
        and not kept.get_ifd(ExifTags.IFD.IFD1)
        and preview not in picture.exif
    )
    save_picture(picture.to_pil(), tmp_path / "out.tif")
    assert np.array_equal(load_picture(tmp_path / "out.tif").rgb, picture.rgb)


def test_damaged_exif_costs_only_the_exif():
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(Image.fromarray(photo()), "PNG", exif=exif.tobytes())
    assert np.array_equal(load_picture(data).rgb, photo()[::-1, ::-1])
    broken = encoded(Image.fromarray(photo()), "PNG", exif=b"Exif\0\0 this is none")
    with pytest.warns(UserWarning, match="EXIF is damaged"):
        picture = load_picture(broken)
    assert np.array_equal(picture.rgb, photo()) and picture.exif is None


def test_sixteen_bit_grey():
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    expected = np.rint(ramp / 257).astype(np.uint8)
    assert expected.min() == 0 and expected.max() == 255
    grey = Image.fromarray(ramp)
    files = {
        "PNG": png(64, 64, 16, 0, ramp.astype(">u2").tobytes()),
        "TIFF": encoded(grey, "TIFF"),
        "TIFF of a big-endian machine": encoded(
            Image.frombytes("I;16B", (64, 64), ramp.astype(">u2").tobytes()), "TIFF"
        ),
        "PGM": b"P5 64 64 65535\n" + ramp.astype(">u2").tobytes(),
    }
    for kind, data in files.items():
        assert np.array_equal(load_picture(data).rgb, np.repeat(expected[..., None], 3, 2)), kind
    for image in (grey, Image.fromarray(ramp.astype(np.int32))):
        assert np.array_equal(load_picture(image).rgb[..., 0], expected), image.mode
    for wrong in (np.full((2, 2), -1, np.int32), np.full((2, 2), 65536, np.int32)):
        with pytest.raises(ImageError, match="65535"):
            load_picture(Image.fromarray(wrong))


def test_sixteen_bit_grey_with_a_transparent_level():
    ramp = (np.arange(16, dtype=np.uint16) * 4096).reshape(4, 4)
    picture = load_picture(png(4, 4, 16, 0, ramp.astype(">u2").tobytes(), (b"tRNS", struct.pack(">H", 8192))))
    assert np.array_equal(picture.alpha, np.where(ramp == 8192, 0, 255))
    assert np.array_equal(picture.rgb[..., 1], np.rint(ramp / 257))


def test_sixteen_bit_rgb():
    ramp = np.arange(0, 65536, 64, dtype=np.uint16).reshape(16, 64)
    deep = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], 2)
    picture = load_picture(png(64, 16, 16, 2, deep.astype(">u2").tobytes()))
    assert np.abs(picture.rgb.astype(int) - deep / 257).max() <= 1  # Pillow itself keeps the high byte
    assert np.array_equal(load_picture(deep).rgb, np.rint(deep / 257))


def test_float_pictures():
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    for source in (Image.fromarray(ramp), encoded(Image.fromarray(ramp), "TIFF")):
        assert np.array_equal(load_picture(source).rgb[..., 2].ravel(), np.arange(256))
    with pytest.raises(ImageError, match="floats 0..255"):
        load_picture(Image.fromarray(ramp * 255))


def test_alpha_is_kept(tmp_path):
    rgba = photo(channels=4)
    for kind in ("PNG", "TIFF", "WEBP"):
        picture = load_picture(encoded(Image.fromarray(rgba), kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert np.array_equal(picture.rgb, rgba[..., :3]) and np.array_equal(picture.alpha, rgba[..., 3])
        assert picture.to_pil().mode == "RGBA"
    grey = Image.fromarray(rgba).convert("LA")
    picture = load_picture(encoded(grey))
    assert np.array_equal(picture.alpha, rgba[..., 3])
    assert np.array_equal(picture.rgb[..., 0], np.asarray(grey)[..., 0])


def test_palettes():
    image = Image.fromarray(photo()).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    for kind in ("PNG", "GIF", "BMP"):
        picture = load_picture(encoded(image, kind))
        assert np.array_equal(picture.rgb, expected) and picture.alpha is None
    one = load_picture(encoded(image, "GIF", transparency=3))
    assert np.array_equal(one.alpha, np.where(np.asarray(image) == 3, 0, 255)) and np.array_equal(one.rgb, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        several = load_picture(encoded(image, transparency=bytes(range(0, 256, 16))))
    assert np.array_equal(several.alpha, np.asarray(image) * 16) and np.array_equal(several.rgb, expected)


def test_one_bit_and_colour_key():
    bits = photo()[..., 0] > 100
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(load_picture(encoded(Image.fromarray(bits), kind)).rgb[..., 0], bits * 255)
    keyed = load_picture(encoded(Image.fromarray(photo()), transparency=tuple(int(v) for v in photo()[2, 3])))
    assert keyed.alpha[2, 3] == 0 and np.array_equal(keyed.rgb, photo())
    assert np.array_equal(keyed.alpha == 0, (photo() == photo()[2, 3]).all(2))


def test_cmyk_is_not_inverted(tmp_path):
    image = Image.fromarray(photo()).convert("CMYK")
    jpeg = encoded(image, "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in jpeg and Image.open(io.BytesIO(jpeg)).mode == "CMYK"
    assert close(load_picture(jpeg).rgb, photo(), 3)
    assert np.array_equal(load_picture(encoded(image, "TIFF")).rgb, np.asarray(image.convert("RGB")))
    # YCCK, which Photoshop writes: luminance and chroma of the inks (Pillow's writer inverts, so this does too).
    inks, black = Image.merge("RGB", image.split()[:3]), image.getchannel("K")
    planes = [Image.eval(plane, lambda v: 255 - v) for plane in inks.convert("YCbCr").split()]
    ycck = bytearray(encoded(Image.merge("CMYK", [*planes, black]), "JPEG", quality=100, subsampling=0))
    ycck[ycck.index(b"Adobe") + 11] = 2
    assert close(load_picture(bytes(ycck)).rgb, photo(), 3)


def test_grey_jpeg():
    grey = Image.fromarray(photo()[..., 0])
    picture = load_picture(encoded(grey, "JPEG", quality=100))
    assert close(picture.rgb, np.repeat(photo()[..., :1], 3, 2), 1.5)
    assert np.array_equal(picture.rgb[..., 0], picture.rgb[..., 2])


def test_lab_is_translated():
    lab = ImageCms.profileToProfile(
        Image.fromarray(photo()), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    del lab.info["icc_profile"]
    assert close(load_picture(encoded(lab, "TIFF")).rgb, photo(), 3)


def wide_gamut() -> bytes:
    """A valid RGB profile that is not sRGB: the sRGB one with the primaries of red and green exchanged."""
    return SRGB.replace(b"rXYZ", b"_XYZ").replace(b"gXYZ", b"rXYZ").replace(b"_XYZ", b"gXYZ")


def ink_profile() -> bytes:
    """A minimal ICC v2 CMYK profile (lut8): paper is L* 100, black is L* 0, cyan is a dull blue, the rest is grey."""
    corners = []
    for cyan, magenta, yellow, black in np.ndindex(2, 2, 2, 2):
        light = 0 if black else 100 - 40 * cyan - 20 * magenta - 10 * yellow
        corners += [round(light * 2.55), 128, 128 - 40 * cyan * (1 - black)]
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + bytes(corners) + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def grey_profile(gamma: float) -> bytes:
    """A minimal ICC v2 grey profile with a pure power curve."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))})


def _profile(device: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    white = struct.pack(">iii", 63190, 65536, 54061)  # D50
    tags = {**tags, b"wtpt": b"XYZ \0\0\0\0" + white}
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">4sI4s4s4s", b"lcms", 0x02400000, device, space, connection)
    head += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0") + white
    return struct.pack(">I", start + len(body)) + head.ljust(124, b"\0") + table + body


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_wide_gamut_profile_stays_attached(tmp_path, suffix):
    profile = wide_gamut()
    save_picture(load_picture(photo()).to_pil(), tmp_path / f"plain{suffix}")
    with Image.open(tmp_path / f"plain{suffix}") as image:
        image.save(tmp_path / f"wide{suffix}", icc_profile=profile, exif=b"")
    picture = load_picture(tmp_path / f"wide{suffix}")
    assert picture.icc_profile == profile and close(picture.rgb, photo(), 4)
    save_picture(picture.to_pil(), tmp_path / f"result{suffix}")
    with Image.open(tmp_path / f"result{suffix}") as image:
        assert image.info["icc_profile"] == profile


def test_a_cmyk_profile_is_applied():
    inks = Image.new("CMYK", (3, 1))  # paper, black, cyan
    inks.putpixel((1, 0), (0, 0, 0, 255))
    inks.putpixel((2, 0), (255, 0, 0, 0))
    for kind, tolerance in (("TIFF", 3), ("JPEG", 8)):
        options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
        picture = load_picture(encoded(inks, kind, icc_profile=ink_profile(), **options))
        assert picture.icc_profile is None
        assert picture.rgb[0, 0].min() >= 255 - tolerance and picture.rgb[0, 1].max() <= tolerance
        # CIELAB (60, 0, -40) is this blue in sRGB; without the profile cyan would be (0, 255, 255).
        assert np.abs(picture.rgb[0, 2].astype(int) - (105, 147, 215)).max() <= tolerance, picture.rgb[0, 2]


def test_a_grey_profile_is_applied_and_a_foreign_one_dropped():
    grey = Image.fromarray(photo()[..., 0])
    linear = load_picture(encoded(grey, icc_profile=grey_profile(1.0)))
    light = photo()[..., 0] / 255
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert close(linear.rgb[..., 1], srgb, 1) and linear.icc_profile is None
    with_alpha = Image.merge("LA", [grey, grey])
    assert np.array_equal(load_picture(encoded(with_alpha, icc_profile=grey_profile(1.0))).rgb, linear.rgb)

    tagged = load_picture(encoded(grey, "JPEG", icc_profile=SRGB, quality=100))  # common, and right: R = G = B
    assert tagged.icc_profile == SRGB and close(tagged.rgb[..., 0], photo()[..., 0], 1.5)
    assert load_picture(encoded(Image.fromarray(photo()), icc_profile=grey_profile(1.0))).icc_profile is None
    cmyk = Image.fromarray(photo()).convert("CMYK")
    assert load_picture(encoded(cmyk, "TIFF", icc_profile=SRGB)).icc_profile is None
    broken = SRGB[:16] + b"CMYK" + SRGB[20:]
    with pytest.warns(UserWarning, match="colour profile is damaged"):
        picture = load_picture(encoded(cmyk, "TIFF", icc_profile=broken))
    assert picture.icc_profile is None and np.array_equal(picture.rgb, np.asarray(cmyk.convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_frame_that_was_chosen(kind):
    first, second = Image.fromarray(photo()), Image.new("RGB", (37, 24), "red")
    data = encoded(first, kind, save_all=True, append_images=[second, second])
    assert (count := Image.open(io.BytesIO(data)).n_frames) >= 2
    what = "pages" if kind == "TIFF" else "frames"
    with pytest.raises(ImageError, match=rf"holds {count} {what}, .*choose one with frame=0 \(--frame 0"):
        load_picture(data)
    assert close(load_picture(data, frame=0).rgb, photo(), 12 if kind in ("GIF", "AVIF") else 4)
    last = load_picture(data, frame=count - 1).rgb
    assert last.shape == (24, 37, 3) and close(last, np.full_like(last, (255, 0, 0)), 4)
    with pytest.raises(ImageError, match=f"has the frames 0 to {count - 1}, not {count}"):
        load_picture(data, frame=count)


def test_previews_beside_a_photograph_are_no_choice():
    first, second = Image.fromarray(photo()), Image.new("RGB", (37, 24), "red")
    mpo = encoded(first, "MPO", save_all=True, append_images=[second])  # what cameras put behind a JPEG
    assert close(load_picture(mpo).rgb, photo(), 4)
    smaller = Image.new("RGB", (18, 12), "red")
    smaller.encoderinfo = {"tiffinfo": {254: 1}}
    pages = encoded(first, "TIFF", save_all=True, append_images=[smaller])
    assert Image.open(io.BytesIO(pages)).n_frames == 2
    assert close(load_picture(pages).rgb, photo(), 0)


# --- what is no picture ---------------------------------------------------------------------------------------------


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        load_picture(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_picture(tmp_path)
    with pytest.raises(ImageError, match="is a folder"):
        load_picture("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "lost").symlink_to(tmp_path / "none.png")
    for bad in ("loop", "lost", "x" * 5000, "nul\0.png"):
        with pytest.raises(ImageError):
            load_picture(tmp_path / bad)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError, match="cannot be read|no such file"):
        load_picture(tmp_path / "a.png" / "b.png")


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    Image.fromarray(photo()).save(path)

    def refuse(file, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(pictures, "open", refuse, raising=False)  # root may read what others may not
    with pytest.raises(ImageError, match="secret.png cannot be read: Permission denied"):
        load_picture(path)


@pytest.mark.skipif(AS_ROOT or os.name == "nt", reason="root may read everything")
def test_a_file_without_permission_for_real(tmp_path):
    path = tmp_path / "secret.png"
    Image.fromarray(photo()).save(path)
    path.chmod(0)
    with pytest.raises(ImageError, match="ermission"):
        load_picture(path)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7\n", bytes(5000)]
)
@pytest.mark.filterwarnings("ignore")
def test_bytes_that_are_no_picture(tmp_path, data):
    path = tmp_path / "file.png"
    path.write_bytes(data)
    for source in (path, data, io.BytesIO(data)):
        with pytest.raises(ImageError, match="is empty" if not data else "not a picture|damaged"):
            load_picture(source)


def test_scripts_are_not_run_and_phones_get_a_hint(monkeypatch):
    with pytest.raises(ImageError, match="not a picture"):
        load_picture(encoded(Image.fromarray(photo()), "EPS"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"HEIC picture.*pip install '.*\[heif\]'.*convert it to JPEG"):
        load_picture(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setattr(Image, "ID", [known for known in Image.ID if known != "JXL"])
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(ImageError, match="JPEG XL picture: pip install pillow-jxl-plugin, or convert it"):
        load_picture(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100))


def test_zero_size():
    for size in ((0, 0), (0, 5), (5, 0)):
        with pytest.raises(ImageError, match="no pixels"):
            load_picture(Image.new("RGB", size))
    for data in (png(0, 4, 8, 2, b""), png(4, 0, 8, 2, b""), b"P6 0 0 255\n"):
        with pytest.raises(ImageError):
            load_picture(data)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60_000, 60_000, 8, 2, b""))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"3,600,000,000 pixels, and the limit is 250,000,000.*--max-pixels"):
        load_picture(path)
    with pytest.raises(ImageError, match=r"12000 x 10000 = 120,000,000 pixels, and the limit is 100,000,000"):
        load_picture(png(12_000, 10_000, 8, 2, b""), max_pixels=100_000_000)
    with pytest.raises(ImageError, match="limit is 99"):
        load_picture(png(10, 10, 8, 2, b""), max_pixels=99)
    for large in (np.zeros((10, 10), np.uint8), Image.new("L", (10, 10))):
        with pytest.raises(ImageError, match="limit is 99"):
            load_picture(large, max_pixels=99)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_large_pictures_take_eight_bytes_a_pixel(tmp_path):
    """Pillow's own copy takes four, the array three."""
    Image.new("RGB", (6000, 4000), "red").save(tmp_path / "x.png", compress_level=1)
    load_picture(tmp_path / "x.png", max_pixels=24_000_000)  # what is loaded once does not count
    peak = peak_of(lambda: load_picture(tmp_path / "x.png"))
    assert peak < 8.5 * 24_000_000


def test_pillow_does_not_warn_below_the_limit():
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="truncated"):  # 95 million pixels: allowed, and then not there
            load_picture(png(9_500, 10_000, 8, 0, b""))
    assert limit == Image.MAX_IMAGE_PIXELS and filters == list(warnings.filters)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_truncated_anywhere(tmp_path, kind):
    data = encoded(Image.fromarray(photo(60, 80)), kind)
    path = tmp_path / "cut"
    whole = load_picture(data).rgb
    refused = 0
    cuts = [round(len(data) * step / 60) for step in range(60)]
    for cut in cuts:
        path.write_bytes(data[:cut])
        try:
            # Only what stands behind the pixels (an end marker, a checksum) may be missing.
            assert np.array_equal(load_picture(path).rgb, whole), (cut, len(data))
        except ImageError:
            refused += 1
    assert refused >= 55 and not ImageFile.LOAD_TRUNCATED_IMAGES


def mended(data: bytes) -> bytes:
    """A damaged PNG with checksums that hold again, as long as its chunks can be followed: the damage gets further."""
    data, start = bytearray(data), 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return bytes(data)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_random_damage_gives_a_picture_or_an_image_error(kind):
    random = np.random.default_rng(20240506)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    options = {} if kind in ("GIF", "BMP") else {"exif": exif.tobytes(), "icc_profile": SRGB}
    original = np.frombuffer(encoded(Image.fromarray(photo()), kind, **options), np.uint8)
    good = 0
    for trial in range(150):
        data = original.copy()
        # Half of the flips go to the front, where the headers are.
        reach = len(data) if trial % 2 else min(len(data), 200)
        for place in random.integers(0, reach, 1 + trial % 6):
            data[place] ^= 1 << random.integers(8)
        try:
            picture = load_picture(mended(data) if kind == "PNG" else data.tobytes(), max_pixels=4_000_000)
        except ImageError:
            continue
        good += 1
        assert isinstance(picture, Picture) and picture.rgb.dtype == np.uint8 and picture.rgb.ndim == 3
        assert picture.to_pil().size == picture.rgb.shape[1::-1]
    assert good > 0


# --- results --------------------------------------------------------------------------------------------------------


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_to_pil():
    picture = Picture(photo(), photo()[..., 0], SRGB, b"Exif\0\0x")
    image = picture.to_pil()
    assert image.mode == "RGBA" and image.info == {"icc_profile": SRGB, "exif": b"Exif\0\0x"}
    other = 255 - photo()
    assert np.array_equal(np.asarray(picture.to_pil(other))[..., :3], other)
    assert Picture(photo()).to_pil().mode == "RGB" and Picture(photo()).to_pil().info == {}
    for wrong in (other[:-1], other.astype(float), other[..., 0]):
        with pytest.raises(ImageError, match="expected uint8 of shape"):
            picture.to_pil(wrong)
    Image.Image.putpixel(image, (0, 0), (1, 2, 3, 4))  # a picture of its own, not a view
    assert np.array_equal(picture.rgb, photo())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".JPG", ".webp", ".tif", ".tiff"])
def test_save_and_read_back(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    image = Picture(photo()).to_pil()
    save_picture(image, path)
    assert close(load_picture(path).rgb, photo(), 0 if suffix in (".png", ".tif", ".tiff") else 3)
    assert listing(tmp_path) == [path.name] and np.array_equal(np.asarray(image), photo())


def test_jpeg_is_laid_on_white(tmp_path):
    alpha = np.zeros((24, 37), np.uint8)
    alpha[:, 20:] = 255
    image = Picture(photo(), alpha).to_pil()
    before = image.tobytes()
    save_picture(image, tmp_path / "a.jpg")
    expected = np.where(alpha[..., None] == 0, 255, photo())
    assert close(load_picture(tmp_path / "a.jpg").rgb, expected, 3) and image.tobytes() == before
    for mode in ("1", "L", "LA", "P", "HSV"):
        save_picture(Image.new(mode, (9, 9)), tmp_path / f"{mode}.jpg")


def test_quality_counts(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for suffix in (".jpg", ".webp"):
        save_picture(image, tmp_path / f"low{suffix}", quality=30)
        save_picture(image, tmp_path / f"high{suffix}")
        assert (tmp_path / f"low{suffix}").stat().st_size < (tmp_path / f"high{suffix}").stat().st_size


def test_exif_too_large_for_jpeg(tmp_path):
    image = Image.fromarray(photo())
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    image.info["exif"] = exif.tobytes()
    save_picture(image, tmp_path / "a.png")
    assert load_picture(tmp_path / "a.png").exif is not None
    with pytest.warns(UserWarning, match="too large for a JPEG"):
        save_picture(image, tmp_path / "a.jpg")
    assert load_picture(tmp_path / "a.jpg").exif is None


@pytest.mark.parametrize("name", ["out", "out.gif", "out.png.txt", ".png"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(OutputError, match=".png, .jpg, .jpeg, .webp, .tif, .tiff"):
        save_picture(Image.new("RGB", (2, 2)), tmp_path / name)
    assert listing(tmp_path) == []


def test_a_picture_that_the_format_cannot_hold(tmp_path):
    with pytest.raises(OutputError, match="cannot be written as WEBP"):
        save_picture(Image.new("L", (17_000, 1)), tmp_path / "wide.webp")
    with pytest.raises(OutputError, match="cannot be written as PNG"):
        save_picture(Image.new("F", (2, 2)), tmp_path / "float.png")
    assert listing(tmp_path) == []


def test_an_existing_file_is_not_replaced_unasked(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--overwrite"):
        save_picture(Image.new("RGB", (2, 2)), path)
    with pytest.raises(OutputError, match="--overwrite"):
        write_atomic(path, lambda file: pytest.fail("should not come so far"))
    assert path.read_bytes() == b"precious" and listing(tmp_path) == ["a.png"]
    save_picture(Image.new("RGB", (2, 2)), path, overwrite=True)
    assert load_picture(path).rgb.shape == (2, 2, 3) and listing(tmp_path) == ["a.png"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch, links):
    if not links:
        _forbid_links(monkeypatch)
    path = tmp_path / "a.bin"

    def write(file):
        file.write(b"ours")
        path.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="--overwrite"):
        write_atomic(path, write)
    assert path.read_bytes() == b"theirs" and listing(tmp_path) == ["a.bin"]


def _forbid_links(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def test_without_hard_links(tmp_path, monkeypatch):
    _forbid_links(monkeypatch)
    write_atomic(tmp_path / "a.bin", lambda file: file.write(b"ours"))
    assert (tmp_path / "a.bin").read_bytes() == b"ours" and listing(tmp_path) == ["a.bin"]

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="Input/output error"):
        write_atomic(tmp_path / "b.bin", lambda file: file.write(b"ours"))
    assert listing(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), ValueError("x"), KeyboardInterrupt()]
)
def test_a_failure_in_the_middle_leaves_nothing(tmp_path, failure, overwrite):
    path = tmp_path / "a.bin"
    if overwrite:
        path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        file.flush()
        assert len(listing(tmp_path)) == 1 + overwrite
        raise failure

    with pytest.raises(OutputError if isinstance(failure, OSError) else type(failure)) as caught:
        write_atomic(path, write, overwrite=overwrite)
    if isinstance(failure, OSError):
        assert str(path) in str(caught.value) and "No space left on device" in str(caught.value)
    assert listing(tmp_path) == (["a.bin"] if overwrite else [])
    assert not overwrite or path.read_bytes() == b"old"


def test_a_disk_that_is_full_only_at_the_end(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_picture(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert listing(tmp_path) == []


def test_a_file_larger_than_the_system_allows(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a failure that the kernel itself makes, in mid-write
    try:
        with pytest.raises(OutputError, match="File too large"):
            save_picture(Image.fromarray(photo(100, 100)), tmp_path / "a.tif")
        left = listing(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
def test_a_full_disk_under_torch_and_a_temporary_name_that_stays(tmp_path):
    """What torch.save raises hides what the system said; a killed run's temporary file is written over."""
    code = """
import resource, sys, torch
from pathlib import Path
from emoedit.io.output import write_atomic
from emoedit.types import OutputError
path, part = Path(sys.argv[1]), Path(sys.argv[1]).with_suffix(".part")
part.write_bytes(b"of a run that was killed")
def save(size): write_atomic(path, lambda f: torch.save({"a": torch.ones(size)}, f), overwrite=True, temporary=part)
save(8)
assert not part.exists()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try: save(100_000)
except OutputError as error: print(error)
assert not part.exists() and torch.load(path, weights_only=True)["a"].shape == (8,)
def fail(f): raise RuntimeError("no disk's fault")
try: write_atomic(path, fail, overwrite=True)
except RuntimeError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.pt")], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{tmp_path / 'x.pt'} cannot be written: File too large", "no disk's fault"]


def test_an_interrupt_from_the_keyboard(tmp_path, request):
    signal = pytest.importorskip("signal")
    if os.name == "nt":
        pytest.skip("Windows has no such signal")

    def write(file):
        file.write(b"half")
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1_000_000):  # the signal arrives between two instructions
            pass

    # What runs in the background of a script ignores the signal from the start.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.bin", write)
    assert listing(tmp_path) == []


def test_folders(tmp_path):
    write_atomic(tmp_path / "new" / "deep" / "a.bin", lambda file: file.write(b"x"))
    assert (tmp_path / "new" / "deep" / "a.bin").read_bytes() == b"x"
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="the folder .*file cannot be made"):
        write_atomic(tmp_path / "file" / "a.bin", lambda file: file.write(b"x"))
    for overwrite in (False, True):
        for target in (tmp_path, tmp_path / "new", ""):
            with pytest.raises(OutputError, match="not a regular file"):
                write_atomic(target, lambda file: file.write(b"x"), overwrite=overwrite)


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs /dev/null")
def test_a_device_is_not_replaced(tmp_path):
    link = tmp_path / "sink"
    link.symlink_to("/dev/null")
    with pytest.raises(OutputError, match="not a regular file"):
        write_atomic(link, lambda file: file.write(b"x"), overwrite=True)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(AS_ROOT or os.name == "nt", reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="a.bin cannot be written: Permission denied"):
            write_atomic(tmp_path / "a.bin", lambda file: file.write(b"x"))
        with pytest.raises(OutputError, match="new cannot be made: Permission denied"):
            write_atomic(tmp_path / "new" / "a.bin", lambda file: file.write(b"x"))
    finally:
        tmp_path.chmod(0o700)
    assert listing(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_and_links(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "new", lambda file: file.write(b"x"))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640  # what open() would have given it
    (tmp_path / "new").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    write_atomic(tmp_path / "link", lambda file: file.write(b"y"), overwrite=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "new").read_bytes() == b"y"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"emotion": "Überraschung", "scores": [0.5, None]})
    assert json.loads(path.read_text("utf-8")) == {"emotion": "Überraschung", "scores": [0.5, None]}
    assert "Überraschung" in path.read_text("utf-8") and path.read_bytes().endswith(b"}\n")
    with pytest.raises(OutputError, match="--overwrite"):
        write_json(path, 1)
    write_json(path, 1, overwrite=True)
    for wrong in ({"x": float("nan")}, {"x": object()}, {(1, 2): 3}):
        with pytest.raises(OutputError, match="no form in JSON"):
            write_json(path, wrong, overwrite=True)
    assert path.read_text() == "1\n" and listing(tmp_path) == ["a.json"]


def test_output_names(tmp_path, monkeypatch):
    assert output_path("anna", "happy", many=False) == Path("anna_happy.png")
    assert output_path("anna", "happy", many=True) == Path("anna_happy.png")
    assert output_path("anna", "happy", strength=0.5, many=False) == Path("anna_happy_0.5.png")
    assert output_path("anna", "happy", strength=-2, many=False) == Path("anna_happy_-2.png")
    assert output_path("anna", "happy", strength=0.1 + 0.2, many=False) == Path("anna_happy_0.3.png")
    assert output_path("anna", "happy", face=2, suffix=".jpg", many=False) == Path("anna_face2_happy.jpg")
    assert output_path("anna", "happy - 0.4*surprised", many=False) == Path("anna_happy-0.4surprised.png")
    assert output_path("anna", "(sad + shame)/2", many=False) == Path("anna__sad+shame_2.png")
    assert output_path("anna", "../../x\0:\\", many=False).parent == Path(".")

    folder = tmp_path / "there"
    folder.mkdir()
    for many in (False, True):
        assert output_path("anna", "sad", output=folder, many=many) == folder / "anna_sad.png"
        assert output_path("anna", "sad", output=f"{tmp_path}/new/", many=many) == tmp_path / "new" / "anna_sad.png"
    assert output_path("anna", "sad", output=tmp_path / "out.jpg", many=False) == tmp_path / "out.jpg"
    assert output_path("anna", "sad", output=tmp_path / "new", many=True) == tmp_path / "new" / "anna_sad.png"
    with pytest.raises(OutputError, match="name a folder"):
        output_path("anna", "sad", output=tmp_path / "out.jpg", many=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert output_path("anna", "sad", output="~", many=False) == tmp_path / "anna_sad.png"

"""Photographs of more than eight bits: read, edited and written in their own depth."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from emoedit.io.depth import DeepPixels
from emoedit.io.images import Picture, load_picture, save_picture
from emoedit.types import ImageError

SHAPE = (24, 37)


def pixels(channels: int = 3) -> np.ndarray:
    """uint16 ``[24, 37, channels]``."""
    return np.random.default_rng(3).integers(0, 65_536, (*SHAPE, channels)).astype(np.uint16)


def png(values: np.ndarray) -> bytes:
    order = [2, 1, 0, 3][: values.shape[2]] if values.shape[2] > 2 else slice(None)
    return cv2.imencode(".png", np.ascontiguousarray(values[..., order]))[1].tobytes()


def tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    kind = "rgb" if values.ndim == 3 or options.get("planarconfig") else "minisblack"
    tifffile.imwrite(buffer, values, **{"photometric": kind, **options})
    return buffer.getvalue()


def rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values / 257).astype(np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        png(pixels()),
        tiff(pixels()),
        tiff(pixels(), compression="zlib"),
        tiff(pixels(), byteorder=">"),
        tiff(pixels(), tile=(16, 16)),
        tiff(pixels().transpose(2, 0, 1).copy(), planarconfig="separate"),
        cv2.imencode(".tiff", pixels()[..., ::-1])[1].tobytes(),  # LZW
    ],
    ids=["png", "tiff", "deflate", "big-endian", "tiles", "planar", "lzw"],
)
def test_sixteen_bits_are_read_exactly_and_rounded_for_models(data):
    picture = load_picture(data)
    assert np.array_equal(picture.deep.values, pixels())
    assert np.array_equal(picture.rgb, rounded(pixels()))
    assert picture.alpha is None and picture.deep.alpha is None and not picture.deep.values.flags.writeable


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bit_alpha_and_grey(tmp_path, kind):
    values = pixels(4)
    data = png(values) if kind == "png" else tiff(values, extrasamples=["unassalpha"])
    picture = load_picture(data)
    assert np.array_equal(picture.deep.alpha, values[..., 3]) and np.array_equal(picture.alpha, rounded(values[..., 3]))
    save_picture(picture.to_pil(), tmp_path / f"x.{kind}")
    assert np.array_equal(load_picture(tmp_path / f"x.{kind}").deep.alpha, values[..., 3])
    grey = pixels(1)
    picture = load_picture(png(grey) if kind == "png" else tiff(grey[..., 0]))
    assert np.array_equal(picture.deep.values, np.repeat(grey, 3, 2))


def test_eight_bits_stay_eight_bits():
    rgb = rounded(pixels())
    for data in (png(rgb), tiff(rgb), cv2.imencode(".jpg", rgb)[1].tobytes()):
        assert load_picture(data).deep is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_unchanged_pixels_are_written_bit_for_bit(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    source = png(pixels())
    body = exif.tobytes()[6:]
    chunk = len(body).to_bytes(4, "big") + b"eXIf" + body
    chunk += __import__("zlib").crc32(chunk[4:]).to_bytes(4, "big")
    picture = load_picture(source[:33] + chunk + source[33:])
    eight = load_picture(Image.fromarray(rounded(pixels())))
    turned = {1: lambda x: x, 3: lambda x: x[::-1, ::-1], 5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, 3)}
    turned |= {7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: lambda x: np.rot90(x)}
    expected = turned[orientation](pixels())
    assert np.array_equal(picture.rgb, turned[orientation](eight.rgb))
    rgb = picture.rgb.copy()
    rgb[5:9, 3:8] = 200
    rgb[7, 4] = picture.rgb[7, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_picture(picture.to_pil(rgb), tmp_path / f"x{suffix}")
    again = load_picture(tmp_path / f"x{suffix}")
    same = (rgb == picture.rgb).all(2)
    assert np.array_equal(again.deep.values[same], expected[same])
    assert np.abs(again.rgb.astype(int) - rgb).max() <= 1
    with Image.open(tmp_path / f"x{suffix}") as image:
        assert image.getexif()[0x010F] == "Maker" and image.getexif().get(0x0112, 1) == 1


def test_the_change_keeps_the_tones_between_two_levels():
    values = np.full((1, 4, 3), 25_700, np.uint16) + np.arange(4, dtype=np.uint16)[None, :, None] * 10
    before = rounded(values)
    out = DeepPixels(values).edited(before, (before + 50).astype(np.uint8))
    assert np.array_equal(out, values + 50 * 257)
    assert np.array_equal(DeepPixels(values).edited(before, np.full_like(before, 255)).max(), 65_535)
    floats = DeepPixels((values / 65_535).astype(np.float32))
    assert np.allclose(floats.edited(before, before + 50), values / 65_535 + 50 / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiffs_are_read_and_written_as_floats(tmp_path, kind, channels):
    values = (pixels(channels) / 65_535).astype(kind)
    picture = load_picture(tiff(values if channels == 3 else values[..., 0]))
    assert picture.deep.values.dtype == np.float32
    assert np.array_equal(picture.deep.values[..., :1], values[..., :1].astype(np.float32))
    assert np.abs(picture.rgb[..., 0] - values[..., 0].astype(np.float32) * 255).max() <= 0.5001
    rgb = picture.rgb.copy()
    rgb[:3] = 255 - rgb[:3]
    save_picture(picture.to_pil(rgb), tmp_path / "x.tif")
    again = load_picture(tmp_path / "x.tif")
    assert np.array_equal(again.deep.values[3:], picture.deep.values[3:])
    with pytest.warns(UserWarning, match="floating-point pixels, of which PNG keeps 8; TIFF keeps them"):
        save_picture(picture.to_pil(), tmp_path / "x.png")


def test_what_a_format_cannot_hold_is_said(tmp_path):
    picture = load_picture(png(pixels()))
    for suffix in ("jpg", "webp"):
        with pytest.warns(UserWarning, match="16 bits a colour, of which .* keeps 8; PNG or TIFF keeps them"):
            save_picture(picture.to_pil(), tmp_path / f"x.{suffix}")
    smaller = picture.to_pil().resize((10, 10))
    save_picture(smaller, tmp_path / "small.png")  # no longer the photograph's pixels
    assert load_picture(tmp_path / "small.png").rgb.shape == (10, 10, 3)


def test_floats_out_of_range_and_damage_are_refused():
    with pytest.raises(ImageError, match=r"holds floats .*, and 0..1 is expected"):
        load_picture(tiff(np.full((*SHAPE, 3), 255, np.float32)))
    with pytest.raises(ImageError, match="holds floats nan"):
        load_picture(tiff(np.full((*SHAPE, 3), np.nan, np.float32)))
    whole = tiff((pixels() / 65_535).astype(np.float32))
    for data in (whole[: len(whole) // 2], png(pixels())[:-200], tiff(pixels())[:-500]):
        with pytest.raises(ImageError, match="damaged|truncated|known format"):
            load_picture(data)
    with pytest.raises(ImageError, match="too large|known format"):
        load_picture(tiff(np.zeros((2000, 2000, 3), np.float32)), max_pixels=1_000_000)


def test_pictures_go_through_processes():
    import pickle

    picture = load_picture(png(pixels()))
    again = pickle.loads(pickle.dumps(picture))
    assert isinstance(again, Picture) and np.array_equal(again.deep.values, picture.deep.values)

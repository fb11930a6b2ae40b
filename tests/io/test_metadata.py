"""What a photograph says of itself: kept, without pictures of the unedited face, and marked as edited."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from emoedit.io.images import load_picture, save_picture
from emoedit.io.metadata import EDITED, IPTC_EXT, MADE, clean_xmp, iptc_segment, mark_edited, read_source_type
from emoedit.types import ImageError

XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:GImage="http://ns.google.com/photos/1.0/image/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"
 xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/"
 GImage:Data="c2VjcmV0LXBpY3R1cmU=" hdrgm:Version="1.0" GCamera:MotionPhoto="1" xmp:Rating="4"
 xmpNote:HasExtendedXMP="0123"><dc:creator><rdf:Seq><rdf:li>J\xc3\xbcrgen</rdf:li></rdf:Seq></dc:creator>
<xmp:Thumbnails><rdf:Alt><rdf:li xmlns:xmpGImg="http://ns.adobe.com/xap/1.0/g/img/" rdf:parseType="Resource">
<xmpGImg:image>c2VjcmV0LXBpY3R1cmU=</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails></rdf:Description>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
SECRET = b"c2VjcmV0LXBpY3R1cmU="


def iptc(*sets: tuple[int, int, bytes]) -> bytes:
    return b"".join(
        bytes([0x1C, record, number]) + len(text).to_bytes(2, "big") + text for record, number, text in sets
    )


IPTC = iptc((2, 80, b"Somebody"), (2, 120, "Ein Gesicht, fröhlich".encode()), (2, 202, b"preview" * 9))


def source(kind: str) -> bytes:
    """A photograph with everything in it that its format holds."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 37, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Jürgen"
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: b"a preview of the maker's"}
    options = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    if kind != "WEBP":
        options["dpi"] = (300, 300)
    if kind == "JPEG":
        options |= {"xmp": XMP, "comment": "ein Lächeln".encode(), "extra": iptc_segment(IPTC), "quality": 95}
    elif kind == "WEBP":
        options |= {"xmp": XMP, "lossless": True}
    elif kind == "PNG":
        options["pnginfo"] = info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_itxt("Comment", "ein Lächeln")
        info.add_text("Author", "Somebody")
        info.add_text("Raw profile type exif", "a preview in hexadecimal")
    else:
        exif[700], exif[33723] = XMP, IPTC
        options["exif"] = exif.tobytes()
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def save(picture, path: Path, **options: object) -> Image.Image:
    """The edited photograph as a file, and that opened."""
    rgb = picture.rgb.copy()
    rgb[3:9, 3:9] = 255 - rgb[3:9, 3:9]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*the IPTC block of the photo has no place in")
        save_picture(picture.to_pil(rgb), path, **options)
    image = Image.open(path)
    image.load()
    return image


@pytest.mark.parametrize(("kind", "suffix"), itertools.product(["JPEG", "PNG", "WEBP", "TIFF"], repeat=2))
def test_metadata_survives_between_all_formats(tmp_path, kind, suffix):
    picture = load_picture(source(kind))
    path = tmp_path / f"x.{suffix.lower()}"
    image = save(picture, path)
    again = load_picture(path)
    for each in (picture, again):
        assert b"J\xc3\xbcrgen" in each.metadata.xmp and b'xmp:Rating="4"' in each.metadata.xmp
        exif = Image.Exif()
        exif.load(each.exif)
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert ExifTags.Base.MakerNote not in exif.get_ifd(ExifTags.IFD.Exif)
        assert each.icc_profile is not None
    data = path.read_bytes()
    assert SECRET not in data and b"preview" not in data
    assert read_source_type(image.info["xmp"]) == EDITED and read_source_type(picture.metadata.xmp) is None
    if "WEBP" not in (kind, suffix):
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    if {kind, suffix} <= {"JPEG", "TIFF"}:
        assert again.metadata.iptc == iptc(*[(2, 80, b"Somebody"), (2, 120, "Ein Gesicht, fröhlich".encode())])
    if {kind, suffix} <= {"JPEG", "PNG"}:
        assert again.metadata.texts["Comment"] == "ein Lächeln"
    if kind == suffix == "PNG":
        assert again.metadata.texts["Author"] == "Somebody" and "Raw profile type exif" not in again.metadata.texts


def test_a_mark_only_where_something_was_changed(tmp_path):
    picture = load_picture(source("JPEG"))
    save_picture(picture.to_pil(), tmp_path / "same.png")
    save_picture(picture.to_pil(picture.rgb), tmp_path / "strength-0.png")
    for name in ("same.png", "strength-0.png"):
        assert read_source_type(load_picture(tmp_path / name).metadata.xmp) is None
    assert read_source_type(save(picture, tmp_path / "no.png", mark=False).info["xmp"]) is None
    bare = load_picture(np.zeros((8, 8, 3), np.uint8))
    save_picture(bare.to_pil(np.ones((8, 8, 3), np.uint8)), tmp_path / "bare.jpg")
    assert read_source_type(load_picture(tmp_path / "bare.jpg").metadata.xmp) == EDITED


def test_marks_that_are_there_are_replaced_or_kept():
    marked = mark_edited(mark_edited(XMP))
    assert marked.count(b"DigitalSourceType=") == 1 and read_source_type(marked) == EDITED
    made = XMP.replace(b'xmp:Rating="4"', b'xmlns:Iptc4xmpExt="%s" Iptc4xmpExt:DigitalSourceType="%s"'
                       % (IPTC_EXT.encode(), MADE.encode()))  # fmt: skip
    assert read_source_type(mark_edited(made)) == MADE  # nothing but what a model drew stays so
    capture = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    entry = f'<i:DigitalSourceType xmlns:i="{IPTC_EXT}">{capture}</i:DigitalSourceType><dc:creator>'
    element = XMP.replace(b"<dc:creator>", entry.encode())
    assert read_source_type(element).endswith("digitalCapture") and read_source_type(mark_edited(element)) == EDITED
    assert b"digitalCapture" not in mark_edited(element)
    assert read_source_type(None) is None and read_source_type(b"<x") is None


@pytest.mark.parametrize(
    "packet",
    [
        b"not xml",
        b"<a/>",
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + XMP,
        XMP.decode().encode("utf-16"),
        b"<x>" * 60_000,
        XMP + b" " * 2**20 + b"x",
        b"",
    ],
    ids=["text", "no rdf", "entities", "utf-16", "deep", "long", "empty"],
)
def test_damaged_xmp_costs_only_the_xmp(packet):
    with pytest.warns(UserWarning, match="its XMP is damaged and is left out"):
        assert clean_xmp(packet, "x.jpg") is None


def test_damaged_iptc_costs_only_the_iptc():
    image = Image.new("RGB", (8, 8))
    for data in (b"\x1c\x02", b"nothing of the kind", b"\x1c\x02\x50\xff\xffx"):
        image.info["photoshop"] = {0x0404: data}
        with pytest.warns(UserWarning, match="its IPTC is damaged"):
            assert load_picture(image).metadata.iptc is None


def test_what_has_no_room_is_left_out_and_said(tmp_path):
    long = XMP.replace(b"J\xc3\xbcrgen", b"x" * 70_000)
    image = Image.new("RGB", (8, 8))
    image.info["xmp"] = long
    picture = load_picture(image)
    with pytest.warns(UserWarning, match="the XMP of the photo is too large for a JPEG"):
        save_picture(picture.to_pil(np.ones((8, 8, 3), np.uint8)), tmp_path / "x.jpg")
    assert read_source_type(load_picture(tmp_path / "x.jpg").metadata.xmp) == EDITED  # the mark has room
    jpeg = load_picture(source("JPEG"))
    with pytest.warns(UserWarning, match="the IPTC block of the photo has no place in PNG"):
        save_picture(jpeg.to_pil(), tmp_path / "x.png")


def test_jpeg_xl_is_read_where_its_package_is(tmp_path):
    pytest.importorskip("pillow_jxl")
    Image.fromarray(np.full((64, 96, 3), (200, 90, 30), np.uint8)).save(tmp_path / "x.jxl", lossless=True)
    code = "from emoedit.io.images import load_picture; print(load_picture('x.jxl').rgb.max((0, 1)).tolist())"
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=where, capture_output=True, text=True)
    assert done.stdout == "[200, 90, 30]\n", done.stderr  # nothing has to be imported first
    (tmp_path / "cut.jxl").write_bytes((tmp_path / "x.jxl").read_bytes()[:20])
    with pytest.raises(ImageError, match="damaged|truncated|not a picture"):
        load_picture(tmp_path / "cut.jxl")


def test_heic_is_read_with_its_extra(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(np.full((64, 96, 3), (200, 90, 30), np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Jürgen"
    heif.from_pillow(image).save(tmp_path / "x.heic", quality=90, exif=exif.tobytes())
    picture = load_picture(tmp_path / "x.heic")
    assert picture.rgb.shape == (64, 96, 3) and np.abs(picture.rgb.astype(int) - (200, 90, 30)).max() < 8
    assert b"J" in picture.exif
    (tmp_path / "cut.heic").write_bytes((tmp_path / "x.heic").read_bytes()[:200])
    with pytest.raises(ImageError, match="damaged|truncated"):
        load_picture(tmp_path / "cut.heic")

"""Metadata of photographs: EXIF, XMP, IPTC, resolution, comments; and the mark of an edit.

Kept is what still holds for the edited picture. Pictures inside the metadata (previews, depth and gain maps, the frame
before a phone's own processing) would show the face as it was, and go.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.dom import minidom

from PIL import ExifTags, Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
SOURCE_TYPE = "DigitalSourceType"
NEWSCODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
EDITED = NEWSCODES + "compositeWithTrainedAlgorithmicMedia"  # a photograph with parts that a model drew
MADE = NEWSCODES + "trainedAlgorithmicMedia"  # nothing but what a model drew; stays so when it is edited
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
MAX_XMP = 2**20  # bytes; a JPEG holds 64 KiB
MAX_TEXT = 2**16  # characters of one comment

# Namespaces of XMP that hold pictures, or point at pictures behind the first one of the file.
_PICTURES = {
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/container/item/",
    "http://ns.google.com/photos/dd/1.0/device/",
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.adobe.com/xap/1.0/g/img/",
    "http://ns.adobe.com/xmp/note/",
    "http://ns.apple.com/HDRGainMap/1.0/",
}
_PICTURE_NAMES = ("Thumbnails", "MotionPhoto", "MicroVideo")  # what the local name begins with, in any namespace

# The tags that tell of the photograph. All others tell how its bytes were laid out in the file it came from, which
# would be wrong in a new file (a TIFF written with a foreign ImageWidth or StripOffsets cannot be opened again).
_KEPT_TAGS: list[int] = [
    ExifTags.Base[name]
    for name in (
        "ImageDescription Make Model Orientation XResolution YResolution ResolutionUnit Software DateTime Artist "
        "HostComputer Copyright Rating XPTitle XPComment XPAuthor XPKeywords XPSubject"
    ).split()
]
_KEPT_FOLDERS: list[int] = [ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo]
_DROPPED_TAGS: list[int] = [
    ExifTags.IFD.Interop,
    ExifTags.Base.MakerNote,
]  # offsets into the old block; previews of its own


@dataclass(frozen=True)
class Metadata:
    """What an edited picture keeps beside its colour profile and EXIF.

    Args:
        dpi: dots per inch, across and down.
        xmp: an XMP packet without pictures in it.
        iptc: IPTC-IIM records, as they stand in a Photoshop resource block.
        texts: keyword -> text; ``Comment`` is a JPEG's.
    """

    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    def to_info(self) -> dict[str, object]:
        """The entries of a PIL picture's ``.info`` that say the same."""
        pairs = {"dpi": self.dpi, "xmp": self.xmp, "iptc": self.iptc, "texts": dict(self.texts)}
        return {name: value for name, value in pairs.items() if value}


def read_metadata(image: Image.Image, label: str) -> Metadata:
    """What a loaded PIL picture carries.

    Args:
        image: PIL picture whose pixels have been read.
        label: names it in warnings.

    Returns:
        Damaged parts are left out with a warning each.
    """
    info = image.info
    dpi = info.get("dpi")
    try:
        dpi = tuple(float(each) for each in dpi) if dpi else None
        dpi = dpi if dpi is not None and len(dpi) == 2 and all(1 < each < 1e5 for each in dpi) else None
    except (TypeError, ValueError, ZeroDivisionError):
        dpi = None
    xmp = info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return Metadata(dpi, clean_xmp(xmp, label) if xmp else None, _read_iptc(image, label), _read_texts(image))


# --- EXIF -----------------------------------------------------------------------------------------------------------


def read_exif(image: Image.Image, label: str) -> tuple[int, bytes | None]:
    """The orientation (1 to 8), and the EXIF block a result may carry.

    The block is rebuilt, not copied: the preview picture that cameras put behind it (IFD1) and those in maker notes
    would show the face as it was before the edit.

    Args:
        image: a loaded PIL picture.
        label: names it in warnings.
    """
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        kept = Image.Exif()
        for tag in _KEPT_TAGS:
            if tag in exif:
                kept[tag] = exif[tag]
        for place in _KEPT_FOLDERS:
            folder = dict(exif.get_ifd(place))
            for dropped in _DROPPED_TAGS:
                folder.pop(dropped, None)
            if folder:
                kept[place] = folder
        if not kept:
            return orientation, None
        kept[ExifTags.Base.Orientation] = 1
        return orientation, kept.tobytes()
    except Exception as error:  # the pixels are sound, so the photo is read without its EXIF
        warnings.warn(f"{label}: its EXIF is damaged and is left out ({error})", stacklevel=2)
        return orientation, None


# --- XMP ------------------------------------------------------------------------------------------------------------


def clean_xmp(packet: bytes, label: str) -> bytes | None:
    """An XMP packet without the pictures in it; None, with a warning, where it cannot be read.

    Args:
        packet: UTF-8, with or without the ``xpacket`` around it.
        label: names the picture in the warning.
    """
    try:
        document = _parse(packet)
        for element in list(_elements(document)):
            if _shows_pictures(element):
                if element.parentNode is not None:
                    element.parentNode.removeChild(element)
                continue
            for attribute in list(element.attributes.values()):
                if _shows_pictures(attribute):
                    element.removeAttributeNode(attribute)
        return _packet(document)
    except Exception as error:  # the pixels are sound, so the photo is read without its XMP
        warnings.warn(f"{label}: its XMP is damaged and is left out ({str(error)[:100]})", stacklevel=2)
        return None


def mark_edited(packet: bytes | None) -> bytes:
    """An XMP packet that says that a model drew parts of the picture: IPTC's ``DigitalSourceType``.

    A picture that says that nothing but a model made it goes on saying so.


    Source: IPTC Photo Metadata Standard 2025.1, "Digital Source Type".

    Args:
        packet: the photograph's own XMP, as ``clean_xmp`` gives it, or None.
    """
    empty = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s"/></x:xmpmeta>' % RDF.encode()
    document = _parse(packet or empty)
    root = document.getElementsByTagNameNS(RDF, "RDF")[0]
    value = MADE if read_source_type(packet) == MADE else EDITED
    for element in list(_elements(document)):
        if element.namespaceURI == IPTC_EXT and element.localName == SOURCE_TYPE and element.parentNode is not None:
            element.parentNode.removeChild(element)
        elif element.hasAttributeNS(IPTC_EXT, SOURCE_TYPE):
            element.removeAttributeNS(IPTC_EXT, SOURCE_TYPE)
    prefix = next((root.prefix for _ in "1" if root.prefix), "rdf")
    entry = document.createElementNS(RDF, f"{prefix}:Description")
    entry.setAttributeNS(RDF, f"{prefix}:about", "")
    entry.setAttribute("xmlns:Iptc4xmpExt", IPTC_EXT)
    entry.setAttributeNS(IPTC_EXT, f"Iptc4xmpExt:{SOURCE_TYPE}", value)
    root.appendChild(entry)
    return _packet(document)


def read_source_type(packet: bytes | None) -> str | None:
    """The ``DigitalSourceType`` that an XMP packet states, or None.

    Args:
        packet: as a file has it; None where it has none.
    """
    if not packet:
        return None
    try:
        document = _parse(packet)
    except Exception:  # a damaged packet states nothing
        return None
    for element in _elements(document):
        if element.hasAttributeNS(IPTC_EXT, SOURCE_TYPE):
            return str(element.getAttributeNS(IPTC_EXT, SOURCE_TYPE))
        if element.namespaceURI == IPTC_EXT and element.localName == SOURCE_TYPE:
            text = "".join(node.data for node in element.childNodes if node.nodeType == node.TEXT_NODE).strip()
            return text or str(element.getAttributeNS(RDF, "resource")) or None
    return None


def _parse(packet: bytes) -> minidom.Document:
    packet = packet.strip(b"\0 \n\r\t")
    if len(packet) > MAX_XMP:
        raise ValueError(f"it has more than {MAX_XMP:,} bytes")
    if b"<!" in packet.replace(b"<!--", b"").replace(b"<![CDATA[", b"") or b"\0" in packet:
        raise ValueError("it declares entities, or is not UTF-8")  # entities can stand for any number of others
    if packet.count(b"<") > 50_000:
        raise ValueError("it has more than 50,000 elements")
    document = minidom.parseString(packet)
    if not document.getElementsByTagNameNS(RDF, "RDF"):
        raise ValueError("it holds no RDF")
    return document


def _packet(document: minidom.Document) -> bytes:
    body = b"" if document.documentElement is None else document.documentElement.toxml().encode()
    return b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>' + body + b'<?xpacket end="w"?>'


def _elements(node: minidom.Node) -> Iterator[minidom.Element]:
    """All elements below a node; without recursion, whatever their depth."""
    waiting = list(node.childNodes)
    while waiting:
        found = waiting.pop()
        if found.nodeType == found.ELEMENT_NODE:
            yield found
            waiting.extend(found.childNodes)


def _shows_pictures(node: minidom.Node) -> bool:
    name = node.localName or ""
    return (node.namespaceURI or "") in _PICTURES or name.startswith(_PICTURE_NAMES)


# --- IPTC and comments ----------------------------------------------------------------------------------------------

IPTC_RESOURCE = 0x0404  # of Photoshop's resource blocks
IPTC_TAG = 33723  # of TIFF
_PREVIEWS = {(2, 200), (2, 201), (2, 202)}  # record, data set


def _read_iptc(image: Image.Image, label: str) -> bytes | None:
    blocks = image.info.get("photoshop")
    data = blocks.get(IPTC_RESOURCE) if isinstance(blocks, dict) else None
    if data is None and hasattr(image, "tag_v2"):
        data = image.tag_v2.get(IPTC_TAG)
    if data is None:
        data = image.info.get("iptc")
    if not data:
        return None
    try:
        return _without_previews(bytes(data)) or None
    except (TypeError, ValueError, IndexError) as error:
        warnings.warn(f"{label}: its IPTC is damaged and is left out ({error})", stacklevel=2)
        return None


def _without_previews(data: bytes) -> bytes:
    """IPTC-IIM 4.2: each data set is 0x1C, record, number, two bytes of length, content."""
    kept, at, padded = bytearray(), 0, data
    data = data.rstrip(b"\0")  # blocks are filled up; what of it belongs to the last content is taken from ``padded``
    while at < len(data):
        if data[at] != 0x1C:
            raise ValueError("a data set does not begin as one")
        record, number, length = data[at + 1], data[at + 2], int.from_bytes(data[at + 3 : at + 5], "big")
        end = at + 5 + length
        if length & 0x8000 or end > len(padded):  # a length of more bytes; or more content than there is
            raise ValueError("a data set is longer than the block")
        if (record, number) not in _PREVIEWS:
            kept += padded[at:end]
        at = end
    return bytes(kept)


def iptc_segment(data: bytes) -> bytes:
    """The APP13 segment of a JPEG that holds IPTC records; empty where they are too long for one.

    Args:
        data: IPTC records.
    """
    block = b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(data)) + data + b"\0" * (len(data) % 2)
    content = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content if len(content) <= 65_533 else b""


def _read_texts(image: Image.Image) -> dict[str, str]:
    """Comments: a JPEG's or GIF's one, and what a PNG says under any keyword."""
    found: dict[str, str] = {}
    texts = getattr(image, "text", None) or image.info.get("texts")
    for name, text in texts.items() if isinstance(texts, dict) else ():
        # Profiles are read elsewhere; these texts are theirs in hexadecimal, with previews and all.
        if name[:11] != "Raw profile" and name != "XML:com.adobe.xmp" and len(str(text)) <= MAX_TEXT:
            found[str(name)[:79]] = str(text)
    comment = image.info.get("comment")
    if isinstance(comment, bytes):
        raw = comment
        try:
            comment = raw.decode("utf-8")
        except UnicodeDecodeError:
            comment = raw.decode("latin-1")
    if isinstance(comment, str) and comment.strip("\0 ") and len(comment) <= MAX_TEXT:
        found.setdefault("Comment", comment.strip("\0"))
    return found

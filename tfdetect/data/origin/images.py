"""Find the metadata of an image: EXIF, XMP, texts, and whether there are content credentials. No pixel is decoded.

Pillow parses JPEG, TIFF and AVIF, and libheif HEIC. The chunks of PNG and WebP are walked here: Pillow decodes all pixels of a
PNG to reach the texts after them, drops all texts if one unpacks to too many bytes, and reserves memory for all pixels of a WebP.
"""

import io
from collections.abc import Callable
from itertools import islice
from typing import Any

from tfdetect.data.media import images
from tfdetect.data.media.boxes import iter_boxes
from tfdetect.data.origin.content import MAX_PART, MAX_XMP, Content
from tfdetect.data.origin.meaning import NAMES

MAX_BOXES = 10_000
XMP_KEY = "XML:com.adobe.xmp"  # of an iTXt chunk (XMP specification, part 3)
# Of IPTC's IIM, record 2, which has no Digital Source Type. By-lines name persons, who are nobody's business, or generators.
BYLINE, UTF8_OF_IPTC, MAX_IPTC = "By-line", b"\x1b%G", 10
IPTC_KEYS = {65: "Originating Program", 80: BYLINE, 110: "Credit", 115: "Source", 55: "Date Created", 120: "Caption"}
C2PA_TIFF_TAG, XMP_TIFF_TAG = 0xCD41, 700
# Boxes of these types hold content credentials (C2PA specification, "Embedding manifests into BMFF-based assets") and XMP.
C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def read_image(data: bytes, form: str) -> Content:
    """Return the metadata of an image; `form` is that of `sniff.image_format`."""
    content = Content()
    with content.tolerating(f"The {form.upper()} file"):
        if form in _READERS:
            _READERS[form](data, content)
    return content


def _read_jpeg(data: bytes, content: Content) -> None:
    from PIL.JpegImagePlugin import JpegImageFile

    image: Any = JpegImageFile(io.BytesIO(data))
    content.load_exif(image.info.get("exif", b""))
    content.add_xmp(image.info.get("xmp", b""))
    has_iptc = False
    for name, segment in image.applist:
        if name == "COM":
            content.add_text("JPEG comment", "", segment.decode("utf-8", "replace"))
        elif name == "APP13":
            has_iptc = True
        elif name == "APP11" and segment[:2] == b"JP" and b"jumb" in segment[:64]:  # ISO/IEC 19566-5, annex D
            content.has_credentials = content.has_credentials or b"c2pa" in segment[:128]
    if has_iptc:
        with content.tolerating("IPTC-IIM"):
            _read_iptc(image, content)


def _read_iptc(image: Any, content: Content) -> None:
    """Read the older binary records of IPTC (IIM 4.2) in a JPEG file's Photoshop segment."""
    from PIL import IptcImagePlugin

    records: Any = IptcImagePlugin.getiptcinfo(image) or {}
    charset = "utf-8" if records.get((1, 90)) == UTF8_OF_IPTC else "latin-1"
    for number, key in IPTC_KEYS.items():
        values = records.get((2, number), ())
        for value in ([values] if isinstance(values, bytes) else values)[:MAX_IPTC]:
            text = value.decode(charset, "replace")
            is_shown = key != BYLINE or NAMES.search(text)
            content.add_text("IPTC-IIM", key, text if is_shown else "there is one, which is not shown")


def _read_png(data: bytes, content: Content) -> None:
    for name, start, end in images.iter_png_chunks(data):
        if name == b"eXIf":
            content.load_exif(data[start : min(end, start + MAX_PART)])
        elif name == b"caBX":
            content.has_credentials = True
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            with content.tolerating(f"A {name.decode()} chunk"):
                key, text = _png_text(name, data[start : min(end, start + MAX_PART)], content)
                if key == XMP_KEY:
                    content.add_xmp(text)
                else:
                    content.add_text("PNG text", key, _decode(text))


def _png_text(name: bytes, body: bytes, content: Content) -> tuple[str, bytes]:
    """Return key and text of a chunk (PNG specification, section 11.3.3)."""
    key, _, rest = body.partition(b"\0")
    label = f"The PNG text {key[:79].decode('latin-1')}"
    if name == b"zTXt":
        rest = content.unpack(rest[1:], label)
    elif name == b"iTXt":
        is_packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[2]
        rest = content.unpack(rest, label) if is_packed else rest
    return key[:79].decode("latin-1"), rest


def _decode(text: bytes) -> str:
    """Return a text in UTF-8, which many programs write where the standard asks for Latin-1, or else in Latin-1."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _read_webp(data: bytes, content: Content) -> None:
    for name, start, end in images.iter_webp_chunks(data):
        if name == b"EXIF":
            content.load_exif(data[start : min(end, start + MAX_PART)])
        elif name == b"XMP ":
            content.add_xmp(data[start : min(end, start + MAX_XMP + 1)])
        content.has_credentials = content.has_credentials or name == b"C2PA"


def _read_tiff(data: bytes, content: Content) -> None:
    from PIL.TiffImagePlugin import TiffImageFile

    image: Any = TiffImageFile(io.BytesIO(data))
    content.exif = image.getexif()
    content.has_credentials = C2PA_TIFF_TAG in image.tag_v2
    content.add_xmp(bytes(image.tag_v2.get(XMP_TIFF_TAG, b"")))


def _read_heif(data: bytes, content: Content) -> None:
    find_boxes(data, content)
    if b"avif" in data[8:64] or b"avis" in data[8:64]:
        from PIL.AvifImagePlugin import AvifImageFile

        image: Any = AvifImageFile(io.BytesIO(data))
    else:
        import pi_heif

        found: Any = pi_heif.open_heif(io.BytesIO(data))
        image = found[found.primary_index]
    content.load_exif(image.info.get("exif") or b"")
    content.add_xmp(image.info.get("xmp") or b"")


def find_boxes(data: Any, content: Content) -> None:
    """Find XMP and content credentials among the boxes of a file; `data` may be a memory map."""
    for name, start, end in islice(iter_boxes(data, 0, len(data)), MAX_BOXES):
        if name == b"uuid" and data[start : start + 16] == XMP_UUID:
            content.add_xmp(data[start + 16 : min(end, start + 17 + MAX_XMP)])
        content.has_credentials = content.has_credentials or (name == b"uuid" and data[start : start + 16] == C2PA_UUID)


_READERS: dict[str, Callable[[bytes, Content], None]] = {
    "jpeg": _read_jpeg, "png": _read_png, "webp": _read_webp, "tiff": _read_tiff, "heif": _read_heif, "jpeg2000": find_boxes,
}  # fmt: skip

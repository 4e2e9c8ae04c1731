"""The statements of XMP (ISO 16684-1): the program, its history, IPTC's Digital Source Type, and whether there is a position."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from tfdetect.data.origin.meaning import statement
from tfdetect.data.origin.statement import MAX_STATEMENTS, Statement
from tfdetect.errors import UserError

_IPTC, _XMP = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "http://ns.adobe.com/xap/1.0/"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_KEYS = {
    (_XMP, "CreatorTool"): "CreatorTool", (_XMP, "CreateDate"): "CreateDate", (_TIFF, "Make"): "Make", (_TIFF, "Model"): "Model",
    (_TIFF, "Software"): "Software", (_EXIF, "UserComment"): "UserComment", (_IPTC, "DigitalSourceType"): "DigitalSourceType",
    (_IPTC, "DigitalSourcefileType"): "DigitalSourcefileType", (_IPTC, "AISystemUsed"): "AISystemUsed",
    ("http://ns.adobe.com/photoshop/1.0/", "Credit"): "Credit",
    ("http://ns.adobe.com/xap/1.0/sType/ResourceEvent#", "softwareAgent"): "HistorySoftwareAgent",
    ("http://purl.org/dc/elements/1.1/", "description"): "Description",
    ("http://www.tc260.org.cn/ns/AIGC/1.0/", "AIGC"): "AIGC",
}  # fmt: skip
_PROVENANCE = ("http://purl.org/dc/terms/", "provenance")  # the address of content credentials that are stored elsewhere
_RESOURCE = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource"  # a property whose value is an address
_POSITION = ((_EXIF, "GPSLatitude"), (_EXIF, "GPSLongitude"))


def properties(packet: bytes) -> dict[tuple[str, str], list[str]]:
    """Return the texts of a packet's properties by namespace and name, whether they are attributes or elements.

    Raises UserError for a document type, which could declare entities that unpack to any size, and ParseError for broken XML.
    """
    text = packet.decode("utf-16" if packet[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace").strip("\0\ufeff")
    if "<!DOCTYPE" in text:
        raise UserError("it declares a document type, which is refused")
    found: dict[tuple[str, str], list[str]] = {}
    for element in ElementTree.fromstring(text).iter():
        inner = "".join(element.itertext()) if _name(element.tag) in _KEYS else element.text or ""
        for tag, value in ((element.tag, inner.strip() or element.get(_RESOURCE, "")), *element.attrib.items()):
            if value.strip():
                found.setdefault(_name(tag), []).append(value.strip())
    return found


def _name(tag: str) -> tuple[str, str]:
    space, _, name = re.sub(r"^\{", "", tag).rpartition("}")
    return space, name


def statements(found: dict[tuple[str, str], list[str]]) -> Iterator[Statement]:
    """Yield the statements of a packet's properties, each text once."""
    for name, key in _KEYS.items():
        for text in list(dict.fromkeys(found.get(name, ())))[:MAX_STATEMENTS]:
            yield statement("XMP", key, text)
    for address in found.get(_PROVENANCE, ())[:1]:
        yield Statement("credentials", "XMP provenance", statement("", "", address).text,
                        "where content credentials are stored, which was not asked")  # fmt: skip


def position(found: dict[tuple[str, str], list[str]]) -> str:
    """Return latitude and longitude as the packet writes them; "" if there are none."""
    return ", ".join(found[name][0] for name in _POSITION) if all(name in found for name in _POSITION) else ""

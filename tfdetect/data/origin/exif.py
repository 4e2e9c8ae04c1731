"""The statements of EXIF (JEITA CP-3451): camera, program, texts, and whether there is a position."""

from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image

from tfdetect.data.origin.meaning import statement
from tfdetect.data.origin.statement import Statement

# Pillow names the tags. Private data such as names and serial numbers are left out.
_MAIN = ("Make", "Model", "Software", "ProcessingSoftware", "ImageDescription", "XPTitle", "XPComment", "XPSubject")
_SHOT = ("LensModel", "DateTimeOriginal", "UserComment")
_TAGS = {name: ExifTags.Base[name].value for name in (*_MAIN, *_SHOT, "MakerNote", "ExposureTime", "FNumber", "ISOSpeedRatings")}
_CHARSETS = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "iso2022_jp", b"\0" * 8: "utf-8"}


def statements(exif: Image.Exif) -> Iterator[Statement]:
    """Yield the statements. Raises errors of many types where the data are damaged."""
    yield from _texts(exif, _MAIN)
    shot = exif.get_ifd(ExifTags.IFD.Exif)
    yield from _texts(shot, _SHOT)
    if exposure := ", ".join(_exposure(shot)):
        yield statement("EXIF", "exposure", exposure)
    if note := shot.get(_TAGS["MakerNote"]):
        yield statement("EXIF", "MakerNote", f"{len(note):,} bytes in a format of the camera's maker")


def _texts(directory: Any, names: tuple[str, ...]) -> Iterator[Statement]:
    for name in names:
        value = directory.get(_TAGS[name])
        if text := _decode(value, name).strip("\0 ") if value else "":
            yield statement("EXIF", name, text)


def _decode(value: Any, name: str) -> str:
    """Return a text; the encoding of comments is declared in their first bytes, and that of XP fields is UTF-16."""
    if not isinstance(value, bytes | tuple):
        return str(value)
    data = bytes(value)
    if name.startswith("XP"):
        return data.decode("utf-16-le", "replace")
    if name != "UserComment":
        return data.decode("utf-8", "replace")
    charset, data = _CHARSETS.get(data[:8], "utf-8"), data[8:] if data[:8] in _CHARSETS else data
    if charset == "utf-16" and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):  # the standard does not say in which order
        charset = "utf-16-be" if data[::2].count(0) >= data[1::2].count(0) else "utf-16-le"
    return data.decode(charset, "replace")


def _exposure(shot: Any) -> Iterator[str]:
    """Yield exposure time, aperture and sensitivity, as photographers write them."""
    if seconds := float(shot.get(_TAGS["ExposureTime"]) or 0):
        yield f"{seconds:g} s" if seconds >= 0.3 else f"1/{round(1 / seconds)} s"
    if aperture := float(shot.get(_TAGS["FNumber"]) or 0):
        yield f"f/{aperture:g}"
    if speed := shot.get(_TAGS["ISOSpeedRatings"]):
        yield f"ISO {speed}"


def position(exif: Image.Exif) -> str:
    """Return latitude and longitude in degrees, such as "52.52000, -13.40500"; "" if there are none."""
    found = exif.get_ifd(ExifTags.IFD.GPSInfo)
    tags = (ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLongitude)
    if not all(tag in found for tag in tags):
        return ""
    return ", ".join(f"{_degrees(found[tag], found.get(tag - 1, '')):.5f}" for tag in tags)  # the tag before is the hemisphere's


def _degrees(parts: Any, hemisphere: str) -> float:
    value = sum(float(part) / 60**power for power, part in enumerate(parts))
    return -value if hemisphere.strip("\0 ").upper() in ("S", "W") else value

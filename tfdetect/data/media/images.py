"""Encoded image -> uint8 RGB pixels, upright and whole; too much of them is refused before any is decoded.

OpenCV decodes all but HEIC and AVIF (`heif.py`), and turns what EXIF says is turned. Its decoders fill what is missing with
pixels of their own: that a file has an end, and as many pixels as it announced, is looked up here.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import ExifTags, Image

from tfdetect.data.media import heif, sniff
from tfdetect.data.media.boxes import iter_boxes
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.media.upright import Turn
from tfdetect.limits import Limits

JPEG_SCANS = 100  # progressive files have about ten; each takes as long as a whole picture
TIFF_BYTES = 800_000_000  # of the samples of a TIFF: 16-bit RGBA at 100 megapixels
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # among a JPEG's pixels, where 0 and the restarts D0 to D7 are none
_LONG = (0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0))  # markers that a length follows, between scans
_SENSOR = (32803, 34892)  # how a TIFF says that its samples are those of a sensor


def decode_image(data: bytearray, limits: Limits) -> tuple[np.ndarray, str]:
    """Encoded bytes -> (height, width, 3) uint8 RGB, upright, and a note or "". Raises MediaError."""
    name = sniff.image_format(data)
    try:
        if name == "heif":
            (width, height, count), decode = heif.open_heif(data)
        else:
            (width, height), count = _MEASURES[name](data), _frames(name, data)
            decode = (lambda: _first(name, data)) if count > 1 else lambda: _decode(name, data)
        if excess := limits.check("pixels", width * height, f"pixels ({width} x {height}) announced"):
            raise MediaError(excess)
        if name == "png":
            _check_png(data)
    except (struct.error, IndexError):
        raise MediaError("truncated image: it ends within its header") from None
    frame = decode()
    tall, wide = frame.shape[:2]
    if sorted((wide, tall)) != sorted((width, height)):
        raise MediaError(f"the header says {width} x {height} pixels, the picture has {wide} x {tall}")
    return frame, f"first frame of an animation of {count}" if count > 1 else ""


def _first(name: str, data: bytearray) -> np.ndarray:
    """Of an animation, which OpenCV leaves unturned."""
    chunks = _png_chunks(data) if name == "png" else _webp_chunks(data)
    exif = Image.Exif()
    with contextlib.suppress(SyntaxError, ValueError, LookupError, EOFError, struct.error):  # a broken one turns nothing
        exif.load(next((bytes(data[start:end]) for chunk, start, end in chunks if chunk in (b"eXIf", b"EXIF")), b""))
    frame = _decode(name, data, cv2.IMREAD_IGNORE_ORIENTATION)
    return Turn.of_exif(exif.get(ExifTags.Base.Orientation, 1)).apply(frame)


def _decode(name: str, data: bytearray, more: int = 0) -> np.ndarray:
    cv2.utils.logging.setLogLevel(0)  # a damaged file is reported by the error below, not on stderr
    flags = cv2.IMREAD_COLOR
    if name == "tiff":  # what is not 8 bit, IMREAD_COLOR rounds or refuses
        flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | more)
    except cv2.error as error:
        raise MediaError(f"damaged or unsupported image: the decoder says {str(error.err)!r}") from None
    if image is None:
        raise MediaError("damaged or unsupported image: its header is good, its pixels cannot be decoded")
    image = _eight_bit(image)
    if image.ndim == 2:
        image = image[..., None].repeat(3, axis=2)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB) if image.shape[2] == 4 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)


def _eight_bit(image: np.ndarray) -> np.ndarray:
    """Bring TIFF samples to uint8: the high byte of integers; floats within 0..1 are stretched, others taken as 0..255."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if not np.issubdtype(image.dtype, np.floating) or not np.isfinite(image).all():
        raise MediaError(f"a TIFF with {image.dtype} samples that are no finite brightness: save it as 8 bit")
    scale = 255.0 if image.min() >= 0 and image.max() <= 1 else 1.0
    np.rint(np.multiply(image, scale, out=image), out=image)  # in place, for it may be large
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _jpeg(data: bytearray) -> tuple[int, int]:
    """The size in the header, once the end of its scans is found; what follows it is another picture, or a phone's video."""
    at, size, scans = 2, (0, 0), 0
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker == 0xDA:  # only here do the pixels begin: a thumbnail before them has an end marker of its own
            break
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                size = struct.unpack_from(">HH", data, at + 5)[::-1]
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    else:
        raise MediaError("damaged JPEG: no marker where one was expected")
    while (marker := data[at + 1]) != 0xD9:
        if marker == 0xDA and (scans := scans + 1) > JPEG_SCANS:
            raise MediaError(f"a JPEG of more than {JPEG_SCANS} scans, at most {JPEG_SCANS} are read")
        long = marker == 0xDA or marker in _LONG
        following = _MARKER.search(data, at + 2 + (struct.unpack_from(">H", data, at + 2)[0] if long else 0))
        if not following or data[following.end() - 1] == 0xD8:
            raise MediaError("truncated JPEG: its end marker is missing")
        at = following.start()
    return size


def _png(data: bytearray) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _check_png(data: bytearray) -> None:
    """Checksums find damaged pixels."""
    for name, start, end in _png_chunks(data):
        if end + 4 > len(data):
            raise MediaError("truncated PNG: it ends within its pixels")
        if name[:1].isupper() and zlib.crc32(data[start - 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise MediaError(f"damaged PNG: the checksum of its {name!r} chunk is wrong")


def _png_chunks(data: bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of each chunk's content up to IEND."""
    at, name = 8, b""
    while name != b"IEND":
        if at + 8 > len(data):
            raise MediaError("truncated PNG: its end chunk is missing")
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8, at + 8 + length
        at += 12 + length


def _webp(data: bytearray) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise MediaError("truncated WebP: it is shorter than its header says")
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _bmp(data: bytearray) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)  # a negative height means top row first


def _tiff(data: bytearray) -> tuple[int, int]:
    order = _TIFF[bytes(data[:4])]
    tags: dict[int, int] = {}
    start = struct.unpack_from(order + "I", data, 4)[0]
    for i in range(struct.unpack_from(order + "H", data, start)[0]):
        tag, form, count = struct.unpack_from(order + "HHI", data, start + 2 + 12 * i)
        form, at = order + ("H" if form == 3 else "I"), start + 10 + 12 * i
        tags[tag] = max(tags.get(tag, 0), struct.unpack_from(form, data, at)[0])  # libtiff takes the first of two
        if tag == 338 and tags[tag] == 2:  # alpha: called "already multiplied", libtiff leaves the colours alone
            struct.pack_into(form, data, at, 1)
        if tag == 258 and count > 2:  # too long to stand here itself
            tags[tag] = struct.unpack_from(order + "H", data, tags[tag])[0]
    if 256 not in tags or 257 not in tags:
        raise MediaError("damaged TIFF: its header names no width and height")
    if 50706 in tags or tags.get(262) in _SENSOR or (tags.get(254, 0) & 1 and 330 in tags):  # DNG, a sensor's, a small copy
        raise MediaError("a camera raw file: develop it first, and save it as JPEG or TIFF")
    bits = tags.get(277, 1) * tags.get(258, 1)
    if (unpacked := tags[256] * tags[257] * bits // 8) > TIFF_BYTES:
        raise MediaError(f"a TIFF of {unpacked} bytes when unpacked, at most {TIFF_BYTES} are read: save it as 8 bit")
    return tags[256], tags[257]


def _jpeg2000(data: bytearray) -> tuple[int, int]:
    """Of the code stream, which is what is decoded; the box around it may say otherwise."""
    within = (start for name, start, _ in iter_boxes(data, 0, len(data)) if name == b"jp2c")
    at = 0 if data[:1] == b"\xff" else next(within, len(data))
    marker, *far, left, top = struct.unpack_from(">Ixxxx4I", data, at)
    if marker != 0xFF4FFF51:
        raise MediaError("damaged JPEG 2000: its picture does not begin with a size")
    return far[0] - left, far[1] - top


def _webp_chunks(data: bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of each chunk's content."""
    at, end = 12, struct.unpack_from("<I", data, 4)[0] + 8
    while at + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, at)
        yield name, at + 8, at + 8 + size
        at += 8 + size + size % 2


def _frames(name: str, data: bytearray) -> int:
    """How many an animated WebP or PNG holds; 1, or 0, for a picture that does not move."""
    if name == "webp":
        return sum(chunk == b"ANMF" for chunk, _, _ in _webp_chunks(data))
    for chunk, start, _ in _png_chunks(data) if name == "png" else ():
        if chunk == b"acTL":
            return struct.unpack_from(">I", data, start)[0]
        if chunk == b"IDAT":  # it would have to stand before
            break
    return 1


_MEASURES = {"jpeg": _jpeg, "png": _png, "webp": _webp, "bmp": _bmp, "tiff": _tiff, "jpeg2000": _jpeg2000}

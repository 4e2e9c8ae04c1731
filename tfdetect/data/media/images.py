"""Decode images to upright uint8 RGB pixels; files that are truncated or announce too many pixels are refused first.

OpenCV decodes all formats but HEIC and AVIF (`heif.py`) and applies the EXIF orientation. Its decoders fill missing data with
invented pixels, so this module checks that a file is complete and has as many pixels as its header announces.
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
from tfdetect.data.media.orientation import Orientation
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import MAX_SIDE, Limits

MAX_JPEG_SCANS = 100  # progressive files have about ten; decoding each takes as long as a whole baseline image
MAX_TIFF_BYTES = 800_000_000  # of unpacked samples: 16-bit RGBA at 100 megapixels
_TIFF_BYTE_ORDER = {b"II*\0": "<", b"MM\0*": ">"}
_JPEG_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # in entropy-coded data, where FF 00 and the restarts D0 to D7 are none
_JPEG_SEGMENTS = (0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0))  # markers between scans that a length follows
_RAW_PHOTOMETRIC = (32803, 34892)  # TIFF photometric interpretations of camera raw data


def decode_image(data: bytearray, limits: Limits) -> tuple[np.ndarray, str]:
    """Return an encoded image as (height, width, 3) uint8 RGB, upright, and a note or "".

    Raises MediaError if the image is truncated, damaged, unsupported or beyond `limits`. May change `data`.
    """
    name = sniff.image_format(data)
    try:
        if name == "heif":
            (width, height, count), decode = heif.open_heif(data)
        else:
            (width, height), count = _SIZE_READERS[name](data), _count_frames(name, data)
            decode = (lambda: _decode_first_frame(name, data)) if count > 1 else lambda: _decode(name, data)
        if excess := limits.check("pixels", width * height, f"pixels ({width} x {height}) announced"):
            raise MediaError(excess)
        if max(width, height) > MAX_SIDE:
            raise MediaError(f"{width} x {height} pixels announced, at most {MAX_SIDE} in a row or column are read")
        if name == "png":
            _check_png(data)
    except (struct.error, IndexError):
        raise MediaError("truncated image: the file ends within its header") from None
    frame = decode()
    decoded_height, decoded_width = frame.shape[:2]
    if sorted((decoded_width, decoded_height)) != sorted((width, height)):
        raise MediaError(f"the header announces {width} x {height} pixels, the image has {decoded_width} x {decoded_height}")
    return frame, f"first frame of an animation of {count}" if count > 1 else ""


def _decode_first_frame(name: str, data: bytearray) -> np.ndarray:
    """Decode the first frame of an animation, whose orientation OpenCV ignores."""
    chunks = iter_png_chunks(data) if name == "png" else iter_webp_chunks(data)
    exif = Image.Exif()
    with contextlib.suppress(SyntaxError, ValueError, LookupError, EOFError, struct.error):  # broken EXIF means no rotation
        exif.load(next((bytes(data[start:end]) for chunk, start, end in chunks if chunk in (b"eXIf", b"EXIF")), b""))
    frame = _decode(name, data, cv2.IMREAD_IGNORE_ORIENTATION)
    return Orientation.from_exif(exif.get(ExifTags.Base.Orientation, 1)).apply(frame)


def _decode(name: str, data: bytearray, extra_flags: int = 0) -> np.ndarray:
    cv2.utils.logging.setLogLevel(0)  # a damaged file is reported by the error below, not on stderr
    flags = cv2.IMREAD_COLOR_RGB  # in the decoder's own pass; swapping the channels afterwards takes a twentieth of a JPEG's time
    if name == "tiff":  # IMREAD_COLOR rounds or refuses samples that are not 8 bit
        flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | extra_flags)
    except cv2.error as error:
        raise MediaError(f"damaged or unsupported image (decoder error: {str(error.err)!r})") from None
    if image is None:
        raise MediaError("damaged or unsupported image: the header is valid, but the pixels cannot be decoded")
    if name != "tiff":
        return image
    image = _to_uint8(image)
    if image.ndim == 2:
        image = image[..., None].repeat(3, axis=2)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB) if image.shape[2] == 4 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    """Convert TIFF samples: keep the high byte of integers, scale floats within 0..1 to 0..255, round and clip others."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if not np.issubdtype(image.dtype, np.floating) or not np.isfinite(image).all():
        raise MediaError(f"the TIFF has unsupported or non-finite {image.dtype} samples: save it with 8 bits per channel")
    scale = 255.0 if image.min() >= 0 and image.max() <= 1 else 1.0
    np.rint(np.multiply(image, scale, out=image), out=image)  # in place, because the image may be large
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _read_jpeg_size(data: bytearray) -> tuple[int, int]:
    """Return (width, height) from the header once the end marker is found.

    What follows the end marker is ignored: another image, or the video of a motion photo.
    """
    position, size, scans = 2, (0, 0), 0
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker == 0xDA:  # the pixels begin here; an embedded thumbnail before them has an end marker itself
            break
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                size = struct.unpack_from(">HH", data, position + 5)[::-1]
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    else:
        raise MediaError("damaged JPEG: a marker is missing in its header")
    while (marker := data[position + 1]) != 0xD9:
        if marker == 0xDA and (scans := scans + 1) > MAX_JPEG_SCANS:
            raise MediaError(f"the JPEG has more than {MAX_JPEG_SCANS} scans, which would take too long to decode: save it again")
        has_length = marker == 0xDA or marker in _JPEG_SEGMENTS
        skipped = struct.unpack_from(">H", data, position + 2)[0] if has_length else 0
        following = _JPEG_MARKER.search(data, position + 2 + skipped)
        if not following or data[following.end() - 1] == 0xD8:
            raise MediaError("truncated JPEG: its end marker is missing")
        position = following.start()
    return size


def _read_png_size(data: bytearray) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _check_png(data: bytearray) -> None:
    """Raise MediaError if the checksum of a critical chunk is wrong or the file is truncated."""
    for name, start, end in iter_png_chunks(data):
        if end + 4 > len(data):
            raise MediaError("truncated PNG: the file ends within its pixel data")
        if name[:1].isupper() and zlib.crc32(data[start - 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise MediaError(f"damaged PNG: the checksum of its {name!r} chunk is wrong")


def iter_png_chunks(data: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, content start, content end) for each chunk up to IEND."""
    position, name = 8, b""
    while name != b"IEND":
        if position + 8 > len(data):
            raise MediaError("truncated PNG: its end chunk is missing")
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, position + 8, position + 8 + length
        position += 12 + length


def _read_webp_size(data: bytearray) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise MediaError("truncated WebP: the file is shorter than its header declares")
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _read_bmp_size(data: bytearray) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)  # a negative height means top row first


def _read_tiff_size(data: bytearray) -> tuple[int, int]:
    order = _TIFF_BYTE_ORDER[bytes(data[:4])]
    tags: dict[int, int] = {}
    start = struct.unpack_from(order + "I", data, 4)[0]
    for i in range(struct.unpack_from(order + "H", data, start)[0]):
        tag, form, count = struct.unpack_from(order + "HHI", data, start + 2 + 12 * i)
        form, position = order + ("H" if form == 3 else "I"), start + 10 + 12 * i
        tags[tag] = max(tags.get(tag, 0), struct.unpack_from(form, data, position)[0])  # libtiff uses the first of two
        if tag == 338 and tags[tag] == 2:  # alpha: marked as premultiplied, so that libtiff leaves the colours unchanged
            struct.pack_into(form, data, position, 1)
        if tag == 258 and count > 2:  # too long to be stored in the entry, which holds its offset, of four bytes for any form
            tags[tag] = struct.unpack_from(order + "H", data, struct.unpack_from(order + "I", data, position)[0])[0]
    if 256 not in tags or 257 not in tags:
        raise MediaError("damaged TIFF: its header has no width and height")
    # DNG, raw photometric interpretation, or a reduced copy of an image elsewhere in the file
    if 50706 in tags or tags.get(262) in _RAW_PHOTOMETRIC or (tags.get(254, 0) & 1 and 330 in tags):
        raise MediaError("a camera raw file: convert it to JPEG or TIFF first")
    bits = tags.get(277, 1) * tags.get(258, 1)
    if (unpacked := tags[256] * tags[257] * bits // 8) > MAX_TIFF_BYTES:
        raise MediaError(f"the TIFF unpacks to {unpacked} bytes, at most {MAX_TIFF_BYTES} are read: save it as 8 bit")
    return tags[256], tags[257]


def _read_jpeg2000_size(data: bytearray) -> tuple[int, int]:
    """Return (width, height) from the code stream, which is what is decoded; the box around it may declare another size."""
    streams = (start for name, start, _ in iter_boxes(data, 0, len(data)) if name == b"jp2c")
    position = 0 if data[:1] == b"\xff" else next(streams, len(data))
    marker, right, bottom, left, top = struct.unpack_from(">Ixxxx4I", data, position)
    if marker != 0xFF4FFF51:
        raise MediaError("damaged JPEG 2000: its code stream does not begin with the image size")
    return right - left, bottom - top


def iter_webp_chunks(data: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, content start, content end) for each chunk."""
    position, end = 12, struct.unpack_from("<I", data, 4)[0] + 8
    while position + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, position)
        yield name, position + 8, position + 8 + size
        position += 8 + size + size % 2


def _count_frames(name: str, data: bytearray) -> int:
    """Return the number of frames of an animated WebP or PNG; 0 or 1 for a still image."""
    if name == "webp":
        return sum(chunk == b"ANMF" for chunk, _, _ in iter_webp_chunks(data))
    for chunk, start, _ in iter_png_chunks(data) if name == "png" else ():
        if chunk == b"acTL":
            return struct.unpack_from(">I", data, start)[0]
        if chunk == b"IDAT":  # acTL would come before it
            break
    return 1


# Pillow reads these sizes too, but takes at least 15 times as long, except for JPEG (benchmarks/libraries.py), of which it does
# not look for the end. It refuses files above 179 megapixels, below --data.limits.pixels, unless a setting of the whole process
# allows any, and reserves memory for all pixels to open a WebP of 1 kB that announces 13,000 x 13,000 of them. Of two TIFF sizes
# it takes the last, libtiff the first; of JPEG 2000 it takes the size in the box, which need not be that of the code stream.
_SIZE_READERS = {"jpeg": _read_jpeg_size, "png": _read_png_size, "webp": _read_webp_size, "bmp": _read_bmp_size,
                 "tiff": _read_tiff_size, "jpeg2000": _read_jpeg2000_size}  # fmt: skip

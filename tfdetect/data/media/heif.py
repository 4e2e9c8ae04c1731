"""Read HEIC by libheif and AVIF by libavif, the formats that phones write instead of JPEG; only the primary image counts.

Both store the orientation as properties of the image (`irot`, `imir`), and only these count: phones repeat the orientation in
EXIF, and readers that obey both rotate twice (ISO/IEC 23008-12, annex A.2.4). libheif applies the properties itself; Pillow
reports libavif's properties as an EXIF orientation that replaces the one in the file.
"""

import io
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tfdetect.data.media.boxes import iter_boxes
from tfdetect.data.media.sniff import MediaError

_AV1_ITEM = re.compile(rb"infe.{8,10}av01", re.DOTALL)  # entry of an item that is coded as AV1
_REQUIRED = (b"ftyp", b"meta", b"mdat", b"moov")  # truncation of later boxes, such as a motion photo's video, does not matter
_DECODER_ERRORS = (ValueError, SyntaxError, OSError, RuntimeError, EOFError, TypeError, KeyError)  # raised for bad files

OpenedImage = tuple[tuple[int, int, int], Callable[[], np.ndarray]]  # (width, height, frames), function that decodes


def open_heif(data: bytearray) -> OpenedImage:
    """Read the header and return ((width, height, frames), decode); `decode()` returns upright (height, width, 3) uint8 RGB.

    Raises MediaError if the file is truncated, damaged or unsupported; so does `decode`.
    """
    content = {name: (start, min(end, len(data))) for name, start, end in _read_boxes(data)}
    start, end = content.get(b"meta", (0, 0))
    is_avif = _AV1_ITEM.search(data, start, end) or (b"meta" not in content and data[8:12] == b"avis")
    name, opener = ("AVIF", _open_avif) if is_avif else ("HEIC", _open_heic)
    try:
        (width, height, frames), decode = opener(bytes(data))
    except _DECODER_ERRORS as error:
        raise MediaError(f"damaged or unsupported {name} (decoder error: {str(error)!r})") from None
    return (width, height, frames or _count_samples(data, *content.get(b"moov", (0, 0)))), lambda: _decode(name, decode)


def _decode(name: str, decode: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        image = decode()
    except _DECODER_ERRORS as error:
        raise MediaError(f"damaged or unsupported {name} (decoder error: {str(error)!r})") from None
    image = image[..., None].repeat(3, axis=2) if image.ndim == 2 else image
    return np.ascontiguousarray(image[..., :3])


def _open_avif(data: bytes) -> OpenedImage:
    from PIL import AvifImagePlugin, ImageOps

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one file per worker is faster
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    image.info.pop("xmp", None)  # Pillow would apply an orientation found there, which no other program does
    return (*image.size, image.n_frames), lambda: np.asarray(ImageOps.exif_transpose(image))


def _open_heic(data: bytes) -> OpenedImage:
    import pi_heif

    pi_heif.options.DECODE_THREADS = 1
    pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False
    images: Any = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    primary = images[images.primary_index]
    if not primary.info["primary"]:  # otherwise a thumbnail or tile would be read instead
        raise ValueError("its primary image cannot be read")
    return (*primary.size, 0), lambda: np.array(primary)  # a copy, because the pixels are freed with `primary`


def _read_boxes(data: bytearray) -> list[tuple[bytes, int, int]]:
    """Return the valid boxes at the start of the file. Raises MediaError if a required one extends beyond its end."""
    boxes = list(iter_boxes(data, 0, 2**63))
    if boxes and boxes[-1][0] in _REQUIRED and len(data) < boxes[-1][2] < 2**63:
        raise MediaError(f"truncated: the file ends within its {boxes[-1][0].decode()} box")
    return boxes


def _count_samples(data: bytearray, start: int, end: int) -> int:
    """Return the number of images in a sequence by its first table of sizes; 1 if there is none."""
    position = data.find(b"stsz", start, end)
    return max(1, struct.unpack_from(">I", data, position + 12)[0]) if position > 0 and position + 16 <= end else 1

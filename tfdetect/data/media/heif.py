"""HEIC by libheif, AVIF by libavif: what phones write in place of JPEG, of which only the primary picture is read.

Both keep the turn of a picture in properties of its own (`irot`, `imir`), which alone counts: phones write it into EXIF as
well, and who heeds both turns twice (ISO/IEC 23008-12, annex A.2.4). libheif turns a picture upright itself; Pillow gives what
libavif read as an EXIF orientation, in place of the file's own.
"""

import io
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tfdetect.data.media.boxes import iter_boxes
from tfdetect.data.media.sniff import MediaError

_AV1 = re.compile(rb"infe.{8,10}av01", re.DOTALL)  # the entry of an item that is coded as AV1
_NEEDED = (b"ftyp", b"meta", b"mdat", b"moov")  # what is cut off behind them, such as a motion photo's video, nobody misses
_TROUBLES = (ValueError, SyntaxError, OSError, RuntimeError, EOFError, TypeError, KeyError)  # what the two raise of bad files

Opened = tuple[tuple[int, int, int], Callable[[], np.ndarray]]  # (width, height, frames), how to decode


def open_heif(data: bytearray) -> Opened:
    """What the header announces, and a function that gives the pixels, (height, width, 3) uint8 RGB, upright."""
    content = {name: (start, min(end, len(data))) for name, start, end in _whole(data)}
    start, end = content.get(b"meta", (0, 0))
    is_avif = _AV1.search(data, start, end) or (b"meta" not in content and data[8:12] == b"avis")
    name, opener = ("AVIF", _avif) if is_avif else ("HEIC", _heic)
    try:
        (width, height, frames), decode = opener(bytes(data))
    except _TROUBLES as error:
        raise MediaError(f"damaged or unsupported {name}: the decoder says {str(error)!r}") from None
    return (width, height, frames or _samples(data, *content.get(b"moov", (0, 0)))), lambda: _decoded(name, decode)


def _decoded(name: str, decode: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        picture = decode()
    except _TROUBLES as error:
        raise MediaError(f"damaged or unsupported {name}: the decoder says {str(error)!r}") from None
    picture = picture[..., None].repeat(3, axis=2) if picture.ndim == 2 else picture
    return np.ascontiguousarray(picture[..., :3])


def _avif(data: bytes) -> Opened:
    from PIL import AvifImagePlugin, ImageOps

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one file a worker is faster
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    image.info.pop("xmp", None)  # Pillow would heed an orientation there, which no other program does
    return (*image.size, image.n_frames), lambda: np.asarray(ImageOps.exif_transpose(image))


def _heic(data: bytes) -> Opened:
    import pi_heif

    pi_heif.options.DECODE_THREADS = 1
    pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False
    images: Any = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    primary = images[images.primary_index]
    if not primary.info["primary"]:  # else a thumbnail or a tile would stand for the picture
        raise ValueError("its primary picture cannot be read")
    return (*primary.size, 0), lambda: np.array(primary)  # a copy: the pixels go with `primary`


def _whole(data: bytearray) -> list[tuple[bytes, int, int]]:
    """The boxes of the file, up to what is none. Raises MediaError where one that is needed goes on beyond the end."""
    found = list(iter_boxes(data, 0, 2**63))
    if found and found[-1][0] in _NEEDED and len(data) < found[-1][2] < 2**63:
        raise MediaError(f"truncated: it ends within its {found[-1][0].decode()} box")
    return found


def _samples(data: bytearray, start: int, end: int) -> int:
    """How many pictures a sequence holds by its first table of sizes; 1 where there is none."""
    at = data.find(b"stsz", start, end)
    return max(1, struct.unpack_from(">I", data, at + 12)[0]) if at > 0 and at + 16 <= end else 1

"""File -> uint8 RGB frames, upright, at native size: the only reader of images and videos, for training and prediction alike.

What a file is, its first bytes decide, never its extension. An image is read here, a video in `video.py`. One resize serves
all decoders and has a twin in the exported model's graph, so that no decoder's own scaling becomes part of the evidence.
"""

import bisect
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tfdetect.errors import UserError
from tfdetect.limits import Limits

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = (".gif", ".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg")
MAX_BYTES = 2**30  # of an encoded image, all of which is read into memory
JPEG_SCANS = 100  # progressive files have about ten; each takes as long as a whole picture
TIFF_BYTES = 800_000_000  # of the samples of a TIFF: 16-bit RGBA at 100 megapixels
STUMBLES = (ArithmeticError, LookupError, RuntimeError, TypeError, UnicodeError, EOFError, struct.error, zlib.error, cv2.error)
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


LIMITS = Limits()
Look = Callable[[int, np.ndarray], None]


class MediaError(UserError):
    """One sentence: what came, what was expected. It never names the path: the caller does."""


@dataclass(frozen=True)
class Media:
    """Frames of one file, and what there is to know about how they were had."""

    frames: np.ndarray  # (frames, height, width, 3) uint8 RGB 0..255; native size, or size x size when `size` was given
    indices: tuple[int, ...]  # which frames of the file (0-based, presentation order); images: (0,)
    total: int  # whole frames that the file holds (1 for an image)
    width: int  # native, upright, pixels
    height: int
    note: str  # "" or "damaged: 28 whole frames of 50" or "3 frames, 16 asked: frames repeat" or several joined by "; "


def read(path: str | Path, frames: int = 1, fps: float | None = None, size: int | None = None,
         limits: Limits = LIMITS, look: Look | None = None) -> Media:  # fmt: skip
    """Read an image (always one frame) or `frames` frames of a video; see `read_image` and `read_video`.

    `look` is called with the position (images: 0) and the picture, (height, width, 3) uint8 RGB, upright, at native size, of
    each frame that is taken, before it is resized; perhaps twice, where a first decoder was given up. Raises MediaError
    where there is no whole frame or `limits` are passed; FileNotFoundError, PermissionError and MemoryError pass through.
    """
    try:
        if kind(path) == "image":
            return read_image(path, size, limits, look)
        return read_video(path, frames, fps, size, limits, look)
    except STUMBLES as error:  # nothing that is known does that; but no file may end the run of all others
        raise MediaError(f"the reader stumbled over it ({type(error).__name__}: {error})") from error


def read_video(path: str | Path, frames: int = 1, fps: float | None = None, size: int | None = None,
               limits: Limits = LIMITS, look: Look | None = None) -> Media:  # fmt: skip
    """Read `frames` frames evenly over the whole video, or, with `fps`, that many a second in a window centred in it.

    `size` in pixels squares each frame as soon as it is decoded, so memory stays flat. A video with fewer frames repeats
    some and the note says so. Raises MediaError where no whole frame can be had, ValueError for senseless arguments.
    """
    from tfdetect.data import video  # here, because video.py builds on this file

    if kind(path) != "video":
        raise MediaError("an image came where a video was expected")
    if excess := limits.check("bytes", os.path.getsize(path), "bytes"):
        raise MediaError(excess)
    return video.read_video(path, frames, fps, size, limits, look)


def read_image(path: str | Path, size: int | None = None, limits: Limits = LIMITS, look: Look | None = None) -> Media:
    """Read one image as a clip of one frame, upright: alpha dropped, grey tripled, 16 bit cut to its high byte.

    Raises MediaError for what is truncated or damaged as well: decoders fill the missing part with pixels of their own.
    """
    if kind(path) != "image":
        raise MediaError("a video came where an image was expected")
    length = os.path.getsize(path)
    if length > MAX_BYTES:
        raise MediaError(f"an image of {length} bytes, at most {MAX_BYTES} are read")
    if excess := limits.check("bytes", length, "bytes"):
        raise MediaError(excess)
    data = bytearray(Path(path).read_bytes())  # bytes, because cv2.imread fails on some file names
    width, height = _header(data, limits)
    frame = _decode(np.frombuffer(data, np.uint8))
    tall, wide = frame.shape[:2]
    if sorted((wide, tall)) != sorted((width, height)):
        raise MediaError(f"the header says {width} x {height} pixels, the picture has {wide} x {tall}")
    if look:
        look(0, frame)
    return Media(frames=(frame if size is None else resize(frame, size))[None], indices=(0,), total=1,
                 width=wide, height=tall, note="")  # fmt: skip


def resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width, 3) uint8 to (size, size, 3) uint8: areas where a side shrinks, then bilinear where one grows.

    Rounding after each step makes it repeatable in TensorFlow: `tf.image.resize` with "area", round, "bilinear", round.
    """
    if size < 1:
        raise ValueError(f"size {size} came, at least 1 pixel is needed")
    height, width = frame.shape[:2]
    small = (min(width, size), min(height, size))
    if small != (width, height):
        frame = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
    if small != (size, size):  # float32, for on uint8 cv2 interpolates with 11-bit weights and TensorFlow does not
        grown = cv2.resize(frame.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
        frame = np.clip(np.rint(grown), 0, 255).astype(np.uint8)
    return frame


def pick(total: int, frames: int) -> tuple[int, ...]:
    """Indices of `frames` frames evenly over 0..total-1, both ends included; the middle one for one; repeats when short."""
    if total < 1 or frames < 1:
        raise ValueError(f"{frames} frames of {total} were asked for, at least 1 of 1 is needed")
    if frames == 1:
        return (total // 2,)
    return tuple(int(i) for i in np.rint(np.linspace(0, total - 1, frames)))


def choose(times: Sequence[float], frames: int, fps: float | None) -> tuple[int, ...]:
    """Positions of `frames` frames, evenly over all, or `fps` a second in a window centred between the ends of `times`.

    `times` are seconds, ascending. At each point in time the frame then on display is taken, so the rate may vary.
    """
    if fps is None:
        return pick(len(times), frames)
    start = max(times[0], (times[0] + times[-1] - (frames - 1) / fps) / 2)
    points = (start + k / fps + 1e-3 for k in range(frames))  # Matroska rounds times to milliseconds
    return tuple(max(bisect.bisect_right(times, point) - 1, 0) for point in points)


def is_media(path: str | Path) -> bool:
    """Say whether the extension is one of an image or a video: for listing folders only."""
    return Path(path).suffix.lower() in IMAGES + VIDEOS


def kind(path: str | Path) -> str:
    """Return "image" or "video" by the first bytes. Raises MediaError for anything else."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device would block or never end
        raise MediaError("not a file: a regular file of an image or video was expected")
    with open(path, "rb") as file:
        head = file.read(400)
    if not head:
        raise MediaError("empty file")
    if head[:3] == b"\xff\xd8\xff" or head[:8] == _PNG or head[:2] == b"BM" or head[:4] in _TIFF:
        return "image"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        raise MediaError(f"an HEIC or AVIF picture (brand {head[8:12].decode()}): convert it to PNG first")
    if _is_video(head):
        return "video"
    raise MediaError(f"not an image or video that is read here (first bytes {head[:12]!r})")


def _is_video(head: bytes) -> bool:
    """Recognise GIF, AVI, Matroska, MP4/MOV, MPEG program, elementary and transport streams by their first 400 bytes."""
    mov = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof")
    avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    stream = head[:4] in (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3") or (head[:1] + head[188:189]) == b"GG"
    return mov or avi or stream or head[:6] in (b"GIF87a", b"GIF89a")


def _decode(data: np.ndarray) -> np.ndarray:
    """Decode an encoded image (bytes as uint8) to (height, width, 3) uint8 RGB, upright."""
    cv2.utils.logging.setLogLevel(0)  # a damaged file is reported by the error below, not on stderr
    flags = cv2.IMREAD_COLOR
    if data[:4].tobytes() in _TIFF:  # what is not 8 bit, IMREAD_COLOR rounds or refuses
        flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise MediaError(f"damaged or unsupported image: the decoder says {str(error.err)!r}") from None
    if image is None:
        raise MediaError("damaged or unsupported image: its header is good, its pixels cannot be decoded")
    image = _eight_bit(image)
    if image.ndim == 2:
        image = image[..., None].repeat(3, axis=2)
    return np.ascontiguousarray(image[..., 2::-1])


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


def _header(data: bytearray, limits: Limits) -> tuple[int, int]:
    """Return (width, height) as the header says, after checking that this is not too much and that the file has an end."""
    measure = next((found for start, found in _MEASURES if data.startswith(start)), _tiff)
    try:
        width, height = measure(data)
        if excess := limits.check("pixels", width * height, f"pixels ({width} x {height}) announced"):
            raise MediaError(excess)
        if measure is _png:
            _check_png(data)
        return width, height
    except (struct.error, IndexError):
        raise MediaError("truncated image: it ends within its header") from None


def _jpeg(data: bytearray) -> tuple[int, int]:
    at, size = 2, (0, 0)
    while data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = struct.unpack_from(">HH", data, at + 5)[::-1]
        if marker == 0xDA:  # only here do the pixels begin: a thumbnail before them has an end marker of its own
            if data.find(b"\xff\xd9", at) < 0:
                raise MediaError("truncated JPEG: its end marker is missing")
            if (scans := data.count(b"\xff\xda", at)) > JPEG_SCANS:
                raise MediaError(f"a JPEG of {scans} scans, at most {JPEG_SCANS} are read")
            return size
        at += 2 + length
    raise MediaError("damaged JPEG: no marker where one was expected")


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
    bits = tags.get(277, 1) * tags.get(258, 1)
    if bits > 64 and (unpacked := tags[256] * tags[257] * bits // 8) > TIFF_BYTES:
        raise MediaError(f"a TIFF of {unpacked} bytes when unpacked, at most {TIFF_BYTES} are read: save it as 8 bit")
    return tags[256], tags[257]


_MEASURES = ((b"\xff\xd8\xff", _jpeg), (_PNG, _png), (b"RIFF", _webp), (b"BM", _bmp))  # of what starts so; the rest is TIFF

"""File -> uint8 RGB frames, upright, at native size: the only reader of images and videos, for training and prediction alike.

What a file is, its first bytes decide, never its extension (`sniff.py`). Images are decoded in `images.py`, videos in
`video.py`. One resize serves all decoders and has a twin in the exported model's graph, so that no decoder's own scaling becomes
part of the evidence.
"""

import hashlib
import os
import stat
import struct
import zlib
from pathlib import Path

import cv2

from tfdetect.data import deadline
from tfdetect.data.media import images, video
from tfdetect.data.media.frames import LIMITS, FrameCallback, Media, resize
from tfdetect.data.media.sniff import MediaError, media_kind
from tfdetect.limits import Limits

MAX_BYTES = 2**30  # of an encoded image, all of which is read into memory
READER_VERSION = 2  # of what the reader makes of a file; a change of it makes all entries anew
STUMBLES = (ArithmeticError, LookupError, RuntimeError, TypeError, UnicodeError, EOFError, struct.error, zlib.error, cv2.error)


def read_media(path: str | Path, frames: int = 1, fps: float | None = None, size: int | None = None,
         limits: Limits = LIMITS, look: FrameCallback | None = None) -> Media:  # fmt: skip
    """Read an image (always one frame) or `frames` frames of a video; see `read_image` and `read_video`.

    `look` is called with the position (images: 0) and the picture, (height, width, 3) uint8 RGB, upright, at native size, of
    each frame that is taken, before it is resized; perhaps twice, where a first decoder was given up. Raises MediaError
    where there is no whole frame or `limits` are passed; FileNotFoundError, PermissionError and MemoryError pass through.
    """
    try:
        if media_kind(path) == "image":
            return read_image(path, size, limits, look)
        return read_video(path, frames, fps, size, limits, look)
    except STUMBLES as error:  # nothing that is known does that; but no file may end the run of all others
        raise MediaError(f"the reader stumbled over it ({type(error).__name__}: {error})") from error


def read_video(path: str | Path, frames: int = 1, fps: float | None = None, size: int | None = None,
               limits: Limits = LIMITS, look: FrameCallback | None = None) -> Media:  # fmt: skip
    """Read `frames` frames evenly over the whole video, or, with `fps`, that many a second in a window centred in it.

    `size` in pixels squares each frame as soon as it is decoded, so memory stays flat. A video with fewer frames repeats
    some and the note says so. Raises MediaError where no whole frame can be had, ValueError for senseless arguments.
    """
    if media_kind(path) != "video":
        raise MediaError("an image came where a video was expected")
    if excess := limits.check("bytes", os.path.getsize(path), "bytes"):
        raise MediaError(excess)
    return video.read_video(path, frames, fps, size, limits, look)


def read_image(path: str | Path, size: int | None = None, limits: Limits = LIMITS, look: FrameCallback | None = None) -> Media:
    """Read one image as a clip of one frame, upright: alpha dropped, grey tripled, 16 bit cut to its high byte.

    Raises MediaError for what is truncated or damaged as well: decoders fill the missing part with pixels of their own.
    """
    if media_kind(path) != "image":
        raise MediaError("a video came where an image was expected")
    length = os.path.getsize(path)
    if length > MAX_BYTES:
        raise MediaError(f"an image of {length} bytes, at most {MAX_BYTES} are read")
    if excess := limits.check("bytes", length, "bytes"):
        raise MediaError(excess)
    frame, note = images.read(bytearray(Path(path).read_bytes()), limits)  # bytes: cv2.imread fails on some file names
    tall, wide = frame.shape[:2]
    if look:
        look(0, frame)
    return Media(frames=(frame if size is None else resize(frame, size))[None], indices=(0,), total=1,
                 width=wide, height=tall, note=note)  # fmt: skip


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises OSError, and MediaError for a folder, a pipe or a device."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
        raise MediaError("not a file: a regular file of an image or video was expected")
    deadline.allow(size=os.path.getsize(path))
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

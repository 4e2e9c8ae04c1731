"""File -> uint8 RGB frames, upright, at native size: the only reader of images and videos, for training and prediction alike.

What a file is, its first bytes decide, never its extension (`sniff.py`). Images are decoded in `images.py`, videos in
`video.py`. One resize serves all decoders and has a twin in the exported model's graph, so that no decoder's own scaling becomes
part of the evidence.
"""

import bisect
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tfdetect.data import images
from tfdetect.data.sniff import IMAGES, VIDEOS, MediaError, is_media, kind
from tfdetect.limits import Limits

__all__ = ["IMAGES", "LIMITS", "STUMBLES", "VIDEOS", "Look", "Media", "MediaError", "choose", "is_media", "kind", "pick", "read",
           "read_image", "read_video", "resize"]  # fmt: skip

MAX_BYTES = 2**30  # of an encoded image, all of which is read into memory
STUMBLES = (ArithmeticError, LookupError, RuntimeError, TypeError, UnicodeError, EOFError, struct.error, zlib.error, cv2.error)
LIMITS = Limits()
Look = Callable[[int, np.ndarray], None]


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
    frame, note = images.read(bytearray(Path(path).read_bytes()), limits)  # bytes: cv2.imread fails on some file names
    tall, wide = frame.shape[:2]
    if look:
        look(0, frame)
    return Media(frames=(frame if size is None else resize(frame, size))[None], indices=(0,), total=1,
                 width=wide, height=tall, note=note)  # fmt: skip


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

"""Read files as uint8 RGB frames, upright, at native size: the only reader of images and videos, for training and prediction.

The first bytes of a file decide what it is, never its extension (`sniff.py`). `images.py` decodes images, `video.py` videos.
All decoders deliver native frames to one function that makes squares of them (`frames.py`), so that no decoder's own scaling
becomes part of the evidence; the exported model contains its twin (`tf_decode.py`).
"""

import os
import stat
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from tfdetect.data import deadline
from tfdetect.data.media import images, video
from tfdetect.data.media.frames import LIMITS, SQUEEZE, Fit, FrameCallback, Media, to_squares
from tfdetect.data.media.sniff import MediaError, media_kind
from tfdetect.files import sha256
from tfdetect.limits import Decoding, Limits
from tfdetect.stages import stage

MAX_BYTES = 2**30  # per image file, which is read into memory as a whole
READER_VERSION = 4  # increase it when the reader's output changes; cached entries of other versions are then decoded again
DECODING = Decoding()
DECODER_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, UnicodeError, EOFError, struct.error, zlib.error,
                  cv2.error)  # fmt: skip


@stage("decode")
def read_media(path: str | Path, frames: int = 1, fps: float | None = None, size: int | None = None,
               limits: Limits = LIMITS, on_frame: FrameCallback | None = None, fit: Fit = SQUEEZE,
               decoding: Decoding = DECODING, on_restart: Callable[[], None] | None = None) -> Media:  # fmt: skip
    """Read an image (always one frame) or `frames` frames of a video; see `read_image` and `read_video`.

    With `size`, each frame becomes the squares that `fit` makes of it. `on_frame(position, frame)` is called with each chosen
    frame as it was before: (height, width, 3) uint8 RGB, upright, at native size. Where a video turns out to be damaged midway,
    others are chosen: `on_restart()` is called, and the frames are passed from the first. Raises MediaError if there is no
    intact frame or the file exceeds `limits`; FileNotFoundError, PermissionError and MemoryError pass through.
    """
    try:
        if media_kind(path) == "image":
            return read_image(path, size, limits, on_frame, fit)
        return read_video(path, frames, fps, size, limits, on_frame, fit, decoding, on_restart)
    except DECODER_ERRORS as error:  # no known file causes one, but a single file must not end a run
        raise MediaError(f"unexpected error while reading it ({type(error).__name__}: {error})") from error


def read_video(path: str | Path, frames: int = 1, fps: float | None = None, size: int | None = None,
               limits: Limits = LIMITS, on_frame: FrameCallback | None = None, fit: Fit = SQUEEZE,
               decoding: Decoding = DECODING, on_restart: Callable[[], None] | None = None) -> Media:  # fmt: skip
    """Read `frames` frames spread evenly over the video or, with `fps`, that many per second from a window at its centre.

    Frames become squares of `size` x `size` pixels as soon as they are decoded, so memory stays flat. If the video has too few
    frames, some repeat and the note says so. Raises MediaError if no intact frame can be read, ValueError if `frames`, `fps`
    or `size` is not positive.
    """
    if frames < 1 or (fps is not None and not fps > 0) or (size is not None and size < 1):
        raise ValueError(f"frames={frames}, fps={fps} and size={size} must be positive")
    if media_kind(path) != "video":
        raise MediaError("expected a video, but the file is an image")
    if excess := limits.check("bytes", os.path.getsize(path), "bytes"):
        raise MediaError(excess)
    consumer = video.Consumer(_square_maker(size, fit), on_frame, on_restart)
    return video.read_video(path, frames, fps, consumer, limits, decoding)


def read_image(path: str | Path, size: int | None = None, limits: Limits = LIMITS,
               on_frame: FrameCallback | None = None, fit: Fit = SQUEEZE) -> Media:  # fmt: skip
    """Read an image as a clip of one frame, upright: alpha is dropped, grey becomes RGB, 16 bits are cut to the high byte.

    Raises MediaError if the file is truncated or damaged, since decoders would fill the missing part with invented pixels.
    """
    if media_kind(path) != "image":
        raise MediaError("expected an image, but the file is a video")
    length = os.path.getsize(path)
    if length > MAX_BYTES:
        raise MediaError(f"the image file has {length} bytes, at most {MAX_BYTES} are read")
    if excess := limits.check("bytes", length, "bytes"):
        raise MediaError(excess)
    with stage("read"):
        content = bytearray(Path(path).read_bytes())  # cv2.imread fails on some file names
    frame, note = images.decode_image(content, limits)
    height, width = frame.shape[:2]
    if on_frame:
        on_frame(0, frame)
    return Media(_square_maker(size, fit)(frame), indices=(0,), total=1, width=width, height=height, note=note)


def _square_maker(size: int | None, fit: Fit) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from a frame to its squares, (squares, height, width, 3); without `size` the frame itself."""
    return (lambda frame: frame[None]) if size is None else partial(to_squares, size=size, fit=fit)


@stage("read")
def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError, and MediaError for a folder, pipe or device."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would block
        raise MediaError("not a file: expected a regular image or video file")
    deadline.extend(size=os.path.getsize(path))
    return sha256(path)

"""Read frames with decord or OpenCV instead of PyAV.

Both hide damage: they repeat frames or paint over broken areas. So PyAV decodes a file first and finds it intact (`video.py`),
unless it has no decoder for it, where OpenCV is the last resort.
"""

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np

from tfdetect.data.media import containers
from tfdetect.data.media.containers import PacketScan
from tfdetect.data.media.frames import LIMITS
from tfdetect.data.media.selection import Selection, leading_frames
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import Limits

DECORD_PIXELS = 4_000_000  # per frame; decord decodes ahead, which took 360 MB for 24 frames of 3840 x 2160
_DECORD_FORMATS = ("mov", "matroska", "avi")  # decord seeks to wrong frames in MPEG streams

PositionedFrames = Iterator[tuple[int, np.ndarray]]  # (position among the intact frames, (height, width, 3) uint8 RGB)


class Unsuitable(Exception):
    """The decoder cannot read the file, or reads something else than PyAV does."""


@cache
def import_decord() -> Any:
    """Return decord; raises MediaError where it is not installed.

    It would load its libraries globally, and its libpng of 2019 would then break TensorFlow's PNG decoder.
    """
    rtld_global, ctypes.RTLD_GLOBAL = ctypes.RTLD_GLOBAL, ctypes.RTLD_LOCAL  # type: ignore[misc]  # a Final in typeshed
    try:
        import decord
    except (ImportError, OSError):  # it has no wheels for ARM
        raise MediaError("decord is not installed (--data.decoder decord)") from None
    finally:
        ctypes.RTLD_GLOBAL = rtld_global  # type: ignore[misc]  # as above
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def read_with_decord(name: str, scan: PacketScan, selection: Selection) -> PositionedFrames:
    """Yield the chosen frames of an intact file. Raises Unsuitable if decord cannot read it or disagrees with PyAV."""
    decord = import_decord()
    height, width = _plain_shape(scan, selection)
    if not scan.format.startswith(_DECORD_FORMATS) or height * width > DECORD_PIXELS or leading_frames(scan):
        raise Unsuitable
    try:
        reader = decord.VideoReader(name, num_threads=1)  # freed with this generator: an idle reader grows by hundreds of MB
        if len(reader) != len(selection.ids):
            raise Unsuitable
        for position in sorted(set(selection.chosen)):
            yield position, _checked(reader[position].asnumpy(), height, width)
    except (decord.DECORDError, RuntimeError, IndexError):  # such as AV1: its FFmpeg is of 2019
        raise Unsuitable from None


def read_with_opencv(name: str, scan: PacketScan, selection: Selection) -> PositionedFrames:
    """Yield the chosen frames of an intact file. Raises Unsuitable if OpenCV cannot read it or disagrees with PyAV."""
    height, width = _plain_shape(scan, selection)
    count = 0
    for count, (_, capture) in enumerate(iter_opencv(name, LIMITS), 1):
        if count - 1 in selection.chosen:
            yield count - 1, _checked(capture.retrieve()[1][..., ::-1], height, width)
    if count != len(selection.ids):
        raise Unsuitable


def _plain_shape(scan: PacketScan, selection: Selection) -> tuple[int, int]:
    """Return the height and width of all frames. Raises Unsuitable unless both decoders find the right stream, upright."""
    if not scan.exact or scan.num_streams != 1 or scan.discards or len(selection.shapes) != 1:
        raise Unsuitable
    height, width, orientation = next(iter(selection.shapes))
    if orientation.is_reflection or orientation.skew_degrees:
        raise Unsuitable
    return height, width


def _checked(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    if frame.shape != (height, width, 3):
        raise Unsuitable
    return frame


def iter_opencv(name: str, limits: Limits) -> Iterator[tuple[float, Any]]:
    """Yield (seconds, capture ready to retrieve) for each frame. Raises MediaError if the video exceeds `limits`."""
    capture = cv2.VideoCapture(name)
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    try:
        containers.check_limits(width, height, capture.get(cv2.CAP_PROP_FRAME_COUNT), 0, limits)
        while capture.grab():
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, capture
    finally:
        capture.release()

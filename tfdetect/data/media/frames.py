"""Frames of one file, which of them are taken, and the one resize that training, prediction and serving share."""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tfdetect.limits import Limits

LIMITS = Limits()
FrameCallback = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Media:
    """Frames of one file, and what there is to know about how they were had."""

    frames: np.ndarray  # (frames, height, width, 3) uint8 RGB 0..255; native size, or size x size when `size` was given
    indices: tuple[int, ...]  # which frames of the file (0-based, presentation order); images: (0,)
    total: int  # whole frames that the file holds (1 for an image)
    width: int  # native, upright, pixels
    height: int
    note: str  # "" or "damaged: 28 whole frames of 50" or "3 frames, 16 asked: frames repeat" or several joined by "; "


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


def evenly_spaced(total: int, frames: int) -> tuple[int, ...]:
    """Indices of `frames` frames evenly over 0..total-1, both ends included; the middle one for one; repeats when short."""
    if total < 1 or frames < 1:
        raise ValueError(f"{frames} frames of {total} were asked for, at least 1 of 1 is needed")
    if frames == 1:
        return (total // 2,)
    return tuple(int(i) for i in np.rint(np.linspace(0, total - 1, frames)))


def frame_positions(times: Sequence[float], frames: int, fps: float | None) -> tuple[int, ...]:
    """Positions of `frames` frames, evenly over all, or `fps` a second in a window centred between the ends of `times`.

    `times` are seconds, ascending. At each point in time the frame then on display is taken, so the rate may vary.
    """
    if fps is None:
        return evenly_spaced(len(times), frames)
    start = max(times[0], (times[0] + times[-1] - (frames - 1) / fps) / 2)
    points = (start + k / fps + 1e-3 for k in range(frames))  # Matroska rounds times to milliseconds
    return tuple(max(bisect.bisect_right(times, point) - 1, 0) for point in points)

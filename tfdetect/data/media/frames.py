"""The frames of one file, the choice of frames, and the one resize shared by training, prediction and serving."""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tfdetect.limits import Limits

LIMITS = Limits()
FrameCallback = Callable[[int, np.ndarray], None]  # (position, native (height, width, 3) uint8 RGB frame) -> None


@dataclass(frozen=True)
class Media:
    """Decoded frames of one file and how they were read."""

    frames: np.ndarray  # (frames, height, width, 3) uint8 RGB 0..255; native size, or size x size when `size` was given
    indices: tuple[int, ...]  # of these frames in the file (0-based, presentation order); (0,) for an image
    total: int  # number of intact frames in the file; 1 for an image
    width: int  # native, upright, in pixels
    height: int
    note: str  # "", "damaged: 28 of 50 frames intact" or "only 3 distinct frames for 16 requested"; several joined by "; "


def resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width, 3) uint8 to (size, size, 3) uint8.

    Sides that shrink are averaged by area, then sides that grow are interpolated bilinearly. Rounding after each step makes it
    repeatable in TensorFlow: `tf.image.resize` with "area", round, "bilinear", round.
    Raises ValueError if `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}; it must be at least 1 pixel")
    height, width = frame.shape[:2]
    small = (min(width, size), min(height, size))
    if small != (width, height):
        frame = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
    if small != (size, size):  # in float32: for uint8, OpenCV uses 11-bit interpolation weights and TensorFlow does not
        enlarged = cv2.resize(frame.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
        frame = np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)
    return frame


def evenly_spaced(total: int, frames: int) -> tuple[int, ...]:
    """Return `frames` indices spread evenly over 0..total-1, both ends included; a single one is the middle.

    Indices repeat when `frames` exceeds `total`. Raises ValueError if either is below 1.
    """
    if total < 1 or frames < 1:
        raise ValueError(f"cannot choose {frames} of {total} frames; both numbers must be at least 1")
    if frames == 1:
        return (total // 2,)
    return tuple(int(i) for i in np.rint(np.linspace(0, total - 1, frames)))


def frame_positions(times: Sequence[float], frames: int, fps: float | None) -> tuple[int, ...]:
    """Choose `frames` positions in `times` (seconds, ascending): evenly spaced, or `fps` per second in a centred window.

    With `fps`, each point in time takes the frame on display at that moment, so the frame rate of the video may vary.
    """
    if fps is None:
        return evenly_spaced(len(times), frames)
    start = max(times[0], (times[0] + times[-1] - (frames - 1) / fps) / 2)
    points = (start + k / fps + 1e-3 for k in range(frames))  # Matroska rounds times to milliseconds
    return tuple(max(bisect.bisect_right(times, point) - 1, 0) for point in points)

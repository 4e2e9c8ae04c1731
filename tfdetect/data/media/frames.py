"""The frames of one file, the choice of frames, and how they become squares, the same in training, prediction and serving."""

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from tfdetect.limits import Limits
from tfdetect.stages import stage

LIMITS = Limits()
BLOCK = 8  # pixels; side of a block of JPEG, on whose grid crops start
FrameCallback = Callable[[int, np.ndarray], None]  # (position, native (height, width, 3) uint8 RGB frame) -> None


class Face(NamedTuple):
    """Where a face is in the frame in which its box is largest, in pixels of the upright frame at native size."""

    left: int
    top: int
    width: int
    height: int
    frame: int  # index of that frame in the file; 0 for an image


@dataclass(frozen=True)
class Media:
    """Decoded frames of one file and how they were read."""

    frames: np.ndarray  # (frames, height, width, 3) uint8 RGB 0..255; native size, or the squares of each frame in turn
    indices: tuple[int, ...]  # of these frames in the file (0-based, presentation order); (0,) for an image
    total: int  # number of intact frames in the file; 1 for an image
    width: int  # native, upright, in pixels
    height: int
    note: str  # "", "damaged: 28 of 50 frames intact" or "only 3 distinct frames for 16 requested"; several joined by "; "
    decoded: int | None = None  # number of frames that were decoded for these, if that is known; the others were not checked
    faces: tuple[Face, ...] = ()  # with --data.faces all: those that the frames show, as many frames of each in turn

    @property
    def clips(self) -> list[np.ndarray]:
        """The clip (frames, height, width, 3) of each face in `faces`, or else all frames as the only one."""
        return np.split(self.frames, max(1, len(self.faces)))


@dataclass(frozen=True)
class Fit:
    """How a frame of any size becomes squares of a given size; a frame of that size stays as it is.

    squeeze: resized, whatever its aspect ratio.
    shortest_side: the central square of its shorter side, resized: the shorter side is resized and the longer one cropped.
    crop: squares of native pixels, nothing is resampled; a frame that is too small is extended by reflection. Crops start on the
    grid of JPEG's blocks, whose traces then keep their places.
    pad: the longer side is resized, the aspect ratio kept, and the shorter one extended by reflection.

    Reflection, since black bars would be edges that nobody photographed and would tell a detector the aspect ratio.
    """

    mode: Literal["squeeze", "shortest_side", "crop", "pad"] = "squeeze"
    crops: int = 1  # the largest number of squares of a frame, see `crop_positions`; only "crop" makes several

    @property
    def key(self) -> str:
        """Everything that decides the squares, as part of a folder name; empty for the default."""
        grid = f"-grid{BLOCK}" if self.mode == "crop" else ""
        return "" if self == SQUEEZE else f"-{self.mode}{grid}" + (f"-{self.crops}crops" if self.crops > 1 else "")


SQUEEZE = Fit()


@stage("resize")
def to_squares(frame: np.ndarray, size: int, fit: Fit = SQUEEZE) -> np.ndarray:
    """Return the squares of a frame: (height, width, 3) uint8 to (squares, size, size, 3) uint8; `tf_decode.py` has its twin."""
    height, width = frame.shape[:2]
    if fit.mode == "crop":
        corners = crop_positions(height, width, size, fit.crops)
        return np.stack([reflect(frame[top : top + size, left : left + size], size, BLOCK) for top, left in corners])
    if fit.mode == "shortest_side":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        frame = frame[top : top + side, left : left + side]
    if fit.mode == "pad":
        frame = reflect(resize_to(frame, *padded_shape(height, width, size)), size)
    return resize(frame, size)[None]


def padded_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the height and width of a frame whose longer side was resized to `size`, its aspect ratio kept."""
    longer = max(height, width)
    return max(1, (2 * height * size + longer) // (2 * longer)), max(1, (2 * width * size + longer) // (2 * longer))


def reflect(frame: np.ndarray, size: int, step: int = 1) -> np.ndarray:
    """Extend sides that are shorter than `size` to it by reflection, on both ends alike, but before the frame by a multiple of
    `step`."""
    height, width = (max(size - side, 0) for side in frame.shape[:2])
    above, left = height // 2 // step * step, width // 2 // step * step
    return cv2.copyMakeBorder(frame, above, height - above, left, width - left, cv2.BORDER_REFLECT_101)


def crop_positions(height: int, width: int, size: int, crops: int) -> list[tuple[int, int]]:
    """Return the (top, left) of at most `crops` different crops of a frame, row by row, all multiples of BLOCK.

    One is the centre, up to five are the centre and the corners, and more are an even grid from edge to edge: that of
    `crop_grids` with the smallest gaps, first of the wider gap. A frame that is no larger than a crop has one crop.
    """
    down, right = (max(side - size, 0) // BLOCK for side in (height, width))  # how far a crop can move, in blocks
    if crops <= 5:
        places = [(down * top // 2, right * left // 2) for top, left in centre_and_corners(crops)]
    else:
        rows, columns = min(crop_grids(crops), key=lambda grid: sorted((_gap(down, grid[0]), _gap(right, grid[1])), reverse=True))
        places = list(itertools.product(_spread(down, rows), _spread(right, columns)))
    return [(BLOCK * top, BLOCK * left) for top, left in dict.fromkeys(places)]


def centre_and_corners(crops: int) -> list[tuple[int, int]]:
    """Return the (top, left) of at most five crops, in halves of how far they can move: the centre in the middle of corners."""
    corners = [(0, 0), (0, 2), (2, 0), (2, 2)][: crops - 1]
    return [*corners[:2], (1, 1), *corners[2:]]


def crop_grids(crops: int) -> list[tuple[int, int]]:
    """Return the (rows, columns) of all grids of at most `crops` crops, those with the fewest crops first."""
    grids = ((rows, columns) for rows in range(1, crops + 1) for columns in range(1, crops // rows + 1))
    return sorted(grids, key=lambda grid: (grid[0] * grid[1], grid))


def _gap(length: int, count: int) -> int:
    """Return the largest distance between neighbours of `_spread`; a single one counts as twice the length."""
    return 2 * length if count == 1 else -(-length // (count - 1))


def _spread(length: int, count: int) -> list[int]:
    """Return `count` positions spread evenly over 0..length, both ends included; a single one is the middle."""
    return [length // 2] if count == 1 else [length * k // (count - 1) for k in range(count)]


def resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width, 3) uint8 to (size, size, 3) uint8.

    Sides that shrink are averaged by area, then sides that grow are interpolated bilinearly. Rounding after each step makes it
    repeatable in TensorFlow: `tf.image.resize` with "area", round, "bilinear", round.
    Raises ValueError if `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}; it must be at least 1 pixel")
    return resize_to(frame, size, size)


def resize_to(frame: np.ndarray, new_height: int, new_width: int) -> np.ndarray:
    """The same for any new size, both sides at least 1 pixel."""
    height, width = frame.shape[:2]
    small, new = (min(width, new_width), min(height, new_height)), (new_width, new_height)
    if small != (width, height):
        frame = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
    if small != new:
        frame = np.rint(_interpolate(_interpolate(frame, new_width, axis=1), new_height, axis=0)).astype(np.uint8)
    return frame


def _interpolate(frame: np.ndarray, new: int, axis: int) -> np.ndarray:
    """Interpolate (height, width, 3) linearly along an axis to `new` pixels, in float32.

    Not by OpenCV: its linear resize of floats is that of Intel IPP on some processors, which rounds one half the other way.
    """
    old = frame.shape[axis]
    position = np.clip((2 * np.arange(new) + 1) * old - new, 0, 2 * new * (old - 1))  # in units of 1/2new of an old pixel
    first, rest = np.divmod(position, 2 * new)
    fraction = (rest.astype(np.float32) / np.float32(2 * new)).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
    return frame.take(first, axis) * (1 - fraction) + frame.take(np.minimum(first + 1, old - 1), axis) * fraction


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

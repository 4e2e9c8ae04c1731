"""Turn frames upright, as EXIF or a video's display matrix demands; the latter as FFmpeg's own programs do (autorotate).

A display matrix has nine 32-bit numbers (ISO/IEC 14496-12, 8.3.2). Phones write the eight that rotate by right angles or mirror.
"""

import math
import struct
from typing import Any, NamedTuple

import numpy as np


class Orientation(NamedTuple):
    """Steps that turn a stored frame upright: transpose first, then mirror left to right, then flip top to bottom."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False
    skew_degrees: int = 0  # clockwise rotation that is no multiple of 90 degrees; the frame is then left as it is

    @classmethod
    def from_exif(cls, value: int) -> "Orientation":
        """Return the steps for an EXIF orientation of 1 to 8; none for any other value."""
        valid = value in range(1, 9)
        return cls(valid and value >= 5, value in (2, 3, 6, 7), value in (3, 4, 7, 8))

    @classmethod
    def from_frame(cls, frame: Any) -> "Orientation":
        """Return the steps for the display matrix of an av.VideoFrame."""
        matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
        return _from_matrix(struct.unpack("=9i", bytes(matrix)[:36])) if matrix is not None else cls()

    @property
    def is_reflection(self) -> bool:
        """Whether the frame is mirrored rather than only rotated."""
        return (self.transposed + self.mirrored + self.flipped) % 2 == 1

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """Return a stored (height, width, 3) frame upright, as a contiguous array."""
        frame = frame.transpose(1, 0, 2) if self.transposed else frame
        return np.ascontiguousarray(frame[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1])


def _from_matrix(matrix: tuple[int, ...]) -> Orientation:
    """Follow FFmpeg's `ffmpeg_filter.c` case by case."""
    angle = round(math.degrees(math.atan2(_normalise(matrix[1], matrix[4]), _normalise(matrix[0], matrix[3])))) % 360
    if angle in (89, 90, 91):
        return Orientation(transposed=True, mirrored=matrix[3] <= 0)
    if angle in (179, 180, 181):
        return Orientation(mirrored=matrix[0] < 0, flipped=matrix[4] < 0)
    if angle in (269, 270, 271):
        return Orientation(transposed=True, mirrored=matrix[3] < 0, flipped=True)
    if angle in (359, 0, 1):
        return Orientation(flipped=matrix[4] < 0)
    return Orientation(skew_degrees=angle)


def _normalise(value: int, other: int) -> float:
    return value / (math.hypot(value, other) or 1.0)

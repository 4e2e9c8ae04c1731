"""How a frame is held upright: what a video's display matrix says, done as FFmpeg's own programs do it (autorotate).

The matrix is of nine 32-bit numbers (ISO/IEC 14496-12, 8.3.2); phones write the eight that turn by right angles or mirror.
"""

import math
import struct
from typing import Any, NamedTuple

import numpy as np


class Turn(NamedTuple):
    """Columns and rows change places first; then the picture is mirrored left to right, and top to bottom."""

    swapped: bool = False
    mirrored: bool = False
    flipped: bool = False
    odd: int = 0  # degrees clockwise that are no right angle: the picture is left as it is

    @classmethod
    def of_exif(cls, orientation: int) -> "Turn":
        """Of EXIF's 1 to 8; anything else turns nothing."""
        known = orientation in range(1, 9)
        return cls(known and orientation >= 5, orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8))

    @property
    def mirror(self) -> bool:
        """Whether it is seen as in a mirror, and not only turned."""
        return (self.swapped + self.mirrored + self.flipped) % 2 == 1

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """(height, width, 3) as it is stored -> upright."""
        picture = picture.transpose(1, 0, 2) if self.swapped else picture
        return np.ascontiguousarray(picture[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1])


def turn(frame: Any) -> Turn:
    """Of an av.VideoFrame."""
    found = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    return _turn(struct.unpack("=9i", bytes(found)[:36])) if found is not None else Turn()


def _turn(matrix: tuple[int, ...]) -> Turn:
    """As `ffmpeg_filter.c` has it, case for case."""
    angle = round(math.degrees(math.atan2(_unit(matrix[1], matrix[4]), _unit(matrix[0], matrix[3])))) % 360
    if angle in (89, 90, 91):
        return Turn(swapped=True, mirrored=matrix[3] <= 0)
    if angle in (179, 180, 181):
        return Turn(mirrored=matrix[0] < 0, flipped=matrix[4] < 0)
    if angle in (269, 270, 271):
        return Turn(swapped=True, mirrored=matrix[3] < 0, flipped=True)
    if angle in (359, 0, 1):
        return Turn(flipped=matrix[4] < 0)
    return Turn(odd=angle)


def _unit(value: int, other: int) -> float:
    return value / (math.hypot(value, other) or 1.0)

"""Choose the frames of a video by the timestamps of its packets, and the packets that have to be decoded for them.

Most frames of a video are decoded only because others refer to them. What nothing refers to and nobody asked for is skipped, and
so is the rest of a group of pictures behind the last frame that is needed (`select_frames`).
"""

import bisect
from dataclasses import dataclass, field
from typing import Literal

from tfdetect.data.media.containers import PacketScan
from tfdetect.data.media.frames import frame_positions
from tfdetect.data.media.orientation import Orientation

_ONE_FRAME_PER_PACKET = ("h264", "hevc", "vp9", "mjpeg", "av1", "libdav1d")
SKIPPING = ("h264", "hevc", "mpeg4")  # decoders that obey `skip_frame` from packet to packet; they alone change the order
_EMPTY_PACKET = 20  # bytes; MPEG-4 repeats a frame by a smaller one, which yields none


@dataclass
class Selection:
    """The frames of a video in presentation order, and the ones chosen to be read."""

    ids: list[int]  # the number of each frame's packet if the scan is exact, otherwise of the frame
    chosen: tuple[int, ...]  # positions in `ids`
    packets: set[int] | None = None  # to decode for them; frames that nothing needs are skipped even there; None means all
    shapes: set[tuple[int, int, Orientation]] = field(default_factory=set)  # (height, width, orientation) once upright, of the
    # decoded frames

    @property
    def positions(self) -> dict[int, int]:
        """The position of each chosen frame, by its id."""
        return {self.ids[i]: i for i in self.chosen}


def select_frames(scan: PacketScan, frames: int, fps: float | None, check: Literal["used", "all"]) -> Selection | None:
    """Choose `frames` frames of a video as `frames.frame_positions` does; None if its packets do not tell which frames it has.

    With the check "used", `packets` are those that the chosen frames depend on. That needs a key frame at the start, which is
    also shown first, because decoders drop intact frames that precede it, and timestamps in the decoder's order.
    """
    if scan.broken or scan.malformed or scan.truncation or scan.discards or not scan.exact:
        return None
    pts = [at or 0 for at in scan.pts]  # none is None in an exact scan
    ids = sorted(range(len(pts)), key=pts.__getitem__)
    selection = Selection(ids, frame_positions([scan.time_base * pts[n] for n in ids], frames, fps))
    is_known = has_one_frame_per_packet(scan) or (scan.codec == "mpeg4" and scan.smallest > _EMPTY_PACKET)
    in_order = ids == sorted(ids) or (scan.codec in SKIPPING and ids[0] == 0)
    if check == "used" and is_known and scan.is_key[0] and in_order:
        selection.packets = _needed_packets(scan, set(selection.positions))
    return selection


def has_one_frame_per_packet(scan: PacketScan) -> bool:
    """Return whether each packet holds one frame, identified by its timestamp."""
    return scan.exact and scan.codec in _ONE_FRAME_PER_PACKET and not scan.discards


def _needed_packets(scan: PacketScan, wanted: set[int]) -> set[int]:
    """Return the packets to decode for the `wanted` ones: of each segment, from key frame to key frame, those up to the last.

    Frames shown before the key frame that precedes them in the file need the segment before as well. Except in HEVC, nothing
    says that the other frames do without it: then all packets up to the last wanted one are decoded.
    """
    leading = leading_frames(scan)
    if leading and scan.codec != "hevc":
        return set(range(max(wanted) + 1))
    starts = [n for n, is_key in enumerate(scan.is_key) if is_key]
    ends: dict[int, int] = {}
    for number in wanted:
        segment = bisect.bisect_right(starts, number) - 1
        start = starts[max(segment - (number in leading), 0)]
        ends[start] = max(ends.get(start, 0), number)
    return {number for start, end in ends.items() for number in range(start, end + 1)}


def leading_frames(scan: PacketScan) -> set[int]:
    """Return the packets whose frames are shown before the key frame that precedes them in the file."""
    leading, key_pts = set(), None
    for n, (pts, is_key) in enumerate(zip(scan.pts, scan.is_key, strict=True)):
        key_pts = pts if is_key else key_pts
        if pts is not None and key_pts is not None and pts < key_pts:
            leading.add(n)
    return leading

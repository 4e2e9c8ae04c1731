"""Check the structure of H.264 and HEVC packets in MP4, MOV and Matroska without decoding them.

There a packet is a row of units, each behind its length (ISO/IEC 14496-15). Where part of a file was overwritten, lengths exceed
the packet. Other damage shows only in decoding.
"""

from typing import Any


def length_bytes(codec: Any) -> int:
    """Return how many bytes a length has according to the header of an av.CodecContext; 0 if its units have no lengths."""
    header = codec.extradata or b""
    at = {"h264": 4, "hevc": 21}.get(codec.name)
    return (header[at] & 3) + 1 if at and len(header) > at and header[0] == 1 else 0


def fill_packet(packet: Any, width: int) -> bool:
    """Return whether the units of an av.Packet, whose lengths have `width` bytes, end where it ends."""
    data, position = memoryview(packet), 0
    while position + width <= len(data):
        position += width + int.from_bytes(data[position : position + width], "big")
    return position == len(data)

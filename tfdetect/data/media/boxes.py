"""The boxes that MP4, MOV, HEIC, AVIF and JPEG 2000 are made of (ISO/IEC 14496-12, section 4.2)."""

import struct
from collections.abc import Iterator


def boxes(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of the content of each box in data[at:end]; the last may be cut short within the data."""
    while at + 8 <= min(end, len(data)):
        size, name = struct.unpack_from(">I4s", data, at)
        wide = 16 if size == 1 else 8
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size or end - at
        if size < wide:
            return
        yield name, at + wide, min(at + size, end)
        at += size

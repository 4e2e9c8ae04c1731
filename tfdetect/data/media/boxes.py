"""Boxes: the building blocks of MP4, MOV, HEIC, AVIF and JPEG 2000 files (ISO/IEC 14496-12, section 4.2)."""

import struct
from collections.abc import Iterator


def iter_boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, content start, content end) for each box in data[start:end].

    The content of the last box may extend beyond the data when the file is truncated.
    """
    while start + 8 <= min(end, len(data)):
        size, name = struct.unpack_from(">I4s", data, start)
        header = 16 if size == 1 else 8
        size = int.from_bytes(data[start + 8 : start + 16], "big") if size == 1 else size or end - start
        if size < header:
            return
        yield name, start + header, min(start + size, end)
        start += size

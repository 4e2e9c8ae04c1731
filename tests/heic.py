"""HEIC files: HEVC pictures by PyAV in a container of our own, since no encoder of HEIC is at hand (ISO/IEC 23008-12)."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np

TURNS = {1: (), 2: ("mirror",), 3: (2,), 4: ("flip",), 5: (1, "flip"), 6: (3,), 7: (3, "flip"), 8: (1,)}
"""EXIF's orientation -> the same as quarter turns to the left and mirrorings, in this order."""


def box(name: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), name) + b"".join(content)


def full(name: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *content)


def turns(orientation: int) -> list[bytes]:
    """The property boxes that stand for an EXIF orientation."""
    made = {"flip": box(b"imir", b"\0"), "mirror": box(b"imir", b"\1")}
    return [made[step] if isinstance(step, str) else box(b"irot", bytes([step])) for step in TURNS[orientation]]


@dataclass
class Item:
    """A picture, or what a grid is made of."""

    kind: bytes
    content: bytes
    properties: list[bytes]
    refers: tuple[bytes, Sequence[int]] | None = None  # how, and to which numbers, counted from 1


def extent(width: int, height: int) -> bytes:
    return full(b"ispe", struct.pack(">II", width, height))


def coded(picture: np.ndarray, pixels: str = "yuv444p", more: Sequence[bytes] = ()) -> Item:
    """An item of (height, width, 3) uint8, in HEVC without loss, but for colours."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=1, options={"x265-params": "lossless=1:keyint=1:log-level=none"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.codec_tag = "hvc1"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    data = memory.getvalue()
    at, media = data.find(b"hvcC"), data.find(b"mdat")
    size, length = (struct.unpack_from(">I", data, start - 4)[0] for start in (at, media))
    shape = extent(picture.shape[1], picture.shape[0])
    return Item(b"hvc1", data[media + 4 : media - 4 + length], [data[at - 4 : at - 4 + size], shape, *more])


def grid(rows: int, columns: int, width: int, height: int, tiles: Sequence[int], more: Sequence[bytes] = ()) -> Item:
    content = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    return Item(b"grid", content, [extent(width, height), *more], (b"dimg", tiles))


def heic(items: Sequence[Item], primary: int = 1, exif: bytes = b"", brand: bytes = b"heic") -> bytes:
    """A file of these items, of which the one of that number is the picture; `exif` begins with its byte order."""
    if exif:
        items = [*items, Item(b"Exif", bytes(4) + exif, [], (b"cdsc", [primary]))]
    head = box(b"ftyp", brand, bytes(4), b"mif1", brand)
    start = len(head) + len(_meta(items, primary, 0)) + 8
    return head + _meta(items, primary, start) + box(b"mdat", *(item.content for item in items))


def _meta(items: Sequence[Item], primary: int, start: int) -> bytes:
    places, names, links, which = b"", b"", b"", b""
    shared = list(dict.fromkeys(made for item in items for made in item.properties))
    for number, item in enumerate(items, 1):
        places += struct.pack(">HHHII", number, 0, 1, start, len(item.content))
        start += len(item.content)
        names += full(b"infe", struct.pack(">HH", number, 0), item.kind, b"\0", version=2)
        if item.refers:
            how, to = item.refers
            links += box(how, struct.pack(f">HH{len(to)}H", number, len(to), *to))
        indices = [1 + shared.index(made) for made in item.properties]
        which += struct.pack(">HB", number, len(indices)) + bytes(0x80 | index for index in indices)
    with_properties = struct.pack(">I", len(items)) + which
    return full(
        b"meta",
        full(b"hdlr", bytes(4), b"pict", bytes(13)),
        full(b"pitm", struct.pack(">H", primary)),
        full(b"iloc", b"\x44\0", struct.pack(">H", len(items)), places),
        full(b"iinf", struct.pack(">H", len(items)), names),
        full(b"iref", links) if links else b"",
        box(b"iprp", box(b"ipco", *shared), full(b"ipma", with_properties)),
    )

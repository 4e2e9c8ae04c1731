"""Write HEIC files (ISO/IEC 23008-12) from images that PyAV encodes as HEVC, because no library here encodes HEIC."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np

STEPS = {1: (), 2: ("mirror",), 3: (2,), 4: ("flip",), 5: (1, "flip"), 6: (3,), 7: (3, "flip"), 8: (1,)}
"""EXIF orientation -> the equivalent steps, in this order: quarter turns anticlockwise (numbers), mirror and flip."""


def box(name: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), name) + b"".join(content)


def full_box(name: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *content)


def orientation_properties(orientation: int) -> list[bytes]:
    """Return the property boxes that are equivalent to an EXIF orientation."""
    mirrors = {"flip": box(b"imir", b"\0"), "mirror": box(b"imir", b"\1")}
    return [mirrors[step] if isinstance(step, str) else box(b"irot", bytes([step])) for step in STEPS[orientation]]


@dataclass
class Item:
    """An item of the file: an image, a grid of images or EXIF."""

    kind: bytes
    content: bytes
    properties: list[bytes]
    reference: tuple[bytes, Sequence[int]] | None = None  # its type, and the numbers of the items, counted from 1


def extent(width: int, height: int) -> bytes:
    return full_box(b"ispe", struct.pack(">II", width, height))


def encode_item(image: np.ndarray, pixel_format: str = "yuv444p", properties: Sequence[bytes] = ()) -> Item:
    """Encode (height, width, 3) uint8 RGB as lossless HEVC; only the colour conversion loses precision."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=1, options={"x265-params": "lossless=1:keyint=1:log-level=none"})
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.codec_tag = "hvc1"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = memory.getvalue()
    config, media = data.find(b"hvcC"), data.find(b"mdat")
    size, length = (struct.unpack_from(">I", data, start - 4)[0] for start in (config, media))
    shape = extent(image.shape[1], image.shape[0])
    return Item(b"hvc1", data[media + 4 : media - 4 + length], [data[config - 4 : config - 4 + size], shape, *properties])


def grid(rows: int, columns: int, width: int, height: int, tiles: Sequence[int], properties: Sequence[bytes] = ()) -> Item:
    content = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    return Item(b"grid", content, [extent(width, height), *properties], (b"dimg", tiles))


def write_heic(items: Sequence[Item], primary: int = 1, exif: bytes = b"", brand: bytes = b"heic") -> bytes:
    """Return a HEIC file with these items; `primary` is the number of the primary image, `exif` starts with its byte order."""
    if exif:
        items = [*items, Item(b"Exif", bytes(4) + exif, [], (b"cdsc", [primary]))]
    head = box(b"ftyp", brand, bytes(4), b"mif1", brand)
    start = len(head) + len(_meta(items, primary, 0)) + 8
    return head + _meta(items, primary, start) + box(b"mdat", *(item.content for item in items))


def _meta(items: Sequence[Item], primary: int, start: int) -> bytes:
    locations, infos, references, associations = b"", b"", b"", b""
    shared = list(dict.fromkeys(content for item in items for content in item.properties))
    for number, item in enumerate(items, 1):
        locations += struct.pack(">HHHII", number, 0, 1, start, len(item.content))
        start += len(item.content)
        infos += full_box(b"infe", struct.pack(">HH", number, 0), item.kind, b"\0", version=2)
        if item.reference:
            kind, targets = item.reference
            references += box(kind, struct.pack(f">HH{len(targets)}H", number, len(targets), *targets))
        indices = [1 + shared.index(content) for content in item.properties]
        associations += struct.pack(">HB", number, len(indices)) + bytes(0x80 | index for index in indices)
    return full_box(
        b"meta",
        full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
        full_box(b"pitm", struct.pack(">H", primary)),
        full_box(b"iloc", b"\x44\0", struct.pack(">H", len(items)), locations),
        full_box(b"iinf", struct.pack(">H", len(items)), infos),
        full_box(b"iref", references) if references else b"",
        box(b"iprp", box(b"ipco", *shared), full_box(b"ipma", struct.pack(">I", len(items)) + associations)),
    )

"""Find the AV1 frames that no other frame refers to, by their headers: the decoder has no option to skip them.

The bits are those of the AV1 Bitstream & Decoding Process Specification, sections 5.3 (units), 5.5 (sequence header) and 5.9
(frame header). Streams with what few encoders write (layers, frame numbers, decoder models) count as having no such frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6  # types of units
_KEY_FRAME, _INTRA_FRAME, _SWITCH_FRAME = 0, 2, 3
_SELECT = 2  # the sequence leaves a choice to its frames
_HEAD = 128  # bytes; no sequence header without the declined features, and no beginning of a frame header, is longer


class _Bits:
    """Reads numbers, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self.number, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise ValueError("the header ends too early")
        return (self.number >> self.left) & ((1 << count) - 1)


@dataclass(frozen=True)
class _Sequence:
    """What a frame header depends on."""

    screen_content_tools: int  # 0, 1 or _SELECT
    integer_motion: int  # likewise
    order_hint_bits: int


class FrameReader:
    """Reads the packets of a stream in their order; `extradata` is that of its av.CodecContext."""

    def __init__(self, extradata: bytes | None) -> None:
        self.sequence: _Sequence | None = None
        self.is_unreferenced((extradata or b"")[4:])  # behind four bytes that sum up the sequence header

    def is_unreferenced(self, packet: Any) -> bool:
        """Return whether a packet (any buffer of bytes) holds one frame, shown once, to which no other frame refers."""
        headers = []
        try:
            for kind, data in _iter_units(memoryview(packet)):
                if kind == _SEQUENCE:
                    self.sequence = _read_sequence(_Bits(data))
                elif kind in (_FRAME_HEADER, _FRAME):
                    headers.append(data)
            return len(headers) == 1 and self.sequence is not None and _refreshes_nothing(_Bits(headers[0]), self.sequence)
        except (ValueError, IndexError):  # damaged, or declined
            return False


def _iter_units(data: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield (type, first _HEAD bytes) of each unit. Raises ValueError for one of a layer or of unknown size."""
    position = 0
    while position < len(data):
        head, size, shift = data[position], 0, 0
        if head & 0b100 or not head & 0b10:
            raise ValueError("a unit of a layer, or without a size")
        while True:
            position += 1
            size |= (data[position] & 127) << shift
            shift += 7
            if data[position] < 128:
                break
        position += 1
        yield head >> 3 & 15, bytes(data[position : position + min(size, _HEAD)])
        position += size


def _read_sequence(bits: _Bits) -> _Sequence:
    """Raises ValueError for a sequence with features that are not handled here."""
    bits.read(4)  # profile, still picture
    if bits.read(2):  # reduced header, timing information
        raise ValueError("not handled")
    has_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):  # operating points
        bits.read(12)
        if bits.read(5) > 7:  # level
            bits.read(1)
        if has_delay and bits.read(1):
            bits.read(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits)
    bits.read(height_bits)
    if bits.read(1):
        raise ValueError("frame numbers are not handled")
    bits.read(7)  # 128 x 128 blocks, intra filter and edges, inter-intra, masks, warping, dual filters
    has_order = bits.read(1)
    bits.read(2 * has_order)
    screen_content_tools = _SELECT if bits.read(1) else bits.read(1)
    integer_motion = _SELECT
    if screen_content_tools and not bits.read(1):
        integer_motion = bits.read(1)
    return _Sequence(screen_content_tools, integer_motion, bits.read(3) + 1 if has_order else 0)


def _refreshes_nothing(bits: _Bits, sequence: _Sequence) -> bool:
    """Return whether the frame is shown and replaces none of the frames kept for reference."""
    if bits.read(1):  # shows a frame that was decoded before
        return False
    kind = bits.read(2)
    if kind in (_KEY_FRAME, _SWITCH_FRAME) or not bits.read(1):  # refreshes all, or is not shown
        return False
    is_resilient = bits.read(1)
    bits.read(1)  # no update of probabilities
    tools = bits.read(1) if sequence.screen_content_tools == _SELECT else sequence.screen_content_tools
    if tools and sequence.integer_motion == _SELECT:
        bits.read(1)
    bits.read(1 + sequence.order_hint_bits)  # other size, order
    if kind != _INTRA_FRAME and not is_resilient:
        bits.read(3)  # primary reference
    return bits.read(8) == 0

"""Decode the packets of a video in PyAV, strictly: every error of the decoder marks packets as broken."""

import itertools
from collections.abc import Iterator
from typing import Any

import av
import av.logging

from tfdetect.data import headway
from tfdetect.data.media import containers
from tfdetect.data.media.containers import PacketScan
from tfdetect.data.media.selection import SKIPPING, Selection

_HARMLESS_ERRORS = ("mmco", "co located POCs")  # logged for intact streams that were cut and joined losslessly
_DECODER_DELAY = 4  # frames that a decoder may hold back, for videos whose timestamps do not identify broken frames


def decode(name: str, scan: PacketScan, selection: Selection | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (id, av.VideoFrame) for each frame that decodes; adds packets that do not to `scan.broken`.

    An error often shows only some frames after the damage began. So after one, the frames that the decoder still holds back
    are dropped, and decoding resumes at the next key frame. With a selection of packets, only these are decoded.
    """
    packet_of = {pts: n for n, pts in enumerate(scan.pts)}
    needed, kept = (selection.packets, selection.positions) if selection else (None, {})
    last = len(scan.pts) if needed is None else max(needed)
    count, failed, pending, skips = 0, False, False, False
    with av.logging.Capture() as log, containers.open_video(name, max_pixels=scan.max_pixels) as (container, stream, _):
        codec = stream.codec_context
        packets = itertools.chain(containers.iter_packets(container, stream, scan), [None])  # None flushes the decoder
        for n, packet in enumerate(packets):
            headway.note(min(n, last), last)
            if needed is not None and n in scan.unreferenced and n not in kept:
                continue
            flush = packet is None or (needed is not None and n not in needed)
            failed = failed and (flush or not packet.is_keyframe)
            if not (failed or (flush and not pending)):
                if not flush and needed is not None and skips == (n in kept) and scan.codec in SKIPPING:
                    skips = not skips
                    codec.skip_frame = "NONREF" if skips else "DEFAULT"
                log.clear()
                frames, failed = _decode_packet(codec, packet, flush, n in scan.corrupt)
                pending = not flush
                errors = [text for _, module, text in log if module == codec.name and text]
                if failed or not all(text.startswith(_HARMLESS_ERRORS) for text in errors):
                    scan.broken.add(n - 1 if flush else n)
                for frame in frames:
                    number = packet_of.get(frame.pts, -1) if scan.exact else count
                    count += 1
                    if frame.is_corrupt:
                        scan.broken.add(number)
                    else:
                        yield number, frame
            if n > last:
                return


def _decode_packet(codec: Any, packet: Any, flush: bool, corrupt: bool) -> tuple[list[Any], bool]:
    """Return the frames that a packet yields, or the remaining ones with `flush`, and whether decoding failed."""
    try:
        if not flush and corrupt:
            raise av.error.InvalidDataError(0, "corrupt packet")
        frames, failed = codec.decode(None if flush else packet), False
    except MemoryError:
        raise
    except av.FFmpegError:
        frames, failed = [], True
    if flush or failed:
        codec.flush_buffers()
    return frames, failed


def without_broken(scan: PacketScan, ids: list[int]) -> list[int]:
    """Return those of the decoded frames' ids, in presentation order, that depend on no broken packet."""
    if not scan.broken:
        return ids
    if not scan.exact:
        return [number for number in ids if number < min(scan.broken) - _DECODER_DELAY]
    intact, damaged, valid_from = set(), False, None
    for n, (pts, is_key) in enumerate(zip(scan.pts, scan.is_key, strict=True)):
        if is_key:  # frames shown before a key frame may depend on damage that precedes it
            valid_from, damaged = pts if damaged else None, False
        damaged = damaged or n in scan.broken
        if not damaged and (valid_from is None or (pts or 0) >= valid_from):
            intact.add(n)
    return [number for number in ids if number in intact]

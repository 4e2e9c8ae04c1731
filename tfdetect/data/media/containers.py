"""Inspect a video's container before decoding: is it truncated, is it encrypted, which packets does it hold?

FFmpeg decodes an encrypted file without its key as noise, and treats a truncated file as a shorter one. So `inspect` first
checks the bytes; then FFmpeg's demuxer lists the packets (`scan_packets`).
"""

import logging
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, BinaryIO

import av
import av.logging
import cv2

from tfdetect.data.media import av1_units, nal_units, sniff
from tfdetect.data.media.boxes import iter_boxes
from tfdetect.data.media.frames import LIMITS
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import Limits

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,ogg,asf,flv,dv"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "err_detect": "explode"}
_MAX_HEADER_BYTES = 2**26  # read of a moov box; no real header is larger
_PARENT_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"udta", b"dinf")
_STSD_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_ENCRYPTION_PATH = (0x1654AE6B, 0xAE, 0x6D80, 0x6240, 0x5035)  # Tracks, TrackEntry, ContentEncodings, ContentEncoding
_ENCRYPTED_ENTRIES = (b"encv", b"drmi", b"drmv")  # sample entries of Common Encryption and FairPlay


class NoDecoder(Exception):
    """PyAV has no decoder for the codec."""


@dataclass
class PacketScan:
    """The packets of the video stream in decoding order, and what its header declares."""

    format: str
    codec: str
    declared: int  # number of frames, 0 if the header does not say
    fps: float
    time_base: float  # seconds per unit of pts
    num_streams: int  # of video
    truncation: str  # why the file is known to be cut short, or ""
    max_pixels: int  # limit per frame
    frame_pixels: int  # as declared by the header
    pts: list[int | None] = field(default_factory=list)
    is_key: list[bool] = field(default_factory=list)
    corrupt: set[int] = field(default_factory=set)  # packets that the container reports as corrupt, by number
    broken: set[int] = field(default_factory=set)  # packets known to be broken, by number
    joins: set[int] = field(default_factory=set)  # packets with which an appended recording begins, by number
    smallest: int = 2**62  # bytes of the smallest packet
    malformed: bool = False  # the structure of a packet is broken, so it may not decode
    unreferenced: set[int] = field(default_factory=set)  # packets of AV1 to whose frames no other frame refers
    discards: bool = False  # an edit list discards packets
    exact: bool = True  # all packets have distinct timestamps, which identify their frames


def inspect(path: str, limits: Limits = LIMITS) -> tuple[str, bool]:
    """Return (why the file is truncated or "", whether it carries data for a key system).

    Raises MediaError if the video is encrypted, or if its tables would make FFmpeg allocate excessive memory on opening.
    """
    length = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(sniff.HEAD_BYTES)
        if head[:4] == b"\x1aE\xdf\xa3":
            return _inspect_matroska(file, length), False
        if size := sniff.packet_size(head):
            return "the file ends within a transport packet" if length % size else "", False
        if head[:4] == b"RIFF":
            short = struct.unpack_from("<I", head, 4)[0] + 8 > length and head[4:8] != b"\xff\xff\xff\xff"
            return "the file is shorter than its AVI header declares" if short else "", False
        if head[:3] == b"GIF":
            return _inspect_gif(file), False
        if head[:4] == b"OggS":
            return _inspect_ogg(file, length), False
        if head[4:8].isalpha():
            return _inspect_mp4(file, length, limits)
    return "", False


def _inspect_mp4(file: BinaryIO, length: int, limits: Limits) -> tuple[str, bool]:
    """Walk the top-level boxes: the last must end with the file, and moov must not describe encrypted tracks."""
    position, names, pssh, samples = 0, set(), False, 0
    while position + 8 <= length:
        file.seek(position)
        head = file.read(16).ljust(16, b"\0")
        size, name = struct.unpack_from(">I4s", head)
        size = struct.unpack_from(">Q", head, 8)[0] if size == 1 else size or length - position
        if size < 8 or not name.isalnum():  # intact files may end in padding, but then no fragment follows
            return "a box between its fragments is broken" if b"moof" in names else "", pssh
        if position + size > length:
            return f"the file ends within its {name.decode('latin-1')} box", pssh
        if name in (*_PARENT_BOXES, b"cmov"):  # FFmpeg accepts all of them at the top level
            file.seek(position)
            box = file.read(min(size, _MAX_HEADER_BYTES))
            pssh = pssh or b"pssh" in box
            _refuse_encrypted(box, 0, len(box))
            samples += _count_unlisted_samples(box, 0, len(box))
            if excess := limits.check("frames", samples, "frames announced"):
                raise MediaError(excess)
        names.add(name)
        position += size
    return "" if b"moov" in names else "the file has no moov box, the index of its frames", pssh


def _count_unlisted_samples(data: bytes, start: int, end: int, is_sound: bool = False) -> int:
    """Count samples that are declared but not listed individually: a 1 kB file that declares 80 million costs FFmpeg 4.7 GB.

    PCM audio with one tick per sample does not count, because FFmpeg groups such samples by the thousand.
    """
    count, is_pcm = 0, False
    for name, first, last in iter_boxes(data, start, end):
        number = [int.from_bytes(data[i : i + 4], "big") for i in (first, first + 4, first + 8)]
        if name == b"cmov":
            raise MediaError("its header is compressed (cmov) and could unpack to any size: convert the file to MP4 first")
        if name in _PARENT_BOXES:
            count += _count_unlisted_samples(data, first, last, is_sound)
        elif name == b"hdlr":
            is_sound = data[first + 8 : first + 12] == b"soun"
        elif name == b"stts":
            is_pcm = is_sound and data[first + 4 : first + 8] == data[first + 12 : first + 16] == b"\0\0\0\1"
        elif name == b"trun" and not number[0] & 0xF00:  # neither durations nor sizes nor flags nor offsets
            count += number[1]
        elif name == b"stsz" and number[1] and not is_pcm:
            count += number[2]
    return count


def _refuse_encrypted(data: bytes, start: int, end: int, path: tuple[bytes, ...] = _STSD_PATH) -> None:
    """Raise MediaError if a sample description at `path` in data[start:end] declares encrypted video."""
    for name, first, last in iter_boxes(data, start, end):
        if name == path[0] and len(path) > 1:
            _refuse_encrypted(data, first, last, path[1:])
        elif name == path[0]:
            for entry, inner, stop in iter_boxes(data, first + 8, last):
                if entry in _ENCRYPTED_ENTRIES or (entry != b"enca" and b"sinf" in data[inner:stop]):
                    schm = data.find(b"schm", inner, stop)  # the scheme, such as cenc or cbcs, is 8 bytes further on
                    scheme = entry if schm < 0 else data[schm + 8 : schm + 12]
                    raise MediaError(f"encrypted ({scheme.decode('latin-1')}): decrypt it first")


def _inspect_matroska(file: BinaryIO, length: int) -> str:
    """Check that the segment ends with the file, unless its size is unknown, and that no track is encrypted."""
    file.seek(0)
    data = file.read(min(length, 2**20))
    for element, start, end in _iter_elements(data, 0, length):
        if element == 0x18538067:
            if _has_element(data, start, min(end, len(data)), _ENCRYPTION_PATH):
                raise MediaError("encrypted (Matroska ContentEncryption): decrypt it first")
            return "the file is shorter than its Matroska header declares" if end > length else ""
    return "the file ends within its Matroska header"


def _has_element(data: bytes, start: int, end: int, path: tuple[int, ...]) -> bool:
    """Return whether data[start:end] contains the element at `path`, a sequence of nested EBML ids."""
    for element, first, last in _iter_elements(data, start, end):
        if element == path[0] and (len(path) == 1 or _has_element(data, first, min(last, end), path[1:])):
            return True
    return False


def _iter_elements(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, content start, content end) for each EBML element; one of unknown size extends to `end`."""
    while start + 2 <= min(end, len(data)):
        width = 9 - data[start].bit_length()
        element = int.from_bytes(data[start : start + width], "big")
        start += width
        if width > 4 or start >= len(data):
            return
        width = 9 - data[start].bit_length()
        mask = (1 << 7 * width) - 1
        size = int.from_bytes(data[start : start + width], "big") & mask
        start += width
        stop = end if size == mask else start + size
        yield element, start, stop
        start = stop


def _inspect_gif(file: BinaryIO) -> str:
    """Walk the blocks of a GIF up to its trailer."""
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # mapped rather than read, because the file may be large
    try:
        position = 13 + _palette_bytes(data[10])
        while data[position] != 0x3B:
            if data[position] == 0x2C:
                position += 11 + _palette_bytes(data[position + 9])
            elif data[position] == 0x21:
                position += 2
            else:
                return "the GIF has an invalid block"
            while data[position]:
                position += 1 + data[position]
            position += 1
    except IndexError:
        return "the GIF ends before its trailer"
    return ""


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _inspect_ogg(file: BinaryIO, length: int) -> str:
    """Check that the last page, which has at most 65,307 bytes, is complete."""
    file.seek(max(0, length - 65_307))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    complete = len(page) > 27 and 27 + page[26] + sum(page[27 : 27 + page[26]]) <= len(page)
    return "" if complete else "the file ends within a page of its Ogg stream"


def silence_libraries() -> None:
    """Keep FFmpeg and OpenCV from writing to stderr: this module catches and counts their errors."""
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    logging.getLogger("libav").propagate = False
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(0)


@contextmanager
def decodable_path(path: str | PathLike[str]) -> Iterator[str]:
    """Yield a path to the file that every decoder accepts.

    It is absolute, because FFmpeg might take a relative one for a URL. Decoders reject names that are not UTF-8; such files
    are passed as an open descriptor.
    """
    name = os.path.abspath(path)
    if name.encode("utf-8", "ignore") == os.fsencode(name):
        yield name
        return
    descriptor = os.open(name, os.O_RDONLY)
    try:
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextmanager
def open_video(name: str, truncation: str = "", max_pixels: int = LIMITS.pixels) -> Iterator[tuple[Any, Any, int]]:
    """Open the file in PyAV and yield (container, its best video stream, number of video streams).

    Frames larger than `max_pixels` do not decode, whatever the header declares. Raises MediaError if there is no video stream,
    with the reason `truncation` if it is given, and NoDecoder if PyAV cannot decode the codec.
    """
    with open(name, "rb") as file:
        demuxer = sniff.video_demuxer(file.read(sniff.HEAD_BYTES))
    with av.open(name, format=demuxer or None, options=_OPTIONS, metadata_errors="replace") as container:
        videos = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not videos:
            reason = "no video stream" + (" (audio only)" if container.streams.audio else "")
            raise MediaError(f"truncated: {truncation}" if truncation else reason)
        best = container.streams.best("video")
        stream = best if best in videos else videos[0]
        if stream.codec_context is None:
            raise NoDecoder
        stream.codec_context.options = {"max_pixels": str(2 * max_pixels + 2**14)}  # the decoder counts its padding too
        stream.codec_context.thread_count = 1  # one file per worker is faster than two threads per file
        yield container, stream, len(videos)


def check_limits(width: int, height: int, frames: float, seconds: float, limits: Limits) -> None:
    """Raise MediaError if the header announces more than `limits` allow."""
    for name, value, unit in (("pixels", width * height, f"pixels ({width} x {height}) announced"),
                              ("frames", frames, "frames announced"), ("seconds", seconds, "seconds announced")):  # fmt: skip
        if excess := limits.check(name, value, unit):
            raise MediaError(excess)


def scan_packets(name: str, truncation: str, limits: Limits = LIMITS) -> PacketScan:
    """Demux the video stream once. Raises MediaError if there is none, NoDecoder if PyAV cannot decode it."""
    try:
        with av.logging.Capture() as log, open_video(name, truncation) as (container, stream, count):
            fps, time_base, codec = frame_rate(stream) or 25.0, float(stream.time_base), stream.codec_context.name
            check_limits(stream.width, stream.height, stream.frames, float((stream.duration or 0) * stream.time_base), limits)
            scan = PacketScan(container.format.name, codec, stream.frames, fps, time_base, count, truncation, limits.pixels,
                              stream.width * stream.height)  # fmt: skip
            width = nal_units.length_bytes(stream.codec_context)
            reader = av1_units.FrameReader(stream.codec_context.extradata) if codec in ("av1", "libdav1d") else None
            for packet in iter_packets(container, stream, scan):
                if packet.has_sidedata("encryption_info"):
                    raise MediaError("encrypted (Common Encryption): decrypt it first")
                scan.corrupt |= {len(scan.pts)} if packet.is_corrupt else set()
                scan.discards |= packet.is_discard
                scan.unreferenced |= {len(scan.pts)} if reader and reader.is_unreferenced(packet) else set()
                scan.smallest = min(scan.smallest, packet.size)
                scan.malformed |= width > 0 and not nal_units.fill_packet(packet, width)
                if excess := limits.check("frames", len(scan.pts) + 1, "frames or more"):
                    raise MediaError(excess)
                scan.pts.append(packet.pts)
                scan.is_key.append(packet.is_keyframe)
            if scan.format.startswith("mov") and len(stream.index_entries) > len(scan.pts):
                scan.truncation = scan.truncation or "samples are missing"
    except (MemoryError, PermissionError, FileNotFoundError):
        raise
    except av.FFmpegError as error:
        raise MediaError(f"truncated: {truncation}" if truncation else f"damaged container: {error.strerror}") from None
    # Where recordings are joined, only the continuity counter of the transport packets is broken.
    scan.corrupt -= {number - back for number in scan.joins for back in (1, 2)}
    scan.broken |= scan.corrupt
    if any(module.startswith("matroska") for _, module, _ in log):
        scan.truncation = scan.truncation or "its Matroska elements are broken"
    if not scan.pts:
        raise MediaError(("truncated: " if scan.truncation else "") + f"it has a header but no frames ({scan.declared} declared)")
    if scan.truncation and not scan.format.startswith(("mov", "avi")):  # these two store the size of each packet
        scan.broken.add(len(scan.pts) - 1)
    scan.exact = None not in scan.pts and len(set(scan.pts)) == len(scan.pts)
    return scan


def frame_rate(stream: Any) -> float:
    """Return the average frames per second, or 0 if unknown.

    FFmpeg's guess is used if the container gives no rate (Ogg) or gives the ticks of a clock (DV).
    """
    average = float(stream.average_rate or 0)
    return average if 0 < average <= 1000 else float(stream.guessed_rate or 0)


def iter_packets(container: Any, stream: Any, scan: PacketScan) -> Iterator[Any]:
    """Yield the non-empty packets up to where the container breaks, and record joins and truncation in `scan`.

    Where one recording was appended to another (`cat`), timestamps jump back; they are shifted to continue.
    """
    tick, offset, before, latest = max(1, round(1 / (scan.fps * scan.time_base))), 0, None, 0
    try:
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            if packet.dts is not None:
                if before is not None and packet.dts < before and packet.is_keyframe:
                    scan.joins.add(number)
                    offset = latest + tick - packet.dts
                before = packet.dts
                packet.dts += offset
            if packet.pts is not None:
                packet.pts += offset
                latest = max(latest, packet.pts)
            yield packet
    except av.error.InvalidDataError:
        scan.truncation = scan.truncation or "the container breaks off"

"""What a video's container says before any decoder runs: is it cut short, is it encrypted, which packets are there?

FFmpeg reads an encrypted file without its key as noise, and ends a truncated one as if it had been shorter. So the bytes
are looked at first (`inspect`); then FFmpeg's demuxer lists the packets (`scan_packets`).
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

from tfdetect.data.media import sniff
from tfdetect.data.media.boxes import iter_boxes
from tfdetect.data.media.frames import LIMITS
from tfdetect.data.media.sniff import MediaError
from tfdetect.limits import Limits

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,ogg,asf,flv,dv"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "err_detect": "explode"}
_HEADER_BYTES = 2**26  # of a moov box or of Matroska's tracks, at most: more is no header
_NESTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"udta", b"dinf")
_TO_STSD = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_TO_ENCRYPTION = (0x1654AE6B, 0xAE, 0x6D80, 0x6240, 0x5035)  # Tracks, TrackEntry, ContentEncodings, ContentEncoding
_PROTECTED = (b"encv", b"drmi", b"drmv")  # sample entries of Common Encryption and FairPlay


class NoDecoder(Exception):
    """PyAV lacks the codec."""


@dataclass
class PacketScan:
    """The video stream's packets in decoding order, and what the header says of it."""

    format: str
    codec: str
    declared: int  # frames, 0 where the header does not say
    frame_rate: float  # frames a second
    second: float  # seconds in a unit of pts
    streams: int  # of video
    cut: str  # why the file is known to be cut short, or ""
    pixels: int  # of a frame, at most
    area: int  # pixels of a frame by the header
    pts: list[int | None] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    corrupt: set[int] = field(default_factory=set)  # numbers of packets that the container knows to be broken
    bad: set[int] = field(default_factory=set)  # numbers of packets known to be broken
    joins: set[int] = field(default_factory=set)  # numbers of packets at which another recording begins
    skips: bool = False  # an edit list leaves packets out
    exact: bool = True  # every packet has a timestamp of its own, by which its frame is found again


def inspect(path: str, limits: Limits = LIMITS) -> tuple[str, bool]:
    """Return (why the file is cut short or "", whether it carries data for a key system).

    Raises MediaError if it is encrypted, or if its tables would make FFmpeg take much memory as soon as it opens the file.
    """
    length = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(sniff.HEAD_BYTES)
        if head[:4] == b"\x1aE\xdf\xa3":
            return _matroska(file, length), False
        if packet := sniff.packet_size(head):
            return "the file ends within a transport packet" if length % packet else "", False
        if head[:4] == b"RIFF":
            short = struct.unpack_from("<I", head, 4)[0] + 8 > length and head[4:8] != b"\xff\xff\xff\xff"
            return "the file is shorter than its AVI header says" if short else "", False
        if head[:3] == b"GIF":
            return _gif(file), False
        if head[:4] == b"OggS":
            return _ogg(file, length), False
        if head[4:8].isalpha():
            return _mp4(file, length, limits)
    return "", False


def _mp4(file: BinaryIO, length: int, limits: Limits) -> tuple[str, bool]:
    """Walk the top-level boxes: the last one has to end with the file, and moov must not tell of encryption."""
    at, names, pssh, samples = 0, set(), False, 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16).ljust(16, b"\0")
        size, name = struct.unpack_from(">I4s", head)
        size = struct.unpack_from(">Q", head, 8)[0] if size == 1 else size or length - at
        if size < 8 or not name.isalnum():  # good files may end in padding, but no fragment follows it
            return "a box between its fragments is broken" if b"moof" in names else "", pssh
        if at + size > length:
            return f"the file ends within its {name.decode('latin-1')} box", pssh
        if name in (*_NESTS, b"cmov"):  # FFmpeg takes any of them at any place
            file.seek(at)
            box = file.read(min(size, _HEADER_BYTES))
            pssh = pssh or b"pssh" in box
            _refuse_encrypted(box, 0, len(box))
            samples += _unlisted(box, 0, len(box))
            if excess := limits.check("frames", samples, "frames announced"):
                raise MediaError(excess)
        names.add(name)
        at += size
    return "" if b"moov" in names else "the file has no moov box, the index of its frames", pssh


def _unlisted(data: bytes, at: int, end: int, sound: bool = False) -> int:
    """How many samples are announced and not listed one by one: 80 million in a file of 1 kB made FFmpeg take 4.7 GB.

    Those of plain sound, a tick each, are left out, for FFmpeg takes them by the thousand.
    """
    count, plain = 0, False
    for name, start, stop in iter_boxes(data, at, end):
        number = [int.from_bytes(data[i : i + 4], "big") for i in (start, start + 4, start + 8)]
        if name == b"cmov":
            raise MediaError("its header is compressed (cmov), which may unpack to anything: convert it to MP4 first")
        if name in _NESTS:
            count += _unlisted(data, start, stop, sound)
        elif name == b"hdlr":
            sound = data[start + 8 : start + 12] == b"soun"
        elif name == b"stts":
            plain = sound and data[start + 4 : start + 8] == data[start + 12 : start + 16] == b"\0\0\0\1"
        elif name == b"trun" and not number[0] & 0xF00:  # neither durations nor sizes nor flags nor offsets
            count += number[1]
        elif name == b"stsz" and number[1] and not plain:
            count += number[2]
    return count


def _refuse_encrypted(data: bytes, at: int, end: int, path: tuple[bytes, ...] = _TO_STSD) -> None:
    """Raise MediaError if a sample description below `path` in data[at:end] is one of encrypted video."""
    for name, start, stop in iter_boxes(data, at, end):
        if name == path[0] and len(path) > 1:
            _refuse_encrypted(data, start, stop, path[1:])
        elif name == path[0]:
            for entry, first, last in iter_boxes(data, start + 8, stop):
                if entry in _PROTECTED or (entry != b"enca" and b"sinf" in data[first:last]):
                    kind = data.find(b"schm", first, last)  # the scheme, cenc or cbcs, follows 8 bytes on
                    scheme = entry if kind < 0 else data[kind + 8 : kind + 12]
                    raise MediaError(f"encrypted ({scheme.decode('latin-1')}): decrypt it first")


def _matroska(file: BinaryIO, length: int) -> str:
    """Check that the segment ends with the file, unless its size is unknown, and that no track is encrypted."""
    file.seek(0)
    data = file.read(min(length, 2**20))
    for name, start, end in _elements(data, 0, length):
        if name == 0x18538067:
            if _encrypted(data, start, min(end, len(data))):
                raise MediaError("encrypted (Matroska ContentEncryption): decrypt it first")
            return "the file is shorter than its Matroska header says" if end > length else ""
    return "the file ends within its Matroska header"


def _encrypted(data: bytes, at: int, end: int, path: tuple[int, ...] = _TO_ENCRYPTION) -> bool:
    """Look for the last element of `path`, each within the one before, in data[at:end]."""
    for name, start, stop in _elements(data, at, end):
        if name == path[0] and (len(path) == 1 or _encrypted(data, start, min(stop, end), path[1:])):
            return True
    return False


def _elements(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, start, end) of each EBML element's content; one of unknown size goes on to `end`."""
    while at + 2 <= min(end, len(data)):
        wide = 9 - data[at].bit_length()
        name = int.from_bytes(data[at : at + wide], "big")
        at += wide
        if wide > 4 or at >= len(data):
            return
        wide = 9 - data[at].bit_length()
        mask = (1 << 7 * wide) - 1
        size = int.from_bytes(data[at : at + wide], "big") & mask
        at += wide
        stop = end if size == mask else at + size
        yield name, at, stop
        at = stop


def _gif(file: BinaryIO) -> str:
    """Walk the blocks of a GIF to its trailer."""
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # not read, for it may be large
    try:
        at = 13 + _palette(data[10])
        while data[at] != 0x3B:
            if data[at] == 0x2C:
                at += 11 + _palette(data[at + 9])
            elif data[at] == 0x21:
                at += 2
            else:
                return "a block of the GIF is not one"
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:
        return "the GIF ends before its trailer"
    return ""


def _ogg(file: BinaryIO, length: int) -> str:
    """Look at the last page, which is of 65,307 bytes at most."""
    file.seek(max(0, length - 65_307))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    whole = len(page) > 27 and 27 + page[26] + sum(page[27 : 27 + page[26]]) <= len(page)
    return "" if whole else "the file ends within a page of its Ogg stream"


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def silence_libraries() -> None:
    """Keep FFmpeg off stderr: its errors are caught and counted here."""
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    logging.getLogger("libav").propagate = False
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(0)


@contextmanager
def decodable_path(path: str | PathLike[str]) -> Iterator[str]:
    """A name of the file that every decoder takes: absolute, since a relative one FFmpeg might take for a URL; by an open
    descriptor where the file's own name is not UTF-8, which no decoder takes."""
    name = os.path.abspath(path)
    if name.encode("utf-8", "ignore") == os.fsencode(name):
        yield name
        return
    handle = os.open(name, os.O_RDONLY)
    try:
        yield f"/dev/fd/{handle}"
    finally:
        os.close(handle)


@contextmanager
def open_video(name: str, cut: str = "", pixels: int = LIMITS.pixels) -> Iterator[tuple[Any, Any, int]]:
    """Open the file in PyAV: (container, its best video stream, how many of these there are).

    A frame that grows beyond `pixels` within the stream, whatever the header announced, does not decode.
    """
    with open(name, "rb") as file:
        demuxer = sniff.video_demuxer(file.read(sniff.HEAD_BYTES))
    with av.open(name, format=demuxer or None, options=_OPTIONS, metadata_errors="replace") as container:
        videos = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not videos:
            what = "no video stream" + (" (audio only)" if container.streams.audio else "")
            raise MediaError(f"truncated: {cut}" if cut else what)
        best = container.streams.best("video")
        stream = best if best in videos else videos[0]
        if stream.codec_context is None:
            raise NoDecoder
        stream.codec_context.options = {"max_pixels": str(2 * pixels + 2**14)}  # the decoder counts its padding too
        stream.codec_context.thread_count = 1  # one file a worker is faster than two threads a file
        yield container, stream, len(videos)


def check_limits(width: int, height: int, frames: float, seconds: float, limits: Limits) -> None:
    """MediaError if the header announces more than `limits`."""
    size = f"pixels ({width} x {height}) announced"
    for name, came, unit in (("pixels", width * height, size), ("frames", frames, "frames announced"),
                             ("seconds", seconds, "seconds announced")):  # fmt: skip
        if excess := limits.check(name, came, unit):
            raise MediaError(excess)


def scan_packets(name: str, cut: str, limits: Limits = LIMITS) -> PacketScan:
    """Demux the video stream once. Raises MediaError where there is none, NoDecoder where PyAV cannot decode it."""
    try:
        with av.logging.Capture() as log, open_video(name, cut) as (container, stream, count):
            frequency, second, codec = frame_rate(stream) or 25.0, float(stream.time_base), stream.codec_context.name
            check_limits(stream.width, stream.height, stream.frames, float((stream.duration or 0) * stream.time_base), limits)
            scan = PacketScan(container.format.name, codec, stream.frames, frequency, second, count, cut, limits.pixels,
                        stream.width * stream.height)  # fmt: skip
            for packet in iter_packets(container, stream, scan):
                if packet.has_sidedata("encryption_info"):
                    raise MediaError("encrypted (Common Encryption): decrypt it first")
                scan.corrupt |= {len(scan.pts)} if packet.is_corrupt else set()
                scan.skips |= packet.is_discard
                if excess := limits.check("frames", len(scan.pts) + 1, "frames or more"):
                    raise MediaError(excess)
                scan.pts.append(packet.pts)
                scan.key.append(packet.is_keyframe)
            if scan.format.startswith("mov") and len(stream.index_entries) > len(scan.pts):
                scan.cut = scan.cut or "samples are missing"
    except (MemoryError, PermissionError, FileNotFoundError):
        raise
    except av.FFmpegError as error:
        raise MediaError(f"truncated: {cut}" if cut else f"damaged container: {error.strerror}") from None
    scan.corrupt -= {n - back for n in scan.joins for back in (1, 2)}  # only the count of transport packets breaks off there
    scan.bad |= scan.corrupt
    if any(module.startswith("matroska") for _, module, _ in log):
        scan.cut = scan.cut or "its Matroska elements are broken"
    if not scan.pts:
        raise MediaError(("truncated: " if scan.cut else "") + f"header only, no frames ({scan.declared} declared)")
    if scan.cut and not scan.format.startswith(("mov", "avi")):  # these two know each packet's size
        scan.bad.add(len(scan.pts) - 1)
    scan.exact = None not in scan.pts and len(set(scan.pts)) == len(scan.pts)
    return scan


def frame_rate(stream: Any) -> float:
    """Frames a second on average; FFmpeg's guess where the container does not say (Ogg) or says a clock's ticks (DV); or 0."""
    average = float(stream.average_rate or 0)
    return average if 0 < average <= 1000 else float(stream.guessed_rate or 0)


def iter_packets(container: Any, stream: Any, scan: PacketScan) -> Iterator[Any]:
    """Yield the packets that hold something, up to where the container breaks.

    Where one recording was appended to another (`cat`), the times go back: they are made to go on, here for all who look.
    """
    tick, offset, before, latest = max(1, round(1 / (scan.rate * scan.second))), 0, None, 0
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
        scan.cut = scan.cut or "the container breaks off"

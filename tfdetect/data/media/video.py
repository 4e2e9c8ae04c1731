"""Video file -> whole, upright frames at native size. `media.py` is the door to it.

decord gives the pixels, PyAV where decord cannot or would be wrong, OpenCV where PyAV has no decoder. But decord and OpenCV
hide damage: they repeat frames or paint over the broken part. So PyAV first demuxes the file (measured on 9 clips of 1 to 14 s:
0.03 of the time in which decord reads 16 frames), then decodes it without making pictures of it, every decoder error counting
(0.7 of that time, for 16 evenly spaced frames make decord decode nearly everything too). In a video longer than CHECK_FRAMES
only the stretches between key frames that frames are taken from are tried. Nothing finds a flipped bit that still decodes:
common in HEVC, VP8, VP9 and MJPEG, rare in H.264.
"""

import bisect
import ctypes
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.logging
import cv2
import numpy as np

from tfdetect.data import deadline
from tfdetect.data.media import containers
from tfdetect.data.media.frames import LIMITS, FrameCallback, Media, frame_positions, resize
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.media.upright import Turn, turn
from tfdetect.limits import Limits

# decord would load its libraries for the whole process, and its libpng of 2019 then breaks TensorFlow's PNG decoder.
_everywhere, ctypes.RTLD_GLOBAL = ctypes.RTLD_GLOBAL, ctypes.RTLD_LOCAL  # type: ignore[misc]
try:
    import decord
except (ImportError, OSError):  # it has no wheels for ARM
    decord = None
finally:
    ctypes.RTLD_GLOBAL = _everywhere  # type: ignore[misc]

CHECK_FRAMES = 1000
PASSES = 3  # that a frame may be decoded, at most: where its stretch is tried, in the whole, and for its pixels
DECORD_PIXELS = 4_000_000  # a frame; decord decodes ahead, which took 360 MB for 24 frames of 3840 x 2160
_DECORD_FORMATS = ("mov", "matroska", "avi")  # decord seeks to wrong frames in MPEG streams
_ONE_PACKET_A_FRAME = ("h264", "hevc", "vp9", "mjpeg", "av1", "libdav1d")
_HARMLESS = ("mmco", "co located POCs")  # FFmpeg calls these errors; streams cut and joined without loss have them
_DELAY = 4  # frames that a decoder may hold back, where timestamps do not tell which are broken

_Pairs = Iterator[tuple[int, np.ndarray]]  # (position among the whole frames, (height, width, 3) uint8 RGB)


@dataclass
class _Found:
    """The whole frames in presentation order, and those chosen of them."""

    ids: list[int]  # number of the frame's packet if the scan is exact, else of the frame
    chosen: tuple[int, ...]  # positions in ids
    shapes: set[tuple[int, int, Turn]]  # (height, width, how it was turned), upright, of the frames that were tried
    wanted: set[int] | None = None  # the packets that have to be decoded for them, None for all


def read_video(path: str | Path, frames: int, fps: float | None, size: int | None, limits: Limits, look: FrameCallback | None) -> Media:
    """Do what `media.read_video` promises, for a file whose first bytes were found to be a video's."""
    if frames < 1 or (fps is not None and not fps > 0) or (size is not None and size < 1):
        raise ValueError(f"frames={frames}, fps={fps}, size={size} came: each has to be positive")
    containers.silence_libraries()
    deadline.extend(size=os.path.getsize(path))
    try:
        with containers.decodable_path(path) as name:
            return _read(name, frames, fps, size, limits, look)
    except (PermissionError, FileNotFoundError):
        raise
    except (av.FFmpegError, cv2.error, OverflowError) as error:
        # FFmpeg's own MemoryError is among these, for damaged headers ask for a lot; Python's passes through
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"damaged video: the decoder says {str(reason)!r}") from None


def _read(name: str, frames: int, fps: float | None, size: int | None, limits: Limits, look: FrameCallback | None) -> Media:
    """FrameCallback at the container, list the packets, find the whole frames, read those chosen."""
    cut, key_system = containers.inspect(name, limits)
    try:
        scan = containers.scan_packets(name, cut, limits)
    except containers.NoDecoder:
        if cut:
            raise MediaError(f"truncated: {cut}") from None
        return _opencv(name, frames, fps, size, look, limits)
    deadline.extend(pixels=PASSES * len(scan.pts) * scan.area)
    found = _find(name, scan, frames, fps)
    broken = bool(scan.bad or scan.cut)
    if broken and key_system:
        raise MediaError("encrypted (it carries data for a key system, pssh, and does not decode): decrypt it first")
    if not found.ids:
        raise MediaError(f"damaged: no whole frame of {max(scan.declared, len(scan.pts))}")
    pixels, width, height = _pixels(name, scan, found, size, look, not broken)
    order = sorted(range(len(scan.pts)), key=lambda n: scan.pts[n] or 0) if broken and scan.exact else found.ids
    rank = {number: i for i, number in enumerate(order)}
    indices = tuple(rank[found.ids[i]] for i in found.chosen)
    odd = max(turned.odd for _, _, turned in found.shapes)
    leaning = f"its display matrix leans it by {odd} degrees, which is left as it is" if odd else ""
    note = "; ".join(filter(None, (_damage(scan, len(found.ids)) if broken else "", leaning, _repeats(found.chosen))))
    return Media(pixels, indices, len(found.ids), width, height, note)


def _find(name: str, scan: containers.PacketScan, frames: int, fps: float | None) -> _Found:
    """Decode to find the whole frames, and choose among them; adds to scan.bad what does not decode."""
    if _may_sample(scan):
        ids = sorted(range(len(scan.pts)), key=lambda n: scan.pts[n] or 0)
        chosen = frame_positions([scan.second * (scan.pts[n] or 0) for n in ids], frames, fps)
        wanted = _stretches(scan, {ids[i] for i in chosen})
        tried = {number: _shape(frame) for number, frame in _decode(name, scan, wanted)}
        if not scan.bad and wanted <= tried.keys():
            return _Found(ids, chosen, set(tried.values()), wanted)
        scan.bad.clear()
    times, shapes = {}, set()
    for number, frame in _decode(name, scan):
        times[number] = number / scan.rate if frame.pts is None else frame.pts * scan.second
        shapes.add(_shape(frame))
    if -1 in times:  # a frame with a timestamp that no packet has: count frames instead
        scan.exact = False
        return _find(name, scan, frames, fps)
    if times and not scan.bad and _one_each(scan):  # some drop a broken frame silently, a good one only at the start
        first = min(times.values())
        scan.bad = {n for n, pts in enumerate(scan.pts) if n not in times and (pts or 0) * scan.second > first}
    ids = _sound(scan, list(times))
    return _Found(ids, frame_positions([times[n] for n in ids], frames, fps) if ids else (), shapes)


def _may_sample(scan: containers.PacketScan) -> bool:
    """Whether the video is long and its packets tell its frames well enough to decode only what is taken."""
    return len(scan.pts) > CHECK_FRAMES and _one_each(scan) and not (scan.bad or scan.cut or _leading(scan))


def _one_each(scan: containers.PacketScan) -> bool:
    """Whether each packet brings one frame, known by its timestamp."""
    return scan.exact and scan.codec in _ONE_PACKET_A_FRAME and not scan.skips


def _stretches(scan: containers.PacketScan, ids: set[int]) -> set[int]:
    """Numbers of all packets from key frame to key frame where one of `ids` lies between."""
    starts = [n for n, key in enumerate(scan.key) if key or n == 0] + [len(scan.key)]
    used = {bisect.bisect_right(starts, number) for number in ids}
    return {n for end in used for n in range(starts[end - 1], starts[end])}


def _leading(scan: containers.PacketScan) -> bool:
    """Whether frames are shown before the key frame that they follow in the file: decord then seeks to wrong frames."""
    start: int | None = None
    for pts, key in zip(scan.pts, scan.key, strict=True):
        start = pts if key else start
        if pts is not None and start is not None and pts < start:
            return True
    return False


def _decode(name: str, scan: containers.PacketScan, wanted: set[int] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (id, av.VideoFrame) of what decodes; adds the numbers of packets that do not to scan.bad.

    After an error nothing is taken before the next key frame, and the frames that the decoder still held back are given
    up: an error often shows only some frames after the damage began.
    """
    where = {pts: n for n, pts in enumerate(scan.pts)}
    count, lost, fed = 0, False, False
    with av.logging.Capture() as log, containers.open_video(name, pixels=scan.pixels) as (container, stream, _):
        codec = stream.codec_context
        for n, packet in enumerate(
            itertools.chain(containers.iter_packets(container, stream, scan), [None])
        ):  # None: hand out the rest
            drain = packet is None or (wanted is not None and n not in wanted)
            lost = lost and (drain or not packet.is_keyframe)
            if lost or (drain and not fed):
                continue
            log.clear()
            frames, lost = _feed(codec, packet, drain, n in scan.corrupt)
            fed = not drain
            if lost or any(text and not text.startswith(_HARMLESS) for _, module, text in log if module == codec.name):
                scan.bad.add(n - 1 if drain else n)
            for frame in frames:
                number = where.get(frame.pts, -1) if scan.exact else count
                count += 1
                if frame.is_corrupt:
                    scan.bad.add(number)
                else:
                    yield number, frame


def _feed(codec: Any, packet: Any, drain: bool, corrupt: bool) -> tuple[list[Any], bool]:
    """Return the frames that one packet, or with `drain` the end of a stretch, brings, and whether it was broken."""
    try:
        if not drain and corrupt:
            raise av.error.InvalidDataError(0, "corrupt packet")
        frames, lost = codec.decode(None if drain else packet), False
    except MemoryError:
        raise
    except av.FFmpegError:
        frames, lost = [], True
    if drain or lost:
        codec.flush_buffers()
    return frames, lost


def _sound(scan: containers.PacketScan, shown: list[int]) -> list[int]:
    """Of the decoded frames' ids, in presentation order, those that lean on no broken packet."""
    if not scan.bad:
        return shown
    if not scan.exact:
        return [number for number in shown if number < min(scan.bad) - _DELAY]
    whole, broken, after = set(), False, None
    for n, (pts, key) in enumerate(zip(scan.pts, scan.key, strict=True)):
        if key:  # frames shown before it may lean on what was broken before it
            after, broken = pts if broken else None, False
        broken = broken or n in scan.bad
        if not broken and (after is None or (pts or 0) >= after):
            whole.add(n)
    return [number for number in shown if number in whole]


def _shape(frame: Any) -> tuple[int, int, Turn]:
    """(height, width) of an av.VideoFrame held upright, and what that takes."""
    turned = turn(frame)
    return (frame.width, frame.height, turned) if turned.swapped else (frame.height, frame.width, turned)


def _pixels(
    name: str, scan: containers.PacketScan, found: _Found, size: int | None, look: FrameCallback | None, sound: bool
) -> tuple[np.ndarray, int, int]:
    """Decode the chosen frames: see `_gather`."""
    if sound and decord is not None and _decord_is_right(scan, found):
        try:
            return _gather(found.chosen, size, look, _decord(name, found))
        except (decord.DECORDError, RuntimeError, IndexError):  # AV1, say: its FFmpeg is of 2019
            pass
    return _gather(found.chosen, size, look, _pyav(name, scan, found))


def _decord_is_right(scan: containers.PacketScan, found: _Found) -> bool:
    """Whether decord finds the frames that were chosen, of the same stream, upright, without holding too much of them."""
    plain = scan.exact and scan.streams == 1 and not scan.skips and scan.format.startswith(_DECORD_FORMATS)
    if not plain or len(found.shapes) != 1 or _leading(scan):
        return False
    height, width, turned = next(iter(found.shapes))
    return height * width <= DECORD_PIXELS and not turned.mirror and not turned.odd


def _gather(chosen: Sequence[int], size: int | None, look: FrameCallback | None, pairs: _Pairs) -> tuple[np.ndarray, int, int]:
    """Put the frames of `pairs` in the places `chosen` has for them: ((frames, height, width, 3), native width, height).

    Each is resized before the next one is decoded, so one frame at most is held at native size besides the result.
    """
    out, missing, native = None, set(chosen), (0, 0)
    for i, frame in pairs:
        native = frame.shape[:2] if out is None else native
        if look:
            look(i, frame)
        ready = frame if size is None else resize(frame, size)
        out = np.empty((len(chosen), *ready.shape), np.uint8) if out is None else out
        if ready.shape != out.shape[1:]:
            raise MediaError("the frames change their size within the video: give a size to read them at")
        out[[k for k, position in enumerate(chosen) if position == i]] = ready
        missing.discard(i)
    if out is None or missing:
        raise MediaError("damaged: frames that decoded once did not decode again")
    return out, native[1], native[0]


def _decord(name: str, found: _Found) -> _Pairs:
    """Read with decord. Raises RuntimeError where it counts or shapes frames otherwise than PyAV: it is then wrong."""
    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(name, num_threads=1)  # goes with this generator: an idle one grows by hundreds of MB
    if len(reader) != len(found.ids):
        raise RuntimeError("decord counts other frames")
    for i in sorted(set(found.chosen)):
        frame = reader[i].asnumpy()
        if frame.shape != (*next(iter(found.shapes))[:2], 3):
            raise RuntimeError("decord gives another shape")
        yield i, frame


def _pyav(name: str, scan: containers.PacketScan, found: _Found) -> _Pairs:
    """Read with PyAV, which leaves it to us to turn frames upright."""
    positions = {found.ids[i]: i for i in found.chosen}
    for number, frame in _decode(name, scan, found.wanted):
        if number in positions:
            yield positions.pop(number), turn(frame).apply(frame.to_ndarray(format="rgb24"))
        if not positions:
            return


def _opencv(name: str, frames: int, fps: float | None, size: int | None, look: FrameCallback | None = None,
            limits: Limits = LIMITS) -> Media:  # fmt: skip
    """The last resort: read to the end to count the frames, then once more to take some."""
    times = [seconds for seconds, _ in _grab(name, limits)]
    if not times:
        raise MediaError("no decoder here can read this video's codec")
    chosen = frame_positions(times, frames, fps)
    pairs = ((i, capture.retrieve()[1][..., ::-1]) for i, (_, capture) in enumerate(_grab(name, limits)) if i in chosen)
    pixels, width, height = _gather(chosen, size, look, pairs)
    note = "; ".join(filter(None, ("read by OpenCV, which hides damage", _repeats(chosen))))
    return Media(pixels, chosen, len(times), width, height, note)


def _grab(name: str, limits: Limits) -> Iterator[tuple[float, Any]]:
    """Yield (seconds, the capture ready to retrieve) for each frame. Raises MediaError where it has more than `limits`."""
    capture = cv2.VideoCapture(name)
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    try:
        containers.check_limits(width, height, capture.get(cv2.CAP_PROP_FRAME_COUNT), 0, limits)
        while capture.grab():
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, capture
    finally:
        capture.release()


def _damage(scan: containers.PacketScan, whole: int) -> str:
    total = max(scan.declared, len(scan.pts))
    return f"damaged: {whole} whole frames" + (f" of {total}" if total > whole else "") + (scan.cut and f", {scan.cut}")


def _repeats(chosen: Sequence[int]) -> str:
    count = len(set(chosen))
    return f"{count} frame{'s' * (count > 1)}, {len(chosen)} asked: frames repeat" if count < len(chosen) else ""
